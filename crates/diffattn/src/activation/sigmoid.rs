//! The logistic function over a slice: what gates of layers use. One thread; rows of a gate are
//! short.

use crate::run::Run;
use crate::simd::math::MAX_LANES;
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

    /// Not by `math::map_in_place`: a function that is passed is not inlined here, nor are then its
    /// instructions inlined in it, each of which became a call (25 ns more a value, AVX2).
    #[inline(always)]
    fn run<V: Vector>(self) {
        let mut vectors = self.0.chunks_exact_mut(V::LANES);
        for vector in &mut vectors {
            // SAFETY: `vector` has LANES values.
            unsafe { math::sigmoid(V::load(vector.as_ptr())).store(vector.as_mut_ptr()) };
        }
        let tail = vectors.into_remainder();
        if !tail.is_empty() {
            let mut vector = [0.0; MAX_LANES];
            vector[..tail.len()].copy_from_slice(tail);
            // SAFETY: MAX_LANES is at least LANES, by the contract of `Vector`.
            unsafe { math::sigmoid(V::load(vector.as_ptr())).store(vector.as_mut_ptr()) };
            tail.copy_from_slice(&vector[..tail.len()]);
        }
    }
}
