//! One lane, plain Rust: runs everywhere, never fuses. Ops only, no loop.

use super::dots::{Dot, Dots};
use super::instructions::instructions;
use super::tile::TileOf;
use super::vector::Vector;
use super::wide::Wide;
use half::{bf16, f16};

/// 1.5 · 2²³: adding it leaves the nearest integer in the low bits of the significand.
const ROUND: f32 = 12_582_912.0;

/// One float32.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scalar(f32);

impl Vector for Scalar {
    const LANES: usize = 1;
    const FUSES: bool = false;
    type Mask = bool;
    type Tile = TileOf<4, 4, 16>;
    type Wide = F64x1;
    type Dots = PlainDots;
    type FastDots = PlainDots;

    #[inline(always)]
    fn of_ints(ints: i32) -> Self {
        Self(ints as f32)
    }
    #[inline(always)]
    fn splat(x: f32) -> Self {
        Self(x)
    }
    instructions! {
        unsafe fn load(from: *const f32) = from.read_unaligned();
        // Not `to_f32`, which asks what the machine has each time.
        unsafe fn load_f16(from: *const f16) = from.read_unaligned().to_f32_const();
        unsafe fn load_bf16(from: *const bf16) = from.read_unaligned().to_f32_const();
        unsafe fn load_i8(from: *const i8) = f32::from(from.read());
        unsafe fn store(self, to: *mut f32) -> () = to.write_unaligned(self.0);
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        Self(self.0 - other.0)
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        Self(self.0 * other.0)
    }
    #[inline(always)]
    fn div(self, other: Self) -> Self {
        Self(self.0 / other.0)
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        Self(self.0.sqrt())
    }
    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        Self(self.0 * b.0 + c.0)
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        if self.0 > other.0 { self } else { other }
    }
    #[inline(always)]
    fn round(self) -> Self {
        // Not `round_ties_even`: without SSE4.1 that is a library call. The sign keeps −0 as the
        // other sets do.
        Self(((self.0 + ROUND) - ROUND).copysign(self.0))
    }
    #[inline(always)]
    fn scale_by_pow2(self, n: Self) -> Self {
        Self(self.0 * f32::from_bits((n.0 + ROUND).to_bits().wrapping_add(127) << 23))
    }
    #[inline(always)]
    fn low_bits_to_exponent(self) -> Self {
        Self(f32::from_bits(self.0.to_bits() << 23))
    }
    #[inline(always)]
    fn lt(self, other: Self) -> bool {
        self.0 < other.0
    }
    #[inline(always)]
    fn select(mask: bool, a: Self, b: Self) -> Self {
        if mask { a } else { b }
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
        [low, high]
    }
    #[inline(always)]
    fn together(even: Self, odd: Self) -> [Self; 2] {
        [even, odd]
    }
    #[inline(always)]
    unsafe fn transpose(from: *const f32, _: usize, to: *mut f32, _: usize) {
        // SAFETY: one value each, by the contract.
        unsafe { *to = *from }
    }
}

/// One float64.
#[derive(Clone, Copy, Debug)]
pub(crate) struct F64x1(f64);

impl Wide for F64x1 {
    const LANES: usize = 1;

    #[inline(always)]
    fn splat(x: f64) -> Self {
        Self(x)
    }
    instructions! {
        unsafe fn load(from: *const f64) = from.read_unaligned();
        unsafe fn widen(from: *const f32) = f64::from(from.read_unaligned());
        unsafe fn widen_less(from: *const f32, shift: f32) =
            f64::from(from.read_unaligned() - shift);
        unsafe fn store(self, to: *mut f64) -> () = to.write_unaligned(self.0);
        unsafe fn store_narrow(self, to: *mut f32) -> () = to.write_unaligned(self.0 as f32);
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        Self(self.0 - other.0)
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        Self(self.0 * other.0)
    }
    #[inline(always)]
    fn div(self, other: Self) -> Self {
        Self(self.0 / other.0)
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        if self.0 > other.0 { self } else { other }
    }
    #[inline(always)]
    fn min(self, other: Self) -> Self {
        if self.0 < other.0 { self } else { other }
    }
    #[inline(always)]
    fn abs(self) -> Self {
        Self(self.0.abs())
    }
    #[inline(always)]
    fn by_sign(self, negative: Self, other: Self) -> Self {
        if self.0.is_sign_negative() {
            negative
        } else {
            other
        }
    }
    #[inline(always)]
    fn low_bits_to_power(self) -> Self {
        Self(f64::from_bits(
            (self.0.to_bits() << 52).wrapping_add(1.0_f64.to_bits()),
        ))
    }
    #[inline(always)]
    fn sum(self) -> f64 {
        self.0
    }
}

/// Products one by one.
#[derive(Debug)]
pub(crate) struct PlainDots;

impl Dots for PlainDots {
    type Bytes = [u8; 4];
    type Ints = i32;
    type Nibble = Self;
    type Byte = Self;

    instructions! {
        unsafe fn load(from: *const u8) -> [u8; 4] = from.cast::<[u8; 4]>().read();
    }
    #[inline(always)]
    fn low(bytes: [u8; 4]) -> [u8; 4] {
        bytes.map(|byte| byte & 15)
    }
    #[inline(always)]
    fn high(bytes: [u8; 4]) -> [u8; 4] {
        bytes.map(|byte| byte >> 4)
    }
}

impl Dot for PlainDots {
    type Bytes = [u8; 4];
    type Ints = i32;
    type Sums = i32;
    type Four = [i8; 4];

    #[inline(always)]
    fn zero() -> i32 {
        0
    }
    instructions! {
        unsafe fn four(from: *const i8) -> [i8; 4] = from.cast::<[i8; 4]>().read();
    }
    #[inline(always)]
    fn add(sums: i32, codes: [u8; 4], x: [i8; 4]) -> i32 {
        let products = codes.iter().zip(x);
        products.fold(sums, |sum, (&code, x)| sum + i32::from(code) * i32::from(x))
    }
    #[inline(always)]
    fn ints(sums: i32) -> i32 {
        sums
    }
}
