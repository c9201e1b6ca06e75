//! Elementary functions over [`Vector`]: polynomials with known error bounds, the same on every instruction
//! set up to fused against unfused multiply-adds. Never the platform's library.

use super::Vector;

/// 2^f = 1 + f·(c₀ + c₁f + … + c₅f⁵) on [−½, ½], lowest power first. Minimax in relative error with the
/// constant held at 1, each coefficient rounded to float32 in turn and the rest refitted; 2⁻²⁸·³ off.
const EXP2: [f32; 6] = [0.693_147_2, 0.240_226_48, 0.055_503_596, 0.009_618_499, 0.001_339_097_2, 0.000_153_293_32];

/// 2^x for x ≤ 0: within 1 ulp on [−126, 0], exactly 0 below −126 (so at −∞), NaN for NaN.
#[inline(always)]
pub(crate) fn exp2<V: Vector>(x: V) -> V {
    let n = x.round();
    let f = x.sub(n);
    let mut p = V::splat(EXP2[5]);
    p = p.mul_add(f, V::splat(EXP2[4]));
    p = p.mul_add(f, V::splat(EXP2[3]));
    p = p.mul_add(f, V::splat(EXP2[2]));
    p = p.mul_add(f, V::splat(EXP2[1]));
    p = p.mul_add(f, V::splat(EXP2[0]));
    p = p.mul_add(f, V::splat(1.0));
    V::select(x.lt(V::splat(-126.0)), V::splat(0.0), p.scale_by_pow2(n))
}
