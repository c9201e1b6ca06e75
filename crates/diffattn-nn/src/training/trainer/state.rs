//! What training goes on from, to the same bits: masters, moments, the place in the data, and the
//! options that it must agree with. Opens no file: a checkpoint is bytes here.

use super::open::OpenStep;
use super::{Trainer, TrainerOptions};
use crate::training::arena::{Parameter, StateTensor};
use crate::training::dataset::{Cursor, Dataset};
use crate::training::schedule::Schedule;
use diffattn::{Error, Tensor, format_shape};
use diffattn_files::{ByteSource, Checkpoint, RawTensor, write};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The version of a state.
const VERSION: u64 = 1;

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

impl TrainerOptions {
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
            "unit": self.unit,
            "betas": self.betas,
            "eps": self.eps,
            "weightDecay": self.weight_decay,
            "maxGradNorm": self.max_grad_norm,
            "alpha": self.alpha,
            "lambdaAnneal": self.lambda_anneal,
        })
    }
}

impl<D: Dataset> Trainer<D> {
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
        Ok(TrainerState {
            json: self.state_json(),
            masters: safetensors(&masters)?,
            optimizer: safetensors(&moments)?,
        })
    }

    /// What [`TrainerState::json`] says.
    #[must_use]
    pub fn state_json(&self) -> String {
        let json = json!({
            "version": VERSION,
            "step": self.step,
            "tokens": self.tokens,
            "data": { "epoch": self.cursor.epoch, "index": self.cursor.index },
            "options": self.options.known(),
        });
        format!("{json:#}\n")
    }

    /// The values, or moments, of a parameter, whose name and shape the arena tells.
    #[must_use]
    pub fn tensor(&self, name: &str, of: StateTensor) -> Option<&[f32]> {
        let arena = self.model.arena();
        match of {
            StateTensor::Value => arena.values(name),
            StateTensor::FirstMoment => arena.moments(name).map(|[first, _]| first),
            StateTensor::SecondMoment => arena.moments(name).map(|[_, second]| second),
        }
    }

    /// Sets the values, or moments, of a parameter, as a part of a state: once all are set,
    /// [`Trainer::resume`] ends that, and no step is made before.
    ///
    /// # Errors
    /// As [`TrainingModel::set`](crate::training::TrainingModel::set).
    pub fn set_tensor(&mut self, name: &str, of: StateTensor, values: &[f32]) -> Result<(), Error> {
        self.is_moving = true;
        self.model.set_tensor(name, of, values)
    }

    /// Goes on from the state whose tensors were set and whose [`TrainerState::json`] this is.
    ///
    /// # Errors
    /// As [`Trainer::restore`].
    pub fn resume(&mut self, json: &str) -> Result<(), Error> {
        let place = self.place_of(json)?;
        self.model.put_back()?;
        (self.step, self.tokens, self.cursor) = place;
        self.anneal(self.step)?;
        (self.has_diverged, self.is_moving) = (false, false);
        self.open = OpenStep::default();
        Ok(())
    }

    /// Goes on from a state that a trainer of the same options, model and data left.
    ///
    /// # Errors
    /// [`ErrorKind::File`](diffattn::ErrorKind::File) naming the file, and the option that differs
    /// or the tensor that is missing or does not fit. Nothing is gone on from then.
    pub fn restore(&mut self, state: &TrainerState) -> Result<(), Error> {
        self.place_of(&state.json)?;
        let masters = Checkpoint::open("model.safetensors", state.masters.as_slice())?;
        let moments = Checkpoint::open("optimizer.safetensors", state.optimizer.as_slice())?;
        // All are read before the first is set.
        let mut tensors = Vec::new();
        for Parameter { name, shape, .. } in self.model.arena().parameters() {
            for (file, prefix, of) in [
                (&masters, "", StateTensor::Value),
                (&moments, "m.", StateTensor::FirstMoment),
                (&moments, "v.", StateTensor::SecondMoment),
            ] {
                let values = read(file, &format!("{prefix}{name}"), shape)?;
                tensors.push((name.clone(), of, values));
            }
        }
        for (name, of, values) in &tensors {
            self.set_tensor(name, *of, values)?;
        }
        self.resume(&state.json)
    }

    /// Where a state goes on: the step, tokens, and the place in the data.
    fn place_of(&self, json: &str) -> Result<(u64, u64, Cursor), Error> {
        let wrong = |key: &str, expected: String, got: String| {
            Error::file(format_args!("training.json: {key}"), expected, got)
        };
        let parsed: Value = serde_json::from_str(json)
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
            if !is_same(stored, value) {
                return Err(wrong(key, value.to_string(), stored.to_string()));
            }
        }
        let cursor = Cursor {
            epoch: number("data.epoch", &parsed["data"]["epoch"])?,
            index: number("data.index", &parsed["data"]["index"])?,
        };
        let step = number("step", &parsed["step"])?;
        Ok((step, number("tokens", &parsed["tokens"])?, cursor))
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

/// Whether two values of JSON say the same, however their numbers are written.
fn is_same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => one.as_f64() == other.as_f64(),
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len()
                && one
                    .iter()
                    .zip(other)
                    .all(|(one, other)| is_same(one, other))
        }
        _ => one == other,
    }
}
