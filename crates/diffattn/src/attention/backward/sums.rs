//! What rows give to λ, coefficients, sinks and the norm's weight: sums in float64, in the order of
//! the result's rows, so that no thread changes them. Knows no scores.

use super::options::GradientShapes;
use crate::attention::call::Call;
use crate::attention::options::AttentionOptions;
use crate::error::Error;
use crate::run::buffer::try_zeroed;

/// How values of rows become gradients.
#[derive(Debug)]
pub(super) struct Sums {
    /// λ's shape as `[B|1, Lq|1, H|1]`.
    lambda: [usize; 3],
    /// Sinks of a head: one, or one per term.
    sinks: usize,
}

impl Sums {
    pub(super) fn new(options: &AttentionOptions<'_>, shapes: &GradientShapes) -> Self {
        let lambda = match shapes.dlambda.as_deref() {
            Some(&[heads]) => [1, 1, heads],
            Some(&[batch, queries, heads]) => [batch, queries, heads],
            _ => [1, 1, 1],
        };
        let sinks = options.sinks.as_ref().and_then(|sinks| sinks.shape.get(1));
        Self {
            lambda,
            sinks: sinks.copied().unwrap_or(1),
        }
    }

    /// dλ: δ_2 of each row, times its plan's coefficient.
    pub(super) fn lambda(
        &self,
        call: &Call<'_>,
        delta: &[f64],
        to: &mut [f32],
    ) -> Result<(), Error> {
        let [batches, queries_of, heads_of] = self.lambda;
        let mut sums: Vec<f64> = try_zeroed(to.len())?;
        each_row(call, delta, |[batch, head, term, query], delta| {
            if term == 1 {
                let coefficient = f64::from(call.plan.heads[head].coefficients[1]);
                let at = [(batch, batches), (query, queries_of), (head, heads_of)];
                let at = at.iter().fold(0, |at, &(index, extent)| {
                    at * extent + if extent == 1 { 0 } else { index }
                });
                sums[at] += coefficient * delta;
            }
        });
        round(&sums, to);
        Ok(())
    }

    /// dc_t: δ_t of all rows.
    pub(super) fn coefficients(&self, call: &Call<'_>, delta: &[f64], to: &mut [f32]) {
        let mut sums = vec![0.0; to.len()];
        each_row(call, delta, |[_, _, term, _], delta| sums[term] += delta);
        round(&sums, to);
    }

    /// The gradients of sinks, by head, or by head and term.
    pub(super) fn sinks(&self, call: &Call<'_>, rows: &[f64], to: &mut [f32]) {
        let mut sums = vec![0.0; to.len()];
        each_row(call, rows, |[_, head, term, _], value| {
            sums[head * self.sinks + term.min(self.sinks - 1)] += value;
        });
        round(&sums, to);
    }

    /// The gradient of the norm's weight from what each block of rows of each head adds to it
    /// before the norm's factor.
    pub(super) fn norm_weight(
        &self,
        call: &Call<'_>,
        blocks: &[f64],
        to: &mut [f32],
    ) -> Result<(), Error> {
        let mut sums: Vec<f64> = try_zeroed(to.len())?;
        for block in blocks.chunks_exact(to.len().max(1)) {
            for (sum, value) in sums.iter_mut().zip(block) {
                *sum += value;
            }
        }
        let scale = call.norm().map_or(1.0, |norm| f64::from(norm.scale));
        sums.iter_mut().for_each(|sum| *sum *= scale);
        round(&sums, to);
        Ok(())
    }
}

/// Calls `each([batch, head, term, query], value)` for `[B, H, T, Lq]` values of terms that there
/// are, in order.
fn each_row(call: &Call<'_>, values: &[f64], mut each: impl FnMut([usize; 4], f64)) {
    let [_, heads, terms, queries] = call.lse_shape();
    for (row, values) in values.chunks_exact(queries.max(1)).enumerate() {
        let (batch, head, term) = (row / terms / heads, row / terms % heads, row % terms);
        if term < call.plan.heads[head].terms.len() {
            for (query, &value) in values.iter().enumerate() {
                each([batch, head, term, query], value);
            }
        }
    }
}

fn round(sums: &[f64], to: &mut [f32]) {
    for (to, &sum) in to.iter_mut().zip(sums) {
        *to = sum as f32;
    }
}
