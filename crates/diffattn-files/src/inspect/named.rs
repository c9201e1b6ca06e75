//! A checkpoint's tensors by the names that models have for them, against a model's lists.

use super::inspection::Inspection;
use crate::entry::Entry;
use crate::found::Entries;
use crate::names::Names;
use crate::notices;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

/// The tensors by the names that models have for them.
pub(super) struct Named<'e>(BTreeMap<Cow<'e, str>, &'e Entry>);

impl<'e> Named<'e> {
    pub(super) fn new(
        names: Names<'e>,
        entries: &Entries<'e>,
        inspection: &mut Inspection,
    ) -> Self {
        let mut named = BTreeMap::new();
        for (name, &entry) in names.read.into_iter().zip(entries.values()) {
            if let Some(other) = named.insert(name, entry) {
                inspection.warn(format!(
                    "{} and {} are one weight by their names without prefixes: no model takes both",
                    other.name, entry.name
                ));
            }
        }
        Self(named)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Every name.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(Cow::as_ref)
    }

    /// What the file calls a tensor.
    pub(super) fn stored(&self, name: &str) -> Option<&'e str> {
        self.0.get(name).map(|entry| entry.name.as_str())
    }

    /// The shape of a tensor.
    pub(super) fn shape(&self, name: &str) -> Option<&'e [usize]> {
        self.0.get(name).map(|entry| entry.shape.as_slice())
    }

    /// Rows of a tensor.
    pub(super) fn rows(&self, name: &str) -> Option<usize> {
        self.shape(name)?.first().copied()
    }

    /// Says which of `wanted` are missing.
    pub(super) fn missing(&self, wanted: BTreeSet<String>, inspection: &mut Inspection) {
        inspection.add_missing(wanted.into_iter().filter(|name| !self.has(name)));
    }

    /// Says which tensors have no place, by the names that the file has for them.
    pub(super) fn unexpected(&self, has_place: impl Fn(&str) -> bool, inspection: &mut Inspection) {
        let others = self.0.iter().filter(|(name, _)| !has_place(name));
        let names = others.map(|(_, entry)| entry.name.clone());
        inspection.unexpected.extend(names);
    }
}

/// How many layers there should be.
pub(super) fn layer_count(said: Option<usize>, last: usize, inspection: &mut Inspection) -> usize {
    let has = inspection.count();
    match said {
        Some(said) if said != has => inspection.warn(notices::layers(said, has)),
        None if last >= has => inspection.warn(format!(
            "layers are numbered up to {last}, but there are {has}"
        )),
        _ => {}
    }
    // A number in a file makes no list longer than what the file has.
    said.unwrap_or(last.saturating_add(1))
        .min(has.saturating_mul(2).saturating_add(16))
}
