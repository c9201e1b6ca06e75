//! The last walk: results from a group's moments. Knows nothing of how those are found.

use std::ops::Range;

use super::moments::Moments;
use super::runs::{Input, Runs};
use crate::blocks::norm::{AHEAD, NEAR};
use crate::error::Error;
use crate::norm::spread::InverseSpread;
use crate::norm::write::{is_backward, is_streamed, write};
use crate::run::buffer::try_zeroed;
use crate::simd::{Kernel, Vector, math};
use crate::tensor::output::Output;

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
    /// The last two parameters of [`affine`].
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

/// `y = (x − mean) · power · factor + bias`: what float32 does not hold of the mean is in the bias.
#[inline(always)]
fn affine(x: f32, mean: f32, power: f32, factor: f32, bias: f32) -> f32 {
    (x - mean) * power * factor + bias
}

/// The parameters of [`affine`] for each channel.
#[derive(Debug)]
pub(super) struct ChannelAffine {
    mean: Vec<f32>,
    power: Vec<f32>,
    factor: Vec<f32>,
    bias: Vec<f32>,
}

impl ChannelAffine {
    pub(super) fn new(runs: &Runs) -> Result<Self, Error> {
        let channels = if runs.stretch == 1 { runs.channels } else { 0 };
        Ok(Self {
            mean: try_zeroed(channels)?,
            power: try_zeroed(channels)?,
            factor: try_zeroed(channels)?,
            bias: try_zeroed(channels)?,
        })
    }

    /// The parameters of groups with `moments`, each of `width` channels.
    #[inline(always)]
    fn set(&mut self, moments: &[Moments], width: usize, parameters: &Parameters<'_>) {
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

/// What results are made in.
#[derive(Debug)]
pub(super) struct Places {
    /// A chunk of x and of y as float32; empty where they are that themselves.
    wide_x: Vec<f32>,
    wide_y: Vec<f32>,
    /// With channels last only.
    by_channel: ChannelAffine,
}

impl Places {
    /// `wide` is the elements of a chunk that are not float32.
    pub(super) fn new(wide: usize, runs: &Runs) -> Result<Self, Error> {
        Ok(Self {
            wide_x: try_zeroed(wide)?,
            wide_y: try_zeroed(wide)?,
            by_channel: ChannelAffine::new(runs)?,
        })
    }
}

/// Walk 3: the results of some chunks of one run, its moments known.
pub(super) struct Normalise<'u> {
    pub(super) input: Input<'u>,
    pub(super) parameters: Parameters<'u>,
    pub(super) run: usize,
    pub(super) chunks: Range<usize>,
    pub(super) moments: &'u [Moments],
    /// Has all of x's elements, of which no other thread writes these chunks.
    pub(super) output: &'u Output<'u>,
    pub(super) places: &'u mut Places,
}

impl Kernel for Normalise<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self {
            input,
            parameters,
            run,
            chunks,
            moments,
            output,
            places,
        } = self;
        let Runs {
            len,
            channels,
            width,
            stretch,
            ..
        } = input.runs;
        let Places {
            wide_x,
            wide_y,
            by_channel,
        } = places;
        if stretch == 1 {
            by_channel.set(moments, width, &parameters);
        }
        let is_streamed = V::STREAMS && is_streamed(output, stretch);
        for chunk in chunks {
            let range = input.runs.chunk(chunk);
            let (start, elements) = (range.start, run * len + range.start..run * len + range.end);
            let x = input.values(elements.clone(), wide_x);
            // SAFETY: each chunk of a run is one unit's.
            let direct = unsafe { output.part(elements.clone()) };
            let is_narrow = direct.is_none();
            let y = direct.unwrap_or_else(|| &mut wide_y[..elements.len()]);
            if stretch == 1 {
                normalise_positions(by_channel, x, y);
                if parameters.activation == Some(Activation::Silu) {
                    math::map_in_place(y, math::silu::<V>);
                }
            } else {
                let part = Part {
                    parameters,
                    standardise: Standardise::new(moments[0], parameters.eps),
                    first_channel: run % (channels / width) * width,
                    start,
                    stretch,
                    len,
                };
                match (is_streamed, parameters.activation) {
                    (false, None) => part.normalise::<V, false>(x, y, |y| y),
                    (true, None) => part.normalise::<V, true>(x, y, |y| y),
                    (false, Some(Activation::Silu)) => part.normalise::<V, false>(x, y, math::silu),
                    (true, Some(Activation::Silu)) => part.normalise::<V, true>(x, y, math::silu),
                }
            }
            if is_narrow {
                // SAFETY: as above.
                unsafe { output.narrow(elements.start, y) };
            }
        }
        if is_streamed {
            V::fence();
        }
    }
}

/// A part of a group whose channels are stretches.
#[derive(Debug, Clone, Copy)]
struct Part<'u> {
    parameters: Parameters<'u>,
    standardise: Standardise,
    first_channel: usize,
    /// Its first element within the group, of `len`.
    start: usize,
    stretch: usize,
    len: usize,
}

impl Part<'_> {
    #[inline(always)]
    fn normalise<V: Vector, const STREAM: bool>(
        &self,
        x: &[f32],
        y: &mut [f32],
        activation: impl Fn(V) -> V,
    ) {
        let Self {
            parameters,
            standardise,
            first_channel,
            start,
            stretch,
            len,
        } = *self;
        let Standardise { mean, inverse, .. } = standardise;
        let mut at = 0;
        while at < x.len() {
            let channel = (start + at) / stretch;
            let end = ((channel + 1) * stretch - start).min(x.len());
            let (factor, bias) = parameters.factor_and_bias(standardise, first_channel + channel);
            let (x, y) = (&x[at..end], &mut y[at..end]);
            let [splat_mean, power, splat_factor, splat_bias] =
                [mean, inverse.power, factor, bias].map(V::splat);
            // A group that L2 holds is read once from memory, the next one while this one is
            // written. One that it does not hold would be driven from L3 by that: half
            // as fast.
            let ahead = if len <= AHEAD { len } else { NEAR };
            let ahead = x.as_ptr().wrapping_add(ahead);
            let done = write::<V, STREAM>(y, is_backward(x, y), ahead, |at| {
                // SAFETY: `write` gives vectors of y, and x is as long.
                let x = unsafe { V::load(x.as_ptr().add(at)) };
                activation(
                    x.sub(splat_mean)
                        .mul(power)
                        .mul(splat_factor)
                        .add(splat_bias),
                )
            });
            let (x, y) = (&x[done..], &mut y[done..]);
            for (y, &x) in y.iter_mut().zip(x) {
                *y = affine(x, mean, inverse.power, factor, bias);
            }
            math::map_in_place(y, &activation);
            at = end;
        }
    }
}

/// Whole positions with channels last.
#[inline(always)]
fn normalise_positions(by_channel: &ChannelAffine, x: &[f32], y: &mut [f32]) {
    let channels = by_channel.mean.len();
    let ChannelAffine {
        mean,
        power,
        factor,
        bias,
    } = by_channel;
    // Cut to one length, so that the loop needs no bounds checks.
    let (power, factor, bias) = (&power[..channels], &factor[..channels], &bias[..channels]);
    for (x, y) in x.chunks_exact(channels).zip(y.chunks_exact_mut(channels)) {
        for c in 0..channels {
            y[c] = affine(x[c], mean[c], power[c], factor[c], bias[c]);
        }
    }
}
