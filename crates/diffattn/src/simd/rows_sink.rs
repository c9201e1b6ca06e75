//! The sink of a product whose result ends where it likes: adds a tile to rows of memory, as far as
//! there are rows and values. Knows no product.

use super::vector::{Sink, Vector};
use crate::blocks::PANEL;

/// Adds a finished tile to rows of memory, as far as there are rows and values of them.
pub(crate) struct RowsSink {
    pub(crate) to: *mut f32,
    /// From one row to the next.
    pub(crate) stride: usize,
    /// Rows from `to` on that there are.
    pub(crate) rows: usize,
    /// Values of each row from `to` on that there are.
    pub(crate) width: usize,
}

impl<V: Vector> Sink<V> for RowsSink {
    const IS_LIGHT: bool = true;

    /// # Safety
    /// `to` has `rows` rows of `width` values, `stride` apart, or all that the tile has, where that
    /// is less.
    #[inline(always)]
    unsafe fn take<const M: usize, const N: usize>(&self, first: usize, sums: [[V; N]; M]) {
        if first + M > self.rows || N * V::LANES > self.width {
            // SAFETY: the caller's promise.
            return unsafe { self.take_part(first, sums) };
        }
        for (m, sums) in sums.into_iter().enumerate() {
            for (n, sum) in sums.into_iter().enumerate() {
                let at = self
                    .to
                    .wrapping_add((first + m) * self.stride + n * V::LANES);
                // SAFETY: see above.
                unsafe { V::load(at).add(sum).store(at) };
            }
        }
    }
}

impl RowsSink {
    /// Adds of a tile what there is, in the last vector value by value. (In WebAssembly a function
    /// of its own: what few tiles need keeps registers from the loop before it.)
    ///
    /// # Safety
    /// As [`Sink::take`] of this sink.
    #[cfg_attr(target_arch = "wasm32", inline(never))]
    #[cfg_attr(not(target_arch = "wasm32"), inline(always))]
    unsafe fn take_part<V: Vector, const M: usize, const N: usize>(
        &self,
        first: usize,
        sums: [[V; N]; M],
    ) {
        let rows = self.rows.saturating_sub(first).min(M);
        for (m, sums) in sums.into_iter().take(rows).enumerate() {
            for (n, sum) in sums.into_iter().enumerate() {
                let value = n * V::LANES;
                let at = self.to.wrapping_add((first + m) * self.stride + value);
                // SAFETY: see above.
                unsafe {
                    if value + V::LANES <= self.width {
                        V::load(at).add(sum).store(at);
                    } else {
                        let mut ends = [0.0_f32; PANEL];
                        sum.store(ends.as_mut_ptr());
                        let left = self.width.saturating_sub(value).min(V::LANES);
                        for (i, end) in ends[..left].iter().enumerate() {
                            *at.wrapping_add(i) += end;
                        }
                    }
                }
            }
        }
    }
}
