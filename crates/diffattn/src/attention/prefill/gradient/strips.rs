//! The second walk over a block's strips: dS_t of each term and P of all of them, and what each
//! gives. Knows no products.

use super::{Gradients, HeadAt};
use crate::attention::adjust::cap_derivative;
use crate::attention::lanes::{load, store, transpose};
use crate::attention::live::LiveStrip;
use crate::attention::prefill::row_block::RowBlock;
use crate::attention::prefill::strip_product::{StripProduct, Sums};
use crate::blocks::PANEL;
use crate::simd::Vector;
use std::ops::Range;

/// Which gradient a strip by keys is multiplied for.
#[derive(Debug, Clone, Copy)]
pub(super) enum ByKey {
    /// dk of a term.
    Term(usize),
    /// dv.
    Values,
}

impl Gradients<'_, '_, '_> {
    /// What all strips add to dq, dk, dv and the bias.
    #[inline(always)]
    pub(super) fn strips<V: Vector>(&self, rows: &mut RowBlock<'_, '_>, head: &HeadAt<'_>) {
        let padded = rows.call.width.next_multiple_of(PANEL);
        let sums = head.step.slots.len() * padded * head.geometry.stride;
        rows.scratch.gradient.d_queries[..sums].fill(0.0);
        let mut next = self.strips.start;
        for place in 0..head.geometry.strips {
            let strip = rows.scratch.live[place];
            // Strips that a block mask hides have their turn, too.
            self.pass(head, next..strip.number);
            self.strip::<V>(rows, head, place);
            if strip.number + 1 < self.strips.end {
                self.turn.pass(strip.number);
            }
            next = strip.number + 1;
        }
        // Heads that share q add to its gradient in turn, too: the last strip is theirs until then.
        let Some(last) = self.strips.clone().last() else {
            return;
        };
        self.pass(head, next..last);
        self.turn.wait(last, head.place);
        self.write_queries::<V>(rows, head);
        self.turn.pass(last);
    }

    fn pass(&self, head: &HeadAt<'_>, strips: Range<usize>) {
        for strip in strips {
            self.turn.wait(strip, head.place);
            self.turn.pass(strip);
        }
    }

    /// What one strip adds; returns with its turn taken.
    #[inline(always)]
    fn strip<V: Vector>(&self, rows: &mut RowBlock<'_, '_>, head: &HeadAt<'_>, place: usize) {
        let strip = rows.scratch.live[place];
        let (wants_q, wants_k) = (self.out.dq.is_some(), self.out.dk.is_some());
        if wants_q || wants_k {
            for t in 0..head.step.slots.len() {
                if rows.call.softcap.is_some() {
                    self.cap_derivatives::<V>(rows, head, (t, place));
                }
                self.score_gradients::<V>(rows, head, (t, place));
                if head.is_special {
                    self.hide::<V>(rows, head, &strip);
                }
                if wants_q {
                    let (_, k) = rows.call.plan.heads[head.step.head].terms[t];
                    let product = StripProduct {
                        values: self.mirror.values(k),
                        strip,
                        to: Sums::Queries,
                        index: t,
                    };
                    rows.add_product::<V>(head.geometry, head.step, &product);
                }
                if wants_k {
                    turn_round::<V>(rows, head, &strip);
                    self.turn.wait(strip.number, head.place);
                    self.add_by_key::<V>(rows, head, &strip, ByKey::Term(t));
                }
            }
        }
        if self.out.dv.is_some() {
            rows.combine::<V>(head.geometry, head.step, place);
            if head.is_special {
                self.hide::<V>(rows, head, &strip);
            }
            turn_round::<V>(rows, head, &strip);
            self.turn.wait(strip.number, head.place);
            self.add_by_key::<V>(rows, head, &strip, ByKey::Values);
        }
        self.turn.wait(strip.number, head.place);
        if let Some(bias) = &self.out.bias {
            self.add_bias(rows, head, (place, V::LANES), bias);
        }
    }

    /// dS_t of the live keys of one strip, times the scale and the softcap's derivative, where P
    /// lies: w E (dP − δ), with w the coefficient, the scale and what makes P of E. δ comes in two
    /// parts: rounded to one, it would shift a whole row. (As E (w dP − w δ) a row that sees few
    /// keys is off by twice the largest error of plain float32.)
    #[inline(always)]
    fn score_gradients<V: Vector>(
        &self,
        rows: &mut RowBlock<'_, '_>,
        head: &HeadAt<'_>,
        (t, place): (usize, usize),
    ) {
        let geometry = head.geometry;
        let (stride, slot) = (geometry.stride, head.step.slots[t]);
        let has_caps = rows.call.softcap.is_some();
        let scale = rows.call.scores.exact;
        let scratch = &mut *rows.scratch;
        let gradient = &mut scratch.gradient;
        let footing = &scratch.footing[geometry.strip_at(slot, place)..][..stride];
        let (weights, deltas) = gradient.factors.split_at_mut(stride);
        let (high, low) = deltas.split_at_mut(stride);
        let shares = gradient.shares[t * stride..][..stride].iter();
        let of_rows = shares
            .zip(&gradient.delta[t * stride..][..stride])
            .zip(footing);
        let to = weights.iter_mut().zip(high.iter_mut()).zip(low);
        for (((weight, high), low), ((&share, &delta), &footing)) in to.zip(of_rows) {
            *weight = (share * footing * scale) as f32;
            *high = delta as f32;
            *low = (delta - f64::from(*high)) as f32;
        }
        let strip = &scratch.live[place];
        let scores = &scratch.scores[slot * scratch.slot_len..];
        for (n, span) in geometry.spans[..geometry.vectors].iter().enumerate() {
            let factors = &gradient.factors[n * V::LANES..];
            let weight = load::<V>(factors);
            let (high, low) = (
                load::<V>(&factors[stride..]),
                load::<V>(&factors[2 * stride..]),
            );
            let first_of_column = n * geometry.p_column;
            let column = &mut scratch.strip[first_of_column..];
            for &(from, to) in strip.runs() {
                let (seen_from, seen_to) = span.within(from, to);
                let at = (from - strip.start()) * V::LANES;
                let d_s = &mut column[at..][..(to - from) * V::LANES];
                let (hidden, d_s) = d_s.split_at_mut((seen_from - from) * V::LANES);
                hidden.fill(0.0);
                let (d_s, hidden) = d_s.split_at_mut((seen_to - seen_from) * V::LANES);
                hidden.fill(0.0);
                let first = seen_from.max(geometry.base) - geometry.base;
                let first = n * geometry.score_column + first * V::LANES;
                let e = scores[first..][..d_s.len()].chunks_exact(V::LANES);
                let d_p = gradient.d_p[first..][..d_s.len()].chunks_exact(V::LANES);
                for ((d_s, e), d_p) in d_s.chunks_exact_mut(V::LANES).zip(e).zip(d_p) {
                    let difference = load::<V>(d_p).sub(high).sub(low);
                    store(load::<V>(e).mul(weight).mul(difference), d_s);
                }
                if has_caps {
                    let seen = at + (seen_from - from) * V::LANES;
                    let caps = &gradient.caps[first_of_column + seen..][..d_s.len()];
                    let caps = caps.chunks_exact(V::LANES);
                    for (d_s, cap) in d_s.chunks_exact_mut(V::LANES).zip(caps) {
                        store(load::<V>(d_s).mul(load::<V>(cap)), d_s);
                    }
                }
            }
        }
    }

    /// 1 − tanh² of the scores of one strip of a term: what the softcap multiplies their gradients
    /// with. Computed anew: exponentials have taken the scores' place.
    #[cold]
    fn cap_derivatives<V: Vector>(
        &self,
        rows: &mut RowBlock<'_, '_>,
        head: &HeadAt<'_>,
        (t, place): (usize, usize),
    ) {
        let geometry = head.geometry;
        let (width, count) = (rows.call.width, rows.block.rows);
        let padded = width.next_multiple_of(PANEL);
        let (_, k) = rows.call.plan.heads[head.step.head].terms[t];
        let keys = rows.block.panels.keys(k);
        let scale = rows.call.scores.exact as f32;
        let softcap = rows.call.softcap.unwrap_or(f32::INFINITY);
        let scratch = &mut *rows.scratch;
        let gradient = &mut scratch.gradient;
        // Queries by channels, of one vector after the other.
        let strip = &scratch.live[place];
        for n in 0..geometry.vectors {
            let queries = V::LANES.min(count.saturating_sub(n * V::LANES));
            let from = &gradient.query_rows[(t * geometry.stride + n * V::LANES) * padded..];
            let by_channel = &mut gradient.by_channel[..width * V::LANES];
            by_channel.fill(0.0);
            transpose::<V>((from, padded), (by_channel, V::LANES), queries, width);
            for &(from, to) in strip.runs() {
                for key in from..to {
                    let panel = keys.at::<f32>(key);
                    let mut sum = V::splat(0.0);
                    for (channel, q) in by_channel.chunks_exact(V::LANES).enumerate() {
                        // SAFETY: a panel of K has `width` rows of PANEL keys.
                        let k = V::splat(unsafe { *panel.add(channel * PANEL) });
                        sum = k.mul_add(load::<V>(q), sum);
                    }
                    let at = n * geometry.p_column + (key - strip.start()) * V::LANES;
                    let derivative = cap_derivative(sum.mul(V::splat(scale)), softcap);
                    store(derivative, &mut gradient.caps[at..]);
                }
            }
        }
    }

    /// Adds dqᵀ of all terms to the rows of dq.
    #[inline(always)]
    pub(super) fn write_queries<V: Vector>(&self, rows: &mut RowBlock<'_, '_>, head: &HeadAt<'_>) {
        let Some(dq) = &self.out.dq else {
            return;
        };
        let stride = head.geometry.stride;
        let width = rows.call.width;
        let padded = width.next_multiple_of(PANEL);
        let (sequence, first) = (rows.block.sequence, rows.block.first);
        for (t, &(q, _)) in rows.call.plan.heads[head.step.head]
            .terms
            .iter()
            .enumerate()
        {
            for n in 0..head.geometry.vectors {
                let count = V::LANES.min(rows.block.rows - n * V::LANES);
                let scratch = &mut *rows.scratch;
                let from = &scratch.gradient.d_queries[t * padded * stride + n * V::LANES..];
                transpose::<V>((from, stride), (&mut scratch.rows, width), width, count);
                for (row, values) in scratch.rows.chunks_exact(width).take(count).enumerate() {
                    let query = sequence.first_query + first + n * V::LANES + row;
                    let at = self.of.q_axis.row(sequence.batch, q, query);
                    // SAFETY: heads that share q are of one cluster, and blocks of the same rows
                    // see the same strips, the last of which this one has.
                    let to = unsafe { dq.part(at..at + width) };
                    for (to, value) in to.iter_mut().zip(values) {
                        *to += value;
                    }
                }
            }
        }
    }
}

/// The strip that `Scratch::strip` holds, by keys: of each run, panels of 16 keys of all queries.
#[inline(always)]
fn turn_round<V: Vector>(rows: &mut RowBlock<'_, '_>, head: &HeadAt<'_>, strip: &LiveStrip) {
    let geometry = head.geometry;
    let scratch = &mut *rows.scratch;
    let panel_len = PANEL * geometry.stride;
    let mut panels = scratch.gradient.by_key.chunks_exact_mut(panel_len);
    for &(from, to) in strip.runs() {
        for key in (from..to).step_by(PANEL) {
            let Some(panel) = panels.next() else {
                return;
            };
            let first = (key - strip.start()) * V::LANES;
            for n in 0..geometry.vectors {
                let column = &scratch.strip[n * geometry.p_column + first..][..PANEL * V::LANES];
                let to = &mut panel[n * V::LANES * PANEL..][..V::LANES * PANEL];
                for part in (0..PANEL).step_by(V::LANES) {
                    // SAFETY: LANES keys of LANES queries each; as many rows of PANEL keys.
                    unsafe {
                        let from = column[part * V::LANES..].as_ptr();
                        V::transpose(from, V::LANES, to[part..].as_mut_ptr(), PANEL);
                    }
                }
            }
        }
    }
}
