//! Requests of training: a trainer as an object, made of a model and what is known of its data,
//! whose bytes come with each step. Reads no file, and computes nothing itself.

mod fresh;
mod held;
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

use diffattn::{Error, Work, checked_len};
use diffattn_nn::checkpoint::TokenFile;
use diffattn_nn::training::{
    AdapterOptions, DataOptions, Dataset, Documents, HeldOut, ImageData, ImageOptions, NamePattern,
    ParameterRules, Recompute, Schedule, ScheduleShape, Trainer, TrainerOptions, TrainingData,
    TrainingModel, TrainingOptions,
};
use serde_json::{Value, json};

use self::held::{FileParts, HeldTrainer, Training, on_trainer};
use super::model::Model;
use super::ready::{Made, ready};
use crate::encoding::{
    Count, Int32, List, Long, Number, Object, Or, Seed, Size, Text, Uint8, choice, record, request,
};
use crate::job::Prepared;
use crate::objects::Use;
use crate::operation::{Asked, Inputs, Operation, Query};

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

record! {
    /// Windows of a file of tokens of `length` bytes: its header and starts.
    fields TokensAt {
        header("data"): Uint8,
        starts("data"): Uint8,
        length("data"): Long,
        context: Count,
        documents: Or<Documents>,
        eval: Number,
    }
}

record! {
    /// Images of a file of pixels, `shape` `[images, C, S, S]`; those of `held` are measured, or a
    /// share of them, the last ones.
    fields ImagesAt {
        shape("images"): List<Size>,
        labels: List<Int32>,
        eval: Option<Number>,
        held("eval"): List<Size>,
    }
}

request! {
    /// Gives a trainer its model, which is taken out of its object, and its data, of one of the two
    /// kinds.
    151 startTrainer StartTrainerRequest {
        trainer: Object<HeldTrainer>,
        model: Object<Model>,
        tokens: Option<TokensAt>,
        images: Option<ImagesAt>,
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
        lambda_anneal: Option<Long>,
        freeze: List<FreezeAt>,
        lr_scale: List<LrScaleAt>,
        adapter: Option<AdapterAt>,
        recompute: Or<Recompute>,
    }
}

impl StartTrainerRequest {
    fn tokens(&self, at: &TokensAt, operands: &[&[u8]]) -> Result<TrainingData<FileParts>, Error> {
        let [header, starts] = [&at.header, &at.starts].map(|of| of.u8(operands));
        let source = FileParts::new(header?.to_vec(), starts?.to_vec(), at.length);
        let options = DataOptions {
            context: at.context,
            documents: at.documents,
            eval: at.eval,
            seed: self.seed,
        };
        TrainingData::new(TokenFile::open("data", source)?, options)
    }

    fn images(&self, at: &ImagesAt) -> Result<ImageData<FileParts>, Error> {
        let shape = <[usize; 4]>::try_from(at.shape.as_slice());
        let got = at.shape.len();
        let shape = shape.map_err(|_| Error::shape("images", "[images, C, S, S]", got))?;
        let values = checked_len("images", &[shape[0], shape[1], shape[2], shape[3], 4])?;
        let options = ImageOptions {
            eval: match at.eval {
                Some(share) => HeldOut::Share(share),
                None => HeldOut::List(at.held.iter().map(|&number| number as u64).collect()),
            },
            seed: self.seed,
        };
        let source = FileParts::new(Vec::new(), Vec::new(), values as u64);
        ImageData::new(source, shape, at.labels.clone(), &options)
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
            lambda_anneal: self.lambda_anneal,
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
        let options = self.options()?;
        let (rules, adapter) = (self.rules(operands)?, self.adapter(operands)?);
        let (tokens, images) = match (&self.tokens, &self.images) {
            (Some(at), None) => (Some(self.tokens(at, operands)?), None),
            (None, Some(at)) => (None, Some(self.images(at)?)),
            _ => {
                return Err(Error::option(
                    "data",
                    "tokens or images",
                    "both, or neither",
                ));
            }
        };
        let held = inputs.objects.take(&self.trainer)?;
        let model = inputs.objects.take(&self.model)?;
        let (recompute, run) = (self.recompute, inputs.run);
        Ok(Prepared::new(Vec::new(), move |_outputs| {
            Ok(Work::new(1, move |pace| async move {
                let how = TrainingOptions {
                    moves: None,
                    rules: Some(&rules),
                    adapter: adapter.as_ref(),
                    recompute,
                    run,
                };
                if let Some(data) = tokens {
                    let training = TrainingModel::new(model.take_llama()?, &how)?;
                    let made = Trainer::new(training, data, options)?;
                    held.set(Training::Text(Box::new(made)));
                } else if let Some(data) = images {
                    let training = TrainingModel::new(model.take_vit()?, &how)?;
                    let made = Trainer::new(training, data, options)?;
                    held.set(Training::Images(Box::new(made)));
                }
                pace.worked(1);
                Ok(())
            }))
        }))
    }
}

/// What is told of a trainer before its first step.
fn info<D: Dataset>(trainer: &Trainer<D>) -> Value {
    let arena = trainer.model().arena();
    let parameters = arena.parameters().iter();
    let parameters: Vec<_> = parameters
        .map(|of| json!({ "name": of.name, "shape": of.shape }))
        .collect();
    let [train, eval] = trainer.data().windows();
    json!({
        "parameters": parameters,
        "moving": arena.len(),
        "windows": train,
        "evalWindows": eval,
        "layers": trainer.model().lambda().len(),
    })
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
        let info = on_trainer!(trainer, trainer => info(trainer));
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
        let trainer = inputs.objects.look(&self.trainer)?.get()?;
        let state = on_trainer!(trainer, trainer => trainer.state_json());
        ready(vec![("state", Made::Bytes(state.into_bytes()))])
    }
}
