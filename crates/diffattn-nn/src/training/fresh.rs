//! A model that knows nothing yet: random weights as Hugging Face's classes begin with. Reads no
//! file.

use crate::models::diff_llama::{DiffLlama, DiffLlamaConfig, decoder_sizes};
use crate::models::tables::listed;
use crate::weights::Weights;
use diffattn::{Error, Tensor, checked_len, try_zeroed};
use diffattn_files::{Declare, Kind, Need};
use rand_pcg::Pcg64;
use rand_pcg::rand_core::{Rng, SeedableRng};

/// The spread of maps and embeddings (`initializer_range`).
const SPREAD: f64 = 0.02;

/// A weight of a model that knows nothing yet.
#[derive(Debug, Clone, PartialEq)]
pub struct FreshTensor {
    /// Its name in a checkpoint.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    start: Start,
}

/// What a weight begins with.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Start {
    /// Normal values of that spread.
    Normal(f64),
    One,
    Zero,
}

/// The weights of a model that knows nothing yet: maps and embeddings normal with a spread of 0.02,
/// λ's vectors of [`DiffLlamaConfig::lambda_std_dev`], norms 1, biases 0, as `transformers` begins.
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

    /// Of the text of a `config.json`: a DIFF Llama's, a plain Llama's, or that of one whose heads
    /// are differential (`diffattn_llama`).
    ///
    /// # Errors
    /// [`ErrorKind::File`](diffattn::ErrorKind::File) naming the key, as `config.KEY`.
    pub fn of_config(text: &str) -> Result<Self, Error> {
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
        match of.start {
            Start::Normal(spread) => fill(values, spread, seed, &of.name),
            Start::One => values.fill(1.0),
            Start::Zero => values.fill(0.0),
        }
    }
}

impl DiffLlama {
    /// A model of [`FreshWeights`]. The same `seed` gives the same weights, each by its name.
    ///
    /// # Errors
    /// As [`DiffLlama::new`].
    pub fn fresh(config: &DiffLlamaConfig, seed: u64) -> Result<Self, Error> {
        let fresh = FreshWeights::new(config)?;
        let mut made = Vec::new();
        for (index, of) in fresh.tensors().iter().enumerate() {
            let mut values = try_zeroed(checked_len(&of.name, &of.shape)?)?;
            fresh.fill(index, seed, &mut values);
            made.push(values);
        }
        let mut weights = Weights::new();
        for (of, values) in fresh.tensors().iter().zip(&made) {
            weights.insert(of.name.clone(), Tensor::f32(values, &of.shape));
        }
        Self::new(config, &weights)
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
            let start = if name.contains("lambda_") && !is_map {
                Start::Normal(config.lambda_std_dev)
            } else if name.contains("norm") || name.contains("subln") {
                Start::One
            } else if name.ends_with(".bias") {
                Start::Zero
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

/// Normal values, by Box and Muller's transform of pairs of uniform ones.
fn fill(values: &mut [f32], spread: f64, seed: u64, name: &str) {
    let mut random = Pcg64::seed_from_u64(seed ^ hash(name));
    let mut uniform = || ((random.next_u64() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    for pair in values.chunks_mut(2) {
        let (radius, angle) = (
            (-2.0 * libm::log(uniform())).sqrt() * spread,
            std::f64::consts::TAU * uniform(),
        );
        for (value, turn) in pair.iter_mut().zip([libm::cos(angle), libm::sin(angle)]) {
            *value = (radius * turn) as f32;
        }
    }
}

/// FNV-1a of a name: what makes random values of one weight differ from those of another.
pub(super) fn hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
