//! Requests of training: a trainer as an object, made of a model and the documents of a file of
//! tokens, whose ids come with each step. Reads no file, and computes nothing itself.

mod fresh;
mod steps;
mod tensors;

pub(crate) use fresh::{FreshTensorRequest, FreshTensorsRequest};
pub(crate) use steps::{
    TrainerAddRequest, TrainerEvalPlanRequest, TrainerEvaluateRequest, TrainerPlanRequest,
    TrainerUpdateRequest,
};
pub(crate) use tensors::{
    ResumeTrainerRequest, SetTrainerTensorRequest, TrainedModelRequest, TrainerTensorRequest,
};

use std::borrow::Cow;
use std::ops::Range;

use diffattn::{Error, Work};
use diffattn_nn::checkpoint::{ByteSource, TokenFile};
use diffattn_nn::training::{
    AdapterOptions, DataOptions, Documents, NamePattern, ParameterRules, Recompute, Schedule,
    ScheduleShape, Trainer, TrainerOptions, TrainingData, TrainingModel, TrainingOptions,
};
use serde_json::json;

use super::model::Model;
use super::ready::{Made, ready};
use crate::encoding::{
    Count, List, Long, Number, Object, Or, Seed, Size, Text, Uint8, choice, record, request,
};
use crate::job::Prepared;
use crate::objects::{Held, Use};
use crate::operation::{Asked, Inputs, Operation, Query};

/// What a file of tokens says of its documents: its header, and the starts behind the ids, which
/// come with each step.
#[derive(Debug)]
struct DocumentStarts {
    header: Vec<u8>,
    starts: Vec<u8>,
    /// Where the starts lie in the file.
    range: Range<u64>,
}

impl ByteSource for DocumentStarts {
    fn byte_len(&self) -> u64 {
        self.range.end
    }

    fn read(&self, argument: &str, range: Range<u64>) -> Result<Cow<'_, [u8]>, Error> {
        let (from, base) = if range.start < self.range.start {
            (&self.header, 0)
        } else {
            (&self.starts, self.range.start)
        };
        let index = |at: u64| usize::try_from(at.checked_sub(base)?).ok();
        let found = index(range.start).zip(index(range.end));
        let bytes = found.and_then(|(start, end)| from.get(start..end));
        let missing = || {
            let (start, end) = (range.start, range.end);
            Error::file(
                argument,
                format_args!("bytes {start} to {end}"),
                "a file without them",
            )
        };
        bytes.map(Cow::Borrowed).ok_or_else(missing)
    }
}

/// A trainer as an object; empty until it is given a model and data.
#[derive(Debug, Default)]
pub(crate) struct HeldTrainer(Option<Box<Trainer<DocumentStarts>>>);

impl Held for HeldTrainer {
    const NAME: &'static str = "a trainer";
    const ARGUMENT: &'static str = "trainer";
}

/// That a trainer was not given a model yet: a call that was made before its start ended.
fn empty() -> Error {
    Error::option("trainer", "one that was started", "one that was not")
}

impl HeldTrainer {
    fn get(&self) -> Result<&Trainer<DocumentStarts>, Error> {
        self.0.as_deref().ok_or_else(empty)
    }

    fn get_mut(&mut self) -> Result<&mut Trainer<DocumentStarts>, Error> {
        self.0.as_deref_mut().ok_or_else(empty)
    }
}

choice! { Documents { "mask" = Mask, "join" = Join } }
choice! { ScheduleShape { "cosine" = Cosine, "linear" = Linear, "constant" = Constant } }
choice! { Recompute { "nothing" = Nothing, "mlps" = Mlps, "layers" = Layers } }

request! {
    /// Makes a trainer that has no model yet; its id.
    150 createTrainer CreateTrainerRequest {}
}

impl Query for CreateTrainerRequest {
    fn answer(self, asked: Asked<'_>) -> Result<f64, Error> {
        asked.door.insert(HeldTrainer::default()).map(f64::from)
    }
}

record! {
    /// Weights that stay, by a pattern of their names: all, or rows of them.
    fields FreezeAt {
        pattern("freeze"): Text,
        rows("freeze"): List<Size>,
    }
}

record! {
    /// What the learning rate of some weights is multiplied with.
    fields LrScaleAt {
        pattern("lr_scale"): Text,
        factor("lr_scale"): Number,
    }
}

record! {
    /// Low-rank differences of maps.
    fields AdapterAt {
        rank: Count,
        alpha("adapter.alpha"): Number,
        targets: List<Text>,
        seed: Seed,
    }
}

request! {
    /// Gives a trainer its model, which is taken out of its object, and its data: header and starts
    /// of a file of tokens of `length` bytes.
    151 startTrainer StartTrainerRequest {
        trainer: Object<HeldTrainer>,
        model: Object<Model>,
        header("data"): Uint8,
        starts("data"): Uint8,
        length("data"): Long,
        context: Count,
        documents: Or<Documents>,
        eval: Number,
        seed: Seed,
        batch: Count,
        accumulate: Count,
        unit: Option<Count>,
        lr: Number,
        steps: Long,
        warmup: Long,
        final_share("final"): Number,
        shape: Or<ScheduleShape>,
        betas: List<Number>,
        eps: Number,
        weight_decay: Number,
        max_grad_norm: Option<Number>,
        alpha: Number,
        freeze: List<FreezeAt>,
        lr_scale: List<LrScaleAt>,
        adapter: Option<AdapterAt>,
        recompute: Or<Recompute>,
    }
}

impl StartTrainerRequest {
    fn data(&self, operands: &[&[u8]]) -> Result<TrainingData<DocumentStarts>, Error> {
        let starts = self.starts.u8(operands)?.to_vec();
        let first = self.length.checked_sub(starts.len() as u64);
        let source = DocumentStarts {
            header: self.header.u8(operands)?.to_vec(),
            range: first.unwrap_or(0)..self.length,
            starts,
        };
        let options = DataOptions {
            context: self.context,
            documents: self.documents,
            eval: self.eval,
            seed: self.seed,
        };
        TrainingData::new(TokenFile::open("data", source)?, options)
    }

    fn options(&self) -> Result<TrainerOptions, Error> {
        let &[first, second] = self.betas.as_slice() else {
            return Err(Error::option("betas", "two numbers", self.betas.len()));
        };
        Ok(TrainerOptions {
            schedule: Schedule {
                lr: self.lr,
                steps: self.steps,
                warmup: self.warmup,
                final_share: self.final_share,
                shape: self.shape,
            },
            batch: self.batch,
            accumulate: self.accumulate,
            unit: self.unit,
            betas: [first, second],
            eps: self.eps,
            weight_decay: self.weight_decay,
            max_grad_norm: self.max_grad_norm,
            alpha: self.alpha,
        })
    }

    fn rules(&self, operands: &[&[u8]]) -> Result<ParameterRules, Error> {
        let mut rules = ParameterRules::default();
        for FreezeAt { pattern, rows } in &self.freeze {
            let pattern = NamePattern::new(pattern.text(operands)?);
            if rows.is_empty() {
                rules.freeze.push(pattern);
            } else {
                let pairs = rows.chunks(2);
                let ranges = pairs.map(|pair| pair[0]..pair.get(1).copied().unwrap_or(usize::MAX));
                rules.freeze_rows.push((pattern, ranges.collect()));
            }
        }
        for LrScaleAt { pattern, factor } in &self.lr_scale {
            let pattern = NamePattern::new(pattern.text(operands)?);
            rules.lr_scale.push((pattern, *factor));
        }
        Ok(rules)
    }

    fn adapter(&self, operands: &[&[u8]]) -> Result<Option<AdapterOptions>, Error> {
        let Some(at) = &self.adapter else {
            return Ok(None);
        };
        let targets = at
            .targets
            .iter()
            .map(|name| Ok(name.text(operands)?.to_owned()));
        Ok(Some(AdapterOptions {
            rank: at.rank,
            alpha: at.alpha,
            targets: targets.collect::<Result<_, Error>>()?,
            seed: at.seed,
        }))
    }
}

impl Operation for StartTrainerRequest {
    fn uses(&self) -> Vec<Use> {
        vec![self.trainer.to_use(true), self.model.to_use(true)]
    }

    fn prepares_at_length(&self) -> bool {
        true
    }

    fn prepare<'m>(&'m self, inputs: Inputs<'_, 'm>) -> Result<Prepared<'m>, Error> {
        let operands = inputs.operands;
        let (data, options) = (self.data(operands)?, self.options()?);
        let (rules, adapter) = (self.rules(operands)?, self.adapter(operands)?);
        let held = inputs.objects.take(&self.trainer)?;
        let model = inputs.objects.take(&self.model)?;
        let (recompute, run) = (self.recompute, inputs.run);
        Ok(Prepared::new(Vec::new(), move |_outputs| {
            Ok(Work::new(1, move |pace| async move {
                let llama = model.take_llama()?;
                let how = TrainingOptions {
                    moves: None,
                    rules: Some(&rules),
                    adapter: adapter.as_ref(),
                    recompute,
                    run,
                };
                let training = TrainingModel::new(llama, &how)?;
                held.0 = Some(Box::new(Trainer::new(training, data, options)?));
                pace.worked(1);
                Ok(())
            }))
        }))
    }
}

request! {
    /// What of a trainer's model moves, and how many windows its data has, as JSON.
    152 trainerInfo TrainerInfoRequest {
        trainer: Object<HeldTrainer>,
    }
}

impl Operation for TrainerInfoRequest {
    fn uses(&self) -> Vec<Use> {
        vec![self.trainer.to_use(false)]
    }

    fn prepare<'m>(&'m self, inputs: Inputs<'_, 'm>) -> Result<Prepared<'m>, Error> {
        let trainer = inputs.objects.look(&self.trainer)?.get()?;
        let arena = trainer.model().arena();
        let parameters = arena.parameters().iter();
        let parameters: Vec<_> = parameters
            .map(|of| json!({ "name": of.name, "shape": of.shape }))
            .collect();
        let [train, eval] = trainer.data().windows();
        let info = json!({
            "parameters": parameters,
            "moving": arena.len(),
            "windows": train,
            "evalWindows": eval,
            "layers": trainer.model().lambda().len(),
        });
        ready(vec![("info", Made::json(&info)?)])
    }
}

request! {
    /// The state of a trainer but its tensors, as the text of `training.json`.
    153 trainerState TrainerStateRequest {
        trainer: Object<HeldTrainer>,
    }
}

impl Operation for TrainerStateRequest {
    fn uses(&self) -> Vec<Use> {
        vec![self.trainer.to_use(false)]
    }

    fn prepare<'m>(&'m self, inputs: Inputs<'_, 'm>) -> Result<Prepared<'m>, Error> {
        let state = inputs.objects.look(&self.trainer)?.get()?.state_json();
        ready(vec![("state", Made::Bytes(state.into_bytes()))])
    }
}
