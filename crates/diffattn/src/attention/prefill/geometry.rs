//! Which keys a block of queries visits: strips with their runs of live keys, and what of them each
//! vector of queries sees. Knows no scores.

use super::row_block::RowBlock;
use crate::attention::groups::Block;
use crate::attention::live::LiveStrip;
use crate::blocks::{PANEL, QUERY_STRIP, STRIP};
use crate::simd::{Tile, Vector};

/// Vectors of a block at most: the narrowest vectors, of one lane, have the most.
pub(super) const MAX_VECTORS: usize = QUERY_STRIP;

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

impl Span {
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

/// What is fixed for a block once its rows are known.
pub(in crate::attention) struct Geometry {
    /// Queries per block: the stride of every [..][query] buffer.
    pub(super) stride: usize,
    /// What one vector's scores take in a slot, and its P in a strip.
    pub(super) score_column: usize,
    pub(super) p_column: usize,
    /// Vectors in use.
    pub(super) vectors: usize,
    pub(super) spans: [Span; MAX_VECTORS],
    /// The key of score row 0: the first live key rounded down to a panel.
    pub(super) base: usize,
    /// The strips that are visited: the length of `Scratch::live`.
    pub(super) strips: usize,
}

impl Geometry {
    /// Where `[slot or term][strip][query]` buffers hold a strip.
    #[inline(always)]
    pub(super) fn strip_at(&self, slot: usize, strip: usize) -> usize {
        (slot * self.strips + strip) * self.stride
    }

    /// Where `[slot or term][strip][query]` buffers hold all strips of one.
    #[inline(always)]
    pub(super) fn strips_of(&self, slot: usize) -> std::ops::Range<usize> {
        self.strip_at(slot, 0)..self.strip_at(slot + 1, 0)
    }

    /// Where the vectors end that a tile takes together from vector `chunk` on. (Of four, two and
    /// two: a tile of one vector has too few sums to hide the latency of a multiply-add.)
    #[inline(always)]
    pub(super) fn chunk_end<V: Vector>(&self, chunk: usize) -> usize {
        let left = self.vectors - chunk;
        let most = V::Tile::VECTORS;
        chunk
            + if left == most + 1 {
                left / 2
            } else {
                left.min(most)
            }
    }

    /// The vectors of `chunk..chunk_end` that see a key of `from..to`, and whether all of them see
    /// all of it.
    #[inline(always)]
    pub(super) fn active(
        &self,
        (chunk, chunk_end): (usize, usize),
        from: usize,
        to: usize,
    ) -> (usize, usize, bool) {
        let spans = &self.spans;
        let (mut first, mut last, mut full) = (chunk_end, chunk, true);
        for (n, span) in spans.iter().enumerate().take(chunk_end).skip(chunk) {
            if span.start < to && from < span.end {
                first = first.min(n);
                last = n + 1;
            }
        }
        for span in spans.iter().take(last).skip(first) {
            full &= span.is_full(from, to);
        }
        (first, last, full)
    }
}

impl RowBlock<'_, '_> {
    /// What each row sees, as ranges, and the strips that the block visits. Lanes past the last row
    /// repeat it, so that they never make a tile partial.
    #[inline(always)]
    pub(super) fn geometry<V: Vector>(&mut self) -> Geometry {
        let stride = self.scratch.stride;
        let vectors = self.block.rows.div_ceil(V::LANES);
        let (spans, start, end) = self.spans::<V>(vectors);
        self.visit(start, end);
        let base = self.scratch.live.first().map_or(0, LiveStrip::start) / PANEL * PANEL;
        for lane in 0..vectors * V::LANES {
            // Relative to the base they are exact in float32: a call has fewer than 2²⁴ keys.
            let (low, high) = self.scratch.row_ranges[lane];
            self.scratch.low[lane] = low as f32 - base as f32;
            self.scratch.high[lane] = high as f32 - base as f32;
        }
        Geometry {
            strips: self.scratch.live.len(),
            stride,
            score_column: self.scratch.slot_len / (stride / V::LANES),
            p_column: self.scratch.strip.len() / (stride / V::LANES),
            vectors,
            spans,
            base,
        }
    }

    /// The spans of the block's vectors, and the union of them all.
    #[inline(always)]
    fn spans<V: Vector>(&mut self, vectors: usize) -> ([Span; MAX_VECTORS], usize, usize) {
        let Block {
            sequence,
            first,
            rows,
            ..
        } = self.block;
        let mut spans = [Span::default(); MAX_VECTORS];
        let (mut start, mut end) = (usize::MAX, 0);
        for (n, span) in spans.iter_mut().enumerate().take(vectors) {
            let (mut low, mut high, mut full_low, mut full_high) = (usize::MAX, 0, 0, usize::MAX);
            for lane in 0..V::LANES {
                let row = (n * V::LANES + lane).min(rows - 1);
                let (row_low, row_high) = self.call.band.keys(sequence, first + row);
                self.scratch.row_ranges[n * V::LANES + lane] = (row_low, row_high);
                if row_low < row_high {
                    low = low.min(row_low);
                    high = high.max(row_high);
                }
                full_low = full_low.max(row_low);
                full_high = full_high.min(row_high);
            }
            if low < high {
                *span = Span {
                    start: low,
                    end: high,
                    full_start: full_low,
                    full_end: full_high,
                };
                start = start.min(low);
                end = end.max(high);
            }
        }
        (spans, start.min(end), end)
    }

    /// Lists the strips of `start..end` that have live keys. All rows of a block lie in one block
    /// of queries of a block mask, and all its heads have the same, so that one row of the mask
    /// speaks for them.
    #[inline(always)]
    fn visit(&mut self, start: usize, end: usize) {
        self.scratch.live.clear();
        if start == end {
            return;
        }
        let Block {
            sequence, first, ..
        } = self.block;
        let head = self.block.group.steps.first().map_or(0, |step| step.head);
        let visible = self.call.visible(sequence.row(head, first));
        for strip in start / STRIP..end.div_ceil(STRIP) {
            let (from, to) = ((strip * STRIP).max(start), ((strip + 1) * STRIP).min(end));
            self.scratch.live.extend(match visible.blocks() {
                None => Some(LiveStrip::whole(from, to)),
                Some(blocks) => LiveStrip::masked(from, to, |block| blocks[block] != 0),
            });
        }
    }
}
