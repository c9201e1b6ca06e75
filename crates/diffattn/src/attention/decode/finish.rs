//! The end of a unit: its strips added in order, norm, store, log-sum-exp.

use super::unit::{DecodeUnit, UnitRows};
use crate::attention::call::Call;
use crate::attention::outputs::RowsOut;
use crate::simd::Kernel;
use crate::simd::Vector;

/// Finishes a unit's rows.
pub(super) struct DecodeFinish<'c, 'a> {
    pub(super) call: &'c Call<'a>,
    pub(super) unit: &'c DecodeUnit<'c>,
    pub(super) outputs: &'c RowsOut<'a>,
    /// One row of the result.
    pub(super) row: &'c mut [f32],
}

impl Kernel for DecodeFinish<'_, '_> {
    type Output = ();
    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self {
            call,
            unit,
            outputs,
            row: y,
        } = self;
        let (sequence, plan) = (unit.rows.sequence, unit.rows.plan);
        let queries = sequence.queries;
        let (width, padded) = (call.value_shape.width, call.value_shape.padded());
        for (entry, (head, _)) in plan.heads.iter().enumerate() {
            for i in 0..queries {
                let rows = &plan.rows[entry * call.plan.values..][..call.plan.values];
                for (to, row) in y.chunks_exact_mut(width).zip(rows) {
                    to.fill(0.0);
                    for from in unit.partial(row * queries + i, padded) {
                        for (to, from) in to.iter_mut().zip(from) {
                            *to += from;
                        }
                    }
                }
                let y = &mut y[..call.plan.values * width];
                outputs.write_row::<V>(call, sequence.row(*head, i), y);
            }
        }
        if outputs.wants_lse() {
            unit.rows.write_lse(call, outputs);
        }
    }
}

impl UnitRows<'_> {
    fn write_lse(&self, call: &Call<'_>, outputs: &RowsOut<'_>) {
        let (sequence, queries) = (self.sequence, self.sequence.queries);
        for (head, pairs) in &self.plan.heads {
            for t in 0..call.plan.terms {
                let sink = call.sink(*head, t);
                for i in 0..queries {
                    let lse = pairs.get(t).map_or(f32::NEG_INFINITY, |pair| {
                        let row = pair * queries + i;
                        let (max, sum) = (self.row_max[row], self.row_sum[row]);
                        call.scores.log_sum_exp(max, sum, sink)
                    });
                    outputs.write_lse(call, sequence.row(*head, i), t, lse);
                }
            }
        }
    }
}
