//! What the tests of the codec share: the reference case, and random models of other sizes.

use diffattn::{Data, Error, Isa, Run, Tensor};
use diffattn_files::Declare;
use diffattn_files::same_s::{CodecSizes, Direction};
use diffattn_nn::{SameS, SameSConfig, SameSOptions, WeightInfo, Weights};
use diffattn_reference::testing;
use safetensors::{Dtype, SafeTensors};
use std::collections::BTreeMap;
use std::path::Path;

pub(crate) use diffattn_reference::testing::{assert_near, bits, ok, values};

/// The code and sentence of what must fail.
pub(crate) fn refusal<T>(result: Result<T, Error>) -> (&'static str, String) {
    testing::refusal(result, |error| (error.code(), error.to_string()))
}

/// The standard deviation.
pub(crate) fn spread(values: &[f64]) -> f64 {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares = values.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>();
    (squares / count).sqrt()
}

pub(crate) fn on(isa: Isa, threads: usize, deterministic: bool) -> SameSOptions {
    SameSOptions {
        run: ok(Run::new(Some(isa), Some(threads), deterministic)),
    }
}

/// Elements of a tensor, owned.
#[derive(Clone, Debug)]
pub(crate) enum Elements {
    F32(Vec<f32>),
    Bf16(Vec<u16>),
    F64(Vec<f64>),
}

/// Tensors by name, owned.
pub(crate) type Stored = BTreeMap<String, (Vec<usize>, Elements)>;

pub(crate) fn borrowed(stored: &Stored) -> Weights<'_> {
    let mut weights = Weights::new();
    for (name, (shape, elements)) in stored {
        let data = match elements {
            Elements::F32(data) => Data::F32(data),
            Elements::Bf16(data) => Data::Bf16(data),
            Elements::F64(_) => panic!("{name} is of F64"),
        };
        let shape = shape.clone();
        weights.insert(name.clone(), Tensor { data, shape });
    }
    weights
}

pub(crate) fn entries(stored: &Stored) -> Vec<WeightInfo> {
    let weights = borrowed(stored);
    let weights = weights.iter();
    weights
        .map(|(name, tensor)| WeightInfo::of(name, tensor))
        .collect()
}

fn numbers<T, const N: usize>(bytes: &[u8], number: impl Fn([u8; N]) -> T) -> Vec<T> {
    let (values, rest) = bytes.as_chunks();
    assert!(rest.is_empty());
    values.iter().map(|&value| number(value)).collect()
}

fn read(file: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../test/models/same_s");
    let path = folder.join(file);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn tensors(file: &str) -> Stored {
    let bytes = read(file);
    let tensors = ok(SafeTensors::deserialize(&bytes));
    let stored = |(name, view): (&str, safetensors::tensor::TensorView<'_>)| {
        let data = view.data();
        let elements = match view.dtype() {
            Dtype::F32 => Elements::F32(numbers(data, f32::from_le_bytes)),
            Dtype::BF16 => Elements::Bf16(numbers(data, u16::from_le_bytes)),
            Dtype::F64 => Elements::F64(numbers(data, f64::from_le_bytes)),
            other => panic!("{name} of type {other:?}"),
        };
        (name.to_owned(), (view.shape().to_vec(), elements))
    };
    tensors.iter().map(stored).collect()
}

/// The reference case.
pub(crate) struct Case {
    pub(crate) config: String,
    pub(crate) stored: Stored,
    pub(crate) model: SameS,
    tensors: Stored,
}

impl Case {
    pub(crate) fn read() -> Self {
        let config = ok(String::from_utf8(read("config.json")));
        let stored = tensors("model.safetensors");
        let parsed = ok(SameSConfig::from_json(&config));
        Self {
            model: ok(SameS::new(&parsed, &borrowed(&stored))),
            config,
            stored,
            tensors: tensors("expected.safetensors"),
        }
    }

    pub(crate) fn input(&self, name: &str) -> Tensor<'_> {
        match &self.tensors[name] {
            (shape, Elements::F32(data)) => Tensor::f32(data, shape),
            _ => panic!("{name} is not of F32"),
        }
    }

    pub(crate) fn expected(&self, name: &str) -> &[f64] {
        match &self.tensors[&format!("expected.{name}")] {
            (_, Elements::F64(data)) => data,
            _ => panic!("{name} is not of F64"),
        }
    }
}

/// A small config whose sizes are no multiples of vectors.
pub(crate) fn small() -> SameSConfig {
    SameSConfig {
        dim: 24,
        dim_heads: 12,
        depth: 3,
        latent_dim: 5,
        stride: 2,
        chunk_size: 8,
        ff_inner: 37,
        rope_dims: 4,
        patch_size: 7,
        audio_channels: 3,
        sample_rate: 8000,
    }
}

/// Random weights of such a codec.
pub(crate) fn random(config: &SameSConfig) -> Stored {
    let sizes = CodecSizes {
        dim: config.dim,
        head_dim: config.dim_heads,
        inner: config.ff_inner,
        latent: config.latent_dim,
        channels: config.channels(),
    };
    let mut list = Declare::new();
    let _ = (sizes.decoder(&mut list), sizes.encoder(&mut list));
    for direction in Direction::ALL {
        for index in 0..config.depth {
            sizes.block(direction, index, &mut list);
        }
    }
    let made = list.tensors().enumerate().map(|(seed, tensor)| {
        let len = tensor.shape.iter().product();
        let inputs = *tensor.shape.get(1).unwrap_or(&1);
        let scale = (3.0 / inputs as f32).sqrt();
        let mut data = values(seed as u64, len, scale);
        if len == 1 {
            data.fill(0.9);
        }
        (tensor.name, (tensor.shape, Elements::F32(data)))
    });
    made.collect()
}
