//! What is missing and odd in a checkpoint of SAME-S.

use super::config::Config;
use super::inspection::Inspection;
use super::named::Named;
use crate::declare::Declare;
use crate::notices;
use crate::same_s::{CodecSizes, Direction, block_of, is_within};
use std::borrow::Cow;
use std::collections::BTreeSet;

/// Whether the names are those of the codec: the projection of a block's attention.
pub(super) fn is_named(names: &[Cow<'_, str>]) -> bool {
    names
        .iter()
        .any(|name| block_of(name).is_some() && name.ends_with(".attn.to_qkv.weight"))
}

/// Compares the configuration and the names of the codec with its tensors.
pub(super) fn compare(entries: &Named<'_>, config: &Config, inspection: &mut Inspection) {
    let sizes = CodecSizes::default();
    let mut wanted = BTreeSet::new();
    let mut want = |list: &Declare| wanted.extend(list.tensors().map(|tensor| tensor.name));
    for direction in Direction::ALL {
        if !direction.is_among(entries.names()) {
            inspection.warn(format!(
                "there is no {} in it",
                direction.prefix().trim_end_matches('.')
            ));
            continue;
        }
        let blocks: BTreeSet<usize> = entries
            .names()
            .filter_map(block_of)
            .filter_map(|(of, index)| (of == direction).then_some(index))
            .collect();
        let has = blocks.len();
        if let Some(said) = config.count("depth")
            && said != has
        {
            inspection.warn(notices::layers(said, has));
        }
        let mut list = Declare::new();
        match direction {
            Direction::Decoder => drop(sizes.decoder(&mut list)),
            Direction::Encoder => drop(sizes.encoder(&mut list)),
        }
        for index in blocks {
            sizes.block(direction, index, &mut list);
        }
        want(&list);
        let qkv = format!("{}blocks.0.attn.to_qkv.weight", direction.prefix());
        if let (Some(said), Some(&[_, dim])) = (config.count("dim"), entries.shape(&qkv))
            && said != dim
        {
            inspection.warn(format!("config.json says dim {said}, but {qkv} has {dim}"));
        }
    }
    let has_place = |name: &str| wanted.contains(name) || !is_within(name);
    entries.unexpected(has_place, inspection);
    entries.missing(wanted, inspection);
}
