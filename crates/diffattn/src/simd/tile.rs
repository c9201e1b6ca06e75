//! The register tile: the only matrix product of the crate; prefill and decode both use it, with
//! the roles of its operands swapped, and so does `Linear`. Knows nothing of what the operands are.

use super::element::Element;
use super::vector::{Depth, Operands, Sink, Tile, Vector};
use crate::blocks::PANEL;

/// A tile of `M` rows by `N` vectors, in row blocks of `B` vectors.
#[derive(Debug)]
pub(crate) struct TileOf<const M: usize, const N: usize, const B: usize>;

impl<const M: usize, const N: usize, const B: usize> Tile for TileOf<M, N, B> {
    const ROWS: usize = {
        assert!(PANEL.is_multiple_of(M) && N >= 1 && N <= 4 && B.is_multiple_of(N));
        M
    };
    const VECTORS: usize = N;
    const BLOCK_VECTORS: usize = B;

    #[inline(always)]
    unsafe fn product<V: Vector, D: Depth, S: Sink<V>>(
        vectors: usize,
        operands: Operands<D>,
        sink: S,
    ) {
        let Operands {
            a,
            a_stride,
            b,
            b_stride,
            b_vector,
            depth,
        } = operands;
        // SAFETY: (all four) the caller's promise.
        unsafe {
            if vectors >= N {
                sink.take(
                    0,
                    product_over::<V, _, _, D, M, N>(
                        (a, a_stride),
                        (columns::<_, N>(b, b_vector), b_stride),
                        Unscaled,
                        depth,
                        |_| {},
                    ),
                );
            } else if vectors == 1 {
                sink.take(
                    0,
                    product_over::<V, _, _, D, M, 1>(
                        (a, a_stride),
                        ([b], b_stride),
                        Unscaled,
                        depth,
                        |_| {},
                    ),
                );
            } else if vectors == 2 {
                sink.take(
                    0,
                    product_over::<V, _, _, D, M, 2>(
                        (a, a_stride),
                        (columns::<_, 2>(b, b_vector), b_stride),
                        Unscaled,
                        depth,
                        |_| {},
                    ),
                );
            } else {
                sink.take(
                    0,
                    product_over::<V, _, _, D, M, 3>(
                        (a, a_stride),
                        (columns::<_, 3>(b, b_vector), b_stride),
                        Unscaled,
                        depth,
                        |_| {},
                    ),
                );
            }
        }
    }
}

/// Pointers to `N` vectors that lie `apart` from each other.
#[inline(always)]
pub(crate) fn columns<E, const N: usize>(first: *const E, apart: usize) -> [*const E; N] {
    let mut vectors = [first; N];
    for (n, vector) in vectors.iter_mut().enumerate() {
        *vector = first.wrapping_add(n * apart);
    }
    vectors
}

/// What the rows of a b are multiplied with as they are loaded.
pub(crate) trait Scaling<V: Vector, const N: usize>: Copy {
    /// Row `k`, multiplied.
    ///
    /// # Safety
    /// What there is for row `k` is readable.
    unsafe fn scaled(self, k: usize, row: [V; N]) -> [V; N];
}

/// Nothing: every b of floats.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unscaled;

/// A number for each lane of a row, the same in every row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ByLane<V, const N: usize>(pub(crate) [V; N]);

/// A number for each row, one beside the other.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ByRow(pub(crate) *const f32);

impl<V: Vector, const N: usize> Scaling<V, N> for Unscaled {
    #[inline(always)]
    unsafe fn scaled(self, _: usize, row: [V; N]) -> [V; N] {
        row
    }
}

impl<V: Vector, const N: usize> Scaling<V, N> for ByLane<V, N> {
    #[inline(always)]
    unsafe fn scaled(self, _: usize, mut row: [V; N]) -> [V; N] {
        for (value, &scale) in row.iter_mut().zip(&self.0) {
            *value = value.mul(scale);
        }
        row
    }
}

impl<V: Vector, const N: usize> Scaling<V, N> for ByRow {
    #[inline(always)]
    unsafe fn scaled(self, k: usize, mut row: [V; N]) -> [V; N] {
        // SAFETY: the caller's promise.
        let scale = V::splat(unsafe { *self.0.wrapping_add(k) });
        for value in &mut row {
            *value = value.mul(scale);
        }
        row
    }
}

/// [`product_of`] of some rows, over a gap where the depth has one: one chain of sums all the same.
///
/// # Safety
/// As [`product_of`], for the rows of `depth`.
#[inline(always)]
pub(crate) unsafe fn product_over<V, E, S, D, const M: usize, const N: usize>(
    (a, a_stride): (*const f32, usize),
    (b, b_stride): ([*const E; N], usize),
    scaling: S,
    depth: D,
    ahead: impl Fn(&[*const E; N]),
) -> [[V; N]; M]
where
    V: Vector,
    E: Element,
    S: Scaling<V, N>,
    D: Depth,
{
    let rows = PackedRows {
        first: a,
        stride: a_stride,
        depth: depth.rows(),
    };
    // SAFETY: the caller's promise.
    let mut sums = unsafe { product_of::<V, E, S, M, N>(rows, b, b_stride, scaling, ahead) };
    // A loop of its own: one over both stretches takes three instructions more a step, 3 % of the
    // time.
    for k in depth.more() {
        let mut row = [V::splat(0.0); N];
        for n in 0..N {
            // SAFETY: the caller's promise for this row of b.
            row[n] = unsafe { E::load_beside::<V, M, N>(b[n].wrapping_add(k * b_stride)) };
        }
        // SAFETY: the caller's promise for this row of both.
        unsafe {
            row = scaling.scaled(k, row);
            V::add_outer(&mut sums, a.wrapping_add(k * a_stride), row);
        }
    }
    sums
}

/// What a product broadcasts: value m of step k lies at `first + k · stride + m`, for `depth`
/// steps.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PackedRows {
    pub(crate) first: *const f32,
    pub(crate) stride: usize,
    pub(crate) depth: usize,
}

/// `Σ_k a[k][m] · b[n][k]`, k in order, in registers: the inner loop of everything. (Unrolled by 4
/// or 8 it is no faster.) b is held as `E`; every step begins with `ahead(b)`, b where the step
/// reads it.
///
/// # Safety
/// For every k below `depth`: `M` values of `rows` are readable, one vector at each `b[n] + k ·
/// b_stride`, and what `scaling` has for it.
#[inline(always)]
pub(crate) unsafe fn product_of<V, E, S, const M: usize, const N: usize>(
    rows: PackedRows,
    mut b: [*const E; N],
    b_stride: usize,
    scaling: S,
    ahead: impl Fn(&[*const E; N]),
) -> [[V; N]; M]
where
    V: Vector,
    E: Element,
    S: Scaling<V, N>,
{
    let PackedRows {
        first: mut a,
        stride,
        depth,
    } = rows;
    let mut sums = [[V::splat(0.0); N]; M];
    for k in 0..depth {
        ahead(&b);
        let mut row = [V::splat(0.0); N];
        for n in 0..N {
            // SAFETY: the caller's promise for row k of `b`.
            row[n] = unsafe { E::load_beside::<V, M, N>(b[n]) };
        }
        // SAFETY: the caller's promise for row k of `rows` and of `scaling`.
        unsafe {
            row = scaling.scaled(k, row);
            V::add_outer(&mut sums, a, row);
        }
        // Not `k * stride`: in WebAssembly, that takes 1.1 times the time.
        a = a.wrapping_add(stride);
        for b in &mut b {
            *b = b.wrapping_add(b_stride);
        }
    }
    sums
}
