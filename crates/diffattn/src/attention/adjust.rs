//! What makes a true score of a scaled product, vector by vector: softcap and bias. Shared by
//! `prefill/` and `decode/`, so that both have the same bits.

use crate::simd::{Vector, math};

/// `s + bias` where the bias is finite, −∞ where it masks. A finite bias never turns a score into
/// −∞.
#[inline(always)]
pub(super) fn add_bias<V: Vector>(score: V, bias: V) -> V {
    let lowest = V::splat(f32::MIN);
    let sum = score.add(bias);
    // `lowest.max(sum)` keeps a NaN of `sum`.
    let sum = V::select(score.lt(lowest), sum, lowest.max(sum));
    V::select(bias.lt(lowest), V::splat(f32::NEG_INFINITY), sum)
}

/// `softcap · tanh(s / softcap)`.
#[inline(always)]
pub(super) fn cap<V: Vector>(score: V, softcap: f32) -> V {
    V::splat(softcap).mul(math::tanh(score.div(V::splat(softcap))))
}

/// The derivative of [`cap`] at s: `1 − tanh²(s / softcap)`.
#[inline(always)]
pub(super) fn cap_derivative<V: Vector>(score: V, softcap: f32) -> V {
    math::tanh_derivative(score.div(V::splat(softcap)))
}
