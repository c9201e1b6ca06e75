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

/// Named values with their shapes.
type Made = Vec<(String, Vec<usize>, Vec<f32>)>;

impl DiffLlama {
    /// A model of random weights: maps and embeddings normal with a spread of 0.02, λ's vectors of
    /// [`DiffLlamaConfig::lambda_std_dev`], norms 1, biases 0, as `transformers` begins. The same
    /// `seed` gives the same weights, each by its name.
    ///
    /// # Errors
    /// As [`DiffLlama::new`].
    pub fn fresh(config: &DiffLlamaConfig, seed: u64) -> Result<Self, Error> {
        let sizes = decoder_sizes(config, config.tie_word_embeddings);
        let mut made = Made::new();
        let mut add = |list: &Declare| random(list, config, seed, &mut made);
        add(&listed(|d| sizes.embeddings(d)).0)?;
        if !config.tie_word_embeddings {
            add(&listed(|d| sizes.head(d)).0)?;
        }
        for index in 0..config.num_hidden_layers {
            let sizes = sizes.with_differential(config.differential_heads(index));
            add(&listed(|d| sizes.layer(index, d)).0)?;
        }
        add(&listed(|d| sizes.norm(d)).0)?;
        let mut weights = Weights::new();
        for (name, shape, values) in &made {
            weights.insert(name.clone(), Tensor::f32(values, shape));
        }
        Self::new(config, &weights)
    }
}

/// Random values of what a list requires.
fn random(
    list: &Declare,
    config: &DiffLlamaConfig,
    seed: u64,
    made: &mut Made,
) -> Result<(), Error> {
    for weight in list.weights() {
        let is_map = matches!(weight.kind, Kind::Linear { .. });
        for tensor in weight.tensors() {
            if tensor.need != Need::Required {
                continue;
            }
            let mut values = try_zeroed(checked_len(&tensor.name, &tensor.shape)?)?;
            let name = tensor.name.as_str();
            if name.contains("lambda_") && !is_map {
                fill(&mut values, config.lambda_std_dev, seed, name);
            } else if name.contains("norm") || name.contains("subln") {
                values.fill(1.0);
            } else if !name.ends_with(".bias") {
                fill(&mut values, SPREAD, seed, name);
            }
            made.push((tensor.name, tensor.shape, values));
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
