//! Integer dot products: unsigned codes of weights with int8 values of x, exact, a lane an output.
//! What quantised weights are multiplied with. Says what a set provides; each set's file has its
//! instructions.

/// The channels of a block: a scale each, and what a [`Dot`] sums at most.
pub(crate) const BLOCK: usize = 32;

/// The integer dot products of an instruction set. As ops of [`Vector`](super::Vector), they may be
/// called only from code that `Isa::run` entered.
pub(crate) trait Dots: 'static {
    /// Four codes of a byte each for each of the vector's lanes.
    type Bytes: Copy;
    /// An int32 for each of the vector's lanes.
    type Ints: Copy;
    /// For codes of four bits.
    type Nibble: Dot<Bytes = Self::Bytes, Ints = Self::Ints>;
    /// For codes of eight bits.
    type Byte: Dot<Bytes = Self::Bytes, Ints = Self::Ints>;

    /// # Safety
    /// Four bytes per lane are readable at `from`.
    unsafe fn load(from: *const u8) -> Self::Bytes;
    /// The low four bits of each byte.
    fn low(bytes: Self::Bytes) -> Self::Bytes;
    /// The high four bits of each byte, as a number.
    fn high(bytes: Self::Bytes) -> Self::Bytes;
}

/// Sums of products of codes of one width.
pub(crate) trait Dot {
    /// As [`Dots::Bytes`].
    type Bytes: Copy;
    /// As [`Dots::Ints`].
    type Ints: Copy;
    /// Sums on the way: parts of each lane's.
    type Sums: Copy;
    /// Four int8 for every lane.
    type Four: Copy;

    fn zero() -> Self::Sums;
    /// # Safety
    /// Four values are readable at `from`.
    unsafe fn four(from: *const i8) -> Self::Four;
    /// `sums[lane] += Σ_i codes[lane][i] · x[i]`, exact for [`BLOCK`] channels from zero.
    fn add(sums: Self::Sums, codes: Self::Bytes, x: Self::Four) -> Self::Sums;
    fn ints(sums: Self::Sums) -> Self::Ints;
}

/// Four int8 where they lie, as one number.
///
/// # Safety
/// They are readable at `from`.
#[inline(always)]
pub(super) unsafe fn word(from: *const i8) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { from.cast::<i32>().read_unaligned() }
}
