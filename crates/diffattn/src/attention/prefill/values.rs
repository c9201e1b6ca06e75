//! Passes 3 and 4: terms combined strip by strip, multiplied with v, transposed to rows, through
//! the norm into the result. Knows no scores but as exponentials.

use super::consumer::Consumer;
use super::geometry::Geometry;
use super::row_block::RowBlock;
use super::sink::AddSink;
use crate::attention::groups::{Block, HeadStep};
use crate::attention::lanes::{load, store};
use crate::attention::live::LiveStrip;
use crate::attention::outputs::RowsOut;
use crate::attention::packed::ValuePanels;
use crate::blocks::PANEL;
use crate::simd::{Depth, Gapped, Operands, Tile};
use crate::simd::{Vector, transpose};

/// The rows of a result.
pub(super) struct Values<'c, 'o> {
    pub(super) out: &'c RowsOut<'o>,
}

impl Consumer for Values<'_, '_> {
    #[inline(always)]
    fn head<V: Vector>(&self, rows: &mut RowBlock<'_, '_>, geometry: &Geometry, step: &HeadStep) {
        rows.reduce(geometry, step);
        rows.write_lse(geometry, step, self.out);
        rows.weigh(geometry, step);
        let total = step.v.len() * rows.call.value_shape.padded() * geometry.stride;
        rows.scratch.out[..total].fill(0.0);
        self.out.prefetch::<V>(rows.call, &rows.block, step.head);
        rows.add_values::<V>(geometry, step);
        rows.finish::<V>(geometry, step, self.out);
    }
}

/// One strip of v of one of a head's v heads.
struct ValueStrip<'s> {
    values: ValuePanels<'s>,
    /// Which of the head's v heads.
    index: usize,
    strip: LiveStrip,
    /// How much of P and v a product takes: two runs at most.
    depth: Gapped,
}

impl RowBlock<'_, '_> {
    /// Pass 3: adds P times v to outᵀ, strip by strip, each from zero.
    #[inline(always)]
    pub(super) fn add_values<V: Vector>(&mut self, geometry: &Geometry, step: &HeadStep) {
        for place in 0..geometry.strips {
            let strip = self.scratch.live[place];
            self.combine::<V>(geometry, step, place);
            for (index, &v) in step.v.iter().enumerate() {
                let of = ValueStrip {
                    values: self.block.panels.values(v),
                    index,
                    strip,
                    depth: Gapped::of(strip.runs()),
                };
                if of.values.is_special(strip.number) {
                    self.add_special::<V>(geometry, step, &of);
                } else {
                    match of.depth.whole() {
                        Some(depth) => self.add_panels::<V, _>(geometry, &of, depth),
                        None => self.add_panels::<V, _>(geometry, &of, of.depth),
                    }
                }
            }
        }
    }

    /// P times all panels of v, which is finite.
    #[inline(always)]
    fn add_panels<V: Vector, D: Depth>(
        &mut self,
        geometry: &Geometry,
        of: &ValueStrip<'_>,
        depth: D,
    ) {
        for panel in (0..self.call.value_shape.width).step_by(PANEL) {
            let (first, keys) = (of.strip.start(), of.strip.end() - of.strip.start());
            let finite = &mut self.scratch.finite;
            let a = of.values.near::<V>(first, keys, panel, finite);
            self.add_panel::<V, D>(geometry, of, depth, (panel, a));
        }
    }

    /// P times the panel of v from channel `panel` on, which `a` points to. A chunk's P and the
    /// panel stay in L1 for all of the panel's tiles. (Asking for the panels that come next gains
    /// nothing, and its loop takes 2 %.) All vectors go to the strip's end, over zeros: cut where
    /// each one's keys end, 512 tokens have 3 % fewer products and take as long.
    #[inline(always)]
    fn add_panel<V: Vector, D: Depth>(
        &mut self,
        geometry: &Geometry,
        of: &ValueStrip<'_>,
        depth: D,
        (panel, a): (usize, *const f32),
    ) {
        let Geometry {
            stride, p_column, ..
        } = *geometry;
        let shape = self.call.value_shape;
        let scratch = &mut *self.scratch;
        let out = &mut scratch.out[of.index * shape.padded() * stride..];
        let mut chunk = 0;
        while chunk < geometry.vectors {
            let chunk_end = (chunk + V::Tile::VECTORS).min(geometry.vectors);
            let (first, last, _) =
                geometry.active((chunk, chunk_end), of.strip.start(), of.strip.end());
            chunk = chunk_end;
            if first >= last {
                continue;
            }
            let p = scratch.strip[first * p_column..].as_ptr();
            for channel in (panel..shape.width.min(panel + PANEL)).step_by(V::Tile::ROWS) {
                let operands = Operands {
                    a: a.wrapping_add(channel - panel),
                    a_stride: PANEL,
                    b: p,
                    b_stride: V::LANES,
                    b_vector: p_column,
                    depth,
                };
                let sink = AddSink {
                    to: out[channel * stride + first * V::LANES..].as_mut_ptr(),
                    stride,
                };
                // SAFETY: a V panel holds the strip's keys from its first live one on, PANEL wide,
                // and ROWS divides PANEL; a column of P holds as many rows; outᵀ has `padded` rows
                // per v head.
                unsafe { V::Tile::product::<V, _, _>(last - first, operands, sink) };
            }
        }
    }

    /// P = Σ_t weight_t E_t for the live keys of one strip, as [key][query] from the first of them
    /// on.
    #[inline(always)]
    fn combine<V: Vector>(&mut self, geometry: &Geometry, step: &HeadStep, place: usize) {
        let Geometry {
            stride,
            score_column,
            p_column,
            base,
            ..
        } = *geometry;
        let terms = step.slots.len();
        let scratch = &mut *self.scratch;
        let strip = scratch.live[place];
        let weights = &scratch.weights[place * terms * 2 * stride..][..terms * 2 * stride];
        for (n, span) in geometry.spans[..geometry.vectors].iter().enumerate() {
            let weights = &weights[n * V::LANES..];
            let column = &mut scratch.strip[n * p_column..];
            for &(from, to) in strip.runs() {
                let (seen_from, seen_to) = span.within(from, to);
                let p = &mut column[(from - strip.start()) * V::LANES..][..(to - from) * V::LANES];
                let (hidden, p) = p.split_at_mut((seen_from - from) * V::LANES);
                hidden.fill(0.0);
                let (p, hidden) = p.split_at_mut((seen_to - seen_from) * V::LANES);
                hidden.fill(0.0);
                let first = n * score_column + (seen_from.max(base) - base) * V::LANES;
                let len = p.len();
                let slot = |t: usize| step.slots[t] * scratch.slot_len + first;
                match terms {
                    1 => {
                        let scores = &scratch.scores[slot(0)..][..len];
                        one_term::<V>(p, scores, weights, stride);
                    }
                    2 => {
                        let one = &scratch.scores[slot(0)..][..len];
                        let two = &scratch.scores[slot(1)..][..len];
                        two_terms::<V>(p, [one, two], weights, stride);
                    }
                    _ => {
                        for part in [1, 0] {
                            for t in 0..terms {
                                let scores = &scratch.scores[slot(t)..][..len];
                                let weight = load::<V>(&weights[(2 * t + part) * stride..]);
                                add_term::<V>(p, scores, weight, part == 1 && t == 0);
                            }
                        }
                    }
                }
            }
        }
    }

    /// A strip where v has NaN or infinities: the product takes them as zeros, the rows that see
    /// them add them.
    #[cold]
    fn add_special<V: Vector>(
        &mut self,
        geometry: &Geometry,
        step: &HeadStep,
        of: &ValueStrip<'_>,
    ) {
        let keys = of.strip.end() - of.strip.start();
        for panel in (0..self.call.value_shape.width).step_by(PANEL) {
            let finite = &mut self.scratch.finite;
            of.values
                .finite_copy::<V>(of.strip.start(), keys, panel, finite);
            let a = finite.as_ptr();
            self.add_panel::<V, _>(geometry, of, of.depth, (panel, a));
        }
        let Block {
            sequence,
            first,
            rows,
            ..
        } = self.block;
        let out = of.index * self.call.value_shape.padded();
        let scratch = &mut *self.scratch;
        for &(from, to) in of.strip.runs() {
            of.values
                .each_special(from, to - from, |key, channel, value| {
                    for row in 0..rows {
                        let (low, high) = scratch.row_ranges[row];
                        let query = sequence.row(step.head, first + row);
                        // A row whose scores are all −∞ counts as one that sees nothing.
                        let row_sum = |slot: &usize| scratch.row_sum[slot * geometry.stride + row];
                        let is_empty = step.slots.iter().all(|slot| row_sum(slot) == 0.0);
                        let seen =
                            (low..high).contains(&key) && self.call.elements.sees(query, key);
                        if seen && !is_empty {
                            let (n, lane) = (row / V::LANES, row % V::LANES);
                            let at = (key - of.strip.start()) * V::LANES + lane;
                            let p = scratch.strip[n * geometry.p_column + at];
                            scratch.out[(out + channel) * geometry.stride + row] += p * value;
                        }
                    }
                });
        }
    }

    /// Pass 4: rows out of outᵀ, through the norm, into the result.
    #[inline(always)]
    fn finish<V: Vector>(&mut self, geometry: &Geometry, step: &HeadStep, out: &RowsOut<'_>) {
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
            let place = out.rows(self.call, sequence.row(step.head, query));
            let (to, to_stride) = place.unwrap_or((self.scratch.rows.as_mut_ptr(), width));
            for index in 0..step.v.len() {
                let from = &self.scratch.out[index * shape.padded() * stride + n * V::LANES..];
                // SAFETY: outᵀ has `width` rows of `stride` queries per v head. `to` has `count`
                // rows: scratch, or the result, which `bind` checked and borrowed for 'a; no other
                // block has these rows.
                unsafe {
                    let (from, to) = (from.as_ptr(), to.add(index * shape.width));
                    transpose::<V>((from, stride), (to, to_stride), shape.width, count);
                }
            }
            for row in 0..count {
                // SAFETY: as above.
                let y = unsafe { std::slice::from_raw_parts_mut(to.add(row * to_stride), width) };
                if place.is_some() {
                    self.call.norm_row::<V>(y);
                } else {
                    let at = sequence.row(step.head, query + row);
                    out.write_row::<V>(self.call, at, y);
                }
            }
        }
    }
}

/// P = low E + high E; the weights' parts are `stride` apart, the high one first.
#[inline(always)]
fn one_term<V: Vector>(p: &mut [f32], scores: &[f32], weights: &[f32], stride: usize) {
    let (high, low) = (load::<V>(weights), load::<V>(&weights[stride..]));
    let scores = scores.chunks_exact(V::LANES);
    for (p, e) in p.chunks_exact_mut(V::LANES).zip(scores) {
        let e = load::<V>(e);
        store(e.mul_add(high, e.mul(low)), p);
    }
}

/// P = low E + low' E' + high E + high E', in this order, of two terms.
#[inline(always)]
fn two_terms<V: Vector>(p: &mut [f32], scores: [&[f32]; 2], weights: &[f32], stride: usize) {
    let (high_one, low_one) = (load::<V>(weights), load::<V>(&weights[stride..]));
    let (high_two, low_two) = (
        load::<V>(&weights[2 * stride..]),
        load::<V>(&weights[3 * stride..]),
    );
    let [one, two] = scores;
    let scores = one.chunks_exact(V::LANES).zip(two.chunks_exact(V::LANES));
    for (p, (one, two)) in p.chunks_exact_mut(V::LANES).zip(scores) {
        let (one, two) = (load::<V>(one), load::<V>(two));
        let low = two.mul_add(low_two, one.mul(low_one));
        store(two.mul_add(high_two, one.mul_add(high_one, low)), p);
    }
}

/// One part of one term of any number, added to P (or its first).
#[inline(always)]
fn add_term<V: Vector>(p: &mut [f32], scores: &[f32], weight: V, is_first: bool) {
    let scores = scores.chunks_exact(V::LANES);
    for (p, e) in p.chunks_exact_mut(V::LANES).zip(scores) {
        let e = load::<V>(e);
        let sum = if is_first {
            e.mul(weight)
        } else {
            e.mul_add(weight, load::<V>(p))
        };
        store(sum, p);
    }
}
