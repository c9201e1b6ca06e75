//! Group norm. A chunk's mean and sum of squared deviations come from two walks over it in L1;
//! chunks are combined in order (Chan's formula), so that neither the threads nor the split change
//! a bit and a large mean cancels nothing. Then one walk normalises.

mod backward;
pub(super) mod moments;
pub(super) mod normalise;
mod runs;

pub use backward::{GroupNormBackward, group_norm_backward};
pub use normalise::Activation;
pub use runs::ChannelLayout;

use std::ops::Range;

use self::moments::{ChannelSums, Moments, chunk_moments, merge};
use self::normalise::{ChannelAffine, Normalise, Parameters};
use self::runs::{Cut, Input, Runs};
use super::check_norm;
use super::write::is_streamed;
use crate::error::Error;
use crate::run::Run;
use crate::run::buffer::try_zeroed;
use crate::run::threads::Disjoint;
use crate::run::units::Units;
use crate::run::work::Pace;
use crate::simd::{Kernel, Vector};
use crate::tensor::Tensor;
use crate::tensor::call::{Call, Operator};
use crate::tensor::output::Output;
use crate::tensor::shape::{check_len, format_shape};

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

impl<'a> GroupNormOptions<'a> {
    fn parameters(&self) -> Parameters<'a> {
        Parameters {
            eps: self.eps,
            weight: self.weight,
            bias: self.bias,
            activation: self.activation,
        }
    }
}

/// A checked call of [`group_norm`]: made by `new`.
pub type GroupNorm<'a> = Call<GroupNormOperator<'a>>;

/// What the call is made on.
#[derive(Debug, Clone, Copy)]
pub struct GroupNormOperator<'a> {
    input: Input<'a>,
    parameters: Parameters<'a>,
    cut: Cut,
    run: Run,
}

/// Buffers of one thread.
#[derive(Debug)]
struct Scratch {
    /// For a chunk of x and of y that are not float32.
    wide: [Vec<f32>; 2],
    sums: ChannelSums,
    by_channel: ChannelAffine,
    /// Per group of a run: of a chunk, and of the run.
    moments: Vec<Moments>,
}

impl Scratch {
    fn new(input: &Input<'_>) -> Result<Self, Error> {
        let runs = &input.runs;
        Ok(Self {
            wide: input.x.wide(runs.chunk.min(runs.len))?,
            sums: ChannelSums::new(runs)?,
            by_channel: ChannelAffine::new(runs)?,
            moments: try_zeroed(2 * runs.groups)?,
        })
    }
}

impl<'a> GroupNorm<'a> {
    /// Checks everything and allocates no scratch yet. `x` is `[N, C, …]` or `[N, …, C]`, of any
    /// rank from 2.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) or
    /// [`ErrorKind::Option`](crate::ErrorKind::Option), naming the argument.
    pub fn new(x: Tensor<'a>, options: &GroupNormOptions<'a>) -> Result<Self, Error> {
        let runs = checked_runs(&x, options)?;
        let dtype = x.data.dtype();
        let operator = GroupNormOperator {
            input: Input { x: x.data, runs },
            parameters: options.parameters(),
            cut: Cut::new(&runs, options.run.threads()),
            run: options.run,
        };
        Ok(Self::of(operator, x.shape, dtype))
    }
}

/// Checks x and the options; gives how x falls into runs.
fn checked_runs(x: &Tensor<'_>, options: &GroupNormOptions<'_>) -> Result<Runs, Error> {
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
    Ok(if len > 0 {
        let axes = [batch, channels, len / (batch * channels)];
        Runs::new(axes, num_groups, options.layout)
    } else {
        Runs::NONE
    })
}

impl Operator for GroupNormOperator<'_> {
    fn units(&self) -> usize {
        self.cut.units(&self.input.runs).0
    }

    async fn work(&self, pace: &Pace, output: &Output<'_>) -> Result<(), Error> {
        let (_, elements) = self.cut.units(&self.input.runs);
        let mut units = Units::new(self.run, elements, || Scratch::new(&self.input));
        match self.cut {
            Cut::Whole { runs } => {
                let whole = |scratch: &mut Scratch, unit: usize| {
                    let last = ((unit + 1) * runs).min(self.input.runs.count);
                    let chunks = 0..self.input.runs.chunks();
                    self.walk(unit * runs..last, chunks, Walks::All, (output, scratch));
                };
                units.paced(pace, 0..self.units(), &whole).await
            }
            Cut::Split { chunks, units: per } => {
                self.split_runs(pace, [chunks, per], &mut units, output)
                    .await
            }
        }
    }
}

impl GroupNormOperator<'_> {
    /// Run after run, its statistics in `count` units of `chunks` chunks, then its results.
    async fn split_runs<M: Fn() -> Result<Scratch, Error>>(
        &self,
        pace: &Pace,
        [chunks, count]: [usize; 2],
        units: &mut Units<Scratch, M>,
        output: &Output<'_>,
    ) -> Result<(), Error> {
        let runs = self.input.runs;
        let part = |unit: usize| unit * chunks..((unit + 1) * chunks).min(runs.chunks());
        let mut chunk_moments = try_zeroed(runs.chunks() * runs.groups)?;
        let mut run_moments: Vec<Moments> = try_zeroed(runs.groups)?;
        for run in 0..runs.count {
            let places = Disjoint::new(&mut chunk_moments);
            let sum = |scratch: &mut Scratch, unit| {
                let chunks = part(unit);
                // SAFETY: each chunk is one unit's.
                let moments =
                    unsafe { places.part(chunks.start * runs.groups..chunks.end * runs.groups) };
                let walks = Walks::Moments(moments);
                self.walk(run..run + 1, chunks, walks, (output, scratch));
            };
            units.paced(pace, 0..count, &sum).await?;
            run_moments.fill(Moments::default());
            for chunk in chunk_moments.chunks_exact(runs.groups) {
                merge(&mut run_moments, chunk);
            }
            let normalise = |scratch: &mut Scratch, unit| {
                let walks = Walks::Results(&run_moments);
                self.walk(run..run + 1, part(unit), walks, (output, scratch));
            };
            units.paced(pace, 0..count, &normalise).await?;
        }
        Ok(())
    }

    fn walk(
        &self,
        runs: Range<usize>,
        chunks: Range<usize>,
        walks: Walks<'_>,
        (output, scratch): (&Output<'_>, &mut Scratch),
    ) {
        self.run.unfused_kernel(Chunks {
            input: &self.input,
            parameters: &self.parameters,
            runs,
            chunks,
            walks,
            output,
            scratch,
        });
    }
}

/// Which walks over some chunks of a run are made.
enum Walks<'u> {
    /// Walks 1 and 2: the moments of each chunk, by group.
    Moments(&'u mut [Moments]),
    /// Walk 3: the results, of the run's moments by group.
    Results(&'u [Moments]),
    /// All three: the chunks are those of whole runs.
    All,
}

/// Some chunks of each of some runs.
struct Chunks<'u> {
    input: &'u Input<'u>,
    parameters: &'u Parameters<'u>,
    runs: Range<usize>,
    chunks: Range<usize>,
    walks: Walks<'u>,
    /// Has all of x's elements, of which no other thread writes these chunks.
    output: &'u Output<'u>,
    scratch: &'u mut Scratch,
}

impl Kernel for Chunks<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self {
            input,
            parameters,
            runs,
            chunks,
            mut walks,
            output,
            scratch,
        } = self;
        let groups = input.runs.groups;
        let Scratch {
            wide: [wide_x, wide_y],
            sums,
            by_channel,
            moments,
        } = scratch;
        let (of_chunk, of_run) = moments.split_at_mut(groups);
        // What an activation follows is near again at once.
        let is_streamed =
            parameters.activation.is_none() && is_streamed(output, input.runs.stretch);
        let elements = |run: usize, chunk: Range<usize>| {
            run * input.runs.len + chunk.start..run * input.runs.len + chunk.end
        };
        for run in runs {
            if !matches!(walks, Walks::Results(_)) {
                of_run.fill(Moments::default());
                for (index, chunk) in chunks.clone().enumerate() {
                    let x = input
                        .x
                        .values(elements(run, input.runs.chunk(chunk)), wide_x);
                    let to = match &mut walks {
                        Walks::Moments(all) => &mut all[index * groups..(index + 1) * groups],
                        _ => &mut *of_chunk,
                    };
                    chunk_moments::<V>(&input.runs, x, sums, to);
                    merge(of_run, to);
                }
            }
            let moments = match &walks {
                Walks::Moments(_) => continue,
                Walks::Results(moments) => moments,
                Walks::All => &*of_run,
            };
            let normalise = Normalise::new(input, parameters, run, moments, by_channel);
            for chunk in chunks.clone() {
                let start = input.runs.chunk(chunk).start;
                let elements = elements(run, input.runs.chunk(chunk));
                let x = input.x.values(elements.clone(), wide_x);
                // SAFETY: each chunk of a run is one unit's.
                let y = unsafe { output.values(elements.clone(), wide_y) };
                if V::STREAMS && is_streamed {
                    normalise.chunk::<V, true>(start, x, y);
                } else {
                    normalise.chunk::<V, false>(start, x, y);
                }
                // SAFETY: as above.
                unsafe { output.finish(elements.start, y) };
            }
        }
        if is_streamed {
            V::fence();
        }
    }
}

/// Group norm of a float32 tensor: `(x − mean) / √(variance + eps) · weight + bias` over each group
/// of neighbouring channels of each batch entry (arXiv 1803.08494), in x's shape. The variance is
/// the biased one. A group of equal values gives its bias, also when eps is 0; a group with a NaN
/// or an infinite value becomes NaN.
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
/// [`ErrorKind::Shape`](crate::ErrorKind::Shape), [`ErrorKind::Dtype`](crate::ErrorKind::Dtype) or
/// [`ErrorKind::Option`](crate::ErrorKind::Option) for arguments that do not fit (halves need
/// [`GroupNorm`]); [`Error::out_of_memory`] when memory is refused.
pub fn group_norm(x: Tensor<'_>, options: &GroupNormOptions<'_>) -> Result<Vec<f32>, Error> {
    GroupNorm::new(x, options)?.finish_f32()
}
