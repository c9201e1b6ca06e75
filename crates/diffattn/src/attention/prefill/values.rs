//! Passes 3 and 4: terms combined strip by strip, multiplied with v, transposed to rows, through
//! the norm into the result. Knows no scores but as exponentials.

use super::consumer::Consumer;
use super::geometry::Geometry;
use super::row_block::RowBlock;
use super::strip_product::{StripProduct, Sums};
use crate::attention::groups::{Block, HeadStep};
use crate::attention::lanes::{load, store};
use crate::attention::outputs::RowsOut;
use crate::simd::{Vector, transpose};

/// The rows of a result.
pub(super) struct Values<'c, 'o> {
    pub(super) out: &'c RowsOut<'o>,
}

impl Consumer for Values<'_, '_> {
    #[inline(always)]
    fn head<V: Vector>(
        &self,
        rows: &mut RowBlock<'_, '_>,
        geometry: &Geometry<'_>,
        step: &HeadStep,
    ) {
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

impl RowBlock<'_, '_> {
    /// Pass 3: adds P times v to outᵀ, strip by strip, each from zero.
    #[inline(always)]
    pub(super) fn add_values<V: Vector>(&mut self, geometry: &Geometry<'_>, step: &HeadStep) {
        for place in 0..geometry.strips {
            self.combine::<V>(geometry, step, place);
            for (index, &v) in step.v.iter().enumerate() {
                let product = StripProduct {
                    values: self.block.panels.values(v),
                    strip: self.scratch.live[place],
                    to: Sums::Out,
                    index,
                };
                self.add_product::<V>(geometry, step, &product);
            }
        }
    }

    /// P = Σ_t weight_t E_t for the live keys of one strip, as [key][query] from the first of them
    /// on.
    #[inline(always)]
    pub(super) fn combine<V: Vector>(
        &mut self,
        geometry: &Geometry<'_>,
        step: &HeadStep,
        place: usize,
    ) {
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

    /// Pass 4: rows out of outᵀ, through the norm, into the result.
    #[inline(always)]
    fn finish<V: Vector>(&mut self, geometry: &Geometry<'_>, step: &HeadStep, out: &RowsOut<'_>) {
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
                let at = sequence.row(step.head, query + row);
                if place.is_some() {
                    out.norm_row::<V>(self.call, at, y);
                } else {
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
