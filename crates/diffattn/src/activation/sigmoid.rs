//! The logistic function over a slice: what gates of layers use. One thread; rows of a gate are
//! short.

use crate::run::Run;
use crate::simd::{Kernel, Vector, math};

/// Replaces each value x by `1 / (1 + e^−x)`, within 2 ulp: 0 and 1 at −∞ and ∞, NaN for NaN.
/// On one thread, whatever `run` says.
///
/// ```
/// let mut gates = [0.0, f32::INFINITY, f32::NEG_INFINITY];
/// diffattn::sigmoid(&mut gates, diffattn::Run::default());
/// assert_eq!(gates, [0.5, 1.0, 0.0]);
/// ```
pub fn sigmoid(values: &mut [f32], run: Run) {
    run.kernel(Sigmoid(values));
}

struct Sigmoid<'c>(&'c mut [f32]);

impl Kernel for Sigmoid<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        math::map_in_place::<V, math::Sigmoid>(self.0);
    }
}
