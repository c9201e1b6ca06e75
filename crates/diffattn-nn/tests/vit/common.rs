//! What the tests of vision transformers share: the reference case, random models, and a plain
//! forward pass in float64.

use diffattn::{Error, Isa, Run, Tensor};
use diffattn_nn::{DiffViT, DiffViTArchitecture, DiffViTConfig, DiffViTOptions, Weights};
use diffattn_reference::{self as reference, testing};
use safetensors::{Dtype, SafeTensors};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

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

pub(crate) fn on(isa: Isa, threads: usize, deterministic: bool) -> DiffViTOptions {
    DiffViTOptions {
        run: Run::new(Some(isa), Some(threads), deterministic)
            .unwrap_or_else(|error| panic!("{error}")),
    }
}

/// Weights by name, owned.
pub(crate) type Stored = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

pub(crate) fn borrowed(stored: &Stored) -> Weights<'_> {
    stored
        .iter()
        .map(|(name, (shape, data))| (name.clone(), Tensor::f32(data, shape)))
        .collect()
}

fn model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../test/models/diff_vit")
}

/// A file of the reference case: float32 tensors, and the float64 ones apart.
pub(crate) fn case(file: &str) -> (Stored, BTreeMap<String, Vec<f64>>) {
    let path = model().join(file);
    let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let tensors = SafeTensors::deserialize(&bytes).unwrap_or_else(|error| panic!("{error}"));
    let (mut narrow, mut wide) = (Stored::new(), BTreeMap::new());
    for (name, view) in tensors.iter() {
        match view.dtype() {
            Dtype::F32 => {
                let (values, rest) = view.data().as_chunks();
                assert!(rest.is_empty());
                let values = values.iter().map(|&x| f32::from_le_bytes(x)).collect();
                narrow.insert(name.to_owned(), (view.shape().to_vec(), values));
            }
            Dtype::F64 => {
                let (values, rest) = view.data().as_chunks();
                assert!(rest.is_empty());
                let values = values.iter().map(|&x| f64::from_le_bytes(x)).collect();
                wide.insert(name.to_owned(), values);
            }
            other => panic!("{name} of type {other:?}"),
        }
    }
    (narrow, wide)
}

pub(crate) fn case_config() -> String {
    let path = model().join("config.json");
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Weights, images and logits of the reference case.
pub(crate) struct Case {
    pub(crate) stored: Stored,
    pub(crate) model: DiffViT,
    pub(crate) images: Vec<f32>,
    pub(crate) logits: Vec<f64>,
}

impl Case {
    pub(crate) fn read() -> Self {
        let (stored, _) = case("model.safetensors");
        let (mut images, mut expected) = case("expected.safetensors");
        let config = ok(DiffViTConfig::from_json(&case_config()));
        let model = ok(DiffViT::new(&config, &borrowed(&stored)));
        let (shape, images) = images.remove("image").unwrap_or_else(|| panic!("no image"));
        assert_eq!(shape, [2, 3, 64, 64]);
        let logits = expected
            .remove("expected.logits")
            .unwrap_or_else(|| panic!("no logits"));
        assert!(
            expected.is_empty(),
            "more is expected: {:?}",
            expected.keys()
        );
        Self {
            stored,
            model,
            images,
            logits,
        }
    }

    pub(crate) fn pixels(&self) -> Tensor<'_> {
        Tensor::f32(&self.images, &[2, 3, 64, 64])
    }
}

/// Sizes of a random model.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) architecture: DiffViTArchitecture,
    pub(crate) embed_dim: usize,
    pub(crate) heads: usize,
    pub(crate) hidden: usize,
    pub(crate) depth: usize,
    pub(crate) grid: usize,
    pub(crate) patch: usize,
    pub(crate) registers: usize,
    /// Channels of an image.
    pub(crate) channels: usize,
    /// 0: no head.
    pub(crate) classes: usize,
    /// Whether there are biases in the projections, and layer scales.
    pub(crate) biases: bool,
    pub(crate) scales: bool,
    /// λ of two numbers.
    pub(crate) scalars: bool,
}

impl Sizes {
    pub(crate) fn is_parallel(&self) -> bool {
        self.architecture == DiffViTArchitecture::ParallelWee
    }

    pub(crate) fn img_size(&self) -> usize {
        self.grid * self.patch
    }

    /// A small model of the architecture.
    pub(crate) fn small(architecture: DiffViTArchitecture) -> Self {
        let (embed_dim, heads, hidden) = match architecture {
            DiffViTArchitecture::Little => (60, 5, 336),
            _ => (48, 3, 240),
        };
        Self {
            architecture,
            embed_dim,
            heads,
            hidden,
            depth: 3,
            grid: 5,
            patch: 4,
            registers: 1,
            channels: 3,
            classes: 7,
            biases: true,
            scales: true,
            scalars: false,
        }
    }

    /// A model of timm's own sizes for the architecture.
    pub(crate) fn full(architecture: DiffViTArchitecture) -> Self {
        let (embed_dim, heads, hidden, depth) = match architecture {
            DiffViTArchitecture::Wee => (256, 4, 1280, 14),
            DiffViTArchitecture::Little => (320, 5, 1792, 14),
            DiffViTArchitecture::ParallelWee => (256, 4, 1280, 16),
        };
        Self {
            embed_dim,
            heads,
            hidden,
            depth,
            grid: 16,
            patch: 16,
            classes: 1000,
            ..Self::small(architecture)
        }
    }

    /// Random weights by timm's names.
    pub(crate) fn weights(&self) -> Stored {
        let &Self {
            embed_dim,
            hidden,
            depth,
            ..
        } = self;
        let mut stored = Stored::new();
        let mut seed = 1;
        let mut put = |name: String, shape: &[usize], scale: f32, offset: f32| {
            seed += 1;
            let mut data = values(seed, shape.iter().product(), scale);
            data.iter_mut().for_each(|x| *x += offset);
            stored.insert(name, (shape.to_vec(), data));
        };
        let fan = |inputs: usize| (3.0 / inputs as f32).sqrt();
        let patch = [embed_dim, self.channels, self.patch, self.patch];
        let inputs = self.channels * self.patch * self.patch;
        put("patch_embed.proj.weight".into(), &patch, fan(inputs), 0.0);
        put("patch_embed.proj.bias".into(), &[embed_dim], 0.2, 0.0);
        put(
            "pos_embed".into(),
            &[1, self.grid * self.grid, embed_dim],
            0.5,
            0.0,
        );
        if self.registers > 0 {
            put(
                "reg_token".into(),
                &[1, self.registers, embed_dim],
                1.0,
                0.0,
            );
        }
        for block in 0..depth {
            let at = |name: &str| format!("blocks.{block}.{name}");
            let head_width = embed_dim / self.heads;
            let mut linear = |name: &str, outputs: usize, inputs: usize| {
                put(
                    at(&format!("{name}.weight")),
                    &[outputs, inputs],
                    fan(inputs),
                    0.0,
                );
                if self.biases {
                    put(at(&format!("{name}.bias")), &[outputs], 0.3, 0.0);
                }
            };
            let (attention, norms, scales): (&str, &[&str], &[&str]) = if self.is_parallel() {
                linear("in_proj", hidden + 3 * embed_dim, embed_dim);
                linear("out_proj", embed_dim, embed_dim + hidden);
                ("", &["in_norm"], &["ls"])
            } else {
                linear("attn.qkv", 3 * embed_dim, embed_dim);
                linear("attn.proj", embed_dim, embed_dim);
                linear("mlp.fc1", hidden, embed_dim);
                linear("mlp.fc2", embed_dim, hidden);
                ("attn.", &["norm1", "norm2"], &["ls1", "ls2"])
            };
            if self.is_parallel() && !self.biases {
                put(at("mlp_bias"), &[hidden], 0.3, 0.0);
            }
            for norm in norms {
                put(at(&format!("{norm}.weight")), &[embed_dim], 0.3, 1.0);
                put(at(&format!("{norm}.bias")), &[embed_dim], 0.3, 0.0);
            }
            if self.scales {
                for scale in scales {
                    put(at(&format!("{scale}.gamma")), &[embed_dim], 0.3, 0.6);
                }
            }
            put(
                at(&format!("{attention}sub_norm.weight")),
                &[head_width],
                0.3,
                1.0,
            );
            if self.scalars {
                for name in ["lambda_a", "lambda_b"] {
                    put(at(&format!("{attention}{name}")), &[], 0.3, 0.0);
                }
            } else {
                for name in ["lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2"] {
                    put(
                        at(&format!("{attention}{name}")),
                        &[head_width / 2],
                        0.3,
                        0.0,
                    );
                }
            }
        }
        put("fc_norm.weight".into(), &[embed_dim], 0.3, 1.0);
        put("fc_norm.bias".into(), &[embed_dim], 0.3, 0.0);
        if self.classes > 0 {
            put(
                "head.weight".into(),
                &[self.classes, embed_dim],
                fan(embed_dim),
                0.0,
            );
            put("head.bias".into(), &[self.classes], 0.3, 0.0);
        }
        stored
    }

    pub(crate) fn images(&self, batch: usize) -> (Vec<usize>, Vec<f32>) {
        let size = self.img_size();
        self.pixels(&[batch, self.channels, size, size])
    }

    /// Pixels of a shape.
    pub(crate) fn pixels(&self, shape: &[usize]) -> (Vec<usize>, Vec<f32>) {
        (shape.to_vec(), values(99, shape.iter().product(), 1.0))
    }
}

/// What a float64 forward pass gives.
pub(crate) struct Passed {
    /// Features where there is no head.
    pub(crate) logits: Vec<f64>,
    /// Of each block.
    pub(crate) maps: Vec<reference::AttentionMaps<f64>>,
}

type Wide = reference::Tensor<f64>;

fn layer_norm(x: &Wide, weight: &Wide, bias: &Wide) -> Wide {
    let width = weight.data.len();
    let mut data = Vec::with_capacity(x.data.len());
    for row in x.data.chunks(width) {
        let mean = row.iter().sum::<f64>() / width as f64;
        let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / width as f64;
        data.extend(
            row.iter()
                .zip(&weight.data)
                .zip(&bias.data)
                .map(|((x, weight), bias)| (x - mean) / (variance + 1e-6).sqrt() * weight + bias),
        );
    }
    Wide::new(&x.shape, data)
}

fn gelu(x: f64) -> f64 {
    0.5 * x * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2)
}

/// The model by its definition, plain loops, on the fused weights as they are stored.
pub(crate) fn forward(
    stored: &Stored,
    is_parallel: bool,
    heads: usize,
    (shape, images): (&[usize], &[f32]),
) -> Passed {
    let get = |name: &str| {
        stored
            .get(name)
            .map(|(shape, data)| Wide::from_f32(shape, data))
    };
    let need = |name: &str| get(name).unwrap_or_else(|| panic!("no {name}"));
    let kernel = need("patch_embed.proj.weight");
    let &[embed_dim, colours, patch, _] = kernel.shape.as_slice() else {
        panic!("the kernel has 4 axes")
    };
    let &[batch, _, height, width] = shape else {
        panic!("pixels have 4 axes")
    };
    let (rows, columns) = (height / patch, width / patch);
    let positions = need("pos_embed");
    let bias = need("patch_embed.proj.bias");
    let registers = get("reg_token");
    let prefix = registers.as_ref().map_or(0, |registers| registers.shape[1]);
    let tokens = prefix + rows * columns;
    let mut x = Vec::new();
    for image in images.chunks(colours * height * width).take(batch) {
        if let Some(registers) = &registers {
            x.extend_from_slice(&registers.data);
        }
        for (row, column) in (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column)))
        {
            for channel in 0..embed_dim {
                let mut sum = bias.data[channel];
                for colour in 0..colours {
                    for y in 0..patch {
                        for x in 0..patch {
                            let line = colour * height + row * patch + y;
                            let pixel = image[line * width + column * patch + x];
                            let at = ((channel * colours + colour) * patch + y) * patch + x;
                            sum += f64::from(pixel) * kernel.data[at];
                        }
                    }
                }
                x.push(sum + positions.data[(row * columns + column) * embed_dim + channel]);
            }
        }
    }
    let mut x = Wide::new(&[batch, tokens, embed_dim], x);
    let mut maps = Vec::new();
    for block in 0.. {
        let at = |name: &str| format!("blocks.{block}.{name}");
        let (norm, prefix) = if is_parallel {
            ("in_norm", "")
        } else {
            ("norm1", "attn.")
        };
        let Some(weight) = get(&at(&format!("{norm}.weight"))) else {
            break;
        };
        let normed = layer_norm(&x, &weight, &need(&at(&format!("{norm}.bias"))));
        // The fused projections, taken apart by rows and columns.
        let rows = |weight: &Wide, first: usize, count: usize| {
            let width: usize = weight.shape[1..].iter().product();
            let mut shape = weight.shape.clone();
            shape[0] = count;
            Wide::new(
                &shape,
                weight.data[first * width..(first + count) * width].to_vec(),
            )
        };
        let columns = |weight: &Wide, first: usize, count: usize| {
            let width = weight.shape[1];
            let cut = weight
                .data
                .chunks(width)
                .flat_map(|row| row[first..first + count].to_vec());
            Wide::new(&[weight.shape[0], count], cut.collect())
        };
        let (into, out, first, width) = if is_parallel {
            let into = need(&at("in_proj.weight"));
            let hidden = into.shape[0] - 3 * embed_dim;
            ("in_proj", "out_proj", hidden, hidden)
        } else {
            (
                "attn.qkv",
                "attn.proj",
                0,
                need(&at("mlp.fc1.weight")).shape[0],
            )
        };
        let into_weight = need(&at(&format!("{into}.weight")));
        let into_bias = get(&at(&format!("{into}.bias")));
        let out_weight = need(&at(&format!("{out}.weight")));
        let mut weights = BTreeMap::new();
        for (index, name) in ["q_proj", "k_proj", "v_proj"].into_iter().enumerate() {
            let first = first + index * embed_dim;
            weights.insert(
                format!("{name}.weight"),
                rows(&into_weight, first, embed_dim),
            );
            if let Some(bias) = &into_bias {
                weights.insert(format!("{name}.bias"), rows(bias, first, embed_dim));
            }
        }
        weights.insert(
            "out_proj.weight".to_owned(),
            columns(&out_weight, 0, embed_dim),
        );
        if let Some(bias) = get(&at(&format!("{out}.bias"))) {
            weights.insert("out_proj.bias".to_owned(), bias);
        }
        for name in [
            "lambda_q1",
            "lambda_k1",
            "lambda_q2",
            "lambda_k2",
            "lambda_a",
            "lambda_b",
        ] {
            if let Some(value) = get(&at(&format!("{prefix}{name}"))) {
                weights.insert(name.to_owned(), value);
            }
        }
        weights.insert(
            "subln.weight".to_owned(),
            need(&at(&format!("{prefix}sub_norm.weight"))),
        );
        let is_scalars = weights.contains_key("lambda_a");
        let attention = reference::MultiheadDiffAttn {
            causal: false,
            lambda_form: if is_scalars {
                reference::LambdaForm::Scalars
            } else {
                reference::LambdaForm::Vectors
            },
            ..reference::MultiheadDiffAttn::new(block, embed_dim / heads / 2, weights)
        };
        let attended = attention.forward(&normed, None, 0);
        maps.push(attention.maps(&normed, None, 0));
        let mlp = |x: &Wide| {
            let (weight, bias, out, out_bias) = if is_parallel {
                let bias = match &into_bias {
                    Some(bias) => rows(bias, 0, width),
                    None => need(&at("mlp_bias")),
                };
                let out = columns(&out_weight, embed_dim, width);
                (rows(&into_weight, 0, width), Some(bias), out, None)
            } else {
                (
                    need(&at("mlp.fc1.weight")),
                    get(&at("mlp.fc1.bias")),
                    need(&at("mlp.fc2.weight")),
                    get(&at("mlp.fc2.bias")),
                )
            };
            let mut inner = reference::linear(x, &weight, bias.as_ref());
            inner.data.iter_mut().for_each(|x| *x = gelu(*x));
            reference::linear(&inner, &out, out_bias.as_ref())
        };
        let scaled_add = |x: &mut Wide, y: &Wide, scale: &str| {
            let scale = get(&at(scale));
            for (index, (x, y)) in x.data.iter_mut().zip(&y.data).enumerate() {
                *x += y * scale
                    .as_ref()
                    .map_or(1.0, |scale| scale.data[index % embed_dim]);
            }
        };
        if is_parallel {
            let inner = mlp(&normed);
            scaled_add(&mut x, &attended, "ls.gamma");
            scaled_add(&mut x, &inner, "ls.gamma");
        } else {
            scaled_add(&mut x, &attended, "ls1.gamma");
            let normed = layer_norm(&x, &need(&at("norm2.weight")), &need(&at("norm2.bias")));
            scaled_add(&mut x, &mlp(&normed), "ls2.gamma");
        }
    }
    let mut pooled = Vec::new();
    for image in x.data.chunks(tokens * embed_dim) {
        for channel in 0..embed_dim {
            let patches = image
                .chunks(embed_dim)
                .skip(prefix)
                .map(|token| token[channel]);
            pooled.push(patches.sum::<f64>() / (tokens - prefix) as f64);
        }
    }
    let pooled = Wide::new(&[batch, embed_dim], pooled);
    let normed = layer_norm(&pooled, &need("fc_norm.weight"), &need("fc_norm.bias"));
    let logits = match get("head.weight") {
        Some(head) => reference::linear(&normed, &head, get("head.bias").as_ref()).data,
        None => normed.data,
    };
    Passed { logits, maps }
}
