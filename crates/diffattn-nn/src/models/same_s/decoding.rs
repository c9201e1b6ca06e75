//! From latents to audio.

use super::body::Body;
use super::call::{output, planes, wrong_shape};
use super::model::{Decoder, SameS, SameSOptions};
use diffattn::{DataMut, Error, Tensor, Work, checked_len, try_zeroed};
use std::ops::Range;

/// Latents of a unit of making patches.
const UNIT: usize = 4;

/// Latents whose patches are made at once at most: bounds the scratch.
const AT_ONCE: usize = 16;

/// Checked decoding: made by [`SameS::decode_job`], worked off by what [`SameSDecoding::into_work`]
/// makes of it.
#[derive(Debug)]
pub struct SameSDecoding<'a> {
    decoder: &'a Decoder,
    body: Body<'a>,
    latents: &'a [f32],
    /// Samples of each channel.
    samples: usize,
}

impl<'a> SameSDecoding<'a> {
    pub(super) fn new(
        codec: &'a SameS,
        latents: &Tensor<'a>,
        options: &SameSOptions,
    ) -> Result<Self, Error> {
        let config = codec.config();
        let decoder = codec.decoder.as_ref().ok_or_else(|| {
            Error::unavailable("model", "one with a decoder", "one without (decoder.…)")
        })?;
        let (channels, whole) = (config.latent_dim, config.chunk_latents());
        let what = format!("T], T a multiple of {whole}");
        let (data, [batch, count]) = planes("latents", latents, channels, &what)?;
        if !count.is_multiple_of(whole) {
            return Err(wrong_shape("latents", channels, &what, &latents.shape));
        }
        let body = Body {
            config,
            blocks: &decoder.blocks,
            batch,
            latents: count,
            run: options.run,
            argument: "latents",
        };
        body.check()?;
        let samples = count.checked_mul(config.latent_samples());
        let samples =
            samples.ok_or_else(|| wrong_shape("latents", channels, &what, &latents.shape))?;
        checked_len("latents", &[batch, config.audio_channels, samples])?;
        Ok(Self {
            decoder,
            body,
            latents: data,
            samples,
        })
    }

    /// Units of its work.
    #[must_use]
    pub fn units(&self) -> usize {
        self.body.units() + (self.body.batch * self.body.latents).div_ceil(UNIT)
    }

    /// `[B, audio_channels, samples]`.
    #[must_use]
    pub fn output_shape(&self) -> [usize; 3] {
        let Body { config, batch, .. } = self.body;
        [batch, config.audio_channels, self.samples]
    }

    /// The work that writes the audio, float32, into `out`.
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
            pace.rows(all, UNIT, |latents| self.patches(&x, latents, out))
                .await
        }))
    }

    /// Tokens of latents: each itself, then what stands for its patches.
    fn embed(&self, latents: Range<usize>, x: &mut [f32]) -> Result<(), Error> {
        let Body {
            config,
            latents: count,
            run,
            ..
        } = self.body;
        let (channels, width) = (config.latent_dim, config.dim);
        let mut rows = try_zeroed(latents.len() * channels)?;
        for (latent, row) in latents.clone().zip(rows.chunks_exact_mut(channels)) {
            let first = latent / count * channels * count + latent % count;
            for (channel, to) in row.iter_mut().enumerate() {
                *to = self.latents[first + channel * count] * self.decoder.running_std;
            }
        }
        let mut projected = try_zeroed(latents.len() * width)?;
        self.decoder
            .project_in
            .forward(&rows, &mut projected, run)?;
        let tokens = x.chunks_exact_mut(config.latent_tokens() * width);
        for (tokens, projected) in tokens.zip(projected.chunks_exact(width)) {
            let (first, rest) = tokens.split_at_mut(width);
            first.copy_from_slice(projected);
            for token in rest.chunks_exact_mut(width) {
                token.copy_from_slice(&self.decoder.new_token);
            }
        }
        Ok(())
    }

    /// Patches of latents, of their tokens and those beside, into their places in the audio.
    fn patches(&self, x: &[f32], latents: Range<usize>, out: &mut [f32]) -> Result<(), Error> {
        let Body {
            config,
            latents: count,
            run,
            ..
        } = self.body;
        let inputs = 3 * config.dim;
        let rows = AT_ONCE.min(latents.len()) * config.stride;
        let mut neighbours = try_zeroed::<f32>(rows * inputs)?;
        let mut made = try_zeroed::<f32>(rows * config.channels())?;
        let mut first = latents.start;
        while first < latents.end {
            // Of one piece of audio.
            let piece = first / count;
            let end = latents.end.min(first + AT_ONCE).min((piece + 1) * count);
            let (start, rows) = (
                (first - piece * count) * config.stride,
                (end - first) * config.stride,
            );
            let neighbours = &mut neighbours[..rows * inputs];
            for (row, to) in neighbours.chunks_exact_mut(inputs).enumerate() {
                self.gather(x, piece, start + row, to);
            }
            let made = &mut made[..rows * config.channels()];
            self.decoder.mapping.forward(neighbours, made, run)?;
            for (row, made) in made.chunks_exact(config.channels()).enumerate() {
                let at = (start + row) * config.patch_size;
                for (channel, from) in made.chunks_exact(config.patch_size).enumerate() {
                    let plane = (piece * config.audio_channels + channel) * self.samples;
                    out[plane + at..plane + at + config.patch_size].copy_from_slice(from);
                }
            }
            first = end;
        }
        Ok(())
    }

    /// The token of a patch of a piece of audio between those of its neighbours, zeros where there
    /// are none.
    fn gather(&self, x: &[f32], piece: usize, patch: usize, to: &mut [f32]) {
        let Body {
            config,
            latents: count,
            ..
        } = self.body;
        for (offset, to) in to.chunks_exact_mut(config.dim).enumerate() {
            let neighbour = (patch + offset).checked_sub(1);
            match neighbour.filter(|&patch| patch < count * config.stride) {
                None => to.fill(0.0),
                Some(patch) => {
                    let row = self.body.row(piece * count + patch / config.stride);
                    let row = row + 1 + patch % config.stride;
                    to.copy_from_slice(&x[row * config.dim..(row + 1) * config.dim]);
                }
            }
        }
    }
}
