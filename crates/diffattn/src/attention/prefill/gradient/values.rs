//! dP = V dOᵀ of a block, one for all terms, and δ_t = Σ_j P_t dP of its rows. Knows no gradients
//! of inputs.

use super::{Gradients, HeadAt};
use crate::attention::lanes::{load, store};
use crate::attention::live::LiveStrip;
use crate::attention::prefill::geometry::Geometry;
use crate::attention::prefill::row_block::RowBlock;
use crate::attention::prefill::sink::ColumnSink;
use crate::attention::softmax;
use crate::blocks::{PANEL, ROW_SUMS};
use crate::simd::{Operands, Tile, Vector, Whole};

impl Gradients<'_, '_, '_> {
    /// dP of all strips.
    #[inline(always)]
    pub(super) fn values<V: Vector>(&self, rows: &mut RowBlock<'_, '_>, head: &HeadAt<'_>) {
        for place in 0..head.geometry.strips {
            let strip = rows.scratch.live[place];
            for (index, &v) in head.step.v.iter().enumerate() {
                self.value_strip::<V>(rows, head.geometry, (index, v), &strip);
            }
        }
    }

    /// dP of one strip, tile by tile: of the first v head stored, of the others added.
    #[inline(always)]
    fn value_strip<V: Vector>(
        &self,
        rows: &mut RowBlock<'_, '_>,
        geometry: &Geometry<'_>,
        (index, v): (usize, usize),
        strip: &LiveStrip,
    ) {
        let shape = rows.call.value_shape;
        let values = self.mirror.keys(v);
        let gradient = &mut rows.scratch.gradient;
        let d_out = &gradient.d_out[index * shape.padded() * geometry.stride..];
        for &(from, to) in strip.runs() {
            for key in (from / PANEL * PANEL..to).step_by(V::Tile::ROWS) {
                let mut chunk = 0;
                while chunk < geometry.vectors {
                    let end = geometry.chunk_end::<V>(chunk);
                    let (first, last, _) = geometry.active((chunk, end), key, key + V::Tile::ROWS);
                    chunk = end;
                    if first >= last {
                        continue;
                    }
                    let operands = Operands {
                        a: values.at::<f32>(key),
                        a_stride: PANEL,
                        b: d_out[first * V::LANES..].as_ptr(),
                        b_stride: geometry.stride,
                        b_vector: V::LANES,
                        depth: Whole(shape.width),
                    };
                    let at = first * geometry.score_column + (key - geometry.base) * V::LANES;
                    let sink = ColumnSink {
                        to: gradient.d_p[at..].as_mut_ptr(),
                        column: geometry.score_column,
                        is_added: index > 0,
                    };
                    // SAFETY: panels of V hold `width` rows of PANEL keys, ROWS divides PANEL and
                    // `key` is a multiple of ROWS; dOᵀ has `width` rows of `stride` lanes; a column
                    // of dP reaches to the last panel's end, as one of scores does.
                    unsafe { V::Tile::product::<V, _, _>(last - first, operands, sink) };
                }
            }
        }
    }

    /// δ_t and coefficient ÷ denominator of each term. Gives whether one of them is NaN or
    /// infinite.
    #[inline(always)]
    pub(super) fn deltas<V: Vector>(&self, rows: &mut RowBlock<'_, '_>, head: &HeadAt<'_>) -> bool {
        let mut is_special = self.sum_deltas::<V>(rows, head);
        if is_special {
            // What no row sees may have been NaN: without it the sums may be finite.
            self.hide_values::<V>(rows, head);
            self.sum_deltas::<V>(rows, head);
            is_special = true;
        }
        is_special
    }

    #[inline(always)]
    fn sum_deltas<V: Vector>(&self, rows: &mut RowBlock<'_, '_>, head: &HeadAt<'_>) -> bool {
        let (geometry, step) = (head.geometry, head.step);
        let stride = geometry.stride;
        let (sequence, first) = (rows.block.sequence, rows.block.first);
        let mut probe = 0.0;
        let whole = self.of.whole_rows.and_then(|rows| rows.delta);
        for (t, &slot) in step.slots.iter().enumerate() {
            let sink = rows.call.scores.sink(rows.call.sink(step.head, t));
            let of_term = t * stride..(t + 1) * stride;
            rows.scratch.gradient.delta[of_term.clone()].fill(0.0);
            let strips = match whole {
                None => geometry.strips,
                Some(_) => 0,
            };
            if strips > 0 {
                self.dots::<V>(rows, geometry, slot);
            }
            for strip in 0..strips {
                let footing = &rows.scratch.footing[geometry.strip_at(slot, strip)..][..stride];
                let gradient = &mut rows.scratch.gradient;
                let dots = &gradient.dots[strip * stride..][..stride];
                let delta = gradient.delta[of_term.clone()].iter_mut();
                for ((delta, &footing), &dot) in delta.zip(footing).zip(dots) {
                    *delta += footing * f64::from(dot);
                }
            }
            for row in 0..stride {
                let at = t * stride + row;
                if row >= rows.block.rows {
                    rows.scratch.gradient.delta[at] = 0.0;
                    rows.scratch.gradient.shares[at] = 0.0;
                    continue;
                }
                let denominator = rows.denominator(slot * stride + row, sink);
                let at_row = sequence.row(step.head, first + row);
                let coefficient = rows.call.coefficient(t, at_row);
                let share = softmax::share(1.0, denominator);
                let first_row = rows.statistics_at(step.head, t).start;
                let gradient = &mut rows.scratch.gradient;
                // A row that saw nothing stays zero whatever its dP is.
                gradient.delta[at] = match (whole, share) {
                    (_, 0.0) => 0.0,
                    (None, share) => share * gradient.delta[at],
                    (Some(whole), _) => whole[first_row + row],
                };
                gradient.shares[at] = softmax::share(coefficient, denominator);
                probe += (gradient.delta[at] + gradient.shares[at]) * 0.0;
            }
        }
        probe.is_nan()
    }

    /// Σ E·dP of each strip, key by key modulo [`ROW_SUMS`].
    #[inline(always)]
    fn dots<V: Vector>(&self, rows: &mut RowBlock<'_, '_>, geometry: &Geometry<'_>, slot: usize) {
        let scratch = &mut *rows.scratch;
        let scores = &scratch.scores[slot * scratch.slot_len..];
        let (d_p, dots) = (&scratch.gradient.d_p, &mut scratch.gradient.dots);
        for (place, strip) in scratch.live.iter().enumerate() {
            for (n, span) in geometry.spans[..geometry.vectors].iter().enumerate() {
                let mut sums = [V::splat(0.0); ROW_SUMS];
                for &(from, to) in strip.runs() {
                    let (from, to) = span.within(from, to);
                    let first = from.max(geometry.base) - geometry.base;
                    let at = n * geometry.score_column + first * V::LANES;
                    let len = (to - from) * V::LANES;
                    let keys = scores[at..][..len].chunks_exact(V::LANES);
                    let keys = keys.zip(d_p[at..][..len].chunks_exact(V::LANES));
                    for (key, (e, d_p)) in (from..).zip(keys) {
                        let sum = &mut sums[key % ROW_SUMS];
                        *sum = load::<V>(e).mul_add(load::<V>(d_p), *sum);
                    }
                }
                let [a, b, c, d] = sums;
                let total = a.add(b).add(c.add(d));
                store(total, &mut dots[place * geometry.stride + n * V::LANES..]);
            }
        }
    }

    /// δ of the block's rows, and what their sinks get: −c_t · P_sink · δ_t.
    #[inline(always)]
    pub(super) fn write_sums(&self, rows: &RowBlock<'_, '_>, head: &HeadAt<'_>) {
        let (geometry, step) = (head.geometry, head.step);
        let stride = geometry.stride;
        let (sequence, first) = (rows.block.sequence, rows.block.first);
        let [_, heads, terms, queries] = rows.call.lse_shape();
        let (batch, _, query) = sequence.row(step.head, first);
        for (t, &slot) in step.slots.iter().enumerate() {
            let at = ((batch * heads + step.head) * terms + t) * queries + query;
            let delta = &rows.scratch.gradient.delta[t * stride..][..rows.block.rows];
            // SAFETY: (both) no other block has these rows of this head.
            let to = unsafe { self.out.delta.part(at..at + delta.len()) };
            to.copy_from_slice(delta);
            let Some(sinks) = &self.out.sinks else {
                continue;
            };
            let Some(sink) = rows.call.scores.sink(rows.call.sink(step.head, t)) else {
                continue;
            };
            // SAFETY: as above.
            let to = unsafe { sinks.part(at..at + delta.len()) };
            for (row, (to, &delta)) in to.iter_mut().zip(delta).enumerate() {
                let row_sum = rows.scratch.row_sum[slot * stride + row];
                let denominator = rows.denominator(slot * stride + row, Some(sink));
                if denominator != 0.0 {
                    let coefficient = rows.call.coefficient(t, (batch, step.head, query + row));
                    let share = (denominator - row_sum) / denominator;
                    *to = -f64::from(coefficient) * share * delta;
                }
            }
        }
    }
}
