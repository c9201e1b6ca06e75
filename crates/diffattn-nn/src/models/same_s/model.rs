//! The weights of SAME-S, and the list of layers that they are. Runs nothing.

use super::config::SameSConfig;
use crate::layers::attention::DiffAttnLayer;
use crate::layers::{Activation, DynamicTanh, Layer, Mlp, MlpBranch};
use diffattn::{Linear, Run};

/// `x = x + attention(pre_norm(x))`, `x = x + down(silu(gate(m)) · up(m))`, m = ff_norm(x).
#[derive(Debug, Clone)]
pub(super) struct Block {
    pub(super) pre_norm: DynamicTanh,
    pub(super) attention: DiffAttnLayer,
    pub(super) ff_norm: DynamicTanh,
    pub(super) gate: Linear,
    pub(super) up: Linear,
    pub(super) down: Linear,
}

impl Block {
    /// As passes see it.
    pub(super) fn layer(&self) -> Layer<'_> {
        let Self {
            pre_norm,
            attention,
            ff_norm,
            gate,
            up,
            down,
        } = self;
        Layer {
            mixer: attention.into(),
            norm: Some(pre_norm.rows()),
            scale: None,
            mlp: Some(MlpBranch {
                norm: Some(ff_norm.rows()),
                mlp: Mlp::Gated {
                    gate,
                    up,
                    down,
                    act: Activation::Silu,
                },
                scale: None,
            }),
        }
    }
}

/// From latents to audio.
#[derive(Debug, Clone)]
pub(super) struct Decoder {
    pub(super) running_std: f32,
    /// The token that stands for every patch.
    pub(super) new_token: Vec<f32>,
    pub(super) project_in: Linear,
    pub(super) blocks: Vec<Block>,
    /// The convolution: a map of three neighbouring tokens to a patch.
    pub(super) mapping: Linear,
}

/// From audio to latents.
#[derive(Debug, Clone)]
pub(super) struct Encoder {
    pub(super) running_std: f32,
    /// The token that becomes a latent.
    pub(super) new_token: Vec<f32>,
    pub(super) mapping: Linear,
    pub(super) blocks: Vec<Block>,
    pub(super) project_out: Linear,
    /// A factor and a term for each channel of a latent.
    pub(super) scale: Vec<f32>,
    pub(super) bias: Vec<f32>,
}

/// SAME-S with its weights, the audio codec of Stable Audio 3 (Stability-AI/stable-audio-3):
/// patches of audio and latents as tokens, in spans whose tokens see each other; after half of the
/// blocks the spans move by half of their length. Blocks are [`crate::FiveWayDiffAttn`] and a gated
/// MLP, both behind dynamic tanh ([`diffattn::dynamic_tanh`]). It computes in float32.
///
/// The bits of a piece of audio do not depend on the batch, on threads or on the slices that a job
/// is worked off in.
#[derive(Debug, Clone)]
pub struct SameS {
    pub(super) config: SameSConfig,
    pub(super) decoder: Option<Decoder>,
    pub(super) encoder: Option<Encoder>,
}

/// How a call of the codec is run.
#[derive(Debug, Clone, Copy, Default)]
pub struct SameSOptions {
    /// How the call runs: instruction set, threads, fused or not.
    pub run: Run,
}

impl SameS {
    /// What it is made of.
    #[must_use]
    pub fn config(&self) -> &SameSConfig {
        &self.config
    }
}
