//! Vectors in slices: the one place where attention turns a slice into a vector and back. Knows no
//! layout; a slice that is too short is a bug of ours and panics, which a chunk of `V::LANES` never does.

use crate::simd::Vector;

/// The first vector of `values`.
#[inline(always)]
pub(super) fn load<V: Vector>(values: &[f32]) -> V {
    assert!(values.len() >= V::LANES);
    // SAFETY: the slice has a vector's values.
    unsafe { V::load(values.as_ptr()) }
}

/// Writes `vector` at the beginning of `values`.
#[inline(always)]
pub(super) fn store<V: Vector>(vector: V, values: &mut [f32]) {
    assert!(values.len() >= V::LANES);
    // SAFETY: the slice has room for a vector.
    unsafe { vector.store(values.as_mut_ptr()) };
}

/// Turns each vector of `values` into `f` of it; what is left of a vector at the end stays.
#[inline(always)]
pub(super) fn update<V: Vector>(values: &mut [f32], f: impl Fn(V) -> V) {
    for chunk in values.chunks_exact_mut(V::LANES) {
        store(f(load::<V>(chunk)), chunk);
    }
}

/// `sink` over the vectors of `from`, with those of `to` beside them.
#[inline(always)]
pub(super) fn zip<V: Vector>(to: &mut [f32], from: &[f32], f: impl Fn(V, V) -> V) {
    let chunks = to.chunks_exact_mut(V::LANES);
    for (to, from) in chunks.zip(from.chunks_exact(V::LANES)) {
        store(f(load::<V>(to), load::<V>(from)), to);
    }
}
