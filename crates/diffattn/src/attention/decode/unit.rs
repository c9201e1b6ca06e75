//! One head cluster of one sequence: its packed queries, its memory strip by strip, and what joins
//! the strips of its rows. Knows no tiles.

use crate::attention::call::Call;
use crate::attention::decode_plan::DecodePlan;
use crate::attention::live::LiveStrip;
use crate::attention::mask::Sequence;
use crate::attention::softmax::{self, Rows, Strips};
use crate::attention::visible::MASK_BLOCK;
use crate::blocks::STRIP;
use crate::error::Error;
use crate::run::buffer::{Buffer, try_zeroed};

/// What all strips of a unit read.
#[derive(Debug)]
pub(super) struct UnitRows<'c> {
    pub(super) sequence: &'c Sequence,
    pub(super) plan: &'c DecodePlan,
    /// The first strip that any query sees.
    first_strip: usize,
    strips: usize,
    /// `[key head's stretch][channel][pair · query]`, scaled.
    pub(super) queries: Vec<f32>,
    /// `[pair · query]`.
    pub(super) row_max: Vec<f32>,
    pub(super) row_sum: Vec<f64>,
    /// `[head · query][term][strip]`, the high parts and the low ones.
    high: Vec<f32>,
    low: Vec<f32>,
    /// (head, place) pairs of all v heads before each v head.
    pub(super) value_rows: Vec<usize>,
}

/// What each strip writes, strip after strip.
#[derive(Debug)]
struct UnitMemory {
    /// `[strip][pair · query][key]`; of arbitrary content at first, as `partial`: fresh memory of
    /// 32768 keys took a tenth of the time.
    scores: Buffer,
    /// `[strip][pair · query]`.
    strip_max: Vec<f32>,
    strip_sum: Vec<f32>,
    footing: Vec<f64>,
    /// `[strip][head place · query][padded channel]`: each strip's own product.
    partial: Buffer,
}

/// One strip's part of a unit's memory.
#[derive(Debug)]
pub(super) struct StripMemory<'u> {
    /// Counted from the unit's first.
    pub(super) strip: usize,
    /// `[pair · query][key]`, room for [`STRIP`] keys each.
    pub(super) scores: &'u mut [f32],
    /// `[pair · query]`.
    pub(super) max: &'u mut [f32],
    pub(super) sum: &'u mut [f32],
    /// `[head place · query][padded channel]`.
    pub(super) partial: &'u mut [f32],
}

/// One head cluster of one sequence.
#[derive(Debug)]
pub(in crate::attention) struct DecodeUnit<'c> {
    pub(super) rows: UnitRows<'c>,
    memory: UnitMemory,
}

impl<'c> DecodeUnit<'c> {
    pub(in crate::attention) fn new(
        call: &Call<'_>,
        sequence: &'c Sequence,
        plan: &'c DecodePlan,
    ) -> Result<Self, Error> {
        let (first_strip, strips) = seen_strips(call, sequence);
        let queries = sequence.queries;
        let rows = plan.pairs.len() * queries;
        let weights = plan.heads.len() * queries * call.plan.terms * strips;
        let mut value_rows = Vec::with_capacity(plan.by_value.len());
        let mut places = 0;
        for (_, uses) in &plan.by_value {
            value_rows.push(places);
            places += uses.len();
        }
        let memory = UnitMemory {
            scores: Buffer::new(strips * rows * STRIP)?,
            strip_max: try_zeroed(strips * rows)?,
            strip_sum: try_zeroed(strips * rows)?,
            footing: try_zeroed(strips * rows)?,
            partial: Buffer::new(strips * places * queries * call.value_shape.padded())?,
        };
        let mut rows = UnitRows {
            sequence,
            plan,
            first_strip,
            strips,
            queries: try_zeroed(rows * call.width)?,
            row_max: try_zeroed(rows)?,
            row_sum: try_zeroed(rows)?,
            high: try_zeroed(weights)?,
            low: try_zeroed(weights)?,
            value_rows,
        };
        rows.pack_queries(call)?;
        Ok(Self { rows, memory })
    }

    /// Float32 values of scratch that a unit takes, roughly: what bounds how many run at once.
    pub(in crate::attention) fn scratch_len(
        call: &Call<'_>,
        sequence: &Sequence,
        plan: &DecodePlan,
    ) -> usize {
        plan.pairs.len() * sequence.queries * sequence.keys.next_multiple_of(STRIP)
            + sequence.keys.div_ceil(STRIP)
                * plan.heads.len()
                * sequence.queries
                * call.value_shape.padded()
    }

    /// What its strips read, and the memory of each.
    pub(super) fn strips(&mut self) -> (&UnitRows<'c>, impl Iterator<Item = StripMemory<'_>>) {
        let Self { rows, memory } = self;
        let strips = rows.strips;
        let mut scores = chunks(&mut memory.scores, strips);
        let mut max = chunks(&mut memory.strip_max, strips);
        let mut sum = chunks(&mut memory.strip_sum, strips);
        let mut partial = chunks(&mut memory.partial, strips);
        let memory = (0..strips).map(move |strip| StripMemory {
            strip,
            scores: scores.next().unwrap_or_default(),
            max: max.next().unwrap_or_default(),
            sum: sum.next().unwrap_or_default(),
            partial: partial.next().unwrap_or_default(),
        });
        (rows, memory)
    }

    /// A row's products of all strips, the first `width` channels of each, in order.
    pub(super) fn partial(&self, row: usize, padded: usize) -> impl Iterator<Item = &[f32]> {
        let rows = self.rows.places() * self.rows.sequence.queries;
        let strips = self.memory.partial.chunks_exact((rows * padded).max(1));
        strips.map(move |strip| &strip[row * padded..][..padded])
    }

    /// Between the phases: each row's maximum and sum, and the weights of its terms and strips.
    pub(super) fn reduce(&mut self, call: &Call<'_>) {
        let Self { rows, memory } = self;
        let strips = Strips {
            max: &memory.strip_max,
            sum: &memory.strip_sum,
        };
        let of_rows = Rows {
            max: &mut rows.row_max,
            sum: &mut rows.row_sum,
        };
        let scale = call.scores.exponent.exact;
        softmax::reduce(scale, &strips, &mut memory.footing, of_rows);
        rows.weigh(call, &memory.footing);
    }
}

/// A slice in `count` parts of one length.
fn chunks(slice: &mut [f32], count: usize) -> std::slice::ChunksExactMut<'_, f32> {
    let len = slice.len() / count.max(1);
    slice.chunks_exact_mut(len.max(1))
}

/// The strips that any query of a sequence sees: the first, and how many.
fn seen_strips(call: &Call<'_>, sequence: &Sequence) -> (usize, usize) {
    let seen = (0..sequence.queries)
        .map(|i| call.band.keys(sequence, i))
        .filter(|range| range.0 < range.1);
    let (start, end) = seen.fold((usize::MAX, 0), |all, range| {
        (all.0.min(range.0), all.1.max(range.1))
    });
    if start < end {
        (start / STRIP, end.div_ceil(STRIP) - start / STRIP)
    } else {
        (0, 0)
    }
}

impl UnitRows<'_> {
    /// Results of all v heads, one per query: what a strip's products are for.
    fn places(&self) -> usize {
        self.plan.by_value.iter().map(|(_, uses)| uses.len()).sum()
    }

    /// Rows of P of any v head at most.
    pub(super) fn value_rows(&self) -> usize {
        let uses = self.plan.by_value.iter().map(|(_, uses)| uses.len());
        uses.max().unwrap_or(0) * self.sequence.queries
    }

    /// The number of a strip of the unit, counted from key 0.
    pub(super) fn strip_number(&self, strip: usize) -> usize {
        self.first_strip + strip
    }

    /// The keys of a strip of the unit.
    #[inline(always)]
    pub(super) fn keys(&self, strip: usize) -> (usize, usize) {
        let from = self.strip_number(strip) * STRIP;
        (from, (from + STRIP).min(self.sequence.keys))
    }

    /// The keys of a strip that any row of the unit sees, as far as a block mask goes; `None` where
    /// it has none.
    #[inline(always)]
    pub(super) fn live(&self, call: &Call<'_>, strip: usize) -> Option<LiveStrip> {
        let (from, end) = self.keys(strip);
        if call.blocks.is_empty() {
            return Some(LiveStrip::whole(from, end));
        }
        let rows = || {
            let heads = self.plan.pairs.iter().map(|pair| pair.1);
            heads.flat_map(|head| (0..self.sequence.queries).map(move |i| (head, i)))
        };
        LiveStrip::masked(from, end, |block| {
            rows().any(|(head, i)| {
                let visible = call.visible(self.sequence.row(head, i));
                visible.sees(block * MASK_BLOCK)
            })
        })
    }

    /// Weights of one strip for query `i` of a head's entry in the plan, term by term: (high, low).
    #[inline(always)]
    pub(super) fn weights(&self, at: usize, strip: usize) -> [f32; 2] {
        let at = at * self.strips + strip;
        [self.high[at], self.low[at]]
    }

    /// Queries as [channel][pair · query] per k head.
    fn pack_queries(&mut self, call: &Call<'_>) -> Result<(), Error> {
        let (queries, width) = (self.sequence.queries, call.width);
        let mut row = try_zeroed(width)?;
        for (_, pairs) in &self.plan.by_key {
            let rows = pairs.len() * queries;
            let to = &mut self.queries[pairs.start * queries * width..][..rows * width];
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

    /// The weights of each head's terms and strips.
    fn weigh(&mut self, call: &Call<'_>, footing: &[f64]) {
        let (rows, queries) = (self.row_max.len(), self.sequence.queries);
        for (entry, (head, pairs)) in self.plan.heads.iter().enumerate() {
            for (t, pair) in pairs.iter().enumerate() {
                let sink = call.scores.sink(call.sink(*head, t));
                let coefficients = call.coefficients(t, self.sequence.row(*head, 0));
                for i in 0..queries {
                    let row = pair * queries + i;
                    let denominator = match sink {
                        None => self.row_sum[row],
                        Some(sink) => {
                            let (max, sum) = (self.row_max[row], self.row_sum[row]);
                            call.scores.with_sink(max, sum, sink)
                        }
                    };
                    let share = softmax::share(coefficients.at(i), denominator);
                    let at = ((entry * queries + i) * call.plan.terms + t) * self.strips;
                    for strip in 0..self.strips {
                        let footing = footing[strip * rows + row];
                        [self.high[at + strip], self.low[at + strip]] =
                            softmax::weight(share, footing);
                    }
                }
            }
        }
    }
}
