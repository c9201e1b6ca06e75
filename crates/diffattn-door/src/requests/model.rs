//! Models as objects: made of a checkpoint's entries, loaded part by part. Computes nothing with
//! them.

#[cfg(feature = "training")]
use std::any::Any;
use std::sync::Arc;

use diffattn::Error;
#[cfg(feature = "training")]
use diffattn_nn::DiffLlama;
use diffattn_nn::checkpoint::{json_object, json_text};
use diffattn_nn::{
    DiffViT, Family, Model as Whole, ModelFiles, ModelLoader, PartWeights, SameS, Task, TextModel,
    WeightFormat, WeightFormats,
};
use serde_json::{Map, Value, json};

use super::files;
use super::ready::{Made, ready};
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
    /// What training made of it.
    trained: Option<Whole>,
}

impl Held for Model {
    const NAME: &'static str = "a model";
    const ARGUMENT: &'static str = "model";
}

impl Model {
    /// The whole model.
    fn whole(&self) -> Result<Whole, Error> {
        match &self.trained {
            Some(model) => Ok(model.clone()),
            None => self.loader.whole(),
        }
    }

    /// The whole model, which continues texts.
    pub(super) fn text(&self) -> Result<Arc<dyn TextModel>, Error> {
        match self.whole()? {
            Whole::Text(model) => Ok(model),
            other => Err(wrong(&other, "a DiffLlama")),
        }
    }

    /// The whole model, which looks at images.
    pub(super) fn image(&self) -> Result<Arc<DiffViT>, Error> {
        match self.whole()? {
            Whole::Image(model) => Ok(model),
            other => Err(wrong(&other, "a DiffViT")),
        }
    }

    /// The whole model, which makes latents of audio and audio of latents.
    pub(super) fn audio(&self) -> Result<Arc<SameS>, Error> {
        match self.whole()? {
            Whole::Audio(model) => Ok(model),
            other => Err(wrong(&other, "an AudioCodec")),
        }
    }
}

#[cfg(feature = "training")]
impl Model {
    /// A whole model as one that is trained.
    pub(super) fn llama<'a>(
        argument: &str,
        model: &'a dyn TextModel,
    ) -> Result<&'a DiffLlama, Error> {
        let other = || Error::option(argument, "a Llama, plain or differential", "another model");
        (model as &dyn Any).downcast_ref().ok_or_else(other)
    }

    fn take(&mut self) -> Result<Whole, Error> {
        match self.trained.take() {
            Some(model) => Ok(model),
            None => self.loader.take(),
        }
    }

    /// The whole model, which continues texts, out of its object, which has none until
    /// [`Model::set_trained`].
    pub(super) fn take_llama(&mut self) -> Result<DiffLlama, Error> {
        Self::llama("model", self.text()?.as_ref())?;
        match self.take()? {
            Whole::Text(model) => Ok(Self::llama("model", model.as_ref())?.clone()),
            other => Err(wrong(&other, "a DiffLlama")),
        }
    }

    /// The whole model, which looks at images, out of its object likewise.
    pub(super) fn take_vit(&mut self) -> Result<DiffViT, Error> {
        self.image()?;
        match self.take()? {
            Whole::Image(model) => Ok(Arc::unwrap_or_clone(model)),
            other => Err(wrong(&other, "a DiffViT")),
        }
    }

    /// Makes what training made of it the model.
    pub(super) fn set_trained(&mut self, model: Whole) {
        self.trained = Some(model);
    }
}

/// That a model does something else.
fn wrong(model: &Whole, expected: &str) -> Error {
    let got = match model {
        Whole::Text(_) => "a DiffLlama",
        Whole::Image(_) => "a DiffViT",
        Whole::Audio(_) => "an AudioCodec",
    };
    Error::dtype("model", expected, got)
}

choice! { Task { "text" = Text, "image" = Image, "audio" = Audio } }

choice! {
    WeightFormat {
        "float32" = F32,
        "float16" = F16,
        "bfloat16" = Bf16,
        "q8" = Q8,
        "q4" = Q4,
    }
}

request! {
    /// Makes a model, without its weights, of the family that its config says; its id.
    96 createModel CreateModelRequest {
        task: Task,
        config: Text,
        generation_config: Option<Text>,
        entries("tensors"): Text,
        dtype: Option<WeightFormat>,
        head: Option<WeightFormat>,
    }
}

impl Query for CreateModelRequest {
    fn answer(self, asked: Asked<'_>) -> Result<f64, Error> {
        let operands = asked.operands;
        let text = json_text("config", self.config.u8(operands)?)?;
        let entries = files::weights(self.entries.text(operands)?)?;
        let generation = self.generation_config.as_ref();
        let generation = generation
            .map(|at| json_text("generation_config", at.u8(operands)?))
            .transpose()?;
        let files = ModelFiles {
            config: text,
            generation_config: generation,
            entries: &entries,
            formats: WeightFormats {
                maps: self.dtype,
                ends: self.head,
            },
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
            trained: None,
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
            "parameters": loader.parameters(),
            "dtype": loader.held_as().name(),
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
        let mut weights = PartWeights::new();
        for at in &self.tensors {
            let (name, tensor) = at.tensor(inputs.operands)?;
            let argument = format!("weights.{name}");
            if weights.insert(name.to_owned(), tensor.into()).is_some() {
                return Err(Error::file(argument, "one weight of this name", "two"));
            }
        }
        let load = loader.load_part(self.part, weights)?;
        Ok(Prepared::new(Vec::new(), |_outputs| Ok(load)))
    }
}
