//! The walks over a run's elements: moments, sums with the gradient, and dx. Knows nothing of
//! threads, and not what follows from sums.

use std::marker::PhantomData;
use std::ops::Range;

use super::maps::{FromReference, InPosition, InStretch, OfDy, Upstream, replace};
use super::run::{ChunkSums, RunFactors};
use super::small::SmallChunk;
use crate::blocks::norm::{AHEAD, NEAR};
use crate::error::Error;
use crate::norm::backward::call::NormOutputs;
use crate::norm::group::moments::{ChannelSums, chunk_moments};
use crate::norm::group::normalise::{Parameters, Position, Standardise};
use crate::norm::group::runs::Runs;
use crate::norm::products::{add_rows, sum_and_products};
use crate::norm::write::{LINE, is_backward, is_streamed, write};
use crate::simd::{Kernel, Use, Vector};
use crate::tensor::Data;

/// A walk over a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// The moments of x.
    Moments,
    /// The moments of x, and its sums with dy.
    MomentsAndSums,
    /// What comes through the activation, written where dx belongs, and its sums with x.
    Upstream,
    /// dx, of what the activation lets through, or of dy.
    Gradient,
}

/// What a backward call is given, and how it falls into runs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Inputs<'a> {
    pub(super) dy: Data<'a>,
    pub(super) x: Data<'a>,
    pub(super) runs: Runs,
    pub(super) parameters: Parameters<'a>,
}

/// Buffers of one thread.
pub(super) struct Scratch {
    /// For a chunk of x and of dy that are not float32.
    wide: [Vec<f32>; 2],
    channel_sums: ChannelSums,
}

impl Scratch {
    pub(super) fn new(inputs: &Inputs<'_>) -> Result<Self, Error> {
        Ok(Self {
            wide: inputs.x.wide(inputs.runs.chunk.min(inputs.runs.len))?,
            channel_sums: ChannelSums::new(&inputs.runs)?,
        })
    }
}

/// A walk over some chunks of a run.
pub(super) struct Walk<'u, 'a> {
    pub(super) inputs: &'u Inputs<'a>,
    pub(super) run: usize,
    pub(super) step: Step,
    pub(super) chunks: Range<usize>,
    pub(super) places: ChunkSums<'u>,
    pub(super) factors: &'u RunFactors,
    /// Have all of x's elements, of which no other thread writes these chunks.
    pub(super) outputs: &'u NormOutputs<'u>,
    pub(super) scratch: &'u mut Scratch,
}

impl Kernel for Walk<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self {
            inputs,
            run,
            step,
            chunks,
            places,
            factors,
            outputs,
            scratch:
                Scratch {
                    wide: [wide_x, wide_dy],
                    channel_sums,
                },
        } = self;
        let runs = &inputs.runs;
        let has_activation = inputs.parameters.activation.is_some();
        // What is met again at once stays in the caches.
        let row = if runs.stretch == 1 {
            runs.channels
        } else {
            runs.stretch
        };
        let is_streamed = !has_activation && is_streamed(&outputs.dx, row);
        let first_part = runs.first_part(chunks.start);
        for (index, chunk_index) in chunks.enumerate() {
            let within = runs.chunk(chunk_index);
            let elements = run * runs.len + within.start..run * runs.len + within.end;
            let x = inputs.x.values(elements.clone(), wide_x);
            if matches!(step, Step::Moments | Step::MomentsAndSums) {
                let moments = &mut places.moments[index * runs.groups..][..runs.groups];
                if runs.stretch == 1 && runs.len > AHEAD {
                    // Walked down its channels, a chunk is not asked for by the hardware in time.
                    ask_for::<V>(inputs.x, elements.end, elements.len());
                    ask_for::<V>(inputs.dy, elements.start, elements.len());
                }
                chunk_moments::<V>(runs, x, channel_sums, moments);
            }
            if step == Step::Moments {
                continue;
            }
            let chunk = Chunk {
                inputs,
                factors,
                first_channel: runs.first_channel(run),
                start: within.start,
                x,
            };
            // SAFETY: each chunk of a run is one unit's; dx is float32, so that nothing is widened.
            let dx = || unsafe { outputs.dx.values(elements.clone(), &mut []) };
            let part = runs.first_part(chunk_index) - first_part;
            let sums = [&mut places.sums[part..], &mut places.products[part..]];
            match step {
                Step::Gradient if has_activation => chunk.replace::<V>(dx()),
                Step::Gradient => {
                    let dy = inputs.dy.values(elements.clone(), wide_dy);
                    if V::STREAMS && is_streamed {
                        chunk.gradient::<V, true>(dy, dx());
                    } else {
                        chunk.gradient::<V, false>(dy, dx());
                    }
                }
                Step::Upstream => {
                    let dx = dx();
                    chunk.upstream::<V>(inputs.dy.values(elements.clone(), wide_dy), dx);
                    chunk.sums::<V>(dx, chunk_index, sums);
                }
                Step::Moments | Step::MomentsAndSums => {
                    let dy = inputs.dy.values(elements.clone(), wide_dy);
                    chunk.sums::<V>(dy, chunk_index, sums);
                }
            }
        }
        if is_streamed {
            V::fence();
        }
    }
}

/// Asks for `len` elements from `first` on, into the second cache.
#[inline(always)]
fn ask_for<V: Vector>(data: Data<'_>, first: usize, len: usize) {
    if let Data::F32(values) = data {
        for line in (first..first + len).step_by(LINE) {
            V::prefetch(values.as_ptr().wrapping_add(line), Use::Soon);
        }
    }
}

/// A chunk of a run. The gradient that it meets is d: dy, or what the activation lets through.
struct Chunk<'u, 'a> {
    inputs: &'u Inputs<'a>,
    factors: &'u RunFactors,
    first_channel: usize,
    /// Its first element in the run.
    start: usize,
    x: &'u [f32],
}

impl Chunk<'_, '_> {
    /// The chunk as one of small groups, where these are.
    #[inline(always)]
    fn small(&self) -> Option<SmallChunk<'_>> {
        let Inputs {
            runs, parameters, ..
        } = self.inputs;
        let groups = self.factors.small.as_slice();
        (!groups.is_empty()).then_some(SmallChunk {
            runs,
            parameters,
            first_channel: self.first_channel,
            groups,
            x: self.x,
        })
    }

    /// With channels first: the run's channel of the element at `at`, and where its elements end.
    #[inline(always)]
    fn stretch(&self, at: usize) -> (usize, usize) {
        let stretch = self.inputs.runs.stretch;
        let channel = (self.start + at) / stretch;
        let end = (channel + 1) * stretch - self.start;
        (channel, end.min(self.x.len()))
    }

    /// Σ d and Σ d · (x − reference) by part, for which `to` has place from the chunk's first on.
    #[inline(always)]
    fn sums<V: Vector>(&self, d: &[f32], chunk: usize, [sums, products]: [&mut [f64]; 2]) {
        let (runs, x, reference) = (&self.inputs.runs, self.x, &self.factors.reference);
        if runs.stretch == 1 {
            let channels = runs.channels;
            let (sums, products) = (&mut sums[..channels], &mut products[..channels]);
            sums.fill(0.0);
            products.fill(0.0);
            let terms = FromReference {
                x,
                d,
                reference,
                channels,
            };
            // SAFETY: x and d have so many positions of all channels.
            unsafe { add_rows::<V::Wide, 2>(x.len() / channels, &terms, [products, sums]) };
            return;
        }
        let (mut at, first) = (0, runs.first_part(chunk) - chunk);
        while at < x.len() {
            let (channel, end) = self.stretch(at);
            let from = f64::from(reference[0]);
            let part = channel - first;
            [sums[part], products[part]] =
                sum_and_products::<V::Wide>(&x[at..end], from, &d[at..end], None);
            at = end;
        }
    }

    /// What comes through the activation, into `to`.
    #[inline(always)]
    fn upstream<V: Vector>(&self, dy: &[f32], to: &mut [f32]) {
        if let Some(small) = self.small() {
            return small.upstream(dy, to);
        }
        let Inputs {
            runs, parameters, ..
        } = self.inputs;
        let x = self.x;
        if runs.stretch == 1 {
            let by_channel = &self.factors.affine;
            let rows = x
                .chunks_exact(runs.channels)
                .zip(dy.chunks_exact(runs.channels));
            for ((x, dy), to) in rows.zip(to.chunks_exact_mut(runs.channels)) {
                let u = Position { x, by_channel };
                let upstream = Upstream::<V, _> {
                    u,
                    dy,
                    vector: PhantomData,
                };
                // SAFETY: x, dy and what there is by channel are as long.
                unsafe { write::<V, false, 0>(to, false, [], upstream) };
            }
            return;
        }
        let standardise = Standardise::new(self.factors.moments[0], parameters.eps);
        let mut at = 0;
        while at < x.len() {
            let (channel, end) = self.stretch(at);
            let channel = self.first_channel + channel;
            let (x, dy, to) = (&x[at..end], &dy[at..end], &mut to[at..end]);
            let upstream = Upstream::<V, _> {
                u: parameters.affine(standardise, channel, x),
                dy,
                vector: PhantomData,
            };
            // SAFETY: x and dy are as long.
            unsafe { write::<V, false, 0>(to, is_backward(x, to), [], upstream) };
            at = end;
        }
    }

    /// dx of dy.
    #[inline(always)]
    fn gradient<V: Vector, const STREAM: bool>(&self, dy: &[f32], dx: &mut [f32]) {
        if let Some(small) = self.small() {
            return small.gradient(Some(dy), dx);
        }
        let (runs, x) = (&self.inputs.runs, self.x);
        if runs.stretch == 1 {
            let rows = x
                .chunks_exact(runs.channels)
                .zip(dy.chunks_exact(runs.channels));
            for ((x, dy), dx) in rows.zip(dx.chunks_exact_mut(runs.channels)) {
                let ahead = [x, dy].map(|all| all.as_ptr().wrapping_add(NEAR));
                let gradient = OfDy {
                    dy,
                    map: self.position(x),
                };
                // SAFETY: x, dy and what there is by channel are as long.
                unsafe { write::<V, STREAM, 2>(dx, is_backward(x, dx), ahead, gradient) };
            }
            return;
        }
        let mut at = 0;
        while at < x.len() {
            let (channel, end) = self.stretch(at);
            let (x, dy, dx) = (&x[at..end], &dy[at..end], &mut dx[at..end]);
            // As in the forward pass, but of two tensors: a group that the caches hold is read once
            // from memory, the next one while this one is written.
            let ahead = if runs.len <= AHEAD / 2 {
                runs.len
            } else {
                NEAR
            };
            let ahead = [x, dy].map(|all| all.as_ptr().wrapping_add(ahead));
            let gradient = OfDy {
                dy,
                map: self.in_stretch(channel, x),
            };
            // SAFETY: x and dy are as long.
            unsafe { write::<V, STREAM, 2>(dx, is_backward(x, dx), ahead, gradient) };
            at = end;
        }
    }

    /// dx of what `d` has, in its place.
    #[inline(always)]
    fn replace<V: Vector>(&self, d: &mut [f32]) {
        if let Some(small) = self.small() {
            return small.gradient(None, d);
        }
        let (runs, x) = (&self.inputs.runs, self.x);
        if runs.stretch == 1 {
            let rows = x.chunks_exact(runs.channels);
            for (x, d) in rows.zip(d.chunks_exact_mut(runs.channels)) {
                // SAFETY: x and what there is by channel are as long.
                unsafe { replace::<V>(d, &self.position(x)) };
            }
            return;
        }
        let mut at = 0;
        while at < x.len() {
            let (channel, end) = self.stretch(at);
            // SAFETY: x is as long.
            unsafe { replace::<V>(&mut d[at..end], &self.in_stretch(channel, &x[at..end])) };
            at = end;
        }
    }

    #[inline(always)]
    fn in_stretch<'u>(&self, channel: usize, x: &'u [f32]) -> InStretch<'u> {
        let weight = self.inputs.parameters.weight;
        InStretch {
            x,
            weight: weight.map_or(1.0, |weight| weight[self.first_channel + channel]),
            factors: self.factors.factors[0],
        }
    }

    #[inline(always)]
    fn position<'u>(&'u self, x: &'u [f32]) -> InPosition<'u> {
        InPosition {
            x,
            by_channel: &self.factors.by_channel,
        }
    }
}
