//! Requests of steps: what one reads, its micro-batches, its end; and the loss over what is
//! measured.

use diffattn::{Error, Work};
use diffattn_nn::training::{Dataset, MeasuredSums, StepPlan, Trainer};

use super::held::{HeldTrainer, Training, on_trainer};
use crate::encoding::{Count, Long, Object, Uint8, request};
use crate::job::{OutputSpec, Prepared};
use crate::kind::Kind;
use crate::objects::Use;
use crate::operation::{Inputs, Operation};
use crate::requests::model::Model;
use crate::requests::ready::{Made, ready};

/// The bytes of the data's file that rows are.
fn bytes_of<D: Dataset>(trainer: &Trainer<D>, windows: &[u64]) -> Vec<[u64; 2]> {
    let of = windows
        .iter()
        .map(|&window| trainer.data().bytes_of(window));
    of.map(|range| [range.start, range.end]).collect()
}

request! {
    /// What the next step reads, as JSON: for each micro-batch the bytes of the data's file that
    /// its windows, or images, are; no micro-batches behind the last step.
    154 trainerPlan TrainerPlanRequest {
        trainer: Object<HeldTrainer>,
    }
}

impl Operation for TrainerPlanRequest {
    fn uses(&self) -> Vec<Use> {
        vec![self.trainer.to_use(false)]
    }

    fn prepare<'m>(&'m self, inputs: Inputs<'_, 'm>) -> Result<Prepared<'m>, Error> {
        let trainer = inputs.objects.look(&self.trainer)?.get()?;
        let ranges = on_trainer!(trainer, trainer => planned(trainer))?;
        ready(vec![("plan", Made::json(&ranges)?)])
    }
}

/// The bytes of each micro-batch of the next step.
fn planned<D: Dataset>(trainer: &Trainer<D>) -> Result<Vec<Vec<[u64; 2]>>, Error> {
    let windows = trainer.plan()?.map(|plan| plan.windows).unwrap_or_default();
    Ok(windows.iter().map(|of| bytes_of(trainer, of)).collect())
}

/// The next step of a trainer, of which there must be one.
fn next<D: Dataset>(trainer: &Trainer<D>) -> Result<StepPlan, Error> {
    let over = || Error::option("trainer", "one with a step to make", "one behind its last");
    trainer.plan()?.ok_or_else(over)
}

request! {
    /// Adds a micro-batch of the next step: the bytes of the data's file that its plan names, one
    /// window, or image, behind the other. The first begins the step anew.
    155 trainerAdd TrainerAddRequest {
        trainer: Object<HeldTrainer>,
        micro: Count,
        bytes: Uint8,
        teacher: Option<Object<Model>>,
    }
}

impl Operation for TrainerAddRequest {
    fn uses(&self) -> Vec<Use> {
        let teacher = self.teacher.iter().map(|slot| slot.to_use(false));
        teacher.chain([self.trainer.to_use(true)]).collect()
    }

    fn prepare<'m>(&'m self, inputs: Inputs<'_, 'm>) -> Result<Prepared<'m>, Error> {
        let mut teacher = None;
        if let Some(slot) = &self.teacher {
            teacher = Some(inputs.objects.look(slot)?);
        }
        let bytes = self.bytes.u8(inputs.operands)?;
        let at = (self.micro, bytes);
        match inputs.objects.take(&self.trainer)?.get_mut()? {
            Training::Text(trainer) => {
                let mut of = None;
                if let Some(teacher) = teacher {
                    let model = inputs.objects.keep(teacher.text()?);
                    of = Some(Model::llama("teacher", model)?);
                }
                add(trainer, at, of)
            }
            Training::Images(trainer) => {
                let mut of = None;
                if let Some(teacher) = teacher {
                    of = Some(inputs.objects.keep(teacher.image()?));
                }
                add(trainer, at, of)
            }
        }
    }
}

/// Adds a micro-batch.
fn add<'m, D: Dataset>(
    trainer: &'m mut Trainer<D>,
    (micro, bytes): (usize, &[u8]),
    teacher: Option<&'m D::Model>,
) -> Result<Prepared<'m>, Error> {
    let plan = next(trainer)?;
    let windows = plan.windows.get(micro).ok_or_else(|| {
        let count = plan.windows.len();
        Error::option("micro", format_args!("below {count}"), micro)
    })?;
    let batch = trainer.data().batch_of_bytes(windows, bytes)?;
    Ok(Prepared::new(Vec::new(), move |_outputs| {
        trainer.add_work(&plan, micro, batch, teacher)
    }))
}

/// Numbers of a report before λ of each layer, float64.
const TOLD: usize = 8;

request! {
    /// Ends a step: its report, numbers in float64: step, loss, cross entropy, divergence, lr,
    /// gradient norm, tokens, whether it diverged, then λ of each layer, NaN where it has none.
    156 trainerUpdate TrainerUpdateRequest {
        trainer: Object<HeldTrainer>,
    }
}

impl Operation for TrainerUpdateRequest {
    fn uses(&self) -> Vec<Use> {
        vec![self.trainer.to_use(true)]
    }

    fn prepare<'m>(&'m self, inputs: Inputs<'_, 'm>) -> Result<Prepared<'m>, Error> {
        let trainer = inputs.objects.take(&self.trainer)?.get_mut()?;
        on_trainer!(trainer, trainer => update(trainer))
    }
}

/// Ends a step.
fn update<D: Dataset>(trainer: &mut Trainer<D>) -> Result<Prepared<'_>, Error> {
    let layers = trainer.model().lambda().len();
    let spec = OutputSpec::new("report", Kind::U8, &[8 * (TOLD + layers)])?;
    let plan = next(trainer)?;
    Ok(Prepared::new(vec![spec], move |outputs| {
        let out = outputs.u8()?;
        let total = trainer.model().step_units();
        Ok(Work::new(total + 1, move |pace| async move {
            let mut report = None;
            let mut work = trainer.update_work(&plan, &mut report)?;
            pace.within(&mut work, total).await?;
            drop(work);
            let of = report.ok_or_else(|| Error::internal("a step without a report"))?;
            let told = [
                of.step as f64,
                of.loss,
                of.parts[0],
                of.parts[1],
                of.lr,
                of.grad_norm,
                of.tokens as f64,
                f64::from(u8::from(of.has_diverged)),
            ];
            let lambda = of.lambda.iter();
            let lambda = lambda.map(|value| value.map_or(f64::NAN, f64::from));
            write_numbers(out, told.into_iter().chain(lambda));
            pace.worked(1);
            Ok(())
        }))
    }))
}

/// Numbers as bytes, little-endian.
fn write_numbers(out: &mut [u8], numbers: impl Iterator<Item = f64>) {
    for (place, number) in out.chunks_exact_mut(8).zip(numbers) {
        place.copy_from_slice(&number.to_le_bytes());
    }
}

request! {
    /// What a micro-batch of those to measure reads, as JSON: the bytes of the data's file that its
    /// windows, or images, are; none behind the last.
    157 trainerEvalPlan TrainerEvalPlanRequest {
        trainer: Object<HeldTrainer>,
        index: Long,
    }
}

/// The windows of a micro-batch to measure.
fn eval_windows<D: Dataset>(trainer: &Trainer<D>, index: u64) -> Vec<u64> {
    let rows = trainer.options().batch;
    let first = index.saturating_mul(rows as u64);
    trainer.data().eval_windows(first, rows)
}

impl Operation for TrainerEvalPlanRequest {
    fn uses(&self) -> Vec<Use> {
        vec![self.trainer.to_use(false)]
    }

    fn prepare<'m>(&'m self, inputs: Inputs<'_, 'm>) -> Result<Prepared<'m>, Error> {
        let trainer = inputs.objects.look(&self.trainer)?.get()?;
        let index = self.index;
        let ranges = on_trainer!(
            trainer,
            trainer => bytes_of(trainer, &eval_windows(trainer, index))
        );
        ready(vec![("plan", Made::json(&ranges)?)])
    }
}

request! {
    /// What such a micro-batch comes to, numbers in float64: the sum of losses over the labels that
    /// count, how many there are, and how many of them the largest logit names, NaN of texts.
    158 trainerEvaluate TrainerEvaluateRequest {
        trainer: Object<HeldTrainer>,
        index: Long,
        bytes: Uint8,
    }
}

impl Operation for TrainerEvaluateRequest {
    fn uses(&self) -> Vec<Use> {
        vec![self.trainer.to_use(true)]
    }

    fn prepare<'m>(&'m self, inputs: Inputs<'_, 'm>) -> Result<Prepared<'m>, Error> {
        let trainer = inputs.objects.take(&self.trainer)?.get_mut()?;
        let bytes = self.bytes.u8(inputs.operands)?;
        on_trainer!(trainer, trainer => measure(trainer, self.index, bytes))
    }
}

/// Measures a micro-batch.
fn measure<'m, D: Dataset>(
    trainer: &'m mut Trainer<D>,
    index: u64,
    bytes: &[u8],
) -> Result<Prepared<'m>, Error> {
    let windows = eval_windows(trainer, index);
    let batch = trainer.data().batch_of_bytes(&windows, bytes)?;
    let spec = OutputSpec::new("loss", Kind::U8, &[24])?;
    Ok(Prepared::new(vec![spec], move |outputs| {
        let out = outputs.u8()?;
        let total = trainer.model().units(&batch);
        Ok(Work::new(total + 1, move |pace| async move {
            let mut of = MeasuredSums::default();
            let mut work = trainer.evaluate_work(batch, &mut of)?;
            pace.within(&mut work, total).await?;
            drop(work);
            let right = of.right.map_or(f64::NAN, |right| right as f64);
            write_numbers(out, [of.loss, of.counted as f64, right].into_iter());
            pace.worked(1);
            Ok(())
        }))
    }))
}
