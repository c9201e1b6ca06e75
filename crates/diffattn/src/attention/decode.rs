//! Few queries against many keys: lanes are keys (then channels), so that K and V are read once for all the
//! heads and queries that share them. The same sums in the same order as `row_block.rs`, hence the same bits.
//! Runs in phases over (unit, strip) items, so that few heads still fill many threads; knows no scheduling.

use super::call::Call;
use super::decode_plan::DecodePlan;
use super::mask::Sequence;
use super::outputs::RowsOut;
use super::panels::Panels;
use super::row_block::{add_bias, cap};
use super::softmax::{self, exponentials, safe_max};
use crate::error::Error;
use crate::isa::Kernel;
use crate::shape::try_zeroed;
use crate::tile::{PANEL, ROW_SUMS, STRIP, product};
use crate::vector::Vector;

/// Vectors of a decode tile: four streams of panels keep the loads coming.
const VECTORS: usize = 4;

/// Query rows of a decode tile at most: 4 × 4 accumulators fit the registers of every set but the
/// sixteen-register ones, which seldom see more than one row.
const ROWS: usize = 4;

/// One unit's working memory.
#[derive(Debug)]
pub(super) struct DecodeScratch {
    /// The strips that any query sees.
    first_strip: usize,
    strips: usize,
    /// `[key head's stretch][channel][pair · query]`, scaled.
    queries: Vec<f32>,
    /// `[pair · query][key]`, from the first strip.
    scores: Vec<f32>,
    /// `[strip][pair · query]`.
    strip_max: Vec<f32>,
    strip_sum: Vec<f32>,
    footing: Vec<f64>,
    row_max: Vec<f32>,
    row_sum: Vec<f64>,
    /// `[head · query][term][strip]`, the high parts and the low ones.
    high: Vec<f32>,
    low: Vec<f32>,
    /// `[strip][head place · query][padded channel]`: each strip's own product.
    partial: Vec<f32>,
    /// (head, place) pairs of all v heads before each v head.
    value_rows: Vec<usize>,
}

/// One head cluster of one sequence.
#[derive(Debug)]
pub(super) struct DecodeUnit<'c> {
    pub(super) sequence: &'c Sequence,
    pub(super) plan: &'c DecodePlan,
    pub(super) scratch: DecodeScratch,
}

impl<'c> DecodeUnit<'c> {
    pub(super) fn new(
        call: &Call<'_>,
        sequence: &'c Sequence,
        plan: &'c DecodePlan,
    ) -> Result<Self, Error> {
        let queries = sequence.queries;
        let seen = (0..queries)
            .map(|i| call.band.keys(sequence, i))
            .filter(|range| range.0 < range.1);
        let (start, end) = seen.fold((usize::MAX, 0), |all, range| {
            (all.0.min(range.0), all.1.max(range.1))
        });
        let first_strip = if start < end { start / STRIP } else { 0 };
        let strips = if start < end {
            end.div_ceil(STRIP) - first_strip
        } else {
            0
        };
        let rows = plan.pairs.len() * queries;
        let padded = call.value_shape.padded();
        let mut value_rows = Vec::with_capacity(plan.by_value.len());
        let mut places = 0;
        for (_, uses) in &plan.by_value {
            value_rows.push(places);
            places += uses.len();
        }
        let scratch = DecodeScratch {
            first_strip,
            strips,
            queries: try_zeroed(rows * call.width)?,
            scores: try_zeroed(rows * strips * STRIP)?,
            strip_max: try_zeroed(strips * rows)?,
            strip_sum: try_zeroed(strips * rows)?,
            row_max: try_zeroed(rows)?,
            footing: try_zeroed(strips * rows)?,
            row_sum: try_zeroed(rows)?,
            high: try_zeroed(plan.heads.len() * queries * call.plan.terms * strips)?,
            low: try_zeroed(plan.heads.len() * queries * call.plan.terms * strips)?,
            partial: try_zeroed(strips * places * queries * padded)?,
            value_rows,
        };
        let mut unit = Self {
            sequence,
            plan,
            scratch,
        };
        unit.pack_queries(call)?;
        Ok(unit)
    }

    /// Float32 values of scratch that a unit takes, roughly: what bounds how many run at once.
    pub(super) fn scratch_len(call: &Call<'_>, sequence: &Sequence, plan: &DecodePlan) -> usize {
        plan.pairs.len() * sequence.queries * sequence.keys.next_multiple_of(STRIP)
            + sequence.keys.div_ceil(STRIP)
                * plan.heads.len()
                * sequence.queries
                * call.value_shape.padded()
    }

    /// Rows of P of any v head at most.
    pub(super) fn value_rows(&self) -> usize {
        self.plan
            .by_value
            .iter()
            .map(|(_, uses)| uses.len())
            .max()
            .unwrap_or(0)
            * self.sequence.queries
    }

    pub(super) fn strips(&self) -> usize {
        self.scratch.strips
    }

    /// Queries as [channel][pair · query] per k head.
    fn pack_queries(&mut self, call: &Call<'_>) -> Result<(), Error> {
        let (queries, width) = (self.sequence.queries, call.width);
        let mut row = try_zeroed(width)?;
        for (_, pairs) in &self.plan.by_key {
            let rows = pairs.len() * queries;
            let to = &mut self.scratch.queries[pairs.start * queries * width..][..rows * width];
            for (index, pair) in pairs.clone().enumerate() {
                let from = call.query_rows(self.sequence, self.plan.pairs[pair].0);
                for i in 0..queries {
                    let (row, _) = from.read(i, 1, &mut row);
                    for (channel, &value) in row.iter().enumerate() {
                        to[channel * rows + index * queries + i] = value * call.scores.query;
                    }
                }
            }
        }
        Ok(())
    }

    /// Between the phases: each row's maximum and sum, and the weights of its terms and strips.
    pub(super) fn reduce(&mut self, call: &Call<'_>) {
        let DecodeScratch {
            strips,
            strip_max,
            strip_sum,
            footing,
            row_max,
            row_sum,
            high,
            low,
            ..
        } = &mut self.scratch;
        let scale = call.scores.exponent.exact;
        softmax::reduce(scale, strip_max, strip_sum, footing, row_max, row_sum);
        let (rows, queries) = (row_max.len(), self.sequence.queries);
        for (entry, (head, pairs)) in self.plan.heads.iter().enumerate() {
            for i in 0..queries {
                for (t, pair) in pairs.iter().enumerate() {
                    let query = self.sequence.first_query + i;
                    let coefficient = call.coefficient(*head, t, self.sequence.batch, query);
                    let row = pair * queries + i;
                    let share = softmax::share(coefficient, row_sum[row]);
                    let at = ((entry * queries + i) * call.plan.terms + t) * *strips;
                    for strip in 0..*strips {
                        let footing = footing[strip * rows + row];
                        [high[at + strip], low[at + strip]] = softmax::weight(share, footing);
                    }
                }
            }
        }
    }
}

/// The phases of a unit, in order; [`DecodeUnit::reduce`] runs between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Scores, their exponentials, strip maxima and sums.
    Exponentials,
    /// Combination and product with v, each strip from zero.
    Values,
}

/// Where a unit's phases write: each (unit, strip) item its own places.
#[derive(Debug, Clone, Copy)]
pub(super) struct UnitMemory {
    scores: *mut f32,
    strip_max: *mut f32,
    strip_sum: *mut f32,
    partial: *mut f32,
}

// SAFETY: items of one phase write disjoint places (their strip's), and phases are separated by joins.
unsafe impl Send for UnitMemory {}
// SAFETY: as above.
unsafe impl Sync for UnitMemory {}

impl DecodeUnit<'_> {
    pub(super) fn memory(&mut self) -> UnitMemory {
        UnitMemory {
            scores: self.scratch.scores.as_mut_ptr(),
            strip_max: self.scratch.strip_max.as_mut_ptr(),
            strip_sum: self.scratch.strip_sum.as_mut_ptr(),
            partial: self.scratch.partial.as_mut_ptr(),
        }
    }
}

/// One thread's small buffers.
#[derive(Debug)]
pub(super) struct StripScratch {
    /// P as [key][row].
    p: Vec<f32>,
    /// P of one row.
    p_row: Vec<f32>,
    bias: Vec<f32>,
    finite: Vec<f32>,
}

impl StripScratch {
    pub(super) fn new(rows: usize) -> Result<Self, Error> {
        Ok(Self {
            p: try_zeroed(rows * STRIP)?,
            p_row: try_zeroed(STRIP)?,
            bias: try_zeroed(STRIP)?,
            finite: try_zeroed(STRIP * PANEL)?,
        })
    }
}

/// One strip of one phase of one unit.
pub(super) struct DecodeStrip<'c, 'a> {
    pub(super) call: &'c Call<'a>,
    pub(super) unit: &'c DecodeUnit<'c>,
    pub(super) panels: Panels<'c>,
    pub(super) memory: UnitMemory,
    pub(super) scratch: &'c mut StripScratch,
    pub(super) phase: Phase,
    /// Counted from the unit's first.
    pub(super) strip: usize,
}

impl Kernel for DecodeStrip<'_, '_> {
    type Output = ();
    #[inline(always)]
    fn run<V: Vector>(mut self) {
        match self.phase {
            Phase::Exponentials => {
                self.scores::<V>();
                self.exponentials::<V>();
            }
            Phase::Values => self.values::<V>(),
        }
    }
}

impl DecodeStrip<'_, '_> {
    /// The strip's keys.
    fn keys(&self) -> (usize, usize) {
        let from = (self.unit.scratch.first_strip + self.strip) * STRIP;
        (from, (from + STRIP).min(self.unit.sequence.keys))
    }

    /// How many scores of the strip are worked on: its keys, rounded up to what the exponentials take at once.
    #[inline(always)]
    fn width<V: Vector>(&self) -> usize {
        const { assert!(STRIP.is_multiple_of(ROW_SUMS * V::LANES)) };
        let (from, end) = self.keys();
        (end - from).next_multiple_of(ROW_SUMS * V::LANES)
    }

    /// The strip's scores of one row: there is room for STRIP of them.
    #[inline(always)]
    fn score_row(&self, row: usize) -> *mut f32 {
        self.memory
            .scores
            .wrapping_add((row * self.unit.scratch.strips + self.strip) * STRIP)
    }

    #[inline(always)]
    fn scores<V: Vector>(&mut self) {
        let queries = self.unit.sequence.queries;
        for (k, pairs) in &self.unit.plan.by_key {
            let keys = self.panels.keys(*k);
            let (first, rows) = (pairs.start * queries, pairs.len() * queries);
            let a = self.unit.scratch.queries[first * self.call.width..].as_ptr();
            let mut row = 0;
            while row < rows {
                // Exact tails: every row is computed once.
                let count = if rows - row >= ROWS {
                    ROWS
                } else if rows - row >= 2 {
                    2
                } else {
                    1
                };
                // SAFETY: `a` holds `width` rows of `rows` values; see `score_tile`.
                unsafe {
                    let a = a.add(row);
                    match count {
                        ROWS => self.score_tiles::<V, ROWS>(a, rows, &keys, first + row),
                        2 => self.score_tiles::<V, 2>(a, rows, &keys, first + row),
                        _ => self.score_tiles::<V, 1>(a, rows, &keys, first + row),
                    }
                }
                row += count;
            }
        }
        for pair in 0..self.unit.plan.pairs.len() {
            for i in 0..queries {
                self.mask_row::<V>(pair, i);
            }
        }
    }

    /// # Safety
    /// `a` holds `width` rows of M values, `a_stride` apart; packed K reaches to a multiple of `KEY_ROUND` keys.
    #[inline(always)]
    unsafe fn score_tiles<V: Vector, const M: usize>(
        &self,
        a: *const f32,
        a_stride: usize,
        keys: &super::packed::KeyPanels<'_>,
        first_row: usize,
    ) {
        let (from, end) = self.keys();
        let mut key = from;
        while key < end {
            let mut panels = [keys.at(key); VECTORS];
            for (n, panel) in panels.iter_mut().enumerate() {
                *panel = keys.at(key + n * V::LANES);
            }
            // SAFETY: VECTORS vectors of keys from a multiple of them lie below the next multiple of KEY_ROUND.
            let sums =
                unsafe { product::<V, M, VECTORS>(a, a_stride, panels, PANEL, self.call.width) };
            for (m, sums) in sums.iter().enumerate() {
                let to = self.score_row(first_row + m);
                for (n, &sum) in sums.iter().enumerate() {
                    // SAFETY: a row of scores has STRIP values per strip, a multiple of a tile's keys.
                    unsafe { sum.store(to.add(key - from + n * V::LANES)) };
                }
            }
            key += VECTORS * V::LANES;
        }
    }

    /// Softcap, bias and mask of one row, and its maximum; −∞ past what it sees.
    #[inline(always)]
    fn mask_row<V: Vector>(&mut self, pair: usize, i: usize) {
        let sequence = self.unit.sequence;
        let row = pair * sequence.queries + i;
        let (from, end) = self.keys();
        let (low, high) = self.call.band.keys(sequence, i);
        let (low, high) = (low.clamp(from, end) - from, high.clamp(from, end) - from);
        let (low, high) = if low < high { (low, high) } else { (0, 0) };
        let width = self.width::<V>();
        // SAFETY: the strip's scores of this row, which no other item touches.
        let scores = unsafe { std::slice::from_raw_parts_mut(self.score_row(row), width) };
        if let Some(scale) = self.call.scores.dot {
            scores.iter_mut().for_each(|score| *score *= scale);
        }
        if let Some(softcap) = self.call.softcap {
            for at in scores.chunks_exact_mut(V::LANES) {
                // SAFETY: a chunk is one vector.
                unsafe { cap(V::load(at.as_ptr()), softcap).store(at.as_mut_ptr()) };
            }
        }
        scores[..low].fill(f32::NEG_INFINITY);
        scores[high..].fill(f32::NEG_INFINITY);
        if !self.call.elements.is_empty() && low < high {
            let head = self.unit.plan.pairs[pair].1;
            let bias = &mut self.scratch.bias;
            bias.fill(f32::NEG_INFINITY);
            let at = (sequence.batch, head, sequence.first_query + i);
            self.call
                .elements
                .each(at, from + low, high - low, |index, value| {
                    bias[low + index] = value
                });
            for (at, bias) in scores
                .chunks_exact_mut(V::LANES)
                .zip(bias.chunks_exact(V::LANES))
            {
                // SAFETY: both chunks are one vector.
                unsafe {
                    add_bias(V::load(at.as_ptr()), V::load(bias.as_ptr())).store(at.as_mut_ptr())
                };
            }
        }
        let mut lanes = V::splat(f32::NEG_INFINITY);
        for at in scores.chunks_exact(V::LANES) {
            // SAFETY: a chunk is one vector.
            lanes = unsafe { V::load(at.as_ptr()) }.max(lanes);
        }
        let mut maxima = [f32::NEG_INFINITY; PANEL];
        // SAFETY: no vector has more than PANEL lanes.
        unsafe { lanes.store(maxima.as_mut_ptr()) };
        let max = maxima.into_iter().fold(f32::NEG_INFINITY, f32::max);
        // SAFETY: `[strip][row]`, this item's place.
        unsafe {
            *self
                .memory
                .strip_max
                .add(self.strip * self.unit.scratch.row_max.len() + row) = max
        };
    }

    #[inline(always)]
    fn exponentials<V: Vector>(&mut self) {
        let rows = self.unit.scratch.row_max.len();
        let exponent = self.call.scores.exponent;
        let width = self.width::<V>();
        for row in 0..rows {
            // SAFETY: `[strip][row]`, this item's place.
            let strip_max = unsafe { *self.memory.strip_max.add(self.strip * rows + row) };
            let strip_max = safe_max(V::splat(strip_max));
            // SAFETY: the strip's scores of this row, which no other item touches.
            let scores = unsafe { std::slice::from_raw_parts_mut(self.score_row(row), width) };
            for at in scores.chunks_exact_mut(ROW_SUMS * V::LANES) {
                // SAFETY: a chunk is ROW_SUMS vectors.
                unsafe { exponentials::<V, ROW_SUMS>(at.as_mut_ptr(), strip_max, &exponent) };
            }
            // As a lane of the prefill adds; what the row does not see adds 0.
            let mut sums = [0.0f32; ROW_SUMS];
            for chunk in scores.chunks_exact(ROW_SUMS) {
                for (sum, e) in sums.iter_mut().zip(chunk) {
                    *sum += e;
                }
            }
            let sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
            // SAFETY: `[strip][row]`, this item's place.
            unsafe { *self.memory.strip_sum.add(self.strip * rows + row) = sum };
        }
    }

    #[inline(always)]
    fn values<V: Vector>(&mut self) {
        let queries = self.unit.sequence.queries;
        let padded = self.call.value_shape.padded();
        let places: usize = self
            .unit
            .plan
            .by_value
            .iter()
            .map(|(_, uses)| uses.len())
            .sum();
        let (from, end) = self.keys();
        let strip = self.unit.scratch.first_strip + self.strip;
        for (index, (v, uses)) in self.unit.plan.by_value.iter().enumerate() {
            let rows = uses.len() * queries;
            for (use_index, &(entry, _)) in uses.iter().enumerate() {
                for i in 0..queries {
                    self.combine::<V>(entry, i, use_index * queries + i, rows);
                }
            }
            let values = self.panels.values(*v);
            let special = values.is_special(strip);
            let first_row = self.unit.scratch.value_rows[index] * queries;
            let to = self
                .memory
                .partial
                .wrapping_add((self.strip * places * queries + first_row) * padded);
            let vectors = self.call.value_shape.width.div_ceil(V::LANES);
            let mut vector = 0;
            while vector < vectors {
                // Infinite values need a cleaned panel at a time.
                let step = if vectors - vector >= VECTORS && !special {
                    VECTORS
                } else {
                    1
                };
                let mut panels = [values.at(from, vector * V::LANES); VECTORS];
                if special {
                    let channel = vector * V::LANES;
                    values.finite_copy(from, end - from, channel, &mut self.scratch.finite);
                    panels = [self.scratch.finite[channel % PANEL..].as_ptr(); VECTORS];
                } else {
                    for (n, panel) in panels.iter_mut().enumerate().take(step) {
                        *panel = values.at(from, (vector + n) * V::LANES);
                    }
                }
                let mut row = 0;
                while row < rows {
                    let count = if rows - row >= ROWS {
                        ROWS
                    } else if rows - row >= 2 {
                        2
                    } else {
                        1
                    };
                    let a = self.scratch.p[row..].as_ptr();
                    let to = to.wrapping_add(row * padded + vector * V::LANES);
                    // SAFETY: P has `end − from` rows of `rows` values; V panels as many keys; the strip's
                    // partial rows have `padded` channels, a multiple of a vector.
                    unsafe {
                        match (count, step) {
                            (ROWS, VECTORS) => value_tile::<V, ROWS, VECTORS>(
                                a,
                                rows,
                                panels,
                                end - from,
                                to,
                                padded,
                            ),
                            (2, VECTORS) => {
                                value_tile::<V, 2, VECTORS>(a, rows, panels, end - from, to, padded)
                            }
                            (_, VECTORS) => {
                                value_tile::<V, 1, VECTORS>(a, rows, panels, end - from, to, padded)
                            }
                            (ROWS, _) => value_tile::<V, ROWS, 1>(
                                a,
                                rows,
                                [panels[0]],
                                end - from,
                                to,
                                padded,
                            ),
                            (2, _) => {
                                value_tile::<V, 2, 1>(a, rows, [panels[0]], end - from, to, padded)
                            }
                            _ => {
                                value_tile::<V, 1, 1>(a, rows, [panels[0]], end - from, to, padded)
                            }
                        }
                    }
                    row += count;
                }
                vector += step;
            }
            if special {
                self.add_special(index, to, rows);
            }
        }
    }

    /// P = Σ_t weight_t E_t of one row of a head, into column `column` of P's `rows`: the low parts of all
    /// weights, then the high ones, as `row_block.rs` does.
    #[inline(always)]
    fn combine<V: Vector>(&mut self, entry: usize, i: usize, column: usize, rows: usize) {
        let queries = self.unit.sequence.queries;
        let (from, end) = self.keys();
        let (_, pairs) = &self.unit.plan.heads[entry];
        let DecodeScratch {
            strips, high, low, ..
        } = &self.unit.scratch;
        let terms = (entry * queries + i) * self.call.plan.terms;
        for (part, weights) in [low, high].into_iter().enumerate() {
            for (t, pair) in pairs.iter().enumerate() {
                let weight = V::splat(weights[(terms + t) * strips + self.strip]);
                let scores = self.score_row(pair * queries + i);
                let mut at = 0;
                while at < self.width::<V>() {
                    // SAFETY: scores and P of a row both have room for STRIP values, whole vectors.
                    unsafe {
                        let e = V::load(scores.add(at));
                        let to = self.scratch.p_row.as_mut_ptr().add(at);
                        let first = part == 0 && t == 0;
                        let p = if first {
                            e.mul(weight)
                        } else {
                            e.mul_add(weight, V::load(to))
                        };
                        p.store(to);
                    }
                    at += V::LANES;
                }
            }
        }
        for (to, &p) in self.scratch.p[column..]
            .iter_mut()
            .step_by(rows)
            .zip(&self.scratch.p_row[..end - from])
        {
            *to = p;
        }
    }

    /// NaN and infinities of v, which the product took as zeros, for the rows that see them.
    #[cold]
    fn add_special(&self, index: usize, to: *mut f32, rows: usize) {
        let sequence = self.unit.sequence;
        let (from, end) = self.keys();
        let (v, uses) = &self.unit.plan.by_value[index];
        let padded = self.call.value_shape.padded();
        self.panels
            .values(*v)
            .each_special(from, end - from, |key, channel, value| {
                for row in 0..rows {
                    let i = row % sequence.queries;
                    let (head, pairs) = &self.unit.plan.heads[uses[row / sequence.queries].0];
                    // A row whose scores are all −∞ counts as one that sees nothing.
                    let row_sum =
                        |pair: &usize| self.unit.scratch.row_sum[pair * sequence.queries + i];
                    if pairs.iter().all(|pair| row_sum(pair) == 0.0) {
                        continue;
                    }
                    let (low, high) = self.call.band.keys(sequence, i);
                    let query = (sequence.batch, *head, sequence.first_query + i);
                    if (low..high).contains(&key) && self.call.elements.sees(query, key) {
                        // SAFETY: the strip's partial rows, which only this item touches.
                        unsafe {
                            *to.add(row * padded + channel) +=
                                self.scratch.p[(key - from) * rows + row] * value
                        };
                    }
                }
            });
    }
}

/// # Safety
/// As [`product`]; `to` has M rows of N vectors, `stride` apart.
#[inline(always)]
unsafe fn value_tile<V: Vector, const M: usize, const N: usize>(
    a: *const f32,
    a_stride: usize,
    b: [*const f32; N],
    depth: usize,
    to: *mut f32,
    stride: usize,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let sums = product::<V, M, N>(a, a_stride, b, PANEL, depth);
        for (m, sums) in sums.iter().enumerate() {
            for (n, &sum) in sums.iter().enumerate() {
                sum.store(to.add(m * stride + n * V::LANES));
            }
        }
    }
}

/// Adds a unit's strips in order, and finishes its rows.
pub(super) struct DecodeFinish<'c, 'a> {
    pub(super) call: &'c Call<'a>,
    pub(super) unit: &'c DecodeUnit<'c>,
    pub(super) outputs: &'c RowsOut<'a>,
    /// One row of the result.
    pub(super) row: &'c mut [f32],
}

impl Kernel for DecodeFinish<'_, '_> {
    type Output = ();
    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self {
            call,
            unit,
            outputs,
            row: y,
        } = self;
        let DecodeUnit {
            sequence,
            plan,
            scratch,
            ..
        } = unit;
        let queries = sequence.queries;
        let (width, padded) = (call.value_shape.width, call.value_shape.padded());
        let places: usize = plan.by_value.iter().map(|(_, uses)| uses.len()).sum();
        for (entry, (head, pairs)) in plan.heads.iter().enumerate() {
            for i in 0..queries {
                let rows = &plan.rows[entry * call.plan.values..][..call.plan.values];
                for (to, row) in y.chunks_exact_mut(width).zip(rows) {
                    let row = row * queries + i;
                    to.fill(0.0);
                    for strip in 0..scratch.strips {
                        let from =
                            &scratch.partial[(strip * places * queries + row) * padded..][..width];
                        for (to, from) in to.iter_mut().zip(from) {
                            *to += from;
                        }
                    }
                }
                let at = sequence.row(*head, i);
                outputs.write_row::<V>(call, at, &mut y[..call.plan.values * width]);
                if outputs.wants_lse() {
                    for t in 0..call.plan.terms {
                        let lse = pairs.get(t).map_or(f32::NEG_INFINITY, |pair| {
                            let row = pair * queries + i;
                            call.scores
                                .log_sum_exp(scratch.row_max[row], scratch.row_sum[row])
                        });
                        outputs.write_lse(call, at, t, lse);
                    }
                }
            }
        }
    }
}
