//! Group norm backward: the call, and how its walks are cut into units. The sums of a run come from
//! its chunks, combined in order, so that neither the threads nor the split change a bit.

mod maps;
mod run;
mod small;
mod walk;

use self::run::{Places, RunFactors, RunSums};
use self::walk::{Inputs, Scratch, Step, Walk};
use super::runs::Cut;
use super::{GroupNormOptions, checked_runs};
use crate::error::Error;
use crate::norm::backward::call::{NormBackward, NormGradients, NormOperator, NormOutputs};
use crate::run::Run;
use crate::run::buffer::try_zeroed;
use crate::run::threads::Disjoint;
use crate::run::units::Units;
use crate::run::work::Pace;
use crate::tensor::Tensor;
use crate::tensor::gradients::check_gradient;

/// A checked call of [`group_norm_backward`]: made by `new`.
pub type GroupNormBackward<'a> = NormBackward<GroupNormBackwardOperator<'a>>;

/// What the call is made on.
#[derive(Debug, Clone, Copy)]
pub struct GroupNormBackwardOperator<'a> {
    inputs: Inputs<'a>,
    cut: Cut,
    run: Run,
}

/// The sums of all runs, by batch entry and channel: Σ d and Σ d ∘ x̂, where d is the gradient of
/// what the activation is given.
struct Sums<'u> {
    sums: Disjoint<'u, f64>,
    products: Disjoint<'u, f64>,
}

impl<'a> GroupNormBackward<'a> {
    /// Checks everything and allocates no scratch yet. `x` is `[N, C, …]` or `[N, …, C]`, of any
    /// rank from 2, `dy` is as x is, and the options are those of the forward call.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape), [`ErrorKind::Dtype`](crate::ErrorKind::Dtype)
    /// or [`ErrorKind::Option`](crate::ErrorKind::Option), naming the argument.
    pub fn new(
        dy: Tensor<'a>,
        x: Tensor<'a>,
        options: &GroupNormOptions<'a>,
    ) -> Result<Self, Error> {
        let runs = checked_runs(&x, options)?;
        check_gradient(&dy, ("x", &x))?;
        let operator = GroupNormBackwardOperator {
            inputs: Inputs {
                dy: dy.data,
                x: x.data,
                runs,
                parameters: options.parameters(),
            },
            cut: Cut::new(&runs, options.run.threads()),
            run: options.run,
        };
        let wanted = [options.weight, options.bias].map(|values| values.map(<[f32]>::len));
        Ok(Self::of(operator, x.shape, wanted))
    }
}

impl NormOperator for GroupNormBackwardOperator<'_> {
    fn units(&self) -> usize {
        let units = match self.cut {
            Cut::Whole { runs } => self.inputs.runs.count.div_ceil(runs),
            Cut::Split { units, .. } => self.inputs.runs.count * self.steps().len() * units,
        };
        // (One where there are no runs: the weights' gradients are zeros, which somebody writes.)
        units.max(1)
    }

    async fn work(&self, pace: &Pace, outputs: &NormOutputs<'_>) -> Result<(), Error> {
        let count = self
            .inputs
            .runs
            .count
            .saturating_mul(self.inputs.runs.run_channels());
        let (mut sums, mut products) = (try_zeroed(count)?, try_zeroed(count)?);
        let all = Sums {
            sums: Disjoint::new(&mut sums),
            products: Disjoint::new(&mut products),
        };
        match self.cut {
            Cut::Whole { runs } => self.whole_runs(pace, runs, outputs, &all).await?,
            Cut::Split { chunks, units } => {
                self.split_runs(pace, [chunks, units], outputs, &all)
                    .await?;
            }
        }
        for (gradient, sums) in [(&outputs.dweight, products), (&outputs.dbias, sums)] {
            if let Some(gradient) = gradient {
                // SAFETY: nobody else has it.
                add_batch(&sums, unsafe { gradient.part(0..gradient.len()) });
            }
        }
        Ok(())
    }
}

/// The sums of all batch entries by channel, added in order, rounded once.
fn add_batch(sums: &[f64], to: &mut [f32]) {
    let channels = to.len();
    for (channel, to) in to.iter_mut().enumerate() {
        let entries = sums.iter().skip(channel).step_by(channels);
        *to = entries.fold(0.0, |total, sum| total + sum) as f32;
    }
}

impl GroupNormBackwardOperator<'_> {
    /// The walks over a run.
    fn steps(&self) -> &'static [Step] {
        if self.inputs.parameters.activation.is_some() {
            &[Step::Moments, Step::Upstream, Step::Gradient]
        } else {
            &[Step::MomentsAndSums, Step::Gradient]
        }
    }

    /// Units of `runs` runs, each of which is read from memory once where a cache holds it.
    async fn whole_runs(
        &self,
        pace: &Pace,
        runs: usize,
        outputs: &NormOutputs<'_>,
        all: &Sums<'_>,
    ) -> Result<(), Error> {
        let mut units = Units::new(self.run, runs * self.inputs.runs.len, || {
            let (sums, factors) = (
                RunSums::new(&self.inputs.runs)?,
                RunFactors::new(&self.inputs.runs)?,
            );
            Ok((Scratch::new(&self.inputs)?, sums, factors))
        });
        let work = |buffers: &mut (Scratch, RunSums, RunFactors), unit: usize| {
            let (scratch, sums, factors) = buffers;
            for run in unit * runs..((unit + 1) * runs).min(self.inputs.runs.count) {
                factors.begin(&self.inputs.runs, run, self.inputs.x);
                for &step in self.steps() {
                    let chunks = 0..self.inputs.runs.chunks();
                    self.run.unfused_kernel(Walk {
                        inputs: &self.inputs,
                        run,
                        step,
                        chunks: chunks.clone(),
                        places: sums.places(&self.inputs.runs, chunks),
                        factors,
                        outputs,
                        scratch,
                    });
                    self.finish(step, run, (sums, factors), all);
                }
            }
        };
        units.paced(pace, 0..self.units(), &work).await
    }

    /// Run after run, each of its walks in `count` units of `chunks` chunks.
    async fn split_runs(
        &self,
        pace: &Pace,
        [chunks, count]: [usize; 2],
        outputs: &NormOutputs<'_>,
        all: &Sums<'_>,
    ) -> Result<(), Error> {
        let runs = &self.inputs.runs;
        let mut units = Units::new(self.run, chunks * runs.chunk, || Scratch::new(&self.inputs));
        let mut sums = RunSums::new(runs)?;
        let mut factors = RunFactors::new(runs)?;
        for run in 0..runs.count {
            factors.begin(runs, run, self.inputs.x);
            for &step in self.steps() {
                let places = Places::shared(&mut sums);
                let walk = |scratch: &mut Scratch, unit: usize| {
                    let chunks = unit * chunks..((unit + 1) * chunks).min(runs.chunks());
                    self.run.unfused_kernel(Walk {
                        inputs: &self.inputs,
                        run,
                        step,
                        chunks: chunks.clone(),
                        // SAFETY: each chunk is one unit's.
                        places: unsafe { places.of(runs, chunks) },
                        factors: &factors,
                        outputs,
                        scratch,
                    });
                };
                units.paced(pace, 0..count, &walk).await?;
                self.finish(step, run, (&sums, &mut factors), all);
            }
        }
        Ok(())
    }

    /// What follows from a run's sums once a step is through.
    fn finish(
        &self,
        step: Step,
        run: usize,
        (sums, factors): (&RunSums, &mut RunFactors),
        all: &Sums<'_>,
    ) {
        if matches!(step, Step::Moments | Step::MomentsAndSums) {
            factors.set_moments(&self.inputs.runs, sums, &self.inputs.parameters);
        }
        if matches!(step, Step::Upstream | Step::MomentsAndSums) {
            let channels = self.inputs.runs.run_channels();
            let range = run * channels..(run + 1) * channels;
            // SAFETY: (both) each run is worked off by one thread.
            let [of_channels, products] = unsafe {
                [
                    all.sums.part(range.clone()),
                    all.products.part(range.clone()),
                ]
            };
            sums.add_up(&self.inputs.runs, [&mut *of_channels, &mut *products]);
            let of_channels = [of_channels, products];
            factors.set_gradient(&self.inputs.runs, run, of_channels, &self.inputs.parameters);
        }
    }
}

/// Gradients of [`group_norm`](crate::group_norm) (arXiv 1803.08494) for `dy`, the gradient of its
/// result: d is dy, or with SiLU `dy · σ(u)(1 + u(1 − σ(u)))` at u = weight · x̂ + bias, and with g
/// = weight · d, dx is `(g − mean(g) − x̂ · mean(g ∘ x̂)) / √(variance + eps)` with means over the
/// group, dweight `Σ d ∘ x̂` and dbias `Σ d` over batch and positions, in float64. A group of equal
/// values has a dx of zeros when eps is 0; one with NaN or an infinite value has a dx of NaN, and
/// makes dweight NaN in its channels.
///
/// ```
/// use diffattn::{GroupNormOptions, Tensor, group_norm_backward};
///
/// let bias = Some(&[0.0; 2][..]);
/// let options = GroupNormOptions { eps: 0.0, bias, ..GroupNormOptions::default() };
/// let (dy, x) = ([4.0, 0.0, 0.0, 0.0], [1.0, 3.0, 1.0, 3.0]); // N 1, C 2, two positions
/// let shape = [1, 2, 2];
/// let gradients =
///     group_norm_backward(Tensor::f32(&dy, &shape), Tensor::f32(&x, &shape), &options)?;
/// assert_eq!(gradients.dx, [2.0, 0.0, -2.0, 0.0]);
/// assert_eq!(gradients.dbias, Some(vec![4.0, 0.0]));
/// # Ok::<(), diffattn::Error>(())
/// ```
///
/// # Errors
/// [`ErrorKind::Shape`](crate::ErrorKind::Shape), [`ErrorKind::Dtype`](crate::ErrorKind::Dtype) or
/// [`ErrorKind::Option`](crate::ErrorKind::Option) for arguments that do not fit;
/// [`Error::out_of_memory`] when memory is refused.
pub fn group_norm_backward(
    dy: Tensor<'_>,
    x: Tensor<'_>,
    options: &GroupNormOptions<'_>,
) -> Result<NormGradients, Error> {
    GroupNormBackward::new(dy, x, options)?.finish()
}
