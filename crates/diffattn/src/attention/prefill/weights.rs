//! Pass 2: what joins a row's strips, and the weights that put each strip of each term into the
//! result. Knows no keys.

use super::geometry::Geometry;
use super::row_block::RowBlock;
use crate::attention::check::Coefficients;
use crate::attention::groups::{Block, HeadStep};
use crate::attention::outputs::RowsOut;
use crate::attention::softmax::{self, Rows, Strips};

impl RowBlock<'_, '_> {
    /// Row maxima, row sums and footings of the slots that the step computed.
    #[inline(always)]
    pub(super) fn reduce(&mut self, geometry: &Geometry<'_>, step: &HeadStep) {
        let stride = geometry.stride;
        let scratch = &mut *self.scratch;
        for term in &step.compute {
            let (all, rows) = (geometry.strips_of(term.slot), term.slot * stride);
            let strips = Strips {
                max: &scratch.strip_max[all.clone()],
                sum: &scratch.strip_sum[all.clone()],
            };
            let rows = Rows {
                max: &mut scratch.row_max[rows..][..stride],
                sum: &mut scratch.row_sum[rows..][..stride],
            };
            let scale = self.call.scores.exponent.exact;
            softmax::reduce(scale, &strips, &mut scratch.footing[all], rows);
        }
    }

    /// The denominator of a row of a term: its sum, with the term's sink (in units of a score)
    /// where it has one.
    #[inline(always)]
    pub(super) fn denominator(&self, at: usize, sink: Option<f64>) -> f64 {
        let row_sum = self.scratch.row_sum[at];
        match sink {
            None => row_sum,
            Some(sink) => {
                let row_max = self.scratch.row_max[at];
                self.call.scores.with_sink(row_max, row_sum, sink)
            }
        }
    }

    /// The denominators of `rows` rows of a term, into `shares`.
    #[inline(always)]
    fn denominators(&mut self, at: usize, sink: Option<f64>, rows: usize) {
        if sink.is_none() {
            let scratch = &mut *self.scratch;
            scratch.shares[..rows].copy_from_slice(&scratch.row_sum[at..][..rows]);
            return;
        }
        for row in 0..rows {
            self.scratch.shares[row] = self.denominator(at + row, sink);
        }
    }

    /// The weights of each strip, term and lane.
    #[inline(always)]
    pub(super) fn weigh(&mut self, geometry: &Geometry<'_>, step: &HeadStep) {
        let stride = geometry.stride;
        let Block {
            sequence,
            first,
            rows,
            ..
        } = self.block;
        for (t, &slot) in step.slots.iter().enumerate() {
            let sink = self.call.scores.sink(self.call.sink(step.head, t));
            let coefficients = self.call.coefficients(t, sequence.row(step.head, first));
            self.denominators(slot * stride, sink, rows);
            let scratch = &mut *self.scratch;
            let shares = &mut scratch.shares[..rows];
            match coefficients {
                // (A loop of its own, which becomes vectors.)
                Coefficients::One(coefficient) => {
                    for share in shares {
                        *share = softmax::share(coefficient, *share);
                    }
                }
                Coefficients::Each { .. } => {
                    for (row, share) in shares.iter_mut().enumerate() {
                        *share = softmax::share(coefficients.at(row), *share);
                    }
                }
            }
            for strip in 0..geometry.strips {
                let footing = &scratch.footing[geometry.strip_at(slot, strip)..][..stride];
                let at = (strip * step.slots.len() + t) * 2 * stride;
                let (high, low) = scratch.weights[at..][..2 * stride].split_at_mut(stride);
                let parts = high.iter_mut().zip(low);
                for (((high, low), &share), &footing) in parts.zip(&*scratch.shares).zip(footing) {
                    [*high, *low] = softmax::weight(share, footing);
                }
            }
        }
    }

    /// Log-sum-exp of each term, where asked for.
    pub(super) fn write_lse(&self, geometry: &Geometry<'_>, step: &HeadStep, out: &RowsOut<'_>) {
        let Block {
            sequence,
            first,
            rows,
            ..
        } = self.block;
        if !out.wants_lse() {
            return;
        }
        for t in 0..self.call.plan.terms {
            let sink = self.call.sink(step.head, t);
            for row in 0..rows {
                let lse = step.slots.get(t).map_or(f32::NEG_INFINITY, |slot| {
                    let at = slot * geometry.stride + row;
                    let (max, sum) = (self.scratch.row_max[at], self.scratch.row_sum[at]);
                    self.call.scores.log_sum_exp(max, sum, sink)
                });
                out.write_lse(self.call, sequence.row(step.head, first + row), t, lse);
            }
        }
    }
}
