//! The layers of a Llama, plain or converted, and what is missing and odd in its checkpoint.

use super::config::Config;
use super::converted;
use super::diff_llama::{names, sizes};
use super::inspection::{Inspection, other_heads};
use super::named::{Named, layer_count};
use crate::attention::RopeConfig;
use crate::declare::Declare;
use crate::decoder::{DecoderAttention, DecoderLayerIds, DecoderSizes, layer_of};
use crate::found::depth_of;
use crate::plain::{PlainHeads, PlainLayer};
use diffattn::RopeFrequencies;
use std::borrow::Cow;
use std::collections::BTreeSet;

/// The list of a layer, for its names.
fn list(index: usize) -> (Declare, DecoderLayerIds) {
    let mut list = Declare::new();
    let sizes = DecoderSizes {
        kind: DecoderAttention::Plain,
        ..DecoderSizes::default()
    };
    let ids = sizes.layer(index, &mut list);
    (list, ids)
}

/// Whether the names are those of a Llama: the maps of one of its layers.
pub(super) fn is_named(names: &[Cow<'_, str>]) -> bool {
    let Some(first) = names.iter().find_map(|name| layer_of(name)) else {
        return false;
    };
    let (list, ids) = list(first);
    let maps = [ids.projections.q, ids.projections.out, ids.gate, ids.down];
    maps.into_iter().all(|map| {
        let weight = list.get(map).weight();
        names.iter().any(|name| **name == weight)
    })
}

/// Adds the layers of a Llama to its inspection, and compares its configuration and its names with
/// its tensors. Of one that was converted, layers are asked what makes their heads differential.
pub(super) fn compare(
    is_converted: bool,
    (entries, config): (&Named<'_>, &Config),
    inspection: &mut Inspection,
) {
    let kind = |index: usize| match is_converted {
        true => converted::kind(index, entries),
        false => None,
    };
    let layers: BTreeSet<usize> = entries.names().filter_map(layer_of).collect();
    for index in layers {
        let kind = kind(index);
        let Some(plain) = layer(index, kind.is_some(), (entries, config)) else {
            continue;
        };
        let Some(kind) = kind else {
            inspection.plain_layers.push(plain);
            continue;
        };
        let (layer, warning) = converted::layer((index, kind), plain, (entries, config));
        inspection.converted_layers.push(layer);
        inspection.warnings.extend(warning);
    }
    let Some(first) = inspection.llama_layers().next().cloned() else {
        inspection.warn("there is no layer of it among the tensors");
        return;
    };
    heads(&first, is_converted, config, inspection);
    let groups = first.heads.map(|heads| heads.groups);
    sizes(
        DecoderAttention::Plain,
        (entries, config),
        inspection,
        [groups, Some(first.embed_dim)],
    );
    let differs =
        |layer: &&PlainLayer| layer.heads != first.heads || layer.embed_dim != first.embed_dim;
    let other = inspection.llama_layers().find(differs);
    if let Some(sentence) = other.map(|layer| other_heads(&layer.prefix, &first.prefix)) {
        inspection.warn(sentence);
    }
    let last = inspection.last_layer().unwrap_or(0);
    let count = layer_count(config.count("num_hidden_layers"), last, inspection);
    let kind = |index| kind(index).map_or(DecoderAttention::Plain, DecoderAttention::Converted);
    names(kind, count, (entries, config), inspection);
}

/// A layer, where its projection of q is there. The heads of one that was converted are told by
/// the projections that no conversion makes longer.
fn layer(
    index: usize,
    is_converted: bool,
    (entries, config): (&Named<'_>, &Config),
) -> Option<PlainLayer> {
    let (list, ids) = list(index);
    let name = |id| list.get(id).weight();
    let q = name(ids.projections.q);
    let &[rows, embed_dim] = entries.shape(&q)? else {
        return None;
    };
    let of_out = || Some(*entries.shape(&name(ids.projections.out))?.get(1)?);
    let (rows, groups) = match is_converted {
        true => (of_out(), entries.rows(&name(ids.projections.v))),
        false => (Some(rows), entries.rows(&name(ids.projections.k))),
    };
    let prefix = entries.stored(&q)?.strip_suffix("q_proj.weight")?;
    Some(PlainLayer {
        prefix: prefix.to_owned(),
        depth: depth_of(prefix),
        embed_dim,
        heads: (rows.zip(groups)).and_then(|(rows, groups)| heads_of(rows, groups, config)),
        rope: RopeConfig {
            interleaved: false,
            frequencies: RopeFrequencies {
                theta: config.theta(),
                ..RopeFrequencies::default()
            },
        },
        is_causal: true,
    })
}

/// Heads that have so many rows of q and of k, by their number or their width.
fn heads_of(q: usize, k: usize, config: &Config) -> Option<PlainHeads> {
    let divided = |size: usize, by: usize| {
        let count = size.checked_div(by)?;
        (count > 0 && count * by == size).then_some(count)
    };
    let (heads, head_dim) = match (
        config.count("num_attention_heads"),
        config.count("head_dim"),
    ) {
        (Some(heads), _) => (heads, divided(q, heads)?),
        (None, Some(head_dim)) => (divided(q, head_dim)?, head_dim),
        (None, None) => return None,
    };
    Some(PlainHeads {
        heads,
        groups: divided(k, head_dim)?,
        head_dim,
    })
}

/// Compares the heads that the configuration says.
fn heads(first: &PlainLayer, is_converted: bool, config: &Config, inspection: &mut Inspection) {
    let maps = match is_converted {
        true => "o_proj and v_proj",
        false => "q_proj and k_proj",
    };
    let Some(said) = config.count("num_attention_heads") else {
        if first.heads.is_none() {
            inspection.warn(format!("no config.json says how many heads {maps} have"));
        }
        return;
    };
    let hidden = || config.count("hidden_size")?.checked_div(said);
    let (how, head_dim) = match config.count("head_dim") {
        Some(head_dim) => (format!("{said} and head_dim {head_dim}"), Some(head_dim)),
        None => (said.to_string(), hidden()),
    };
    let has = first.heads.map(|heads| heads.head_dim);
    if head_dim != has {
        inspection.warn(format!(
            "config.json says num_attention_heads {how}, which the rows of {}{maps} are not",
            first.prefix
        ));
    }
}
