//! Vectors in slices: the one place where kernels turn a slice into a vector and back. Knows no
//! layout; a slice that is too short is a bug of ours and panics, which a chunk of `V::LANES` never
//! does.

use super::element::Element;
use super::vector::{self, Vector};
use super::wide::Wide;

/// The first vector of `values`.
#[inline(always)]
pub(crate) fn load<V: Vector>(values: &[f32]) -> V {
    assert!(values.len() >= V::LANES);
    // SAFETY: the slice has a vector's values.
    unsafe { V::load(values.as_ptr()) }
}

/// The first vector of `values`, as float32.
#[inline(always)]
pub(crate) fn load_held<V: Vector, E: Element>(values: &[E]) -> V {
    assert!(values.len() >= V::LANES);
    // SAFETY: the slice has a vector's values.
    unsafe { E::load(values.as_ptr()) }
}

/// The first float64 vector's values of `values`, widened.
#[inline(always)]
pub(crate) fn load_wide<W: Wide>(values: &[f32]) -> W {
    assert!(values.len() >= W::LANES);
    // SAFETY: the slice has a vector's values.
    unsafe { W::widen(values.as_ptr()) }
}

/// Writes `vector` at the beginning of `values`, as float64.
#[inline(always)]
pub(crate) fn store_wide<W: Wide>(vector: W, values: &mut [f64]) {
    assert!(values.len() >= W::LANES);
    // SAFETY: the slice has room for a vector.
    unsafe { vector.store(values.as_mut_ptr()) };
}

/// Writes `vector` at the beginning of `values`.
#[inline(always)]
pub(crate) fn store<V: Vector>(vector: V, values: &mut [f32]) {
    assert!(values.len() >= V::LANES);
    // SAFETY: the slice has room for a vector.
    unsafe { vector.store(values.as_mut_ptr()) };
}

/// Transposes `rows` rows of `columns` values, `from_stride` apart, into columns `to_stride` apart.
#[inline(always)]
pub(crate) fn transpose<V: Vector>(
    (from, from_stride): (&[f32], usize),
    (to, to_stride): (&mut [f32], usize),
    rows: usize,
    columns: usize,
) {
    if rows == 0 || columns == 0 {
        return;
    }
    assert!(from.len() >= (rows - 1) * from_stride + columns);
    assert!(to.len() >= (columns - 1) * to_stride + rows);
    // SAFETY: all rows and columns lie in the slices, and these do not overlap.
    unsafe {
        let (from, to) = (from.as_ptr(), to.as_mut_ptr());
        vector::transpose::<V>((from, from_stride), (to, to_stride), rows, columns);
    }
}
