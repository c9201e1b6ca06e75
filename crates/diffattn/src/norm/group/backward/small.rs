//! The last steps of small groups, element by element in float64: sums over few elements leave
//! plain float32 as exact as ours, so that every rounding beside the last would show. Plain loops;
//! knows nothing of sums.

use crate::norm::group::moments::Moments;
use crate::norm::group::normalise::{Parameters, Standardise};
use crate::norm::group::runs::Runs;
use crate::simd::math::silu_slope_wide;

/// What x̂ and dx of a group are made of: `x̂ = (x − mean) · inverse` and `dx = (g − mean_gradient
/// − x̂ · mean_product) · inverse`.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Group {
    mean: f64,
    inverse: f64,
    mean_gradient: f64,
    mean_product: f64,
}

impl Group {
    /// `means` are those of g and of g ∘ x̂.
    pub(super) fn new(moments: Moments, eps: f32, means: [f64; 2]) -> Self {
        let [mean_gradient, mean_product] = means;
        Self {
            mean: moments.mean(),
            inverse: Standardise::new(moments, eps).inverse.value(),
            mean_gradient,
            mean_product,
        }
    }

    #[inline(always)]
    fn normalised(&self, x: f32) -> f64 {
        (f64::from(x) - self.mean) * self.inverse
    }

    #[inline(always)]
    fn gradient(&self, x: f32, d: f32, weight: f64) -> f32 {
        let g = f64::from(d) * weight - self.mean_gradient;
        ((g - self.normalised(x) * self.mean_product) * self.inverse) as f32
    }
}

/// Weight and bias of channel `c`.
#[inline(always)]
fn affine(parameters: &Parameters<'_>, c: usize) -> [f64; 2] {
    [
        parameters.weight.map_or(1.0, |weight| f64::from(weight[c])),
        parameters.bias.map_or(0.0, |bias| f64::from(bias[c])),
    ]
}

/// Calls `$element(group, channel, i)` for each element i of a chunk, whole positions or all of a
/// run, whose channels are counted from `$first`. (A macro: of closures the compiler makes calls.)
macro_rules! each_element {
    ($runs:expr, $first:expr, $len:expr, |$group:ident, $channel:ident, $i:ident| $element:expr) => {
        if $runs.stretch == 1 {
            for position in (0..$len).step_by($runs.channels) {
                for $channel in 0..$runs.channels {
                    let ($group, $i) = ($channel / $runs.width, position + $channel);
                    $element
                }
            }
        } else {
            for c in 0..$runs.width {
                let ($group, $channel) = (0, $first + c);
                for $i in c * $runs.stretch..(c + 1) * $runs.stretch {
                    $element
                }
            }
        }
    };
}

/// A chunk of small groups: whole positions, or a whole run.
pub(super) struct SmallChunk<'u> {
    pub(super) runs: &'u Runs,
    pub(super) parameters: &'u Parameters<'u>,
    pub(super) first_channel: usize,
    pub(super) groups: &'u [Group],
    pub(super) x: &'u [f32],
}

impl SmallChunk<'_> {
    /// What comes through SiLU, into `to`.
    #[inline(always)]
    pub(super) fn upstream(&self, dy: &[f32], to: &mut [f32]) {
        let x = self.x;
        let (dy, to) = (&dy[..x.len()], &mut to[..x.len()]);
        each_element!(self.runs, self.first_channel, x.len(), |group, c, i| {
            let [weight, bias] = affine(self.parameters, c);
            let u = self.groups[group].normalised(x[i]) * weight + bias;
            to[i] = (f64::from(dy[i]) * silu_slope_wide(u)) as f32;
        });
    }

    /// dx of d, or in its place where there is none.
    #[inline(always)]
    pub(super) fn gradient(&self, d: Option<&[f32]>, dx: &mut [f32]) {
        let x = self.x;
        let dx = &mut dx[..x.len()];
        if let Some(d) = d {
            dx.copy_from_slice(d);
        }
        each_element!(self.runs, self.first_channel, x.len(), |group, c, i| {
            let [weight, _] = affine(self.parameters, c);
            dx[i] = self.groups[group].gradient(x[i], dx[i], weight);
        });
    }
}
