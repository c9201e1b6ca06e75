//! Elementary functions over [`Vector`]: polynomials with known error bounds, the same on every
//! instruction set up to fused against unfused multiply-adds. Never the platform's library.

use super::vector::Vector;

/// The most lanes that a [`Vector`] has.
pub(crate) const MAX_LANES: usize = 16;

/// e^r = 1 + r + r²·(c₀ + … + c₄r⁴) on [−ln 2 / 2, ln 2 / 2], found as [`EXP2`]; 2⁻²⁸·² off.
const EXP: [f32; 5] = [
    0.499_999_94,
    0.166_665_21,
    0.041_668_266,
    0.008_368_674,
    0.001_382_073_2,
];

/// ln 2 in two parts, the first of 9 bits: times an integer below 2¹⁵ it is exact.
const LN_2_HIGH: f32 = 0.693_359_4;
const LN_2_LOW: f32 = -0.000_212_194_44;

/// tanh x = x + x³·(c₀ + c₁x² + … + c₅x¹⁰) on [0, 0.7], found as [`EXP2`]; 2⁻³⁰ off.
const TANH: [f32; 6] = [
    -0.333_333_25,
    0.133_33,
    -0.053_922_288,
    0.021_575_91,
    -0.007_891_556,
    0.001_900_989_4,
];

/// Where [`tanh`] changes from the polynomial to the exponential.
const TANH_SMALL: f32 = 0.625;

/// Below it e^x, and x · e^x too, is less than half of the smallest float32.
const EXP_LOWEST: f32 = -110.0;

/// 2^(2h) = 1 + h + h·(c₀ + c₁h + … + c₅h⁵) on [−¼, ¼], lowest power first. Minimax in relative
/// error (Lawson's reweighted least squares), each coefficient rounded to float32 in turn and the
/// rest refitted; 2⁻²⁸·⁷ off. With h apart from the rest, c₀ is small and so is its rounding.
const EXP2: [f32; 6] = [
    0.386_294_4,
    0.960_905_9,
    0.444_027_16,
    0.153_895_48,
    0.042_870_045,
    0.009_819_819,
];

/// A factor of [`exp2_scaled`], and what follows from it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ExponentScale {
    pub(crate) exact: f64,
    scale: f32,
    /// −1/scale.
    inverse: f32,
    /// −126/scale: less gives 0.
    lowest: f32,
    /// [`EXP2`] for h in units of 2/scale.
    apart: [f32; 6],
    /// [`EXP2`] with h in its coefficients: 2^(2h) = 1 + rest·(d₀ + … + d₅·rest⁵).
    whole: [f32; 6],
}

impl ExponentScale {
    /// `scale` is positive and far from overflow, as is its reciprocal.
    pub(crate) fn new(scale: f64) -> Self {
        let half = 0.5 * scale;
        let mut apart = EXP2.map(f64::from);
        let mut whole = apart;
        whole[0] += 1.0;
        let mut power = 1.0;
        for (apart, whole) in apart.iter_mut().zip(&mut whole) {
            *apart *= power;
            power *= half;
            *whole *= power;
        }
        Self {
            exact: scale,
            scale: scale as f32,
            inverse: (-1.0 / scale) as f32,
            lowest: (-126.0 / scale) as f32,
            apart: apart.map(|c| c as f32),
            whole: whole.map(|c| c as f32),
        }
    }
}

/// 1.5 · 2²³ + 127: added to x it leaves the nearest integer n in the low bits of the significand,
/// as the exponent of 2ⁿ.
const ROUND_TO_EXPONENT: f32 = 12_583_039.0;

/// 2^(t · scale) for each t ≤ 0, without the rounding of the product, which would cost |t · scale|
/// ulp: n whole powers of two are taken from t itself, and only the rest is scaled. (1/scale in two
/// parts, as Cody and Waite have it, changes no measured error: where n is large, 2ⁿ is small.)
///
/// The steps of all N go side by side: one after the other, the processor's window holds too few of
/// these long chains (AVX-512: 7.9 cycles a vector, by four 5.5).
#[inline(always)]
pub(crate) fn exp2_scaled<V: Vector, const N: usize>(t: [V; N], scale: &ExponentScale) -> [V; N] {
    let (mut shifted, mut rest) = (t, t);
    for i in 0..N {
        shifted[i] = t[i].mul_add(V::splat(scale.scale), V::splat(ROUND_TO_EXPONENT));
    }
    for i in 0..N {
        let n = shifted[i].sub(V::splat(ROUND_TO_EXPONENT));
        rest[i] = n.mul_add(V::splat(scale.inverse), t[i]);
    }
    let coefficients = if V::FUSES { &scale.whole } else { &scale.apart };
    let mut p = [V::splat(coefficients[5]); N];
    for coefficient in coefficients[..5].iter().rev() {
        for i in 0..N {
            p[i] = p[i].mul_add(rest[i], V::splat(*coefficient));
        }
    }
    for i in 0..N {
        // Rounded twice, the short form would be off by 1.08 ulp.
        p[i] = if V::FUSES {
            p[i].mul_add(rest[i], V::splat(1.0))
        } else {
            let h = rest[i].mul(V::splat(0.5 * scale.scale));
            p[i].mul_add(h, h).add(V::splat(1.0))
        };
    }
    for i in 0..N {
        // Far below, n does not fit its bits and all else is arbitrary.
        let vanishes = t[i].lt(V::splat(scale.lowest));
        p[i] = p[i]
            .mul(shifted[i].low_bits_to_exponent())
            .zero_where(vanishes);
    }
    p
}

/// ln 2 to the power k, over k!: the Taylor series of 2^x, 2⁻⁴⁷ off on [−½, ½] where it ends.
const EXP2_WIDE: [f64; 12] = [
    1.0,
    std::f64::consts::LN_2,
    0.240_226_506_959_100_7,
    0.055_504_108_664_821_58,
    0.009_618_129_107_628_477,
    0.001_333_355_814_642_844_3,
    1.540_353_039_338_160_6e-4,
    1.525_273_380_405_984e-5,
    1.321_548_679_014_431e-6,
    1.017_808_600_923_97e-7,
    7.054_911_620_801_123e-9,
    4.445_538_271_870_811e-10,
];

/// 2^x in float64 for x ≤ 0, 2^−1022 at least, NaN for NaN; 1 at 0. Without a branch, so that a
/// loop over it becomes vectors.
#[inline(always)]
pub(crate) fn exp2_wide(x: f64) -> f64 {
    // 1.5 · 2⁵²: adding it leaves the nearest integer in the low bits of the significand.
    const ROUND: f64 = 6_755_399_441_055_744.0;
    let x = if x < -1022.0 { -1022.0 } else { x };
    let shifted = x + ROUND;
    let rest = x - (shifted - ROUND);
    let mut p = EXP2_WIDE[11];
    for coefficient in EXP2_WIDE[..11].iter().rev() {
        p = p * rest + coefficient;
    }
    p * f64::from_bits((shifted.to_bits() << 52).wrapping_add(1.0_f64.to_bits()))
}

/// A function of each lane. A type, not a closure: the compiler does not inline a long one, and
/// then each of its instructions is a call.
pub(crate) trait Function {
    fn of<V: Vector>(x: V) -> V;
}

/// [`sigmoid`].
#[derive(Debug)]
pub(crate) struct Sigmoid;

impl Function for Sigmoid {
    #[inline(always)]
    fn of<V: Vector>(x: V) -> V {
        sigmoid(x)
    }
}

/// [`silu`].
#[derive(Debug)]
pub(crate) struct Silu;

impl Function for Silu {
    #[inline(always)]
    fn of<V: Vector>(x: V) -> V {
        silu(x)
    }
}

/// F of each value in place; the tail passes through a vector of its own.
#[inline(always)]
pub(crate) fn map_in_place<V: Vector, F: Function>(values: &mut [f32]) {
    let mut vectors = values.chunks_exact_mut(V::LANES);
    for vector in &mut vectors {
        // SAFETY: `vector` has LANES values.
        unsafe { F::of(V::load(vector.as_ptr())).store(vector.as_mut_ptr()) };
    }
    let tail = vectors.into_remainder();
    if !tail.is_empty() {
        let mut vector = [0.0; MAX_LANES];
        vector[..tail.len()].copy_from_slice(tail);
        // SAFETY: MAX_LANES is at least LANES, by the contract of `Vector`.
        unsafe { F::of(V::load(vector.as_ptr())).store(vector.as_mut_ptr()) };
        tail.copy_from_slice(&vector[..tail.len()]);
    }
}

/// e^x = (1 + s) · 2ⁿ for −104 ≤ x ≤ 0: gives s, at most 0.42 in magnitude, and n.
#[inline(always)]
fn exp_parts<V: Vector>(x: V) -> (V, V) {
    let n = x.mul(V::splat(std::f32::consts::LOG2_E)).round();
    let r = n.mul_add(V::splat(-LN_2_HIGH), x);
    let r = n.mul_add(V::splat(-LN_2_LOW), r);
    let mut p = V::splat(EXP[4]);
    p = p.mul_add(r, V::splat(EXP[3]));
    p = p.mul_add(r, V::splat(EXP[2]));
    p = p.mul_add(r, V::splat(EXP[1]));
    p = p.mul_add(r, V::splat(EXP[0]));
    (r.mul(r).mul_add(p, r), n)
}

/// `x · 2ⁿ` for integral n down to −252, rounded once where it leaves the normal numbers.
#[inline(always)]
fn scale_far<V: Vector>(x: V, n: V) -> V {
    let half = n.mul(V::splat(0.5)).round();
    x.scale_by_pow2(half).scale_by_pow2(n.sub(half))
}

/// tanh x, within 2 ulp; ±1 at ±∞, NaN for NaN.
#[inline(always)]
pub(crate) fn tanh<V: Vector>(x: V) -> V {
    let size = x.abs();
    let square = size.mul(size);
    let mut p = V::splat(TANH[5]);
    p = p.mul_add(square, V::splat(TANH[4]));
    p = p.mul_add(square, V::splat(TANH[3]));
    p = p.mul_add(square, V::splat(TANH[2]));
    p = p.mul_add(square, V::splat(TANH[1]));
    p = p.mul_add(square, V::splat(TANH[0]));
    let small = p.mul(square).mul_add(size, size);
    // 1 − 2t / (1 + t), t = e^(−2|x|), which from 10 on is 1; a NaN passes through the maximum's
    // second operand.
    let (s, n) = exp_parts(V::splat(-20.0).max(size.mul(V::splat(-2.0))));
    let one = V::splat(1.0);
    let t = one.add(s).scale_by_pow2(n);
    let large = one.sub(t.add(t).div(one.add(t)));
    V::select(size.lt(V::splat(TANH_SMALL)), small, large).copysign(x)
}

/// 1 − tanh² x as 4t / (1 + t)², t = e^(−2|x|): its digits do not cancel where tanh x is near ±1. 0
/// where it is below 1e-34, NaN for NaN.
#[inline(always)]
pub(crate) fn tanh_derivative<V: Vector>(x: V) -> V {
    let exponent = V::splat(-80.0).max(x.abs().mul(V::splat(-2.0)));
    let (s, n) = exp_parts(exponent);
    let one = V::splat(1.0);
    let t = one.add(s).scale_by_pow2(n);
    let sum = one.add(t);
    let far = exponent.lt(V::splat(-79.0));
    t.mul(V::splat(4.0)).div(sum.mul(sum)).zero_where(far)
}

/// 1 / (1 + e^−x), within 2 ulp; 0 and 1 at −∞ and ∞, NaN for NaN.
#[inline(always)]
pub(crate) fn sigmoid<V: Vector>(x: V) -> V {
    logistic::<V, false>(x)
}

/// x / (1 + e^−x), within 2 ulp; −0, its limit, at −∞, ∞ at ∞, NaN for NaN.
#[inline(always)]
pub(crate) fn silu<V: Vector>(x: V) -> V {
    let x = V::splat(EXP_LOWEST).max(x);
    // A correction of zero turns −0 into 0.
    logistic::<V, true>(x).copysign(x)
}

/// The slope of [`silu`], `σ(x) · (1 + x · (1 − σ(x)))`, to some 4 ulp of its terms: 0 and 1 at −∞
/// and ∞, NaN for NaN. 1 − σ(x) is σ(−x), which loses no digit.
#[inline(always)]
pub(crate) fn silu_slope<V: Vector>(x: V) -> V {
    let (one, zero) = (V::splat(1.0), V::splat(0.0));
    // Past ±110 it has its limits; a NaN passes through the maximum's second operand.
    let lowest = V::splat(EXP_LOWEST).max(zero.sub(x.abs()));
    let (s, n) = exp_parts(lowest);
    let power = scale_far(one.add(s), n);
    let high = one.div(one.add(power));
    let low = power.mul(high);
    let negative = x.lt(zero);
    let gate = V::select(negative, low, high);
    let rest = V::select(negative, high, low);
    gate.mul(lowest.copysign(x).mul_add(rest, one))
}

/// The slope of SiLU in float64, as [`silu_slope`] has it. Without a branch, as [`exp2_wide`].
#[inline(always)]
pub(crate) fn silu_slope_wide(x: f64) -> f64 {
    // Past it both have long had their limits, and all powers are normal numbers.
    const FAR: f64 = 700.0;
    // (Not `min`, which would lose a NaN.)
    let size = if x.abs() > FAR { FAR } else { x.abs() };
    let power = exp2_wide(size * -std::f64::consts::LOG2_E);
    let high = 1.0 / (1.0 + power);
    let low = power * high;
    let (gate, rest) = if x < 0.0 { (low, high) } else { (high, low) };
    gate * (1.0 + size.copysign(x) * rest)
}

/// The product of x and p + p_low in two parts, by halves of 12 bits whose products are exact
/// (Veltkamp).
#[inline(always)]
fn product_in_parts<V: Vector>(x: V, p: V, p_low: V) -> (V, V) {
    let p_high = p.add(V::splat(4096.0)).sub(V::splat(4096.0));
    let p_rest = p.sub(p_high).add(p_low);
    let scaled = x.mul(V::splat(4097.0));
    let x_high = scaled.sub(scaled.sub(x));
    let x_rest = x.sub(x_high);
    let large = x_high.mul(p_high);
    let small = x_rest.mul(p_high).add(x.mul(p_rest));
    let product = large.add(small);
    (product, small.sub(product.sub(large)))
}

/// `factor / (1 + e^−x)`; for negative x `factor · e^x / (1 + e^x)`, e^x without its power of two
/// times the factor in two parts. The factor is x if `TIMES_X`, else 1.
#[inline(always)]
fn logistic<V: Vector, const TIMES_X: bool>(x: V) -> V {
    let (one, zero) = (V::splat(1.0), V::splat(0.0));
    let (s, n) = exp_parts(V::splat(EXP_LOWEST).max(zero.sub(x.abs())));
    // Each sum in two parts: three roundings without them come to more than 2 ulp.
    let p = one.add(s);
    let p_low = s.sub(p.sub(one));
    // Below 2⁻⁶⁰ the power no longer counts beside 1.
    let near = n.max(V::splat(-60.0));
    let t = p.scale_by_pow2(near);
    let u = one.add(t);
    let u_low = t.sub(u.sub(one)).add(p_low.scale_by_pow2(near));
    let negative = x.lt(zero);
    let (numerator, numerator_low) = if TIMES_X {
        product_in_parts(x, p, p_low)
    } else {
        (p, p_low)
    };
    let numerator = V::select(negative, numerator, if TIMES_X { x } else { one });
    let numerator_low = V::select(negative, numerator_low, zero);
    let quotient = numerator.div(u);
    // 1/u on [1, 2] to 4 %, enough for a correction.
    let inverse = u.mul_add(u.mul_add(V::splat(0.26), V::splat(-1.26)), V::splat(2.0));
    let corrected = quotient.add(numerator_low.sub(quotient.mul(u_low)).mul(inverse));
    // Where e^−x vanishes the quotient is exact, and perhaps infinite.
    let y = V::select(x.lt(V::splat(-EXP_LOWEST)), corrected, quotient);
    scale_far(y, V::select(negative, n, zero))
}
