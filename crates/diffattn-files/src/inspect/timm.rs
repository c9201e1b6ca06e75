//! What is missing and odd in a checkpoint of timm's DIFF vision transformers.

use super::config::Config;
use super::inspection::Inspection;
use super::named::{Named, layer_count};
use crate::attention::{K, Q, V};
use crate::declare::{Declare, Need};
use crate::vision::{BlockForm, BlockMaps, BlockSizes, PATCHES, has_place};
use std::collections::BTreeSet;

/// Compares the configuration and the names of a DIFF vision transformer with its tensors.
pub(super) fn compare(entries: &Named<'_>, config: &Config, inspection: &mut Inspection) {
    let Some(first) = inspection.layers.first() else {
        return;
    };
    for (key, has) in [
        ("num_heads", first.heads.heads),
        ("embed_dim", first.embed_dim),
    ] {
        if let Some(said) = config.timm_count(key)
            && said != has
        {
            inspection.warn(format!(
                "config.json says {key} {said}, but the tensors have {has}"
            ));
        }
    }
    let Some(last) = inspection.last_layer() else {
        return;
    };
    let count = layer_count(config.timm_count("depth"), last, inspection);
    // What a vision transformer has around its blocks differs from one to the next, and so do
    // biases: only the weights of blocks have a list.
    let mut wanted = BTreeSet::from([PATCHES.to_owned()]);
    for index in 0..count {
        wanted.extend(block(entries, index));
    }
    entries.missing(wanted, inspection);
    entries.unexpected(|name| has_place(name, count), inspection);
}

/// The weights that a block must have; q, k and v may be apart.
fn block(entries: &Named<'_>, index: usize) -> Vec<String> {
    let mut list = Declare::new();
    let has = |name: &str| entries.has(name);
    let ids = BlockSizes::default().block(BlockForm::Plain, index, has, &mut list);
    let fused = match ids.maps {
        BlockMaps::Plain { qkv, .. } => list.get(qkv).weight(),
        BlockMaps::Parallel { .. } => String::new(),
    };
    let apart = [Q, K, V].map(|name| format!("blocks.{index}.attn.{name}.weight"));
    let is_apart = entries.has(&apart[0]);
    let required = list
        .tensors()
        .filter(|tensor| tensor.need == Need::Required && tensor.name.ends_with(".weight"))
        .map(|tensor| tensor.name)
        .filter(|name| !is_apart || *name != fused);
    required
        .chain(is_apart.then_some(apart).into_iter().flatten())
        .collect()
}
