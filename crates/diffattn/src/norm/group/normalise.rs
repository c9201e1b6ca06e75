//! The last walk: results from a group's moments. Knows nothing of how those are found.

use super::moments::Moments;
use super::runs::{Input, Runs};
use crate::blocks::norm::{AHEAD, NEAR};
use crate::error::Error;
use crate::norm::spread::InverseSpread;
use crate::norm::write::{Before, Place, Results, is_backward, write};
use crate::run::buffer::try_zeroed;
use crate::simd::{Vector, math};

/// What follows a norm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `y · σ(y)`.
    Silu,
}

/// What is done to normalised values.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parameters<'a> {
    pub(super) eps: f32,
    pub(super) weight: Option<&'a [f32]>,
    pub(super) bias: Option<&'a [f32]>,
    pub(super) activation: Option<Activation>,
}

impl Parameters<'_> {
    /// What turns x of a channel into results.
    #[inline(always)]
    pub(super) fn affine<'u>(
        &self,
        standardise: Standardise,
        channel: usize,
        x: &'u [f32],
    ) -> Affine<'u> {
        let (factor, bias) = self.factor_and_bias(standardise, channel);
        Affine {
            x,
            mean: standardise.mean,
            power: standardise.inverse.power,
            factor,
            bias,
        }
    }

    /// The last two parameters of [`Affine`].
    #[inline(always)]
    fn factor_and_bias(&self, standardise: Standardise, channel: usize) -> (f32, f32) {
        let weight = self.weight.map_or(1.0, |weight| f64::from(weight[channel]));
        let bias = self.bias.map_or(0.0, |bias| f64::from(bias[channel]));
        let Standardise {
            rest_of_mean,
            inverse,
            ..
        } = standardise;
        let factor = inverse.rest * weight;
        let bias = bias - rest_of_mean * f64::from(inverse.power) * factor;
        (factor as f32, bias as f32)
    }
}

/// What turns x of one group into x̂: `(x − mean − rest_of_mean) · power · rest`.
#[derive(Debug, Clone, Copy)]
pub(in crate::norm) struct Standardise {
    pub(in crate::norm) mean: f32,
    pub(in crate::norm) rest_of_mean: f64,
    pub(in crate::norm) inverse: InverseSpread,
}

impl Standardise {
    #[inline(always)]
    pub(in crate::norm) fn new(moments: Moments, eps: f32) -> Self {
        let mean = moments.mean as f32;
        Self {
            mean,
            rest_of_mean: moments.mean - f64::from(mean),
            inverse: InverseSpread::of((moments.squares / moments.count + f64::from(eps)).sqrt()),
        }
    }
}

/// The parameters of [`Affine`] for each channel.
#[derive(Debug)]
pub(super) struct ChannelAffine {
    mean: Vec<f32>,
    power: Vec<f32>,
    factor: Vec<f32>,
    bias: Vec<f32>,
}

impl ChannelAffine {
    pub(super) fn new(runs: &Runs) -> Result<Self, Error> {
        let channels = runs.last_channels();
        Ok(Self {
            mean: try_zeroed(channels)?,
            power: try_zeroed(channels)?,
            factor: try_zeroed(channels)?,
            bias: try_zeroed(channels)?,
        })
    }

    /// The parameters of groups with `moments`, each of `width` channels.
    #[inline(always)]
    pub(super) fn set(&mut self, moments: &[Moments], width: usize, parameters: &Parameters<'_>) {
        for (group, &moments) in moments.iter().enumerate() {
            let standardise = Standardise::new(moments, parameters.eps);
            for channel in group * width..(group + 1) * width {
                self.mean[channel] = standardise.mean;
                self.power[channel] = standardise.inverse.power;
                (self.factor[channel], self.bias[channel]) =
                    parameters.factor_and_bias(standardise, channel);
            }
        }
    }
}

/// Walk 3 over a run, its moments known.
pub(super) struct Normalise<'u> {
    runs: Runs,
    parameters: &'u Parameters<'u>,
    by_channel: &'u ChannelAffine,
    /// Of the one group, and its first channel, with channels first.
    standardise: Standardise,
    first_channel: usize,
    /// The next run, where it lies in memory as float32 and L2 holds it.
    next: Option<&'u [f32]>,
}

impl<'u> Normalise<'u> {
    /// `by_channel` is for the parameters of the channels, where these are last.
    #[inline(always)]
    pub(super) fn new(
        input: &'u Input<'u>,
        parameters: &'u Parameters<'u>,
        run: usize,
        moments: &[Moments],
        by_channel: &'u mut ChannelAffine,
    ) -> Self {
        let runs = input.runs;
        if runs.stretch == 1 {
            by_channel.set(moments, runs.width, parameters);
        }
        Self {
            runs,
            parameters,
            by_channel,
            standardise: Standardise::new(moments[0], parameters.eps),
            first_channel: run % (runs.channels / runs.width) * runs.width,
            next: input.next(run),
        }
    }

    /// The results of a chunk, whose first element in its run is `start`.
    #[inline(always)]
    pub(super) fn chunk<V: Vector, const STREAM: bool>(
        &self,
        start: usize,
        x: &[f32],
        y: &mut [f32],
    ) {
        if self.runs.stretch == 1 {
            let by_channel = self.by_channel;
            let channels = self.runs.channels;
            for (x, y) in x.chunks_exact(channels).zip(y.chunks_exact_mut(channels)) {
                let position = Position { x, by_channel };
                // SAFETY: a position has the channels that there are parameters of.
                unsafe { write::<V, false, 0>(y, false, [], position) };
            }
        } else {
            self.stretches::<V, STREAM>(start, x, y);
        }
        match self.parameters.activation {
            None => {}
            Some(Activation::Silu) => math::map_in_place::<V, math::Silu>(y),
        }
    }

    /// A chunk with channels first.
    #[inline(always)]
    fn stretches<V: Vector, const STREAM: bool>(&self, start: usize, x: &[f32], y: &mut [f32]) {
        let Runs { stretch, len, .. } = self.runs;
        let mut at = 0;
        while at < x.len() {
            let channel = (start + at) / stretch;
            let end = ((channel + 1) * stretch - start).min(x.len());
            let channel = self.first_channel + channel;
            let (x, y) = (&x[at..end], &mut y[at..end]);
            // A group that L2 holds is read once from memory, the next one while this one is
            // written. One that it does not hold would be driven from L3 by that: half
            // as fast.
            let ahead = if len <= AHEAD { len } else { NEAR };
            let ahead = x.as_ptr().wrapping_add(ahead);
            let results = self.parameters.affine(self.standardise, channel, x);
            let backward = is_backward(x, y);
            // (V8 13, from memory: 0.87 to 0.95 of the time; while moments are summed, in the place
            // of it, 1.01, and y then, besides it, 1.13.)
            let next = self.next.map_or(x, |next| &next[start + at..][..x.len()]);
            // SAFETY: (both) x and what comes next are as long as y.
            unsafe {
                if V::TOUCHES {
                    write::<V, false, 0>(y, backward, [], Before { next, results });
                } else {
                    write::<V, STREAM, 1>(y, backward, [ahead], results);
                }
            }
            at = end;
        }
    }
}

/// `(x − mean) · power · factor + bias`: what float32 does not hold of the mean is in the bias.
pub(super) struct Affine<'u> {
    x: &'u [f32],
    mean: f32,
    power: f32,
    factor: f32,
    bias: f32,
}

impl Results for Affine<'_> {
    #[inline(always)]
    unsafe fn vector<V: Vector>(&self, at: Place) -> V {
        // SAFETY: the caller's promise.
        let x = unsafe { V::load(at.of(self.x)) };
        x.sub(V::splat(self.mean))
            .mul(V::splat(self.power))
            .mul(V::splat(self.factor))
            .add(V::splat(self.bias))
    }

    #[inline(always)]
    unsafe fn one(&self, at: usize) -> f32 {
        // SAFETY: the caller's promise.
        let x = unsafe { self.x.get_unchecked(at) };
        (x - self.mean) * self.power * self.factor + self.bias
    }
}

/// A position with channels last, as [`Affine`].
pub(super) struct Position<'u> {
    pub(super) x: &'u [f32],
    pub(super) by_channel: &'u ChannelAffine,
}

impl Results for Position<'_> {
    #[inline(always)]
    unsafe fn vector<V: Vector>(&self, at: Place) -> V {
        // SAFETY: the caller's promise: x and what there is by channel are as long.
        let load = |values: &[f32]| unsafe { V::load(at.of(values)) };
        let ChannelAffine {
            mean,
            power,
            factor,
            bias,
        } = self.by_channel;
        load(self.x)
            .sub(load(mean))
            .mul(load(power))
            .mul(load(factor))
            .add(load(bias))
    }

    #[inline(always)]
    unsafe fn one(&self, at: usize) -> f32 {
        // SAFETY: the caller's promise, as above.
        let one = |values: &[f32]| unsafe { *values.get_unchecked(at) };
        let ChannelAffine {
            mean,
            power,
            factor,
            bias,
        } = self.by_channel;
        (one(self.x) - one(mean)) * one(power) * one(factor) + one(bias)
    }
}
