//! The weights of a Phi-4-mini-flash, and the list of layers that they are. Runs nothing.

use super::config::Phi4FlashConfig;
use super::layer::{FlashLayer, NormWeights, Weights};
use crate::layers::attention::DiffAttnLayer;
use crate::layers::{Activation, Attention, Embedding, Head, Layer, Mixer, Mlp, MlpBranch};
use crate::models::{Decoder, TextModel};
use diffattn::Linear;

/// A Phi-4-mini-flash with its weights (SambaY, arXiv 2507.06607): `x = x + mixer(norm(x))`, `x =
/// x + fc2(up · silu(gate))` with `[gate ‖ up] = fc1(norm(x))` in each layer, norms being layer
/// norms; then a norm and the logits. Mixers of the lower half are Mamba and differential attention
/// of a window by turns; a Mamba and attention over all tokens follow; above, gates on what that
/// Mamba gave of the same token, and differential attention over that attention's keys and values,
/// by turns. There is no positional encoding.
///
/// Nothing above the lower half keeps anything, so of a prompt only the last token goes through it,
/// unless more is asked for. A row's bits do not depend on batch, threads or how many tokens are
/// computed at once.
#[derive(Debug, Clone)]
pub struct Phi4Flash {
    pub(super) config: Phi4FlashConfig,
    pub(super) embedding: Embedding,
    pub(super) layers: Vec<FlashLayer>,
    pub(super) norm: NormWeights,
    pub(super) head: Linear,
}

impl Phi4Flash {
    /// What it is made of.
    #[must_use]
    pub fn config(&self) -> &Phi4FlashConfig {
        &self.config
    }

    /// The attention of a layer, where it has any.
    #[must_use]
    pub fn attention(&self, layer: usize) -> Option<&DiffAttnLayer> {
        match &self.layers.get(layer)?.weights {
            Weights::Attention(attention) => Some(attention),
            Weights::Mamba(_) | Weights::MemoryGate(_) => None,
        }
    }

    fn layer<'m>(&self, index: usize, layer: &'m FlashLayer) -> Layer<'m> {
        let half = self.config.num_hidden_layers / 2;
        let mixer = match &layer.weights {
            Weights::Mamba(mamba) => Mixer::Mamba(mamba),
            Weights::MemoryGate(gate) => Mixer::MemoryGate(gate),
            Weights::Attention(attention) => Mixer::Attention(Attention {
                layer: attention,
                window: match index < half {
                    true => self.config.sliding_window.of(index),
                    false => None,
                },
                keys_of: (index > half + 1).then_some(half + 1),
            }),
        };
        let eps = self.config.layer_norm_eps;
        Layer {
            mixer,
            norm: Some(layer.input_norm.rows(eps)),
            scale: None,
            mlp: Some(MlpBranch {
                norm: Some(layer.post_norm.rows(eps)),
                mlp: Mlp::Gated {
                    gate: &layer.gate,
                    up: &layer.up,
                    down: &layer.down,
                    act: Activation::Silu,
                },
                scale: None,
            }),
        }
    }
}

impl TextModel for Phi4Flash {
    fn decoder(&self) -> Decoder<'_> {
        let layers = self.layers.iter().enumerate();
        Decoder {
            embedding: &self.embedding,
            layers: layers
                .map(|(index, layer)| self.layer(index, layer))
                .collect(),
            head: Head {
                norm: self.norm.rows(self.config.layer_norm_eps),
                map: Some(&self.head),
            },
            eos_token_ids: &self.config.eos_token_ids,
            longest: None,
        }
    }
}
