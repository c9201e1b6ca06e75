//! Attention of a layer in training: forward, keeping what backward needs, and backward into the
//! gradients of what moves. Runs in slices. Knows no model.

use super::arena::{Arena, ParameterId};
use super::maps::{self, MapBackward, MapIds};
use super::rows::RmsRows;
use super::scratch::{AttentionScratch, sized};
use crate::layers::attention::{DiffAttnLayer, LambdaSource, LayerMask, Queries, Turn};
use diffattn::{
    AttentionGradientsMut, AttentionNeeds, AttentionOptions, DataMut, DiffAttention,
    DiffAttentionBackward, Error, GradientOptions, KeysValues, Lambda, Pace, Run, Tensor,
};

/// Which parameters a layer's attention is made of.
#[derive(Debug, Clone, Default)]
pub(crate) struct AttentionIds {
    pub(crate) q: MapIds,
    pub(crate) k: MapIds,
    pub(crate) v: MapIds,
    pub(crate) out: MapIds,
    pub(crate) lambda: LambdaParameters,
    /// The weight of the norm per head.
    pub(crate) norm: Option<ParameterId>,
}

/// Which parameters λ is made of.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) enum LambdaParameters {
    /// None that moves.
    #[default]
    Frozen,
    /// `exp(q1·k1) − exp(q2·k2)`.
    Vectors([ParameterId; 4]),
    /// `exp(a) − exp(b)`.
    Scalars([ParameterId; 2]),
    /// A projection of x.
    Projected(MapIds),
}

/// What attention keeps of its tokens for the backward pass.
#[derive(Debug, Default)]
pub(crate) struct KeptAttention {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    /// `[tokens, H]`, where there is one.
    lambda: Vec<f32>,
    /// What attention makes before the norm per head.
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

/// Where the gradients of a layer's attention go.
pub(super) struct AttentionGrads<'g> {
    pub(super) ids: &'g AttentionIds,
    pub(super) arena: &'g mut Arena,
    /// The gradient of a λ of the whole layer: added to.
    pub(super) lambda: &'g mut f64,
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
        for (linear, to) in [(&layer.q, &mut kept.q), (&layer.k, &mut kept.k)] {
            let to = sized(to, rows * linear.outputs())?;
            if layer.rope.is_none() {
                maps::forward(pace, linear, x, to, run).await?;
                continue;
            }
            let still = sized(&mut scratch.still, to.len())?;
            maps::forward(pace, linear, x, still, run).await?;
            layer.turn(still, to, self.tokens.turns, run)?;
        }
        let v = sized(&mut kept.v, rows * layer.v.outputs())?;
        maps::forward(pace, &layer.v, x, v, run).await?;
        let heads = layer.num_heads();
        match &layer.lambda {
            LambdaSource::None => kept.lambda.clear(),
            &LambdaSource::Value(value) => sized(&mut kept.lambda, rows * heads)?.fill(value),
            LambdaSource::Projected(_) => {
                let lambda = sized(&mut kept.lambda, rows * heads)?;
                layer.project_lambda(x, lambda, run)?;
            }
        }
        let attended = sized(&mut kept.attended, rows * layer.out.inputs())?;
        let [q, k, v] = self.operands([&kept.q, &kept.k, &kept.v]);
        let options = self.options(&kept.q, &kept.lambda);
        let call = DiffAttention::new(q, KeysValues::Tensors { k, v }, &options)?;
        let mut work = call.into_work(DataMut::F32(attended), None)?;
        let units = work.total();
        pace.within(&mut work, units).await?;
        drop(work);
        let normed = self.normed(&kept.attended, &mut scratch.normed)?;
        maps::forward(pace, &layer.out, normed, y, run).await
    }

    /// What the output projection reads: what was attended, through the norm per head if there is
    /// one.
    fn normed<'n>(&self, attended: &'n [f32], to: &'n mut Vec<f32>) -> Result<&'n [f32], Error> {
        let Some(norm) = self.head_norm() else {
            return Ok(attended);
        };
        let to = sized(to, attended.len())?;
        norm.forward(attended, to)?;
        Ok(to)
    }

    fn head_norm(&self) -> Option<RmsRows<'_>> {
        self.layer.norm.as_ref().map(|norm| RmsRows {
            weight: norm.weight.as_deref(),
            eps: norm.eps,
            scale: norm.scale,
            width: self.layer.heads.dimensions.head_width,
            rows_per_token: self.layer.num_heads(),
            run: self.tokens.run,
        })
    }

    fn operands<'o>(&self, [q, k, v]: [&'o [f32]; 3]) -> [Tensor<'o>; 3] {
        let [batch, length] = self.tokens.shape;
        let heads = &self.layer.heads;
        let of = |values: &'o [f32], count: usize, width: usize| {
            Tensor::f32(values, &[batch, length, count, width])
        };
        let head_dim = heads.dimensions.head_dim;
        [
            of(q, heads.q, head_dim),
            of(k, heads.k, head_dim),
            of(v, heads.v, heads.value_dim),
        ]
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
        if options.lambda.is_some() {
            options.lambda = Some(Lambda::PerToken {
                data: lambda,
                shape: vec![shape[0], shape[1], self.layer.num_heads()],
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
        to: AttentionGrads<'_>,
    ) -> Result<(), Error> {
        let AttentionGrads { ids, arena, lambda } = to;
        let (layer, run) = (self.layer, self.tokens.run);
        let normed = self.normed(&kept.attended, &mut scratch.normed)?;
        let d_normed = sized(&mut scratch.d_normed, normed.len())?;
        MapBackward {
            linear: &layer.out,
            ids: ids.out,
            dy,
            x: normed,
            dx: Some((d_normed, false)),
        }
        .run(pace, arena, run)
        .await?;
        let d_attended = sized(&mut scratch.d_attended, kept.attended.len())?;
        match self.head_norm() {
            Some(norm) => {
                norm.backward(
                    &scratch.d_normed,
                    &kept.attended,
                    d_attended,
                    (arena, ids.norm),
                )?;
            }
            None => d_attended.copy_from_slice(&scratch.d_normed),
        }
        let has_lambda = !matches!(ids.lambda, LambdaParameters::Frozen);
        self.attended_backward(pace, kept, scratch, has_lambda)
            .await?;
        let AttentionScratch {
            dq,
            dk,
            dv,
            still,
            d_lambda,
            ..
        } = scratch;
        let mut adds = false;
        for (linear, ids, gradient, turns) in [
            (&layer.q, ids.q, dq, true),
            (&layer.k, ids.k, dk, true),
            (&layer.v, ids.v, dv, false),
        ] {
            let mut dy = &**gradient;
            if turns && layer.rope.is_some() {
                let back = sized(still, dy.len())?;
                layer.turn_back(dy, back, self.tokens.turns, run)?;
                dy = back;
            }
            MapBackward {
                linear,
                ids,
                dy,
                x,
                dx: Some((dx, adds)),
            }
            .run(pace, arena, run)
            .await?;
            adds = true;
        }
        if has_lambda {
            let of = (&*kept.lambda, d_lambda.as_mut_slice());
            self.lambda_backward(pace, (x, dx), of, (ids, arena, lambda))
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
        let shape = [batch, length, self.layer.num_heads(), width];
        let call = DiffAttentionBackward::new(
            Tensor::f32(&scratch.d_attended, &shape),
            self.operands([&kept.q, &kept.k, &kept.v]),
            &options,
            &gradients,
        )?;
        let d_lambda = sized(&mut scratch.d_lambda, kept.lambda.len())?;
        let mut work = call.into_work(AttentionGradientsMut {
            dq: Some(sized(&mut scratch.dq, kept.q.len())?),
            dk: Some(sized(&mut scratch.dk, kept.k.len())?),
            dv: Some(sized(&mut scratch.dv, kept.v.len())?),
            dlambda: has_lambda.then_some(d_lambda),
            ..AttentionGradientsMut::default()
        })?;
        let units = work.total();
        pace.within(&mut work, units).await
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

/// What of a layer has no backward pass yet, in words.
pub(super) fn without_backward(layer: &DiffAttnLayer) -> Option<&'static str> {
    if layer.fusion.is_some() {
        Some("attention over differences along the sequence")
    } else if layer.heads_norms.is_some() {
        Some("norms of the heads of q and k")
    } else if layer.dex.is_some() {
        Some("DEX")
    } else {
        None
    }
}
