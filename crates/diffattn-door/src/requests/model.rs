//! Models as objects: made of a checkpoint's entries, loaded part by part. Computes nothing with
//! them.

use std::sync::Arc;

use diffattn::Error;
use diffattn_nn::checkpoint::{RawTensor, json_object, json_text};
use diffattn_nn::{
    DiffViT, Family, Model as Whole, ModelFiles, ModelLoader, PartWeights, Task, TextModel, Weight,
    WeightData, WeightInfo,
};
use serde_json::{Map, Value, json};

use super::files;
use super::ready::{Made, in_file, ready};
use super::stored::StoredTensorAt;
use crate::encoding::{Count, List, Object, Text, choice, request};
use crate::job::Prepared;
use crate::objects::{Held, Use};
use crate::operation::{Asked, Inputs, Operation, Query};

/// A model, all of it or on its way.
#[derive(Debug)]
pub(crate) struct Model {
    family: &'static Family,
    loader: Box<dyn ModelLoader>,
    /// What its `config.json` says, with every default in its place.
    config: Map<String, Value>,
}

impl Held for Model {
    const NAME: &'static str = "a model";
    const ARGUMENT: &'static str = "model";
}

impl Model {
    /// The whole model, which continues texts.
    pub(super) fn text(&self) -> Result<Arc<dyn TextModel>, Error> {
        match self.loader.whole()? {
            Whole::Text(model) => Ok(model),
            Whole::Image(_) => Err(Error::dtype("model", "a DiffLlama", "a DiffViT")),
        }
    }

    /// The whole model, which looks at images.
    pub(super) fn image(&self) -> Result<Arc<DiffViT>, Error> {
        match self.loader.whole()? {
            Whole::Image(model) => Ok(model),
            Whole::Text(_) => Err(Error::dtype("model", "a DiffViT", "a DiffLlama")),
        }
    }
}

choice! { Task { "text" = Text, "image" = Image } }

request! {
    /// Makes a model, without its weights, of the family that its config says; its id.
    96 createModel CreateModelRequest {
        task: Task,
        config: Text,
        generation_config: Option<Text>,
        entries("tensors"): Text,
    }
}

impl Query for CreateModelRequest {
    fn answer(self, asked: Asked<'_>) -> Result<f64, Error> {
        let operands = asked.operands;
        let text = json_text("config", self.config.u8(operands)?)?;
        let entries: Vec<WeightInfo> = files::entries(self.entries.text(operands)?)?
            .into_iter()
            .map(|entry| WeightInfo {
                name: entry.name.into_owned(),
                dtype: entry.dtype,
                shape: entry.shape.into_owned(),
            })
            .collect();
        let generation = self.generation_config.as_ref();
        let generation = generation
            .map(|at| json_text("generation_config", at.u8(operands)?))
            .transpose()?;
        let files = ModelFiles {
            config: text,
            generation_config: generation,
            entries: &entries,
        };
        let (family, loader) = Family::open(self.task, &files)?;
        let mut config = json_object("config", text)?;
        if let Value::Object(known) = loader.config_json() {
            complete(&mut config, known);
        }
        let model = Model {
            family,
            loader,
            config,
        };
        asked.door.insert(model).map(f64::from)
    }
}

/// Puts what is known in its place, within objects, too.
fn complete(config: &mut Map<String, Value>, known: Map<String, Value>) {
    for (key, value) in known {
        match (config.get_mut(&key), value) {
            (Some(Value::Object(within)), Value::Object(known)) => complete(within, known),
            (_, value) => _ = config.insert(key, value),
        }
    }
}

request! {
    /// A request of `modelInfo`.
    72 modelInfo InfoRequest {
        model: Object<Model>,
    }
}

impl Operation for InfoRequest {
    fn uses(&self) -> Vec<Use> {
        vec![self.model.to_use(false)]
    }

    fn prepare<'m>(&'m self, inputs: Inputs<'_, 'm>) -> Result<Prepared<'m>, Error> {
        let model = inputs.objects.look(&self.model)?;
        let loader = &model.loader;
        let parts: Vec<Vec<&str>> = loader
            .parts()
            .iter()
            .map(|part| part.iter().map(|weight| weight.name.as_str()).collect())
            .collect();
        let about = json!({
            "family": model.family.architecture.name(),
            "config": model.config,
            "parts": parts,
            "notices": loader.notices(),
        });
        let json = Made::json(&about)?;
        ready(vec![("info", json)])
    }
}

request! {
    /// A request of `loadPart`.
    73 loadPart LoadRequest {
        model: Object<Model>,
        part: Count,
        tensors: List<StoredTensorAt>,
    }
}

impl Operation for LoadRequest {
    fn uses(&self) -> Vec<Use> {
        vec![self.model.to_use(true)]
    }

    fn prepare<'m>(&'m self, inputs: Inputs<'_, 'm>) -> Result<Prepared<'m>, Error> {
        let loader = &mut inputs.objects.take(&self.model)?.loader;
        let part = loader.parts().get(self.part).map_or(&[][..], Vec::as_slice);
        let mut weights = PartWeights::new();
        for at in &self.tensors {
            let (name, tensor) = at.tensor(inputs.operands)?;
            let argument = format!("weights.{name}");
            let dtype = tensor.dtype();
            let is_said = || {
                part.iter()
                    .any(|entry| entry.name == name && entry.dtype == dtype)
            };
            let weight = weight(&argument, tensor, is_said).map_err(in_file)?;
            if weights.insert(name.to_owned(), weight).is_some() {
                return Err(Error::file(argument, "one weight of this name", "two"));
            }
        }
        let load = loader.load_part(self.part, weights)?;
        Ok(Prepared::new(Vec::new(), |_outputs| Ok(load)))
    }
}

/// A tensor as models take it: in place where it can be; of F64 or quantised, where it is said to
/// be, as F32.
fn weight<'m>(
    argument: &str,
    tensor: RawTensor<'m>,
    is_said: impl FnOnce() -> bool,
) -> Result<Weight<'m>, Error> {
    if tensor.dtype() != tensor.dtype().kept() && is_said() {
        return Ok(Weight {
            data: WeightData::F32(tensor.to_f32(argument)?.into()),
            shape: tensor.shape().to_vec(),
        });
    }
    tensor.into_floats(argument)
}
