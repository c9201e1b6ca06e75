//! The keys that one vector of queries sees, as far as ranges go. Knows no tiles.

use crate::run::carve::Plain;

/// The keys that the lanes of one vector may see, as far as ranges go.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Span {
    /// The union over lanes.
    pub(super) start: usize,
    pub(super) end: usize,
    /// The keys that every lane sees.
    full_start: usize,
    full_end: usize,
}

// SAFETY: integers of one size, any bits of which are one.
unsafe impl Plain for Span {}

impl Span {
    /// Of lanes the first and last of which see these keys, `from..to`.
    #[inline(always)]
    pub(super) fn of(first: (i32, i32), last: (i32, i32)) -> Self {
        let keys = |(from, to): (i32, i32)| (from as usize, to as usize);
        let ((start, full_end), (full_start, end)) = (keys(first), keys(last));
        if start >= end {
            return Self::default();
        }
        Self {
            start,
            end,
            full_start,
            full_end,
        }
    }

    /// Whether every lane sees all keys of `from..to`.
    #[inline(always)]
    pub(super) fn is_full(&self, from: usize, to: usize) -> bool {
        self.full_start <= from && to <= self.full_end
    }

    /// The keys of `from..to` that some lane sees; an empty range at `to` where there are none.
    #[inline(always)]
    pub(super) fn within(&self, from: usize, to: usize) -> (usize, usize) {
        let (start, end) = (self.start.clamp(from, to), self.end.clamp(from, to));
        if start < end { (start, end) } else { (to, to) }
    }
}
