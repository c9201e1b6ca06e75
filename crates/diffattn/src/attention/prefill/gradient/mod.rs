//! The consumer that computes gradients: what the exponentials of a block of queries, the rows of
//! dy and the packed K and V make of dq, dk, dv and the sums beside them. Knows nothing of threads.
//!
//! Per head, of P_t = softmax (its exponentials E_t and what weighs them) and c_t its coefficient:
//! 1. dO: dy's rows, through the norm's derivative where there is a norm (`outputs.rs`);
//! 2. dP = V dOᵀ, one for all terms, and δ_t = Σ_j P_t dP (`values.rs`);
//! 3. per strip of 256 keys dS_t = scale · c_t P_t (dP − δ_t), then dq_t += K_tᵀ dS_t,
//!    dk_t += dS_tᵀ q_t and dv += Aᵀ dO, where A = Σ_t c_t P_t (`strips.rs`, `products.rs`).
//!
//! δ_t is no sum of dO∘O: that gives Σ_t c_t δ_t alone. As the block keeps its rows, P_t is what
//! the forward pass had, and no log-sum-exp is wanted. 10 d multiply-adds per pair of query and key
//! beside the 2 d of the scores, where v is 2 d wide.
//!
//! Of a range of keys the rows' statistics, and in a second call δ_t, are given: what all ranges
//! together have of them.
//!
//! A block's queries are the depth of dk's and dv's products: one strip of them, from zero, added
//! to what earlier blocks have left ([`Turn`]).

mod bias;
mod outputs;
mod products;
mod special;
mod strips;
mod values;

use super::consumer::Consumer;
use super::geometry::Geometry;
use super::row_block::RowBlock;
use crate::attention::backward::WholeRows;
use crate::attention::gradients::{GradientCall, GradientsOut, Turn};
use crate::attention::groups::HeadStep;
use crate::attention::panels::Panels;
use crate::simd::Vector;
use std::ops::Range;

/// The gradients of one block.
pub(in crate::attention) struct Gradients<'c, 'a, 'o> {
    pub(in crate::attention) of: &'c GradientCall<'a>,
    pub(in crate::attention) out: &'c GradientsOut<'o>,
    /// V as keys and K as values.
    pub(in crate::attention) mirror: Panels<'c>,
    pub(in crate::attention) turn: Turn<'c>,
    /// The strips that the block's rows see, dead ones of a block mask too.
    pub(in crate::attention) strips: Range<usize>,
    /// Which of the call's blocks of rows it is.
    pub(in crate::attention) row_block: usize,
}

/// One head of a block.
struct HeadAt<'s> {
    geometry: &'s Geometry<'s>,
    step: &'s HeadStep,
    /// Its place among the heads of its group.
    place: usize,
    /// Whether NaN or infinities are among what the block reads: what a row does not see must not
    /// meet them.
    is_special: bool,
}

impl Consumer for Gradients<'_, '_, '_> {
    #[inline(always)]
    fn head<V: Vector>(
        &self,
        rows: &mut RowBlock<'_, '_>,
        geometry: &Geometry<'_>,
        step: &HeadStep,
    ) {
        match &self.of.whole_rows {
            None => rows.reduce(geometry, step),
            Some(WholeRows { statistics, .. }) => {
                rows.read_statistics(geometry, step, &statistics.row_max, &statistics.row_sum);
            }
        }
        rows.weigh(geometry, step);
        let steps = &rows.block.group.steps;
        let mut head = HeadAt {
            geometry,
            step,
            place: steps.iter().take_while(|s| s.head != step.head).count(),
            is_special: false,
        };
        if self.of.recomputes() {
            let total = step.v.len() * rows.call.value_shape.padded() * geometry.stride;
            rows.scratch.out[..total].fill(0.0);
            rows.add_values::<V>(geometry, step);
        }
        head.is_special |= self.outputs::<V>(rows, &head);
        head.is_special |= self.queries::<V>(rows, &head);
        self.values::<V>(rows, &head);
        head.is_special |= self.deltas::<V>(rows, &head);
        self.write_sums(rows, &head);
        if !self.of.wants_deltas() {
            self.strips::<V>(rows, &head);
        }
    }
}
