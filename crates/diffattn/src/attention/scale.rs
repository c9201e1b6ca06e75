//! Where the scale of the scores is applied, and what makes exponents and log-sum-exps of them. Knows nothing of how
//! scores are made.

use crate::simd::math::ExponentScale;
use std::f64::consts::LOG2_E;

/// Where the scale of the scores is applied. Folded into q it would cost nothing, but rounds every channel
/// of q: 1.1 to 1.3 times the error of plain float32.
#[derive(Debug, Clone, Copy)]
pub(super) struct ScoreScale {
    /// A factor of q: the scale's sign, so that the others are positive; an extreme scale as a whole.
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
                query,
                dot: Some(size as f32),
                exponent: ExponentScale::new(LOG2_E),
                natural: 1.0,
            }
        } else {
            Self {
                query,
                dot: None,
                exponent: ExponentScale::new(size * LOG2_E),
                natural: size,
            }
        }
    }

    /// `ln Σ exp` of a row; −∞ for one that saw nothing.
    pub(super) fn log_sum_exp(&self, row_max: f32, row_sum: f64) -> f32 {
        if row_sum == 0.0 {
            return f32::NEG_INFINITY;
        }
        (f64::from(row_max) * self.natural + libm::log(row_sum)) as f32
    }
}
