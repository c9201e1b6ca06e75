//! Models as objects: made of a checkpoint's entries, loaded part by part. Computes nothing with
//! them.

use std::sync::Arc;

use diffattn::Error;
use diffattn_nn::checkpoint::{Dtype, RawTensor, json_text};
use diffattn_nn::{
    DiffLlama, DiffLlamaConfig, DiffLlamaLoader, DiffViT, DiffViTConfig, DiffViTLoader,
    PartWeights, Weight, WeightData, WeightInfo,
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
    kind: ModelKind,
    /// What its `config.json` says, with every default in its place.
    config: Map<String, Value>,
}

impl Held for Model {
    const NAME: &'static str = "a model";
    const ARGUMENT: &'static str = "model";
}

#[derive(Debug)]
enum ModelKind {
    Llama(DiffLlamaLoader),
    Vit(DiffViTLoader),
}

impl Model {
    /// The whole DIFF Llama.
    pub(super) fn llama(&self) -> Result<&Arc<DiffLlama>, Error> {
        match &self.kind {
            ModelKind::Llama(loader) => loader.model(),
            ModelKind::Vit(_) => Err(Error::dtype("model", "a DiffLlama", "a DiffViT")),
        }
    }

    /// The whole DIFF vision transformer.
    pub(super) fn vit(&self) -> Result<&Arc<DiffViT>, Error> {
        match &self.kind {
            ModelKind::Vit(loader) => loader.model(),
            ModelKind::Llama(_) => Err(Error::dtype("model", "a DiffViT", "a DiffLlama")),
        }
    }

    /// What is odd about its checkpoint.
    fn notices(&self) -> &[String] {
        match &self.kind {
            ModelKind::Llama(loader) => loader.notices(),
            ModelKind::Vit(loader) => loader.notices(),
        }
    }

    fn parts(&self) -> &[Vec<WeightInfo>] {
        match &self.kind {
            ModelKind::Llama(loader) => loader.parts(),
            ModelKind::Vit(loader) => loader.parts(),
        }
    }
}

/// Which kind of model a config describes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Family {
    DiffLlama,
    DiffViT,
}

choice! { Family { "diffLlama" = DiffLlama, "diffViT" = DiffViT } }

request! {
    /// Makes a model, without its weights; its id.
    96 createModel CreateModelRequest {
        kind: Family,
        config: Text,
        generation_config: Option<Text>,
        entries("tensors"): Text,
    }
}

impl Query for CreateModelRequest {
    fn answer(self, asked: Asked<'_>) -> Result<f64, Error> {
        let operands = asked.operands;
        let config = json_text("config", self.config.u8(operands)?)?;
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
        let (kind, known) = match self.kind {
            Family::DiffLlama => {
                let mut config = DiffLlamaConfig::from_json(config)?;
                if let Some(generation) = generation {
                    config = config.with_generation_config(generation)?;
                }
                let loader = DiffLlamaLoader::new(&config, &entries)?;
                let known = llama_config(loader.config());
                (ModelKind::Llama(loader), known)
            }
            Family::DiffViT => {
                let loader = DiffViTLoader::new(&DiffViTConfig::from_json(config)?, &entries)?;
                let known = vit_config(loader.config());
                (ModelKind::Vit(loader), known)
            }
        };
        // (It was read as an object already.)
        let mut config: Map<String, Value> = serde_json::from_str(config)
            .map_err(|why| Error::file("config", "a JSON object", why))?;
        if let Value::Object(known) = known {
            config.extend(known);
        }
        asked.door.insert(Model { kind, config }).map(f64::from)
    }
}

/// The entries that have a default; what the rotary embedding is stays under the keys that it has.
fn llama_config(config: &DiffLlamaConfig) -> Value {
    json!({
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "hidden_act": config.hidden_act.name(),
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "head_dim": config.head_dim,
        "rms_norm_eps": config.rms_norm_eps,
        "attention_bias": config.attention_bias,
        "tie_word_embeddings": config.tie_word_embeddings,
        "max_position_embeddings": config.max_position_embeddings,
        "rope_theta": config.rope.theta,
        "bos_token_id": config.bos_token_id,
        "eos_token_id": match config.eos_token_ids.as_slice() {
            [] => Value::Null,
            [id] => json!(id),
            ids => json!(ids),
        },
        "pad_token_id": config.pad_token_id,
        "lambda_std_dev": config.lambda_std_dev,
    })
}

fn vit_config(config: &DiffViTConfig) -> Value {
    json!({
        "architecture": config.architecture.name(),
        "img_size": config.img_size,
        "patch_size": config.patch_size,
        "num_classes": config.num_classes,
        "in_chans": config.in_chans,
        "dynamic_img_size": config.dynamic_img_size,
        "embed_dim": config.embed_dim,
        "depth": config.depth,
        "num_heads": config.num_heads,
        "mlp_ratio": config.mlp_ratio,
        "reg_tokens": config.reg_tokens,
        "crop_pct": config.preprocessing.crop_pct,
        "interpolation": config.preprocessing.interpolation.name(),
        "mean": config.preprocessing.mean,
        "std": config.preprocessing.std,
    })
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
        let parts: Vec<Vec<&str>> = model
            .parts()
            .iter()
            .map(|part| part.iter().map(|weight| weight.name.as_str()).collect())
            .collect();
        let about = json!({ "config": model.config, "parts": parts, "notices": model.notices() });
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
        let model = inputs.objects.take(&self.model)?;
        let part = model.parts().get(self.part).map_or(&[][..], Vec::as_slice);
        let mut weights = PartWeights::new();
        for at in &self.tensors {
            let (name, tensor) = at.tensor(inputs.operands)?;
            let argument = format!("weights.{name}");
            let is_wide = || {
                part.iter()
                    .any(|entry| entry.name == name && entry.dtype == Dtype::F64)
            };
            let weight = weight(&argument, tensor, is_wide).map_err(in_file)?;
            if weights.insert(name.to_owned(), weight).is_some() {
                return Err(Error::file(argument, "one weight of this name", "two"));
            }
        }
        let load = match &mut model.kind {
            ModelKind::Llama(loader) => loader.load_part(self.part, weights)?,
            ModelKind::Vit(loader) => loader.load_part(self.part, weights)?,
        };
        Ok(Prepared::new(Vec::new(), |_outputs| Ok(load)))
    }
}

/// A tensor as models take it: in place where it can be; of F64, where it is said to be, rounded to
/// F32.
fn weight<'m>(
    argument: &str,
    tensor: RawTensor<'m>,
    is_wide: impl FnOnce() -> bool,
) -> Result<Weight<'m>, Error> {
    if tensor.dtype() == Dtype::F64 && is_wide() {
        return Ok(Weight {
            data: WeightData::F32(tensor.to_f32(argument)?.into()),
            shape: tensor.shape().to_vec(),
        });
    }
    tensor.into_floats(argument)
}
