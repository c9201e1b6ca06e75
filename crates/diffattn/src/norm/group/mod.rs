//! Group norm. A chunk's mean and sum of squared deviations come from two walks over it in L1;
//! chunks are combined in order (Chan's formula), so that neither the threads nor the split change
//! a bit and a large mean cancels nothing. Then one walk normalises.

pub(super) mod moments;
pub(super) mod normalise;
mod runs;

pub use normalise::Activation;
pub use runs::ChannelLayout;

use self::moments::{ChunkMoments, Moments, Sums, merge};
use self::normalise::{Normalise, Parameters, Places};
use self::runs::{Cut, Input, Runs};
use super::check_norm;
use crate::error::Error;
use crate::run::Run;
use crate::run::buffer::try_zeroed;
use crate::run::threads::Disjoint;
use crate::run::units::Units;
use crate::run::work::{Pace, Work, at_once};
use crate::simd::{Kernel, Vector};
use crate::tensor::output::Output;
use crate::tensor::shape::{check_len, format_shape};
use crate::tensor::{DType, Data, DataMut, Tensor};

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

/// What a call is made on.
#[derive(Debug, Clone, Copy)]
struct Call<'a> {
    input: Input<'a>,
    parameters: Parameters<'a>,
    run: Run,
}

/// Buffers of one thread.
#[derive(Debug)]
struct Scratch {
    sums: Sums,
    places: Places,
    /// Per group of a run: of a chunk, and of the run.
    chunk_moments: Vec<Moments>,
    run_moments: Vec<Moments>,
}

impl Scratch {
    fn new(input: &Input<'_>) -> Result<Self, Error> {
        let runs = &input.runs;
        let wide = match input.x {
            Data::F32(_) => 0,
            Data::F16(_) | Data::Bf16(_) => runs.chunk.min(runs.len),
        };
        Ok(Self {
            sums: Sums::new(wide, runs)?,
            places: Places::new(wide, runs)?,
            chunk_moments: try_zeroed(runs.groups)?,
            run_moments: try_zeroed(runs.groups)?,
        })
    }
}

/// A checked call of [`group_norm`]: made by [`GroupNorm::new`], worked off by
/// [`GroupNorm::into_work`].
#[derive(Debug)]
pub struct GroupNorm<'a> {
    call: Call<'a>,
    shape: Vec<usize>,
    cut: Cut,
}

impl<'a> GroupNorm<'a> {
    /// Checks everything and allocates no scratch yet. `x` is `[N, C, …]` or `[N, …, C]`, of any
    /// rank from 2.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) or
    /// [`ErrorKind::Option`](crate::ErrorKind::Option), naming the argument.
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
            let axes = [batch, channels, len / (batch * channels)];
            Runs::new(axes, num_groups, options.layout)
        } else {
            Runs::NONE
        };
        Ok(Self {
            call: Call {
                input: Input { x: x.data, runs },
                parameters: Parameters {
                    eps: options.eps,
                    weight: options.weight,
                    bias: options.bias,
                    activation: options.activation,
                },
                run: options.run,
            },
            shape: x.shape,
            cut: Cut::new(&runs, options.run.threads()),
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
        self.call.input.x.dtype()
    }

    /// The work of the call into `out`.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) or
    /// [`ErrorKind::Dtype`](crate::ErrorKind::Dtype) when it does not fit.
    pub fn into_work<'o>(self, out: DataMut<'o>) -> Result<Work<'o>, Error>
    where
        'a: 'o,
    {
        let output = Output::bind(out, self.output_dtype(), &self.shape)?;
        let Self { call, cut, .. } = self;
        let (total, _) = cut.units(&call.input.runs);
        Ok(Work::new(total, move |pace| async move {
            call.work(&pace, cut, &output).await
        }))
    }

    /// Works the whole call off at once, into `out`.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) or
    /// [`ErrorKind::Dtype`](crate::ErrorKind::Dtype) when it does not
    /// fit; [`Error::out_of_memory`].
    pub fn finish_into(self, out: DataMut<'_>) -> Result<(), Error> {
        let output = Output::bind(out, self.output_dtype(), &self.shape)?;
        at_once(async |pace| self.call.work(pace, self.cut, &output).await)
    }
}

impl Call<'_> {
    fn units(&self, elements: usize) -> Units<Scratch, impl Fn() -> Result<Scratch, Error>> {
        Units::new(self.run, elements, || Scratch::new(&self.input))
    }

    async fn work(&self, pace: &Pace, cut: Cut, output: &Output<'_>) -> Result<(), Error> {
        match cut {
            Cut::Whole { runs } => self.whole_runs(pace, runs, output).await,
            Cut::Split { chunks, units } => self.split_runs(pace, chunks, units, output).await,
        }
    }

    /// Units of `runs` whole runs, each from its statistics to its results.
    async fn whole_runs(&self, pace: &Pace, runs: usize, output: &Output<'_>) -> Result<(), Error> {
        let Runs { count, len, .. } = self.input.runs;
        self.units(runs * len)
            .paced(pace, 0..count.div_ceil(runs), |scratch, unit| {
                for run in unit * runs..((unit + 1) * runs).min(count) {
                    self.run.unfused_kernel(WholeRun {
                        call: *self,
                        run,
                        output,
                        scratch,
                    });
                }
            })
            .await
    }

    /// Run after run, its statistics in `units` units of `chunks` chunks, then its results.
    async fn split_runs(
        &self,
        pace: &Pace,
        chunks: usize,
        units: usize,
        output: &Output<'_>,
    ) -> Result<(), Error> {
        let &Self {
            input, parameters, ..
        } = self;
        let runs = input.runs;
        let part = |unit: usize| unit * chunks..((unit + 1) * chunks).min(runs.chunks());
        let mut spread = self.units(chunks * runs.chunk);
        let mut chunk_moments = try_zeroed(runs.chunks() * runs.groups)?;
        let mut run_moments: Vec<Moments> = try_zeroed(runs.groups)?;
        for run in 0..runs.count {
            let places = Disjoint::new(&mut chunk_moments);
            let sum = |scratch: &mut Scratch, unit| {
                for chunk in part(unit) {
                    // SAFETY: each chunk is one unit's.
                    let moments =
                        unsafe { places.part(chunk * runs.groups..(chunk + 1) * runs.groups) };
                    self.run.unfused_kernel(ChunkMoments {
                        input,
                        run,
                        chunk,
                        sums: &mut scratch.sums,
                        moments,
                    });
                }
            };
            spread.paced(pace, 0..units, sum).await?;
            run_moments.fill(Moments::default());
            for chunk in chunk_moments.chunks_exact(runs.groups) {
                merge(&mut run_moments, chunk);
            }
            let normalise = |scratch: &mut Scratch, unit| {
                self.run.unfused_kernel(Normalise {
                    input,
                    parameters,
                    run,
                    chunks: part(unit),
                    moments: &run_moments,
                    output,
                    places: &mut scratch.places,
                });
            };
            spread.paced(pace, 0..units, normalise).await?;
        }
        Ok(())
    }
}

/// One run from its statistics to its results.
struct WholeRun<'u> {
    call: Call<'u>,
    run: usize,
    output: &'u Output<'u>,
    scratch: &'u mut Scratch,
}

impl Kernel for WholeRun<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self {
            call: Call {
                input, parameters, ..
            },
            run,
            output,
            scratch,
        } = self;
        let Scratch {
            sums,
            places,
            chunk_moments,
            run_moments,
        } = scratch;
        run_moments.fill(Moments::default());
        for chunk in 0..input.runs.chunks() {
            let moments = ChunkMoments {
                input,
                run,
                chunk,
                sums: &mut *sums,
                moments: chunk_moments.as_mut_slice(),
            };
            moments.run::<V>();
            merge(run_moments, chunk_moments);
        }
        let normalise = Normalise {
            input,
            parameters,
            run,
            chunks: 0..input.runs.chunks(),
            moments: run_moments,
            output,
            places,
        };
        normalise.run::<V>();
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
    let call = GroupNorm::new(x, options)?;
    let mut out = try_zeroed(call.call.input.x.len())?;
    call.finish_into(DataMut::F32(&mut out))?;
    Ok(out)
}
