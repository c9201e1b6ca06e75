//! Requests of steps: what one reads, its micro-batches, its end; and the loss over what is
//! measured.

use diffattn::{Error, Work};
use diffattn_nn::training::{StepPlan, Trainer};

use super::{DocumentStarts, HeldTrainer};
use crate::encoding::{Count, Long, Object, Uint8, request};
use crate::job::{OutputSpec, Prepared};
use crate::kind::Kind;
use crate::objects::Use;
use crate::operation::{Inputs, Operation};
use crate::requests::model::Model;
use crate::requests::ready::{Made, ready};

/// The bytes of the file of tokens that windows are.
fn bytes_of(trainer: &Trainer<DocumentStarts>, windows: &[u64]) -> Vec<[u64; 2]> {
    let of = windows
        .iter()
        .map(|&window| trainer.data().bytes_of(window));
    of.map(|range| [range.start, range.end]).collect()
}

request! {
    /// What the next step reads, as JSON: for each micro-batch the bytes of the file of tokens that
    /// its windows are; no micro-batches behind the last step.
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
        let windows = trainer.plan()?.map(|plan| plan.windows).unwrap_or_default();
        let ranges: Vec<_> = windows.iter().map(|of| bytes_of(trainer, of)).collect();
        ready(vec![("plan", Made::json(&ranges)?)])
    }
}

/// The next step of a trainer, of which there must be one.
fn next(trainer: &Trainer<DocumentStarts>) -> Result<StepPlan, Error> {
    let over = || Error::option("trainer", "one with a step to make", "one behind its last");
    trainer.plan()?.ok_or_else(over)
}

request! {
    /// Adds a micro-batch of the next step: the bytes of the file of tokens that its plan names,
    /// one window behind the other. The first begins the step anew.
    155 trainerAdd TrainerAddRequest {
        trainer: Object<HeldTrainer>,
        micro: Count,
        ids: Uint8,
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
            let model = inputs.objects.look(slot)?.text()?;
            teacher = Some(Model::llama("teacher", inputs.objects.keep(model))?);
        }
        let held = inputs.objects.take(&self.trainer)?;
        let trainer = held.get_mut()?;
        let plan = next(trainer)?;
        let windows = plan.windows.get(self.micro).ok_or_else(|| {
            let count = plan.windows.len();
            Error::option("micro", format_args!("below {count}"), self.micro)
        })?;
        let ids = self.ids.u8(inputs.operands)?;
        let batch = trainer.data().batch_of_bytes(windows, ids)?;
        let micro = self.micro;
        Ok(Prepared::new(Vec::new(), move |_outputs| {
            trainer.add_work(&plan, micro, batch, teacher)
        }))
    }
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
        let held = inputs.objects.take(&self.trainer)?;
        let trainer = held.get_mut()?;
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
}

/// Numbers as bytes, little-endian.
fn write_numbers(out: &mut [u8], numbers: impl Iterator<Item = f64>) {
    for (place, number) in out.chunks_exact_mut(8).zip(numbers) {
        place.copy_from_slice(&number.to_le_bytes());
    }
}

request! {
    /// What a micro-batch of those to measure reads, as JSON: the bytes of the file of tokens that
    /// its windows are; none behind the last.
    157 trainerEvalPlan TrainerEvalPlanRequest {
        trainer: Object<HeldTrainer>,
        index: Long,
    }
}

/// The windows of a micro-batch to measure.
fn eval_windows(trainer: &Trainer<DocumentStarts>, index: u64) -> Vec<u64> {
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
        let ranges = bytes_of(trainer, &eval_windows(trainer, self.index));
        ready(vec![("plan", Made::json(&ranges)?)])
    }
}

request! {
    /// The loss of such a micro-batch, numbers in float64: the sum over the labels that count, and
    /// how many there are.
    158 trainerEvaluate TrainerEvaluateRequest {
        trainer: Object<HeldTrainer>,
        index: Long,
        ids: Uint8,
    }
}

impl Operation for TrainerEvaluateRequest {
    fn uses(&self) -> Vec<Use> {
        vec![self.trainer.to_use(true)]
    }

    fn prepare<'m>(&'m self, inputs: Inputs<'_, 'm>) -> Result<Prepared<'m>, Error> {
        let held = inputs.objects.take(&self.trainer)?;
        let trainer = held.get_mut()?;
        let windows = eval_windows(trainer, self.index);
        let ids = self.ids.u8(inputs.operands)?;
        let batch = trainer.data().batch_of_bytes(&windows, ids)?;
        let spec = OutputSpec::new("loss", Kind::U8, &[16])?;
        Ok(Prepared::new(vec![spec], move |outputs| {
            let out = outputs.u8()?;
            let total = trainer.model().units(&batch);
            Ok(Work::new(total + 1, move |pace| async move {
                let mut of = (0.0, 0);
                let mut work = trainer.evaluate_work(batch, &mut of)?;
                pace.within(&mut work, total).await?;
                drop(work);
                write_numbers(out, [of.0, of.1 as f64].into_iter());
                pace.worked(1);
                Ok(())
            }))
        }))
    }
}
