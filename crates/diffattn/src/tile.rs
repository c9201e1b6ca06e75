//! Block sizes and the register tile: every constant with its unit and its reason. The tile is the only
//! matrix product of the crate; prefill and decode both use it, with the roles of its operands swapped.

use crate::vector::{Element, Vector};

/// Keys per strip: a row is reduced strip by strip, each from zero, added in order. Part of the numeric
/// contract (results change with it), so it is one number on every instruction set.
pub(crate) const STRIP: usize = 256;

/// Interleaved sums of exponentials within a strip (key modulo this): shorter chains are faster and more
/// accurate. Part of the numeric contract.
pub(crate) const ROW_SUMS: usize = 4;

/// Keys (of K) or channels (of V) per packed panel: the lanes of the widest vector, and a multiple of
/// every tile's rows, so that a panel packed on one instruction set serves all.
pub(crate) const PANEL: usize = 16;

/// Queries up to which the decode path (lanes = keys) is taken. (AVX2, 256 keys: 4 queries take 0.83 times what the prefill
/// takes, 8 take 1.24 times, 16 take 1.61 times; 16 and 4096 keys alike.)
pub(crate) const DECODE_QUERIES: usize = 4;

/// Bytes of packed K and V in one wave per thread, past which no further head is packed: many short sequences share
/// one parallel section, and panels are still in L2 when they are read (8 MiB: 3 % slower at 512 and 2048 tokens).
pub(crate) const WAVE_BYTES: usize = 512 << 10;

/// What to do with a finished tile: `take` gets `sums[m][n]`, still in registers; m counts from row `first` of the tile, which
/// may come in parts.
pub(crate) trait Sink<V: Vector> {
    /// # Safety
    /// As the implementor says; [`Tile::product`] passes its caller's promise on.
    unsafe fn take<const M: usize, const N: usize>(&self, first: usize, sums: [[V; N]; M]);
}

/// Rows of a product's operands: some, and after a gap perhaps some more.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Depth {
    rows: usize,
    gap: usize,
    more: usize,
}

impl Depth {
    /// Rows without a gap.
    #[inline(always)]
    pub(crate) fn whole(rows: usize) -> Self {
        Self {
            rows,
            gap: 0,
            more: 0,
        }
    }

    /// The rows of one run or two, `from..to` each, counted from the first one's beginning.
    #[inline(always)]
    pub(crate) fn of(runs: &[(usize, usize)]) -> Self {
        match *runs {
            [(from, to), (next, end), ..] => Self {
                rows: to - from,
                gap: next - to,
                more: end - next,
            },
            [(from, to)] => Self::whole(to - from),
            [] => Self::whole(0),
        }
    }
}

/// Operands of a tile product, `Σ_k a[k][m] · b[k][n]`: a is broadcast value by value, b is read by vectors.
#[derive(Clone, Copy)]
pub(crate) struct Operands {
    /// `a[k][m]` lies at `a + k · a_stride + m`.
    pub(crate) a: *const f32,
    pub(crate) a_stride: usize,
    /// Vector n of row k lies at `b + k · b_stride + n · b_vector`.
    pub(crate) b: *const f32,
    pub(crate) b_stride: usize,
    pub(crate) b_vector: usize,
    pub(crate) depth: Depth,
}

/// The shape of an instruction set's register tile.
pub(crate) trait Tile: 'static {
    /// Broadcast values per step: keys in `Q Kᵀ`, channels in `P V`. Divides [`PANEL`].
    const ROWS: usize;
    /// Vectors of queries at most.
    const VECTORS: usize;
    /// Vectors of queries in a row block of the prefill; a multiple of `VECTORS`.
    const BLOCK_VECTORS: usize;

    /// Computes a tile of `ROWS` by `vectors` (1…`VECTORS`) and hands it to `sink`.
    ///
    /// # Safety
    /// `depth` rows of both operands are readable at this width, and `sink`'s own conditions hold.
    unsafe fn product<V: Vector, S: Sink<V>>(vectors: usize, operands: Operands, sink: S);
}

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
    unsafe fn product<V: Vector, S: Sink<V>>(vectors: usize, operands: Operands, sink: S) {
        // SAFETY: (all four) the caller's promise.
        unsafe {
            if vectors >= N {
                sink.take(0, operands.product::<V, M, N>());
            } else if vectors == 1 {
                sink.take(0, operands.product::<V, M, 1>());
            } else if vectors == 2 {
                sink.take(0, operands.product::<V, M, 2>());
            } else {
                sink.take(0, operands.product::<V, M, 3>());
            }
        }
    }
}

impl Operands {
    /// [`product_over`] of these operands.
    ///
    /// # Safety
    /// The rows of `depth` are readable on both sides, M values of a and N vectors of b each.
    #[inline(always)]
    unsafe fn product<V: Vector, const M: usize, const N: usize>(&self) -> [[V; N]; M] {
        let b = columns::<N>(self.b, self.b_vector);
        // SAFETY: the caller's promise.
        unsafe { product_over(self.a, self.a_stride, b, self.b_stride, self.depth) }
    }
}

/// Pointers to `N` vectors that lie `apart` from each other.
#[inline(always)]
pub(crate) fn columns<const N: usize>(first: *const f32, apart: usize) -> [*const f32; N] {
    let mut vectors = [first; N];
    for (n, vector) in vectors.iter_mut().enumerate() {
        *vector = first.wrapping_add(n * apart);
    }
    vectors
}

/// `Σ_k a[k][m] · b[n][k]`, k in order, in registers: the inner loop of everything. (Unrolled by 4 or 8 it is no faster.)
///
/// # Safety
/// For every k below `depth`: `M` values are readable at `a + k · a_stride`, and one vector at each
/// `b[n] + k · b_stride`.
#[inline(always)]
pub(crate) unsafe fn product<V: Vector, const M: usize, const N: usize>(
    a: *const f32,
    a_stride: usize,
    b: [*const f32; N],
    b_stride: usize,
    depth: usize,
) -> [[V; N]; M] {
    // SAFETY: the caller's promise.
    unsafe { product_of::<V, f32, M, N>(a, a_stride, b, b_stride, depth, |_| {}) }
}

/// [`product`] of some rows, over a gap where the depth has one: one chain of sums all the same.
///
/// # Safety
/// As [`product`], for the rows of `depth`.
#[inline(always)]
pub(crate) unsafe fn product_over<V: Vector, const M: usize, const N: usize>(
    mut a: *const f32,
    a_stride: usize,
    mut b: [*const f32; N],
    b_stride: usize,
    depth: Depth,
) -> [[V; N]; M] {
    let mut sums = [[V::splat(0.0); N]; M];
    let (mut rows, mut more) = (depth.rows, depth.more);
    loop {
        for _ in 0..rows {
            let mut row = [V::splat(0.0); N];
            for n in 0..N {
                // SAFETY: the caller's promise for this row of b.
                row[n] = unsafe { V::load(b[n]) };
            }
            // SAFETY: the caller's promise for this row of a.
            unsafe { V::add_outer(&mut sums, a, row) };
            // Not `k * a_stride`: in WebAssembly, that takes 1.1 times the time.
            a = a.wrapping_add(a_stride);
            for b in &mut b {
                *b = b.wrapping_add(b_stride);
            }
        }
        if more == 0 {
            return sums;
        }
        a = a.wrapping_add(depth.gap * a_stride);
        for b in &mut b {
            *b = b.wrapping_add(depth.gap * b_stride);
        }
        (rows, more) = (more, 0);
    }
}

/// [`product`] where b is held as `E`; every step begins with `ahead(b)`, b where the step reads it.
///
/// # Safety
/// As there.
#[inline(always)]
pub(crate) unsafe fn product_of<V: Vector, E: Element, const M: usize, const N: usize>(
    mut a: *const f32,
    a_stride: usize,
    mut b: [*const E; N],
    b_stride: usize,
    depth: usize,
    ahead: impl Fn(&[*const E; N]),
) -> [[V; N]; M] {
    let mut sums = [[V::splat(0.0); N]; M];
    for _ in 0..depth {
        ahead(&b);
        let mut row = [V::splat(0.0); N];
        for n in 0..N {
            // SAFETY: the caller's promise for row k of `b`.
            row[n] = unsafe { E::load(b[n]) };
        }
        // SAFETY: the caller's promise for row k of `a`.
        unsafe { V::add_outer(&mut sums, a, row) };
        // Not `k * a_stride`: in WebAssembly, that takes 1.1 times the time.
        a = a.wrapping_add(a_stride);
        for b in &mut b {
            *b = b.wrapping_add(b_stride);
        }
    }
    sums
}
