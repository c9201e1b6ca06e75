//! Which stretches of keys a block mask leaves to a query, in units of 64. What else hides keys is
//! in `mask.rs`. Knows nothing of tiles, and nothing of strips but that a unit never crosses one.

use super::mask::{Broadcast, RowAt};
use crate::blocks::STRIP;

/// Queries and keys of a block of a block mask.
pub(super) const MASK_BLOCK: usize = 64;

const _: () = assert!(STRIP.is_multiple_of(MASK_BLOCK));

/// The block mask of a call, or none.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Blocks<'a> {
    mask: Option<Broadcast<'a, u8>>,
    /// ⌈Lk/64⌉.
    columns: usize,
}

impl<'a> Blocks<'a> {
    /// `data` of the checked `shape` `[B|1, H|1, ⌈Lq/64⌉, ⌈Lk/64⌉]`.
    pub(super) fn new(data: &'a [u8], shape: [usize; 4]) -> Self {
        Self {
            mask: Some(Broadcast::new(data, &shape)),
            columns: shape[3],
        }
    }

    /// Whether there is no block mask.
    pub(super) fn is_empty(&self) -> bool {
        self.mask.is_none()
    }

    /// Whether it differs between heads, so that heads cannot share a map.
    pub(super) fn depend_on_head(&self) -> bool {
        self.mask.is_some_and(|mask| mask.strides[1] != 0)
    }

    /// What it leaves to a query, and to all others of the query's block.
    pub(super) fn row(&self, (batch, head, query): RowAt) -> Visible<'a> {
        let row = |mask: Broadcast<'a, u8>| mask.row(batch, head, query / MASK_BLOCK);
        Visible {
            live: self
                .mask
                .map(|mask| row(mask).get(..self.columns).unwrap_or_default()),
        }
    }
}

/// What a block mask leaves to a query: non-zero bytes, one per 64 keys from key 0; everything
/// where there is none.
#[derive(Debug, Clone, Copy)]
pub(super) struct Visible<'a> {
    live: Option<&'a [u8]>,
}

impl<'a> Visible<'a> {
    /// The bytes of the mask, one per 64 keys from key 0.
    pub(super) fn blocks(&self) -> Option<&'a [u8]> {
        self.live
    }

    /// Whether `key` is left.
    pub(super) fn sees(&self, key: usize) -> bool {
        self.live
            .is_none_or(|live| live.get(key / MASK_BLOCK).is_some_and(|&byte| byte != 0))
    }

    /// The stretches of `from..to` that are left, in order, as half-open ranges: each begins at a
    /// multiple of 64 or at `from`, ends at one or at `to`, and does not touch the next.
    pub(super) fn ranges(
        self,
        from: usize,
        to: usize,
    ) -> impl Iterator<Item = (usize, usize)> + Clone + 'a {
        let mut key = from;
        std::iter::from_fn(move || {
            let Some(live) = self.live else {
                let range = (key < to).then_some((key, to));
                key = to;
                return range;
            };
            // The end of the stretch of blocks from `key` on that are all live, or all dead.
            let end = |key: usize, is_live: bool| {
                let blocks = live.get(key / MASK_BLOCK..).unwrap_or_default();
                let count = blocks.iter().position(|&byte| (byte != 0) != is_live);
                count.map_or(to, |count| {
                    ((key / MASK_BLOCK + count) * MASK_BLOCK).min(to)
                })
            };
            if key < to && !self.sees(key) {
                key = end(key, false);
            }
            if key >= to {
                return None;
            }
            let start = key;
            key = end(start, true);
            Some((start, key))
        })
    }
}

#[cfg(test)]
mod tests;
