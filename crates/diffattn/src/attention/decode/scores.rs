//! The first phase of a strip: scores of all its rows, masked, with their maxima, turned into
//! exponentials with their sums.

use super::strip::{DecodeStrip, NEAR_KEYS, ROWS, VECTORS, WIDENS, ahead, tile_rows};
use crate::attention::adjust::{add_bias, cap};
use crate::attention::held::{CacheDType, Held};
use crate::attention::lanes::{load, store};
use crate::attention::live::LiveStrip;
use crate::attention::packed::KeyPanels;
use crate::attention::softmax::{exponentials, safe_max};
use crate::attention::visible::MASK_BLOCK;
use crate::blocks::{PANEL, ROW_SUMS, STRIP};
use crate::simd::Vector;
use crate::simd::{ByLane, PackedRows, Unscaled, product_of};
use half::{bf16, f16};
use std::ops::Range;

/// Keys of a strip, and the rows that share them.
struct Keys<'s> {
    panels: KeyPanels<'s>,
    strip: &'s LiveStrip,
    rows: Range<usize>,
}

impl Keys<'_> {
    /// Whether one row has the keys to itself, and widens them in registers.
    #[inline(always)]
    fn is_alone(&self) -> bool {
        !WIDENS && self.rows.len() == 1
    }
}

impl DecodeStrip<'_, '_, '_> {
    /// How many scores of the strip are worked on: its keys, rounded up to what the exponentials
    /// take at once.
    #[inline(always)]
    pub(super) fn width<V: Vector>(&self) -> usize {
        const { assert!(STRIP.is_multiple_of(ROW_SUMS * V::LANES)) };
        let (from, end) = self.rows.keys(self.memory.strip);
        (end - from).next_multiple_of(ROW_SUMS * V::LANES)
    }

    /// Scores of the live keys of a strip, masked, and their maxima.
    #[inline(always)]
    pub(super) fn scores<V: Vector>(&mut self, strip: &LiveStrip) {
        let plan = self.rows.plan;
        let queries = self.rows.sequence.queries;
        for (k, pairs) in &plan.by_key {
            let keys = self.panels.keys(*k);
            let of = Keys {
                panels: keys,
                strip,
                rows: pairs.start * queries..pairs.end * queries,
            };
            match keys.dtype {
                CacheDType::F16 if of.is_alone() => self.score_row::<V, f16>(&of),
                CacheDType::Bf16 if of.is_alone() => self.score_row::<V, bf16>(&of),
                CacheDType::Int8 if of.is_alone() => self.score_row::<V, i8>(&of),
                _ => self.score_rows::<V>(&of),
            }
        }
        for pair in 0..plan.pairs.len() {
            for i in 0..queries {
                self.mask_row::<V>(pair, i);
            }
        }
    }

    /// Scores of one row over keys as they are held, widened in registers.
    #[inline(always)]
    fn score_row<V: Vector, E: Held>(&mut self, of: &Keys<'_>) {
        for &(run, end) in of.strip.runs() {
            self.score_tiles::<V, E, 1>(of, of.rows.start, (run, end), of.panels.at(run));
        }
    }

    /// Scores of all rows over keys as float32: where they lie, or a few panels at a time.
    #[inline(always)]
    fn score_rows<V: Vector>(&mut self, of: &Keys<'_>) {
        let is_near = of.panels.dtype == CacheDType::F32;
        let most = if is_near { STRIP } else { NEAR_KEYS };
        for &(run, end) in of.strip.runs() {
            for first in (run..end).step_by(most) {
                let near = of.panels.near::<V>(first, most, &mut self.scratch.near);
                let keys = (first, end.min(first + most));
                let mut row = of.rows.start;
                while row < of.rows.end {
                    let count = tile_rows(of.rows.end - row);
                    match count {
                        ROWS => self.score_tiles::<V, f32, ROWS>(of, row, keys, near),
                        2 => self.score_tiles::<V, f32, 2>(of, row, keys, near),
                        _ => self.score_tiles::<V, f32, 1>(of, row, keys, near),
                    }
                    row += count;
                }
            }
        }
    }

    /// Scores of M rows from `row` on, of those that share keys, over keys `run..end`, the first of
    /// a panel, which lie at `first`.
    #[inline(always)]
    fn score_tiles<V: Vector, E: Held, const M: usize>(
        &mut self,
        of: &Keys<'_>,
        row: usize,
        (run, end): (usize, usize),
        first: *const E,
    ) {
        let rows = of.rows.clone();
        let width = self.call.width;
        let queries = &self.rows.queries[rows.start * width..][..rows.len() * width];
        let a = PackedRows {
            first: queries[row - rows.start..].as_ptr(),
            stride: rows.len(),
            depth: width,
        };
        let (from, _) = self.rows.keys(self.memory.strip);
        for key in (run..end).step_by(VECTORS * V::LANES) {
            let at = |key: usize| {
                let panel = (key - run) / PANEL * PANEL * width;
                first.wrapping_add(panel + key % PANEL)
            };
            let mut panels = [first; VECTORS];
            for (n, panel) in panels.iter_mut().enumerate() {
                *panel = at(key + n * V::LANES);
            }
            // SAFETY: packed queries have `width` rows, M values of each from `row` on; VECTORS
            // vectors of keys from a multiple of them on lie below the next multiple of KEY_ROUND,
            // to which packed K reaches, and as many scales, where there are any.
            let sums: [[V; VECTORS]; M] = unsafe {
                if E::SCALED {
                    let scaling = ByLane(of.panels.scales(key));
                    let ask = ahead::<V, E, M, VECTORS>(VECTORS * V::LANES * width);
                    product_of(a, panels, PANEL, scaling, ask)
                } else {
                    product_of(a, panels, PANEL, Unscaled, |_| {})
                }
            };
            for (m, sums) in sums.iter().enumerate() {
                let to = &mut self.memory.scores[(row + m) * STRIP + key - from..];
                for (&sum, to) in sums.iter().zip(to.chunks_exact_mut(V::LANES)) {
                    store(sum, to);
                }
            }
        }
    }

    /// Softcap, bias and mask of one row, and its maximum; −∞ past what it sees.
    #[inline(always)]
    fn mask_row<V: Vector>(&mut self, pair: usize, i: usize) {
        let sequence = self.rows.sequence;
        let row = pair * sequence.queries + i;
        let (from, end) = self.rows.keys(self.memory.strip);
        let (low, high) = self.call.band.keys(sequence, i);
        let (low, high) = (low.clamp(from, end) - from, high.clamp(from, end) - from);
        let (low, high) = if low < high { (low, high) } else { (0, 0) };
        let width = self.width::<V>();
        let scores = &mut self.memory.scores[row * STRIP..][..width];
        if let Some(scale) = self.call.scores.dot {
            scores.iter_mut().for_each(|score| *score *= scale);
        }
        if let Some(softcap) = self.call.softcap {
            for at in scores.chunks_exact_mut(V::LANES) {
                store(cap(load::<V>(at), softcap), at);
            }
        }
        scores[..low].fill(f32::NEG_INFINITY);
        scores[high..].fill(f32::NEG_INFINITY);
        if !self.call.elements.is_empty() && low < high {
            let head = self.rows.plan.pairs[pair].1;
            let bias = &mut self.scratch.bias;
            bias.fill(f32::NEG_INFINITY);
            let at = sequence.row(head, i);
            self.call
                .elements
                .each(at, from + low, high - low, |index, value| {
                    bias[low + index] = value
                });
            let bias = bias.chunks_exact(V::LANES);
            for (at, bias) in scores.chunks_exact_mut(V::LANES).zip(bias) {
                store(add_bias(load::<V>(at), load::<V>(bias)), at);
            }
        }
        if !self.call.blocks.is_empty() {
            let head = self.rows.plan.pairs[pair].1;
            let visible = self.call.visible(sequence.row(head, i));
            for (block, scores) in scores.chunks_mut(MASK_BLOCK).enumerate() {
                if !visible.sees(from + block * MASK_BLOCK) {
                    scores.fill(f32::NEG_INFINITY);
                }
            }
        }
        let mut lanes = V::splat(f32::NEG_INFINITY);
        for at in scores.chunks_exact(V::LANES) {
            lanes = load::<V>(at).max(lanes);
        }
        let mut maxima = [f32::NEG_INFINITY; PANEL];
        store(lanes, &mut maxima);
        self.memory.max[row] = maxima.into_iter().fold(f32::NEG_INFINITY, f32::max);
    }

    #[inline(always)]
    pub(super) fn exponentials<V: Vector>(&mut self) {
        let exponent = self.call.scores.exponent;
        let width = self.width::<V>();
        let rows = self.memory.scores.chunks_exact_mut(STRIP);
        for ((scores, &strip_max), strip_sum) in
            rows.zip(&*self.memory.max).zip(&mut *self.memory.sum)
        {
            let scores = &mut scores[..width];
            let strip_max = safe_max(V::splat(strip_max));
            for at in scores.chunks_exact_mut(ROW_SUMS * V::LANES) {
                exponentials::<V, ROW_SUMS>(at, strip_max, &exponent);
            }
            // As a lane of the prefill adds; what the row does not see adds 0.
            let mut sums = [0.0f32; ROW_SUMS];
            for chunk in scores.chunks_exact(ROW_SUMS) {
                for (sum, e) in sums.iter_mut().zip(chunk) {
                    *sum += e;
                }
            }
            *strip_sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
        }
    }
}
