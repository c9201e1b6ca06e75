//! A model that knows nothing yet: random weights as Hugging Face's classes begin with. Reads no
//! file.

use super::start::{FreshTensor, Start};
use super::vision::{DiffViTStart, vision_weights};
use crate::models::diff_llama::{DiffLlama, DiffLlamaConfig, decoder_sizes};
use crate::models::diff_vit::{DiffViT, DiffViTArchitecture, DiffViTConfig};
use crate::models::tables::listed;
use crate::weights::Weights;
use diffattn::{Error, Tensor, checked_len, try_zeroed};
use diffattn_files::{Declare, Kind, Need};
use serde_json::Value;

/// The spread of maps and embeddings (`initializer_range`).
const SPREAD: f64 = 0.02;

/// The weights of a model that knows nothing yet: maps and embeddings normal with a spread of 0.02,
/// λ's vectors of [`DiffLlamaConfig::lambda_std_dev`], norms 1, PolyNorm's factors 1/3, biases and
/// what DEX adds 0, as `transformers`, Motif and DEX begin.
#[derive(Debug, Clone, PartialEq)]
pub struct FreshWeights(Vec<FreshTensor>);

impl FreshWeights {
    /// Of a configuration.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](diffattn::ErrorKind::Shape) naming a weight of too many elements.
    pub fn new(config: &DiffLlamaConfig) -> Result<Self, Error> {
        let sizes = decoder_sizes(config, config.tie_word_embeddings);
        let mut made = Vec::new();
        let mut add = |list: &Declare| random(list, config, &mut made);
        add(&listed(|d| sizes.embeddings(d)).0)?;
        if !config.tie_word_embeddings {
            add(&listed(|d| sizes.head(d)).0)?;
        }
        for index in 0..config.num_hidden_layers {
            let sizes = sizes.with_differential(config.differential_heads(index));
            add(&listed(|d| sizes.layer(index, d)).0)?;
        }
        add(&listed(|d| sizes.norm(d)).0)?;
        Ok(Self(made))
    }

    /// Of the text of a `config.json`: a DIFF Llama's, a plain Llama's, that of one whose heads are
    /// differential (`diffattn_llama`), or a DIFF vision transformer's.
    ///
    /// # Errors
    /// [`ErrorKind::File`](diffattn::ErrorKind::File) naming the key, as `config.KEY`.
    pub fn of_config(text: &str) -> Result<Self, Error> {
        if is_vision(text) {
            let start = DiffViTStart::from_json(text)?;
            return Self::of_vision(&DiffViTConfig::from_json(text)?, &start);
        }
        Self::new(&DiffLlamaConfig::of_config(text)?)
    }

    /// Names and shapes.
    #[must_use]
    pub fn tensors(&self) -> &[FreshTensor] {
        &self.0
    }

    /// Writes the values of a weight, by its place in the list: the same for the same `seed` and
    /// name.
    pub fn fill(&self, index: usize, seed: u64, values: &mut [f32]) {
        let Some(of) = self.0.get(index) else {
            return;
        };
        of.fill(seed, values);
    }

    /// Of a vision transformer, as timm begins: maps, positions and λ's vectors normal with a
    /// spread of 0.02, 0.02 and 0.1, registers of 10⁻⁶, the map of patches uniform within
    /// 1/√inputs as PyTorch's convolutions are, norms 1, biases and λ's numbers 0. Sizes that the
    /// configuration leaves out are those that timm has for the architecture.
    ///
    /// # Errors
    /// [`ErrorKind::File`](diffattn::ErrorKind::File) naming a size that does not fit the others,
    /// as `config.KEY`; [`ErrorKind::Shape`](diffattn::ErrorKind::Shape) naming a weight of too
    /// many elements.
    pub fn of_vision(config: &DiffViTConfig, start: &DiffViTStart) -> Result<Self, Error> {
        vision_weights(config, start).map(Self)
    }

    /// All of them as tensors.
    fn values(&self, seed: u64) -> Result<Vec<Vec<f32>>, Error> {
        let of = |of: &FreshTensor| {
            let mut values = try_zeroed(checked_len(&of.name, &of.shape)?)?;
            of.fill(seed, &mut values);
            Ok(values)
        };
        self.0.iter().map(of).collect()
    }

    fn weights<'w>(&'w self, values: &'w [Vec<f32>]) -> Weights<'w> {
        let mut weights = Weights::new();
        for (of, values) in self.0.iter().zip(values) {
            weights.insert(of.name.clone(), Tensor::f32(values, &of.shape));
        }
        weights
    }
}

/// Whether the text is that of a vision transformer's `config.json`.
fn is_vision(text: &str) -> bool {
    let config = serde_json::from_str::<Value>(text).unwrap_or_default();
    let names = DiffViTArchitecture::ALL.map(DiffViTArchitecture::name);
    let name = config.get("architecture").and_then(Value::as_str);
    name.is_some_and(|name| names.contains(&name))
}

impl DiffLlama {
    /// A model of [`FreshWeights`]. The same `seed` gives the same weights, each by its name.
    ///
    /// # Errors
    /// As [`DiffLlama::new`].
    pub fn fresh(config: &DiffLlamaConfig, seed: u64) -> Result<Self, Error> {
        let fresh = FreshWeights::new(config)?;
        Self::new(config, &fresh.weights(&fresh.values(seed)?))
    }
}

impl DiffViT {
    /// A model of [`FreshWeights::of_vision`]. The same `seed` gives the same weights, each by its
    /// name.
    ///
    /// # Errors
    /// As [`FreshWeights::of_vision`] and [`DiffViT::new`].
    pub fn fresh(config: &DiffViTConfig, start: &DiffViTStart, seed: u64) -> Result<Self, Error> {
        let fresh = FreshWeights::of_vision(config, start)?;
        Self::new(config, &fresh.weights(&fresh.values(seed)?))
    }
}

/// What a list requires.
fn random(
    list: &Declare,
    config: &DiffLlamaConfig,
    made: &mut Vec<FreshTensor>,
) -> Result<(), Error> {
    for weight in list.weights() {
        let is_map = matches!(weight.kind, Kind::Linear { .. });
        for tensor in weight.tensors() {
            if tensor.need != Need::Required {
                continue;
            }
            checked_len(&tensor.name, &tensor.shape)?;
            let name = tensor.name.as_str();
            let start = if name.contains(".dex.") {
                Start::Constant(0.0)
            } else if name.ends_with("act_fn.weight") {
                Start::Constant(1.0 / 3.0)
            } else if name.contains("lambda_") && !is_map {
                Start::Normal(config.lambda_std_dev)
            } else if name.contains("norm") || name.contains("subln") {
                Start::Constant(1.0)
            } else if name.ends_with(".bias") {
                Start::Constant(0.0)
            } else {
                Start::Normal(SPREAD)
            };
            made.push(FreshTensor {
                name: tensor.name,
                shape: tensor.shape,
                start,
            });
        }
    }
    Ok(())
}
