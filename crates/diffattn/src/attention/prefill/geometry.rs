//! Which keys a block of queries visits: strips with their runs of live keys, and what of them each
//! vector of queries sees. Knows no scores.

use super::row_block::RowBlock;
use crate::attention::groups::Block;
use crate::attention::live::LiveStrip;
use crate::attention::span::Span;
use crate::blocks::{PANEL, QUERY_STRIP, STRIP};
use crate::simd::{Tile, Vector};

/// Vectors of a block at most: the narrowest vectors, of one lane, have the most.
pub(super) const MAX_VECTORS: usize = QUERY_STRIP;

/// What is fixed for a block once its rows are known.
pub(in crate::attention) struct Geometry<'s> {
    /// Queries per block: the stride of every [..][query] buffer.
    pub(super) stride: usize,
    /// What one vector's scores take in a slot, and its P in a strip.
    pub(super) score_column: usize,
    pub(super) p_column: usize,
    /// Vectors in use.
    pub(super) vectors: usize,
    /// One of each.
    pub(super) spans: &'s [Span],
    /// The key of score row 0: the first live key rounded down to a panel.
    pub(super) base: usize,
    /// The strips that are visited: the length of `Scratch::live`.
    pub(super) strips: usize,
}

impl Geometry<'_> {
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
        let spans = self.spans;
        // Ends never fall from a query to the next: what the first and the last see, all do.
        if spans[chunk].is_full(from, to) && spans[chunk_end - 1].is_full(from, to) {
            return (chunk, chunk_end, true);
        }
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

impl<'c> RowBlock<'c, '_> {
    /// What each row sees, as ranges, and the strips that the block visits. Lanes past the last row
    /// repeat it, so that they never make a tile partial.
    #[inline(always)]
    pub(super) fn geometry<V: Vector>(&mut self) -> Geometry<'c> {
        let stride = self.scratch.stride;
        let vectors = self.block.rows.div_ceil(V::LANES);
        let (spans, start, end) = self.spans::<V>(vectors);
        self.visit(start, end);
        let base = self.scratch.live.first().map_or(0, LiveStrip::start) / PANEL * PANEL;
        let lanes = vectors * V::LANES;
        // Relative to the base they are exact in float32: a call has fewer than 2²⁴ keys.
        let scratch = &mut *self.scratch;
        for (to, ends) in [
            (&mut *scratch.low, &*scratch.row_low),
            (&mut *scratch.high, &*scratch.row_high),
        ] {
            for (to, &end) in to.iter_mut().zip(&ends[..lanes]) {
                *to = (end - base as i32) as f32;
            }
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

    /// The keys of the block's rows; the spans of its vectors, and the union of them all.
    #[inline(always)]
    fn spans<V: Vector>(&mut self, vectors: usize) -> (&'c [Span], usize, usize) {
        let Block {
            sequence,
            first,
            rows,
            ..
        } = self.block;
        let ends = self.call.band.ends(sequence, first);
        let scratch = &mut *self.scratch;
        let (row_low, row_high) = (&mut *scratch.row_low, &mut *scratch.row_high);
        let lanes = row_low.iter_mut().zip(row_high.iter_mut());
        for (lane, (low, high)) in (0..).zip(lanes.take(vectors * V::LANES)) {
            (*low, *high) = ends.of((rows as i32 - 1).min(lane));
        }
        let spans = &mut std::mem::take(&mut scratch.spans)[..vectors];
        let lanes = row_low.chunks_exact(V::LANES);
        let lanes = lanes.zip(row_high.chunks_exact(V::LANES));
        let (mut start, mut end) = (usize::MAX, 0);
        for (span, (low, high)) in spans.iter_mut().zip(lanes) {
            let last = V::LANES - 1;
            *span = Span::of((low[0], high[0]), (low[last], high[last]));
            if span.start < span.end {
                start = start.min(span.start);
                end = end.max(span.end);
            }
        }
        (spans, start.min(end), end)
    }

    /// Lists the strips of `start..end` that have live keys. All rows of a block lie in one block
    /// of queries of a block mask, and all its heads have the same, so that one row of the mask
    /// speaks for them.
    #[inline(always)]
    fn visit(&mut self, start: usize, end: usize) {
        let live = std::mem::take(&mut self.scratch.live);
        if start == end {
            return;
        }
        let Block {
            sequence, first, ..
        } = self.block;
        let head = self.block.group.steps.first().map_or(0, |step| step.head);
        let visible = self.call.visible(sequence.row(head, first));
        let mut count = 0;
        for strip in start / STRIP..end.div_ceil(STRIP) {
            let (from, to) = ((strip * STRIP).max(start), ((strip + 1) * STRIP).min(end));
            let strip = match visible.blocks() {
                None => Some(LiveStrip::whole(from, to)),
                Some(blocks) => LiveStrip::masked(from, to, |block| blocks[block] != 0),
            };
            if let Some(strip) = strip {
                live[count] = strip;
                count += 1;
            }
        }
        self.scratch.live = &mut live[..count];
    }
}
