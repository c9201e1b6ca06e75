//! Elementary functions over [`Vector`]: polynomials with known error bounds, the same on every instruction
//! set up to fused against unfused multiply-adds. Never the platform's library.

use super::Vector;

/// The most lanes that a [`Vector`] has.
const MAX_LANES: usize = 16;

/// e^r = 1 + r + r²·(c₀ + … + c₄r⁴) on [−ln 2 / 2, ln 2 / 2], found as [`EXP2`]; 2⁻²⁸·² off.
const EXP: [f32; 5] = [0.499_999_94, 0.166_665_21, 0.041_668_266, 0.008_368_674, 0.001_382_073_2];

/// ln 2 in two parts, the first of 9 bits: times an integer below 2¹⁵ it is exact.
const LN_2_HIGH: f32 = 0.693_359_4;
const LN_2_LOW: f32 = -0.000_212_194_44;

/// tanh x = x + x³·(c₀ + c₁x² + … + c₅x¹⁰) on [0, 0.7], found as [`EXP2`]; 2⁻³⁰ off.
const TANH: [f32; 6] = [-0.333_333_25, 0.133_330_0, -0.053_922_288, 0.021_575_91, -0.007_891_556, 0.001_900_989_4];

/// Where [`tanh`] changes from the polynomial to the exponential.
const TANH_SMALL: f32 = 0.625;

/// Below it (and above its negative) e^x is less than half of the smallest float32.
const EXP_LOWEST: f32 = -104.0;

/// 2^f = 1 + f·(c₀ + c₁f + … + c₅f⁵) on [−½, ½], lowest power first. Minimax in relative error with the
/// constant held at 1, each coefficient rounded to float32 in turn and the rest refitted; 2⁻²⁸·³ off.
const EXP2: [f32; 6] = [0.693_147_2, 0.240_226_48, 0.055_503_596, 0.009_618_499, 0.001_339_097_2, 0.000_153_293_32];

/// 2^x for x ≤ 0: within 1 ulp on [−126, 0], exactly 0 below −126 (so at −∞), NaN for NaN.
#[inline(always)]
pub(crate) fn exp2<V: Vector>(x: V) -> V {
    let n = x.round();
    exp2_reduced(x, n, x.sub(n))
}

/// `scale` and its reciprocal in two parts, for [`exp2_scaled`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct ExponentScale {
    pub(crate) scale: f32,
    /// What float32 leaves of the scale.
    rest: f32,
    /// 1/scale to 16 bits: times an integer below 2⁸ it is exact.
    inverse_high: f32,
    inverse_low: f32,
}

impl ExponentScale {
    /// `scale` is positive and far from overflow, as is its reciprocal.
    pub(crate) fn new(scale: f64) -> Self {
        let inverse_high = f32::from_bits(((1.0 / scale) as f32).to_bits() & 0xFFFF_FF00);
        Self {
            scale: scale as f32,
            rest: (scale - f64::from(scale as f32)) as f32,
            inverse_high,
            inverse_low: (1.0 / scale - f64::from(inverse_high)) as f32,
        }
    }
}

/// 2^(t · scale) for t ≤ 0, without the rounding of scale and product: they would cost |t · scale| ulp.
#[inline(always)]
pub(crate) fn exp2_scaled<V: Vector>(t: V, scale: &ExponentScale) -> V {
    let factor = V::splat(scale.scale);
    let x = t.mul(factor);
    let n = x.round();
    let f = if V::FUSED {
        t.mul_add(V::splat(scale.rest), t.mul_add(factor, V::splat(0.0).sub(n)))
    } else {
        // Cody and Waite: what is left of t after n whole powers of two, exactly, then scaled.
        let rest = t.sub(n.mul(V::splat(scale.inverse_high))).sub(n.mul(V::splat(scale.inverse_low)));
        rest.mul(factor)
    };
    exp2_reduced(x, n, f)
}

/// 2^(n + f) for integral n and f in about [−½, ½]; x is about n + f, and decides below −126.
#[inline(always)]
fn exp2_reduced<V: Vector>(x: V, n: V, f: V) -> V {
    let mut p = V::splat(EXP2[5]);
    p = p.mul_add(f, V::splat(EXP2[4]));
    p = p.mul_add(f, V::splat(EXP2[3]));
    p = p.mul_add(f, V::splat(EXP2[2]));
    p = p.mul_add(f, V::splat(EXP2[1]));
    p = p.mul_add(f, V::splat(EXP2[0]));
    p = p.mul_add(f, V::splat(1.0));
    V::select(x.lt(V::splat(-126.0)), V::splat(0.0), p.scale_by_pow2(n))
}

/// `f` of each value in place; the tail passes through a vector of its own.
#[inline(always)]
pub(crate) fn map_in_place<V: Vector>(values: &mut [f32], f: impl Fn(V) -> V) {
    let mut vectors = values.chunks_exact_mut(V::LANES);
    for vector in &mut vectors {
        // SAFETY: `vector` has LANES values.
        unsafe { f(V::load(vector.as_ptr())).store(vector.as_mut_ptr()) };
    }
    let tail = vectors.into_remainder();
    if !tail.is_empty() {
        let mut vector = [0.0; MAX_LANES];
        vector[..tail.len()].copy_from_slice(tail);
        // SAFETY: MAX_LANES is at least LANES, by the contract of `Vector`.
        unsafe { f(V::load(vector.as_ptr())).store(vector.as_mut_ptr()) };
        tail.copy_from_slice(&vector[..tail.len()]);
    }
}

/// e^x = (1 + s) · 2ⁿ for −104 ≤ x ≤ 0: gives s, at most 0.42 in magnitude, and n.
#[inline(always)]
fn exp_parts<V: Vector>(x: V) -> (V, V) {
    let n = x.mul(V::splat(std::f32::consts::LOG2_E)).round();
    let minus_n = V::splat(0.0).sub(n);
    let r = minus_n.mul_add(V::splat(LN_2_HIGH), x);
    let r = minus_n.mul_add(V::splat(LN_2_LOW), r);
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
    // 1 − 2t / (1 + t), t = e^(−2|x|), which from 10 on is 1; a NaN passes through the maximum's second operand.
    let (s, n) = exp_parts(V::splat(-20.0).max(size.mul(V::splat(-2.0))));
    let one = V::splat(1.0);
    let t = one.add(s).scale_by_pow2(n);
    let large = one.sub(t.add(t).div(one.add(t)));
    V::select(size.lt(V::splat(TANH_SMALL)), small, large).copysign(x)
}

/// 1 / (1 + e^−x), within 2 ulp; 0 and 1 at −∞ and ∞, NaN for NaN.
#[inline(always)]
pub(crate) fn sigmoid<V: Vector>(x: V) -> V {
    logistic(x, V::splat(1.0))
}

/// x / (1 + e^−x), within 2 ulp; −0, its limit, at −∞, ∞ at ∞, NaN for NaN.
#[inline(always)]
pub(crate) fn silu<V: Vector>(x: V) -> V {
    logistic(x, x.max(V::splat(EXP_LOWEST)))
}

#[inline(always)]
fn logistic<V: Vector>(x: V, factor: V) -> V {
    let (one, zero) = (V::splat(1.0), V::splat(0.0));
    let (s, n) = exp_parts(V::splat(EXP_LOWEST).max(zero.sub(x.abs())));
    let p = one.add(s);
    let t = scale_far(p, n);
    let negative = x.lt(zero);
    let numerator = V::select(negative, factor.mul(p), factor);
    let y = numerator.div(one.add(t));
    scale_far(y, V::select(negative, n, zero))
}
