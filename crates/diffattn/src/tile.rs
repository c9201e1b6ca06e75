//! Block sizes and the register tile: every constant with its unit and its reason. The tile is the only
//! matrix product of the crate; prefill and decode both use it, with the roles of its operands swapped.

use crate::vector::Vector;

/// Keys per strip: a row is reduced strip by strip, each from zero, added in order. Part of the numeric
/// contract (results change with it), so it is one number on every instruction set.
pub(crate) const STRIP: usize = 256;

/// Keys (of K) or channels (of V) per packed panel: the lanes of the widest vector, and a multiple of
/// every tile's rows, so that a panel packed on one instruction set serves all.
pub(crate) const PANEL: usize = 16;

/// Queries up to which the decode path (lanes = keys) is taken.
pub(crate) const DECODE_QUERIES: usize = 16;

/// Packed K and V of one wave, in bytes, at which no further head is packed: bounds the scratch of long
/// sequences while many short ones still share one parallel section.
pub(crate) const WAVE_BYTES: usize = 16 << 20;

/// How a product starts and ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// `c = a b`
    Store,
    /// `c = c + (a b)`: the sum is formed from zero, then added.
    Add,
}

/// Operands of one register tile: `c[m][n] (+)= Σ_k a[k][m] · b[k][n]`, k in order. `a` is broadcast,
/// `b` and `c` are vectors.
#[derive(Clone, Copy)]
pub(crate) struct Product<const N: usize> {
    /// `a[k][m]` lies at `a + k · a_stride + m`.
    pub a: *const f32,
    pub a_stride: usize,
    /// The n-th vector of row k lies at `b[n] + k · b_stride`.
    pub b: [*const f32; N],
    pub b_stride: usize,
    pub depth: usize,
}

/// The register tile of an instruction set: `ROWS` broadcast values by `VECTORS` vectors.
pub(crate) trait Tile: 'static {
    const ROWS: usize;
    const VECTORS: usize;
    /// Vectors of queries in a row block of the prefill.
    const BLOCK_VECTORS: usize;
}

/// A tile of `M` rows by `N` vectors, in row blocks of `B` vectors.
#[derive(Debug)]
pub(crate) struct TileOf<const M: usize, const N: usize, const B: usize>;

impl<const M: usize, const N: usize, const B: usize> Tile for TileOf<M, N, B> {
    const ROWS: usize = M;
    const VECTORS: usize = N;
    const BLOCK_VECTORS: usize = B;
}

/// Marks the vector type of a tile's users; see [`Product`].
#[expect(dead_code, reason = "replaced by the product kernel")]
pub(crate) fn lanes<V: Vector>() -> usize {
    V::LANES
}
