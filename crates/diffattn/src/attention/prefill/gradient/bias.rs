//! The gradient of an additive bias: Σ_t dS_t of the rows that share it, in float64. Slow, as few
//! want it. Knows no products.

use super::{Gradients, HeadAt};
use crate::attention::gradients::BiasOut;
use crate::attention::prefill::row_block::RowBlock;

impl Gradients<'_, '_, '_> {
    /// Adds what one strip gives, row by row in order.
    #[cold]
    pub(super) fn add_bias(
        &self,
        rows: &RowBlock<'_, '_>,
        head: &HeadAt<'_>,
        (place, lanes): (usize, usize),
        bias: &BiasOut<'_>,
    ) {
        let geometry = head.geometry;
        let scratch = &*rows.scratch;
        let strip = &scratch.live[place];
        for row in 0..rows.block.rows {
            let at = rows
                .block
                .sequence
                .row(head.step.head, rows.block.first + row);
            let first = bias.at(at);
            // SAFETY: rows that share a bias run one after the other.
            let sums = unsafe { bias.sums.part(first..first + bias.keys) };
            let (low, high) = scratch.row_keys(row);
            for (t, &slot) in head.step.slots.iter().enumerate() {
                let of_row = t * geometry.stride + row;
                let share = scratch.gradient.shares[of_row];
                let weight = share * scratch.footing[geometry.strip_at(slot, place) + row];
                let delta = scratch.gradient.delta[of_row];
                let column = row / lanes * geometry.score_column;
                for &(from, to) in strip.runs() {
                    let (from, to) = (from.max(low), to.min(high).max(from.max(low)));
                    for (key, sum) in (from..to).zip(&mut sums[from..to]) {
                        if rows.call.elements.sees(at, key) {
                            let at = column + (key - geometry.base) * lanes + row % lanes;
                            let e = f64::from(scratch.scores[slot * scratch.slot_len + at]);
                            let d_p = f64::from(scratch.gradient.d_p[at]);
                            *sum += weight * e * (d_p - delta);
                        }
                    }
                }
            }
        }
    }
}
