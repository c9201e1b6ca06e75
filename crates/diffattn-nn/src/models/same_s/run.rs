//! How SAME-S is made and called. Computes nothing itself.

use super::config::SameSConfig;
use super::decoding::SameSDecoding;
use super::encoding::SameSEncoding;
use super::load::SameSLoader;
use super::model::{SameS, SameSOptions};
use crate::models::ModelLoader;
use crate::parts::WeightSource;
use crate::weights::Weights;
use diffattn::{DataMut, Error, Tensor, checked_len, try_zeroed};

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
