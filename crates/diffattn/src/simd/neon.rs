//! NEON (AArch64): four lanes. Ops only, no loop.

use core::arch::{aarch64::*, asm};
use half::{bf16, f16};

use super::dots::{Dot, Dots, word};
use super::instructions::instructions;
use super::tile::TileOf;
use super::vector::Vector;
use super::wide::Wide;

/// Four float32.
#[derive(Clone, Copy, Debug)]
pub(crate) struct F32x4(float32x4_t);

impl Vector for F32x4 {
    const LANES: usize = 4;
    const FUSES: bool = true;
    type Mask = uint32x4_t;
    // 24 accumulators, 3 loads and 2 registers of broadcast values: 29 of the 32.
    type Tile = TileOf<8, 3, 6>;
    type Wide = F64x2;
    type Dots = NeonDots;
    type FastDots = DotProducts;

    #[inline(always)]
    fn has_fast_dots() -> bool {
        std::arch::is_aarch64_feature_detected!("dotprod")
    }
    instructions! {
        fn of_ints(ints: int32x4_t) = vcvtq_f32_s32(ints);
        fn splat(x: f32) = vdupq_n_f32(x);
        unsafe fn load(from: *const f32) = vld1q_f32(from);
        // The conversion is part of NEON, unlike arithmetic on float16.
        unsafe fn load_f16(from: *const f16) =
            vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(from.cast())));
        unsafe fn load_bf16(from: *const bf16) = {
            let bits = vmovl_u16(vld1_u16(from.cast()));
            vreinterpretq_f32_u32(vshlq_n_u32::<16>(bits))
        };
        unsafe fn load_i8(from: *const i8) = {
            let bytes = vcreate_s8(u64::from(from.cast::<u32>().read_unaligned()));
            vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(bytes))))
        };
        unsafe fn store(self, to: *mut f32) -> () = vst1q_f32(to, self.0);
        fn add(self, other: Self) = vaddq_f32(self.0, other.0);
        fn sub(self, other: Self) = vsubq_f32(self.0, other.0);
        fn mul(self, other: Self) = vmulq_f32(self.0, other.0);
        fn div(self, other: Self) = vdivq_f32(self.0, other.0);
        fn sqrt(self) = vsqrtq_f32(self.0);
        fn mul_add(self, b: Self, c: Self) = vfmaq_f32(c.0, self.0, b.0);
        // Not `vmaxq_f32`, which gives NaN when either side is.
        fn max(self, other: Self) = vbslq_f32(vcgtq_f32(self.0, other.0), self.0, other.0);
        fn max_of_numbers(self, other: Self) = vmaxq_f32(self.0, other.0);
        fn round(self) = vrndnq_f32(self.0);
        fn scale_by_pow2(self, n: Self) = {
            let exponent = vaddq_s32(vcvtq_s32_f32(n.0), vdupq_n_s32(127));
            vmulq_f32(self.0, vreinterpretq_f32_s32(vshlq_n_s32::<23>(exponent)))
        };
        fn low_bits_to_exponent(self) =
            vreinterpretq_f32_s32(vshlq_n_s32::<23>(vreinterpretq_s32_f32(self.0)));
        fn lt(self, other: Self) -> uint32x4_t = vcltq_f32(self.0, other.0);
        fn select(mask: uint32x4_t, a: Self, b: Self) = vbslq_f32(mask, a.0, b.0);
        fn abs(self) = vabsq_f32(self.0);
        fn copysign(self, sign: Self) = vbslq_f32(vdupq_n_u32(0x8000_0000), sign.0, self.0);
        fn apart(low: Self, high: Self) -> [Self; 2] =
            [Self(vuzp1q_f32(low.0, high.0)), Self(vuzp2q_f32(low.0, high.0))];
        fn together(even: Self, odd: Self) -> [Self; 2] =
            [Self(vzip1q_f32(even.0, odd.0)), Self(vzip2q_f32(even.0, odd.0))];
    }
    #[inline(always)]
    unsafe fn transpose(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
        // SAFETY: NEON as above; four rows of four values on both sides, by the contract.
        unsafe {
            let row = |r: usize| vld1q_f32(from.add(r * from_stride));
            let (ab, cd) = (vzipq_f32(row(0), row(1)), vzipq_f32(row(2), row(3)));
            let columns = [
                vcombine_f32(vget_low_f32(ab.0), vget_low_f32(cd.0)),
                vcombine_f32(vget_high_f32(ab.0), vget_high_f32(cd.0)),
                vcombine_f32(vget_low_f32(ab.1), vget_low_f32(cd.1)),
                vcombine_f32(vget_high_f32(ab.1), vget_high_f32(cd.1)),
            ];
            for (i, column) in columns.into_iter().enumerate() {
                vst1q_f32(to.add(i * to_stride), column);
            }
        }
    }
}

/// Two float64.
#[derive(Clone, Copy, Debug)]
pub(crate) struct F64x2(float64x2_t);

impl Wide for F64x2 {
    const LANES: usize = 2;

    instructions! {
        fn splat(x: f64) = vdupq_n_f64(x);
        unsafe fn load(from: *const f64) = vld1q_f64(from);
        unsafe fn widen(from: *const f32) = vcvt_f64_f32(vld1_f32(from));
        unsafe fn widen_less(from: *const f32, shift: f32) =
            vcvt_f64_f32(vsub_f32(vld1_f32(from), vdup_n_f32(shift)));
        unsafe fn store(self, to: *mut f64) -> () = vst1q_f64(to, self.0);
        unsafe fn store_narrow(self, to: *mut f32) -> () = vst1_f32(to, vcvt_f32_f64(self.0));
        fn add(self, other: Self) = vaddq_f64(self.0, other.0);
        fn sub(self, other: Self) = vsubq_f64(self.0, other.0);
        fn mul(self, other: Self) = vmulq_f64(self.0, other.0);
        fn div(self, other: Self) = vdivq_f64(self.0, other.0);
        // Not `vmaxq_f64` and `vminq_f64`, which give NaN when either side is.
        fn max(self, other: Self) = vbslq_f64(vcgtq_f64(self.0, other.0), self.0, other.0);
        fn min(self, other: Self) = vbslq_f64(vcltq_f64(self.0, other.0), self.0, other.0);
        fn abs(self) = vabsq_f64(self.0);
        fn by_sign(self, negative: Self, other: Self) = {
            let signs = vcltzq_s64(vreinterpretq_s64_f64(self.0));
            vbslq_f64(signs, negative.0, other.0)
        };
        fn low_bits_to_power(self) = {
            let exponent = vshlq_n_s64::<52>(vreinterpretq_s64_f64(self.0));
            let one = vreinterpretq_s64_f64(vdupq_n_f64(1.0));
            vreinterpretq_f64_s64(vaddq_s64(exponent, one))
        };
        fn add_square(self, x: Self) = vfmaq_f64(self.0, x.0, x.0);
        fn sum(self) -> f64 = vaddvq_f64(self.0);
    }
}

/// Products of int16, in parts of a lane's sum each.
#[derive(Debug)]
pub(crate) struct NeonDots;

impl Dots for NeonDots {
    type Bytes = uint8x16_t;
    type Ints = int32x4_t;
    type Nibble = Self;
    type Byte = Self;

    instructions! {
        unsafe fn load(from: *const u8) -> uint8x16_t = vld1q_u8(from);
        fn low(bytes: uint8x16_t) -> uint8x16_t = vandq_u8(bytes, vdupq_n_u8(15));
        fn high(bytes: uint8x16_t) -> uint8x16_t = vshrq_n_u8::<4>(bytes);
    }
}

impl Dot for NeonDots {
    type Bytes = uint8x16_t;
    type Ints = int32x4_t;
    type Sums = [int32x4_t; 2];
    type Four = [int16x8_t; 2];

    #[inline(always)]
    fn zero() -> [int32x4_t; 2] {
        // SAFETY: NEON is there, by the law of `Vector`.
        unsafe { [vdupq_n_s32(0); 2] }
    }
    instructions! {
        // The even values and the odd ones.
        unsafe fn four(from: *const i8) -> [int16x8_t; 2] = {
            let four = vreinterpretq_s16_s32(vdupq_n_s32(word(from)));
            [vshrq_n_s16::<8>(vshlq_n_s16::<8>(four)), vshrq_n_s16::<8>(four)]
        };
        fn add(sums: [int32x4_t; 2], codes: uint8x16_t, x: [int16x8_t; 2]) -> [int32x4_t; 2] = {
            let codes = vreinterpretq_u16_u8(codes);
            let even = vreinterpretq_s16_u16(vandq_u16(codes, vdupq_n_u16(255)));
            let odd = vreinterpretq_s16_u16(vshrq_n_u16::<8>(codes));
            let low = vmlal_s16(sums[0], vget_low_s16(even), vget_low_s16(x[0]));
            let high = vmlal_high_s16(sums[1], even, x[0]);
            [
                vmlal_s16(low, vget_low_s16(odd), vget_low_s16(x[1])),
                vmlal_high_s16(high, odd, x[1]),
            ]
        };
        fn ints(sums: [int32x4_t; 2]) -> int32x4_t = vpaddq_s32(sums[0], sums[1]);
    }
}

/// `sdot`: four products and their sum in one instruction.
#[derive(Debug)]
pub(crate) struct DotProducts;

impl Dots for DotProducts {
    type Bytes = uint8x16_t;
    type Ints = int32x4_t;
    type Nibble = Self;
    type Byte = SignedDotProducts;

    instructions! {
        unsafe fn load(from: *const u8) -> uint8x16_t = NeonDots::load(from);
    }
    #[inline(always)]
    fn low(bytes: uint8x16_t) -> uint8x16_t {
        NeonDots::low(bytes)
    }
    #[inline(always)]
    fn high(bytes: uint8x16_t) -> uint8x16_t {
        NeonDots::high(bytes)
    }
}

impl Dot for DotProducts {
    type Bytes = uint8x16_t;
    type Ints = int32x4_t;
    type Sums = int32x4_t;
    type Four = int8x16_t;

    #[inline(always)]
    fn zero() -> int32x4_t {
        // SAFETY: NEON is there, by the law of `Vector`.
        unsafe { vdupq_n_s32(0) }
    }
    instructions! {
        unsafe fn four(from: *const i8) -> int8x16_t =
            vreinterpretq_s8_s32(vdupq_n_s32(word(from)));
        fn add(sums: int32x4_t, codes: uint8x16_t, x: int8x16_t) -> int32x4_t =
            dot(sums, vreinterpretq_s8_u8(codes), x);
    }
    #[inline(always)]
    fn ints(sums: int32x4_t) -> int32x4_t {
        sums
    }
}

/// [`DotProducts`] of codes of eight bits, which `sdot` takes less 128: `Σ (c − 128) x + 2 Σ 64 x`.
#[derive(Debug)]
pub(crate) struct SignedDotProducts;

impl Dot for SignedDotProducts {
    type Bytes = uint8x16_t;
    type Ints = int32x4_t;
    type Sums = int32x4_t;
    type Four = int8x16_t;

    #[inline(always)]
    fn zero() -> int32x4_t {
        DotProducts::zero()
    }
    instructions! {
        unsafe fn four(from: *const i8) -> int8x16_t = DotProducts::four(from);
        fn add(sums: int32x4_t, codes: uint8x16_t, x: int8x16_t) -> int32x4_t = {
            let less = vreinterpretq_s8_u8(veorq_u8(codes, vdupq_n_u8(128)));
            let half = vdupq_n_s8(64);
            dot(dot(dot(sums, less, x), half, x), half, x)
        };
    }
    #[inline(always)]
    fn ints(sums: int32x4_t) -> int32x4_t {
        sums
    }
}

/// `sdot`, written out: the intrinsic is inlined only where the whole kernel may use it.
///
/// # Safety
/// The machine has the dot products of ARMv8.2.
#[inline(always)]
unsafe fn dot(mut sums: int32x4_t, codes: int8x16_t, x: int8x16_t) -> int32x4_t {
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            ".arch_extension dotprod",
            "sdot {sums:v}.4s, {codes:v}.16b, {x:v}.16b",
            sums = inout(vreg) sums,
            codes = in(vreg) codes,
            x = in(vreg) x,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sums
}
