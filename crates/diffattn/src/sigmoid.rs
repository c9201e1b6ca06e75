//! The logistic function over a slice: what gates of layers use. One thread; rows of a gate are short.

use crate::isa::{Isa, Kernel};
use crate::vector::{Vector, math};

/// Replaces each value x by `1 / (1 + e^−x)`, within 2 ulp: 0 and 1 at −∞ and ∞, NaN for NaN. `isa`: the fastest by
/// default; `deterministic`: unfused multiply-adds, the same bits on every backend.
///
/// ```
/// let mut gates = [0.0, f32::INFINITY, f32::NEG_INFINITY];
/// diffattn::sigmoid(&mut gates, None, false);
/// assert_eq!(gates, [0.5, 1.0, 0.0]);
/// ```
pub fn sigmoid(values: &mut [f32], isa: Option<Isa>, deterministic: bool) {
    isa.unwrap_or_else(Isa::detect)
        .run(deterministic, Sigmoid(values));
}

struct Sigmoid<'c>(&'c mut [f32]);

impl Kernel for Sigmoid<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        math::map_in_place::<V>(self.0, math::sigmoid);
    }
}
