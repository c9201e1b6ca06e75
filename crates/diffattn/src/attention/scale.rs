//! Where the scale of the scores is applied, and what makes exponents and log-sum-exps of them.
//! Knows nothing of how scores are made.

use crate::simd::math::{ExponentScale, exp2_wide};
use std::f64::consts::LOG2_E;

/// Where the scale of the scores is applied. Folded into q it would cost nothing, but rounds every
/// channel of q: 1.1 to 1.3 times the error of plain float32.
#[derive(Debug, Clone, Copy)]
pub(super) struct ScoreScale {
    /// The scale itself: what a gradient is multiplied with.
    pub(super) exact: f64,
    /// A factor of q: the scale's sign, so that the others are positive; an extreme scale as a
    /// whole.
    pub(super) query: f32,
    /// A factor of the finished dot products, where softcap or bias want true scores.
    pub(super) dot: Option<f32>,
    /// A factor of (score − strip_max) before exp2: log2 e, and the scale unless `dot` has it.
    pub(super) exponent: ExponentScale,
    /// A factor of row_max that makes it a true score.
    pub(super) natural: f64,
}

impl ScoreScale {
    pub(super) fn new(scale: f64, true_scores: bool) -> Self {
        // Scales whose reciprocal is near overflow round q instead.
        let extreme = !(1e-9..=1e9).contains(&scale.abs());
        let query = if extreme {
            scale as f32
        } else {
            scale.signum() as f32
        };
        let size = if extreme { 1.0 } else { scale.abs() };
        if true_scores {
            Self {
                exact: scale,
                query,
                dot: Some(size as f32),
                exponent: ExponentScale::new(LOG2_E),
                natural: 1.0,
            }
        } else {
            Self {
                exact: scale,
                query,
                dot: None,
                exponent: ExponentScale::new(size * LOG2_E),
                natural: size,
            }
        }
    }

    /// A sink, a logit beside true scores, in units of the kernels' scores.
    pub(super) fn sink(&self, sink: Option<f32>) -> Option<f64> {
        sink.map(|sink| f64::from(sink) / self.natural)
    }

    /// `row_sum` of a row with the exponential of a sink (in units of scores); still 0 for a row
    /// that saw nothing. A sink above all scores needs no other maximum: its exponential, cut at
    /// 2^1023, leaves nothing of any weight.
    pub(super) fn with_sink(&self, row_max: f32, row_sum: f64, sink: f64) -> f64 {
        if row_sum == 0.0 {
            return 0.0;
        }
        row_sum + exp2_wide(((sink - f64::from(row_max)) * self.exponent.exact).min(1023.0))
    }

    /// `ln Σ exp` of a row, its sink (a true score) included; without one −∞ for a row that saw
    /// nothing.
    pub(super) fn log_sum_exp(&self, row_max: f32, row_sum: f64, sink: Option<f32>) -> f32 {
        if row_sum == 0.0 {
            return sink.unwrap_or(f32::NEG_INFINITY);
        }
        let row_max = f64::from(row_max) * self.natural;
        let Some(sink) = sink.map(f64::from) else {
            return (row_max + libm::log(row_sum)) as f32;
        };
        let max = row_max.max(sink);
        let sum = row_sum * libm::exp(row_max - max) + libm::exp(sink - max);
        (max + libm::log(sum)) as f32
    }
}
