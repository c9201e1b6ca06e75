//! The attention of a layer, as the configuration says it is, of its weights: differential, plain,
//! differential in groups or in pairs. Runs nothing.

use super::config::DiffLlamaConfig;
use crate::layers::attention::{
    DiffAttnLayer, MultiheadDiffAttn, MultiheadDiffAttnOptions, NormConfig, PlainAttention,
    RopeConfig, V1Weights,
};
use crate::parts::Part;
use diffattn::{Error, Pairing, lambda_init};
use diffattn_files::decoder::{DecoderAttention, DecoderLayerIds};

/// The attention of the layer of that number, whose maps are packed.
pub(super) fn of_part(
    config: &DiffLlamaConfig,
    (index, ids): (usize, &DecoderLayerIds),
    part: &mut Part<'_>,
) -> Result<DiffAttnLayer, Error> {
    let projections = part.projections(ids.projections)?;
    let Some(lambda) = ids.lambda else {
        return plain(config).of_weights(projections);
    };
    let weights = V1Weights {
        projections,
        lambda: part.lambda(lambda)?,
        norm: ids.head_norm.map(|id| part.vector(id)).transpose()?,
    };
    differential(config, index, weights)
}

fn rope(config: &DiffLlamaConfig) -> Option<RopeConfig> {
    Some(RopeConfig {
        interleaved: config.kind == DecoderAttention::Interleaved,
        frequencies: config.rope,
    })
}

/// That of a plain Llama.
fn plain(config: &DiffLlamaConfig) -> PlainAttention {
    PlainAttention {
        embed_dim: config.hidden_size,
        num_heads: config.num_attention_heads,
        num_kv_heads: config.num_key_value_heads,
        head_dim: config.head_dim,
        rope: rope(config),
    }
}

/// Differential attention: flat heads in halves, a norm per head without weight, as a DIFF Llama
/// has them; or in groups, or in pairs, a norm with one, and in groups, which are Motif's, a λ_init
/// that counts the layers from −1.
fn differential(
    config: &DiffLlamaConfig,
    depth: usize,
    weights: V1Weights,
) -> Result<DiffAttnLayer, Error> {
    let mut options = MultiheadDiffAttnOptions {
        num_kv_heads: Some(config.num_key_value_heads),
        head_dim: Some(config.head_dim),
        rope: rope(config),
        pairing: Pairing::Halves,
        norm: NormConfig {
            eps: config.rms_norm_eps as f32,
            affine: Some(false),
        },
        ..MultiheadDiffAttnOptions::new(config.hidden_size, depth, config.num_heads())
    };
    if config.kind.has_head_norm() {
        options.pairing = Pairing::Interleaved;
        options.num_kv_heads = Some(config.num_key_value_heads / 2);
        options.norm = NormConfig {
            eps: config.attn_rms_norm_eps as f32,
            affine: Some(true),
        };
    }
    if config.kind == DecoderAttention::Grouped {
        options.pairing = Pairing::Grouped;
        options.ratio = Some(config.num_heads() / config.num_noise_heads);
        options.lambda_init = Some(lambda_init(depth as f64 - 1.0));
    }
    MultiheadDiffAttn::of_weights(&options, weights).map(DiffAttnLayer::from)
}
