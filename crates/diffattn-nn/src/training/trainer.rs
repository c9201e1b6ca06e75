//! Training from step to step: micro-batches, the learning rate, what is told of each step, and the
//! state to go on from, to the same bits. Opens no file: a checkpoint is bytes here.

use super::batch::TrainingBatch;
use super::data::{Cursor, TrainingData};
use super::model::{LossOptions, TrainingModel};
use super::schedule::Schedule;
use crate::models::diff_llama::DiffLlama;
use diffattn::{AdamW, Error, Tensor, format_shape};
use diffattn_files::{ByteSource, Checkpoint, RawTensor, write};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The version of a state.
const VERSION: u64 = 1;

/// How a [`Trainer`] trains.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainerOptions {
    /// The learning rate of every step, and how many there are.
    pub schedule: Schedule,
    /// Rows of a micro-batch. 8 by default.
    pub batch: usize,
    /// Micro-batches of a step. 1 by default. Where a micro-batch is a multiple of 256 tokens, its
    /// bits are those of one batch of all rows.
    pub accumulate: usize,
    /// β₁ and β₂ of AdamW. 0.9 and 0.95 by default.
    pub betas: [f64; 2],
    /// Added to AdamW's root. 10⁻⁸ by default.
    pub eps: f64,
    /// Of tensors of two axes. 0.1 by default.
    pub weight_decay: f64,
    /// What the joint norm of the gradients is clipped to; 1 by default.
    pub max_grad_norm: Option<f64>,
    /// With a teacher the share of cross entropy; the rest is the divergence from its distribution.
    /// 0.5 by default.
    pub alpha: f64,
}

impl TrainerOptions {
    /// The defaults.
    #[must_use]
    pub fn new(schedule: Schedule) -> Self {
        Self {
            schedule,
            batch: 8,
            accumulate: 1,
            betas: [0.9, 0.95],
            eps: 1e-8,
            weight_decay: 0.1,
            max_grad_norm: Some(1.0),
            alpha: 0.5,
        }
    }

    fn check(&self) -> Result<(), Error> {
        self.schedule.check()?;
        for (name, value) in [("batch", self.batch), ("accumulate", self.accumulate)] {
            if value == 0 {
                return Err(Error::option(name, "1 or more", 0));
            }
        }
        if !(0.0..=1.0).contains(&self.alpha) {
            return Err(Error::option("alpha", "a share from 0 to 1", self.alpha));
        }
        Ok(())
    }

    /// What a state must agree with to be gone on from: what changes the numbers.
    fn known(&self) -> Value {
        let Schedule {
            lr,
            steps,
            warmup,
            final_share,
            shape,
        } = self.schedule;
        json!({
            "lr": lr,
            "steps": steps,
            "warmup": warmup,
            "final": final_share,
            "shape": format!("{shape:?}").to_lowercase(),
            "rows": self.batch * self.accumulate,
            "betas": self.betas,
            "eps": self.eps,
            "weightDecay": self.weight_decay,
            "maxGradNorm": self.max_grad_norm,
            "alpha": self.alpha,
        })
    }
}

/// What is told of a step.
#[derive(Debug, Clone, PartialEq)]
pub struct StepReport {
    /// Counted from 1.
    pub step: u64,
    /// The mean over the labels of the step, before it moved anything.
    pub loss: f64,
    /// Of the loss with a teacher, cross entropy and the divergence from its distribution.
    pub parts: [f64; 2],
    /// The learning rate.
    pub lr: f64,
    /// The joint norm of the gradients, before clipping.
    pub grad_norm: f64,
    /// Tokens that were read so far.
    pub tokens: u64,
    /// λ of each layer that has one of its own.
    pub lambda: Vec<Option<f32>>,
    /// Whether the loss or the norm is no number: nothing moved then, and training ends.
    pub has_diverged: bool,
}

/// A model, its data, and how far training has come.
#[derive(Debug)]
pub struct Trainer<S> {
    model: TrainingModel,
    data: TrainingData<S>,
    options: TrainerOptions,
    cursor: Cursor,
    step: u64,
    tokens: u64,
    has_diverged: bool,
}

/// A checkpoint of a [`Trainer`]: what it goes on from, to the same bits.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainerState {
    /// `training.json`: version, step, tokens, cursor, options.
    pub json: String,
    /// A safetensors file of what moves, float32.
    pub masters: Vec<u8>,
    /// A safetensors file of the moments: `m.NAME` and `v.NAME`.
    pub optimizer: Vec<u8>,
}

impl<S: ByteSource> Trainer<S> {
    /// Before its first step.
    ///
    /// # Errors
    /// [`ErrorKind::Option`](diffattn::ErrorKind::Option) naming the option.
    pub fn new(
        model: TrainingModel,
        data: TrainingData<S>,
        options: TrainerOptions,
    ) -> Result<Self, Error> {
        options.check()?;
        Ok(Self {
            model,
            data,
            options,
            cursor: Cursor::default(),
            step: 0,
            tokens: 0,
            has_diverged: false,
        })
    }

    /// The model in training.
    #[must_use]
    pub fn model(&self) -> &TrainingModel {
        &self.model
    }

    /// The model, out of training.
    #[must_use]
    pub fn into_model(self) -> DiffLlama {
        self.model.into_model()
    }

    /// Steps that were made.
    #[must_use]
    pub fn step(&self) -> u64 {
        self.step
    }

    /// One step; `None` behind the last, and behind one that diverged. A `teacher` takes part in
    /// the loss.
    ///
    /// # Errors
    /// What the data's file says; as [`TrainingModel::add`] and [`TrainingModel::step`].
    pub fn advance(&mut self, teacher: Option<&DiffLlama>) -> Result<Option<StepReport>, Error> {
        if self.has_diverged || self.step >= self.options.schedule.steps {
            return Ok(None);
        }
        // (Where something fails on the way, the next call begins the step anew.)
        let mut cursor = self.cursor;
        let mut batches = Vec::with_capacity(self.options.accumulate);
        for _ in 0..self.options.accumulate {
            batches.push(self.data.next(&mut cursor, self.options.batch)?);
        }
        let count = batches.iter().map(TrainingBatch::counted).sum();
        self.model.begin();
        let (mut loss, mut parts) = (0.0, [0.0; 2]);
        for batch in &batches {
            let options = LossOptions {
                count: Some(count),
                teacher: teacher.map(|teacher| (teacher, self.options.alpha)),
            };
            let of = self.model.add(batch, &options)?;
            loss += of.loss;
            parts[0] += of.cross_entropy;
            parts[1] += of.divergence;
        }
        let step = self.step + 1;
        let adamw = AdamW {
            lr: self.options.schedule.at(step),
            betas: self.options.betas,
            eps: self.options.eps,
            weight_decay: self.options.weight_decay,
        };
        let norm = self.model.norm()?;
        let has_diverged = !(loss.is_finite() && norm.is_finite());
        if !has_diverged {
            let max_norm = self.options.max_grad_norm;
            self.model.moved(step, &adamw, (norm, max_norm))?;
            self.step = step;
            self.cursor = cursor;
            let tokens = batches.iter().map(TrainingBatch::tokens);
            self.tokens += tokens.sum::<usize>() as u64;
        }
        self.has_diverged = has_diverged;
        Ok(Some(StepReport {
            step,
            loss,
            parts,
            lr: adamw.lr,
            grad_norm: norm,
            tokens: self.tokens,
            lambda: self.model.lambda(),
            has_diverged,
        }))
    }

    /// The mean loss over the windows that are measured, `batches` micro-batches of them at most;
    /// `None` where there are none.
    ///
    /// # Errors
    /// As [`Trainer::advance`].
    pub fn evaluate(&mut self, batches: Option<usize>) -> Result<Option<f64>, Error> {
        let (mut sum, mut counted, mut first, mut left) = (0.0, 0_usize, 0, batches);
        while left != Some(0)
            && let Some(batch) = self.data.eval(first, self.options.batch)?
        {
            let loss = self.model.evaluate(&batch)?;
            sum += loss.loss * loss.counted as f64;
            counted += loss.counted;
            first += self.options.batch as u64;
            left = left.map(|left| left - 1);
        }
        Ok((counted > 0).then(|| sum / counted as f64))
    }

    /// What to go on from.
    ///
    /// # Errors
    /// [`Error::out_of_memory`].
    pub fn state(&self) -> Result<TrainerState, Error> {
        let arena = self.model.arena();
        let (mut masters, mut moments) = (Vec::new(), Vec::new());
        for parameter in arena.parameters() {
            let name = &parameter.name;
            let (Some(values), Some([m, v])) = (arena.values(name), arena.moments(name)) else {
                return Err(Error::internal("a parameter is not in its arena"));
            };
            let shape = parameter.shape.as_slice();
            masters.push((name.clone(), shape, values));
            moments.push((format!("m.{name}"), shape, m));
            moments.push((format!("v.{name}"), shape, v));
        }
        let json = json!({
            "version": VERSION,
            "step": self.step,
            "tokens": self.tokens,
            "data": { "epoch": self.cursor.epoch, "index": self.cursor.index },
            "options": self.options.known(),
        });
        Ok(TrainerState {
            json: format!("{json:#}\n"),
            masters: safetensors(&masters)?,
            optimizer: safetensors(&moments)?,
        })
    }

    /// Goes on from a state that a trainer of the same options, model and data left.
    ///
    /// # Errors
    /// [`ErrorKind::File`](diffattn::ErrorKind::File) naming the file, and the option that differs
    /// or the tensor that is missing or does not fit. Nothing is gone on from then.
    pub fn restore(&mut self, state: &TrainerState) -> Result<(), Error> {
        let wrong = |key: &str, expected: String, got: String| {
            Error::file(format_args!("training.json: {key}"), expected, got)
        };
        let parsed: Value = serde_json::from_str(&state.json)
            .map_err(|error| wrong("text", "JSON".into(), error.to_string()))?;
        let number = |key: &str, value: &Value| {
            let number = value.as_u64();
            number.ok_or_else(|| wrong(key, "a whole number".into(), value.to_string()))
        };
        if number("version", &parsed["version"])? != VERSION {
            let got = parsed["version"].to_string();
            return Err(wrong("version", VERSION.to_string(), got));
        }
        let own = self.options.known();
        for (key, value) in own.as_object().into_iter().flatten() {
            let stored = &parsed["options"][key];
            if stored != value {
                return Err(wrong(key, value.to_string(), stored.to_string()));
            }
        }
        let cursor = Cursor {
            epoch: number("data.epoch", &parsed["data"]["epoch"])?,
            index: number("data.index", &parsed["data"]["index"])?,
        };
        let (step, tokens) = (
            number("step", &parsed["step"])?,
            number("tokens", &parsed["tokens"])?,
        );
        let masters = Checkpoint::open("model.safetensors", state.masters.as_slice())?;
        let moments = Checkpoint::open("optimizer.safetensors", state.optimizer.as_slice())?;
        let names: Vec<_> = self.model.arena().parameters().to_vec();
        let (mut values, mut first, mut second) = (Vec::new(), Vec::new(), Vec::new());
        for of in &names {
            values.push(read(&masters, &of.name, &of.shape)?);
            first.push(read(&moments, &format!("m.{}", of.name), &of.shape)?);
            second.push(read(&moments, &format!("v.{}", of.name), &of.shape)?);
        }
        for ((of, m), v) in names.iter().zip(&first).zip(&second) {
            self.model.set_moments(&of.name, [m, v])?;
        }
        let values = names.iter().zip(&values);
        self.model
            .set(values.map(|(of, values)| (of.name.as_str(), values.as_slice())))?;
        (self.cursor, self.step, self.tokens) = (cursor, step, tokens);
        self.has_diverged = false;
        Ok(())
    }
}

/// The bytes of a safetensors file of float32 tensors.
fn safetensors(tensors: &[(String, &[usize], &[f32])]) -> Result<Vec<u8>, Error> {
    let mut raw = Vec::with_capacity(tensors.len());
    for (name, shape, values) in tensors {
        raw.push((
            name.as_str(),
            RawTensor::of(name, &Tensor::f32(values, shape))?,
        ));
    }
    write(&raw, &BTreeMap::new())
}

/// A float32 tensor of a checkpoint.
fn read<S: ByteSource>(
    file: &Checkpoint<S>,
    name: &str,
    shape: &[usize],
) -> Result<Vec<f32>, Error> {
    let raw = file.raw(name)?;
    if raw.shape() != shape {
        return Err(Error::file(
            name,
            format_args!("shape {}", format_shape(shape)),
            format_shape(raw.shape()),
        ));
    }
    raw.to_f32(name)
}
