//! From audio to latents.

use super::body::Body;
use super::call::{output, planes, wrong_shape};
use super::model::{Encoder, SameS, SameSOptions};
use diffattn::{DataMut, Error, Tensor, Work, checked_len, try_zeroed};
use std::ops::Range;

/// Latents of a unit of making latents of tokens.
const UNIT: usize = 64;

/// Checked encoding: made by [`SameS::encode_job`], worked off by what [`SameSEncoding::into_work`]
/// makes of it.
#[derive(Debug)]
pub struct SameSEncoding<'a> {
    encoder: &'a Encoder,
    body: Body<'a>,
    pcm: &'a [f32],
    /// Samples of each channel.
    samples: usize,
}

impl<'a> SameSEncoding<'a> {
    pub(super) fn new(
        codec: &'a SameS,
        pcm: &Tensor<'a>,
        options: &SameSOptions,
    ) -> Result<Self, Error> {
        let config = codec.config();
        let encoder = codec.encoder.as_ref().ok_or_else(|| {
            Error::unavailable("model", "one with an encoder", "one without (encoder.…)")
        })?;
        let channels = config.audio_channels;
        let (data, [batch, samples]) = planes("pcm", pcm, channels, "samples]")?;
        let whole = config
            .chunk_latents()
            .saturating_mul(config.latent_samples());
        let latents = samples.div_ceil(whole).checked_mul(config.chunk_latents());
        let latents =
            latents.ok_or_else(|| wrong_shape("pcm", channels, "samples]", &pcm.shape))?;
        let body = Body {
            config,
            blocks: &encoder.blocks,
            batch,
            latents,
            run: options.run,
            argument: "pcm",
        };
        body.check()?;
        checked_len("pcm", &[batch, config.latent_dim, latents])?;
        Ok(Self {
            encoder,
            body,
            pcm: data,
            samples,
        })
    }

    /// Units of its work.
    #[must_use]
    pub fn units(&self) -> usize {
        self.body.units() + (self.body.batch * self.body.latents).div_ceil(UNIT)
    }

    /// `[B, latent_dim, T]`.
    #[must_use]
    pub fn output_shape(&self) -> [usize; 3] {
        let Body {
            config,
            batch,
            latents,
            ..
        } = self.body;
        [batch, config.latent_dim, latents]
    }

    /// The work that writes the latents, float32, into `out`.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](diffattn::ErrorKind::Shape) or
    /// [`ErrorKind::Dtype`](diffattn::ErrorKind::Dtype) when it does not fit.
    pub fn into_work(self, out: DataMut<'a>) -> Result<Work<'a>, Error> {
        let out = output(out, &self.output_shape())?;
        Ok(Work::new(self.units(), |pace| async move {
            let embed = |latents: Range<usize>, x: &mut [f32]| self.embed(latents, x);
            let x = self.body.pass(embed, &pace).await?;
            let all = 0..self.body.batch * self.body.latents;
            pace.rows(all, UNIT, |latents| self.latents(&x, latents, out))
                .await
        }))
    }

    /// Tokens of latents: those of their patches, then what becomes the latent.
    fn embed(&self, latents: Range<usize>, x: &mut [f32]) -> Result<(), Error> {
        let Body {
            config,
            latents: count,
            run,
            ..
        } = self.body;
        let (channels, width) = (config.channels(), config.dim);
        let of_latent = config.stride * channels;
        let mut patches = try_zeroed(latents.len() * of_latent)?;
        for (latent, patches) in latents.clone().zip(patches.chunks_exact_mut(of_latent)) {
            let first = latent % count * config.stride;
            for (patch, to) in patches.chunks_exact_mut(channels).enumerate() {
                self.gather(latent / count, first + patch, to);
            }
        }
        let mut mapped = try_zeroed(latents.len() * config.stride * width)?;
        self.encoder.mapping.forward(&patches, &mut mapped, run)?;
        let tokens = x.chunks_exact_mut(config.latent_tokens() * width);
        for (tokens, mapped) in tokens.zip(mapped.chunks_exact(config.stride * width)) {
            let (first, last) = tokens.split_at_mut(config.stride * width);
            first.copy_from_slice(mapped);
            last.copy_from_slice(&self.encoder.new_token);
        }
        Ok(())
    }

    /// A patch of a piece of audio: the samples of one channel after those of the other, zeros past
    /// the end.
    fn gather(&self, piece: usize, patch: usize, to: &mut [f32]) {
        let config = self.body.config;
        let from = (patch * config.patch_size).min(self.samples);
        let count = config.patch_size.min(self.samples - from);
        for (channel, to) in to.chunks_exact_mut(config.patch_size).enumerate() {
            let first = (piece * config.audio_channels + channel) * self.samples + from;
            to[..count].copy_from_slice(&self.pcm[first..first + count]);
            to[count..].fill(0.0);
        }
    }

    /// Latents of their tokens, into their places.
    fn latents(&self, x: &[f32], latents: Range<usize>, out: &mut [f32]) -> Result<(), Error> {
        let Body {
            config,
            latents: count,
            run,
            ..
        } = self.body;
        let Encoder {
            project_out,
            scale,
            bias,
            running_std,
            ..
        } = self.encoder;
        let (channels, width) = (config.latent_dim, config.dim);
        let mut tokens = try_zeroed(latents.len() * width)?;
        for (latent, to) in latents.clone().zip(tokens.chunks_exact_mut(width)) {
            let row = self.body.row(latent) + config.stride;
            to.copy_from_slice(&x[row * width..(row + 1) * width]);
        }
        let mut made = try_zeroed(latents.len() * channels)?;
        project_out.forward(&tokens, &mut made, run)?;
        for (latent, made) in latents.zip(made.chunks_exact(channels)) {
            let first = latent / count * channels * count + latent % count;
            for (channel, value) in made.iter().enumerate() {
                let value = (value * scale[channel] + bias[channel]) / running_std;
                out[first + channel * count] = value;
            }
        }
        Ok(())
    }
}
