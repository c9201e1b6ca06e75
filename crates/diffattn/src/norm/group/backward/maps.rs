//! What is made of elements in the walks: terms of sums, what an activation lets through, and dx,
//! each at its place. Knows nothing of chunks.

use std::marker::PhantomData;

use super::run::ChannelFactors;
use crate::norm::backward::call::Factors;
use crate::norm::products::RowTerms;
use crate::norm::write::{Place, Results};
use crate::simd::math::{MAX_LANES, silu_slope};
use crate::simd::{Vector, Wide};

/// d · (x − reference) and d, of positions with channels last.
pub(super) struct FromReference<'u> {
    pub(super) x: &'u [f32],
    pub(super) d: &'u [f32],
    pub(super) reference: &'u [f32],
    pub(super) channels: usize,
}

impl RowTerms<2> for FromReference<'_> {
    #[inline(always)]
    unsafe fn vector<W: Wide>(&self, row: usize, at: usize) -> [W; 2] {
        // SAFETY: (all three) the caller's promise.
        let load = |values: &[f32], at: usize| unsafe { W::widen(values.as_ptr().add(at)) };
        let first = row * self.channels + at;
        let difference = load(self.x, first).sub(load(self.reference, at));
        let d = load(self.d, first);
        [d.mul(difference), d]
    }

    #[inline(always)]
    unsafe fn one(&self, row: usize, at: usize) -> [f64; 2] {
        let first = row * self.channels + at;
        let d = f64::from(self.d[first]);
        [
            d * (f64::from(self.x[first]) - f64::from(self.reference[at])),
            d,
        ]
    }
}

/// dy through SiLU at u.
pub(super) struct Upstream<'u, V, R> {
    pub(super) u: R,
    pub(super) dy: &'u [f32],
    /// What single values are computed in, too.
    pub(super) vector: PhantomData<V>,
}

impl<V: Vector, R: Results> Results for Upstream<'_, V, R> {
    #[inline(always)]
    unsafe fn vector<W: Vector>(&self, at: Place) -> W {
        // SAFETY: (both) the caller's promise.
        let (u, dy) = unsafe { (self.u.vector::<W>(at), W::load(at.of(self.dy))) };
        dy.mul(silu_slope(u))
    }

    #[inline(always)]
    unsafe fn one(&self, at: usize) -> f32 {
        let mut lanes = [0.0; MAX_LANES];
        // SAFETY: (all of it) the caller's promise, and MAX_LANES is at least LANES.
        unsafe {
            silu_slope(V::splat(self.u.one(at))).store(lanes.as_mut_ptr());
        }
        self.dy[at] * lanes[0]
    }
}

/// A map of d to dx, at its place.
pub(super) trait Gradient {
    /// # Safety
    /// There are so many values from `at` on.
    unsafe fn vector<V: Vector>(&self, d: V, at: Place) -> V;

    /// To the same bits.
    ///
    /// # Safety
    /// There is one at `at`.
    unsafe fn one(&self, d: f32, at: usize) -> f32;
}

/// dx of dy.
pub(super) struct OfDy<'u, G> {
    pub(super) dy: &'u [f32],
    pub(super) map: G,
}

impl<G: Gradient> Results for OfDy<'_, G> {
    #[inline(always)]
    unsafe fn vector<V: Vector>(&self, at: Place) -> V {
        // SAFETY: (both) the caller's promise.
        unsafe { self.map.vector(V::load(at.of(self.dy)), at) }
    }

    #[inline(always)]
    unsafe fn one(&self, at: usize) -> f32 {
        // SAFETY: the caller's promise.
        unsafe { self.map.one(self.dy[at], at) }
    }
}

/// dx in place of d.
///
/// # Safety
/// The map has as many values.
#[inline(always)]
pub(super) unsafe fn replace<V: Vector>(d: &mut [f32], map: &impl Gradient) {
    let len = d.len();
    let mut vectors = d.chunks_exact_mut(V::LANES);
    for (index, vector) in vectors.by_ref().enumerate() {
        // SAFETY: `vector` has LANES values; the map the caller promises.
        unsafe {
            let dx = map.vector(V::load(vector.as_ptr()), Place::at(index * V::LANES));
            dx.store(vector.as_mut_ptr());
        }
    }
    let tail = vectors.into_remainder();
    let first = len - tail.len();
    for (i, d) in tail.iter_mut().enumerate() {
        // SAFETY: the caller's promise.
        *d = unsafe { map.one(*d, first + i) };
    }
}

/// The gradient within one channel of one group.
pub(super) struct InStretch<'u> {
    pub(super) x: &'u [f32],
    pub(super) weight: f32,
    pub(super) factors: Factors,
}

impl Gradient for InStretch<'_> {
    #[inline(always)]
    unsafe fn vector<V: Vector>(&self, d: V, at: Place) -> V {
        let factors = self.factors;
        // SAFETY: the caller's promise.
        let x = unsafe { V::load(at.of(self.x)) };
        let x = x.sub(V::splat(factors.mean)).mul(V::splat(factors.power));
        d.mul(V::splat(self.weight))
            .sub(V::splat(factors.mean_gradient))
            .sub(x.mul(V::splat(factors.deviation)))
            .mul(V::splat(factors.rest))
            .mul(V::splat(factors.power))
    }

    #[inline(always)]
    unsafe fn one(&self, d: f32, at: usize) -> f32 {
        let factors = self.factors;
        let x = (self.x[at] - factors.mean) * factors.power * factors.deviation;
        (d * self.weight - factors.mean_gradient - x) * factors.rest * factors.power
    }
}

/// The gradient within a position with channels last.
pub(super) struct InPosition<'u> {
    pub(super) x: &'u [f32],
    pub(super) by_channel: &'u ChannelFactors,
}

impl Gradient for InPosition<'_> {
    #[inline(always)]
    unsafe fn vector<V: Vector>(&self, d: V, at: Place) -> V {
        // SAFETY: the caller's promise: x and what there is by channel are as long.
        let load = |values: &[f32]| unsafe { V::load(at.of(values)) };
        let by_channel = self.by_channel;
        let power = load(&by_channel.power);
        let x = load(self.x).sub(load(&by_channel.mean)).mul(power);
        d.mul(load(&by_channel.weight))
            .sub(load(&by_channel.mean_gradient))
            .sub(x.mul(load(&by_channel.deviation)))
            .mul(load(&by_channel.rest))
            .mul(power)
    }

    #[inline(always)]
    unsafe fn one(&self, d: f32, at: usize) -> f32 {
        let one = |values: &[f32]| values[at];
        let by_channel = self.by_channel;
        let power = one(&by_channel.power);
        let x = (one(self.x) - one(&by_channel.mean)) * power * one(&by_channel.deviation);
        let g = d * one(&by_channel.weight) - one(&by_channel.mean_gradient);
        (g - x) * one(&by_channel.rest) * power
    }
}
