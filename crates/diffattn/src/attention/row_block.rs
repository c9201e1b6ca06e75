//! THE fused kernel: one block of queries of one head group. Lanes are queries; scores are kept as
//! [vector of queries][key][query]: every sum runs down a lane in key order, no result depends on the lane count,
//! and what follows a tile reads one stretch of memory per vector.
//! Knows nothing of batches, threads or head layouts: callers hand it a block and its panels.
//!
//! Per head of the group:
//! 1. scores S_t = K_t Qᵀ, tile by tile, masked, with their row maximum; strips of 256 keys;
//! 2. exponentials E_t = exp(scale · (S_t − row_max_t)) in place, with their row sum;
//! 3. per strip: P = Σ_t (c_t / row_sum_t) E_t, then outᵀ += Vᵀ P, from zero per strip;
//! 4. transpose to rows, norm, store.
//!
//! The price: T × block × Lk scores per thread. The gain over one attention call per map: v is met once.

use super::call::{Block, Call, HeadStep};
use super::packed::{KeyPanels, Rows, ValuePanels};
use super::scratch::Scratch;
use crate::isa::Kernel;
use crate::tile::{Operands, PANEL, ROW_SUMS, STRIP, Sink, Tile};
use crate::vector::math::{self, ExponentScale};
use crate::vector::{Vector, transpose};

/// Queries of a row block on the vector type it is run with.
pub(super) struct BlockQueries;

impl Kernel for BlockQueries {
    type Output = usize;
    #[inline(always)]
    fn run<V: Vector>(self) -> usize {
        V::LANES * V::Tile::BLOCK_VECTORS
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
}

impl Kernel for RowBlock<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(mut self) {
        let geometry = self.geometry::<V>();
        for step in &self.block.group.steps {
            self.scores::<V>(&geometry, step);
            for term in &step.compute {
                self.exponentials::<V>(&geometry, term.slot);
            }
            self.write_lse(&geometry, step);
            if self.call.maps.is_some() {
                self.write_maps::<V>(&geometry, step);
            } else {
                self.weigh(&geometry, step);
                self.values::<V>(&geometry, step);
                self.finish::<V>(&geometry, step);
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
        let stride = V::LANES * V::Tile::BLOCK_VECTORS;
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
        Geometry {
            stride,
            score_column: self.scratch.slot_len / V::Tile::BLOCK_VECTORS,
            p_column: self.scratch.strip.len() / V::Tile::BLOCK_VECTORS,
            vectors,
            spans,
            start,
            end,
            base,
        }
    }

    /// Step 1: scores of the step's own terms, and their row maxima.
    #[inline(always)]
    fn scores<V: Vector>(&mut self, geometry: &Geometry, step: &HeadStep) {
        let Geometry {
            stride,
            score_column,
            vectors,
            spans,
            start,
            end,
            base,
            ..
        } = *geometry;
        let call = self.call;
        let width = call.width;
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
            self.scratch.row_max[term.slot * stride..][..stride].fill(f32::NEG_INFINITY);
        }
        if start >= end {
            return;
        }
        for strip in start / STRIP..end.div_ceil(STRIP) {
            let strip_start = (strip * STRIP).max(base);
            let strip_end = ((strip + 1) * STRIP).min(end);
            let elements = !call.elements.is_empty();
            if elements {
                self.gather_elements(step.head, strip_start, strip_end, stride);
            }
            for (index, term) in step.compute.iter().enumerate() {
                let keys: KeyPanels<'_> = self.block.panels.keys(term.k);
                let queries = self.scratch.queries[index * width * stride..].as_ptr();
                let scores = self.scratch.scores[term.slot * self.scratch.slot_len..].as_mut_ptr();
                let row_max = self.scratch.row_max[term.slot * stride..].as_mut_ptr();
                let mut key = strip_start;
                while key < strip_end {
                    let tile_end = key + V::Tile::ROWS;
                    let mut chunk = 0;
                    while chunk < vectors {
                        let chunk_end = (chunk + V::Tile::VECTORS).min(vectors);
                        let (from, to, full) = active(&spans, chunk, chunk_end, key, tile_end);
                        chunk = chunk_end;
                        if from >= to {
                            continue;
                        }
                        let lane = from * V::LANES;
                        let sink = ScoreSink {
                            // SAFETY: a column of scores reaches to the last panel's end (scratch.rs).
                            to: unsafe {
                                scores.add(from * score_column + (key - base) * V::LANES)
                            },
                            column: score_column,
                            stride,
                            // SAFETY: `lane` is below `stride`.
                            row_max: unsafe { row_max.add(lane) },
                            scale: call.scores.dot,
                            softcap: call.softcap,
                            bias: elements.then(|| {
                                self.scratch.bias[(key - strip_start) * stride + lane..].as_ptr()
                            }),
                            range: (!full).then(|| {
                                (
                                    self.scratch.low[lane..].as_ptr(),
                                    self.scratch.high[lane..].as_ptr(),
                                )
                            }),
                            row: (key - base) as f32,
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

    /// Step 2: exponentials in place, and the row sum, strip by strip.
    #[inline(always)]
    fn exponentials<V: Vector>(&mut self, geometry: &Geometry, slot: usize) {
        let Geometry {
            stride,
            score_column,
            vectors,
            ref spans,
            base,
            ..
        } = *geometry;
        let exponent = self.call.scores.exponent;
        let scores = self.scratch.scores[slot * self.scratch.slot_len..].as_mut_ptr();
        for (n, span) in spans.iter().enumerate().take(vectors) {
            let lane = slot * stride + n * V::LANES;
            // SAFETY: row maxima are `stride` wide per slot.
            let row_max = safe_max(unsafe { V::load(self.scratch.row_max[lane..].as_ptr()) });
            let mut row_sum = V::splat(0.0);
            let mut from = span.start;
            while from < span.end {
                let to = ((from / STRIP + 1) * STRIP).min(span.end);
                // SAFETY: score rows `from − base` to `to − base` of the slot's column, see `scores`.
                row_sum = row_sum.add(unsafe {
                    let first = scores.add(n * score_column + (from - base) * V::LANES);
                    exponential_strip(first, from, to, row_max, &exponent)
                });
                from = to;
            }
            // SAFETY: row sums are `stride` wide per slot.
            unsafe { row_sum.store(self.scratch.row_sum[lane..].as_mut_ptr()) };
        }
    }

    /// The weights of each term and lane.
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
                let [high, low] = weight(coefficient, self.scratch.row_sum[slot * stride + row]);
                self.scratch.weights[(2 * t) * stride + row] = high;
                self.scratch.weights[(2 * t + 1) * stride + row] = low;
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
            start,
            end,
            ..
        } = *geometry;
        let padded = self.call.value_shape.padded();
        let total = step.v.len() * padded * stride;
        self.scratch.out[..total].fill(0.0);
        self.call.prefetch_result::<V>(&self.block, step.head);
        if start >= end {
            return;
        }
        for strip in start / STRIP..end.div_ceil(STRIP) {
            let from = (strip * STRIP).max(start);
            let to = ((strip + 1) * STRIP).min(end);
            self.combine::<V>(geometry, step, from, to);
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
                    // A chunk's P and the panel stay in L1 for all of the panel's tiles. All vectors go to the strip's end,
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

    /// P = Σ_t weight_t E_t for keys `from..to` of one strip, as [key − from][query].
    #[inline(always)]
    fn combine<V: Vector>(&mut self, geometry: &Geometry, step: &HeadStep, from: usize, to: usize) {
        let Geometry {
            stride,
            score_column,
            p_column,
            vectors,
            ref spans,
            base,
            ..
        } = *geometry;
        for (n, span) in spans.iter().enumerate().take(vectors) {
            let lane = n * V::LANES;
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
    fn finish<V: Vector>(&mut self, geometry: &Geometry, step: &HeadStep) {
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
            let place = self.call.result_rows(sequence, step.head, query);
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
                    self.call
                        .write_row::<V>(y, sequence, step.head, query + row);
                }
            }
        }
    }

    /// Log-sum-exp of each term, where asked for.
    fn write_lse(&self, geometry: &Geometry, step: &HeadStep) {
        let Block {
            sequence,
            first,
            rows,
            ..
        } = self.block;
        if !self.call.wants_lse() {
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
                self.call
                    .write_lse(sequence, step.head, t, first + row, lse);
            }
        }
    }

    /// Each term's map and their combination, row by row.
    fn write_maps<V: Vector>(&mut self, geometry: &Geometry, step: &HeadStep) {
        let Block {
            sequence,
            first,
            rows,
            ..
        } = self.block;
        for row in 0..rows {
            let range = self.scratch.row_ranges[row];
            self.call
                .write_map_row(sequence, step.head, first + row, range, |t, key| {
                    let slot = *step.slots.get(t)?;
                    let row_sum = self.scratch.row_sum[slot * geometry.stride + row];
                    let at = slot * self.scratch.slot_len
                        + row / V::LANES * geometry.score_column
                        + (key - geometry.base) * V::LANES
                        + row % V::LANES;
                    (row_sum != 0.0).then(|| self.scratch.scores[at] / row_sum)
                });
        }
    }
}

/// Turns `N` vectors of scores into exponentials, in place, and gives them.
///
/// # Safety
/// `at` has `N` vectors.
#[inline(always)]
pub(super) unsafe fn exponentials<V: Vector, const N: usize>(
    at: *mut f32,
    row_max: V,
    scale: &ExponentScale,
) -> [V; N] {
    let mut t = [row_max; N];
    for (i, t) in t.iter_mut().enumerate() {
        // SAFETY: the caller's promise.
        *t = unsafe { V::load(at.add(i * V::LANES)) }.sub(row_max);
    }
    let e = math::exp2_scaled(t, scale);
    for (i, e) in e.iter().enumerate() {
        // SAFETY: the caller's promise.
        unsafe { e.store(at.add(i * V::LANES)) };
    }
    e
}

/// [`exponentials`] of keys `from..to` of one strip, and their sum.
///
/// # Safety
/// `scores` has `to − from` vectors.
#[inline(always)]
unsafe fn exponential_strip<V: Vector>(
    scores: *mut f32,
    from: usize,
    to: usize,
    row_max: V,
    scale: &ExponentScale,
) -> V {
    let mut sums = [V::splat(0.0); ROW_SUMS];
    let mut key = from;
    // SAFETY: (all of this function) the caller's promise.
    unsafe {
        let at = |key: usize| scores.add((key - from) * V::LANES);
        while key < to && !key.is_multiple_of(ROW_SUMS) {
            let [e] = exponentials(at(key), row_max, scale);
            sums[key % ROW_SUMS] = sums[key % ROW_SUMS].add(e);
            key += 1;
        }
        while key + ROW_SUMS <= to {
            let e: [V; ROW_SUMS] = exponentials(at(key), row_max, scale);
            for (sum, &e) in sums.iter_mut().zip(&e) {
                *sum = sum.add(e);
            }
            key += ROW_SUMS;
        }
        while key < to {
            let [e] = exponentials(at(key), row_max, scale);
            sums[key % ROW_SUMS] = sums[key % ROW_SUMS].add(e);
            key += 1;
        }
    }
    sums[0].add(sums[1]).add(sums[2].add(sums[3]))
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

/// c / row_sum in two float32 parts, high then low: rounded to one, a weight would shift a whole row. Zeros for
/// a term that saw nothing, whatever its coefficient is. (Dividing the finished row instead costs nothing, but
/// sums of another magnitude round otherwise: up to twice plain float32's largest error.)
pub(super) fn weight(coefficient: f32, row_sum: f32) -> [f32; 2] {
    if row_sum == 0.0 {
        return [0.0; 2];
    }
    let weight = f64::from(coefficient) / f64::from(row_sum);
    let high = weight as f32;
    // An infinite weight has no low part.
    let low = if high.is_finite() {
        (weight - f64::from(high)) as f32
    } else {
        0.0
    };
    [high, low]
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

/// The maximum to subtract: 0 for a row of nothing but −∞, so that −∞ − max is no NaN.
#[inline(always)]
pub(super) fn safe_max<V: Vector>(row_max: V) -> V {
    V::select(row_max.lt(V::splat(f32::MIN)), V::splat(0.0), row_max)
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

/// Masks a tile of scores, stores it and keeps the row maxima.
struct ScoreSink {
    to: *mut f32,
    /// From one vector's scores to the next's.
    column: usize,
    stride: usize,
    row_max: *mut f32,
    scale: Option<f32>,
    softcap: Option<f32>,
    /// [key][query] of this tile.
    bias: Option<*const f32>,
    /// First and end key of each lane, where the tile is only partly visible; relative to the base, as `row` is.
    range: Option<(*const f32, *const f32)>,
    row: f32,
}

impl<V: Vector> Sink<V> for ScoreSink {
    /// # Safety
    /// `to` has N columns of M vectors, `bias` M rows of N vectors, `stride` apart; `row_max` and the ranges have N.
    #[inline(always)]
    unsafe fn take<const M: usize, const N: usize>(self, sums: [[V; N]; M]) {
        for n in 0..N {
            let lane = n * V::LANES;
            // SAFETY: (all of this loop) see above.
            unsafe {
                let mut row_max = V::load(self.row_max.add(lane));
                for (m, sums) in sums.iter().enumerate() {
                    let mut score = sums[n];
                    if let Some(scale) = self.scale {
                        score = score.mul(V::splat(scale));
                    }
                    if let Some(softcap) = self.softcap {
                        score = cap(score, softcap);
                    }
                    if let Some(bias) = self.bias {
                        score = add_bias(score, V::load(bias.add(m * self.stride + lane)));
                    }
                    if let Some((low, high)) = self.range {
                        let hidden = V::splat(f32::NEG_INFINITY);
                        let row = V::splat(self.row + m as f32);
                        score = V::select(row.lt(V::load(high.add(lane))), score, hidden);
                        score = V::select(row.lt(V::load(low.add(lane))), hidden, score);
                    }
                    row_max = score.max(row_max);
                    score.store(self.to.add(n * self.column + m * V::LANES));
                }
                row_max.store(self.row_max.add(lane));
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
    unsafe fn take<const M: usize, const N: usize>(self, sums: [[V; N]; M]) {
        for (m, sums) in sums.iter().enumerate() {
            for (n, sum) in sums.iter().enumerate() {
                // SAFETY: see above.
                unsafe {
                    let at = self.to.add(m * self.stride + n * V::LANES);
                    V::load(at).add(*sum).store(at);
                }
            }
        }
    }
}
