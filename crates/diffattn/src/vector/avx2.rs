//! AVX2 with FMA: eight lanes. Ops only, no loop.

use core::arch::{asm, x86_64::*};

use super::{Vector, Wide};
use crate::tile::TileOf;

/// Eight float32.
#[derive(Clone, Copy, Debug)]
pub(crate) struct F32x8(__m256);

impl Vector for F32x8 {
    const LANES: usize = 8;
    const FUSES: bool = true;
    type Mask = __m256;
    // 8 accumulators cover the latency of two FMAs a cycle; 4 × 3 spills: 0.44 of the FMA peak against 0.66.
    type Tile = TileOf<4, 2, 6>;
    type Wide = F64x4;

    #[inline(always)]
    fn splat(x: f32) -> Self {
        // SAFETY: AVX2 is there, by the law of `Vector`.
        Self(unsafe { _mm256_set1_ps(x) })
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: AVX2 as above; eight values are readable, by the contract.
        Self(unsafe { _mm256_loadu_ps(from) })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: AVX2 as above; eight values are writable, by the contract.
        unsafe { _mm256_storeu_ps(to, self.0) }
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: AVX2 is there, by the law of `Vector`.
        Self(unsafe { _mm256_add_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        // SAFETY: AVX2 is there, by the law of `Vector`.
        Self(unsafe { _mm256_sub_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        // SAFETY: AVX2 is there, by the law of `Vector`.
        Self(unsafe { _mm256_mul_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn div(self, other: Self) -> Self {
        // SAFETY: AVX2 is there, by the law of `Vector`.
        Self(unsafe { _mm256_div_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        // SAFETY: FMA is there, by the law of `Vector`.
        Self(unsafe { _mm256_fmadd_ps(self.0, b.0, c.0) })
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        // SAFETY: AVX2 is there, by the law of `Vector`. The instruction gives its second operand on NaN.
        Self(unsafe { _mm256_max_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn round(self) -> Self {
        // SAFETY: AVX2 is there, by the law of `Vector`.
        Self(unsafe {
            _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0)
        })
    }
    #[inline(always)]
    fn scale_by_pow2(self, n: Self) -> Self {
        // SAFETY: AVX2 is there, by the law of `Vector`.
        Self(unsafe {
            let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n.0), _mm256_set1_epi32(127));
            _mm256_mul_ps(
                self.0,
                _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent)),
            )
        })
    }
    #[inline(always)]
    fn lt(self, other: Self) -> __m256 {
        // SAFETY: AVX2 is there, by the law of `Vector`.
        unsafe { _mm256_cmp_ps::<_CMP_LT_OQ>(self.0, other.0) }
    }
    #[inline(always)]
    fn select(mask: __m256, a: Self, b: Self) -> Self {
        // SAFETY: AVX2 is there, by the law of `Vector`.
        Self(unsafe { _mm256_blendv_ps(b.0, a.0, mask) })
    }
    #[inline(always)]
    fn abs(self) -> Self {
        // SAFETY: AVX2 is there, by the law of `Vector`.
        Self(unsafe { _mm256_andnot_ps(_mm256_set1_ps(-0.0), self.0) })
    }
    #[inline(always)]
    fn copysign(self, sign: Self) -> Self {
        // SAFETY: AVX2 is there, by the law of `Vector`.
        Self(unsafe {
            let sign_bit = _mm256_set1_ps(-0.0);
            _mm256_or_ps(
                _mm256_andnot_ps(sign_bit, self.0),
                _mm256_and_ps(sign_bit, sign.0),
            )
        })
    }
    const STREAMS: bool = true;
    #[inline(always)]
    unsafe fn stream(self, to: *mut f32) {
        // By halves, for which 16 bytes of alignment are enough. Not `_mm_stream_ps`: that is encoded without VEX.
        // SAFETY: AVX2 as above; eight values are writable at an aligned address, by the contract.
        unsafe {
            asm!(
                "vmovntps [{to}], {low}",
                "vmovntps [{to} + 16], {high}",
                to = in(reg) to,
                low = in(xmm_reg) _mm256_castps256_ps128(self.0),
                high = in(xmm_reg) _mm256_extractf128_ps::<1>(self.0),
                options(nostack, preserves_flags),
            );
        }
    }
    #[inline(always)]
    fn fence() {
        // SAFETY: every x86-64 machine has SSE.
        unsafe { _mm_sfence() }
    }
    #[inline(always)]
    fn prefetch(at: *const f32, write: bool) {
        // SAFETY: a prefetch never faults.
        unsafe {
            if write {
                _mm_prefetch::<_MM_HINT_ET0>(at.cast());
            } else {
                _mm_prefetch::<_MM_HINT_T0>(at.cast());
            }
        }
    }
    #[inline(always)]
    unsafe fn transpose(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
        // SAFETY: AVX2 is there; eight rows of eight values on both sides, by the contract.
        unsafe {
            // Halves of rows r and r + 4 side by side: what is left is four by four, in both halves at once.
            let halves = |r: usize, c: usize| {
                let low = _mm256_castps128_ps256(_mm_loadu_ps(from.add(r * from_stride + c)));
                _mm256_insertf128_ps::<1>(low, _mm_loadu_ps(from.add((r + 4) * from_stride + c)))
            };
            for c in [0, 4] {
                let (a, b) = (halves(0, c), halves(1, c));
                let (d, e) = (halves(2, c), halves(3, c));
                let (ab_low, ab_high) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
                let (de_low, de_high) = (_mm256_unpacklo_ps(d, e), _mm256_unpackhi_ps(d, e));
                let columns = [
                    _mm256_shuffle_ps::<0b01_00_01_00>(ab_low, de_low),
                    _mm256_shuffle_ps::<0b11_10_11_10>(ab_low, de_low),
                    _mm256_shuffle_ps::<0b01_00_01_00>(ab_high, de_high),
                    _mm256_shuffle_ps::<0b11_10_11_10>(ab_high, de_high),
                ];
                for (i, column) in columns.into_iter().enumerate() {
                    _mm256_storeu_ps(to.add((c + i) * to_stride), column);
                }
            }
        }
    }
}

/// Four float64.
#[derive(Clone, Copy, Debug)]
pub(crate) struct F64x4(__m256d);

impl Wide for F64x4 {
    const LANES: usize = 4;

    #[inline(always)]
    fn splat(x: f64) -> Self {
        // SAFETY: AVX2 is there, by the law of `Vector`.
        Self(unsafe { _mm256_set1_pd(x) })
    }
    #[inline(always)]
    unsafe fn load(from: *const f64) -> Self {
        // SAFETY: AVX2 as above; four values are readable, by the contract.
        Self(unsafe { _mm256_loadu_pd(from) })
    }
    #[inline(always)]
    unsafe fn widen(from: *const f32) -> Self {
        // SAFETY: AVX2 as above; four values are readable, by the contract.
        Self(unsafe { _mm256_cvtps_pd(_mm_loadu_ps(from)) })
    }
    #[inline(always)]
    unsafe fn widen_less(from: *const f32, shift: f32) -> Self {
        // SAFETY: AVX2 as above; four values are readable, by the contract.
        Self(unsafe { _mm256_cvtps_pd(_mm_sub_ps(_mm_loadu_ps(from), _mm_set1_ps(shift))) })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f64) {
        // SAFETY: AVX2 as above; four values are writable, by the contract.
        unsafe { _mm256_storeu_pd(to, self.0) }
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: AVX2 is there, by the law of `Vector`.
        Self(unsafe { _mm256_add_pd(self.0, other.0) })
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        // SAFETY: AVX2 is there, by the law of `Vector`.
        Self(unsafe { _mm256_sub_pd(self.0, other.0) })
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        // SAFETY: AVX2 is there, by the law of `Vector`.
        Self(unsafe { _mm256_mul_pd(self.0, other.0) })
    }
    #[inline(always)]
    fn add_square(self, x: Self) -> Self {
        // SAFETY: FMA is there, by the law of `Vector`.
        Self(unsafe { _mm256_fmadd_pd(x.0, x.0, self.0) })
    }
    #[inline(always)]
    fn sum(self) -> f64 {
        // SAFETY: AVX2 is there, by the law of `Vector`.
        unsafe {
            let halves = _mm_add_pd(
                _mm256_castpd256_pd128(self.0),
                _mm256_extractf128_pd::<1>(self.0),
            );
            _mm_cvtsd_f64(_mm_add_sd(halves, _mm_unpackhi_pd(halves, halves)))
        }
    }
}
