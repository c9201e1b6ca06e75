//! The weights of a Phi-4-mini-flash (SambaY, arXiv 2507.06607): which mixer each layer has, and
//! what its weights are called. Embeddings and head are those of a decoder
//! ([`crate::decoder`]). Runs nothing.

use crate::attention::{LambdaIds, VECTORS};
use crate::declare::{Declare, Id, Need, Precision};
use crate::decoder::{DecoderSizes, Head, layer_of};

const LAYERS: &str = "model.layers.";

/// What the model has besides its layers.
const MODULES: [&str; 3] = ["model.embed_tokens.", "model.final_layernorm.", "lm_head."];

/// What λ and the norm of a layer of attention are called within it.
const INNER: &str = "inner_cross_attn.";

/// What a layer mixes tokens by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlashMixer {
    /// Mamba; where it is the last, later layers read what it gives, too.
    Mamba,
    /// Differential attention, of which all but the last has a window.
    Attention,
    /// A gate on what the last Mamba gave.
    MemoryGate,
    /// Differential attention over the keys and values of the last layer that has any.
    Cross,
}

impl FlashMixer {
    /// That of a layer of so many: Mamba and attention by turns; behind the first half of the
    /// layers and two more, gates and attention over the same keys and values.
    #[must_use]
    pub fn of(index: usize, layers: usize) -> Self {
        let is_upper = index >= (layers / 2).saturating_add(2);
        match (index.is_multiple_of(2), is_upper) {
            (true, false) => Self::Mamba,
            (false, false) => Self::Attention,
            (true, true) => Self::MemoryGate,
            (false, true) => Self::Cross,
        }
    }
}

/// Sizes of a model's weights. The default is for whoever wants names alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FlashSizes {
    /// Rows of the embeddings and of the head.
    pub vocab_size: usize,
    /// Channels between the layers.
    pub hidden_size: usize,
    /// Channels within the MLP.
    pub intermediate_size: usize,
    /// How many layers there are.
    pub layers: usize,
    /// Rows of q.
    pub q: usize,
    /// Rows of k, and as many of v.
    pub k: usize,
    /// Channels of a flat head.
    pub head_dim: usize,
    /// Channels of Mamba.
    pub inner: usize,
    /// States of each of them.
    pub states: usize,
    /// Taps of the convolution.
    pub taps: usize,
    /// Channels that step sizes are made of.
    pub rank: usize,
    /// Whether the maps of the MLP have biases.
    pub mlp_bias: bool,
    /// Where the head comes from.
    pub head: Head,
}

/// The weights of a layer's mixer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlashMixerIds {
    /// Mamba.
    Mamba {
        /// u, then the gate.
        input: Id,
        /// `[inner, 1, taps]`.
        convolution: Id,
        /// Its bias.
        convolution_bias: Id,
        /// δ, then B, then C.
        x_proj: Id,
        /// From δ to step sizes.
        step: Id,
        /// `[inner, states]`.
        a_log: Id,
        /// `[inner]`.
        d: Id,
        /// The way out.
        output: Id,
    },
    /// Attention.
    Attention {
        /// q, then k, then v; of attention over another layer's keys q alone.
        qkv: Id,
        /// The way out.
        output: Id,
        /// λ.
        lambda: LambdaIds,
        /// The weight of the norm per head.
        norm: Id,
    },
    /// The gate on the memory.
    MemoryGate {
        /// The gate.
        input: Id,
        /// The way out.
        output: Id,
    },
}

/// The weights of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlashLayerIds {
    /// Those of its mixer.
    pub mixer: FlashMixerIds,
    /// The MLP's gate, then what the gate multiplies.
    pub fc1: Id,
    /// The way out of the MLP.
    pub fc2: Id,
    /// Weight and bias of the norm before the mixer.
    pub input_norm: [Id; 2],
    /// Weight and bias of the norm before the MLP.
    pub post_norm: [Id; 2],
}

impl FlashSizes {
    /// What embeddings and head are, as those of any decoder.
    #[must_use]
    pub fn decoder(&self) -> DecoderSizes {
        DecoderSizes {
            vocab_size: self.vocab_size,
            hidden_size: self.hidden_size,
            head: self.head,
            ..DecoderSizes::default()
        }
    }

    /// Lists a layer.
    pub fn layer(&self, index: usize, d: &mut Declare) -> FlashLayerIds {
        let (hidden, inner) = (self.hidden_size, self.intermediate_size);
        let bias = self.mlp_bias.then_some(Need::Required);
        d.within(&format!("{LAYERS}{index}."), |d| FlashLayerIds {
            mixer: d.within("attn.", |d| match FlashMixer::of(index, self.layers) {
                FlashMixer::Mamba => self.mamba(d),
                FlashMixer::Attention => self.attention(d, self.q + 2 * self.k),
                FlashMixer::MemoryGate => FlashMixerIds::MemoryGate {
                    input: d.linear("in_proj", [self.inner, hidden], None),
                    output: d.linear("out_proj", [hidden, self.inner], None),
                },
                FlashMixer::Cross => self.attention(d, self.q),
            }),
            fc1: d.linear("mlp.fc1", [2 * inner, hidden], bias),
            fc2: d.linear("mlp.fc2", [hidden, inner], bias),
            input_norm: self.norm_of(d, "input_layernorm"),
            post_norm: self.norm_of(d, "post_attention_layernorm"),
        })
    }

    /// Lists the last norm: its weight and its bias.
    pub fn norm(&self, d: &mut Declare) -> [Id; 2] {
        self.norm_of(d, "model.final_layernorm")
    }

    fn norm_of(&self, d: &mut Declare, name: &str) -> [Id; 2] {
        ["weight", "bias"].map(|part| {
            d.tensor(
                &format!("{name}.{part}"),
                &[self.hidden_size],
                Need::Required,
            )
        })
    }

    fn mamba(&self, d: &mut Declare) -> FlashMixerIds {
        let &Self {
            hidden_size: hidden,
            inner,
            states,
            taps,
            rank,
            ..
        } = self;
        let required = Need::Required;
        let x_proj = d.linear("x_proj", [rank + 2 * states, inner], None);
        let step = d.linear("dt_proj", [inner, rank], Some(required));
        // (Steps are exponents, and these maps small.)
        d.precision(x_proj, Precision::Exact);
        d.precision(step, Precision::Exact);
        FlashMixerIds::Mamba {
            input: d.linear("in_proj", [2 * inner, hidden], None),
            convolution: d.tensor("conv1d.weight", &[inner, 1, taps], required),
            convolution_bias: d.tensor("conv1d.bias", &[inner], required),
            x_proj,
            step,
            a_log: d.tensor("A_log", &[inner, states], required),
            d: d.tensor("D", &[inner], required),
            output: d.linear("out_proj", [hidden, inner], None),
        }
    }

    fn attention(&self, d: &mut Declare, rows: usize) -> FlashMixerIds {
        let bias = Some(Need::Required);
        let qkv = d.linear("Wqkv", [rows, self.hidden_size], bias);
        let output = d.linear("out_proj", [self.hidden_size, self.q], bias);
        d.within(INNER, |d| FlashMixerIds::Attention {
            qkv,
            output,
            lambda: LambdaIds::Vectors(
                VECTORS.map(|name| d.tensor(name, &[self.head_dim], Need::Required)),
            ),
            norm: d.tensor("subln.weight", &[2 * self.head_dim], Need::Required),
        })
    }
}

/// The weight whose shape tells [`FlashSizes::rank`], and what that is in words.
pub const X_PROJ: (&str, &str) = (
    "model.layers.0.attn.x_proj.weight",
    "[mamba_dt_rank + 2 · mamba_d_state, mamba_expand · hidden_size]",
);

/// Whether the name is one within a module of a model of that many layers.
#[must_use]
pub fn is_within(name: &str, layers: usize) -> bool {
    layer_of(name).is_some_and(|layer| layer < layers)
        || MODULES.iter().any(|module| name.starts_with(module))
}
