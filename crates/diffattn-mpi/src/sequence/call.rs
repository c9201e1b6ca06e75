//! A call, some blocks of queries of each rank at a time. What is done of a block is in the files
//! beside.

use super::backward::Sums;
use super::blocks::Kind;
use super::side::Side;
use super::types::{Heads, SequenceAttention, SequenceForward, SequenceGradients};
use diffattn::{Error, check_len, try_zeroed};
use diffattn_nn::training::Ranks;

impl<'o> SequenceAttention<'o> {
    /// This rank's rows of the result, of its own q, k and v; all ranks call it.
    ///
    /// # Errors
    /// As [`PartialAttention::new`](diffattn::PartialAttention::new);
    /// [`ErrorKind::Option`](diffattn::ErrorKind::Option) naming
    /// `stretches`, `block` or an option that is refused; what `ranks` says.
    pub fn forward(
        &self,
        ranks: &mut dyn Ranks,
        q: Heads<'_>,
        k: Heads<'_>,
        v: Heads<'_>,
    ) -> Result<SequenceForward, Error> {
        self.check(ranks)?;
        let side = Side::new(self, ranks.rank(), [q, k, v])?;
        let mut kept = SequenceForward {
            y: Vec::new(),
            pre_norm: self.options.norm.is_some().then(Vec::new),
            statistics: Vec::new(),
        };
        for blocks in self.windows(ranks.size()) {
            let mut given = side.hand_out(ranks, &blocks, &[(Kind::Queries, q)])?;
            side.statistics(ranks, &blocks, &mut given)?;
            side.rows(ranks, &blocks, &mut given, &mut kept)?;
        }
        Ok(kept)
    }

    /// This rank's gradients, for `dy` of its rows of the result; all ranks call it.
    ///
    /// # Errors
    /// As [`SequenceAttention::forward`].
    pub fn backward(
        &self,
        ranks: &mut dyn Ranks,
        dy: &[f32],
        [q, k, v]: [Heads<'_>; 3],
        kept: &SequenceForward,
    ) -> Result<SequenceGradients, Error> {
        self.check(ranks)?;
        let side = Side::new(self, ranks.rank(), [q, k, v])?;
        check_len("dy", &[kept.y.len()], dy.len())?;
        let of_result = |data| Heads {
            data,
            heads: side.heads,
            width: side.channels,
        };
        let mut to = SequenceGradients {
            dq: try_zeroed(q.data.len())?,
            dk: try_zeroed(k.data.len())?,
            dv: try_zeroed(v.data.len())?,
            dlambda: match side.lambda_heads() {
                Some(heads) => Some(try_zeroed(self.batch * side.tokens() * heads)?),
                None => None,
            },
            dnorm_weight: None,
        };
        let mut sums = Sums::default();
        let mut own = kept.statistics.iter();
        for blocks in self.windows(ranks.size()) {
            let mut parts = vec![(Kind::Queries, q), (Kind::Gradient, of_result(dy))];
            if let Some(pre_norm) = &kept.pre_norm {
                parts.push((Kind::PreNorm, of_result(pre_norm)));
            }
            let mut given = side.hand_out(ranks, &blocks, &parts)?;
            side.hand_out_statistics(ranks, &blocks, &mut given, &mut own)?;
            side.deltas(ranks, &blocks, &mut given)?;
            side.gradients(ranks, &blocks, &given, (&mut to, &mut sums))?;
        }
        sums.finish(self, ranks, &mut to)?;
        Ok(to)
    }
}
