//! The weights of SAME-S, and the list of layers that they are; how it is called. Runs nothing.

use super::config::SameSConfig;
use super::decoding::SameSDecoding;
use super::encoding::SameSEncoding;
use super::load::SameSLoader;
use crate::layers::attention::DiffAttnLayer;
use crate::layers::{Activation, DynamicTanh, Layer, Mlp, MlpBranch};
use crate::models::ModelLoader;
use crate::parts::WeightSource;
use crate::weights::Weights;
use diffattn::{DataMut, Error, Linear, Run, Tensor, checked_len, try_zeroed};

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
            attention,
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

/// SAME-S with its weights, the audio codec of Stable Audio 3 (Stability-AI/stable-audio-3): patches
/// of audio and latents as tokens, in spans whose tokens see each other; after half of the blocks
/// the spans move by half of their length. Blocks are [`crate::FiveWayDiffAttn`] and a gated MLP,
/// both behind dynamic tanh ([`diffattn::dynamic_tanh`]). It computes in float32.
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
    /// Checks config and weights and packs the weights, which are not needed afterwards; see
    /// [`SameSLoader`].
    ///
    /// # Errors
    /// As [`SameSLoader::new`] and [`ModelLoader::load_part`]; [`Error::out_of_memory`].
    pub fn new(config: &SameSConfig, weights: &Weights<'_>) -> Result<Self, Error> {
        let mut source = weights;
        let mut loader = SameSLoader::new(config, &source.entries()?)?;
        <dyn ModelLoader>::load_all(&mut loader, &mut source)?;
        loader.finish()
    }

    /// What it is made of.
    #[must_use]
    pub fn config(&self) -> &SameSConfig {
        &self.config
    }

    /// Checks audio and prepares to make latents of it, `[B, latent_dim, T]`. The audio `pcm` is
    /// `[B, audio_channels, samples]`, float32; behind its end it is filled with zeros to whole
    /// spans (two latents, 8192 samples, in Stable Audio 3's codec).
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](diffattn::ErrorKind::Shape) or
    /// [`ErrorKind::Dtype`](diffattn::ErrorKind::Dtype) naming `pcm`;
    /// [`ErrorKind::Unavailable`](diffattn::ErrorKind::Unavailable) where there is no encoder.
    pub fn encode_job<'a>(
        &'a self,
        pcm: Tensor<'a>,
        options: &SameSOptions,
    ) -> Result<SameSEncoding<'a>, Error> {
        SameSEncoding::new(self, &pcm, options)
    }

    /// Latents of audio, as [`SameS::encode_job`] in one call.
    ///
    /// # Errors
    /// As [`SameS::encode_job`], and [`Error::out_of_memory`].
    pub fn encode(&self, pcm: Tensor<'_>, options: &SameSOptions) -> Result<Vec<f32>, Error> {
        let job = self.encode_job(pcm, options)?;
        let mut latents = try_zeroed(checked_len("pcm", &job.output_shape())?)?;
        job.into_work(DataMut::F32(&mut latents))?.finish()?;
        Ok(latents)
    }

    /// Checks latents `[B, latent_dim, T]`, float32, and prepares to make audio of them, `[B,
    /// audio_channels, samples]`. T is a multiple of the latents of a span (even, in Stable Audio
    /// 3's codec).
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](diffattn::ErrorKind::Shape) or
    /// [`ErrorKind::Dtype`](diffattn::ErrorKind::Dtype) naming `latents`;
    /// [`ErrorKind::Unavailable`](diffattn::ErrorKind::Unavailable) where there is no decoder.
    pub fn decode_job<'a>(
        &'a self,
        latents: Tensor<'a>,
        options: &SameSOptions,
    ) -> Result<SameSDecoding<'a>, Error> {
        SameSDecoding::new(self, &latents, options)
    }

    /// Audio of latents, as [`SameS::decode_job`] in one call.
    ///
    /// # Errors
    /// As [`SameS::decode_job`], and [`Error::out_of_memory`].
    pub fn decode(&self, latents: Tensor<'_>, options: &SameSOptions) -> Result<Vec<f32>, Error> {
        let job = self.decode_job(latents, options)?;
        let mut pcm = try_zeroed(checked_len("latents", &job.output_shape())?)?;
        job.into_work(DataMut::F32(&mut pcm))?.finish()?;
        Ok(pcm)
    }
}
