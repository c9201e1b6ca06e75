//! What a checkpoint may be. Reads none.

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
    /// Motif: grouped differential attention and PolyNorm.
    Motif,
    /// diff-mlx: the first version as its authors have it, in a language model.
    DiffMlx,
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
            Self::Motif => "Motif",
            Self::DiffMlx => "diff-mlx",
            Self::Phi4Flash => "Phi-4-mini-flash (SambaY)",
            Self::UnilmV1 => "unilm multihead_diffattn (V1)",
            Self::UnilmV2 => "unilm multihead_diffattn (V2)",
            Self::TimmDiffVit => "timm vision transformer with differential attention",
            Self::SameS => "Stable Audio 3 SAME-S, an audio codec with differential attention",
        })
    }
}

impl Architecture {
    /// Whether it is a language model, which may be saved without its head.
    pub(super) fn is_text(self) -> bool {
        match self {
            Self::DiffLlama
            | Self::Llama
            | Self::DiffAttnLlama
            | Self::Motif
            | Self::DiffMlx
            | Self::Phi4Flash => true,
            Self::UnilmV1 | Self::UnilmV2 | Self::TimmDiffVit | Self::SameS => false,
        }
    }

    /// Its name in an inspection, of a model of Hugging Face's its `model_type`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::DiffLlama => "diffllama",
            Self::Llama => "llama",
            Self::DiffAttnLlama => "diffattn_llama",
            Self::Motif => "motif",
            Self::DiffMlx => "diff_mlx",
            Self::Phi4Flash => "phi4flash",
            Self::UnilmV1 => "unilm",
            Self::UnilmV2 => "unilm_v2",
            Self::TimmDiffVit => "diff_vit",
            Self::SameS => "same_s",
        }
    }

    /// What `model_type` of its configurations is, where they have one.
    #[must_use]
    pub fn model_type(self) -> Option<&'static str> {
        let is_of_hugging_face = matches!(
            self,
            Self::DiffLlama | Self::Llama | Self::DiffAttnLlama | Self::Motif | Self::Phi4Flash
        );
        is_of_hugging_face.then_some(self.name())
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
            Self::Motif,
            Self::Phi4Flash,
        ];
        let model = models
            .into_iter()
            .find(|model| text("model_type") == model.model_type());
        // (Motif's own files have both spellings.)
        let model = model.or((text("model_type") == Some("Motif")).then_some(Self::Motif));
        let is_vit = text("architecture").is_some_and(is_vit);
        let sizes = config.get("model").and_then(Value::as_object);
        let is_mlx = sizes.is_some_and(|sizes| sizes.contains_key("n_heads_vanilla"));
        let is_codec = text("architecture") == Some(Self::SameS.name());
        model
            .or(is_vit.then_some(Self::TimmDiffVit))
            .or(is_codec.then_some(Self::SameS))
            .or(is_mlx.then_some(Self::DiffMlx))
    }
}
