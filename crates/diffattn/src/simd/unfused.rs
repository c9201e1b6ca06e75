//! Any vector with its multiply-adds rounded twice: what `deterministic` runs on.

use super::dots::Dots;
use super::instructions::instructions;
use super::vector::{Use, Vector};
use half::{bf16, f16};

/// `V`, except that [`Vector::mul_add`] multiplies, rounds, then adds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unfused<V>(V);

impl<V: Vector> Vector for Unfused<V> {
    const LANES: usize = V::LANES;
    const FUSES: bool = false;
    type Mask = V::Mask;
    type Tile = V::Tile;
    type Wide = V::Wide;
    type Dots = V::Dots;
    type FastDots = V::FastDots;

    #[inline(always)]
    fn has_fast_dots() -> bool {
        V::has_fast_dots()
    }
    #[inline(always)]
    fn of_ints(ints: <V::Dots as Dots>::Ints) -> Self {
        Self(V::of_ints(ints))
    }

    #[inline(always)]
    fn splat(x: f32) -> Self {
        Self(V::splat(x))
    }
    instructions! {
        unsafe fn load(from: *const f32) = V::load(from);
        unsafe fn load_f16(from: *const f16) = V::load_f16(from);
        unsafe fn load_bf16(from: *const bf16) = V::load_bf16(from);
        unsafe fn load_i8(from: *const i8) = V::load_i8(from);
        unsafe fn store(self, to: *mut f32) -> () = self.0.store(to);
        unsafe fn stream(self, to: *mut f32) -> () = self.0.stream(to);
        unsafe fn transpose(
            from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize
        ) -> () = V::transpose(from, from_stride, to, to_stride);
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self(self.0.add(other.0))
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        Self(self.0.sub(other.0))
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        Self(self.0.mul(other.0))
    }
    #[inline(always)]
    fn div(self, other: Self) -> Self {
        Self(self.0.div(other.0))
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        Self(self.0.sqrt())
    }
    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        Self(self.0.mul(b.0).add(c.0))
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        Self(self.0.max(other.0))
    }
    #[inline(always)]
    fn max_of_numbers(self, other: Self) -> Self {
        Self(self.0.max_of_numbers(other.0))
    }
    #[inline(always)]
    fn round(self) -> Self {
        Self(self.0.round())
    }
    #[inline(always)]
    fn scale_by_pow2(self, n: Self) -> Self {
        Self(self.0.scale_by_pow2(n.0))
    }
    #[inline(always)]
    fn low_bits_to_exponent(self) -> Self {
        Self(self.0.low_bits_to_exponent())
    }
    #[inline(always)]
    fn lt(self, other: Self) -> Self::Mask {
        self.0.lt(other.0)
    }
    #[inline(always)]
    fn select(mask: Self::Mask, a: Self, b: Self) -> Self {
        Self(V::select(mask, a.0, b.0))
    }
    #[inline(always)]
    fn zero_where(self, mask: V::Mask) -> Self {
        Self(self.0.zero_where(mask))
    }
    #[inline(always)]
    fn abs(self) -> Self {
        Self(self.0.abs())
    }
    #[inline(always)]
    fn copysign(self, sign: Self) -> Self {
        Self(self.0.copysign(sign.0))
    }
    #[inline(always)]
    fn apart(low: Self, high: Self) -> [Self; 2] {
        V::apart(low.0, high.0).map(Self)
    }
    #[inline(always)]
    fn together(even: Self, odd: Self) -> [Self; 2] {
        V::together(even.0, odd.0).map(Self)
    }
    const STREAMS: bool = V::STREAMS;
    #[inline(always)]
    fn fence() {
        V::fence();
    }
    const TOUCHES: bool = V::TOUCHES;
    #[inline(always)]
    unsafe fn touch(at: *const f32) {
        // SAFETY: the caller's promise.
        unsafe { V::touch(at) }
    }
    #[inline(always)]
    fn prefetch(at: *const f32, using: Use) {
        V::prefetch(at, using);
    }
}
