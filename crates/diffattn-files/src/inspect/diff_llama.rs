//! What is missing and odd in a checkpoint of a DIFF Llama, a Motif or diff-mlx, and what it shares
//! with a plain Llama.

use super::architecture::Architecture;
use super::config::Config;
use super::inspection::{Inspection, other_heads};
use super::named::{Named, layer_count};
use crate::declare::{Declare, Need};
use crate::decoder::{self, DecoderAttention, DecoderSizes, Head};
use crate::layer::Layer;
use std::collections::BTreeSet;

/// Compares the configuration and the names of a DIFF Llama, a Motif or diff-mlx with its tensors.
pub(super) fn compare(entries: &Named<'_>, config: &Config, inspection: &mut Inspection) {
    let Some(first) = inspection.layers.first().cloned() else {
        return;
    };
    let kind = match inspection.architecture {
        Some(Architecture::Motif) => DecoderAttention::Grouped,
        Some(Architecture::DiffMlx) => DecoderAttention::Interleaved,
        _ => DecoderAttention::Differential,
    };
    heads(kind, &first, config, inspection);
    let groups = match kind {
        DecoderAttention::Grouped | DecoderAttention::Interleaved => {
            2 * first.heads.groups.unwrap_or(first.heads.heads)
        }
        _ => first.heads.groups.unwrap_or(2 * first.heads.heads),
    };
    sizes(
        kind,
        (entries, config),
        inspection,
        [Some(groups), Some(first.embed_dim)],
    );
    if kind == DecoderAttention::Differential && groups % 2 == 1 && groups > 1 {
        inspection.warn(format!(
            "{groups} flat key/value heads are an odd number: output heads share k and v across the two halves"
        ));
    }
    if let Some(kind) = config.rope_type().filter(|kind| kind != "default") {
        inspection.warn(format!(
            "config.json scales the rotary embedding ({kind}): the layers given here have the unscaled one"
        ));
    }
    let differs = |layer: &&Layer| layer.heads != first.heads || layer.embed_dim != first.embed_dim;
    if let Some(layer) = inspection.layers.iter().find(differs) {
        let sentence = other_heads(&layer.prefix, &first.prefix);
        inspection.warn(sentence);
    }
    let module = kind.names().attention_of(first.depth.unwrap_or(0));
    let Some(last) = inspection
        .last_layer()
        .filter(|_| first.prefix.ends_with(&module))
    else {
        // A single module, not a model.
        return;
    };
    let count = layer_count(config.count("num_hidden_layers"), last, inspection);
    let kind = |_| kind;
    names(kind, count, (entries, config), inspection);
}

/// Compares the heads that the configuration counts.
fn heads(kind: DecoderAttention, first: &Layer, config: &Config, inspection: &mut Inspection) {
    let heads = first.heads;
    let noise = heads.heads / heads.ratio.unwrap_or(1);
    let q = heads.heads + noise;
    if let Some(said) = config.count("num_noise_heads")
        && kind == DecoderAttention::Grouped
        && said != noise
    {
        inspection.warn(format!(
            "config.json says num_noise_heads {said}, but the tensors have {noise}"
        ));
    }
    let Some(flat) = config.count("num_attention_heads") else {
        return;
    };
    let said = config.count("head_dim");
    let hidden = config.count("hidden_size");
    let head_dim = said.or_else(|| hidden.and_then(|hidden| hidden.checked_div(flat)));
    let Some(head_dim) = head_dim.filter(|&head_dim| head_dim != heads.head_dim) else {
        if flat != q {
            let key = config.shown("num_attention_heads");
            inspection.warn(format!(
                "config.json says {key} {flat}, but q_proj has {q} flat heads"
            ));
        }
        return;
    };
    let how = match said {
        Some(_) => format!("{} {head_dim}", config.shown("head_dim")),
        None => format!("num_attention_heads {flat}, which makes head_dim {head_dim}"),
    };
    let is_halves = kind == DecoderAttention::Differential;
    let cause = if is_halves && head_dim == 2 * heads.head_dim {
        format!(
            "it seems to count output heads; diffllama counts flat heads, of which q_proj has {q}"
        )
    } else {
        format!("q_proj has {q} flat heads")
    };
    inspection.warn(format!(
        "config.json says {how}, but {}lambda_q1 has {} values: {cause}",
        first.prefix, heads.head_dim
    ));
}

/// Compares the other sizes that the configuration says: key/value heads and channels, which layers
/// tell, and what other tensors tell.
pub(super) fn sizes(
    kind: DecoderAttention,
    (entries, config): (&Named<'_>, &Config),
    inspection: &mut Inspection,
    [groups, embed_dim]: [Option<usize>; 2],
) {
    let mut list = Declare::new();
    let names = DecoderSizes {
        kind,
        ..DecoderSizes::default()
    };
    let ids = names.layer(inspection.first_layer().unwrap_or(0), &mut list);
    let inner = entries.rows(&list.get(ids.up).weight());
    let vocab = entries
        .rows(kind.names().table)
        .or_else(|| entries.rows(decoder::HEAD_WEIGHT));
    for (key, has) in [
        ("num_key_value_heads", groups),
        ("hidden_size", embed_dim),
        ("intermediate_size", inner),
        ("vocab_size", vocab),
    ] {
        if let (Some(said), Some(has)) = (config.count(key), has)
            && said != has
        {
            let key = config.shown(key);
            inspection.warn(format!(
                "config.json says {key} {said}, but the tensors have {has}"
            ));
        }
    }
}

/// Compares the names of a model of `count` layers, whose attention `kind` says, with those that it
/// should have.
pub(super) fn names(
    kind: impl Fn(usize) -> DecoderAttention,
    count: usize,
    (entries, config): (&Named<'_>, &Config),
    inspection: &mut Inspection,
) {
    let has = |name: &str| entries.has(name);
    // (What no layer differs in.)
    let of = kind(0);
    // (diff-mlx has no head of its own.)
    let is_mlx = of == DecoderAttention::Interleaved;
    let tied = config.flag("tie_word_embeddings");
    let tied = tied.or(is_mlx.then_some(true));
    let is_headless = tied.is_none() && !has(decoder::HEAD_WEIGHT);
    if is_headless {
        inspection.warn(format!(
            "there is no {}, and no config.json says that the embeddings are tied",
            decoder::HEAD_WEIGHT
        ));
    }
    let bias = config.flag(of.bias_key());
    let sizes = DecoderSizes {
        kind: of,
        attention_bias: bias == Some(true),
        head: Head::of(of, is_headless || tied == Some(true), has),
        ..DecoderSizes::default()
    };
    inspection.warnings.extend(sizes.head.notice());
    let mut list = Declare::new();
    sizes.embeddings(&mut list);
    if sizes.head == Head::Stored {
        sizes.head(&mut list);
    }
    let mut has_bias = false;
    for layer in 0..count {
        let kind = kind(layer);
        let sizes = DecoderSizes {
            kind,
            mlp_bias: match kind {
                DecoderAttention::Differential | DecoderAttention::Interleaved => false,
                DecoderAttention::Plain | DecoderAttention::Converted(_) => {
                    config.flag("mlp_bias") == Some(true)
                }
                DecoderAttention::Grouped => bias == Some(true),
            },
            poly_norm: kind == DecoderAttention::Grouped,
            ..sizes
        };
        let maps = sizes.layer(layer, &mut list).projections.into_array();
        has_bias |= maps.into_iter().any(|map| has(&list.get(map).bias()));
    }
    sizes.norm(&mut list);
    let (mut wanted, mut optional) = (BTreeSet::new(), BTreeSet::new());
    for tensor in list.tensors() {
        match tensor.need {
            Need::Required => wanted.insert(tensor.name),
            Need::Optional | Need::Refused(_) => optional.insert(tensor.name),
        };
    }
    if bias == Some(false) && has_bias {
        inspection.warn(of.biases());
    }
    entries.unexpected(
        |name| {
            let is_listed = wanted.contains(name) || optional.contains(name);
            is_listed || of.names().is_buffer(name)
        },
        inspection,
    );
    entries.missing(wanted, inspection);
}
