//! Pass 1: scores of a head's own terms, strip by strip turned into exponentials while they are near.
//! Knows no values and no results.

use super::RowBlock;
use super::geometry::{Geometry, LiveStrip};
use super::sink::{Adjust, ScoreSink};
use crate::attention::groups::{Block, HeadStep, TermStep};
use crate::attention::lanes::{load, store};
use crate::attention::packed::Rows;
use crate::attention::softmax::{StripSums, safe_max};
use crate::tile::{Depth, Operands, PANEL, Tile};
use crate::vector::{Vector, transpose};

/// Where one strip's scores of one term come from and go to.
struct StripOf<'s> {
    /// Which of the step's own terms.
    index: usize,
    term: &'s TermStep,
    /// Place in the list of visited strips.
    place: usize,
    strip: LiveStrip,
    /// Key of the first row of the gathered elements.
    first_element: usize,
}

impl RowBlock<'_, '_> {
    /// Exponentials of the step's own terms, with the maxima and sums of their strips.
    #[inline(always)]
    pub(super) fn exponentials<V: Vector>(&mut self, geometry: &Geometry, step: &HeadStep) {
        for (index, term) in step.compute.iter().enumerate() {
            self.queries::<V>(geometry, index, term);
        }
        for place in 0..geometry.strips {
            let strip = self.scratch.live[place];
            let first_element = strip.start() / PANEL * PANEL;
            if !self.call.elements.is_empty() {
                self.gather_elements(step.head, first_element, strip.end());
            }
            for (index, term) in step.compute.iter().enumerate() {
                let of = StripOf {
                    index,
                    term,
                    place,
                    strip,
                    first_element,
                };
                self.scores::<V>(geometry, &of);
                self.strip_exponentials::<V>(geometry, &of);
            }
        }
    }

    /// Packs the queries of a term, and asks for those that come next.
    #[inline(always)]
    fn queries<V: Vector>(&mut self, geometry: &Geometry, index: usize, term: &TermStep) {
        let Block { first, rows, .. } = self.block;
        let (width, stride) = (self.call.width, geometry.stride);
        let from = self.call.query_rows(self.block.sequence, term.q);
        let to = &mut self.scratch.queries[index * width * stride..][..width * stride];
        pack_queries::<V>(&from, first..first + rows, to, &mut self.scratch.rows);
        let factor = self.call.scores.query;
        if factor != 1.0 {
            for value in to {
                *value *= factor;
            }
        }
        // Blocks go from the last to the first: the next one's queries.
        for next in (first.saturating_sub(rows)..first).step_by(PANEL) {
            from.prefetch::<V>(next, first);
        }
    }

    /// Scores of one strip of one term, and their maxima.
    #[inline(always)]
    fn scores<V: Vector>(&mut self, geometry: &Geometry, of: &StripOf<'_>) {
        let stride = geometry.stride;
        let at = geometry.strip_at(of.term.slot, of.place);
        self.scratch.strip_max[at..][..stride].fill(f32::NEG_INFINITY);
        for &(from, to) in of.strip.runs() {
            let from = from / PANEL * PANEL;
            // Most strips lie below the diagonal: their tiles need not be asked one by one (1 to 2 % of the time).
            let is_whole = geometry.spans[..geometry.vectors]
                .iter()
                .all(|span| span.is_full(from, to.next_multiple_of(PANEL)));
            for key in (from..to).step_by(V::Tile::ROWS) {
                let mut chunk = 0;
                while chunk < geometry.vectors {
                    let chunk_end = (chunk + V::Tile::VECTORS).min(geometry.vectors);
                    let (first, last, full) = if is_whole {
                        (chunk, chunk_end, true)
                    } else {
                        geometry.active((chunk, chunk_end), key, key + V::Tile::ROWS)
                    };
                    if first < last {
                        self.score_tile::<V>(geometry, of, key, (first..last, full));
                    }
                    chunk = chunk_end;
                }
            }
        }
    }

    /// One tile of scores: keys from `key`, the vectors of queries given, and whether they see all of it.
    #[inline(always)]
    fn score_tile<V: Vector>(
        &mut self,
        geometry: &Geometry,
        of: &StripOf<'_>,
        key: usize,
        (vectors, full): (std::ops::Range<usize>, bool),
    ) {
        let Geometry {
            stride,
            score_column,
            base,
            ..
        } = *geometry;
        let (call, scratch) = (self.call, &mut *self.scratch);
        let lane = vectors.start * V::LANES;
        let slot = &mut scratch.scores[of.term.slot * scratch.slot_len..];
        let to = &mut slot[vectors.start * score_column + (key - base) * V::LANES..];
        let max_at = geometry.strip_at(of.term.slot, of.place) + lane;
        let is_adjusted = !full
            || call.scores.dot.is_some()
            || call.softcap.is_some()
            || !call.elements.is_empty();
        let sink = ScoreSink {
            to: to.as_mut_ptr(),
            column: score_column,
            strip_max: scratch.strip_max[max_at..].as_mut_ptr(),
            adjust: is_adjusted.then(|| Adjust {
                scale: call.scores.dot,
                softcap: call.softcap,
                bias: (!call.elements.is_empty())
                    .then(|| scratch.bias[(key - of.first_element) * stride + lane..].as_ptr()),
                stride,
                range: (!full)
                    .then(|| (scratch.low[lane..].as_ptr(), scratch.high[lane..].as_ptr())),
                row: (key - base) as f32,
            }),
        };
        let width = call.width;
        let operands = Operands {
            a: self.block.panels.keys(of.term.k).at(key),
            a_stride: PANEL,
            b: scratch.queries[of.index * width * stride + lane..].as_ptr(),
            b_stride: stride,
            b_vector: V::LANES,
            depth: Depth::whole(width),
        };
        // SAFETY: K panels hold `width` rows of PANEL keys, ROWS divides PANEL and `key` is a multiple of ROWS; packed
        // queries hold `width` rows of `stride` lanes; a column of scores reaches to the last panel's end (scratch.rs);
        // maxima, low and high ends have `stride` lanes, elements as many per key of a strip.
        unsafe { V::Tile::product::<V, _>(vectors.len(), operands, sink) };
    }

    /// Bias and boolean mask of one strip as [key][query], −∞ where masked.
    #[cold]
    fn gather_elements(&mut self, head: usize, from: usize, to: usize) {
        let Block {
            sequence,
            first,
            rows,
            ..
        } = self.block;
        let stride = self.scratch.stride;
        for row in 0..rows {
            let at = sequence.row(head, first + row);
            let bias = &mut self.scratch.bias;
            self.call
                .elements
                .each(at, from, to - from, |index, value| {
                    bias[index * stride + row] = value
                });
        }
    }

    /// Exponentials of one strip of a slot in place, and their sums.
    #[inline(always)]
    fn strip_exponentials<V: Vector>(&mut self, geometry: &Geometry, of: &StripOf<'_>) {
        let exponent = self.call.scores.exponent;
        let scratch = &mut *self.scratch;
        let slot = &mut scratch.scores[of.term.slot * scratch.slot_len..];
        let at = geometry.strip_at(of.term.slot, of.place);
        for (n, span) in geometry.spans[..geometry.vectors].iter().enumerate() {
            let lane = at + n * V::LANES;
            let column = &mut slot[n * geometry.score_column..];
            let strip_max = safe_max(load::<V>(&scratch.strip_max[lane..]));
            let mut sums = StripSums::zero();
            for &(from, to) in of.strip.runs() {
                let (from, to) = span.within(from, to);
                let rows = from.max(geometry.base) - geometry.base;
                let scores = &mut column[rows * V::LANES..][..(to - from) * V::LANES];
                sums.add(scores, from, strip_max, &exponent);
            }
            store(sums.total(), &mut scratch.strip_sum[lane..]);
        }
    }
}

/// Queries `which` as [channel][query]; zeros past the last.
#[inline(always)]
fn pack_queries<V: Vector>(
    rows: &Rows<'_>,
    which: std::ops::Range<usize>,
    to: &mut [f32],
    buffer: &mut [f32],
) {
    let stride = to.len() / rows.width;
    for lane in (0..which.len()).step_by(V::LANES) {
        let count = V::LANES.min(which.len() - lane);
        let (from, from_stride) = rows.read(which.start + lane, count, buffer);
        let to = &mut to[lane..];
        // SAFETY: `count` rows of `width` values, as `read` gives them; `to` has `width` rows of `stride` lanes.
        unsafe {
            transpose::<V>(
                from.as_ptr(),
                from_stride,
                to.as_mut_ptr(),
                stride,
                count,
                rows.width,
            )
        };
    }
    if which.len() < stride {
        for channel in to.chunks_exact_mut(stride) {
            channel[which.len()..].fill(0.0);
        }
    }
}
