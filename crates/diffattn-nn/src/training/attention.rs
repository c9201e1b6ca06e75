//! Attention of a layer in training: forward, keeping what backward needs, and backward into the
//! gradients of what moves. Runs in slices. Knows no model.

use super::arena::Arena;
use super::ids::{AttentionIds, LambdaParameters};
use super::maps::{self, MapBackward, MapIds};
use super::scratch::{AttentionScratch, sized};
use super::sums::LayerGrads;
use crate::layers::attention::{
    DiffAttnLayer, Differences, LambdaSource, LayerMask, Queries, Turn, Wanted,
};
use diffattn::{
    AttentionGradientsMut, AttentionNeeds, AttentionOptions, DataMut, DiffAttention,
    DiffAttentionBackward, Error, GradientOptions, KeysValues, Lambda, Linear, Pace, Run, Tensor,
};

/// What attention keeps of its tokens for the backward pass: heads of differences along the
/// sequence stand behind the others.
#[derive(Debug, Default)]
pub(crate) struct KeptAttention {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    /// `[tokens, heads]`, where there is one.
    lambda: Vec<f32>,
    /// What attention makes.
    attended: Vec<f32>,
}

/// The tokens of a call, and what they see.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tokens<'t> {
    /// B and L; of packed documents 1 and all tokens.
    pub(crate) shape: [usize; 2],
    /// `[documents + 1]`, where documents are packed.
    pub(crate) cu_seqlens: Option<&'t [i32]>,
    /// Stretches of tokens with the rotary table of theirs.
    pub(crate) turns: &'t [Turn<'t>],
    pub(crate) mask: Option<&'t LayerMask<'t>>,
    pub(crate) run: Run,
}

impl KeptAttention {
    /// The mean over tokens and differential heads of a λ that is projected; `None` of another.
    pub(super) fn lambda_mean(&self, layer: &DiffAttnLayer) -> Option<f64> {
        let LambdaSource::Projected(of) = &layer.lambda else {
            return None;
        };
        let (mut sum, mut count) = (0.0, 0_usize);
        for row in self.lambda.chunks_exact(layer.num_heads().max(1)) {
            let mut add = |value: f32| {
                sum += f64::from(value);
                count += 1;
            };
            match &of.heads {
                Some(heads) => heads.iter().for_each(|&head| add(row[head])),
                None => row.iter().for_each(|&value| add(value)),
            }
        }
        (count > 0).then(|| sum / count as f64)
    }
}

impl Tokens<'_> {
    pub(super) fn count(&self) -> usize {
        self.shape[0] * self.shape[1]
    }
}

/// A layer's attention over the tokens of a call.
#[derive(Debug, Clone, Copy)]
pub(super) struct AttentionPass<'p> {
    pub(super) layer: &'p DiffAttnLayer,
    pub(super) tokens: Tokens<'p>,
}

impl AttentionPass<'_> {
    /// y of rows of x.
    pub(super) async fn forward(
        &self,
        pace: &Pace,
        x: &[f32],
        y: &mut [f32],
        (kept, scratch): (&mut KeptAttention, &mut AttentionScratch),
    ) -> Result<(), Error> {
        let (layer, run) = (self.layer, self.tokens.run);
        let rows = self.tokens.count();
        for (which, to) in [&mut kept.q, &mut kept.k, &mut kept.v]
            .into_iter()
            .enumerate()
        {
            self.heads_of(pace, which, x, to, scratch).await?;
        }
        let heads = self.heads_made();
        match &layer.lambda {
            LambdaSource::None => kept.lambda.clear(),
            &LambdaSource::Value(value) => sized(&mut kept.lambda, rows * heads)?.fill(value),
            LambdaSource::Projected(_) => {
                let lambda = sized(&mut kept.lambda, rows * heads)?;
                layer.project_lambda(x, lambda, run)?;
            }
        }
        let width = layer.heads.dimensions.head_width;
        let attended = sized(&mut kept.attended, rows * heads * width)?;
        let [q, k, v] = self.operands([&kept.q, &kept.k, &kept.v]);
        let options = self.options(&kept.q, &kept.lambda);
        let call = DiffAttention::new(q, KeysValues::Tensors { k, v }, &options)?;
        maps::finish(pace, call.into_work(DataMut::F32(attended), None)?).await?;
        let mixed = self.mixed(&kept.attended, &mut scratch.mixed)?;
        let normed = self.normed(mixed, &mut scratch.normed)?;
        maps::forward(pace, &layer.out, normed, y, run).await
    }

    /// Output heads, those of differences along the sequence among them.
    fn heads_made(&self) -> usize {
        let width = self.layer.heads.dimensions.head_width;
        self.layer.widths(Wanted::Attention).attended / width.max(1)
    }

    /// The map of q (0), k (1) or v (2), the differences that its heads have, if any, and whether
    /// they turn.
    fn part(&self, which: usize) -> (&Linear, Option<Differences<'_>>, bool) {
        let layer = self.layer;
        let (head_dim, value_dim) = (layer.heads.dimensions.head_dim, layer.heads.value_dim);
        let fusion = layer.fusion.as_ref();
        let turns = layer.rope.is_some();
        match which {
            0 => (&layer.q, fusion.map(|of| of.of_q(head_dim)), turns),
            1 => (&layer.k, fusion.map(|of| of.of_k(head_dim)), turns),
            _ => (&layer.v, fusion.map(|of| of.of_v(value_dim)), false),
        }
    }

    /// The heads of q, k or v of rows of x: projected, with differences behind them, turned.
    async fn heads_of(
        &self,
        pace: &Pace,
        which: usize,
        x: &[f32],
        to: &mut Vec<f32>,
        scratch: &mut AttentionScratch,
    ) -> Result<(), Error> {
        let (linear, differences, turns) = self.part(which);
        let Tokens { shape, run, .. } = self.tokens;
        let len = self.tokens.count() * linear.outputs();
        let Some(differences) = differences else {
            if !turns {
                return maps::forward(pace, linear, x, sized(to, len)?, run).await;
            }
            let still = sized(&mut scratch.still, len)?;
            maps::forward(pace, linear, x, still, run).await?;
            return self
                .layer
                .turn(still, sized(to, len)?, self.tokens.turns, run);
        };
        let plain = sized(&mut scratch.plain, len)?;
        maps::forward(pace, linear, x, plain, run).await?;
        let to = sized(to, len + self.tokens.count() * differences.more())?;
        if !turns {
            return differences.spread(plain, shape, 0, to, run);
        }
        let still = sized(&mut scratch.still, to.len())?;
        differences.spread(plain, shape, 0, still, run)?;
        self.layer.turn(still, to, self.tokens.turns, run)
    }

    /// The gradient of x for that of the heads of q, k or v, and those of what of the map moves.
    async fn heads_backward(
        &self,
        pace: &Pace,
        (which, ids): (usize, MapIds),
        d: &[f32],
        (x, dx, adds): (&[f32], &mut [f32], bool),
        (arena, still, plain): (&mut Arena, &mut Vec<f32>, &mut Vec<f32>),
    ) -> Result<(), Error> {
        let (linear, differences, turns) = self.part(which);
        let Tokens { shape, run, .. } = self.tokens;
        let mut dy = d;
        if turns {
            let back = sized(still, dy.len())?;
            self.layer.turn_back(dy, back, self.tokens.turns, run)?;
            dy = back;
        }
        if let Some(differences) = differences {
            let plain = sized(plain, self.tokens.count() * linear.outputs())?;
            differences.join(dy, shape, plain, run)?;
            dy = plain;
        }
        MapBackward {
            linear,
            ids,
            dy,
            x,
            dx: Some((dx, adds)),
        }
        .run(pace, arena, run)
        .await
    }

    fn operands<'o>(&self, [q, k, v]: [&'o [f32]; 3]) -> [Tensor<'o>; 3] {
        let [batch, length] = self.tokens.shape;
        let heads = &self.layer.heads;
        let of = |values: &'o [f32], width: usize| {
            let count = values.len() / (batch * length * width).max(1);
            Tensor::f32(values, &[batch, length, count, width])
        };
        let head_dim = heads.dimensions.head_dim;
        [of(q, head_dim), of(k, head_dim), of(v, heads.value_dim)]
    }

    /// The options of attention without its norm. λ is one per token, whatever makes it, so that
    /// its gradient is summed token by token.
    fn options<'o>(&'o self, q: &'o [f32], lambda: &'o [f32]) -> AttentionOptions<'o> {
        let Tokens {
            shape,
            cu_seqlens,
            mask,
            run,
            ..
        } = self.tokens;
        let mut options = self.layer.attention_options(&Queries {
            q,
            lambda,
            shape,
            mask,
            window: None,
            place: None,
            run,
        });
        self.layer.with_differences(&mut options);
        if options.lambda.is_some() {
            options.lambda = Some(Lambda::PerToken {
                data: lambda,
                shape: vec![shape[0], shape[1], self.heads_made()],
            });
        }
        (options.cu_seqlens_q, options.cu_seqlens_k) = (cu_seqlens, cu_seqlens);
        options
    }

    /// The gradient of x, which the layer's maps read, for that of y; and those of what moves.
    pub(super) async fn backward(
        &self,
        pace: &Pace,
        [x, dy]: [&[f32]; 2],
        dx: &mut [f32],
        (kept, scratch): (&KeptAttention, &mut AttentionScratch),
        to: LayerGrads<'_, AttentionIds>,
    ) -> Result<(), Error> {
        let LayerGrads { ids, arena, sums } = to;
        let (layer, run) = (self.layer, self.tokens.run);
        let AttentionScratch {
            mixed,
            normed,
            d_normed,
            d_mixed,
            d_attended,
            ..
        } = &mut *scratch;
        let mixed = self.mixed(&kept.attended, mixed)?;
        let normed = self.normed(mixed, normed)?;
        let of_mixed = match layer.fusion {
            Some(_) => &mut *d_mixed,
            None => &mut *d_attended,
        };
        let of_mixed = sized(of_mixed, mixed.len())?;
        // (Without a norm and DEX, what is read is what was mixed.)
        let has_between = layer.norm.is_some() || layer.dex.is_some();
        let of_read = match has_between {
            true => sized(d_normed, normed.len())?,
            false => &mut *of_mixed,
        };
        MapBackward {
            linear: &layer.out,
            ids: ids.out,
            dy,
            x: normed,
            dx: Some((of_read, false)),
        }
        .run(pace, arena, run)
        .await?;
        if has_between {
            let of = (ids, &mut *arena, &mut *sums);
            self.normed_backward([d_normed, mixed], of_mixed, of)?;
        }
        if let Some(fusion) = &layer.fusion {
            let d_attended = sized(d_attended, kept.attended.len())?;
            fusion.unmix(d_mixed, layer.mixed_widths(fusion), d_attended);
        }
        let has_lambda = !matches!(
            ids.lambda,
            LambdaParameters::Frozen | LambdaParameters::Dex(_)
        );
        self.attended_backward(pace, kept, scratch, has_lambda)
            .await?;
        let AttentionScratch {
            dq,
            dk,
            dv,
            still,
            plain,
            d_lambda,
            ..
        } = scratch;
        for (which, (ids, d)) in [(ids.q, &*dq), (ids.k, dk), (ids.v, dv)]
            .into_iter()
            .enumerate()
        {
            let memory = (&mut *arena, &mut *still, &mut *plain);
            let of = (x, &mut *dx, which > 0);
            self.heads_backward(pace, (which, ids), d, of, memory)
                .await?;
        }
        if has_lambda {
            let of = (&*kept.lambda, d_lambda.as_mut_slice());
            self.lambda_backward(pace, (x, dx), of, (ids, arena, &mut sums.lambda))
                .await?;
        }
        Ok(())
    }

    /// The gradients of q, k, v and λ for that of what was attended.
    async fn attended_backward(
        &self,
        pace: &Pace,
        kept: &KeptAttention,
        scratch: &mut AttentionScratch,
        has_lambda: bool,
    ) -> Result<(), Error> {
        let options = self.options(&kept.q, &kept.lambda);
        let has_lambda = has_lambda && options.lambda.is_some();
        let gradients = GradientOptions {
            needs: Some(AttentionNeeds {
                q: true,
                k: true,
                v: true,
                lambda: has_lambda,
                ..AttentionNeeds::default()
            }),
            pre_norm: None,
            ..GradientOptions::default()
        };
        let [batch, length] = self.tokens.shape;
        let width = self.layer.heads.dimensions.head_width;
        let shape = [batch, length, self.heads_made(), width];
        let call = DiffAttentionBackward::new(
            Tensor::f32(&scratch.d_attended, &shape),
            self.operands([&kept.q, &kept.k, &kept.v]),
            &options,
            &gradients,
        )?;
        let d_lambda = sized(&mut scratch.d_lambda, kept.lambda.len())?;
        let work = call.into_work(AttentionGradientsMut {
            dq: Some(sized(&mut scratch.dq, kept.q.len())?),
            dk: Some(sized(&mut scratch.dk, kept.k.len())?),
            dv: Some(sized(&mut scratch.dv, kept.v.len())?),
            dlambda: has_lambda.then_some(d_lambda),
            ..AttentionGradientsMut::default()
        })?;
        maps::finish(pace, work).await
    }

    /// What the gradient of λ gives: to the sum of a layer's one, or through its projection.
    async fn lambda_backward(
        &self,
        pace: &Pace,
        (x, dx): (&[f32], &mut [f32]),
        (lambda, d_lambda): (&[f32], &mut [f32]),
        (ids, arena, sum): (&AttentionIds, &mut Arena, &mut f64),
    ) -> Result<(), Error> {
        let LambdaSource::Projected(of) = &self.layer.lambda else {
            for &value in d_lambda.iter() {
                *sum += f64::from(value);
            }
            return Ok(());
        };
        let LambdaParameters::Projected(ids) = ids.lambda else {
            return Ok(());
        };
        // λ = mix · σ: its derivative is λ (1 − σ).
        for (d, &lambda) in d_lambda.iter_mut().zip(lambda) {
            let sigma = if of.mix == 0.0 { 0.0 } else { lambda / of.mix };
            *d *= lambda * (1.0 - sigma);
        }
        let heads = self.layer.num_heads();
        let mut logits;
        let mut dy = &*d_lambda;
        if let Some(list) = &of.heads {
            let rows = d_lambda.chunks_exact(heads);
            logits = Vec::with_capacity(rows.len() * list.len());
            for row in rows {
                logits.extend(list.iter().map(|&head| row[head]));
            }
            dy = &logits;
        }
        MapBackward {
            linear: &of.linear,
            ids,
            dy,
            x,
            dx: Some((dx, true)),
        }
        .run(pace, arena, self.tokens.run)
        .await
    }
}

/// What of a layer has no backward pass, in words.
pub(super) fn without_backward(layer: &DiffAttnLayer) -> Option<&'static str> {
    let has_norms = layer.heads_norms.is_some();
    has_norms.then_some("norms of the heads of q and k")
}
