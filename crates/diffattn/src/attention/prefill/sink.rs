//! What becomes of a finished tile of products: scores, adjusted where anything adjusts them,
//! stored with the maxima of their strip; or sums that are added to memory.

use crate::attention::adjust::{add_bias, cap};
use crate::simd::Sink;
use crate::simd::Vector;

/// What turns the products of a tile into scores, where that is not nothing.
pub(super) struct Adjust {
    pub(super) scale: Option<f32>,
    pub(super) softcap: Option<f32>,
    /// [key][query] of this tile, rows `stride` apart.
    pub(super) bias: Option<*const f32>,
    pub(super) stride: usize,
    /// First and end key of each lane, where the tile is only partly visible; relative to the base,
    /// as `row` is.
    pub(super) range: Option<(*const f32, *const f32)>,
    pub(super) row: f32,
}

impl Adjust {
    /// # Safety
    /// `bias` has M rows of N vectors, the ranges have N.
    #[inline(always)]
    unsafe fn apply<V: Vector, const M: usize, const N: usize>(
        &self,
        first: usize,
        sums: &mut [[V; N]; M],
    ) {
        for (m, sums) in sums.iter_mut().enumerate() {
            let m = first + m;
            for (n, score) in sums.iter_mut().enumerate() {
                let lane = n * V::LANES;
                if let Some(scale) = self.scale {
                    *score = score.mul(V::splat(scale));
                }
                if let Some(softcap) = self.softcap {
                    *score = cap(*score, softcap);
                }
                // SAFETY: (both) see above.
                unsafe {
                    if let Some(bias) = self.bias {
                        *score = add_bias(*score, V::load(bias.add(m * self.stride + lane)));
                    }
                    if let Some((low, high)) = self.range {
                        let hidden = V::splat(f32::NEG_INFINITY);
                        let row = V::splat(self.row + m as f32);
                        *score = V::select(row.lt(V::load(high.add(lane))), *score, hidden);
                        *score = V::select(row.lt(V::load(low.add(lane))), hidden, *score);
                    }
                }
            }
        }
    }
}

/// Stores a tile of scores and keeps the maxima of its strip.
pub(super) struct ScoreSink {
    pub(super) to: *mut f32,
    /// From one vector's scores to the next's.
    pub(super) column: usize,
    pub(super) strip_max: *mut f32,
    /// Asked once per tile: asked per score, it took as long as the stores.
    pub(super) adjust: Option<Adjust>,
}

impl<V: Vector> Sink<V> for ScoreSink {
    /// # Safety
    /// `to` has N columns of M vectors, `strip_max` has N vectors; and as [`Adjust::apply`].
    #[inline(always)]
    unsafe fn take<const M: usize, const N: usize>(&self, first: usize, mut sums: [[V; N]; M]) {
        // SAFETY: (all of this function) see above.
        unsafe {
            if let Some(adjust) = &self.adjust {
                adjust.apply(first, &mut sums);
            }
            for n in 0..N {
                let max_at = self.strip_max.add(n * V::LANES);
                let mut strip_max = V::load(max_at);
                for (m, sums) in sums.iter().enumerate() {
                    // A row that sees a NaN is NaN, whatever its maximum is.
                    strip_max = sums[n].max_of_numbers(strip_max);
                    sums[n].store(self.to.add(n * self.column + (first + m) * V::LANES));
                }
                strip_max.store(max_at);
            }
        }
    }
}

/// Adds a finished tile to memory.
pub(super) struct AddSink {
    pub(super) to: *mut f32,
    pub(super) stride: usize,
}

impl<V: Vector> Sink<V> for AddSink {
    /// # Safety
    /// `to` has M rows of N vectors, `stride` apart.
    #[inline(always)]
    unsafe fn take<const M: usize, const N: usize>(&self, first: usize, sums: [[V; N]; M]) {
        for (m, sums) in sums.iter().enumerate() {
            for (n, sum) in sums.iter().enumerate() {
                // SAFETY: see above.
                unsafe {
                    let at = self.to.add((first + m) * self.stride + n * V::LANES);
                    V::load(at).add(*sum).store(at);
                }
            }
        }
    }
}

/// Stores a finished tile column by column, as scores lie, or adds it to what is there.
pub(super) struct ColumnSink {
    pub(super) to: *mut f32,
    /// From one vector's values to the next's.
    pub(super) column: usize,
    pub(super) is_added: bool,
}

impl<V: Vector> Sink<V> for ColumnSink {
    /// # Safety
    /// `to` has N columns of M vectors.
    #[inline(always)]
    unsafe fn take<const M: usize, const N: usize>(&self, first: usize, sums: [[V; N]; M]) {
        for (m, sums) in sums.iter().enumerate() {
            for (n, &sum) in sums.iter().enumerate() {
                // SAFETY: see above.
                unsafe {
                    let at = self.to.add(n * self.column + (first + m) * V::LANES);
                    let sum = if self.is_added {
                        V::load(at).add(sum)
                    } else {
                        sum
                    };
                    sum.store(at);
                }
            }
        }
    }
}
