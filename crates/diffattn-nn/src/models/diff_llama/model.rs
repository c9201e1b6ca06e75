//! The weights of a DIFF Llama, and the list of layers that they are. Runs nothing.

use super::config::DiffLlamaConfig;
use crate::layers::Embedding;
use crate::layers::attention::DiffAttnLayer;
use crate::layers::{Activation, Head, Layer, Mlp, MlpBranch, Norm};
use crate::models::{Decoder, TextModel};
use diffattn::Linear;

/// One decoder layer: attention and an MLP, each behind a norm and beside a residual connection.
#[derive(Debug, Clone)]
pub(crate) struct DecoderLayer {
    pub(crate) input_norm: Vec<f32>,
    pub(crate) attention: DiffAttnLayer,
    pub(crate) post_norm: Vec<f32>,
    pub(crate) gate: Linear,
    pub(crate) up: Linear,
    pub(crate) down: Linear,
    pub(crate) act: Activation,
}

/// A DIFF Llama, or another decoder of its kind, with its weights: `x = x + attention(norm(x))`, `x
/// = x + down(act(gate(y)) · up(y))` with `y = norm(x)` in each layer (act is
/// [`crate::HiddenAct`]'s, SiLU by default), then a norm and the logits (Hugging Face
/// `transformers`, `modeling_diffllama.py`). Attention is that of [`crate::MultiheadDiffAttn`] with
/// pairing halves, half-split rotary embedding, and a norm per head without weight; Motif's in
/// groups, that of diff-mlx in pairs, with a weight in the norm. Of a plain Llama
/// ([`DiffLlamaConfig::kind`]) heads are one softmax each, of a converted one some of them are
/// differential, without a norm.
///
/// A row's bits do not depend on batch, threads or how many tokens are computed at once.
#[derive(Debug, Clone)]
pub struct DiffLlama {
    pub(crate) config: DiffLlamaConfig,
    pub(crate) embedding: Embedding,
    pub(crate) layers: Vec<DecoderLayer>,
    pub(crate) norm: Vec<f32>,
    pub(crate) head: Linear,
}

impl DiffLlama {
    /// What it is made of.
    #[must_use]
    pub fn config(&self) -> &DiffLlamaConfig {
        &self.config
    }

    /// The attention of a layer.
    #[must_use]
    pub fn attention(&self, layer: usize) -> Option<&DiffAttnLayer> {
        self.layers.get(layer).map(|layer| &layer.attention)
    }

    /// The embedding of a checked id.
    #[cfg(feature = "training")]
    pub(crate) fn embed(&self, id: u32, to: &mut [f32]) -> Result<(), diffattn::Error> {
        let head = Head {
            norm: self.norm(&self.norm),
            map: Some(&self.head),
        };
        self.embedding.row(&head, id, to)
    }

    fn layer<'m>(&self, layer: &'m DecoderLayer) -> Layer<'m> {
        let DecoderLayer {
            input_norm,
            attention,
            post_norm,
            gate,
            up,
            down,
            act,
        } = layer;
        Layer {
            mixer: attention.into(),
            norm: Some(self.norm(input_norm)),
            scale: None,
            mlp: Some(MlpBranch {
                norm: Some(self.norm(post_norm)),
                mlp: Mlp::Gated {
                    gate,
                    up,
                    down,
                    act: *act,
                },
                scale: None,
            }),
        }
    }

    fn norm<'m>(&self, weight: &'m [f32]) -> Norm<'m> {
        Norm::Rms {
            weight,
            eps: self.config.rms_norm_eps as f32,
        }
    }
}

impl TextModel for DiffLlama {
    fn decoder(&self) -> Decoder<'_> {
        Decoder {
            embedding: &self.embedding,
            layers: self.layers.iter().map(|layer| self.layer(layer)).collect(),
            head: Head {
                norm: self.norm(&self.norm),
                map: Some(&self.head),
            },
            eos_token_ids: &self.config.eos_token_ids,
            longest: self.config.rope.longest(),
        }
    }
}
