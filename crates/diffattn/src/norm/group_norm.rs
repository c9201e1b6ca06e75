//! Group norm. A chunk's mean and sum of squared deviations come from two walks over it in L1; chunks are
//! combined in order (Chan's formula), so that neither the threads nor the split change a bit and a large mean
//! cancels nothing. Then one walk normalises.

use std::marker::PhantomData;
use std::ops::Range;

use super::write::{is_backward, is_streamed, write};
use super::{InverseSpread, check_norm, lanes};
use crate::error::Error;
use crate::run::Run;
use crate::run::buffer::try_zeroed;
use crate::run::slices::Slices;
use crate::run::units::{UNIT, Units};
use crate::simd::{Isa, Kernel, Use, Vector, math};
use crate::tensor::output::Output;
use crate::tensor::shape::{check_len, format_shape};
use crate::tensor::{DType, Data, DataMut, Tensor};

/// Elements per chunk: 16 KiB of float32, half of the smallest L1, as each chunk is walked twice. Part of the
/// numeric contract: chunks are summed on their own.
const CHUNK: usize = 1 << 12;

/// Positions per chunk at least, with channels last: the moments of a chunk then take less memory than a fifth of
/// its elements, however many groups there are.
const CHUNK_POSITIONS: usize = 32;

/// Elements of the largest run (see [`Runs`]) that one thread works off alone: milliseconds even in WebAssembly, with
/// SiLU, so that a call can be cancelled between runs.
const WHOLE: usize = 1 << 20;

/// Runs per thread from which whole runs keep the threads evenly busy.
const RUNS_PER_THREAD: usize = 4;

/// Square of the distance from mean to shift, in standard deviations, from which a chunk is walked again.
const FAR: f64 = 4.0;

/// Elements of the largest group whose successor is asked for while it is normalised: a fourth of the smallest L2 is
/// taken by each.
const AHEAD: usize = 1 << 15;

/// How many elements ahead a larger group is asked for instead, from L3, while it is normalised.
const NEAR: usize = 1 << 10;

/// How many elements ahead such a group is asked for, from memory, while its moments are summed: the hardware stops at a page's
/// end (Zen 1: 0.88 of the time; by a fourth of that 0.94).
const FAR_AHEAD: usize = 1 << 13;

/// What follows a norm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `y · σ(y)`.
    Silu,
}

/// Where the channel axis lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ChannelLayout {
    /// `[N, C, …]`.
    #[default]
    Nchw,
    /// `[N, …, C]`.
    Nhwc,
}

/// Options of [`group_norm`].
#[derive(Debug, Clone)]
pub struct GroupNormOptions<'a> {
    /// How many groups of neighbouring channels; divides the channels. 1 by default.
    pub num_groups: usize,
    /// One factor per channel.
    pub weight: Option<&'a [f32]>,
    /// Added per channel.
    pub bias: Option<&'a [f32]>,
    /// Added to the variance; 1e-5 by default.
    pub eps: f32,
    /// Where the channel axis lies.
    pub layout: ChannelLayout,
    /// What follows the norm; nothing by default.
    pub activation: Option<Activation>,
    /// How the call runs: instruction set, threads, fused or not.
    pub run: Run,
}

impl Default for GroupNormOptions<'_> {
    fn default() -> Self {
        Self {
            num_groups: 1,
            weight: None,
            bias: None,
            eps: 1e-5,
            layout: ChannelLayout::Nchw,
            activation: None,
            run: Run::default(),
        }
    }
}

/// How x falls into runs: contiguous stretches whose statistics depend on nothing else. A run is one group of
/// one batch entry (channels first) or all groups of one (channels last).
#[derive(Debug, Clone, Copy)]
struct Runs {
    count: usize,
    /// Elements per run.
    len: usize,
    /// Elements per chunk; with channels last, whole positions.
    chunk: usize,
    /// Groups within a run.
    groups: usize,
    /// Channels of all groups.
    channels: usize,
    /// Channels per group.
    width: usize,
    /// Neighbouring elements of one channel: 1 with channels last.
    stretch: usize,
}

impl Runs {
    fn new(
        batch: usize,
        channels: usize,
        positions: usize,
        num_groups: usize,
        layout: ChannelLayout,
    ) -> Self {
        let width = channels / num_groups;
        match layout {
            // With one position both layouts are the same.
            ChannelLayout::Nchw if positions != 1 => Self {
                count: batch * num_groups,
                len: width * positions,
                chunk: CHUNK,
                groups: 1,
                channels,
                width,
                stretch: positions,
            },
            _ => Self {
                count: batch,
                len: positions * channels,
                chunk: channels * (CHUNK / channels).max(CHUNK_POSITIONS).min(positions),
                groups: num_groups,
                channels,
                width,
                stretch: 1,
            },
        }
    }

    fn chunks(&self) -> usize {
        self.len.div_ceil(self.chunk)
    }

    /// Elements of a chunk, within its run.
    fn chunk(&self, index: usize) -> Range<usize> {
        index * self.chunk..((index + 1) * self.chunk).min(self.len)
    }
}

/// How the work is cut. Both ways give the same bits.
#[derive(Debug, Clone, Copy)]
enum Cut {
    /// A unit is this many whole runs: each is read from memory once.
    Whole { runs: usize },
    /// Run after run, first its statistics, then its results, in units of this many chunks: so that few large
    /// runs keep all threads busy.
    Split { chunks: usize, units: usize },
}

/// Count of values, their mean and the sum of their squared deviations from it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Moments {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Moments {
    /// Both together, after Chan, Golub and LeVeque (1983), eq. 2.1.
    #[inline(always)]
    pub(super) fn merge(self, other: Self) -> Self {
        let count = self.count + other.count;
        let delta = other.mean - self.mean;
        let share = other.count / count;
        Self {
            count,
            mean: self.mean + delta * share,
            squares: self.squares + other.squares + delta * delta * (self.count * share),
        }
    }
}

/// Moments of a chunk in one walk, shifted by the mean of some values. The differences are rounded to float32, so a
/// shift that proves to lie further from the mean than the values do is replaced: then a second walk. If `LARGE`, the
/// elements that [`FAR_AHEAD`] says are asked for.
#[inline(always)]
pub(super) fn shifted_moments<V: Vector, const LARGE: bool>(x: &[f32]) -> Moments {
    let count = x.len() as f64;
    let some = [0, 1, 2, 3].map(|quarter| f64::from(x[quarter * x.len() / 4]));
    let mut shift = (some.iter().sum::<f64>() / 4.0) as f32;
    let mut walks = 0;
    loop {
        walks += 1;
        let [sum, squares] = lanes::shifted_sums::<V::Wide>(x, shift, |at| {
            if LARGE {
                V::prefetch(at.wrapping_add(FAR_AHEAD), Use::Read);
            }
        });
        let off = sum / count;
        let squares = squares - sum * off;
        let moments = Moments {
            count,
            mean: f64::from(shift) + off,
            squares,
        };
        // Also false for NaN.
        let is_far = sum * off > FAR * squares;
        if walks == 2 || !is_far {
            return moments;
        }
        shift = moments.mean as f32;
    }
}

/// What turns x of one group into x̂: `(x − mean − rest_of_mean) · power · rest`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Standardise {
    pub(super) mean: f32,
    pub(super) rest_of_mean: f64,
    pub(super) inverse: InverseSpread,
}

impl Standardise {
    #[inline(always)]
    pub(super) fn new(moments: Moments, eps: f32) -> Self {
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
struct ChannelAffine {
    mean: Vec<f32>,
    power: Vec<f32>,
    factor: Vec<f32>,
    bias: Vec<f32>,
}

/// What all units of a call share.
#[derive(Debug, Clone, Copy)]
struct Call<'a> {
    x: Data<'a>,
    runs: Runs,
    eps: f32,
    weight: Option<&'a [f32]>,
    bias: Option<&'a [f32]>,
    activation: Option<Activation>,
}

/// Buffers of one thread.
#[derive(Debug)]
struct Scratch {
    /// A chunk of x and of y as float32; empty where they are that themselves.
    x: Vec<f32>,
    y: Vec<f32>,
    /// Per channel (channels last only): sums, then the mean of the channel's group.
    sums: Vec<f64>,
    means: Vec<f64>,
    /// Per group of a run: of a chunk, and of the run.
    chunk_moments: Vec<Moments>,
    run_moments: Vec<Moments>,
    /// Channels last only.
    affine: ChannelAffine,
}

impl Scratch {
    fn new(call: &Call<'_>) -> Result<Self, Error> {
        let Runs {
            chunk,
            groups,
            channels,
            stretch,
            len,
            ..
        } = call.runs;
        let is_narrow = call.x.dtype() != DType::F32;
        let widened = if is_narrow { chunk.min(len) } else { 0 };
        let per_channel = if stretch == 1 { channels } else { 0 };
        Ok(Self {
            x: try_zeroed(widened)?,
            y: try_zeroed(widened)?,
            sums: try_zeroed(per_channel)?,
            means: try_zeroed(per_channel)?,
            chunk_moments: try_zeroed(groups)?,
            run_moments: try_zeroed(groups)?,
            affine: ChannelAffine {
                mean: try_zeroed(per_channel)?,
                power: try_zeroed(per_channel)?,
                factor: try_zeroed(per_channel)?,
                bias: try_zeroed(per_channel)?,
            },
        })
    }
}

/// A checked call of [`group_norm`]: made by [`GroupNorm::new`], given its output by [`GroupNorm::bind`], worked
/// off by [`Slices::step`].
#[derive(Debug)]
pub struct GroupNorm<'a> {
    call: Call<'a>,
    shape: Vec<usize>,
    cut: Cut,
    isa: Isa,
    output: Option<Output>,
    units: Units<Scratch>,
    /// `Cut::Split`: the moments of the current run, by chunk and group; then of the run, by group.
    chunk_moments: Vec<Moments>,
    run_moments: Vec<Moments>,
    borrow: PhantomData<&'a mut [f32]>,
}

impl<'a> GroupNorm<'a> {
    /// Checks everything and allocates no scratch yet. `x` is `[N, C, …]` or `[N, …, C]`, of any rank from 2.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) or [`ErrorKind::Option`](crate::ErrorKind::Option), naming the argument.
    pub fn new(x: Tensor<'a>, options: &GroupNormOptions<'a>) -> Result<Self, Error> {
        let len = check_len("x", &x.shape, x.data.len())?;
        let (&[batch, second, ..], Some(&last)) = (x.shape.as_slice(), x.shape.last()) else {
            return Err(Error::shape("x", "2 axes or more", format_shape(&x.shape)));
        };
        let channels = match options.layout {
            ChannelLayout::Nchw => second,
            ChannelLayout::Nhwc => last,
        };
        let num_groups = options.num_groups;
        if num_groups == 0 || !channels.is_multiple_of(num_groups) {
            return Err(Error::shape(
                "num_groups",
                format_args!("a divisor of {channels} channels"),
                num_groups,
            ));
        }
        check_norm(
            options.eps,
            channels,
            [("weight", options.weight), ("bias", options.bias)],
        )?;
        // (Without elements, beside a zero, the others may be of any size.)
        let runs = if len > 0 {
            let positions = len / (batch * channels);
            Runs::new(batch, channels, positions, num_groups, options.layout)
        } else {
            Runs {
                count: 0,
                len: 0,
                chunk: 1,
                groups: 0,
                channels: 0,
                width: 0,
                stretch: 1,
            }
        };
        let threads = options.run.threads();
        let (cut, total, unit_elements) = if runs.len <= UNIT
            || runs.len <= WHOLE
                && (threads == 1 || runs.count >= RUNS_PER_THREAD.saturating_mul(threads))
        {
            let unit = UNIT.checked_div(runs.len).unwrap_or(1).max(1);
            (
                Cut::Whole { runs: unit },
                runs.count.div_ceil(unit),
                unit * runs.len,
            )
        } else {
            let chunks = (UNIT / runs.chunk).max(1);
            let units = runs.chunks().div_ceil(chunks);
            (
                Cut::Split { chunks, units },
                runs.count * 2 * units,
                chunks * runs.chunk,
            )
        };
        Ok(Self {
            call: Call {
                x: x.data,
                runs,
                eps: options.eps,
                weight: options.weight,
                bias: options.bias,
                activation: options.activation,
            },
            shape: x.shape,
            cut,
            isa: options.run.isa(),
            output: None,
            units: Units::new(options.run.threads(), total, unit_elements)?,
            chunk_moments: Vec::new(),
            run_moments: Vec::new(),
            borrow: PhantomData,
        })
    }

    /// The result's shape: x's.
    #[must_use]
    pub fn output_shape(&self) -> &[usize] {
        &self.shape
    }

    /// The result's element type: x's.
    #[must_use]
    pub fn output_dtype(&self) -> DType {
        self.call.x.dtype()
    }

    /// Gives the output.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) or [`ErrorKind::Dtype`](crate::ErrorKind::Dtype) when it does not fit.
    pub fn bind(&mut self, out: DataMut<'a>) -> Result<(), Error> {
        self.output = Some(Output::bind(out, self.call.x.dtype(), &self.shape)?);
        Ok(())
    }

    /// The next units of one phase of one run, or of many whole runs.
    fn advance(&mut self, count: usize) -> Result<(), Error> {
        let output = Output::bound(self.output)?;
        let Self { call, isa, cut, .. } = *self;
        let make_scratch = || Scratch::new(&call);
        match cut {
            Cut::Whole { runs } => {
                self.units
                    .step(count, usize::MAX, make_scratch, |scratch, unit| {
                        for run in unit * runs..((unit + 1) * runs).min(call.runs.count) {
                            isa.run(
                                true,
                                WholeRun {
                                    call,
                                    run,
                                    output,
                                    scratch,
                                },
                            );
                        }
                    })
            }
            Cut::Split { chunks, units } => {
                let phase = self.units.done() / units;
                let (run, barrier) = (phase / 2, (phase + 1) * units);
                let part = |unit: usize| {
                    let first = unit % units * chunks;
                    first..(first + chunks).min(call.runs.chunks())
                };
                let groups = call.runs.groups;
                if phase.is_multiple_of(2) {
                    if self.chunk_moments.is_empty() {
                        self.chunk_moments = try_zeroed(call.runs.chunks() * groups)?;
                        self.run_moments = try_zeroed(groups)?;
                    }
                    let to = MomentsOut(self.chunk_moments.as_mut_ptr());
                    self.units
                        .step(count, barrier, make_scratch, |scratch, unit| {
                            for chunk in part(unit) {
                                // SAFETY: `chunk_moments` has `groups` places for each chunk of the run, each chunk is one
                                // unit's, and nobody reads them before this step ends.
                                let moments = unsafe { to.of(chunk, groups) };
                                isa.run(
                                    true,
                                    ChunkMoments {
                                        call,
                                        run,
                                        chunk,
                                        scratch,
                                        moments,
                                    },
                                );
                            }
                        })?;
                    if self.units.done() == barrier {
                        self.run_moments.fill(Moments::default());
                        for chunk in self.chunk_moments.chunks_exact(groups) {
                            merge(&mut self.run_moments, chunk);
                        }
                    }
                    Ok(())
                } else {
                    let moments = self.run_moments.as_slice();
                    self.units
                        .step(count, barrier, make_scratch, |scratch, unit| {
                            isa.run(
                                true,
                                Normalise {
                                    call,
                                    run,
                                    chunks: part(unit),
                                    moments,
                                    output,
                                    scratch,
                                },
                            );
                        })
                }
            }
        }
    }
}

impl Slices for GroupNorm<'_> {
    fn total(&self) -> usize {
        self.units.total()
    }

    fn done(&self) -> usize {
        self.units.done()
    }

    fn step(&mut self, count: usize) -> Result<(), Error> {
        let end = self.done().saturating_add(count.max(1)).min(self.total());
        while self.done() < end {
            self.advance(end - self.done())?;
        }
        Ok(())
    }
}

/// The places of chunk moments, shared by threads.
#[derive(Clone, Copy)]
struct MomentsOut(*mut Moments);

// SAFETY: only `of` uses the pointer, and its callers promise disjoint chunks.
unsafe impl Send for MomentsOut {}
// SAFETY: as above.
unsafe impl Sync for MomentsOut {}

impl MomentsOut {
    /// # Safety
    /// There are places for `groups` moments of `chunk`, and nobody else uses them meanwhile.
    unsafe fn of<'o>(self, chunk: usize, groups: usize) -> &'o mut [Moments] {
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(chunk * groups), groups) }
    }
}

/// The moments of one chunk of one run, by group.
struct ChunkMoments<'u> {
    call: Call<'u>,
    run: usize,
    chunk: usize,
    scratch: &'u mut Scratch,
    moments: &'u mut [Moments],
}

impl Kernel for ChunkMoments<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self {
            call,
            run,
            chunk,
            scratch,
            moments,
        } = self;
        call.chunk_moments::<V>(run, chunk, scratch, moments);
    }
}

/// Some chunks of one run, its moments known.
struct Normalise<'u> {
    call: Call<'u>,
    run: usize,
    chunks: Range<usize>,
    moments: &'u [Moments],
    output: Output,
    scratch: &'u mut Scratch,
}

impl Kernel for Normalise<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self {
            call,
            run,
            chunks,
            moments,
            output,
            scratch,
        } = self;
        call.normalise::<V>(run, chunks, moments, output, scratch);
    }
}

/// One run from its statistics to its results.
struct WholeRun<'u> {
    call: Call<'u>,
    run: usize,
    output: Output,
    scratch: &'u mut Scratch,
}

impl Kernel for WholeRun<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self {
            call,
            run,
            output,
            scratch,
        } = self;
        // Taken out while the rest of the scratch is in use.
        let mut chunk_moments = std::mem::take(&mut scratch.chunk_moments);
        let mut run_moments = std::mem::take(&mut scratch.run_moments);
        run_moments.fill(Moments::default());
        for chunk in 0..call.runs.chunks() {
            call.chunk_moments::<V>(run, chunk, scratch, &mut chunk_moments);
            merge(&mut run_moments, &chunk_moments);
        }
        call.normalise::<V>(run, 0..call.runs.chunks(), &run_moments, output, scratch);
        (scratch.chunk_moments, scratch.run_moments) = (chunk_moments, run_moments);
    }
}

/// Adds a chunk's moments to a run's, group by group.
#[inline(always)]
fn merge(to: &mut [Moments], chunk: &[Moments]) {
    for (to, &chunk) in to.iter_mut().zip(chunk) {
        *to = to.merge(chunk);
    }
}

impl<'a> Call<'a> {
    /// Elements of x as float32.
    #[inline(always)]
    fn values<'s>(&self, first: usize, len: usize, scratch: &'s mut [f32]) -> &'s [f32]
    where
        'a: 's,
    {
        match self.x {
            Data::F32(x) => &x[first..first + len],
            Data::F16(_) | Data::Bf16(_) => {
                self.x.widen(first, &mut scratch[..len]);
                &scratch[..len]
            }
        }
    }

    /// Walks 1 and 2: the moments of a chunk, by group.
    #[inline(always)]
    fn chunk_moments<V: Vector>(
        &self,
        run: usize,
        chunk: usize,
        scratch: &mut Scratch,
        moments: &mut [Moments],
    ) {
        let Runs {
            len,
            channels,
            width,
            stretch,
            ..
        } = self.runs;
        let range = self.runs.chunk(chunk);
        let x = self.values(run * len + range.start, range.len(), &mut scratch.x);
        if stretch > 1 {
            moments[0] = if V::STREAMS && len > AHEAD {
                shifted_moments::<V, true>(x)
            } else {
                shifted_moments::<V, false>(x)
            };
            return;
        }
        let (sums, means) = (scratch.sums.as_mut_slice(), scratch.means.as_mut_slice());
        let count = (x.len() / channels * width) as f64;
        lanes::sum_channels::<V::Wide>(x, None, sums);
        for ((moments, sums), means) in moments
            .iter_mut()
            .zip(sums.chunks_exact(width))
            .zip(means.chunks_exact_mut(width))
        {
            let mean = sums.iter().sum::<f64>() / count;
            means.fill(mean);
            *moments = Moments {
                count,
                mean,
                squares: 0.0,
            };
        }
        lanes::sum_channels::<V::Wide>(x, Some(means), sums);
        for (moments, sums) in moments.iter_mut().zip(sums.chunks_exact(width)) {
            moments.squares = sums.iter().sum();
        }
    }

    /// Walk 3: the results of some chunks.
    #[inline(always)]
    fn normalise<V: Vector>(
        &self,
        run: usize,
        chunks: Range<usize>,
        moments: &[Moments],
        output: Output,
        scratch: &mut Scratch,
    ) {
        let Runs {
            len,
            channels,
            width,
            stretch,
            ..
        } = self.runs;
        let Scratch {
            x,
            y,
            affine: by_channel,
            ..
        } = scratch;
        if stretch == 1 {
            for (group, &moments) in moments.iter().enumerate() {
                let standardise = Standardise::new(moments, self.eps);
                for channel in group * width..(group + 1) * width {
                    by_channel.mean[channel] = standardise.mean;
                    by_channel.power[channel] = standardise.inverse.power;
                    (by_channel.factor[channel], by_channel.bias[channel]) =
                        self.factor_and_bias(standardise, channel);
                }
            }
        }
        let is_streamed = V::STREAMS && is_streamed(output, self.x.len(), stretch);
        for chunk in chunks {
            let range = self.runs.chunk(chunk);
            let (first, elements) = (run * len + range.start, range.len());
            let x = self.values(first, elements, x);
            // SAFETY: `bind` checked that the output has all of x's elements, and borrowed it; each chunk of a run
            // is one unit's.
            let direct = unsafe { output.at(first, elements) };
            let is_narrow = direct.is_none();
            let y = direct.unwrap_or_else(|| &mut y[..elements]);
            if stretch == 1 {
                normalise_positions(by_channel, x, y);
                if self.activation == Some(Activation::Silu) {
                    math::map_in_place(y, math::silu::<V>);
                }
            } else {
                let part = Part {
                    standardise: Standardise::new(moments[0], self.eps),
                    first_channel: run % (channels / width) * width,
                    start: range.start,
                };
                match (is_streamed, self.activation) {
                    (false, None) => self.normalise_stretches::<V, false>(part, x, y, |y| y),
                    (true, None) => self.normalise_stretches::<V, true>(part, x, y, |y| y),
                    (false, Some(Activation::Silu)) => {
                        self.normalise_stretches::<V, false>(part, x, y, math::silu)
                    }
                    (true, Some(Activation::Silu)) => {
                        self.normalise_stretches::<V, true>(part, x, y, math::silu)
                    }
                }
            }
            if is_narrow {
                // SAFETY: as above.
                unsafe { output.narrow(first, y) };
            }
        }
        if is_streamed {
            V::fence();
        }
    }

    /// A part of a group: each channel is a stretch.
    #[inline(always)]
    fn normalise_stretches<V: Vector, const STREAM: bool>(
        &self,
        part: Part,
        x: &[f32],
        y: &mut [f32],
        activation: impl Fn(V) -> V,
    ) {
        let Runs { stretch, len, .. } = self.runs;
        let Part {
            standardise,
            first_channel,
            start,
        } = part;
        let Standardise { mean, inverse, .. } = standardise;
        let mut at = 0;
        while at < x.len() {
            let channel = (start + at) / stretch;
            let end = ((channel + 1) * stretch - start).min(x.len());
            let (factor, bias) = self.factor_and_bias(standardise, first_channel + channel);
            let (x, y) = (&x[at..end], &mut y[at..end]);
            let [splat_mean, power, splat_factor, splat_bias] =
                [mean, inverse.power, factor, bias].map(V::splat);
            // A group that L2 holds is read once from memory, the next one while this one is written. One that it does not
            // hold would be driven from L3 by that: half as fast.
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

/// Which part of which group [`Call::normalise_stretches`] is given.
#[derive(Debug, Clone, Copy)]
struct Part {
    standardise: Standardise,
    first_channel: usize,
    /// Its first element within the group.
    start: usize,
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

/// Group norm of a float32 tensor: `(x − mean) / √(variance + eps) · weight + bias` over each group of neighbouring
/// channels of each batch entry (arXiv 1803.08494), in x's shape. The variance is the biased one. A group of equal
/// values gives its bias, also when eps is 0; a group with a NaN or an infinite value becomes NaN.
///
/// ```
/// use diffattn::{GroupNormOptions, Tensor, group_norm};
///
/// let options = GroupNormOptions { num_groups: 1, eps: 0.0, ..GroupNormOptions::default() };
/// let x = [1.0, 3.0, 3.0, 1.0]; // N 1, C 2, two positions
/// assert_eq!(group_norm(Tensor::f32(&x, &[1, 2, 2]), &options)?, [-1.0, 1.0, 1.0, -1.0]);
/// # Ok::<(), diffattn::Error>(())
/// ```
///
/// # Errors
/// [`ErrorKind::Shape`](crate::ErrorKind::Shape), [`ErrorKind::Dtype`](crate::ErrorKind::Dtype) or [`ErrorKind::Option`](crate::ErrorKind::Option) for arguments that do not fit (halves need
/// [`GroupNorm`]); [`Error::OutOfMemory`] when memory is refused.
pub fn group_norm(x: Tensor<'_>, options: &GroupNormOptions<'_>) -> Result<Vec<f32>, Error> {
    let mut call = GroupNorm::new(x, options)?;
    let mut out = try_zeroed(call.call.x.len())?;
    call.bind(DataMut::F32(&mut out))?;
    call.finish()?;
    Ok(out)
}
