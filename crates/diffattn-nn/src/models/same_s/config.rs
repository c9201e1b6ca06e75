//! The `config.json` of SAME-S, read and checked. Reads text, no file; knows nothing of weights.

use crate::checkpoint::Architecture;
use crate::config::{Entries, wrong_family};
use diffattn::Error;
use diffattn_files::same_s::CodecSizes;
use serde_json::{Value, json};

/// Patches of a span at most: its memory grows with them, whatever the weights are.
const LONGEST_CHUNK: usize = 1024;

/// What a [`crate::SameS`] is made of. The default is Stable Audio 3's own codec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SameSConfig {
    /// Channels of a token.
    pub dim: usize,
    /// Channels of a head.
    pub dim_heads: usize,
    /// Blocks of the decoder, and of the encoder.
    pub depth: usize,
    /// Channels of a latent.
    pub latent_dim: usize,
    /// Patches of audio for a latent.
    pub stride: usize,
    /// Patches of a span, within which tokens see each other; with them come its latents.
    pub chunk_size: usize,
    /// Channels within the MLP.
    pub ff_inner: usize,
    /// Channels of a head that turn by position.
    pub rope_dims: usize,
    /// Samples of each channel of audio in a patch.
    pub patch_size: usize,
    /// Channels of audio.
    pub audio_channels: usize,
    /// Samples per second. Nothing depends on it.
    pub sample_rate: usize,
}

impl Default for SameSConfig {
    fn default() -> Self {
        Self {
            dim: 768,
            dim_heads: 64,
            depth: 6,
            latent_dim: 256,
            stride: 16,
            chunk_size: 32,
            ff_inner: 2304,
            rope_dims: 32,
            patch_size: 256,
            audio_channels: 2,
            sample_rate: 44_100,
        }
    }
}

impl SameSConfig {
    /// Reads the text of a `config.json`: `architecture` "same_s", and of the sizes those that are
    /// not the default: `dim`, `dim_heads`, `depth`, `latent_dim`, `channels` (of a patch:
    /// `patch_size` times `audio_channels`), `stride`, `chunk_size`, `ff_inner`, `rope_dims`,
    /// `patch_size`, `audio_channels`, `sample_rate`. What else there is has no say.
    ///
    /// # Errors
    /// [`ErrorKind::File`](diffattn::ErrorKind::File) naming the key, as `config.KEY`: no JSON,
    /// another architecture, or a value that does not fit.
    pub fn from_json(text: &str) -> Result<Self, Error> {
        let entries = Entries::read("config", text)?;
        if Architecture::of_config(&entries.map) != Some(Architecture::SameS) {
            let expected = format!("{:?}", Architecture::SameS.name());
            return Err(wrong_family(&entries.map, "architecture", expected));
        }
        let size = |key: &str, default: usize| -> Result<usize, Error> {
            Ok(entries.size(key)?.unwrap_or(default))
        };
        let default = Self::default();
        let config = Self {
            dim: size("dim", default.dim)?,
            dim_heads: size("dim_heads", default.dim_heads)?,
            depth: size("depth", default.depth)?,
            latent_dim: size("latent_dim", default.latent_dim)?,
            stride: size("stride", default.stride)?,
            chunk_size: size("chunk_size", default.chunk_size)?,
            ff_inner: size("ff_inner", default.ff_inner)?,
            rope_dims: size("rope_dims", default.rope_dims)?,
            patch_size: size("patch_size", default.patch_size)?,
            audio_channels: size("audio_channels", default.audio_channels)?,
            sample_rate: size("sample_rate", default.sample_rate)?,
        };
        config.check()?;
        if let Some(channels) = entries.size("channels")?
            && channels != config.channels()
        {
            let expected = format!("patch_size times audio_channels, {}", config.channels());
            return Err(Error::file("config.channels", expected, channels));
        }
        Ok(config)
    }

    /// Checks that the sizes fit each other.
    ///
    /// # Errors
    /// [`ErrorKind::File`](diffattn::ErrorKind::File) naming the key, as `config.KEY`.
    pub fn check(&self) -> Result<(), Error> {
        let &Self {
            dim,
            dim_heads,
            stride,
            chunk_size,
            rope_dims,
            patch_size,
            audio_channels,
            ..
        } = self;
        let wrong = |key: &str, expected: String, got: usize| {
            Err(Error::file(format_args!("config.{key}"), expected, got))
        };
        for (key, size) in self.sizes() {
            if size == 0 {
                return wrong(key, "a whole number of at least 1".to_owned(), size);
            }
        }
        if !dim.is_multiple_of(dim_heads) {
            let expected = format!("a number that divides dim {dim}");
            return wrong("dim_heads", expected, dim_heads);
        }
        if rope_dims > dim_heads || !rope_dims.is_multiple_of(2) {
            let expected = format!("an even number of at most dim_heads {dim_heads}");
            return wrong("rope_dims", expected, rope_dims);
        }
        if chunk_size > LONGEST_CHUNK || !chunk_size.is_multiple_of(stride) {
            let expected = format!("a multiple of stride {stride}, {LONGEST_CHUNK} at most");
            return wrong("chunk_size", expected, chunk_size);
        }
        if !self.span().is_multiple_of(2) {
            let expected = format!(
                "one that makes an even number of tokens with its latents, one per {stride} patches"
            );
            return wrong("chunk_size", expected, chunk_size);
        }
        if patch_size.checked_mul(audio_channels).is_none() {
            let expected = "a size that fits this machine".to_owned();
            return wrong("patch_size", expected, patch_size);
        }
        Ok(())
    }

    /// Every size by its key.
    fn sizes(&self) -> [(&'static str, usize); 11] {
        [
            ("dim", self.dim),
            ("dim_heads", self.dim_heads),
            ("depth", self.depth),
            ("latent_dim", self.latent_dim),
            ("stride", self.stride),
            ("chunk_size", self.chunk_size),
            ("ff_inner", self.ff_inner),
            ("rope_dims", self.rope_dims),
            ("patch_size", self.patch_size),
            ("audio_channels", self.audio_channels),
            ("sample_rate", self.sample_rate),
        ]
    }

    /// Values of a patch of all channels of audio.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.patch_size.saturating_mul(self.audio_channels)
    }

    /// Samples of each channel of audio for a latent.
    #[must_use]
    pub fn latent_samples(&self) -> usize {
        self.stride.saturating_mul(self.patch_size)
    }

    /// Latents of a span: their number is a multiple of it.
    #[must_use]
    pub fn chunk_latents(&self) -> usize {
        self.chunk_size / self.stride
    }

    /// Tokens of a latent and its patches.
    pub(super) fn latent_tokens(&self) -> usize {
        self.stride + 1
    }

    /// Tokens of a span, which see each other.
    pub(super) fn span(&self) -> usize {
        self.chunk_latents() * self.latent_tokens()
    }

    /// The sizes that the lists of weights want.
    pub(super) fn codec_sizes(&self) -> CodecSizes {
        CodecSizes {
            dim: self.dim,
            head_dim: self.dim_heads,
            inner: self.ff_inner,
            latent: self.latent_dim,
            channels: self.channels(),
        }
    }

    /// The entries that have a default.
    pub(super) fn known(&self) -> Value {
        let mut known = json!({
            "architecture": Architecture::SameS.name(),
            "channels": self.channels(),
        });
        for (key, size) in self.sizes() {
            known[key] = json!(size);
        }
        known
    }
}
