//! A Llama, differential or plain, a Motif or a model of diff-mlx in float64, of the oracle's
//! layers: for what the sources' cases leave out, which are windows, maps and the other scalings of
//! the rotary embedding.

use crate::common::{Checkpoint, error, forward, ok, random_ids, refusal};
use diffattn::{RopeScaling as Scaling, RopeType};
use diffattn_nn::{
    DecoderAttention, DiffLlamaOptions, DifferentialHeads, Generation, Generator, GeneratorOptions,
    HiddenAct, TokenIds,
};
use diffattn_reference::{
    AttentionMaps, MultiheadAttn, MultiheadDiffAttn, MultiheadDiffAttnV2, Norm, Pairing, PolyNorm,
    Rope, RopeScaling, Tensor, linear, poly_norm, quantise_int8, rms_norm, sigmoid,
};
use std::collections::BTreeMap;

/// The model in float64.
pub(crate) struct Reference<'c> {
    pub(crate) checkpoint: &'c Checkpoint,
    pub(crate) scaling: RopeScaling,
    /// Whether linear maps of whole blocks of 32 meet x as int8, as quantised weights do.
    pub(crate) int8: bool,
}

/// What it gives of one text.
pub(crate) struct Expected {
    pub(crate) logits: Vec<f64>,
    /// The embeddings, then what each layer gives, the last one's after the final norm.
    pub(crate) hidden_states: Vec<Vec<f64>>,
    /// Of every layer.
    pub(crate) maps: Vec<AttentionMaps<f64>>,
}

/// The attention of a layer.
enum Attention {
    Differential(MultiheadDiffAttn),
    Plain(MultiheadAttn),
    Mixed(MultiheadDiffAttnV2),
}

impl Attention {
    fn forward(&self, x: &Tensor<f64>, mask: Option<&Tensor<bool>>) -> Tensor<f64> {
        match self {
            Self::Differential(layer) => layer.forward(x, mask, 0),
            Self::Plain(layer) => layer.forward(x, mask, 0),
            Self::Mixed(layer) => layer.forward(x, mask, 0),
        }
    }

    fn maps(&self, x: &Tensor<f64>, mask: Option<&Tensor<bool>>) -> AttentionMaps<f64> {
        match self {
            Self::Differential(layer) => layer.maps(x, mask, 0),
            Self::Plain(layer) => layer.maps(x, mask, 0),
            Self::Mixed(layer) => layer.maps(x, mask, 0),
        }
    }
}

/// What diff-mlx calls parts of Hugging Face's names.
const DIFF_MLX: [(&str, &str); 9] = [
    ("embed_tokens", "tok_embed"),
    (".layers.", ".blocks."),
    ("self_attn", "attn"),
    ("post_attention_layernorm.weight", "norm_mlp.scale"),
    ("input_layernorm.weight", "norm_attn.scale"),
    ("gate_proj", "gate"),
    ("up_proj", "up"),
    ("down_proj", "down"),
    ("model.norm.weight", "model.final_norm.scale"),
];

impl Reference<'_> {
    /// A weight's name in the checkpoint.
    fn stored(&self, name: &str) -> String {
        match self.checkpoint.config.kind {
            DecoderAttention::Interleaved => DIFF_MLX
                .iter()
                .fold(name.to_owned(), |name, (from, to)| name.replace(from, to)),
            _ => name.to_owned(),
        }
    }

    fn weight(&self, name: &str) -> Tensor<f64> {
        let name = self.stored(name);
        let weight = self.checkpoint.wide(&name);
        weight.unwrap_or_else(|| panic!("no weight {name}"))
    }

    fn norm(&self, name: &str, x: &Tensor<f64>) -> Tensor<f64> {
        let norm = Norm {
            eps: self.checkpoint.config.rms_norm_eps,
            weight: Some(self.weight(name).data),
            scale: 1.0,
        };
        rms_norm(x, &norm)
    }

    fn attention(&self, layer: usize) -> Attention {
        let config = &self.checkpoint.config;
        let prefix = self.stored(&format!("model.layers.{layer}.self_attn."));
        let names = self.checkpoint.tensors.keys();
        let mut weights = names
            .filter_map(|name| {
                let of_layer = name.strip_prefix(&prefix)?.replace(".scale", ".weight");
                Some((of_layer, self.checkpoint.wide(name)?))
            })
            .collect::<BTreeMap<String, Tensor<f64>>>();
        if self.int8 {
            // (Its rows are met as int8 outside.)
            let out = weights
                .get_mut("o_proj.weight")
                .unwrap_or_else(|| panic!("no o_proj"));
            let width = out.shape[1];
            let diagonal = (0..width * width).map(|at| f64::from(at / width == at % width));
            *out = Tensor::new(&[width, width], diagonal.collect());
        }
        let rope = Some(Rope {
            interleaved: config.kind == DecoderAttention::Interleaved,
            theta: config.rope.theta.unwrap_or(f64::NAN),
            rotary_dim: None,
            scaling: self.scaling.clone(),
        });
        match config.kind {
            DecoderAttention::Differential => Attention::Differential(MultiheadDiffAttn {
                value_dim: config.head_dim,
                rope,
                pairing: Pairing::Halves,
                norm_eps: config.rms_norm_eps,
                ..MultiheadDiffAttn::new(layer, config.head_dim, weights)
            }),
            DecoderAttention::Grouped => Attention::Differential(MultiheadDiffAttn {
                lambda_init: Some(0.8 - 0.6 * (-0.3 * (layer as f64 - 1.0)).exp()),
                rope,
                pairing: Pairing::Grouped {
                    ratio: config.num_heads() / config.num_noise_heads,
                },
                norm_eps: config.attn_rms_norm_eps,
                ..MultiheadDiffAttn::new(layer, config.head_dim, weights)
            }),
            DecoderAttention::Interleaved => Attention::Differential(MultiheadDiffAttn {
                rope,
                norm_eps: config.rms_norm_eps,
                ..MultiheadDiffAttn::new(layer, config.head_dim, weights)
            }),
            DecoderAttention::Plain => Attention::Plain(MultiheadAttn {
                rope,
                ..MultiheadAttn::new(config.head_dim, weights)
            }),
            DecoderAttention::Converted(_) => {
                let conversion = config.conversion.as_ref();
                let Some(DifferentialHeads::Listed(heads)) = conversion.map(|one| &one.heads)
                else {
                    panic!("no oracle of {conversion:?}")
                };
                Attention::Mixed(MultiheadDiffAttnV2 {
                    rope,
                    differential: Some(heads[layer].clone()),
                    ..MultiheadDiffAttnV2::new(config.head_dim, weights)
                })
            }
        }
    }

    /// The function of a layer's MLP, with its weights where it has any.
    fn act(&self, name: &str, x: &Tensor<f64>) -> Tensor<f64> {
        let act: fn(f64) -> f64 = match self.checkpoint.config.hidden_act {
            HiddenAct::Silu => |x| x * sigmoid(x),
            HiddenAct::Gelu => |x| 0.5 * x * libm::erfc(-x / 2f64.sqrt()),
            HiddenAct::GeluTanh => |x| {
                let slope = (2.0 / std::f64::consts::PI).sqrt();
                0.5 * x * (1.0 + libm::tanh(slope * (x + 0.044_715 * x.powi(3))))
            },
            HiddenAct::PolyNorm => {
                let weight = self.weight(&format!("{name}.weight")).data;
                let norm = PolyNorm {
                    weight: [weight[0], weight[1], weight[2]],
                    bias: self.weight(&format!("{name}.bias")).data[0],
                    eps: 1e-6,
                };
                return poly_norm(x, &norm);
            }
        };
        Tensor::new(&x.shape, x.data.iter().map(|&x| act(x)).collect())
    }

    /// A map of a layer's MLP, with its bias where there is one.
    fn map(&self, name: &str, x: &Tensor<f64>) -> Tensor<f64> {
        let bias = self.checkpoint.wide(&self.stored(&format!("{name}.bias")));
        let x = self.met(x, self.weight(&format!("{name}.weight")).shape[1]);
        linear(&x, &self.weight(&format!("{name}.weight")), bias.as_ref())
    }

    /// Rows as a linear map of so many inputs meets them.
    fn met(&self, x: &Tensor<f64>, inputs: usize) -> Tensor<f64> {
        if !self.int8 || !inputs.is_multiple_of(32) {
            return x.clone();
        }
        let narrow: Vec<f32> = x.data.iter().map(|&x| x as f32).collect();
        Tensor::new(&x.shape, quantise_int8(&narrow).values())
    }

    /// What attention adds to rows.
    fn attended(&self, layer: usize, x: &Tensor<f64>, mask: Option<&Tensor<bool>>) -> Tensor<f64> {
        let attention = self.attention(layer);
        if !self.int8 {
            return attention.forward(x, mask);
        }
        let x = self.met(x, self.checkpoint.config.hidden_size);
        let name = format!("model.layers.{layer}.self_attn.o_proj");
        self.map(&name, &attention.forward(&x, mask))
    }

    /// Logits, hidden states and maps of one text.
    pub(crate) fn forward(&self, ids: &[u32], window: Option<usize>) -> Expected {
        let config = &self.checkpoint.config;
        let length = ids.len();
        let table = self.weight("model.embed_tokens.weight");
        let rows = ids
            .iter()
            .flat_map(|&id| table.row(&[id as usize]).to_vec());
        let mut x = Tensor::new(&[1, length, config.hidden_size], rows.collect());
        let mask = window.map(|window| {
            let seen = (0..length * length).map(|at| at % length + window > at / length);
            Tensor::new(&[1, 1, length, length], seen.collect())
        });
        let (mut maps, mut hidden_states) = (Vec::new(), Vec::new());
        for layer in 0..config.num_hidden_layers {
            hidden_states.push(x.data.clone());
            let name = |name: &str| format!("model.layers.{layer}.{name}");
            let attention = self.attention(layer);
            let normed = self.norm(&name("input_layernorm.weight"), &x);
            maps.push(attention.maps(&normed, mask.as_ref()));
            add(&mut x, &self.attended(layer, &normed, mask.as_ref()));
            let normed = self.norm(&name("post_attention_layernorm.weight"), &x);
            let gate = self.map(&name("mlp.gate_proj"), &normed);
            let mut gate = self.act(&name("mlp.act_fn"), &gate);
            let up = self.map(&name("mlp.up_proj"), &normed);
            for (gate, up) in gate.data.iter_mut().zip(&up.data) {
                *gate *= up;
            }
            add(&mut x, &self.map(&name("mlp.down_proj"), &gate));
        }
        let x = self.norm("model.norm.weight", &x);
        hidden_states.push(x.data.clone());
        let head = if config.tie_word_embeddings {
            table
        } else {
            self.weight("lm_head.weight")
        };
        Expected {
            logits: linear(&self.met(&x, head.shape[1]), &head, None).data,
            hidden_states,
            maps,
        }
    }
}

fn add(x: &mut Tensor<f64>, added: &Tensor<f64>) {
    x.data
        .iter_mut()
        .zip(&added.data)
        .for_each(|(x, added)| *x += added);
}

/// Of probabilities, after up to two layers, where scores spread by 1.4 to 2.
const MAP_TOLERANCE: f64 = 3e-6;

/// The same where scores spread by 4: a probability is as wrong as its score.
const WIDE_MAP_TOLERANCE: f64 = 9e-6;

#[test]
fn windows_and_maps() {
    for (name, tolerance) in [
        ("diffllama_bias", MAP_TOLERANCE),
        ("diffllama_mha", MAP_TOLERANCE),
        ("llama", MAP_TOLERANCE),
        ("diffattn_llama/share_half_moved", MAP_TOLERANCE),
        ("motif_gda", WIDE_MAP_TOLERANCE),
        ("motif_gda_shared_kv", WIDE_MAP_TOLERANCE),
        ("motif_v1_gqa", WIDE_MAP_TOLERANCE),
        ("diff_mlx", WIDE_MAP_TOLERANCE),
    ] {
        let checkpoint = Checkpoint::fixture(name);
        let model = checkpoint.model();
        let (layers, heads) = (
            checkpoint.config.num_hidden_layers,
            checkpoint.config.num_heads(),
        );
        let reference = Reference {
            checkpoint: &checkpoint,
            scaling: RopeScaling::Default,
            int8: false,
        };
        let ids = random_ids(1, 70, checkpoint.config.vocab_size);
        for window in [None, Some(1), Some(13)] {
            let Expected { logits, maps, .. } = reference.forward(&ids, window);
            let options = DiffLlamaOptions {
                window,
                map_layers: (0..layers).collect(),
                ..DiffLlamaOptions::default()
            };
            let got = forward(&model, &ids, &[1, 70], &options);
            let worst = error(&logits, &got.logits);
            assert!(worst < 2e-5, "{name}, window {window:?}: {worst:e}");
            assert_eq!(got.maps.len(), layers);
            for (expected, got) in maps.iter().zip(&got.maps) {
                assert_eq!(got.shape, [1, heads, 70, 70]);
                assert_eq!(got.terms.len(), expected.maps.len());
                let expected = expected.maps.iter().chain([&expected.diff]);
                for (expected, got) in expected.zip(got.terms.iter().chain([&got.diff])) {
                    let errors = expected.data.iter().zip(got);
                    let worst = errors.fold(0.0f64, |worst, (expected, &got)| {
                        worst.max((expected - f64::from(got)).abs())
                    });
                    assert!(worst < tolerance, "{name}, window {window:?}: {worst:e}");
                }
            }
        }
    }
}

#[test]
fn rope_scalings() {
    let (factor, original) = (4.0, 32.0);
    let cases = [
        (
            Scaling {
                rope_type: RopeType::Linear,
                factor: Some(factor),
                ..Scaling::default()
            },
            RopeScaling::Linear { factor },
        ),
        (
            Scaling {
                rope_type: RopeType::Yarn,
                factor: Some(factor),
                original_max_position_embeddings: Some(original),
                ..Scaling::default()
            },
            RopeScaling::Yarn {
                factor,
                original_max_position_embeddings: original,
                attention_factor: None,
                mscale: None,
                mscale_all_dim: None,
                beta_fast: 32.0,
                beta_slow: 1.0,
                truncate: true,
            },
        ),
    ];
    let mut checkpoint = Checkpoint::fixture("diffllama_gqa");
    for (scaling, of_reference) in cases {
        checkpoint.config.rope.scaling = Some(scaling);
        let ids = random_ids(2, 60, checkpoint.config.vocab_size);
        let reference = Reference {
            checkpoint: &checkpoint,
            scaling: of_reference,
            int8: false,
        };
        let Expected { logits, .. } = reference.forward(&ids, None);
        let got = forward(
            &checkpoint.model(),
            &ids,
            &[1, 60],
            &DiffLlamaOptions::default(),
        );
        assert!(error(&logits, &got.logits) < 2e-5, "{scaling:?}");
    }
}

#[test]
fn functions_of_the_mlp() {
    let mut checkpoint = Checkpoint::fixture("diffllama_gqa");
    let ids = random_ids(3, 40, checkpoint.config.vocab_size);
    let mut all = Vec::new();
    for act in [HiddenAct::Silu, HiddenAct::Gelu, HiddenAct::GeluTanh] {
        checkpoint.config.hidden_act = act;
        let reference = Reference {
            checkpoint: &checkpoint,
            scaling: RopeScaling::Default,
            int8: false,
        };
        let Expected { logits, .. } = reference.forward(&ids, None);
        let options = DiffLlamaOptions::default();
        let got = forward(&checkpoint.model(), &ids, &[1, 40], &options);
        assert!(error(&logits, &got.logits) < 2e-5, "{act:?}");
        all.push(got.logits);
    }
    assert!(all[0] != all[1] && all[1] != all[2]);
}

#[test]
fn dynamic_is_the_default_within_the_trained_length() {
    let mut checkpoint = Checkpoint::fixture("diffllama_gqa");
    checkpoint.config.rope.scaling = None;
    let plain = checkpoint.model();
    checkpoint.config.max_position_embeddings = 24;
    checkpoint.config.rope.max_position_embeddings = Some(24.0);
    checkpoint.config.rope.scaling = Some(Scaling {
        rope_type: RopeType::Dynamic,
        factor: Some(4.0),
        ..Scaling::default()
    });
    let model = checkpoint.model();
    let ids = random_ids(4, 25, checkpoint.config.vocab_size);
    let options = DiffLlamaOptions::default();
    assert_eq!(
        forward(&model, &ids[..24], &[1, 24], &options),
        forward(&plain, &ids[..24], &[1, 24], &options)
    );
    let sentence = "ids: expected a text of at most 24 tokens (max_position_embeddings), past which rope_type \"dynamic\" \
                    is not computed; \"yarn\" and \"linear\" are, got 25";
    let refused = refusal(model.forward(TokenIds::u32(&ids, &[1, 25]), None, &options));
    assert_eq!(refused, ("OPTION", sentence.to_owned()));
    // Generation goes as far: the last id that it may choose is the one that follows 24.
    let generation = Generation {
        prompt: ids[..22].to_vec(),
        max_new_tokens: 9,
        stop_ids: Some(Vec::new()),
        ..Generation::default()
    };
    let mut generator = ok(Generator::new(
        &model,
        vec![generation],
        &GeneratorOptions::default(),
    ));
    for _ in 0..3 {
        assert_eq!(ok(generator.step()).len(), 1);
    }
    assert_eq!(refusal(generator.step()), ("OPTION", sentence.to_owned()));
}
