//! Adds a layer that was found to an inspection, or says why it is none.

use super::architecture::Architecture;
use super::config::Config;
use super::inspection::{Inspection, shown};
use crate::attention::{LambdaForm, NORM, RopeConfig, SCALARS, lambda_names};
use crate::found::{Found, depth_of};
use crate::layer::{Layer, LayerVersion};
use crate::layout::HeadLayout;
use crate::names::Names;
use diffattn::{Pairing, RopeFrequencies, lambda_init};
use std::borrow::Cow;

/// Adds a layer, or says why it is none.
pub(super) fn add(
    architecture: Architecture,
    found: Found<'_>,
    config: &Config,
    inspection: &mut Inspection,
) {
    let version = match architecture {
        Architecture::UnilmV2 => LayerVersion::V2,
        _ if found.has(SCALARS[0]) => LayerVersion::V1(LambdaForm::Scalars),
        _ => LayerVersion::V1(LambdaForm::Vectors),
    };
    let prefix = found.prefix;
    let absent = absent_lambdas(architecture, version, &found);
    inspection.missing.extend(absent);
    let halves = architecture == Architecture::DiffLlama;
    let is_motif = architecture == Architecture::Motif;
    let (heads, embed_dim) = match found.heads(version, halves, config.timm_head_dim()) {
        Ok(heads) => heads,
        Err(reason) => {
            return inspection.warn(format!("{} is no layer: {reason}", shown(prefix)));
        }
    };
    let depth = depth_of(prefix);
    if inspection.layers.is_empty() {
        if depth.is_none() && version != LayerVersion::V2 {
            inspection.warn(format!(
                "{} has no number in its name: λ_init depends on the layer's index, 0 is assumed",
                shown(prefix)
            ));
        }
        if architecture == Architecture::UnilmV1 {
            repeats(heads, inspection);
        }
    }
    for name in &found.other_norms {
        inspection.warn(format!(
            "{name}: the layers of this library have no such norm"
        ));
    }
    let rope = match architecture {
        Architecture::TimmDiffVit | Architecture::Phi4Flash => None,
        _ => Some(RopeConfig {
            interleaved: !halves && !is_motif,
            frequencies: RopeFrequencies {
                theta: config.theta(),
                ..RopeFrequencies::default()
            },
        }),
    };
    let eps = match architecture {
        Architecture::DiffLlama | Architecture::DiffMlx => {
            config.number("rms_norm_eps").unwrap_or(1e-5)
        }
        Architecture::Motif => config.number("attn_rms_norm_eps").unwrap_or(1e-5),
        _ => 1e-5,
    };
    inspection.layers.push(Layer {
        prefix: prefix.to_owned(),
        depth,
        // (Motif counts its layers from −1 there.)
        lambda_init: is_motif.then(|| lambda_init(depth.unwrap_or(0) as f64 - 1.0)),
        version,
        embed_dim,
        heads,
        rope,
        is_causal: architecture != Architecture::TimmDiffVit,
        eps: eps as f32,
        norm_weight: found.has(NORM),
        pieces: found.pieces,
    });
}

/// The weights of λ that are not there.
fn absent_lambdas(
    architecture: Architecture,
    version: LayerVersion,
    found: &Found<'_>,
) -> Vec<String> {
    let names = match version {
        LayerVersion::V2 => &[],
        LayerVersion::V1(form) => lambda_names(form),
    };
    let absent = names.iter().filter(|name| !found.has(name));
    let absent: Vec<String> = absent
        .map(|name| format!("{}{name}", found.prefix))
        .collect();
    match architecture {
        // By the names that the model has for them, as all that is missing.
        Architecture::DiffLlama
        | Architecture::Motif
        | Architecture::DiffMlx
        | Architecture::TimmDiffVit => {
            let names = Names::read(absent.iter().map(String::as_str)).read;
            names.into_iter().map(Cow::into_owned).collect()
        }
        Architecture::Llama
        | Architecture::DiffAttnLlama
        | Architecture::UnilmV1
        | Architecture::UnilmV2
        | Architecture::SameS => absent,
        // (Its list has them.)
        Architecture::Phi4Flash => Vec::new(),
    }
}

/// Says which way of repeating k heads is assumed, where it matters.
fn repeats(heads: HeadLayout, inspection: &mut Inspection) {
    let groups = heads.groups.unwrap_or(heads.heads);
    if heads.pairing == Pairing::Interleaved && groups < heads.heads {
        inspection.warn(format!(
            "{} output heads share {groups} key/value groups: names and shapes do not say whether k heads are repeated in pairs (multihead_flashdiff_2.py) or one by one (multihead_diffattn.py, kv_repeat flat); pairs are assumed",
            heads.heads
        ));
    }
}
