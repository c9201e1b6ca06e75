//! The backward pass of blocks: δ of whole rows, then each rank's gradients, added in the order of
//! the ranks.

use super::blocks::{Block, Kind};
use super::side::{Given, Side, add, as_floats, hear, of_floats, put};
use super::types::{SequenceAttention, SequenceGradients};
use diffattn::{
    AttentionGradients, AttentionNeeds, DiffAttentionBackward, Error, GradientOptions, Lambda,
    RowStatistics, Tensor, WholeRows,
};
use diffattn_nn::training::Ranks;

impl Side<'_, '_> {
    /// Tells the ranks that a block asks the statistics of its rows.
    pub(super) fn hand_out_statistics(
        &self,
        ranks: &mut dyn Ranks,
        blocks: &[Block],
        given: &mut [Given],
        own: &mut std::slice::Iter<'_, RowStatistics>,
    ) -> Result<(), Error> {
        for block in self.own(blocks) {
            let rows = own.next().ok_or_else(|| {
                Error::option("kept", "what forward kept of these tokens", "other")
            })?;
            for to in block.others() {
                ranks.send(block.message(Kind::WholeMax, self.rank, to), &rows.row_max)?;
                let sums = as_floats(&rows.row_sum);
                ranks.send(block.message(Kind::WholeSum, self.rank, to), &sums)?;
            }
            given[block.place].rows = Some(rows.clone());
        }
        for block in self.asking(blocks) {
            if block.owner == self.rank {
                continue;
            }
            let len = self.statistics_len(block);
            let message = |kind| block.message(kind, block.owner, self.rank);
            let row_max = hear(ranks, message(Kind::WholeMax), len)?;
            let row_sum = of_floats(&hear(ranks, message(Kind::WholeSum), 2 * len)?);
            given[block.place].rows = Some(RowStatistics { row_max, row_sum });
        }
        Ok(())
    }

    /// A call of gradients of a block over this rank's keys.
    pub(super) fn backward<T>(
        &self,
        block: &Block,
        given: &Given,
        delta: Option<&[f64]>,
        body: impl FnOnce(DiffAttentionBackward<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let options = self.options(block, given);
        let rows = given.rows.as_ref();
        let statistics = rows.ok_or_else(|| Error::internal("a block without statistics"))?;
        let shape = self.result_shape(block);
        let is_own = block.owner == self.rank;
        let has_weight = (options.norm.as_ref()).is_some_and(|norm| norm.weight.is_some());
        let gradients = GradientOptions {
            needs: Some(AttentionNeeds {
                q: true,
                k: true,
                v: true,
                lambda: is_own && options.lambda.is_some(),
                norm_weight: is_own && has_weight,
                ..AttentionNeeds::default()
            }),
            pre_norm: (options.norm.is_some()).then(|| Tensor::f32(&given.pre_norm, &shape)),
            whole_rows: Some(WholeRows { statistics, delta }),
        };
        let dy = Tensor::f32(&given.dy, &shape);
        let operands = self.operands(block, given);
        body(DiffAttentionBackward::new(
            dy, operands, &options, &gradients,
        )?)
    }

    /// δ of all blocks' rows, of all ranks' keys, added in the order of the ranks.
    pub(super) fn deltas(
        &self,
        ranks: &mut dyn Ranks,
        blocks: &[Block],
        given: &mut [Given],
    ) -> Result<(), Error> {
        let rank = self.rank;
        for block in self.asking(blocks) {
            let of = &mut given[block.place];
            let delta = self.backward(block, of, None, |call| call.deltas())?;
            if block.owner != rank {
                let message = block.message(Kind::Delta, rank, block.owner);
                ranks.send(message, &as_floats(&delta))?;
            }
            of.delta = delta;
        }
        for block in self.own(blocks) {
            let own = std::mem::take(&mut given[block.place].delta);
            let mut whole = vec![0.0; own.len()];
            for from in block.asked.clone() {
                let part = if from == rank {
                    own.clone()
                } else {
                    let message = block.message(Kind::Delta, from, rank);
                    of_floats(&hear(ranks, message, 2 * own.len())?)
                };
                whole.iter_mut().zip(part).for_each(|(sum, of)| *sum += of);
            }
            for to in block.others() {
                let message = block.message(Kind::WholeDelta, rank, to);
                ranks.send(message, &as_floats(&whole))?;
            }
            given[block.place].delta = whole;
        }
        for block in self.asking(blocks) {
            if block.owner != rank {
                let of = &mut given[block.place];
                let message = block.message(Kind::WholeDelta, block.owner, rank);
                of.delta = of_floats(&hear(ranks, message, 2 * of.delta.len())?);
            }
        }
        Ok(())
    }

    /// The gradients of all blocks: dk and dv of this rank's keys, dq of its queries.
    pub(super) fn gradients(
        &self,
        ranks: &mut dyn Ranks,
        blocks: &[Block],
        given: &[Given],
        (to, sums): (&mut SequenceGradients, &mut Sums),
    ) -> Result<(), Error> {
        let rank = self.rank;
        let mut own: Vec<Option<Vec<f32>>> = vec![None; blocks.len()];
        for block in self.asking(blocks) {
            let of = &given[block.place];
            let made = self.backward(block, of, Some(&of.delta), |call| {
                let mut made: AttentionGradients = call.shapes().zeros()?;
                call.into_work(made.as_outputs())?.finish()?;
                Ok(made)
            })?;
            add(&mut to.dk, made.dk.as_deref().unwrap_or_default());
            add(&mut to.dv, made.dv.as_deref().unwrap_or_default());
            let dq = made.dq.unwrap_or_default();
            if block.owner != rank {
                ranks.send(block.message(Kind::QueryGradient, rank, block.owner), &dq)?;
                ranks.progress()?;
                continue;
            }
            own[block.place] = Some(dq);
            if let Some(weight) = made.dnorm_weight {
                Sums::add(&mut sums.norm_weight, &weight);
            }
            match (made.dlambda, self.lambda_heads(), &mut to.dlambda) {
                (Some(dlambda), Some(heads), Some(whole)) => {
                    put(whole, [self.tokens(), heads], &block.rows, &dlambda);
                }
                (Some(dlambda), ..) => Sums::add(&mut sums.lambda, &dlambda),
                _ => {}
            }
        }
        for block in self.own(blocks) {
            let dq = own[block.place].take().unwrap_or_default();
            let mut whole = vec![0.0; dq.len()];
            for from in block.asked.clone() {
                if from == rank {
                    add(&mut whole, &dq);
                } else {
                    let message = block.message(Kind::QueryGradient, from, rank);
                    add(&mut whole, &hear(ranks, message, dq.len())?);
                }
            }
            let place = [self.tokens(), self.q.width];
            put(&mut to.dq, place, &block.rows, &whole);
        }
        Ok(())
    }
}

/// Sums over all tokens: of a rank's blocks, then of all ranks in their order.
#[derive(Debug, Default)]
pub(super) struct Sums {
    pub(super) lambda: Vec<f64>,
    pub(super) norm_weight: Vec<f64>,
}

impl Sums {
    pub(super) fn add(to: &mut Vec<f64>, values: &[f32]) {
        to.resize(values.len(), 0.0);
        for (sum, &value) in to.iter_mut().zip(values) {
            *sum += f64::from(value);
        }
    }

    pub(super) fn finish(
        mut self,
        of: &SequenceAttention<'_>,
        ranks: &mut dyn Ranks,
        to: &mut SequenceGradients,
    ) -> Result<(), Error> {
        let options = &of.options;
        let weight = options.norm.as_ref().and_then(|norm| norm.weight);
        let lambda = match &options.lambda {
            Some(Lambda::Value(_)) => 1,
            Some(Lambda::PerHead(heads)) => heads.len(),
            _ => 0,
        };
        // (A rank without tokens has none of them.)
        self.lambda.resize(lambda, 0.0);
        self.norm_weight.resize(weight.map_or(0, <[f32]>::len), 0.0);
        for (own, whole) in [
            (self.lambda, &mut to.dlambda),
            (self.norm_weight, &mut to.dnorm_weight),
        ] {
            if own.is_empty() {
                continue;
            }
            let all = ranks.gather_numbers(&own, &vec![own.len(); ranks.size()])?;
            let mut sums = vec![0.0; own.len()];
            for part in all.chunks_exact(own.len()) {
                sums.iter_mut().zip(part).for_each(|(sum, of)| *sum += of);
            }
            *whole = Some(sums.into_iter().map(|sum| sum as f32).collect());
        }
        Ok(())
    }
}
