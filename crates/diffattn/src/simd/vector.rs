//! One narrow trait over the instruction sets, and the shape of its register tile. A file per set
//! holds its ops and no loop; kernels are written once over `V: Vector`.
//!
//! The law: every method is `#[inline(always)]` and none carries `#[target_feature]`; only the
//! outermost function (in `isa.rs`) does. So an op may be called only from code that `Isa::run`
//! entered.

use half::{bf16, f16};
use std::ops::Range;

use super::dots::Dots;
use super::wide::Wide;

/// What a prefetched line is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    Read,
    /// Reading, not at once: into the second cache.
    Soon,
    Write,
}

/// `LANES` float32 values and the ops that the kernels need.
///
/// # Safety
/// Methods may use the instruction set's instructions: callers run below `Isa::run`, which checked
/// them. Pointers need no alignment.
pub(crate) trait Vector: Copy + Send + Sync + 'static {
    /// How many float32 values one vector holds: a power of two, 16 at most.
    const LANES: usize;
    /// Whether [`Vector::mul_add`] rounds once (relaxed SIMD: where the engine fuses, which is then
    /// what counts).
    const FUSES: bool;
    /// What a comparison gives.
    type Mask: Copy;
    /// The register tile of `Q Kᵀ` and of `P V`; see `tile.rs`.
    type Tile: Tile;
    /// The float64 vector of the same registers.
    type Wide: Wide;
    /// The integer dot products that every machine of the set has.
    type Dots: Dots;
    /// Those that only some have: [`Vector::has_fast_dots`].
    type FastDots: Dots<Ints = <Self::Dots as Dots>::Ints>;

    /// Whether this machine has [`Vector::FastDots`].
    #[inline(always)]
    fn has_fast_dots() -> bool {
        false
    }
    /// Integers below 2²⁴, as float32, which holds them exactly.
    fn of_ints(ints: <Self::Dots as Dots>::Ints) -> Self;
    /// All lanes `x`.
    fn splat(x: f32) -> Self;
    /// # Safety
    /// `LANES` values are readable at `from`.
    unsafe fn load(from: *const f32) -> Self;
    /// `LANES` values, widened, which is exact. A signalling NaN may stay one: the next operation
    /// quiets it.
    ///
    /// # Safety
    /// As [`Vector::load`].
    unsafe fn load_f16(from: *const f16) -> Self;
    /// As [`Vector::load_f16`].
    ///
    /// # Safety
    /// As [`Vector::load`].
    unsafe fn load_bf16(from: *const bf16) -> Self;
    /// `LANES` integers of a byte as float32.
    ///
    /// # Safety
    /// As [`Vector::load`].
    unsafe fn load_i8(from: *const i8) -> Self;
    /// [`Vector::load_bf16`] beside `M` by `N` sums, which may leave no register for a constant.
    ///
    /// # Safety
    /// As [`Vector::load`].
    #[inline(always)]
    unsafe fn load_bf16_beside<const M: usize, const N: usize>(from: *const bf16) -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self::load_bf16(from) }
    }
    /// # Safety
    /// `LANES` values are writable at `to`.
    unsafe fn store(self, to: *mut f32);
    /// `self + other`.
    fn add(self, other: Self) -> Self;
    /// `self − other`.
    fn sub(self, other: Self) -> Self;
    /// `self · other`.
    fn mul(self, other: Self) -> Self;
    /// `self ÷ other`, correctly rounded.
    fn div(self, other: Self) -> Self;
    /// √self, correctly rounded; NaN below zero.
    fn sqrt(self) -> Self;
    /// `self · b + c`: fused where the set fuses (AVX2, AVX-512, NEON, relaxed SIMD where the
    /// engine does), two roundings on scalar, simd128 and [`Unfused`].
    fn mul_add(self, b: Self, c: Self) -> Self;
    /// `self > other ? self : other`, lane by lane: a NaN on either side gives `other`.
    fn max(self, other: Self) -> Self;
    /// [`Vector::max`] where neither is NaN; anything where one is.
    #[inline(always)]
    fn max_of_numbers(self, other: Self) -> Self {
        self.max(other)
    }
    /// To the nearest integer, ties to even. Only defined for |x| < 2²².
    fn round(self) -> Self;
    /// `self · 2ⁿ` for integral n in −126…127 held as floats; keeps a NaN of `self`.
    fn scale_by_pow2(self, n: Self) -> Self;
    /// The lowest nine bits of each value where sign and exponent are, zeros below: a power of two
    /// for an exponent there.
    fn low_bits_to_exponent(self) -> Self;
    /// `self < other`; false on NaN.
    fn lt(self, other: Self) -> Self::Mask;
    /// `mask ? a : b`, lane by lane.
    fn select(mask: Self::Mask, a: Self, b: Self) -> Self;
    /// `mask ? 0 : self`, lane by lane.
    #[inline(always)]
    fn zero_where(self, mask: Self::Mask) -> Self {
        Self::select(mask, Self::splat(0.0), self)
    }
    /// Absolute value (clears the sign, also of NaN).
    fn abs(self) -> Self;
    /// The magnitude of `self` with the sign of `sign`.
    fn copysign(self, sign: Self) -> Self;
    /// Of the values of `low`, then of `high`, every second one from the first and from the second
    /// on.
    fn apart(low: Self, high: Self) -> [Self; 2];
    /// [`Vector::apart`] undone: by turns a value of `even` and one of `odd`.
    fn together(even: Self, odd: Self) -> [Self; 2];
    /// `sums[m][n] += a[m] · b[n]`, each as [`Vector::mul_add`] rounds: one step of a tile.
    ///
    /// # Safety
    /// `M` values are readable at `a`.
    #[inline(always)]
    unsafe fn add_outer<const M: usize, const N: usize>(
        sums: &mut [[Self; N]; M],
        a: *const f32,
        b: [Self; N],
    ) {
        // SAFETY: the caller's promise.
        unsafe { add_outer(sums, a, b) };
    }
    /// Whether [`Vector::stream`] passes the caches by.
    const STREAMS: bool = false;
    /// [`Vector::store`] that passes the caches by where the set can.
    ///
    /// # Safety
    /// As [`Vector::store`]; `to` is aligned to [`STREAM_ALIGNMENT`], and [`Vector::fence`]
    /// follows before another thread reads.
    #[inline(always)]
    unsafe fn stream(self, to: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { self.store(to) }
    }
    /// Orders what was streamed before all later stores.
    #[inline(always)]
    fn fence() {}
    /// Asks for the cache line of `at`: a hint, any address will do.
    #[inline(always)]
    fn prefetch(_at: *const f32, _for: Use) {}
    /// Whether lines are asked for by reading them, for want of a prefetch.
    const TOUCHES: bool = false;
    /// Reads the value at `at`, so that its line is near; nothing where there is a prefetch.
    ///
    /// # Safety
    /// It is readable.
    #[inline(always)]
    unsafe fn touch(_at: *const f32) {}
    /// Transposes `LANES` rows of `LANES` values: `to[c · to_stride + r] = from[r · from_stride +
    /// c]`.
    ///
    /// # Safety
    /// Those values of `from` are readable and those of `to` writable; the two do not overlap.
    unsafe fn transpose(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize);
}

/// What to do with a finished tile: `take` gets `sums[m][n]`, still in registers; m counts from row
/// `first` of the tile, which may come in parts.
pub(crate) trait Sink<V: Vector> {
    /// Whether it needs so few registers that loops beside it lose none: asked in WebAssembly,
    /// whose engines have 16 and allocate them function by function.
    #[cfg_attr(not(target_arch = "wasm32"), expect(dead_code, reason = "see above"))]
    const IS_LIGHT: bool = false;

    /// # Safety
    /// As the implementor says; [`Tile::product`] passes its caller's promise on.
    unsafe fn take<const M: usize, const N: usize>(&self, first: usize, sums: [[V; N]; M]);
}

/// Operands of a tile product, `Σ_k a[k][m] · b[k][n]`: a is broadcast value by value, b is read by
/// vectors.
#[derive(Clone, Copy)]
pub(crate) struct Operands<D> {
    /// `a[k][m]` lies at `a + k · a_stride + m`.
    pub(crate) a: *const f32,
    pub(crate) a_stride: usize,
    /// Vector n of row k lies at `b + k · b_stride + n · b_vector`.
    pub(crate) b: *const f32,
    pub(crate) b_stride: usize,
    pub(crate) b_vector: usize,
    pub(crate) depth: D,
}

/// Which rows of its operands a product takes, in order. A type each, so that the tiles of those
/// without a gap have one loop: with two, V8 11 keeps their sums in memory (1.2 times the time).
pub(crate) trait Depth: Copy {
    /// The rows before a gap, if there is one.
    fn rows(self) -> usize;
    /// The rows after it.
    fn more(self) -> Range<usize>;
    /// Those before row `end`.
    fn until(self, end: usize) -> Self;
}

/// So many rows, without a gap.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Whole(pub(crate) usize);

impl Depth for Whole {
    #[inline(always)]
    fn rows(self) -> usize {
        self.0
    }
    #[inline(always)]
    fn more(self) -> Range<usize> {
        0..0
    }
    #[inline(always)]
    fn until(self, end: usize) -> Self {
        Self(self.0.min(end))
    }
}

/// Some rows, and after a gap perhaps some more.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gapped {
    rows: usize,
    gap: usize,
    more: usize,
}

impl Gapped {
    /// The rows of one run or two, `from..to` each, counted from the first one's beginning.
    #[inline(always)]
    pub(crate) fn of(runs: &[(usize, usize)]) -> Self {
        let (rows, gap, more) = match *runs {
            [(from, to), (next, end), ..] => (to - from, next - to, end - next),
            [(from, to)] => (to - from, 0, 0),
            [] => (0, 0, 0),
        };
        Self { rows, gap, more }
    }

    /// All of them, where there is no gap.
    #[inline(always)]
    pub(crate) fn whole(self) -> Option<Whole> {
        (self.more == 0).then_some(Whole(self.rows))
    }
}

impl Depth for Gapped {
    #[inline(always)]
    fn rows(self) -> usize {
        self.rows
    }
    #[inline(always)]
    fn more(self) -> Range<usize> {
        let first = self.rows + self.gap;
        first..first + self.more
    }
    #[inline(always)]
    fn until(self, end: usize) -> Self {
        let before = self.rows + self.gap;
        Self {
            rows: self.rows.min(end),
            more: self.more.min(end.saturating_sub(before)),
            ..self
        }
    }
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
    unsafe fn product<V: Vector, D: Depth, S: Sink<V>>(
        vectors: usize,
        operands: Operands<D>,
        sink: S,
    );
}

/// Bytes to which [`Vector::stream`] is aligned: what allocators give, so that hardly a result
/// needs another way.
pub(crate) const STREAM_ALIGNMENT: usize = 16;

/// [`Vector::add_outer`] by the other ops.
///
/// # Safety
/// As [`Vector::add_outer`].
#[inline(always)]
pub(crate) unsafe fn add_outer<V: Vector, const M: usize, const N: usize>(
    sums: &mut [[V; N]; M],
    a: *const f32,
    b: [V; N],
) {
    for (m, sums) in sums.iter_mut().enumerate() {
        // SAFETY: the caller's promise.
        let value = V::splat(unsafe { *a.add(m) });
        for (sum, &b) in sums.iter_mut().zip(&b) {
            *sum = value.mul_add(b, *sum);
        }
    }
}

/// [`Vector::transpose`] for any number of rows and columns; the tails go value by value.
///
/// # Safety
/// As [`Vector::transpose`], for `rows` rows of `columns` values.
#[inline(always)]
pub(crate) unsafe fn transpose<V: Vector>(
    (from, from_stride): (*const f32, usize),
    (to, to_stride): (*mut f32, usize),
    rows: usize,
    columns: usize,
) {
    let (full_rows, full_columns) = (rows / V::LANES * V::LANES, columns / V::LANES * V::LANES);
    // SAFETY: (all of this function) the caller's promise for rows below `rows` and columns below
    // `columns`.
    unsafe {
        for c in (0..full_columns).step_by(V::LANES) {
            for r in (0..full_rows).step_by(V::LANES) {
                let (from, to) = (from.add(r * from_stride + c), to.add(c * to_stride + r));
                V::transpose(from, from_stride, to, to_stride);
            }
        }
        // (Most have neither: a loop over all rows that asks each took as long as the transposes.)
        let beside = (0..full_rows).map(|row| (row, full_columns));
        let below = (full_rows..rows).map(|row| (row, 0));
        let beside = beside.take(if full_columns < columns { full_rows } else { 0 });
        for (r, first) in beside.chain(below) {
            for c in first..columns {
                *to.add(c * to_stride + r) = *from.add(r * from_stride + c);
            }
        }
    }
}
