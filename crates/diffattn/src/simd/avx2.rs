//! AVX2 with FMA and F16C: eight lanes. Ops only, no loop.

use core::arch::{asm, x86_64::*};
use half::{bf16, f16};

use super::dots::{Dot, Dots, word};
use super::instructions::instructions;
use super::tile::TileOf;
use super::vector::{Use, Vector, add_outer};
use super::wide::Wide;

/// Eight float32.
#[derive(Clone, Copy, Debug)]
pub(crate) struct F32x8(__m256);

impl Vector for F32x8 {
    const LANES: usize = 8;
    const FUSES: bool = true;
    type Mask = __m256;
    // 8 accumulators cover the latency of two FMAs a cycle; 4 × 3 spills: 0.44 of the FMA peak
    // against 0.66.
    type Tile = TileOf<4, 3, 6>;
    type Wide = F64x4;
    type Dots = Avx2Dots;
    type FastDots = Vnni;

    #[inline(always)]
    fn has_fast_dots() -> bool {
        std::arch::is_x86_feature_detected!("avxvnni")
    }
    instructions! {
        fn of_ints(ints: __m256i) = _mm256_cvtepi32_ps(ints);
        fn splat(x: f32) = _mm256_set1_ps(x);
        unsafe fn load(from: *const f32) = _mm256_loadu_ps(from);
        unsafe fn load_f16(from: *const f16) = _mm256_cvtph_ps(_mm_loadu_si128(from.cast()));
        unsafe fn load_bf16(from: *const bf16) = {
            // Both halves loaded twice, then one shuffle, where `vpmovzxwd` would be followed by a
            // shift: Zen 1 has one unit for shifts.
            let twice = _mm256_broadcastsi128_si256(_mm_loadu_si128(from.cast()));
            let upper = _mm256_load_si256(UPPER.0.as_ptr().cast());
            _mm256_castsi256_ps(_mm256_shuffle_epi8(twice, upper))
        };
        unsafe fn load_i8(from: *const i8) =
            _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(from.cast())));
        unsafe fn store(self, to: *mut f32) -> () = _mm256_storeu_ps(to, self.0);
        fn add(self, other: Self) = _mm256_add_ps(self.0, other.0);
        fn sub(self, other: Self) = _mm256_sub_ps(self.0, other.0);
        fn mul(self, other: Self) = _mm256_mul_ps(self.0, other.0);
        fn div(self, other: Self) = _mm256_div_ps(self.0, other.0);
        fn sqrt(self) = _mm256_sqrt_ps(self.0);
        fn mul_add(self, b: Self, c: Self) = _mm256_fmadd_ps(self.0, b.0, c.0);
        // The instruction gives its second operand on NaN.
        fn max(self, other: Self) = _mm256_max_ps(self.0, other.0);
        fn round(self) =
            _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0);
        fn scale_by_pow2(self, n: Self) = {
            let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n.0), _mm256_set1_epi32(127));
            _mm256_mul_ps(
                self.0,
                _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent)),
            )
        };
        fn low_bits_to_exponent(self) =
            _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_castps_si256(self.0)));
        fn lt(self, other: Self) -> __m256 = _mm256_cmp_ps::<_CMP_LT_OQ>(self.0, other.0);
        fn select(mask: __m256, a: Self, b: Self) = _mm256_blendv_ps(b.0, a.0, mask);
        // The compiler makes two instructions of a blend with zeros.
        fn zero_where(self, mask: __m256) = _mm256_andnot_ps(mask, self.0);
        fn abs(self) = _mm256_andnot_ps(_mm256_set1_ps(-0.0), self.0);
        fn copysign(self, sign: Self) = {
            let sign_bit = _mm256_set1_ps(-0.0);
            _mm256_or_ps(
                _mm256_andnot_ps(sign_bit, self.0),
                _mm256_and_ps(sign_bit, sign.0),
            )
        };
        fn apart(low: Self, high: Self) -> [Self; 2] = {
            // Pairs of both, those of the lower halves first.
            let even = _mm256_shuffle_ps::<0b10_00_10_00>(low.0, high.0);
            let odd = _mm256_shuffle_ps::<0b11_01_11_01>(low.0, high.0);
            [even, odd].map(|x| {
                let x = _mm256_permute4x64_pd::<0b11_01_10_00>(_mm256_castps_pd(x));
                Self(_mm256_castpd_ps(x))
            })
        };
        fn together(even: Self, odd: Self) -> [Self; 2] = {
            let low = _mm256_unpacklo_ps(even.0, odd.0);
            let high = _mm256_unpackhi_ps(even.0, odd.0);
            [
                Self(_mm256_permute2f128_ps::<0x20>(low, high)),
                Self(_mm256_permute2f128_ps::<0x31>(low, high)),
            ]
        };
    }
    const STREAMS: bool = true;
    #[inline(always)]
    unsafe fn stream(self, to: *mut f32) {
        // By halves, for which 16 bytes of alignment are enough. Not `_mm_stream_ps`: that is
        // encoded without VEX.
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
    unsafe fn load_bf16_beside<const M: usize, const N: usize>(from: *const bf16) -> Self {
        // SAFETY: (both) AVX2 is there, by the law of `Vector`; the caller's promise.
        unsafe {
            if M == 4 && N == 3 {
                load_bf16_in_place(from)
            } else {
                Self::load_bf16(from)
            }
        }
    }
    #[inline(always)]
    unsafe fn add_outer<const M: usize, const N: usize>(
        sums: &mut [[Self; N]; M],
        a: *const f32,
        b: [Self; N],
    ) {
        if M == 4 && N == 3 {
            // SAFETY: FMA is there, by the law of `Vector`; four values are readable, by the
            // contract.
            unsafe { add_outer_4_3(sums, a, b) };
        } else {
            // SAFETY: the caller's promise.
            unsafe { add_outer(sums, a, b) };
        }
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
        // SAFETY: AVX2 is there; eight rows of eight values on both sides, by the contract.
        unsafe {
            // Halves of rows r and r + 4 side by side: what is left is four by four, in both halves
            // at once.
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

/// The two bytes of each bfloat16 in the upper half of a float32, of four in either half.
#[repr(align(32))]
struct Upper([i8; 32]);

static UPPER: Upper = Upper([
    -1, -1, 0, 1, -1, -1, 2, 3, -1, -1, 4, 5, -1, -1, 6, 7, //
    -1, -1, 8, 9, -1, -1, 10, 11, -1, -1, 12, 13, -1, -1, 14, 15,
]);

/// [`Vector::load_bf16`] in the register of its result alone. Beside 4 by 3 sums there is none for
/// the shuffle's constant, and the compiler made room for it by spilling two vectors each step.
///
/// # Safety
/// AVX2 is there; eight values are readable at `from`.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn load_bf16_in_place(from: *const bf16) -> F32x8 {
    // SAFETY: the caller's promise.
    let twice = unsafe { _mm256_broadcastsi128_si256(_mm_loadu_si128(from.cast())) };
    let widened;
    // SAFETY: AVX2 is there; 32 bytes are read of a constant.
    unsafe {
        asm!(
            "vpshufb {widened}, {twice}, ymmword ptr [{upper}]",
            widened = lateout(ymm_reg) widened,
            twice = in(ymm_reg) twice,
            upper = in(reg) &UPPER.0,
            options(pure, readonly, nostack, preserves_flags),
        );
    }
    F32x8(widened)
}

/// [`Vector::add_outer`] of 4 by 3: twelve sums, three vectors and one broadcast are all sixteen
/// registers, which the compiler does not manage: it wants a second broadcast, and spills a sum.
/// The broadcast has a register by name, so that no other value is kept there.
///
/// # Safety
/// AVX2 and FMA are there; `M` is 4, `N` is 3, and four values are readable at `a`.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn add_outer_4_3<const M: usize, const N: usize>(
    sums: &mut [[F32x8; N]; M],
    a: *const f32,
    b: [F32x8; N],
) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "vbroadcastss ymm15, dword ptr [{a}]",
            "vfmadd231ps {s00}, ymm15, {b0}",
            "vfmadd231ps {s01}, ymm15, {b1}",
            "vfmadd231ps {s02}, ymm15, {b2}",
            "vbroadcastss ymm15, dword ptr [{a} + 4]",
            "vfmadd231ps {s10}, ymm15, {b0}",
            "vfmadd231ps {s11}, ymm15, {b1}",
            "vfmadd231ps {s12}, ymm15, {b2}",
            "vbroadcastss ymm15, dword ptr [{a} + 8]",
            "vfmadd231ps {s20}, ymm15, {b0}",
            "vfmadd231ps {s21}, ymm15, {b1}",
            "vfmadd231ps {s22}, ymm15, {b2}",
            "vbroadcastss ymm15, dword ptr [{a} + 12]",
            "vfmadd231ps {s30}, ymm15, {b0}",
            "vfmadd231ps {s31}, ymm15, {b1}",
            "vfmadd231ps {s32}, ymm15, {b2}",
            a = in(reg) a,
            b0 = in(ymm_reg) b[0].0,
            b1 = in(ymm_reg) b[1].0,
            b2 = in(ymm_reg) b[2].0,
            s00 = inout(ymm_reg) sums[0][0].0,
            s01 = inout(ymm_reg) sums[0][1].0,
            s02 = inout(ymm_reg) sums[0][2].0,
            s10 = inout(ymm_reg) sums[1][0].0,
            s11 = inout(ymm_reg) sums[1][1].0,
            s12 = inout(ymm_reg) sums[1][2].0,
            s20 = inout(ymm_reg) sums[2][0].0,
            s21 = inout(ymm_reg) sums[2][1].0,
            s22 = inout(ymm_reg) sums[2][2].0,
            s30 = inout(ymm_reg) sums[3][0].0,
            s31 = inout(ymm_reg) sums[3][1].0,
            s32 = inout(ymm_reg) sums[3][2].0,
            out("ymm15") _,
            options(pure, readonly, nostack, preserves_flags),
        );
    }
}

/// Four float64.
#[derive(Clone, Copy, Debug)]
pub(crate) struct F64x4(__m256d);

impl Wide for F64x4 {
    const LANES: usize = 4;

    instructions! {
        fn splat(x: f64) = _mm256_set1_pd(x);
        unsafe fn load(from: *const f64) = _mm256_loadu_pd(from);
        unsafe fn widen(from: *const f32) = _mm256_cvtps_pd(_mm_loadu_ps(from));
        unsafe fn widen_less(from: *const f32, shift: f32) =
            _mm256_cvtps_pd(_mm_sub_ps(_mm_loadu_ps(from), _mm_set1_ps(shift)));
        unsafe fn store(self, to: *mut f64) -> () = _mm256_storeu_pd(to, self.0);
        unsafe fn store_narrow(self, to: *mut f32) -> () =
            _mm_storeu_ps(to, _mm256_cvtpd_ps(self.0));
        fn add(self, other: Self) = _mm256_add_pd(self.0, other.0);
        fn sub(self, other: Self) = _mm256_sub_pd(self.0, other.0);
        fn mul(self, other: Self) = _mm256_mul_pd(self.0, other.0);
        fn div(self, other: Self) = _mm256_div_pd(self.0, other.0);
        // These two give their second operand on NaN.
        fn max(self, other: Self) = _mm256_max_pd(self.0, other.0);
        fn min(self, other: Self) = _mm256_min_pd(self.0, other.0);
        fn abs(self) = _mm256_andnot_pd(_mm256_set1_pd(-0.0), self.0);
        fn by_sign(self, negative: Self, other: Self) =
            _mm256_blendv_pd(other.0, negative.0, self.0);
        fn low_bits_to_power(self) = {
            let exponent = _mm256_slli_epi64::<52>(_mm256_castpd_si256(self.0));
            let one = _mm256_castpd_si256(_mm256_set1_pd(1.0));
            _mm256_castsi256_pd(_mm256_add_epi64(exponent, one))
        };
        fn add_square(self, x: Self) = _mm256_fmadd_pd(x.0, x.0, self.0);
        fn sum(self) -> f64 = {
            let halves = _mm_add_pd(
                _mm256_castpd256_pd128(self.0),
                _mm256_extractf128_pd::<1>(self.0),
            );
            _mm_cvtsd_f64(_mm_add_sd(halves, _mm_unpackhi_pd(halves, halves)))
        };
    }
}

/// Pairs by `vpmaddubsw`, which cannot saturate for codes of four bits: 2 · 15 · 127 a pair, eight
/// of them in a block.
#[derive(Debug)]
pub(crate) struct Avx2Dots;

impl Dots for Avx2Dots {
    type Bytes = __m256i;
    type Ints = __m256i;
    type Nibble = Pairs;
    type Byte = Words;

    instructions! {
        unsafe fn load(from: *const u8) -> __m256i = _mm256_loadu_si256(from.cast());
        fn low(bytes: __m256i) -> __m256i = _mm256_and_si256(bytes, _mm256_set1_epi8(15));
        fn high(bytes: __m256i) -> __m256i =
            _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), _mm256_set1_epi8(15));
    }
}

/// Codes of four bits, summed as int16.
#[derive(Debug)]
pub(crate) struct Pairs;

impl Dot for Pairs {
    type Bytes = __m256i;
    type Ints = __m256i;
    type Sums = __m256i;
    type Four = __m256i;

    instructions! {
        unsafe fn four(from: *const i8) -> __m256i = _mm256_set1_epi32(word(from));
        fn add(sums: __m256i, codes: __m256i, x: __m256i) -> __m256i =
            _mm256_add_epi16(sums, _mm256_maddubs_epi16(codes, x));
        fn ints(sums: __m256i) -> __m256i = _mm256_madd_epi16(sums, _mm256_set1_epi16(1));
    }
    #[inline(always)]
    fn zero() -> __m256i {
        // SAFETY: the set is there, by the law of `Vector`.
        unsafe { _mm256_setzero_si256() }
    }
}

/// Codes of eight bits, widened to int16: `vpmaddubsw` would saturate. Of x, the even values and
/// the odd ones.
#[derive(Debug)]
pub(crate) struct Words;

impl Dot for Words {
    type Bytes = __m256i;
    type Ints = __m256i;
    type Sums = __m256i;
    type Four = [__m256i; 2];

    instructions! {
        unsafe fn four(from: *const i8) -> [__m256i; 2] = {
            let four = _mm256_set1_epi32(word(from));
            let even = _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(four));
            [even, _mm256_srai_epi16::<8>(four)]
        };
        fn add(sums: __m256i, codes: __m256i, x: [__m256i; 2]) -> __m256i = {
            let even = _mm256_and_si256(codes, _mm256_set1_epi16(255));
            let odd = _mm256_srli_epi16::<8>(codes);
            let sums = _mm256_add_epi32(sums, _mm256_madd_epi16(even, x[0]));
            _mm256_add_epi32(sums, _mm256_madd_epi16(odd, x[1]))
        };
    }
    #[inline(always)]
    fn ints(sums: __m256i) -> __m256i {
        sums
    }
    #[inline(always)]
    fn zero() -> __m256i {
        Pairs::zero()
    }
}

/// AVX-VNNI: four products and their sum in one instruction, for codes of either width.
#[derive(Debug)]
pub(crate) struct Vnni;

impl Dots for Vnni {
    type Bytes = __m256i;
    type Ints = __m256i;
    type Nibble = Self;
    type Byte = Self;

    instructions! {
        unsafe fn load(from: *const u8) -> __m256i = Avx2Dots::load(from);
    }
    #[inline(always)]
    fn low(bytes: __m256i) -> __m256i {
        Avx2Dots::low(bytes)
    }
    #[inline(always)]
    fn high(bytes: __m256i) -> __m256i {
        Avx2Dots::high(bytes)
    }
}

impl Dot for Vnni {
    type Bytes = __m256i;
    type Ints = __m256i;
    type Sums = __m256i;
    type Four = __m256i;

    instructions! {
        unsafe fn four(from: *const i8) -> __m256i = _mm256_set1_epi32(word(from));
        fn add(sums: __m256i, codes: __m256i, x: __m256i) -> __m256i = dot(sums, codes, x);
    }
    #[inline(always)]
    fn ints(sums: __m256i) -> __m256i {
        sums
    }
    #[inline(always)]
    fn zero() -> __m256i {
        Pairs::zero()
    }
}

/// `vpdpbusd`, written out: the intrinsic is inlined only where the whole kernel may use it.
///
/// # Safety
/// AVX-VNNI is there.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn dot(mut sums: __m256i, codes: __m256i, x: __m256i) -> __m256i {
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "{{vex}} vpdpbusd {sums}, {codes}, {x}",
            sums = inout(ymm_reg) sums,
            codes = in(ymm_reg) codes,
            x = in(ymm_reg) x,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sums
}
