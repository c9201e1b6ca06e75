//! The second phase of a strip: terms combined into P, and P times v, from zero.

use super::strip::{DecodeStrip, ROWS, VECTORS, WIDENS, ahead, tile_rows};
use crate::attention::held::{CacheDType, Held};
use crate::attention::lanes::{load, store};
use crate::attention::live::LiveStrip;
use crate::attention::packed::ValuePanels;
use crate::blocks::{PANEL, STRIP};
use crate::simd::Vector;
use crate::simd::{ByRow, Gapped, Unscaled, product_over};
use half::{bf16, f16};

/// Vectors of v's channels that a tile takes.
struct Columns<E, const N: usize> {
    /// The first live key's.
    panels: [*const E; N],
    /// The scale of that key, where there is one.
    scales: *const f32,
    /// Channel of the first.
    channel: usize,
}

/// Where P lies and what of it is meant: [key][row], all rows of a v head.
#[derive(Clone, Copy)]
struct P {
    rows: usize,
    /// The first live key of the strip, and how many from there on, perhaps with a gap.
    first: usize,
    depth: Gapped,
    /// Where the products of the first row go.
    to: usize,
}

impl<const N: usize> Columns<f32, N> {
    /// Of float32, which has no scales.
    fn wide(panels: [*const f32; N], channel: usize) -> Self {
        Self {
            panels,
            scales: std::ptr::null(),
            channel,
        }
    }
}

impl DecodeStrip<'_, '_, '_> {
    /// Products of the live keys of a strip, for the rows of all v heads.
    #[inline(always)]
    pub(super) fn values<V: Vector>(&mut self, strip: &LiveStrip) {
        let (plan, queries) = (self.rows.plan, self.rows.sequence.queries);
        let padded = self.call.value_shape.padded();
        let (from, _) = self.rows.keys(self.memory.strip);
        for (index, (v, uses)) in plan.by_value.iter().enumerate() {
            let p = P {
                rows: uses.len() * queries,
                first: strip.start() - from,
                depth: Gapped::of(strip.runs()),
                to: self.rows.value_rows[index] * queries * padded,
            };
            for (use_index, &(entry, _)) in uses.iter().enumerate() {
                for i in 0..queries {
                    self.combine::<V>(entry, i, use_index * queries + i, p.rows);
                }
            }
            let values = self.panels.values(*v);
            if values.is_special(self.rows.strip_number(self.memory.strip)) {
                self.add_special::<V>(index, &values, p);
                continue;
            }
            let is_alone = !WIDENS && p.rows == 1;
            match values.dtype {
                CacheDType::F16 if is_alone => self.value_row::<V, f16>(&values, strip, p),
                CacheDType::Bf16 if is_alone => self.value_row::<V, bf16>(&values, strip, p),
                CacheDType::Int8 if is_alone => self.value_row::<V, i8>(&values, strip, p),
                _ => self.value_rows::<V>(&values, strip, p),
            }
        }
    }

    /// One row of P times all channels of v as they are held, widened in registers.
    #[inline(always)]
    fn value_row<V: Vector, E: Held>(&mut self, values: &ValuePanels<'_>, strip: &LiveStrip, p: P) {
        let vectors = self.call.value_shape.width.div_ceil(V::LANES);
        let at = |vector: usize| values.at::<E>(strip.start(), vector * V::LANES);
        let scales = values.scales.as_ptr().wrapping_add(strip.start());
        let mut vector = 0;
        while vector + VECTORS <= vectors {
            let mut panels = [at(vector); VECTORS];
            for (n, panel) in panels.iter_mut().enumerate() {
                *panel = at(vector + n);
            }
            let channel = vector * V::LANES;
            let columns = Columns {
                panels,
                scales,
                channel,
            };
            self.product::<V, E, 1, VECTORS>(&columns, p, 0);
            vector += VECTORS;
        }
        for vector in vector..vectors {
            let columns = Columns {
                panels: [at(vector)],
                scales,
                channel: vector * V::LANES,
            };
            self.product::<V, E, 1, 1>(&columns, p, 0);
        }
    }

    /// All rows of P times all channels of v as float32: where they lie, or a few panels at a time.
    #[inline(always)]
    fn value_rows<V: Vector>(&mut self, values: &ValuePanels<'_>, strip: &LiveStrip, p: P) {
        let vectors = self.call.value_shape.width.div_ceil(V::LANES);
        let mut vector = 0;
        while vector + VECTORS <= vectors {
            let panels = self.near_columns::<V, VECTORS>(values, strip, vector);
            self.products::<V, f32, VECTORS>(&Columns::wide(panels, vector * V::LANES), p);
            vector += VECTORS;
        }
        for vector in vector..vectors {
            let panels = self.near_columns::<V, 1>(values, strip, vector);
            self.products::<V, f32, 1>(&Columns::wide(panels, vector * V::LANES), p);
        }
    }

    /// N vectors of channels of v from vector `vector` on as float32. Those before it in the same
    /// panel were asked for just now.
    #[inline(always)]
    fn near_columns<V: Vector, const N: usize>(
        &mut self,
        values: &ValuePanels<'_>,
        strip: &LiveStrip,
        vector: usize,
    ) -> [*const f32; N] {
        let (first, keys) = (strip.start(), strip.end() - strip.start());
        let channel = vector * V::LANES;
        let is_near = values.dtype == CacheDType::F32;
        if !is_near && channel.is_multiple_of(PANEL) {
            let near = self.scratch.near.chunks_exact_mut(STRIP * PANEL);
            let panels = (channel..channel + N * V::LANES).step_by(PANEL);
            for (channel, near) in panels.zip(near) {
                values.near::<V>(first, keys, channel, near);
            }
        }
        let near = self.scratch.near.as_ptr();
        let mut panels = [near; N];
        for (n, panel) in panels.iter_mut().enumerate() {
            let within = channel % PANEL + n * V::LANES;
            *panel = if is_near {
                values.at(first, channel + n * V::LANES)
            } else {
                near.wrapping_add(within / PANEL * STRIP * PANEL + within % PANEL)
            };
        }
        panels
    }

    /// P of all rows times some columns of v.
    #[inline(always)]
    fn products<V: Vector, E: Held, const N: usize>(&mut self, columns: &Columns<E, N>, p: P) {
        let mut row = 0;
        while row < p.rows {
            let count = tile_rows(p.rows - row);
            match count {
                ROWS => self.product::<V, E, ROWS, N>(columns, p, row),
                2 => self.product::<V, E, 2, N>(columns, p, row),
                _ => self.product::<V, E, 1, N>(columns, p, row),
            }
            row += count;
        }
    }

    /// P of M rows times some columns of v.
    #[inline(always)]
    fn product<V: Vector, E: Held, const M: usize, const N: usize>(
        &mut self,
        columns: &Columns<E, N>,
        p: P,
        row: usize,
    ) {
        let a = self.scratch.p[p.first * p.rows + row..].as_ptr();
        // SAFETY: P has a row of `rows` values per key of the strip, M from `row` on; V panels have
        // as many keys from the first live one on, whole vectors of channels, and as many scales,
        // where there are any.
        let sums: [[V; N]; M] = unsafe {
            let (a, b) = ((a, p.rows), (columns.panels, PANEL));
            if E::SCALED {
                let ask = ahead::<V, E, M, N>(N * V::LANES * STRIP);
                product_over(a, b, ByRow(columns.scales), p.depth, ask)
            } else {
                product_over(a, b, Unscaled, p.depth, |_| {})
            }
        };
        let padded = self.call.value_shape.padded();
        for (m, sums) in sums.iter().enumerate() {
            let to = &mut self.memory.partial[p.to + (row + m) * padded + columns.channel..];
            for (&sum, to) in sums.iter().zip(to.chunks_exact_mut(V::LANES)) {
                store(sum, to);
            }
        }
    }

    /// P = Σ_t weight_t E_t of one row of a head, into column `column` of P's `rows`: the low parts
    /// of all weights, then the high ones, as the prefill does.
    #[inline(always)]
    fn combine<V: Vector>(&mut self, entry: usize, i: usize, column: usize, rows: usize) {
        let queries = self.rows.sequence.queries;
        let (from, end) = self.rows.keys(self.memory.strip);
        let (_, pairs) = &self.rows.plan.heads[entry];
        let terms = (entry * queries + i) * self.call.plan.terms;
        let width = self.width::<V>();
        let p_row = &mut self.scratch.p_row[..width];
        for part in [1, 0] {
            for (t, pair) in pairs.iter().enumerate() {
                let weight = V::splat(self.rows.weights(terms + t, self.memory.strip)[part]);
                let scores = &self.memory.scores[(pair * queries + i) * STRIP..][..width];
                let is_first = part == 1 && t == 0;
                let scores = scores.chunks_exact(V::LANES);
                for (p, e) in p_row.chunks_exact_mut(V::LANES).zip(scores) {
                    let e = load::<V>(e);
                    let sum = if is_first {
                        e.mul(weight)
                    } else {
                        e.mul_add(weight, load::<V>(p))
                    };
                    store(sum, p);
                }
            }
        }
        let to = self.scratch.p[column..].iter_mut().step_by(rows);
        for (to, &p) in to.zip(&self.scratch.p_row[..end - from]) {
            *to = p;
        }
    }

    /// A strip where v has NaN or infinities: the product takes them as zeros, the rows that see
    /// them add them.
    #[cold]
    fn add_special<V: Vector>(&mut self, index: usize, values: &ValuePanels<'_>, p: P) {
        let (from, end) = self.rows.keys(self.memory.strip);
        for channel in (0..self.call.value_shape.width).step_by(V::LANES) {
            values.finite_copy::<V>(from, end - from, channel, &mut self.scratch.finite);
            let panels = [self.scratch.finite[p.first * PANEL + channel % PANEL..].as_ptr()];
            self.products::<V, f32, 1>(&Columns::wide(panels, channel), p);
        }
        let sequence = self.rows.sequence;
        let (_, uses) = &self.rows.plan.by_value[index];
        let padded = self.call.value_shape.padded();
        values.each_special(from, end - from, |key, channel, value| {
            for row in 0..p.rows {
                let i = row % sequence.queries;
                let (head, pairs) = &self.rows.plan.heads[uses[row / sequence.queries].0];
                // A row whose scores are all −∞ counts as one that sees nothing.
                let row_sum = |pair: &usize| self.rows.row_sum[pair * sequence.queries + i];
                if pairs.iter().all(|pair| row_sum(pair) == 0.0) {
                    continue;
                }
                let (low, high) = self.call.band.keys(sequence, i);
                let query = sequence.row(*head, i);
                let seen = (low..high).contains(&key) && self.call.visible(query).sees(key);
                if seen && self.call.elements.sees(query, key) {
                    self.memory.partial[p.to + row * padded + channel] +=
                        self.scratch.p[(key - from) * p.rows + row] * value;
                }
            }
        });
    }
}
