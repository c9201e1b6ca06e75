//! Pass 1: scores of a head's own terms, strip by strip turned into exponentials while they are
//! near. Knows no values and no results.

use super::geometry::Geometry;
use super::row_block::RowBlock;
use super::sink::{Adjust, ScoreSink};
use crate::attention::call::Call;
use crate::attention::groups::{Block, HeadStep, TermStep};
use crate::attention::lanes::{load, store, transpose};
use crate::attention::live::LiveStrip;
use crate::attention::packed::KeyPanels;
use crate::attention::softmax::{StripSums, safe_max};
use crate::blocks::PANEL;
use crate::simd::Vector;
use crate::simd::{Operands, Tile, Whole};
use crate::tensor::axis::Rows;
use std::ops::Range;

impl RowBlock<'_, '_> {
    /// Exponentials of the step's own terms, with the maxima and sums of their strips.
    #[inline(always)]
    pub(super) fn exponentials<V: Vector>(&mut self, geometry: &Geometry<'_>, step: &HeadStep) {
        let stride = geometry.stride;
        let packed = self.call.width * stride;
        for (index, term) in step.compute.iter().enumerate() {
            self.queries::<V>(geometry, index, term);
        }
        for place in 0..geometry.strips {
            let strip = self.scratch.live[place];
            if !self.call.elements.is_empty() {
                self.gather_elements(step.head, first_row(&strip), strip.end());
            }
            let scratch = &mut *self.scratch;
            for (index, term) in step.compute.iter().enumerate() {
                let at = geometry.strip_at(term.slot, place);
                let mut scores = StripScores {
                    call: self.call,
                    geometry,
                    strip,
                    keys: self.block.panels.keys(term.k),
                    queries: &scratch.queries[index * packed..][..packed],
                    elements: scratch.bias,
                    near: scratch.near,
                    ends: (scratch.low, scratch.high),
                    scores: &mut scratch.scores[term.slot * scratch.slot_len..],
                    max: &mut scratch.strip_max[at..][..stride],
                };
                scores.fill::<V>();
                scores.exponentials::<V>(&mut scratch.strip_sum[at..][..stride]);
            }
        }
    }

    /// Packs the queries of a term, and asks for those that come next.
    #[inline(always)]
    fn queries<V: Vector>(&mut self, geometry: &Geometry<'_>, index: usize, term: &TermStep) {
        let Block { first, rows, .. } = self.block;
        let (width, stride) = (self.call.width, geometry.stride);
        let from = self.call.query_rows(self.block.sequence, term.q);
        let to = &mut self.scratch.queries[index * width * stride..][..width * stride];
        pack_queries::<V>(&from, first..first + rows, to, self.scratch.rows);
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
}

/// The key of a strip that its gathered elements begin with.
#[inline(always)]
fn first_row(strip: &LiveStrip) -> usize {
    strip.start() / PANEL * PANEL
}

/// One strip of one term: what its scores are made of, and where they go.
struct StripScores<'s, 'a> {
    call: &'s Call<'a>,
    geometry: &'s Geometry<'s>,
    strip: LiveStrip,
    keys: KeyPanels<'s>,
    /// `[channel][query]`.
    queries: &'s [f32],
    /// `[key][query]` from [`first_row`] on; empty where nothing masks by element.
    elements: &'s [f32],
    /// Room for a panel of keys as float32, where they are not held as that.
    near: &'s mut [f32],
    /// First and end key of each query.
    ends: (&'s [f32], &'s [f32]),
    /// `[vector of queries][key][lane]`.
    scores: &'s mut [f32],
    /// `[query]`.
    max: &'s mut [f32],
}

impl StripScores<'_, '_> {
    /// Scores and their maxima, tile by tile.
    #[inline(always)]
    fn fill<V: Vector>(&mut self) {
        let geometry = self.geometry;
        let vectors = geometry.vectors;
        self.max.fill(f32::NEG_INFINITY);
        let strip = self.strip;
        for &(from, to) in strip.runs() {
            let from = from / PANEL * PANEL;
            // Most strips lie below the diagonal: their tiles need not be asked one by one (1 to 2
            // % of the time).
            let is_whole = geometry.spans[..vectors]
                .iter()
                .all(|span| span.is_full(from, to.next_multiple_of(PANEL)));
            let mut panel = std::ptr::null();
            for key in (from..to).step_by(V::Tile::ROWS) {
                if key.is_multiple_of(PANEL) {
                    panel = self.keys.near::<V>(key, PANEL, self.near);
                }
                let keys = panel.wrapping_add(key % PANEL);
                let mut chunk = 0;
                while chunk < vectors {
                    let chunk_end = geometry.chunk_end::<V>(chunk);
                    let (first, last, full) = if is_whole {
                        (chunk, chunk_end, true)
                    } else {
                        geometry.active((chunk, chunk_end), key, key + V::Tile::ROWS)
                    };
                    if first < last {
                        self.tile::<V>((key, keys), first..last, full);
                    }
                    chunk = chunk_end;
                }
            }
        }
    }

    /// One tile of scores: keys from `key` on, which lie at `keys`, vectors of queries, and whether
    /// they see all of it.
    #[inline(always)]
    fn tile<V: Vector>(
        &mut self,
        (key, keys): (usize, *const f32),
        vectors: Range<usize>,
        full: bool,
    ) {
        let Geometry {
            stride,
            score_column,
            base,
            ..
        } = *self.geometry;
        let (call, lane) = (self.call, vectors.start * V::LANES);
        let is_masked = !call.elements.is_empty();
        let is_adjusted = !full || is_masked || call.scores.dot.is_some() || call.softcap.is_some();
        let to = &mut self.scores[vectors.start * score_column + (key - base) * V::LANES..];
        let sink = ScoreSink {
            to: to.as_mut_ptr(),
            column: score_column,
            strip_max: self.max[lane..].as_mut_ptr(),
            adjust: is_adjusted.then(|| Adjust {
                scale: call.scores.dot,
                softcap: call.softcap,
                bias: is_masked.then(|| {
                    let row = key - first_row(&self.strip);
                    self.elements[row * stride + lane..].as_ptr()
                }),
                stride,
                range: (!full).then(|| {
                    let (low, high) = self.ends;
                    (low[lane..].as_ptr(), high[lane..].as_ptr())
                }),
                row: (key - base) as f32,
            }),
        };
        let operands = Operands {
            a: keys,
            a_stride: PANEL,
            b: self.queries[lane..].as_ptr(),
            b_stride: stride,
            b_vector: V::LANES,
            depth: Whole(call.width),
        };
        // SAFETY: K panels hold `width` rows of PANEL keys, ROWS divides PANEL and `key` is a
        // multiple of ROWS; packed queries hold `width` rows of `stride` lanes; a column of scores
        // reaches to the last panel's end (scratch.rs); maxima, low and high ends have `stride`
        // lanes, elements as many per key of a strip.
        unsafe { V::Tile::product::<V, _, _>(vectors.len(), operands, sink) };
    }

    /// Turns the scores into exponentials, in place, and gives their sums.
    #[inline(always)]
    fn exponentials<V: Vector>(&mut self, strip_sum: &mut [f32]) {
        let exponent = self.call.scores.exponent;
        let geometry = self.geometry;
        let lanes = self.max.chunks_exact(V::LANES);
        let lanes = lanes.zip(strip_sum.chunks_exact_mut(V::LANES));
        let columns = self.scores.chunks_mut(geometry.score_column);
        let spans = geometry.spans[..geometry.vectors].iter();
        for ((span, column), (max, sum)) in spans.zip(columns).zip(lanes) {
            let strip_max = safe_max(load::<V>(max));
            let mut sums = StripSums::zero();
            for &(from, to) in self.strip.runs() {
                let (from, to) = span.within(from, to);
                let rows = from.max(geometry.base) - geometry.base;
                let scores = &mut column[rows * V::LANES..][..(to - from) * V::LANES];
                sums.add(scores, from, strip_max, &exponent);
            }
            store(sums.total(), sum);
        }
    }
}

/// Queries `which` as [channel][query]; zeros past the last.
#[inline(always)]
fn pack_queries<V: Vector>(
    rows: &Rows<'_>,
    which: Range<usize>,
    to: &mut [f32],
    buffer: &mut [f32],
) {
    let stride = to.len() / rows.width;
    for lane in (0..which.len()).step_by(V::LANES) {
        let count = V::LANES.min(which.len() - lane);
        let (from, from_stride) = rows.read(which.start + lane, count, buffer);
        let to = (&mut to[lane..], stride);
        transpose::<V>((from, from_stride), to, count, rows.width);
    }
    if which.len() < stride {
        for channel in to.chunks_exact_mut(stride) {
            channel[which.len()..].fill(0.0);
        }
    }
}
