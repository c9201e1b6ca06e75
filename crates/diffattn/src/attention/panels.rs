//! Panels of the heads that a block may ask for: packed for the call, or a cache's own. Knows
//! nothing of what is in them.

use super::cache::KvCache;
use super::held::CacheDType;
use super::packed::{KeyPanels, ValuePanels, ValueShape};
use crate::run::few::Few;
use std::sync::atomic::AtomicBool;

/// Packed heads of one unit, in the order of their numbers: (head, where its panels begin).
#[derive(Debug, Default)]
pub(super) struct PackedUnit {
    pub(super) k: Few<(usize, usize), 2>,
    /// (head, where its panels begin, where its strips' flags begin).
    pub(super) v: Few<(usize, usize, usize), 2>,
}

/// Panels of the heads that a block may ask for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Panels<'c> {
    Packed {
        k: &'c [f32],
        v: &'c [f32],
        special: &'c [AtomicBool],
        unit: &'c PackedUnit,
        width: usize,
        shape: ValueShape,
    },
    Cache {
        cache: &'c KvCache,
        batch: usize,
    },
}

impl<'c> Panels<'c> {
    /// The panels of k head `head`.
    pub(super) fn keys(&self, head: usize) -> KeyPanels<'c> {
        match *self {
            Self::Packed { k, unit, width, .. } => {
                let place = unit.k.binary_search_by_key(&head, |entry| entry.0);
                let first = place.map_or(k.len(), |place| unit.k[place].1);
                KeyPanels {
                    words: &k[first..],
                    dtype: CacheDType::F32,
                    scales: &[],
                    width,
                }
            }
            Self::Cache { cache, batch } => cache.keys(batch, head),
        }
    }

    /// The panels of v head `head`.
    pub(super) fn values(&self, head: usize) -> ValuePanels<'c> {
        match *self {
            Self::Packed {
                v,
                special,
                unit,
                shape,
                ..
            } => {
                let place = unit.v.binary_search_by_key(&head, |entry| entry.0);
                let (first, flags) = place.map_or((v.len(), special.len()), |place| {
                    let (_, first, flags) = unit.v[place];
                    (first, flags)
                });
                ValuePanels {
                    words: &v[first..],
                    dtype: CacheDType::F32,
                    scales: &[],
                    shape,
                    special: &special[flags..],
                }
            }
            Self::Cache { cache, batch } => cache.values(batch, head),
        }
    }
}
