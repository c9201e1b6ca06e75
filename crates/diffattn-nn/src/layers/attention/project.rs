//! From hidden states to q, k, v and λ, turned by position, with differences along the sequence
//! where the layer has them. Works row by row, so rows can be cut anywhere.

use super::fusion::{Differences, Fusion};
use super::layer::{DiffAttnLayer, LambdaSource, ProjectedLambda};
use diffattn::{
    DataMut, Error, KvCache, Layout, Linear, Rope, RopeOptions, RopeTable, Run, Tensor, sigmoid,
    try_zeroed,
};
use std::ops::Range;

/// What is asked of a projection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// q, k and λ of the plain heads, for maps.
    Maps,
    /// Everything, for attention over k and v as they are.
    Attention,
    /// Everything, for a cache: with the inputs as further k heads where there are differences.
    Cache,
}

/// Values that a row of each operand of attention has.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Widths {
    pub(crate) q: usize,
    pub(crate) k: usize,
    pub(crate) v: usize,
    pub(crate) lambda: usize,
    /// What attention makes, before the output projection.
    pub(crate) attended: usize,
}

impl Widths {
    /// The larger of each.
    pub(crate) fn max(self, other: Self) -> Self {
        Self {
            q: self.q.max(other.q),
            k: self.k.max(other.k),
            v: self.v.max(other.v),
            lambda: self.lambda.max(other.lambda),
            attended: self.attended.max(other.attended),
        }
    }
}

/// Where the projections of some rows go. Empty ones are not made.
#[derive(Debug)]
pub(crate) struct Projected<'b> {
    pub(crate) q: &'b mut [f32],
    pub(crate) k: &'b mut [f32],
    pub(crate) v: &'b mut [f32],
    pub(crate) lambda: &'b mut [f32],
}

/// Rows of one text that lie in one table of the rotary embedding.
#[derive(Debug, Clone)]
pub(crate) struct Turn<'t> {
    pub(crate) rows: Range<usize>,
    /// Of the first.
    pub(crate) position: usize,
    pub(crate) table: &'t RopeTable,
}

impl DiffAttnLayer {
    /// The differences to take, if any.
    pub(crate) fn fused(&self, wanted: Wanted) -> Option<&Fusion> {
        self.fusion.as_ref().filter(|_| wanted != Wanted::Maps)
    }

    /// How wide the rows of its operands are.
    pub(crate) fn widths(&self, wanted: Wanted) -> Widths {
        let heads = &self.heads;
        let (width, value_dim) = (heads.dimensions.head_dim, heads.value_dim);
        let fusion = self.fused(wanted);
        let more = |list: fn(&Fusion) -> &Vec<usize>| fusion.map_or(0, |fusion| list(fusion).len());
        let (mut k, mut v) = (
            heads.k + more(|fusion| &fusion.k),
            heads.v + more(|fusion| &fusion.v),
        );
        if wanted == Wanted::Cache {
            let cache = self.cache_options(1, 0);
            (k, v) = (cache.terms * cache.groups, cache.groups);
        }
        let heads_made = heads.dimensions.heads + fusion.map_or(0, |fusion| fusion.heads);
        Widths {
            q: (heads.q + more(|fusion| &fusion.q)) * width,
            k: k * width,
            v: if wanted == Wanted::Maps {
                0
            } else {
                v * value_dim
            },
            lambda: match self.lambda {
                #[cfg(feature = "models")]
                LambdaSource::None => 0,
                LambdaSource::Value(_) => 0,
                LambdaSource::Projected(_) => heads.dimensions.heads,
            },
            attended: heads_made * heads.dimensions.head_width,
        }
    }

    /// Multiply-adds of a row in all projections before attention.
    pub(crate) fn project_work(&self) -> usize {
        let outputs = self.q.outputs() + self.k.outputs() + self.v.outputs();
        outputs.saturating_mul(self.embed_dim())
    }

    /// Projects rows of x of a layer without differences, over scratch as wide as q and as k.
    pub(crate) fn project(
        &self,
        x: &[f32],
        to: Projected<'_>,
        turns: &[Turn<'_>],
        still: &mut [f32],
        run: Run,
    ) -> Result<(), Error> {
        for (which, to) in [to.q, to.k].into_iter().enumerate() {
            if !self.has_still() {
                self.heads_of(which, x, to, &mut [], run)?;
                continue;
            }
            let still = &mut still[..to.len()];
            self.heads_of(which, x, still, to, run)?;
            self.turn(still, to, turns, run)?;
        }
        if !to.v.is_empty() {
            self.v.forward(x, to.v, run)?;
        }
        self.project_lambda(x, to.lambda, run)
    }

    /// Whether q and k need scratch on their way.
    pub(crate) fn has_still(&self) -> bool {
        #[cfg(feature = "models")]
        if self.heads_norms.is_some() {
            return true;
        }
        self.rope.is_some()
    }

    /// q (0) or k (1) of rows as they are before they turn; `spare` is as long where they have a
    /// norm.
    fn heads_of(
        &self,
        which: usize,
        x: &[f32],
        to: &mut [f32],
        spare: &mut [f32],
        run: Run,
    ) -> Result<(), Error> {
        let linear = [&self.q, &self.k][which];
        #[cfg(feature = "models")]
        if let Some(norms) = &self.heads_norms {
            linear.forward(x, spare, run)?;
            return norms[which].rows().rows(spare, to, run);
        }
        let _ = spare;
        linear.forward(x, to, run)
    }

    /// λ where it is projected; 0 for heads that have none.
    pub(crate) fn project_lambda(&self, x: &[f32], to: &mut [f32], run: Run) -> Result<(), Error> {
        let LambdaSource::Projected(ProjectedLambda { linear, heads, mix }) = &self.lambda else {
            return Ok(());
        };
        let rows = x.len() / linear.inputs();
        let made = &mut to[..rows * linear.outputs()];
        linear.forward(x, made, run)?;
        sigmoid(made, run);
        if *mix != 1.0 {
            made.iter_mut().for_each(|lambda| *lambda *= mix);
        }
        if let Some(heads) = heads {
            spread(to, rows, heads);
        }
        Ok(())
    }

    /// Turns the heads of rows by their positions.
    pub(crate) fn turn(
        &self,
        from: &[f32],
        to: &mut [f32],
        turns: &[Turn<'_>],
        run: Run,
    ) -> Result<(), Error> {
        self.turn_by(from, to, (turns, run), |x, options, to| {
            Rope::new(x, options)?.finish_into(DataMut::F32(to))
        })
    }

    /// Turns gradients of heads back.
    #[cfg(feature = "training")]
    pub(crate) fn turn_back(
        &self,
        from: &[f32],
        to: &mut [f32],
        turns: &[Turn<'_>],
        run: Run,
    ) -> Result<(), Error> {
        self.turn_by(from, to, (turns, run), |dy, options, to| {
            diffattn::RopeBackward::new(dy, options)?.finish_into(DataMut::F32(to))
        })
    }

    fn turn_by(
        &self,
        from: &[f32],
        to: &mut [f32],
        (turns, run): (&[Turn<'_>], Run),
        call: impl Fn(Tensor<'_>, &RopeOptions<'_>, &mut [f32]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let Some(rope) = &self.rope else {
            to.copy_from_slice(from);
            return Ok(());
        };
        let head_dim = self.heads.dimensions.head_dim;
        let rows: usize = turns.iter().map(|turn| turn.rows.len()).sum();
        let width = from.len() / rows.max(1);
        let mut left = turns;
        while let Some(turn) = left.first() {
            // Texts of one length that begin at one position are turned together.
            let tokens = turn.rows.len();
            let alike = |(index, other): &(usize, &Turn<'_>)| {
                other.position == turn.position
                    && other.rows
                        == (turn.rows.start + index * tokens..turn.rows.end + index * tokens)
            };
            let texts = left.iter().enumerate().take_while(alike).count();
            left = &left[texts..];
            let range = turn.rows.start * width..(turn.rows.start + texts * tokens) * width;
            let shape = [texts, tokens, width / head_dim, head_dim];
            let options = RopeOptions {
                layout: Layout::Bshd,
                interleaved: rope.interleaved,
                rotary_dim: Some(self.rotary_dim),
                first_position: Some(vec![turn.position as i64]),
                table: Some(turn.table),
                run,
                ..RopeOptions::default()
            };
            let from = Tensor::f32(&from[range.clone()], &shape);
            call(from, &options, &mut to[range])?;
        }
        Ok(())
    }

    /// The inputs that differences of the next tokens of a text look back at, as the cache keeps
    /// them.
    pub(crate) fn last_inputs(
        &self,
        fusion: &Fusion,
        cache: &KvCache,
        batch: usize,
    ) -> Result<Vec<f32>, Error> {
        let (embed_dim, head_dim) = (self.embed_dim(), self.heads.dimensions.head_dim);
        let kept = fusion.order.min(cache.len());
        let mut inputs = try_zeroed(kept * embed_dim)?;
        let mut part_row = try_zeroed(head_dim)?;
        let tokens = cache.len() - kept..;
        for (token, x) in tokens.zip(inputs.chunks_exact_mut(embed_dim)) {
            for (part, x) in x.chunks_mut(head_dim).enumerate() {
                let head = self.heads.k + fusion.k.len() + part;
                cache.key(batch, head, token, &mut part_row)?;
                x.copy_from_slice(&part_row[..x.len()]);
            }
        }
        Ok(inputs)
    }

    /// Projects rows of one text of a layer with differences: those of x past the first `back`,
    /// which differences look back at and which are projected again (a row's bits do not depend on
    /// that). Rows of k that have room for it take the inputs, too, as a cache keeps them.
    pub(crate) fn project_fused(
        &self,
        fusion: &Fusion,
        (x, back): (&[f32], usize),
        to: Projected<'_>,
        turns: &[Turn<'_>],
        run: Run,
    ) -> Result<(), Error> {
        let (embed_dim, head_dim) = (self.embed_dim(), self.heads.dimensions.head_dim);
        let rows = x.len() / embed_dim - back;
        let differences = |linear: &Linear, of: Differences<'_>| {
            let mut plain = try_zeroed((rows + back) * linear.outputs())?;
            linear.forward(x, &mut plain, run)?;
            let mut both = try_zeroed(rows * (linear.outputs() + of.more()))?;
            of.spread(&plain, [1, rows + back], back, &mut both, run)?;
            Ok::<_, Error>(both)
        };
        let q = differences(&self.q, fusion.of_q(head_dim))?;
        self.turn(&q, to.q, turns, run)?;
        let still = differences(&self.k, fusion.of_k(head_dim))?;
        let mut k = try_zeroed(still.len())?;
        self.turn(&still, &mut k, turns, run)?;
        let (stride, width) = (to.k.len() / rows, k.len() / rows);
        let inputs = x[back * embed_dim..].chunks_exact(embed_dim);
        for ((to, k), x) in
            to.k.chunks_exact_mut(stride)
                .zip(k.chunks_exact(width))
                .zip(inputs)
        {
            to[..width].copy_from_slice(k);
            let rest = &mut to[width..];
            rest.fill(0.0);
            if !rest.is_empty() {
                rest[..embed_dim].copy_from_slice(x);
            }
        }
        let of_v = fusion.of_v(self.heads.value_dim);
        to.v.copy_from_slice(&differences(&self.v, of_v)?);
        self.project_lambda(&x[back * embed_dim..], to.lambda, run)
    }
}

/// Moves values of rows from the start of `to`, one for each of `heads` (ascending), to where these
/// heads are in as many rows as fill it; zeros between them. From the last on, so that none is
/// written over before it moved.
fn spread(to: &mut [f32], rows: usize, heads: &[usize]) {
    let (width, count) = (to.len() / rows.max(1), heads.len());
    for row in (0..rows).rev() {
        let mut end = (row + 1) * width;
        for (index, head) in heads.iter().enumerate().rev() {
            let value = to[row * count + index];
            let place = row * width + head;
            to[place + 1..end].fill(0.0);
            to[place] = value;
            end = place;
        }
        to[row * width..end].fill(0.0);
    }
}
