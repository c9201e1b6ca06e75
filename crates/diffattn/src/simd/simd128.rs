//! WebAssembly simd128: four lanes, with relaxed multiply-adds where the build has them. Ops only,
//! no loop.

use core::arch::wasm32::*;
use half::{bf16, f16};

use super::dots::{Dot, Dots, word};
use super::instructions::instructions;
use super::tile::{Unscaled, columns, product_over};
use super::vector::{Depth, Operands, Sink, Tile, Vector};
use super::wide::Wide;

/// 1.5 · 2²³: adding it leaves the nearest integer in the low bits of the significand.
const ROUND: f32 = 12_582_912.0;

/// The exponents of float32 and float16 are 2¹¹² apart.
const F16_SCALE: f32 = f32::from_bits((127 + 112) << 23);

/// A panel's rows by two vectors, in parts of 6, 5 and 5 rows: ten accumulators hide the latency of
/// multiply-adds where eight do not, and V8 keeps one of the 16 registers for itself. (4 by 2,
/// inlined: 1.09 times the time with relaxed SIMD; without it 1.4 times in Node 20, 0.96 times in
/// V8 13.)
#[derive(Debug)]
pub(crate) struct PanelTile;

impl Tile for PanelTile {
    const ROWS: usize = 16;
    const VECTORS: usize = 2;
    const BLOCK_VECTORS: usize = 4;

    // Engines allocate registers function by function: inside the whole row block these tiles
    // spill. Not against the law of `Vector`: WebAssembly's features are the module's, not a
    // function's.
    #[inline(never)]
    unsafe fn product<V: Vector, D: Depth, S: Sink<V>>(
        vectors: usize,
        operands: Operands<D>,
        sink: S,
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            if vectors == 2 {
                parts::<V, D, S, 2>(operands, sink);
            } else {
                parts::<V, D, S, 1>(operands, sink);
            }
        }
    }
}

/// # Safety
/// As [`Tile::product`].
#[inline(always)]
unsafe fn parts<V: Vector, D: Depth, S: Sink<V>, const N: usize>(operands: Operands<D>, sink: S) {
    let Operands {
        a,
        a_stride,
        b,
        b_stride,
        b_vector,
        depth,
    } = operands;
    let b = (columns::<_, N>(b, b_vector), b_stride);
    // SAFETY: (all) the caller's promise.
    unsafe {
        sink.take(0, part::<V, D, S, 6, N>((a, a_stride), b, depth));
        sink.take(6, part::<V, D, S, 5, N>((a.add(6), a_stride), b, depth));
        sink.take(11, part::<V, D, S, 5, N>((a.add(11), a_stride), b, depth));
    }
}

/// The sums of some rows, for a sink.
///
/// # Safety
/// As [`product_over`].
#[inline(always)]
unsafe fn part<V: Vector, D: Depth, S: Sink<V>, const M: usize, const N: usize>(
    a: (*const f32, usize),
    b: ([*const f32; N], usize),
    depth: D,
) -> [[V; N]; M] {
    // SAFETY: the caller's promise.
    unsafe {
        if S::IS_LIGHT {
            product_over::<V, _, _, D, M, N>(a, b, Unscaled, depth, |_| {})
        } else {
            apart::<V, D, M, N>(a, b, depth)
        }
    }
}

/// [`product_over`] as a function of its own. (A call of 2048 tokens whose products are in one
/// function with what is done with scores and rows, on Zen 5: JavaScriptCore 1.71 times the time,
/// without relaxed SIMD 1.79 times; V8 11 without it 1.22 times, V8 13 as long. The other way
/// round, sums of a `Linear` that leave registers cost V8 13 5 %, and save JavaScriptCore 8 %.)
///
/// # Safety
/// As [`product_over`].
#[inline(never)]
unsafe fn apart<V: Vector, D: Depth, const M: usize, const N: usize>(
    a: (*const f32, usize),
    b: ([*const f32; N], usize),
    depth: D,
) -> [[V; N]; M] {
    // SAFETY: the caller's promise.
    unsafe { product_over::<V, _, _, D, M, N>(a, b, Unscaled, depth, |_| {}) }
}

/// Four float32.
#[derive(Clone, Copy, Debug)]
pub(crate) struct F32x4(v128);

impl Vector for F32x4 {
    const LANES: usize = 4;
    const FUSES: bool = cfg!(target_feature = "relaxed-simd");
    type Mask = v128;
    type Tile = PanelTile;
    type Wide = F64x2;
    type Dots = WasmDots;
    type FastDots = WasmDots;
    const TOUCHES: bool = true;

    #[inline(always)]
    unsafe fn touch(at: *const f32) {
        // SAFETY: the caller's promise. (Volatile, as nothing is made of the value.)
        unsafe { at.read_volatile() };
    }

    #[inline(always)]
    fn of_ints(ints: v128) -> Self {
        Self(f32x4_convert_i32x4(ints))
    }
    #[inline(always)]
    fn splat(x: f32) -> Self {
        Self(f32x4_splat(x))
    }
    instructions! {
        unsafe fn load(from: *const f32) = v128_load(from.cast());
        unsafe fn load_f16(from: *const f16) = {
            let bits = i32x4_load_extend_i16x4(from.cast());
            // Exponent and significand in their places, the exponent too small by 112: a product,
            // exact also where float16 is subnormal.
            let magnitude = v128_and(i32x4_shl(bits, 13), i32x4_splat(0x7fff << 13));
            let scaled = f32x4_mul(magnitude, f32x4_splat(F16_SCALE));
            // Infinity and NaN come out as 2¹⁶ and more.
            let special = v128_and(
                f32x4_ge(scaled, f32x4_splat(65_536.0)),
                f32x4_splat(f32::INFINITY),
            );
            let sign = v128_and(bits, f32x4_splat(-0.0));
            v128_or(v128_or(scaled, special), sign)
        };
        unsafe fn load_bf16(from: *const bf16) = u32x4_shl(u32x4_load_extend_u16x4(from.cast()), 16);
        unsafe fn load_i8(from: *const i8) = {
            let bytes = v128_load32_zero(from.cast());
            f32x4_convert_i32x4(i32x4_extend_low_i16x8(i16x8_extend_low_i8x16(bytes)))
        };
        unsafe fn store(self, to: *mut f32) -> () = v128_store(to.cast(), self.0);
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self(f32x4_add(self.0, other.0))
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        Self(f32x4_sub(self.0, other.0))
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        Self(f32x4_mul(self.0, other.0))
    }
    #[inline(always)]
    fn div(self, other: Self) -> Self {
        Self(f32x4_div(self.0, other.0))
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        Self(f32x4_sqrt(self.0))
    }
    #[cfg(target_feature = "relaxed-simd")]
    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        Self(f32x4_relaxed_madd(self.0, b.0, c.0))
    }
    #[cfg(not(target_feature = "relaxed-simd"))]
    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        Self(f32x4_add(f32x4_mul(self.0, b.0), c.0))
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        // Not f32x4_pmax: for relaxed SIMD the compiler turns it into relaxed_max, whose NaNs are
        // the engine's choice.
        Self(v128_bitselect(self.0, other.0, f32x4_gt(self.0, other.0)))
    }
    #[inline(always)]
    fn max_of_numbers(self, other: Self) -> Self {
        Self(f32x4_pmax(self.0, other.0))
    }
    #[inline(always)]
    fn round(self) -> Self {
        Self(f32x4_nearest(self.0))
    }
    #[inline(always)]
    fn scale_by_pow2(self, n: Self) -> Self {
        // By the low bits of n + 1.5 · 2²³: engines turn the saturating conversion into several
        // instructions.
        let exponent = i32x4_add(f32x4_add(n.0, f32x4_splat(ROUND)), i32x4_splat(127));
        Self(f32x4_mul(self.0, i32x4_shl(exponent, 23)))
    }
    #[inline(always)]
    fn low_bits_to_exponent(self) -> Self {
        Self(i32x4_shl(self.0, 23))
    }
    #[inline(always)]
    fn lt(self, other: Self) -> v128 {
        f32x4_lt(self.0, other.0)
    }
    #[inline(always)]
    fn select(mask: v128, a: Self, b: Self) -> Self {
        Self(v128_bitselect(a.0, b.0, mask))
    }
    #[inline(always)]
    fn zero_where(self, mask: v128) -> Self {
        // One instruction; a bitselect is three.
        Self(v128_andnot(self.0, mask))
    }
    #[inline(always)]
    fn abs(self) -> Self {
        Self(f32x4_abs(self.0))
    }
    #[inline(always)]
    fn copysign(self, sign: Self) -> Self {
        Self(v128_bitselect(sign.0, self.0, f32x4_splat(-0.0)))
    }
    #[inline(always)]
    fn apart(low: Self, high: Self) -> [Self; 2] {
        [
            Self(i32x4_shuffle::<0, 2, 4, 6>(low.0, high.0)),
            Self(i32x4_shuffle::<1, 3, 5, 7>(low.0, high.0)),
        ]
    }
    #[inline(always)]
    fn together(even: Self, odd: Self) -> [Self; 2] {
        [
            Self(i32x4_shuffle::<0, 4, 1, 5>(even.0, odd.0)),
            Self(i32x4_shuffle::<2, 6, 3, 7>(even.0, odd.0)),
        ]
    }
    #[inline(always)]
    unsafe fn transpose(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
        // SAFETY: four rows of four values on both sides, by the contract.
        unsafe {
            let row = |r: usize| v128_load(from.add(r * from_stride).cast());
            let (a, b, c, d) = (row(0), row(1), row(2), row(3));
            let (ab_low, ab_high) = (
                i32x4_shuffle::<0, 4, 1, 5>(a, b),
                i32x4_shuffle::<2, 6, 3, 7>(a, b),
            );
            let (cd_low, cd_high) = (
                i32x4_shuffle::<0, 4, 1, 5>(c, d),
                i32x4_shuffle::<2, 6, 3, 7>(c, d),
            );
            let columns = [
                i64x2_shuffle::<0, 2>(ab_low, cd_low),
                i64x2_shuffle::<1, 3>(ab_low, cd_low),
                i64x2_shuffle::<0, 2>(ab_high, cd_high),
                i64x2_shuffle::<1, 3>(ab_high, cd_high),
            ];
            for (i, column) in columns.into_iter().enumerate() {
                v128_store(to.add(i * to_stride).cast(), column);
            }
        }
    }
}

/// Two float64.
#[derive(Clone, Copy, Debug)]
pub(crate) struct F64x2(v128);

impl Wide for F64x2 {
    const LANES: usize = 2;

    #[inline(always)]
    fn splat(x: f64) -> Self {
        Self(f64x2_splat(x))
    }
    instructions! {
        unsafe fn load(from: *const f64) = v128_load(from.cast());
        unsafe fn widen(from: *const f32) = f64x2_promote_low_f32x4(v128_load64_zero(from.cast()));
        unsafe fn widen_less(from: *const f32, shift: f32) =
            f64x2_promote_low_f32x4(f32x4_sub(v128_load64_zero(from.cast()), f32x4_splat(shift)));
        // Of one load and one subtraction: both add and convert share two of a core's ports.
        unsafe fn widen_two_less(from: *const f32, shift: f32) -> [Self; 2] = {
            let both = f32x4_sub(v128_load(from.cast()), f32x4_splat(shift));
            let high = i64x2_shuffle::<1, 1>(both, both);
            [both, high].map(|x| Self(f64x2_promote_low_f32x4(x)))
        };
        unsafe fn store(self, to: *mut f64) -> () = v128_store(to.cast(), self.0);
        unsafe fn store_narrow(self, to: *mut f32) -> () =
            v128_store64_lane::<0>(f32x4_demote_f64x2_zero(self.0), to.cast());
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self(f64x2_add(self.0, other.0))
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        Self(f64x2_sub(self.0, other.0))
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        Self(f64x2_mul(self.0, other.0))
    }
    #[inline(always)]
    fn div(self, other: Self) -> Self {
        Self(f64x2_div(self.0, other.0))
    }
    // These two not by f64x2_pmax and f64x2_pmin, as above.
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        Self(v128_bitselect(self.0, other.0, f64x2_gt(self.0, other.0)))
    }
    #[inline(always)]
    fn min(self, other: Self) -> Self {
        Self(v128_bitselect(self.0, other.0, f64x2_lt(self.0, other.0)))
    }
    #[inline(always)]
    fn abs(self) -> Self {
        Self(f64x2_abs(self.0))
    }
    #[inline(always)]
    fn by_sign(self, negative: Self, other: Self) -> Self {
        Self(v128_bitselect(negative.0, other.0, i64x2_shr(self.0, 63)))
    }
    #[inline(always)]
    fn low_bits_to_power(self) -> Self {
        Self(i64x2_add(i64x2_shl(self.0, 52), f64x2_splat(1.0)))
    }
    // Fused or not, the bits are the same.
    #[cfg(target_feature = "relaxed-simd")]
    #[inline(always)]
    fn add_square(self, x: Self) -> Self {
        Self(f64x2_relaxed_madd(x.0, x.0, self.0))
    }
    #[inline(always)]
    fn sum(self) -> f64 {
        f64x2_extract_lane::<0>(self.0) + f64x2_extract_lane::<1>(self.0)
    }
}

/// Products of int16; with relaxed SIMD, of codes of four bits, of bytes.
#[derive(Debug)]
pub(crate) struct WasmDots;

impl Dots for WasmDots {
    type Bytes = v128;
    type Ints = v128;
    #[cfg(target_feature = "relaxed-simd")]
    type Nibble = Pairs;
    #[cfg(not(target_feature = "relaxed-simd"))]
    type Nibble = Words;
    type Byte = Words;

    instructions! {
        unsafe fn load(from: *const u8) -> v128 = v128_load(from.cast());
    }
    #[inline(always)]
    fn low(bytes: v128) -> v128 {
        v128_and(bytes, u8x16_splat(15))
    }
    #[inline(always)]
    fn high(bytes: v128) -> v128 {
        u8x16_shr(bytes, 4)
    }
}

/// Codes of four bits, summed as int16: 2 · 15 · 127 a pair, eight of them in a block. The codes
/// are the operand of seven bits, so that engines agree.
#[cfg(target_feature = "relaxed-simd")]
#[derive(Debug)]
pub(crate) struct Pairs;

#[cfg(target_feature = "relaxed-simd")]
impl Dot for Pairs {
    type Bytes = v128;
    type Ints = v128;
    type Sums = v128;
    type Four = v128;

    #[inline(always)]
    fn zero() -> v128 {
        i16x8_splat(0)
    }
    instructions! {
        unsafe fn four(from: *const i8) -> v128 = i32x4_splat(word(from));
    }
    #[inline(always)]
    fn add(sums: v128, codes: v128, x: v128) -> v128 {
        i16x8_add(sums, i16x8_relaxed_dot_i8x16_i7x16(x, codes))
    }
    #[inline(always)]
    fn ints(sums: v128) -> v128 {
        i32x4_extadd_pairwise_i16x8(sums)
    }
}

/// Codes widened to int16. Of x, the even values and the odd ones.
#[derive(Debug)]
pub(crate) struct Words;

impl Dot for Words {
    type Bytes = v128;
    type Ints = v128;
    type Sums = v128;
    type Four = [v128; 2];

    #[inline(always)]
    fn zero() -> v128 {
        i32x4_splat(0)
    }
    instructions! {
        unsafe fn four(from: *const i8) -> [v128; 2] = {
            let four = i32x4_splat(word(from));
            [i16x8_shr(i16x8_shl(four, 8), 8), i16x8_shr(four, 8)]
        };
    }
    #[inline(always)]
    fn add(sums: v128, codes: v128, x: [v128; 2]) -> v128 {
        let even = v128_and(codes, u16x8_splat(255));
        let sums = i32x4_add(sums, i32x4_dot_i16x8(even, x[0]));
        i32x4_add(sums, i32x4_dot_i16x8(u16x8_shr(codes, 8), x[1]))
    }
    #[inline(always)]
    fn ints(sums: v128) -> v128 {
        sums
    }
}
