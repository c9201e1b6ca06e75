//! Which keys of a strip are worked on: all of them, or the runs that a block mask leaves. Shared
//! by `prefill/` and `decode/`. Knows no rows.

use super::visible::MASK_BLOCK;
use crate::blocks::STRIP;
use crate::run::carve::Plain;

/// Runs of live blocks in a strip at most: every other block.
const MAX_RUNS: usize = STRIP / MASK_BLOCK / 2;

/// A strip that rows visit, and its runs of live keys. Strips are counted from key 0, whatever of
/// them is live, so that no bit depends on it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LiveStrip {
    /// Which strip of the row.
    pub(super) number: usize,
    runs: [(usize, usize); MAX_RUNS],
    len: usize,
}

// SAFETY: integers of one size, any bits of which are one.
unsafe impl Plain for LiveStrip {}

impl LiveStrip {
    /// All keys of `from..to`, which lie in one strip.
    #[inline(always)]
    pub(super) fn whole(from: usize, to: usize) -> Self {
        let mut strip = Self {
            number: from / STRIP,
            len: 1,
            ..Self::default()
        };
        strip.runs[0] = (from, to);
        strip
    }

    /// Those of `from..to`, which lie in one strip, whose block of keys is live; `None` where none
    /// is.
    pub(super) fn masked(from: usize, to: usize, is_live: impl Fn(usize) -> bool) -> Option<Self> {
        let mut strip = Self {
            number: from / STRIP,
            ..Self::default()
        };
        for block in from / MASK_BLOCK..to.div_ceil(MASK_BLOCK) {
            if !is_live(block) {
                continue;
            }
            let start = from.max(block * MASK_BLOCK);
            let end = to.min((block + 1) * MASK_BLOCK);
            match strip.runs[..strip.len].last_mut() {
                Some(last) if last.1 == start => last.1 = end,
                _ => {
                    strip.runs[strip.len] = (start, end);
                    strip.len += 1;
                }
            }
        }
        (strip.len > 0).then_some(strip)
    }

    /// Runs of live keys, in order; one at least.
    #[inline(always)]
    pub(super) fn runs(&self) -> &[(usize, usize)] {
        &self.runs[..self.len]
    }

    /// The first live key.
    #[inline(always)]
    pub(super) fn start(&self) -> usize {
        self.runs[0].0
    }

    /// The end of the last run.
    #[inline(always)]
    pub(super) fn end(&self) -> usize {
        self.runs[self.len.clamp(1, MAX_RUNS) - 1].1
    }
}
