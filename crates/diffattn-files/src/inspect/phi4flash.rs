//! What is missing and odd in a checkpoint of a Phi-4-mini-flash.

use super::config::Config;
use super::inspection::Inspection;
use super::named::Named;
use crate::declare::{Declare, Need};
use crate::decoder::{DecoderAttention, Head, layer_of};
use crate::notices;
use crate::phi4flash::FlashSizes;
use std::collections::BTreeSet;

/// Compares the configuration and the names of a Phi-4-mini-flash with its tensors.
pub(super) fn compare(entries: &Named<'_>, config: &Config, inspection: &mut Inspection) {
    let stored: BTreeSet<usize> = entries.names().filter_map(layer_of).collect();
    if stored.is_empty() {
        // A single module, not a model.
        return;
    }
    let said = config.count("num_hidden_layers");
    if let Some(said) = said.filter(|&said| said != stored.len()) {
        inspection.warn(notices::layers(said, stored.len()));
    }
    // A number in a file makes no list longer than what the file has.
    let layers = said.unwrap_or(stored.len());
    let layers = layers.min(stored.len().saturating_mul(2).saturating_add(16));
    let names = DecoderAttention::default().names();
    let table = entries.shape(names.table);
    for (key, axis) in [("vocab_size", 0), ("hidden_size", 1)] {
        let has = table.and_then(|shape| shape.get(axis).copied());
        if let (Some(said), Some(has)) = (config.count(key), has)
            && said != has
        {
            inspection.warn(format!(
                "config.json says {key} {said}, but the tensors have {has}"
            ));
        }
    }
    let is_tied = config.flag("tie_word_embeddings").unwrap_or(true);
    let sizes = FlashSizes {
        layers,
        mlp_bias: config.flag("mlp_bias") == Some(true),
        head: Head::of(DecoderAttention::default(), is_tied, |name| {
            entries.has(name)
        }),
        ..FlashSizes::default()
    };
    inspection.warnings.extend(sizes.head.notice());
    let mut list = Declare::new();
    sizes.decoder().embeddings(&mut list);
    if sizes.head == Head::Stored {
        sizes.decoder().head(&mut list);
    }
    for layer in 0..layers {
        sizes.layer(layer, &mut list);
    }
    sizes.norm(&mut list);
    let tensors = list
        .tensors()
        .filter(|tensor| tensor.need == Need::Required);
    let wanted: BTreeSet<String> = tensors.map(|tensor| tensor.name).collect();
    entries.unexpected(
        |name| wanted.contains(name) || names.is_buffer(name),
        inspection,
    );
    entries.missing(wanted, inspection);
}
