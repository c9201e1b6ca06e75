//! The weights of SAME-S, the audio codec of Stable Audio 3, as its authors' files
//! `same_s_decoder_f32` and `same_s_encoder_f32` name them, each behind `decoder.` or `encoder.`.
//! Written once, for loading and inspecting. Runs nothing.

use crate::declare::{Declare, Id, Need};
use crate::five_way::{DynamicTanhIds, FiveWayIds, FiveWaySizes, HeadsNormForm, dynamic_tanh};

/// A direction of the codec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Latents to audio.
    Decoder,
    /// Audio to latents.
    Encoder,
}

impl Direction {
    /// Both, in the order of their parts.
    pub const ALL: [Self; 2] = [Self::Decoder, Self::Encoder];

    /// What the names of its weights begin with.
    #[must_use]
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Decoder => "decoder.",
            Self::Encoder => "encoder.",
        }
    }

    /// Whether any of these names is one of its weights'.
    pub fn is_among<'n>(self, mut names: impl Iterator<Item = &'n str>) -> bool {
        names.any(|name| name.starts_with(self.prefix()))
    }
}

/// Sizes of the codec's weights. The default is for whoever wants names alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CodecSizes {
    /// Channels of a token.
    pub dim: usize,
    /// Channels of a head.
    pub head_dim: usize,
    /// Channels within the MLP.
    pub inner: usize,
    /// Channels of a latent.
    pub latent: usize,
    /// Values of a patch of audio.
    pub channels: usize,
}

/// The weights around the blocks of the decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecoderIds {
    /// The factor on latents, one number.
    pub running_std: Id,
    /// The token that stands for every patch, `[1, 1, dim]`.
    pub new_tokens: Id,
    /// The map of latents to tokens.
    pub project_in: Id,
    /// The convolution that makes patches of tokens, `[channels, dim, 3]`.
    pub mapping: Id,
    /// Its bias.
    pub mapping_bias: Id,
}

/// The weights around the blocks of the encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncoderIds {
    /// What latents are divided by at the end, one number.
    pub running_std: Id,
    /// The token that becomes a latent, `[1, 1, dim]`.
    pub new_tokens: Id,
    /// The map of patches to tokens.
    pub mapping: Id,
    /// The map of tokens to latents.
    pub project_out: Id,
    /// A factor per channel of a latent.
    pub scaling_factor: Id,
    /// Added per channel of a latent.
    pub bias: Id,
}

/// The weights of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CodecBlockIds {
    /// What stands before attention.
    pub pre_norm: DynamicTanhIds,
    /// Attention.
    pub attention: FiveWayIds,
    /// What stands before the MLP.
    pub ff_norm: DynamicTanhIds,
    /// The map into the MLP: rows of values, then of gates.
    pub glu_proj: Id,
    /// The map out of it.
    pub proj_out: Id,
}

impl CodecSizes {
    /// Lists what is around the blocks of the decoder.
    pub fn decoder(&self, d: &mut Declare) -> DecoderIds {
        let &Self {
            dim,
            latent,
            channels,
            ..
        } = self;
        d.within(Direction::Decoder.prefix(), |d| DecoderIds {
            running_std: d.tensor("running_std", &[1], Need::Required),
            new_tokens: d.tensor("new_tokens", &[1, 1, dim], Need::Required),
            project_in: d.linear("project_in", [dim, latent], Some(Need::Required)),
            mapping: d.tensor("mapping.weight", &[channels, dim, 3], Need::Required),
            mapping_bias: d.tensor("mapping.bias", &[channels], Need::Required),
        })
    }

    /// Lists what is around the blocks of the encoder.
    pub fn encoder(&self, d: &mut Declare) -> EncoderIds {
        let &Self {
            dim,
            latent,
            channels,
            ..
        } = self;
        d.within(Direction::Encoder.prefix(), |d| EncoderIds {
            running_std: d.tensor("running_std", &[1], Need::Required),
            new_tokens: d.tensor("new_tokens", &[1, 1, dim], Need::Required),
            mapping: d.linear("mapping", [dim, channels], Some(Need::Required)),
            project_out: d.linear("project_out", [latent, dim], Some(Need::Required)),
            scaling_factor: d.tensor("scaling_factor", &[1, latent, 1], Need::Required),
            bias: d.tensor("bias", &[1, latent, 1], Need::Required),
        })
    }

    /// Lists a block.
    pub fn block(&self, direction: Direction, index: usize, d: &mut Declare) -> CodecBlockIds {
        let &Self {
            dim,
            head_dim,
            inner,
            ..
        } = self;
        let prefix = format!("{}blocks.{index}.", direction.prefix());
        let attention = FiveWaySizes {
            embed_dim: dim,
            head_dim,
        };
        d.within(&prefix, |d| CodecBlockIds {
            pre_norm: dynamic_tanh(d, "pre_norm", dim),
            attention: d.within("attn.", |d| {
                attention.declare(HeadsNormForm::DynamicTanh, d)
            }),
            ff_norm: dynamic_tanh(d, "ff_norm", dim),
            glu_proj: d.linear(
                "ff.glu_proj",
                [inner.saturating_mul(2), dim],
                Some(Need::Required),
            ),
            proj_out: d.linear("ff.proj_out", [dim, inner], Some(Need::Required)),
        })
    }
}

/// The direction and the number of the block that a weight is of.
#[must_use]
pub fn block_of(name: &str) -> Option<(Direction, usize)> {
    let (direction, rest) = Direction::ALL
        .into_iter()
        .find_map(|direction| Some((direction, name.strip_prefix(direction.prefix())?)))?;
    let (number, _) = rest.strip_prefix("blocks.")?.split_once('.')?;
    Some((direction, number.parse().ok()?))
}

/// Whether the name is one within the codec: behind the prefix of either direction.
#[must_use]
pub fn is_within(name: &str) -> bool {
    let mut prefixes = Direction::ALL.map(Direction::prefix).into_iter();
    prefixes.any(|prefix| name.starts_with(prefix))
}
