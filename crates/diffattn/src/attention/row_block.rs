//! THE fused kernel: one block of queries of one head group. Lanes are queries; scores are kept as
//! [vector of queries][key][query]: every sum runs down a lane in key order, no result depends on the lane count,
//! and what follows a tile reads one stretch of memory per vector.
//! Knows nothing of batches, threads or head layouts: callers hand it a block and its panels.
//!
//! Per head of the group:
//! 1. per strip of 256 keys: scores S_t = K_t Qᵀ, tile by tile, masked, with their strip_max; while they are near, exponentials
//!    E_t = exp(scale · (S_t − strip_max_t)) in place, with their strip_sum;
//! 2. row_max and row_sum of all strips, and what puts each strip on the row's footing: exp(scale · (strip_max − row_max));
//! 3. per strip: P = Σ_t (c_t / row_sum_t) · footing_t · E_t, then outᵀ += Vᵀ P, from zero per strip;
//! 4. transpose to rows, norm, store.
//!
//! The price: T × block × Lk scores per thread. The gain over one attention call per map: v is met once.

use super::call::Call;
use super::groups::{Block, HeadStep};
use super::outputs::{MapsOut, Outputs, RowsOut};
use super::packed::{KeyPanels, ValuePanels};
use super::scratch::Scratch;
use super::softmax::{self, exponential_strip, safe_max};
use crate::isa::Kernel;
use crate::tensor::axis::Rows;
use crate::tile::{Operands, PANEL, STRIP, Sink, Tile};
use crate::vector::math;
use crate::vector::{Vector, transpose};

/// Queries of a row block on the vector type it is run with, where no sequence has more queries than `longest`.
pub(super) struct BlockQueries {
    pub(super) longest: usize,
}

impl Kernel for BlockQueries {
    type Output = usize;
    #[inline(always)]
    fn run<V: Vector>(self) -> usize {
        let vectors = self.longest.div_ceil(V::LANES);
        V::LANES * vectors.clamp(1, V::Tile::BLOCK_VECTORS)
    }
}

/// Vectors of a block at most: the narrowest vectors have the most.
const MAX_VECTORS: usize = 16;

/// The keys that the lanes of one vector may see.
#[derive(Debug, Clone, Copy, Default)]
struct Span {
    /// The union over lanes.
    start: usize,
    end: usize,
    /// The keys that every lane sees.
    full_start: usize,
    full_end: usize,
}

/// One block, ready to run.
pub(super) struct RowBlock<'c, 'a> {
    pub(super) call: &'c Call<'a>,
    pub(super) block: Block<'c>,
    pub(super) outputs: &'c Outputs<'a>,
    pub(super) scratch: &'c mut Scratch,
}

/// What is fixed for a block once its rows are known.
struct Geometry {
    /// Queries per block: the stride of every [..][query] buffer.
    stride: usize,
    /// What one vector's scores take in a slot, and its P in a strip.
    score_column: usize,
    p_column: usize,
    /// Vectors in use.
    vectors: usize,
    spans: [Span; MAX_VECTORS],
    /// Union over vectors.
    start: usize,
    end: usize,
    /// The key of score row 0: `start` rounded down to a panel.
    base: usize,
    /// The strips that are seen.
    first_strip: usize,
    strips: usize,
}

impl Geometry {
    /// Where `[slot][strip][query]` buffers hold a strip of a slot.
    #[inline(always)]
    fn strip_at(&self, slot: usize, strip: usize) -> usize {
        (slot * self.strips + strip - self.first_strip) * self.stride
    }

    /// The keys of a strip that are seen.
    #[inline(always)]
    fn strip_keys(&self, strip: usize) -> (usize, usize) {
        let from = (strip * STRIP).max(self.start);
        (from, ((strip + 1) * STRIP).min(self.end))
    }

    #[inline(always)]
    fn strips(&self) -> std::ops::Range<usize> {
        self.first_strip..self.first_strip + self.strips
    }
}

impl Kernel for RowBlock<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(mut self) {
        let geometry = self.geometry::<V>();
        for step in &self.block.group.steps {
            self.scores::<V>(&geometry, step);
            for term in &step.compute {
                self.reduce(&geometry, term.slot);
            }
            match self.outputs {
                Outputs::Maps(maps) => self.write_maps::<V>(&geometry, step, maps),
                Outputs::Rows(rows) => {
                    self.write_lse(&geometry, step, rows);
                    self.weigh(&geometry, step);
                    rows.prefetch::<V>(self.call, &self.block, step.head);
                    self.values::<V>(&geometry, step);
                    self.finish::<V>(&geometry, step, rows);
                }
            }
        }
    }
}

impl RowBlock<'_, '_> {
    /// What each row sees, as ranges. Lanes past the last row repeat it, so that they never make a tile partial.
    #[inline(always)]
    fn geometry<V: Vector>(&mut self) -> Geometry {
        let Block {
            sequence,
            first,
            rows,
            ..
        } = self.block;
        let stride = self.scratch.stride;
        let vectors = rows.div_ceil(V::LANES);
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
        let start = if start < end { start } else { end };
        let base = start / PANEL * PANEL;
        for lane in 0..vectors * V::LANES {
            // Relative to the base they are exact in float32: a call has fewer than 2²⁴ keys.
            let (low, high) = self.scratch.row_ranges[lane];
            self.scratch.low[lane] = low as f32 - base as f32;
            self.scratch.high[lane] = high as f32 - base as f32;
        }
        let first_strip = start / STRIP;
        Geometry {
            first_strip,
            strips: if start < end {
                end.div_ceil(STRIP) - first_strip
            } else {
                0
            },
            stride,
            score_column: self.scratch.slot_len / (stride / V::LANES),
            p_column: self.scratch.strip.len() / (stride / V::LANES),
            vectors,
            spans,
            start,
            end,
            base,
        }
    }

    /// Step 1: scores of the step's own terms, strip by strip turned into exponentials.
    #[inline(always)]
    fn scores<V: Vector>(&mut self, geometry: &Geometry, step: &HeadStep) {
        let Geometry {
            stride,
            score_column,
            vectors,
            spans,
            base,
            ..
        } = *geometry;
        let call = self.call;
        let width = call.width;
        let is_adjusted = call.scores.dot.is_some() || call.softcap.is_some();
        for (index, term) in step.compute.iter().enumerate() {
            let rows = call.query_rows(self.block.sequence, term.q);
            let to = &mut self.scratch.queries[index * width * stride..][..width * stride];
            pack_queries::<V>(
                &rows,
                self.block.first,
                self.block.rows,
                call.scores.query,
                stride,
                to,
                &mut self.scratch.rows,
            );
            // Blocks go from the last to the first: the next one's queries.
            let before = self.block.first.saturating_sub(self.block.rows);
            for first in (before..self.block.first).step_by(PANEL) {
                rows.prefetch::<V>(first, self.block.first);
            }
        }
        for strip in geometry.strips() {
            let (strip_start, strip_end) = geometry.strip_keys(strip);
            let strip_start = strip_start / PANEL * PANEL;
            // Most strips lie below the diagonal: their tiles need not be asked one by one (1 to 2 % of the time).
            let tiles_end = strip_end.next_multiple_of(PANEL);
            let is_whole = spans[..vectors]
                .iter()
                .all(|span| span.full_start <= strip_start && tiles_end <= span.full_end);
            let elements = !call.elements.is_empty();
            if elements {
                self.gather_elements(step.head, strip_start, strip_end, stride);
            }
            for (index, term) in step.compute.iter().enumerate() {
                let keys: KeyPanels<'_> = self.block.panels.keys(term.k);
                let queries = self.scratch.queries[index * width * stride..].as_ptr();
                let scores = self.scratch.scores[term.slot * self.scratch.slot_len..].as_mut_ptr();
                let strip_max =
                    &mut self.scratch.strip_max[geometry.strip_at(term.slot, strip)..][..stride];
                strip_max.fill(f32::NEG_INFINITY);
                let strip_max = strip_max.as_mut_ptr();
                let mut key = strip_start;
                while key < strip_end {
                    let tile_end = key + V::Tile::ROWS;
                    let mut chunk = 0;
                    while chunk < vectors {
                        let chunk_end = (chunk + V::Tile::VECTORS).min(vectors);
                        let (from, to, full) = if is_whole {
                            (chunk, chunk_end, true)
                        } else {
                            active(&spans, chunk, chunk_end, key, tile_end)
                        };
                        chunk = chunk_end;
                        if from >= to {
                            continue;
                        }
                        let lane = from * V::LANES;
                        let is_product = full && !elements && !is_adjusted;
                        let sink = ScoreSink {
                            // SAFETY: a column of scores reaches to the last panel's end (scratch.rs).
                            to: unsafe {
                                scores.add(from * score_column + (key - base) * V::LANES)
                            },
                            column: score_column,
                            // SAFETY: `lane` is below `stride`.
                            strip_max: unsafe { strip_max.add(lane) },
                            adjust: (!is_product).then(|| Adjust {
                                scale: call.scores.dot,
                                softcap: call.softcap,
                                bias: elements.then(|| {
                                    self.scratch.bias[(key - strip_start) * stride + lane..]
                                        .as_ptr()
                                }),
                                stride,
                                range: (!full).then(|| {
                                    (
                                        self.scratch.low[lane..].as_ptr(),
                                        self.scratch.high[lane..].as_ptr(),
                                    )
                                }),
                                row: (key - base) as f32,
                            }),
                        };
                        let operands = Operands {
                            a: keys.at(key),
                            a_stride: PANEL,
                            // SAFETY: `lane` is below `stride`, the width of a row of packed queries.
                            b: unsafe { queries.add(lane) },
                            b_stride: stride,
                            b_vector: V::LANES,
                            depth: width,
                        };
                        // SAFETY: K panels hold `width` rows of PANEL keys, ROWS divides PANEL and `key` is a
                        // multiple of ROWS; packed queries hold `width` rows; the sink as above.
                        unsafe { V::Tile::product::<V, _>(to - from, operands, sink) };
                    }
                    key = tile_end;
                }
                self.exponentials::<V>(geometry, term.slot, strip);
            }
        }
    }

    /// Bias and boolean mask of one strip as [key][query], −∞ where masked.
    #[cold]
    fn gather_elements(&mut self, head: usize, from: usize, to: usize, stride: usize) {
        let Block {
            sequence,
            first,
            rows,
            ..
        } = self.block;
        for row in 0..rows {
            let at = (sequence.batch, head, sequence.first_query + first + row);
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
    fn exponentials<V: Vector>(&mut self, geometry: &Geometry, slot: usize, strip: usize) {
        let Geometry {
            score_column,
            vectors,
            ref spans,
            base,
            ..
        } = *geometry;
        let (strip_from, strip_to) = geometry.strip_keys(strip);
        let exponent = self.call.scores.exponent;
        let scores = self.scratch.scores[slot * self.scratch.slot_len..].as_mut_ptr();
        let at = geometry.strip_at(slot, strip);
        for (n, span) in spans.iter().enumerate().take(vectors) {
            let lane = at + n * V::LANES;
            let (from, to) = (span.start.max(strip_from), span.end.min(strip_to));
            let mut sum = V::splat(0.0);
            if from < to {
                // SAFETY: maxima and sums are `stride` wide per strip; score rows `from − base` to `to − base` of the
                // slot's column, see `scores`.
                unsafe {
                    let strip_max = safe_max(V::load(self.scratch.strip_max[lane..].as_ptr()));
                    let first = scores.add(n * score_column + (from - base) * V::LANES);
                    sum = exponential_strip(first, from, to, strip_max, &exponent);
                }
            }
            // SAFETY: as above.
            unsafe { sum.store(self.scratch.strip_sum[lane..].as_mut_ptr()) };
        }
    }

    /// Step 2: row maxima and sums of a slot, and the footing of its strips.
    #[inline(always)]
    fn reduce(&mut self, geometry: &Geometry, slot: usize) {
        let stride = geometry.stride;
        let at = slot * geometry.strips * stride;
        let len = geometry.strips * stride;
        softmax::reduce(
            self.call.scores.exponent.exact,
            &self.scratch.strip_max[at..][..len],
            &self.scratch.strip_sum[at..][..len],
            &mut self.scratch.footing[at..][..len],
            &mut self.scratch.row_max[slot * stride..][..stride],
            &mut self.scratch.row_sum[slot * stride..][..stride],
        );
    }

    /// The weights of each strip, term and lane.
    #[inline(always)]
    fn weigh(&mut self, geometry: &Geometry, step: &HeadStep) {
        let stride = geometry.stride;
        let Block {
            sequence,
            first,
            rows,
            ..
        } = self.block;
        for (t, &slot) in step.slots.iter().enumerate() {
            for row in 0..rows {
                let query = sequence.first_query + first + row;
                let coefficient = self.call.coefficient(step.head, t, sequence.batch, query);
                self.scratch.shares[row] =
                    softmax::share(coefficient, self.scratch.row_sum[slot * stride + row]);
            }
            for strip in geometry.strips() {
                let footing = &self.scratch.footing[geometry.strip_at(slot, strip)..][..stride];
                let at = ((strip - geometry.first_strip) * step.slots.len() + t) * 2 * stride;
                let (high, low) = self.scratch.weights[at..][..2 * stride].split_at_mut(stride);
                for (((high, low), &share), &footing) in high
                    .iter_mut()
                    .zip(low)
                    .zip(&self.scratch.shares)
                    .zip(footing)
                {
                    [*high, *low] = softmax::weight(share, footing);
                }
            }
        }
    }

    /// Step 3: combines the terms strip by strip and multiplies with v.
    #[inline(always)]
    fn values<V: Vector>(&mut self, geometry: &Geometry, step: &HeadStep) {
        let Geometry {
            stride,
            p_column,
            vectors,
            spans,
            ..
        } = *geometry;
        let padded = self.call.value_shape.padded();
        let total = step.v.len() * padded * stride;
        self.scratch.out[..total].fill(0.0);
        for strip in geometry.strips() {
            let (from, to) = geometry.strip_keys(strip);
            self.combine::<V>(geometry, step, strip);
            for (index, &v) in step.v.iter().enumerate() {
                let values: ValuePanels<'_> = self.block.panels.values(v);
                let special = values.is_special(strip);
                let out = self.scratch.out[index * padded * stride..].as_mut_ptr();
                let width = self.call.value_shape.width;
                for panel in (0..width).step_by(PANEL) {
                    let mut a = values.at(from, panel);
                    if special {
                        values.finite_copy(from, to - from, panel, &mut self.scratch.finite);
                        a = self.scratch.finite.as_ptr();
                    }
                    // A chunk's P and the panel stay in L1 for all of the panel's tiles. (Asking for the panels that come next gains
                    // nothing, and its loop takes 2 %.) All vectors go to the strip's end,
                    // over zeros: cut where each one's keys end, 512 tokens have 3 % fewer products and take as long.
                    let mut chunk = 0;
                    while chunk < vectors {
                        let chunk_end = (chunk + V::Tile::VECTORS).min(vectors);
                        let (first, last, _) = active(&spans, chunk, chunk_end, from, to);
                        chunk = chunk_end;
                        if first >= last {
                            continue;
                        }
                        let lane = first * V::LANES;
                        for channel in (panel..width.min(panel + PANEL)).step_by(V::Tile::ROWS) {
                            // SAFETY: a V panel holds `to − from` keys from here, PANEL wide, ROWS divides PANEL;
                            // a column of P holds as many rows; outᵀ has `padded` rows per v head.
                            unsafe {
                                let operands = Operands {
                                    a: a.add(channel - panel),
                                    a_stride: PANEL,
                                    b: self.scratch.strip[first * p_column..].as_ptr(),
                                    b_stride: V::LANES,
                                    b_vector: p_column,
                                    depth: to - from,
                                };
                                let sink = AddSink {
                                    to: out.add(channel * stride + lane),
                                    stride,
                                };
                                V::Tile::product::<V, _>(last - first, operands, sink);
                            }
                        }
                    }
                }
                if special {
                    self.add_special::<V>(geometry, step, index, &values, from, to);
                }
            }
        }
    }

    /// P = Σ_t weight_t E_t for the keys of one strip, as [key][query].
    #[inline(always)]
    fn combine<V: Vector>(&mut self, geometry: &Geometry, step: &HeadStep, strip: usize) {
        let Geometry {
            stride,
            score_column,
            p_column,
            vectors,
            ref spans,
            base,
            ..
        } = *geometry;
        let (from, to) = geometry.strip_keys(strip);
        let weights = (strip - geometry.first_strip) * step.slots.len() * 2 * stride;
        for (n, span) in spans.iter().enumerate().take(vectors) {
            let lane = weights + n * V::LANES;
            let (seen_from, seen_to) = (span.start.clamp(from, to), span.end.clamp(from, to));
            let (seen_from, seen_to) = if seen_from < seen_to {
                (seen_from, seen_to)
            } else {
                (to, to)
            };
            let p = &mut self.scratch.strip[n * p_column..][..(to - from) * V::LANES];
            p[..(seen_from - from) * V::LANES].fill(0.0);
            p[(seen_to - from) * V::LANES..].fill(0.0);
            let p = p.as_mut_ptr();
            let (keys, weights) = (seen_to - seen_from, self.scratch.weights[lane..].as_ptr());
            let scores = |t: usize| {
                let slot = step.slots[t] * self.scratch.slot_len;
                self.scratch.scores[slot..]
                    .as_ptr()
                    .wrapping_add(n * score_column + (seen_from.max(base) - base) * V::LANES)
            };
            // SAFETY: (all of these) scores as in `scores`, weights are `stride` wide, P as above.
            unsafe {
                let p = p.wrapping_add((seen_from - from) * V::LANES);
                match step.slots.len() {
                    1 => combine_terms::<V, 1>([scores(0)], weights, stride, p, keys),
                    2 => combine_terms::<V, 2>([scores(0), scores(1)], weights, stride, p, keys),
                    terms => {
                        for part in [1, 0] {
                            for t in 0..terms {
                                let weights = weights.add((2 * t + part) * stride);
                                add_term::<V>(scores(t), weights, p, keys, part == 1 && t == 0);
                            }
                        }
                    }
                }
            }
        }
    }

    /// NaN and infinities of v, which the product took as zeros, for the rows that see them.
    #[cold]
    fn add_special<V: Vector>(
        &mut self,
        geometry: &Geometry,
        step: &HeadStep,
        index: usize,
        values: &ValuePanels<'_>,
        from: usize,
        to: usize,
    ) {
        let Block {
            sequence,
            first,
            rows,
            ..
        } = self.block;
        let out = index * self.call.value_shape.padded();
        values.each_special(from, to - from, |key, channel, value| {
            for row in 0..rows {
                let (low, high) = self.scratch.row_ranges[row];
                let query = (
                    sequence.batch,
                    step.head,
                    sequence.first_query + first + row,
                );
                // A row whose scores are all −∞ counts as one that sees nothing.
                let row_sum = |slot: &usize| self.scratch.row_sum[slot * geometry.stride + row];
                let is_empty = step.slots.iter().all(|slot| row_sum(slot) == 0.0);
                let seen = (low..high).contains(&key) && self.call.elements.sees(query, key);
                if seen && !is_empty {
                    let (n, lane) = (row / V::LANES, row % V::LANES);
                    let p =
                        self.scratch.strip[n * geometry.p_column + (key - from) * V::LANES + lane];
                    self.scratch.out[(out + channel) * geometry.stride + row] += p * value;
                }
            }
        });
    }

    /// Step 4: rows out of outᵀ, through the norm, into the result.
    #[inline(always)]
    fn finish<V: Vector>(&mut self, geometry: &Geometry, step: &HeadStep, outputs: &RowsOut<'_>) {
        let Block {
            sequence,
            first,
            rows,
            ..
        } = self.block;
        let shape = self.call.value_shape;
        let stride = geometry.stride;
        let width = step.v.len() * shape.width;
        for n in 0..geometry.vectors {
            let query = first + n * V::LANES;
            let count = V::LANES.min(rows - n * V::LANES);
            // A float32 result takes the rows where they belong.
            let place = outputs.rows(self.call, sequence.row(step.head, query));
            let (to, to_stride) = place.unwrap_or((self.scratch.rows.as_mut_ptr(), width));
            for index in 0..step.v.len() {
                let from = &self.scratch.out[index * shape.padded() * stride + n * V::LANES..];
                // SAFETY: outᵀ has `width` rows of `stride` queries per v head. `to` has `count` rows: scratch, or the
                // result, which `bind` checked and borrowed for 'a; no other block has these rows.
                unsafe {
                    let (from, to) = (from.as_ptr(), to.add(index * shape.width));
                    transpose::<V>(from, stride, to, to_stride, shape.width, count);
                }
            }
            for row in 0..count {
                // SAFETY: as above.
                let y = unsafe { std::slice::from_raw_parts_mut(to.add(row * to_stride), width) };
                if place.is_some() {
                    self.call.norm_row::<V>(y);
                } else {
                    let at = sequence.row(step.head, query + row);
                    outputs.write_row::<V>(self.call, at, y);
                }
            }
        }
    }

    /// Log-sum-exp of each term, where asked for.
    fn write_lse(&self, geometry: &Geometry, step: &HeadStep, outputs: &RowsOut<'_>) {
        let Block {
            sequence,
            first,
            rows,
            ..
        } = self.block;
        if !outputs.wants_lse() {
            return;
        }
        for t in 0..self.call.plan.terms {
            for row in 0..rows {
                let lse = step.slots.get(t).map_or(f32::NEG_INFINITY, |slot| {
                    let at = slot * geometry.stride + row;
                    self.call
                        .scores
                        .log_sum_exp(self.scratch.row_max[at], self.scratch.row_sum[at])
                });
                outputs.write_lse(self.call, sequence.row(step.head, first + row), t, lse);
            }
        }
    }

    /// Each term's map and their combination, row by row.
    fn write_maps<V: Vector>(
        &mut self,
        geometry: &Geometry,
        step: &HeadStep,
        outputs: &MapsOut<'_>,
    ) {
        let Block {
            sequence,
            first,
            rows,
            ..
        } = self.block;
        for row in 0..rows {
            let range = self.scratch.row_ranges[row];
            outputs.write_row(
                self.call,
                (sequence, step.head, first + row),
                std::iter::once(range),
                |t, key| {
                    let slot = *step.slots.get(t)?;
                    let share =
                        softmax::share(1.0, self.scratch.row_sum[slot * geometry.stride + row]);
                    let footing = self.scratch.footing[geometry.strip_at(slot, key / STRIP) + row];
                    let at = slot * self.scratch.slot_len
                        + row / V::LANES * geometry.score_column
                        + (key - geometry.base) * V::LANES
                        + row % V::LANES;
                    (share != 0.0)
                        .then(|| (f64::from(self.scratch.scores[at]) * (share * footing)) as f32)
                },
            );
        }
    }
}

/// The vectors of `chunk..chunk_end` that see a key of `from..to`, and whether all of them see all of it.
#[inline(always)]
fn active(
    spans: &[Span; MAX_VECTORS],
    chunk: usize,
    chunk_end: usize,
    from: usize,
    to: usize,
) -> (usize, usize, bool) {
    let (mut first, mut last, mut full) = (chunk_end, chunk, true);
    for (n, span) in spans.iter().enumerate().take(chunk_end).skip(chunk) {
        if span.start < to && from < span.end {
            first = first.min(n);
            last = n + 1;
        }
    }
    for span in spans.iter().take(last).skip(first) {
        full &= span.full_start <= from && to <= span.full_end;
    }
    (first, last, full)
}

/// `count` queries from `first` as [channel][query], times `factor`; zeros past the last row.
#[inline(always)]
fn pack_queries<V: Vector>(
    rows: &Rows<'_>,
    first: usize,
    count: usize,
    factor: f32,
    stride: usize,
    to: &mut [f32],
    buffer: &mut [f32],
) {
    for lane in (0..count).step_by(V::LANES) {
        let count = V::LANES.min(count - lane);
        let (from, from_stride) = rows.read(first + lane, count, buffer);
        // SAFETY: `count` rows of `width` values, as `read` gives them; `to` has `width` rows of `stride` lanes.
        unsafe {
            let to = to.as_mut_ptr().add(lane);
            transpose::<V>(from.as_ptr(), from_stride, to, stride, count, rows.width);
        }
    }
    if count < stride {
        for channel in to.chunks_exact_mut(stride) {
            channel[count..].fill(0.0);
        }
    }
    if factor != 1.0 {
        for value in to {
            *value *= factor;
        }
    }
}

/// P = Σ_t (low_t E_t) + Σ_t (high_t E_t), the low parts first.
///
/// # Safety
/// Scores and P have `keys` vectors; `weights` has 2 T rows, `stride` apart.
#[inline(always)]
unsafe fn combine_terms<V: Vector, const T: usize>(
    scores: [*const f32; T],
    weights: *const f32,
    stride: usize,
    p: *mut f32,
    keys: usize,
) {
    let (mut high, mut low) = ([V::splat(0.0); T], [V::splat(0.0); T]);
    // SAFETY: (all of this function) the caller's promise.
    unsafe {
        for t in 0..T {
            high[t] = V::load(weights.add(2 * t * stride));
            low[t] = V::load(weights.add((2 * t + 1) * stride));
        }
        for key in 0..keys {
            let mut e = [V::splat(0.0); T];
            for t in 0..T {
                e[t] = V::load(scores[t].add(key * V::LANES));
            }
            let mut sum = e[0].mul(low[0]);
            for t in 1..T {
                sum = e[t].mul_add(low[t], sum);
            }
            for t in 0..T {
                sum = e[t].mul_add(high[t], sum);
            }
            sum.store(p.add(key * V::LANES));
        }
    }
}

/// One part of one term of [`combine_terms`], added to P (or its first).
///
/// # Safety
/// As [`combine_terms`].
#[inline(always)]
unsafe fn add_term<V: Vector>(
    scores: *const f32,
    weights: *const f32,
    p: *mut f32,
    keys: usize,
    first: bool,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let weight = V::load(weights);
        for key in 0..keys {
            let (e, at) = (V::load(scores.add(key * V::LANES)), p.add(key * V::LANES));
            let sum = if first {
                e.mul(weight)
            } else {
                e.mul_add(weight, V::load(at))
            };
            sum.store(at);
        }
    }
}

/// `s + bias` where the bias is finite, −∞ where it masks. A finite bias never turns a score into −∞.
#[inline(always)]
pub(super) fn add_bias<V: Vector>(score: V, bias: V) -> V {
    let lowest = V::splat(f32::MIN);
    let sum = score.add(bias);
    // `lowest.max(sum)` keeps a NaN of `sum`.
    let sum = V::select(score.lt(lowest), sum, lowest.max(sum));
    V::select(bias.lt(lowest), V::splat(f32::NEG_INFINITY), sum)
}

/// `softcap · tanh(s / softcap)`.
#[inline(always)]
pub(super) fn cap<V: Vector>(score: V, softcap: f32) -> V {
    V::splat(softcap).mul(math::tanh(score.div(V::splat(softcap))))
}

/// What turns the products of a tile into scores, where that is not nothing.
struct Adjust {
    scale: Option<f32>,
    softcap: Option<f32>,
    /// [key][query] of this tile, rows `stride` apart.
    bias: Option<*const f32>,
    stride: usize,
    /// First and end key of each lane, where the tile is only partly visible; relative to the base, as `row` is.
    range: Option<(*const f32, *const f32)>,
    row: f32,
}

impl Adjust {
    /// # Safety
    /// `bias` has M rows of N vectors, the ranges have N.
    #[inline(always)]
    unsafe fn apply<V: Vector, const M: usize, const N: usize>(
        &self,
        first: usize,
        sums: &mut [[V; N]; M],
    ) {
        for (m, sums) in sums.iter_mut().enumerate() {
            let m = first + m;
            for (n, score) in sums.iter_mut().enumerate() {
                let lane = n * V::LANES;
                if let Some(scale) = self.scale {
                    *score = score.mul(V::splat(scale));
                }
                if let Some(softcap) = self.softcap {
                    *score = cap(*score, softcap);
                }
                // SAFETY: (both) see above.
                unsafe {
                    if let Some(bias) = self.bias {
                        *score = add_bias(*score, V::load(bias.add(m * self.stride + lane)));
                    }
                    if let Some((low, high)) = self.range {
                        let hidden = V::splat(f32::NEG_INFINITY);
                        let row = V::splat(self.row + m as f32);
                        *score = V::select(row.lt(V::load(high.add(lane))), *score, hidden);
                        *score = V::select(row.lt(V::load(low.add(lane))), hidden, *score);
                    }
                }
            }
        }
    }
}

/// Stores a tile of scores and keeps the maxima of its strip.
struct ScoreSink {
    to: *mut f32,
    /// From one vector's scores to the next's.
    column: usize,
    strip_max: *mut f32,
    /// Asked once per tile: asked per score, it took as long as the stores.
    adjust: Option<Adjust>,
}

impl<V: Vector> Sink<V> for ScoreSink {
    /// # Safety
    /// `to` has N columns of M vectors, `strip_max` has N vectors; and as [`Adjust::apply`].
    #[inline(always)]
    unsafe fn take<const M: usize, const N: usize>(&self, first: usize, mut sums: [[V; N]; M]) {
        if let Some(adjust) = &self.adjust {
            // SAFETY: see above.
            unsafe { adjust.apply(first, &mut sums) };
        }
        for n in 0..N {
            // SAFETY: (all of this loop) see above.
            unsafe {
                let max_at = self.strip_max.add(n * V::LANES);
                let mut strip_max = V::load(max_at);
                for (m, sums) in sums.iter().enumerate() {
                    // A row that sees a NaN is NaN, whatever its maximum is.
                    strip_max = sums[n].max_of_numbers(strip_max);
                    sums[n].store(self.to.add(n * self.column + (first + m) * V::LANES));
                }
                strip_max.store(max_at);
            }
        }
    }
}

/// Adds a finished tile to memory.
pub(super) struct AddSink {
    pub(super) to: *mut f32,
    pub(super) stride: usize,
}

impl<V: Vector> Sink<V> for AddSink {
    /// # Safety
    /// `to` has M rows of N vectors, `stride` apart.
    #[inline(always)]
    unsafe fn take<const M: usize, const N: usize>(&self, first: usize, sums: [[V; N]; M]) {
        for (m, sums) in sums.iter().enumerate() {
            for (n, sum) in sums.iter().enumerate() {
                // SAFETY: see above.
                unsafe {
                    let at = self.to.add((first + m) * self.stride + n * V::LANES);
                    V::load(at).add(*sum).store(at);
                }
            }
        }
    }
}
