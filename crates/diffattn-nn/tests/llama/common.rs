//! What the tests share: checkpoints, what is expected of them, comparisons.

use diffattn::{Data, Error, Tensor};
use diffattn_nn::{
    DiffLlama, DiffLlamaConfig, DiffLlamaLoader, DiffLlamaOptions, DiffLlamaOutput, ModelLoader,
    TokenIds, WeightInfo, Weights,
};
use diffattn_reference::testing;
use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub(crate) use diffattn_reference::testing::{bits, ok};

/// The small checkpoints with random weights.
pub(crate) const FIXTURES: [&str; 4] = [
    "diffllama_bias",
    "diffllama_gqa",
    "diffllama_llama3_rope",
    "diffllama_mha",
];

/// The same and a plain Llama, whose heads are one softmax each.
pub(crate) const ALL: [&str; 5] = [FIXTURES[0], FIXTURES[1], FIXTURES[2], FIXTURES[3], "llama"];

/// The code and sentence of what must fail.
pub(crate) fn refusal<T>(result: Result<T, Error>) -> (&'static str, String) {
    testing::refusal(result, |error| (error.code(), error.to_string()))
}

/// A tensor as it lies in a file.
#[derive(Debug, Clone)]
pub(crate) enum Stored {
    F32(Vec<f32>),
    F64(Vec<f64>),
    I64(Vec<i64>),
    F16(Vec<u16>),
    Bf16(Vec<u16>),
}

pub(crate) type Tensors = BTreeMap<String, (Vec<usize>, Stored)>;

pub(crate) fn read(path: &Path) -> Tensors {
    fn values<T, const N: usize>(bytes: &[u8], value: impl Fn([u8; N]) -> T) -> Vec<T> {
        let (chunks, rest) = bytes.as_chunks();
        assert!(rest.is_empty());
        chunks.iter().map(|&chunk| value(chunk)).collect()
    }
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let file = SafeTensors::deserialize(&bytes).unwrap_or_else(|e| panic!("{e}"));
    file.iter()
        .map(|(name, view)| {
            let data = view.data();
            let stored = match view.dtype() {
                Dtype::F32 => Stored::F32(values(data, f32::from_le_bytes)),
                Dtype::F64 => Stored::F64(values(data, f64::from_le_bytes)),
                Dtype::I64 => Stored::I64(values(data, i64::from_le_bytes)),
                Dtype::F16 => Stored::F16(values(data, u16::from_le_bytes)),
                Dtype::BF16 => Stored::Bf16(values(data, u16::from_le_bytes)),
                other => panic!("{name} of type {other:?}"),
            };
            (name.to_owned(), (view.shape().to_vec(), stored))
        })
        .collect()
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// A checkpoint folder and what is expected of it.
pub(crate) struct Checkpoint {
    pub(crate) name: String,
    pub(crate) folder: PathBuf,
    pub(crate) config: DiffLlamaConfig,
    pub(crate) tensors: Tensors,
    pub(crate) expected: Tensors,
}

impl Checkpoint {
    fn of(folder: &Path) -> Self {
        let text = |name: &str| text(&folder.join(name));
        let entries = text("config.json");
        let is_of = |family: &str| entries.contains(&format!("\"model_type\": \"{family}\""));
        let config = if is_of("llama") {
            ok(DiffLlamaConfig::from_llama_json(&entries))
        } else if is_of("diffattn_llama") {
            ok(DiffLlamaConfig::from_diffattn_llama_json(&entries))
        } else {
            let config = ok(DiffLlamaConfig::from_json(&entries));
            ok(config.with_generation_config(&text("generation_config.json")))
        };
        Self {
            name: folder.display().to_string(),
            folder: folder.to_owned(),
            config,
            tensors: read(&folder.join("model.safetensors")),
            expected: read(&folder.join("expected.safetensors")),
        }
    }

    pub(crate) fn fixture(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../test/models");
        Self::of(&folder.join(name))
    }

    /// The trained model that the examples use.
    pub(crate) fn trained() -> Self {
        Self::of(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/model"))
    }

    /// The text of one of its files.
    pub(crate) fn text(&self, name: &str) -> String {
        text(&self.folder.join(name))
    }

    pub(crate) fn weights(&self) -> Weights<'_> {
        fn data(stored: &Stored) -> Data<'_> {
            match stored {
                Stored::F32(data) => Data::F32(data),
                Stored::F16(data) => Data::F16(data),
                Stored::Bf16(data) => Data::Bf16(data),
                other => panic!("a weight of {other:?}"),
            }
        }
        self.tensors
            .iter()
            .map(|(name, (shape, stored))| {
                (
                    name.clone(),
                    Tensor {
                        data: data(stored),
                        shape: shape.clone(),
                    },
                )
            })
            .collect()
    }

    pub(crate) fn model(&self) -> DiffLlama {
        ok(DiffLlama::new(&self.config, &self.weights()))
    }

    pub(crate) fn ids(&self, name: &str) -> (Vec<usize>, Vec<u32>) {
        match self.expected.get(name) {
            Some((shape, Stored::I64(ids))) => {
                (shape.clone(), ids.iter().map(|&id| id as u32).collect())
            }
            other => panic!("{}: {name} is {other:?}", self.name),
        }
    }

    pub(crate) fn expected(&self, name: &str) -> &[f64] {
        match self.expected.get(name) {
            Some((_, Stored::F64(values))) => values,
            other => panic!("{}: {name} is {other:?}", self.name),
        }
    }

    /// A weight in float64.
    pub(crate) fn wide(&self, name: &str) -> Option<diffattn_reference::Tensor<f64>> {
        self.tensors.get(name).map(|(shape, stored)| {
            let data = match stored {
                Stored::F32(data) => data.iter().map(|&x| f64::from(x)).collect(),
                Stored::F16(data) => data.iter().map(|&x| f16::from_bits(x).to_f64()).collect(),
                Stored::Bf16(data) => data.iter().map(|&x| bf16::from_bits(x).to_f64()).collect(),
                Stored::F64(data) => data.clone(),
                other => panic!("a weight of {other:?}"),
            };
            diffattn_reference::Tensor::new(shape, data)
        })
    }
}

/// One forward pass without caches.
pub(crate) fn forward(
    model: &DiffLlama,
    ids: &[u32],
    shape: &[usize],
    options: &DiffLlamaOptions,
) -> DiffLlamaOutput {
    ok(model.forward(TokenIds::u32(ids, shape), None, options))
}

/// Logits of a few ids.
pub(crate) fn logits(checkpoint: &Checkpoint) -> Vec<f32> {
    let options = DiffLlamaOptions::default();
    forward(&checkpoint.model(), &[1, 2, 3], &[1, 3], &options).logits
}

/// What whoever loads the checkpoint is told.
pub(crate) fn notices(checkpoint: &Checkpoint) -> Vec<String> {
    let weights = checkpoint.weights();
    let entries: Vec<WeightInfo> = weights
        .iter()
        .map(|(name, tensor)| WeightInfo::of(name, tensor))
        .collect();
    ok(DiffLlamaLoader::new(&checkpoint.config, &entries))
        .notices()
        .to_vec()
}

/// Pseudo-random ids.
pub(crate) fn random_ids(seed: u64, len: usize, vocab: usize) -> Vec<u32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        ((state >> 33) % vocab as u64) as u32
    };
    std::iter::repeat_with(next).skip(4).take(len).collect()
}

/// The largest error in proportion to the standard deviation of what is expected.
pub(crate) fn error(expected: &[f64], got: &[f32]) -> f64 {
    assert_eq!(expected.len(), got.len());
    let mean = expected.iter().sum::<f64>() / expected.len() as f64;
    let variance = expected
        .iter()
        .map(|x| (x - mean) * (x - mean))
        .sum::<f64>();
    let spread = (variance / expected.len() as f64).sqrt();
    let worst = expected
        .iter()
        .zip(got)
        .fold(0.0f64, |worst, (expected, &got)| {
            let error = (expected - f64::from(got)).abs();
            if error.is_nan() {
                f64::INFINITY
            } else {
                worst.max(error)
            }
        });
    worst / spread
}
