//! The sentences on what is odd about a checkpoint and is loaded all the same: what an inspection warns of and a load tells. Written once,
//! so that both say the same. Decides nothing.

use crate::dtype::Dtype;
use crate::text::excerpt;

/// How many names a sentence lists.
const LISTED: usize = 4;

/// Names in a sentence: the first, and how many more.
pub(crate) fn listed<'n>(names: impl IntoIterator<Item = &'n str>) -> String {
    let mut names = names.into_iter();
    let mut list = names
        .by_ref()
        .take(LISTED)
        .map(excerpt)
        .collect::<Vec<_>>()
        .join(", ");
    match names.count() {
        0 => {}
        more => list += &format!(" and {more} more"),
    }
    list
}

/// Layers that the configuration does not count.
pub(crate) fn layers(said: usize, has: usize) -> String {
    format!("config.json says {said} layers, but the tensors have {has}")
}

/// Tensors whose elements are wider than a model computes with.
pub(crate) fn wide<'n>(tensors: impl IntoIterator<Item = (&'n str, Dtype)>) -> Option<String> {
    let mut wide = tensors
        .into_iter()
        .filter_map(|(name, dtype)| (dtype == Dtype::F64).then_some(name))
        .peekable();
    wide.peek()?;
    let names = listed(wide);
    Some(format!(
        "there are elements of F64 ({names}): a model rounds each to F32, once"
    ))
}

/// Tensors that the model has no use for.
pub(crate) fn unused<'n>(names: impl IntoIterator<Item = &'n str>) -> Option<String> {
    let mut names = names.into_iter().peekable();
    names.peek()?;
    let names = listed(names);
    Some(format!(
        "tensors that the model has no use for stay unread: {names}"
    ))
}
