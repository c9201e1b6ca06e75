//! AVX-512: sixteen lanes. Ops only, no loop.

use core::arch::{asm, x86_64::*};
use half::{bf16, f16};

use super::dots::{Dot, Dots, word};
use super::instructions::instructions;
use super::tile::TileOf;
use super::vector::{Use, Vector};
use super::wide::Wide;

/// Sixteen float32.
#[derive(Clone, Copy, Debug)]
pub(crate) struct F32x16(__m512);

impl Vector for F32x16 {
    const LANES: usize = 16;
    const FUSES: bool = true;
    type Mask = __mmask16;
    // 24 accumulators and 3 loads of the 32 registers; the broadcasts are memory operands.
    type Tile = TileOf<8, 3, 3>;
    type Wide = F64x8;
    type Dots = Avx512Dots;
    type FastDots = Vnni;

    #[inline(always)]
    fn has_fast_dots() -> bool {
        std::arch::is_x86_feature_detected!("avx512vnni")
    }
    instructions! {
        fn of_ints(ints: __m512i) = _mm512_cvtepi32_ps(ints);
        fn splat(x: f32) = _mm512_set1_ps(x);
        unsafe fn load(from: *const f32) = _mm512_loadu_ps(from);
        unsafe fn load_f16(from: *const f16) = _mm512_cvtph_ps(_mm256_loadu_si256(from.cast()));
        unsafe fn load_bf16(from: *const bf16) = {
            let bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits))
        };
        unsafe fn load_i8(from: *const i8) =
            _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.cast())));
        unsafe fn store(self, to: *mut f32) -> () = _mm512_storeu_ps(to, self.0);
        fn add(self, other: Self) = _mm512_add_ps(self.0, other.0);
        fn sub(self, other: Self) = _mm512_sub_ps(self.0, other.0);
        fn mul(self, other: Self) = _mm512_mul_ps(self.0, other.0);
        fn div(self, other: Self) = _mm512_div_ps(self.0, other.0);
        fn sqrt(self) = _mm512_sqrt_ps(self.0);
        fn mul_add(self, b: Self, c: Self) = _mm512_fmadd_ps(self.0, b.0, c.0);
        // The instruction gives its second operand on NaN.
        fn max(self, other: Self) = _mm512_max_ps(self.0, other.0);
        fn round(self) =
            _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0);
        fn scale_by_pow2(self, n: Self) = _mm512_scalef_ps(self.0, n.0);
        fn low_bits_to_exponent(self) =
            _mm512_castsi512_ps(_mm512_slli_epi32::<23>(_mm512_castps_si512(self.0)));
        fn lt(self, other: Self) -> __mmask16 = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(self.0, other.0);
        fn select(mask: __mmask16, a: Self, b: Self) = _mm512_mask_blend_ps(mask, b.0, a.0);
        fn abs(self) = _mm512_andnot_ps(_mm512_set1_ps(-0.0), self.0);
        fn copysign(self, sign: Self) = {
            let sign_bit = _mm512_set1_ps(-0.0);
            _mm512_or_ps(
                _mm512_andnot_ps(sign_bit, self.0),
                _mm512_and_ps(sign_bit, sign.0),
            )
        };
        fn apart(low: Self, high: Self) -> [Self; 2] = {
            let even =
                _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
            let odd = _mm512_or_si512(even, _mm512_set1_epi32(1));
            [
                Self(_mm512_permutex2var_ps(low.0, even, high.0)),
                Self(_mm512_permutex2var_ps(low.0, odd, high.0)),
            ]
        };
        fn together(even: Self, odd: Self) -> [Self; 2] = {
            let low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
            let high = _mm512_or_si512(low, _mm512_set1_epi32(8));
            [
                Self(_mm512_permutex2var_ps(even.0, low, odd.0)),
                Self(_mm512_permutex2var_ps(even.0, high, odd.0)),
            ]
        };
    }
    const STREAMS: bool = true;
    #[inline(always)]
    unsafe fn stream(self, to: *mut f32) {
        // By quarters, for which 16 bytes of alignment are enough. Not `_mm_stream_ps`: that is
        // encoded without VEX.
        // SAFETY: AVX-512 as above; sixteen values are writable at an aligned address, by the
        // contract.
        unsafe {
            asm!(
                "vmovntps [{to}], {a}",
                "vmovntps [{to} + 16], {b}",
                "vmovntps [{to} + 32], {c}",
                "vmovntps [{to} + 48], {d}",
                to = in(reg) to,
                a = in(xmm_reg) _mm512_castps512_ps128(self.0),
                b = in(xmm_reg) _mm512_extractf32x4_ps::<1>(self.0),
                c = in(xmm_reg) _mm512_extractf32x4_ps::<2>(self.0),
                d = in(xmm_reg) _mm512_extractf32x4_ps::<3>(self.0),
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
    fn prefetch(at: *const f32, using: Use) {
        // SAFETY: a prefetch never faults.
        unsafe {
            match using {
                Use::Read => _mm_prefetch::<_MM_HINT_T0>(at.cast()),
                Use::Soon => _mm_prefetch::<_MM_HINT_T1>(at.cast()),
                Use::Write => _mm_prefetch::<_MM_HINT_ET0>(at.cast()),
            }
        }
    }
    #[inline(always)]
    unsafe fn transpose(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
        // SAFETY: AVX-512 is there; sixteen rows of sixteen values on both sides, by the contract.
        unsafe {
            // Quarters of rows r, r + 4, r + 8, r + 12 side by side: what is left is four by four,
            // in all at once.
            let quarters = |r: usize, c: usize| {
                let at = |r: usize| _mm_loadu_ps(from.add(r * from_stride + c));
                let row = _mm512_castps128_ps512(at(r));
                let row = _mm512_insertf32x4::<1>(row, at(r + 4));
                let row = _mm512_insertf32x4::<2>(row, at(r + 8));
                _mm512_insertf32x4::<3>(row, at(r + 12))
            };
            for c in [0, 4, 8, 12] {
                let (a, b) = (quarters(0, c), quarters(1, c));
                let (d, e) = (quarters(2, c), quarters(3, c));
                let (ab_low, ab_high) = (_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
                let (de_low, de_high) = (_mm512_unpacklo_ps(d, e), _mm512_unpackhi_ps(d, e));
                let columns = [
                    _mm512_shuffle_ps::<0b01_00_01_00>(ab_low, de_low),
                    _mm512_shuffle_ps::<0b11_10_11_10>(ab_low, de_low),
                    _mm512_shuffle_ps::<0b01_00_01_00>(ab_high, de_high),
                    _mm512_shuffle_ps::<0b11_10_11_10>(ab_high, de_high),
                ];
                for (i, column) in columns.into_iter().enumerate() {
                    _mm512_storeu_ps(to.add((c + i) * to_stride), column);
                }
            }
        }
    }
}

/// Eight float64.
#[derive(Clone, Copy, Debug)]
pub(crate) struct F64x8(__m512d);

impl Wide for F64x8 {
    const LANES: usize = 8;

    instructions! {
        fn splat(x: f64) = _mm512_set1_pd(x);
        unsafe fn load(from: *const f64) = _mm512_loadu_pd(from);
        unsafe fn widen(from: *const f32) = _mm512_cvtps_pd(_mm256_loadu_ps(from));
        unsafe fn widen_less(from: *const f32, shift: f32) =
            _mm512_cvtps_pd(_mm256_sub_ps(_mm256_loadu_ps(from), _mm256_set1_ps(shift)));
        unsafe fn store(self, to: *mut f64) -> () = _mm512_storeu_pd(to, self.0);
        unsafe fn store_narrow(self, to: *mut f32) -> () =
            _mm256_storeu_ps(to, _mm512_cvtpd_ps(self.0));
        fn add(self, other: Self) = _mm512_add_pd(self.0, other.0);
        fn sub(self, other: Self) = _mm512_sub_pd(self.0, other.0);
        fn mul(self, other: Self) = _mm512_mul_pd(self.0, other.0);
        fn div(self, other: Self) = _mm512_div_pd(self.0, other.0);
        // These two give their second operand on NaN.
        fn max(self, other: Self) = _mm512_max_pd(self.0, other.0);
        fn min(self, other: Self) = _mm512_min_pd(self.0, other.0);
        fn abs(self) = _mm512_andnot_pd(_mm512_set1_pd(-0.0), self.0);
        fn by_sign(self, negative: Self, other: Self) = {
            let signs = _mm512_movepi64_mask(_mm512_castpd_si512(self.0));
            _mm512_mask_blend_pd(signs, other.0, negative.0)
        };
        fn low_bits_to_power(self) = {
            let exponent = _mm512_slli_epi64::<52>(_mm512_castpd_si512(self.0));
            let one = _mm512_castpd_si512(_mm512_set1_pd(1.0));
            _mm512_castsi512_pd(_mm512_add_epi64(exponent, one))
        };
        fn add_square(self, x: Self) = _mm512_fmadd_pd(x.0, x.0, self.0);
        fn sum(self) -> f64 = {
            let low = _mm512_castpd512_pd256(self.0);
            let halves = _mm256_add_pd(low, _mm512_extractf64x4_pd::<1>(self.0));
            let halves = _mm_add_pd(
                _mm256_castpd256_pd128(halves),
                _mm256_extractf128_pd::<1>(halves),
            );
            _mm_cvtsd_f64(_mm_add_sd(halves, _mm_unpackhi_pd(halves, halves)))
        };
    }
}

/// Pairs by `vpmaddubsw`, which cannot saturate for codes of four bits: 2 · 15 · 127 a pair, eight
/// of them in a block.
#[derive(Debug)]
pub(crate) struct Avx512Dots;

impl Dots for Avx512Dots {
    type Bytes = __m512i;
    type Ints = __m512i;
    type Nibble = Pairs;
    type Byte = Words;

    instructions! {
        unsafe fn load(from: *const u8) -> __m512i = _mm512_loadu_si512(from.cast());
        fn low(bytes: __m512i) -> __m512i = _mm512_and_si512(bytes, _mm512_set1_epi8(15));
        fn high(bytes: __m512i) -> __m512i =
            _mm512_and_si512(_mm512_srli_epi16::<4>(bytes), _mm512_set1_epi8(15));
    }
}

/// Codes of four bits, summed as int16.
#[derive(Debug)]
pub(crate) struct Pairs;

impl Dot for Pairs {
    type Bytes = __m512i;
    type Ints = __m512i;
    type Sums = __m512i;
    type Four = __m512i;

    instructions! {
        unsafe fn four(from: *const i8) -> __m512i = _mm512_set1_epi32(word(from));
        fn add(sums: __m512i, codes: __m512i, x: __m512i) -> __m512i =
            _mm512_add_epi16(sums, _mm512_maddubs_epi16(codes, x));
        fn ints(sums: __m512i) -> __m512i = _mm512_madd_epi16(sums, _mm512_set1_epi16(1));
    }
    #[inline(always)]
    fn zero() -> __m512i {
        // SAFETY: the set is there, by the law of `Vector`.
        unsafe { _mm512_setzero_si512() }
    }
}

/// Codes of eight bits, widened to int16: `vpmaddubsw` would saturate. Of x, the even values and
/// the odd ones.
#[derive(Debug)]
pub(crate) struct Words;

impl Dot for Words {
    type Bytes = __m512i;
    type Ints = __m512i;
    type Sums = __m512i;
    type Four = [__m512i; 2];

    instructions! {
        unsafe fn four(from: *const i8) -> [__m512i; 2] = {
            let four = _mm512_set1_epi32(word(from));
            let even = _mm512_srai_epi16::<8>(_mm512_slli_epi16::<8>(four));
            [even, _mm512_srai_epi16::<8>(four)]
        };
        fn add(sums: __m512i, codes: __m512i, x: [__m512i; 2]) -> __m512i = {
            let even = _mm512_and_si512(codes, _mm512_set1_epi16(255));
            let odd = _mm512_srli_epi16::<8>(codes);
            let sums = _mm512_add_epi32(sums, _mm512_madd_epi16(even, x[0]));
            _mm512_add_epi32(sums, _mm512_madd_epi16(odd, x[1]))
        };
    }
    #[inline(always)]
    fn ints(sums: __m512i) -> __m512i {
        sums
    }
    #[inline(always)]
    fn zero() -> __m512i {
        Pairs::zero()
    }
}

/// AVX-512 VNNI: four products and their sum in one instruction, for codes of either width.
#[derive(Debug)]
pub(crate) struct Vnni;

impl Dots for Vnni {
    type Bytes = __m512i;
    type Ints = __m512i;
    type Nibble = Self;
    type Byte = Self;

    instructions! {
        unsafe fn load(from: *const u8) -> __m512i = Avx512Dots::load(from);
    }
    #[inline(always)]
    fn low(bytes: __m512i) -> __m512i {
        Avx512Dots::low(bytes)
    }
    #[inline(always)]
    fn high(bytes: __m512i) -> __m512i {
        Avx512Dots::high(bytes)
    }
}

impl Dot for Vnni {
    type Bytes = __m512i;
    type Ints = __m512i;
    type Sums = __m512i;
    type Four = __m512i;

    instructions! {
        unsafe fn four(from: *const i8) -> __m512i = _mm512_set1_epi32(word(from));
        fn add(sums: __m512i, codes: __m512i, x: __m512i) -> __m512i = dot(sums, codes, x);
    }
    #[inline(always)]
    fn ints(sums: __m512i) -> __m512i {
        sums
    }
    #[inline(always)]
    fn zero() -> __m512i {
        Pairs::zero()
    }
}

/// `vpdpbusd`, written out: the intrinsic is inlined only where the whole kernel may use it.
///
/// # Safety
/// AVX-512 VNNI is there.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn dot(mut sums: __m512i, codes: __m512i, x: __m512i) -> __m512i {
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "vpdpbusd {sums}, {codes}, {x}",
            sums = inout(zmm_reg) sums,
            codes = in(zmm_reg) codes,
            x = in(zmm_reg) x,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sums
}
