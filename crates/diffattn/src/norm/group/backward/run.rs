//! What is known of one run: the sums of its chunks, and what follows from them for its gradient.
//! Plain float64, one thread; walks over no element of x.

use std::ops::Range;

use super::small::Group;
use crate::blocks::norm::SMALL_GROUP;
use crate::error::Error;
use crate::norm::backward::call::Factors;
use crate::norm::group::moments::{Moments, merge};
use crate::norm::group::normalise::{ChannelAffine, Parameters, Standardise};
use crate::norm::group::runs::Runs;
use crate::run::buffer::try_zeroed;
use crate::run::threads::Disjoint;
use crate::tensor::Data;

impl Runs {
    /// Whether groups are so small that their last steps are taken in float64.
    pub(super) fn are_small(&self) -> bool {
        self.len <= SMALL_GROUP * self.groups
    }

    /// The first channel of a run.
    pub(super) fn first_channel(&self, run: usize) -> usize {
        if self.stretch == 1 {
            0
        } else {
            run % (self.channels / self.width) * self.width
        }
    }

    /// Channels of a run.
    pub(super) fn run_channels(&self) -> usize {
        if self.stretch == 1 {
            self.channels
        } else {
            self.width
        }
    }

    /// Where the sums of a chunk's channels begin. With channels first, chunk k has part k + c of
    /// its run's channel c: a new part begins with every chunk and with every channel, so that no
    /// two have the same one.
    pub(super) fn first_part(&self, chunk: usize) -> usize {
        if self.stretch == 1 {
            chunk * self.channels
        } else {
            chunk + chunk * self.chunk / self.stretch
        }
    }

    /// Where some chunks have their sums by group.
    fn chunk_groups(&self, chunks: &Range<usize>) -> Range<usize> {
        chunks.start * self.groups..chunks.end * self.groups
    }

    /// Where some chunks have their sums by part.
    fn chunk_parts(&self, chunks: &Range<usize>) -> Range<usize> {
        let end = if chunks.end == self.chunks() {
            self.parts()
        } else {
            self.first_part(chunks.end)
        };
        self.first_part(chunks.start)..end
    }

    /// The parts of all chunks.
    fn parts(&self) -> usize {
        if self.stretch == 1 {
            self.chunks() * self.channels
        } else {
            self.chunks() + self.width
        }
    }
}

/// The sums of a run's chunks: moments by chunk and group; by part Σ d and Σ d·(x − reference).
pub(super) struct RunSums {
    moments: Vec<Moments>,
    sums: Vec<f64>,
    products: Vec<f64>,
}

impl RunSums {
    pub(super) fn new(runs: &Runs) -> Result<Self, Error> {
        let parts = runs.parts();
        Ok(Self {
            moments: try_zeroed(runs.chunks() * runs.groups)?,
            sums: try_zeroed(parts)?,
            products: try_zeroed(parts)?,
        })
    }

    /// Where `chunks` have their sums.
    pub(super) fn places(&mut self, runs: &Runs, chunks: Range<usize>) -> ChunkSums<'_> {
        let (groups, parts) = (runs.chunk_groups(&chunks), runs.chunk_parts(&chunks));
        ChunkSums {
            moments: &mut self.moments[groups],
            sums: &mut self.sums[parts.clone()],
            products: &mut self.products[parts],
        }
    }

    /// The sums of each channel, over its parts in order: Σ d and Σ d·(x − reference).
    pub(super) fn add_up(&self, runs: &Runs, [sums, products]: [&mut [f64]; 2]) {
        for (from, to) in [(&self.sums, sums), (&self.products, products)] {
            for (c, to) in to.iter_mut().enumerate() {
                let total = |parts: &mut dyn Iterator<Item = &f64>| {
                    parts.fold(0.0, |total, part| total + part)
                };
                *to = if runs.stretch == 1 {
                    total(&mut from.iter().skip(c).step_by(runs.channels))
                } else {
                    let first = c * runs.stretch / runs.chunk;
                    let last = ((c + 1) * runs.stretch - 1) / runs.chunk;
                    total(&mut from[first + c..=last + c].iter())
                };
            }
        }
    }
}

/// The sums of a run's chunks, which threads take part by part.
pub(super) struct Places<'u> {
    moments: Disjoint<'u, Moments>,
    sums: Disjoint<'u, f64>,
    products: Disjoint<'u, f64>,
}

/// The sums of some chunks.
pub(super) struct ChunkSums<'u> {
    pub(super) moments: &'u mut [Moments],
    pub(super) sums: &'u mut [f64],
    pub(super) products: &'u mut [f64],
}

impl<'u> Places<'u> {
    pub(super) fn shared(of: &'u mut RunSums) -> Self {
        Self {
            moments: Disjoint::new(&mut of.moments),
            sums: Disjoint::new(&mut of.sums),
            products: Disjoint::new(&mut of.products),
        }
    }

    /// The places of `chunks`.
    ///
    /// # Safety
    /// Nobody else has these chunks.
    pub(super) unsafe fn of(&self, runs: &Runs, chunks: Range<usize>) -> ChunkSums<'_> {
        let (groups, parts) = (runs.chunk_groups(&chunks), runs.chunk_parts(&chunks));
        // SAFETY: (all three) the caller's promise; parts of two chunks do not overlap.
        unsafe {
            ChunkSums {
                moments: self.moments.part(groups),
                sums: self.sums.part(parts.clone()),
                products: self.products.part(parts),
            }
        }
    }
}

/// What the walks over a run need to know of it.
pub(super) struct RunFactors {
    /// What x is subtracted from before it meets a gradient: the run's first value, of each channel
    /// where these are last. So values that hardly differ lose no digit.
    pub(super) reference: Vec<f32>,
    /// Per group.
    pub(super) moments: Vec<Moments>,
    pub(super) factors: Vec<Factors>,
    /// Where groups are small, instead of the factors.
    pub(super) small: Vec<Group>,
    /// What makes u of x, where channels are last and an activation follows.
    pub(super) affine: ChannelAffine,
    /// The weight and the group's factors, where channels are last.
    pub(super) by_channel: ChannelFactors,
}

/// The [`Factors`] of each channel's group, and its weight.
pub(super) struct ChannelFactors {
    pub(super) weight: Vec<f32>,
    pub(super) mean: Vec<f32>,
    pub(super) power: Vec<f32>,
    pub(super) deviation: Vec<f32>,
    pub(super) mean_gradient: Vec<f32>,
    pub(super) rest: Vec<f32>,
}

impl RunFactors {
    pub(super) fn new(runs: &Runs) -> Result<Self, Error> {
        let channels = if runs.stretch == 1 { runs.channels } else { 0 };
        let zeros = || try_zeroed(channels);
        Ok(Self {
            reference: try_zeroed(channels.max(1))?,
            moments: try_zeroed(runs.groups)?,
            factors: try_zeroed(runs.groups)?,
            small: try_zeroed(if runs.are_small() { runs.groups } else { 0 })?,
            affine: ChannelAffine::new(runs)?,
            by_channel: ChannelFactors {
                weight: zeros()?,
                mean: zeros()?,
                power: zeros()?,
                deviation: zeros()?,
                mean_gradient: zeros()?,
                rest: zeros()?,
            },
        })
    }

    /// Begins with a run of x.
    pub(super) fn begin(&mut self, runs: &Runs, run: usize, x: Data<'_>) {
        x.widen(run * runs.len, &mut self.reference);
    }

    /// Takes over the moments of a run's chunks.
    pub(super) fn set_moments(&mut self, runs: &Runs, sums: &RunSums, parameters: &Parameters<'_>) {
        self.moments.fill(Moments::default());
        for chunk in sums.moments.chunks_exact(runs.groups) {
            merge(&mut self.moments, chunk);
        }
        for (small, &moments) in self.small.iter_mut().zip(&self.moments) {
            *small = Group::new(moments, parameters.eps, [0.0; 2]);
        }
        if runs.stretch == 1 && parameters.activation.is_some() {
            self.affine.set(&self.moments, runs.width, parameters);
        }
    }

    /// Turns the sums of the run's channels into those with x̂, Σ d and Σ d ∘ x̂, and these into
    /// what the gradient is made of.
    pub(super) fn set_gradient(
        &mut self,
        runs: &Runs,
        run: usize,
        [sums, products]: [&mut [f64]; 2],
        parameters: &Parameters<'_>,
    ) {
        let first_channel = runs.first_channel(run);
        let weight = |channel: usize| {
            let weight = parameters
                .weight
                .map(|weight| weight[first_channel + channel]);
            weight.unwrap_or(1.0)
        };
        let count = (runs.len / runs.groups) as f64;
        for (group, &moments) in self.moments.iter().enumerate() {
            let standardise = Standardise::new(moments, parameters.eps);
            let inverse = standardise.inverse.value();
            let channels = group * runs.width..(group + 1) * runs.width;
            let [mut gradients, mut gradient_products] = [0.0; 2];
            for c in channels.clone() {
                let reference = self.reference[if runs.stretch == 1 { c } else { 0 }];
                let off = moments.mean() - f64::from(reference);
                products[c] = (products[c] - off * sums[c]) * inverse;
                gradients += f64::from(weight(c)) * sums[c];
                gradient_products += f64::from(weight(c)) * products[c];
            }
            let means = [gradients / count, gradient_products / count];
            if let Some(small) = self.small.get_mut(group) {
                *small = Group::new(moments, parameters.eps, means);
                continue;
            }
            let factors = Factors::new(standardise, means, 1.0);
            self.factors[group] = factors;
            if runs.stretch == 1 {
                self.by_channel.set(channels, weight, factors);
            }
        }
    }
}

impl ChannelFactors {
    fn set(&mut self, channels: Range<usize>, weight: impl Fn(usize) -> f32, factors: Factors) {
        for c in channels {
            self.weight[c] = weight(c);
            self.mean[c] = factors.mean;
            self.power[c] = factors.power;
            self.deviation[c] = factors.deviation;
            self.mean_gradient[c] = factors.mean_gradient;
            self.rest[c] = factors.rest;
        }
    }
}
