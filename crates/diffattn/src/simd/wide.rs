//! The float64 vector of the same registers: what sums of float32 values are taken in, and
//! functions that float32 is too short for. Knows nothing of their order.

/// `LANES` float64 values and the ops that the kernels need of them. Never fuses.
///
/// # Safety
/// As [`Vector`].
pub(crate) trait Wide: Copy + Send + Sync + 'static {
    /// How many float64 values one vector holds: a power of two, 8 at most.
    const LANES: usize;

    /// All lanes `x`.
    fn splat(x: f64) -> Self;
    /// # Safety
    /// `LANES` values are readable at `from`.
    unsafe fn load(from: *const f64) -> Self;
    /// `LANES` float32 values, widened.
    ///
    /// # Safety
    /// `LANES` values are readable at `from`.
    unsafe fn widen(from: *const f32) -> Self;
    /// `LANES` float32 values less `shift`, rounded to float32, widened.
    ///
    /// # Safety
    /// As [`Wide::widen`].
    unsafe fn widen_less(from: *const f32, shift: f32) -> Self;
    /// [`Wide::widen_less`] of two vectors that lie side by side.
    ///
    /// # Safety
    /// Twice `LANES` values are readable at `from`.
    #[inline(always)]
    unsafe fn widen_two_less(from: *const f32, shift: f32) -> [Self; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            let second = from.add(Self::LANES);
            [
                Self::widen_less(from, shift),
                Self::widen_less(second, shift),
            ]
        }
    }
    /// # Safety
    /// `LANES` values are writable at `to`.
    unsafe fn store(self, to: *mut f64);
    /// The values, rounded to float32.
    ///
    /// # Safety
    /// `LANES` values are writable at `to`.
    unsafe fn store_narrow(self, to: *mut f32);
    /// `self + other`.
    fn add(self, other: Self) -> Self;
    /// `self − other`.
    fn sub(self, other: Self) -> Self;
    /// `self · other`.
    fn mul(self, other: Self) -> Self;
    /// `self ÷ other`, correctly rounded.
    fn div(self, other: Self) -> Self;
    /// `self > other ? self : other`, lane by lane: a NaN on either side gives `other`.
    fn max(self, other: Self) -> Self;
    /// `self < other ? self : other`, lane by lane: a NaN on either side gives `other`.
    fn min(self, other: Self) -> Self;
    /// Absolute value (clears the sign, also of NaN).
    fn abs(self) -> Self;
    /// `negative` where the sign of `self` is set, else `other`.
    fn by_sign(self, negative: Self, other: Self) -> Self;
    /// 2ⁿ for an integral n in the low bits of each value.
    fn low_bits_to_power(self) -> Self;
    /// `self + x²` for an x that is a float32 number: its square is exact, so that fusing changes
    /// no bit.
    #[inline(always)]
    fn add_square(self, x: Self) -> Self {
        self.add(x.mul(x))
    }
    /// The sum of the lanes, by halves.
    fn sum(self) -> f64;
}
