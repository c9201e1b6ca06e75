//! The attention of a layer, as the configuration says it is, of its weights: differential, plain,
//! or plain but for some heads. Runs nothing.

use super::config::DiffLlamaConfig;
use super::conversion::NoiseOrder;
use crate::layers::attention::{
    ConvertedAttention, DexParts, DiffAttnLayer, Difference, MultiheadDiffAttn,
    MultiheadDiffAttnOptions, NormConfig, PlainAttention, RopeConfig, V1Weights,
};
use crate::parts::Part;
use diffattn::{Error, Pairing, lambda_init};
use diffattn_files::decoder::{DecoderAttention, DecoderLambda, DecoderLayerIds};

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
    if config.converted().is_some() {
        let converted = ConvertedAttention {
            plain: plain(config),
            differential: config.differential_list(index),
        };
        let difference = difference(config, (index, lambda), part)?;
        return converted.of_weights(projections, difference);
    }
    let DecoderLambda::Layer(lambda) = lambda else {
        return Err(Error::internal("a DIFF Llama has one λ per layer"));
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

/// What makes heads of a converted Llama differential.
fn difference(
    config: &DiffLlamaConfig,
    (index, lambda): (usize, DecoderLambda),
    part: &mut Part<'_>,
) -> Result<Difference, Error> {
    let conversion = config.conversion.as_ref();
    let mix = conversion.map_or(1.0, |conversion| conversion.mix);
    Ok(match lambda {
        DecoderLambda::Projected(id) => Difference::V2 {
            lambda: part.linear(id)?,
            mix,
            is_paired: conversion.is_some_and(|one| one.order == NoiseOrder::Pairs),
        },
        DecoderLambda::Layer(ids) => {
            let init = conversion.and_then(|one| one.lambda_init.get(index).copied());
            let none = || Error::internal("a layer has no λ_init");
            Difference::V1 {
                lambda: part.lambda(ids)?,
                init: init.ok_or_else(none)?,
                mix,
            }
        }
        DecoderLambda::Dex { weight, lambda } => Difference::Dex(DexParts {
            weight: part.vector(weight)?,
            lambda: part.number(lambda)?,
            mix,
        }),
    })
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
        norm: Some(NormConfig {
            eps: config.rms_norm_eps as f32,
            affine: Some(false),
        }),
        ..MultiheadDiffAttnOptions::new(config.hidden_size, depth, config.num_heads())
    };
    if config.kind.has_head_norm() {
        options.pairing = Pairing::Interleaved;
        options.num_kv_heads = Some(config.num_key_value_heads / 2);
        options.norm = Some(NormConfig {
            eps: config.attn_rms_norm_eps as f32,
            affine: Some(true),
        });
    }
    if config.kind == DecoderAttention::Grouped {
        options.pairing = Pairing::Grouped;
        options.ratio = Some(config.num_heads() / config.num_noise_heads);
        options.lambda_init = Some(lambda_init(depth as f64 - 1.0));
    }
    MultiheadDiffAttn::of_weights(&options, weights).map(DiffAttnLayer::from)
}
