//! What an inspection says: plain data. Decides nothing.

use super::quantised::QuantizedCount;
use crate::dtype::Dtype;
use crate::layer::Layer;
use crate::plain::{ConvertedLayer, PlainLayer};
use serde_json::{Map, Value};
use std::fmt;

/// What a checkpoint is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// Hugging Face's `DiffLlamaForCausalLM`.
    DiffLlama,
    /// Hugging Face's `LlamaForCausalLM`: plain attention, one softmax per head.
    Llama,
    /// A Llama some of whose heads were made differential.
    DiffAttnLlama,
    /// Microsoft's Phi-4-mini-flash: Mamba, differential attention and gates by turns.
    Phi4Flash,
    /// unilm's first version, naive or flash: names and shapes are the same.
    UnilmV1,
    /// unilm's second version.
    UnilmV2,
    /// timm's vision transformer with differential attention.
    TimmDiffVit,
    /// The audio codec of Stable Audio 3.
    SameS,
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DiffLlama => "Hugging Face diffllama",
            Self::Llama => "Hugging Face llama",
            Self::DiffAttnLlama => "Llama converted to differential attention",
            Self::Phi4Flash => "Phi-4-mini-flash (SambaY)",
            Self::UnilmV1 => "unilm multihead_diffattn (V1)",
            Self::UnilmV2 => "unilm multihead_diffattn (V2)",
            Self::TimmDiffVit => "timm vision transformer with differential attention",
            Self::SameS => "Stable Audio 3 SAME-S, an audio codec with differential attention",
        })
    }
}

impl Architecture {
    /// Its name in an inspection, of a model of Hugging Face's its `model_type`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::DiffLlama => "diffllama",
            Self::Llama => "llama",
            Self::DiffAttnLlama => "diffattn_llama",
            Self::Phi4Flash => "phi4flash",
            Self::UnilmV1 => "unilm",
            Self::UnilmV2 => "unilm_v2",
            Self::TimmDiffVit => "diff_vit",
            Self::SameS => "same_s",
        }
    }

    /// What a configuration says that it is of.
    pub fn of_config(config: &Map<String, Value>) -> Option<Self> {
        let text = |key: &str| config.get(key).and_then(Value::as_str);
        let is_vit = |name: &str| {
            ["_dwee_", "_dlittle_", "_dpwee_"]
                .iter()
                .any(|kind| name.contains(kind))
        };
        let models = [
            Self::DiffLlama,
            Self::Llama,
            Self::DiffAttnLlama,
            Self::Phi4Flash,
        ];
        let model = models
            .into_iter()
            .find(|model| text("model_type") == Some(model.name()));
        let is_vit = text("architecture").is_some_and(is_vit);
        let is_codec = text("architecture") == Some(Self::SameS.name());
        model
            .or(is_vit.then_some(Self::TimmDiffVit))
            .or(is_codec.then_some(Self::SameS))
    }
}

/// How much of a checkpoint is of one element type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DtypeCount {
    /// The type.
    pub dtype: Dtype,
    /// How many tensors.
    pub tensors: usize,
    /// How many elements.
    pub elements: u64,
}

/// What a checkpoint is.
#[derive(Debug, Clone, PartialEq)]
pub struct Inspection {
    /// `None` when nothing in it is known.
    pub architecture: Option<Architecture>,
    /// The differential attention layers, in order.
    pub layers: Vec<Layer>,
    /// The layers of plain attention, in order; only of an architecture that has any.
    pub plain_layers: Vec<PlainLayer>,
    /// The layers of a converted Llama that have differential heads, in order.
    pub converted_layers: Vec<ConvertedLayer>,
    /// The element types, those with the most elements first.
    pub dtypes: Vec<DtypeCount>,
    /// Quantised weights as MLX has them, by how they are packed; their tensors are among the
    /// element types, too.
    pub quantized: Vec<QuantizedCount>,
    /// Elements of all tensors, of quantised weights those of the weights.
    pub parameters: u64,
    /// Tensors that the architecture wants and that are not there, by the names that it has for
    /// them.
    pub missing: Vec<String>,
    /// Tensors that the architecture has no place for, by the names that the file has for them.
    pub unexpected: Vec<String>,
    /// Sentences on what is odd.
    pub warnings: Vec<String>,
}

impl Inspection {
    pub(super) fn warn(&mut self, sentence: impl Into<String>) {
        self.warnings.push(sentence.into());
    }

    /// Adds names of what is missing, each once.
    pub(super) fn add_missing(&mut self, names: impl IntoIterator<Item = String>) {
        self.missing.extend(names);
        self.missing.sort_unstable();
        self.missing.dedup();
    }

    /// The number of every layer that has one, list by list.
    fn depths(&self) -> impl Iterator<Item = usize> {
        let plain = self.plain_layers.iter().map(|layer| layer.depth);
        let converted = self.converted_layers.iter();
        let converted = converted.map(|layer| layer.plain.depth);
        let depths = self.layers.iter().map(|layer| layer.depth);
        depths.chain(plain).chain(converted).flatten()
    }

    /// The number of a layer that is there.
    pub(super) fn first_layer(&self) -> Option<usize> {
        self.depths().next()
    }

    /// The highest number of a layer.
    pub(super) fn last_layer(&self) -> Option<usize> {
        self.depths().max()
    }

    /// The layers of a Llama, as they are or were: the plain ones first.
    pub(super) fn llama_layers(&self) -> impl Iterator<Item = &PlainLayer> {
        let converted = self.converted_layers.iter().map(|layer| &layer.plain);
        self.plain_layers.iter().chain(converted)
    }

    /// How many layers there are.
    pub(super) fn count(&self) -> usize {
        self.layers.len() + self.plain_layers.len() + self.converted_layers.len()
    }
}

/// A prefix in a sentence.
pub(super) fn shown(prefix: &str) -> String {
    match prefix.strip_suffix('.') {
        Some(prefix) => prefix.to_owned(),
        None => "the layer".to_owned(),
    }
}

/// That a layer has other heads than the first.
pub(super) fn other_heads(prefix: &str, first: &str) -> String {
    format!("{} has other heads than {}", shown(prefix), shown(first))
}
