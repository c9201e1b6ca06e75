//! Attention over ranges of keys that different places hold: each gives the statistics of its
//! strips, these merge in key order, then each adds its strips to what the ranges before it hand
//! on. Bit for bit the call over all keys. Knows nothing of how statistics and sums travel.

use super::call::Call;
use super::inputs::KeysValues;
use super::options::AttentionOptions;
use super::outputs::RowsOut;
use super::prefill::Partial;
use super::softmax;
use super::waves::Planned;
use crate::blocks::STRIP;
use crate::error::Error;
use crate::run::buffer::try_zeroed;
use crate::run::threads::Disjoint;
use crate::run::work::Work;
use crate::simd::Kernel;
use crate::simd::Vector;
use crate::tensor::shape::{check_len, checked_len};
use crate::tensor::{DataMut, Tensor};

/// row_max and row_sum of each strip of 256 keys of a range, per head, term and query:
/// `[strip][B, H, T, Lq]`. A row that sees nothing of a strip has −∞ and 0 there.
#[derive(Debug, Clone, PartialEq)]
pub struct PartialStatistics {
    /// Keys of the range; a multiple of 256 but in the last.
    pub keys: usize,
    /// The largest score of each row of each strip, in the kernel's units.
    pub row_max: Vec<f32>,
    /// The sum of exponentials of each row of each strip, against its row_max.
    pub row_sum: Vec<f32>,
}

/// row_max and row_sum of whole rows, `[B, H, T, Lq]`: the merged statistics of all ranges of keys.
#[derive(Debug, Clone, PartialEq)]
pub struct RowStatistics {
    /// The largest score of each row, in the kernel's units.
    pub row_max: Vec<f32>,
    /// The sum of exponentials of each row, against its row_max; 0 for a row that sees no key.
    pub row_sum: Vec<f64>,
}

/// One range of keys of an attention call. The range begins at a multiple of 256 of the whole
/// call's keys.
///
/// 1. [`PartialAttention::statistics`] of every range, in any order, anywhere;
/// 2. [`PartialAttention::merge`] of them all, in key order;
/// 3. [`PartialAttention::accumulate`], range after range in key order, into one accumulator that
///    begins as zeros;
/// 4. [`PartialAttention::finish`]: norm, result and log-sum-exp, of any one range.
///
/// The scores of a range are computed twice: in 1. and in 3.
#[derive(Debug)]
pub struct PartialAttention<'a> {
    planned: Planned<'a>,
    keys: usize,
}

impl<'a> PartialAttention<'a> {
    /// Checks everything, as [`DiffAttention::new`](crate::DiffAttention::new). k and v hold the
    /// range; all that `options` say of keys counts from the range's first: `query_offset` is the
    /// whole call's less the range's first key, masks, bias and `key_lengths` are the range's part.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape), [`ErrorKind::Dtype`](crate::ErrorKind::Dtype)
    /// or [`ErrorKind::Option`](crate::ErrorKind::Option), naming the argument.
    pub fn new(
        q: Tensor<'a>,
        k: Tensor<'a>,
        v: Tensor<'a>,
        options: &AttentionOptions<'a>,
    ) -> Result<Self, Error> {
        check_key_range(options)?;
        let call = Call::new(&q, KeysValues::Tensors { k, v }.into(), options)?;
        let (queries, keys) = (call.axis.length, call.keys);
        Ok(Self {
            planned: Planned::new(call, [0, queries], false),
            keys,
        })
    }

    /// `[B, H, T, Lq]`: of one strip's statistics, and of whole rows'.
    #[must_use]
    pub fn statistics_shape(&self) -> [usize; 4] {
        self.planned.call.lse_shape()
    }

    /// `[B, H, Lq, channels of the result]`, in every layout.
    #[must_use]
    pub fn accumulator_shape(&self) -> [usize; 4] {
        let axis = &self.planned.call.axis;
        [axis.batch, axis.heads, axis.length, axis.width]
    }

    /// The statistics of the range.
    ///
    /// # Errors
    /// [`Error::out_of_memory`] when memory is refused.
    pub fn statistics(&self) -> Result<PartialStatistics, Error> {
        let rows = checked_len("q", &self.statistics_shape())?;
        let len = checked_len("k", &[self.keys.div_ceil(STRIP), rows])?;
        let (mut row_max, mut row_sum) = (try_zeroed(len)?, try_zeroed(len)?);
        row_max.fill(f32::NEG_INFINITY);
        self.run(Partial::Statistics {
            max: Disjoint::new(&mut row_max),
            sum: Disjoint::new(&mut row_sum),
        })?;
        Ok(PartialStatistics {
            keys: self.keys,
            row_max,
            row_sum,
        })
    }

    /// The statistics of whole rows from those of all ranges, in key order.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) naming `statistics` for lengths that do not
    /// fit, and for a range that ends within a strip though another follows;
    /// [`Error::out_of_memory`] when memory is refused.
    pub fn merge(&self, statistics: &[PartialStatistics]) -> Result<RowStatistics, Error> {
        for part in statistics
            .split_last()
            .map_or(&[][..], |(_, before)| before)
        {
            if !part.keys.is_multiple_of(STRIP) {
                return Err(Error::shape(
                    "statistics",
                    format_args!("ranges of multiples of {STRIP} keys before the last"),
                    part.keys,
                ));
            }
        }
        let mut merged = self.no_rows()?;
        for part in statistics {
            self.add_max(part, &mut merged.row_max)?;
        }
        for part in statistics {
            self.add_sum(part, &mut merged)?;
        }
        Ok(merged)
    }

    /// Rows that saw no key yet: what [`PartialAttention::add_max`] and
    /// [`PartialAttention::add_sum`] begin with.
    ///
    /// # Errors
    /// [`Error::out_of_memory`] when memory is refused.
    pub fn no_rows(&self) -> Result<RowStatistics, Error> {
        let rows = checked_len("q", &self.statistics_shape())?;
        let mut row_max: Vec<f32> = try_zeroed(rows)?;
        row_max.fill(f32::NEG_INFINITY);
        Ok(RowStatistics {
            row_max,
            row_sum: try_zeroed(rows)?,
        })
    }

    /// The first half of [`PartialAttention::merge`], for who merges as statistics come: raises
    /// `row_max` to the maxima of a range, in any order of ranges.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) naming what does not fit.
    pub fn add_max(&self, part: &PartialStatistics, row_max: &mut [f32]) -> Result<(), Error> {
        let rows = self.check_part(part)?;
        check_len("rows", &self.statistics_shape(), row_max.len())?;
        for strip_max in part.row_max.chunks_exact(rows.max(1)) {
            softmax::raise(strip_max, row_max);
        }
        Ok(())
    }

    /// The second half of [`PartialAttention::merge`]: adds the sums of a range to rows whose
    /// maxima are those of all ranges, range after range in key order.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) naming what does not fit;
    /// [`Error::out_of_memory`] when memory is refused.
    pub fn add_sum(&self, part: &PartialStatistics, to: &mut RowStatistics) -> Result<(), Error> {
        let rows = self.check_part(part)?;
        check_len("rows", &self.statistics_shape(), to.row_max.len())?;
        check_len("rows", &self.statistics_shape(), to.row_sum.len())?;
        let mut footing = try_zeroed(rows)?;
        let scale = self.planned.call.scores.exponent.exact;
        let strips = part.row_max.chunks_exact(rows.max(1));
        for (max, sum) in strips.zip(part.row_sum.chunks_exact(rows.max(1))) {
            softmax::add_strip(
                scale,
                [max, sum],
                &mut footing,
                (&to.row_max, &mut to.row_sum),
            );
        }
        Ok(())
    }

    /// Whether statistics are of these rows; how many there are.
    fn check_part(&self, part: &PartialStatistics) -> Result<usize, Error> {
        let rows = checked_len("q", &self.statistics_shape())?;
        let shape = [part.keys.div_ceil(STRIP), rows];
        check_len("statistics", &shape, part.row_max.len())?;
        check_len("statistics", &shape, part.row_sum.len())?;
        Ok(rows)
    }

    /// Adds the range's strips to `accumulator`, of [`PartialAttention::accumulator_shape`]: zeros
    /// before the first range, then what the range before left in it.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) for lengths that do not fit;
    /// [`Error::out_of_memory`] when scratch is refused.
    pub fn accumulate(&self, rows: &RowStatistics, accumulator: &mut [f32]) -> Result<(), Error> {
        self.check(rows, accumulator)?;
        self.run(Partial::Strips {
            row_max: &rows.row_max,
            row_sum: &rows.row_sum,
            accumulator: Disjoint::new(accumulator),
        })
    }

    /// The result, after the last range was added: the accumulator's rows through the norm into
    /// `out`, of the call's shape and layout, and log-sum-exps into `lse`, `[B, H, T, Lq]`, exactly
    /// when `return_lse` was asked.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape), [`ErrorKind::Dtype`](crate::ErrorKind::Dtype)
    /// or [`ErrorKind::Option`](crate::ErrorKind::Option) for what does not fit.
    pub fn finish(
        &self,
        rows: &RowStatistics,
        accumulator: &mut [f32],
        out: DataMut<'_>,
        lse: Option<&mut [f32]>,
    ) -> Result<(), Error> {
        self.check(rows, accumulator)?;
        let call = &self.planned.call;
        let out = RowsOut::new(call, out, lse, None)?;
        let kernel = Finish {
            call,
            accumulator,
            out: &out,
        };
        call.run.kernel(kernel);
        if out.wants_lse() {
            write_lse(call, rows, &out);
        }
        Ok(())
    }

    fn check(&self, rows: &RowStatistics, accumulator: &[f32]) -> Result<(), Error> {
        check_len("rows", &self.statistics_shape(), rows.row_max.len())?;
        check_len("rows", &self.statistics_shape(), rows.row_sum.len())?;
        check_len("accumulator", &self.accumulator_shape(), accumulator.len())?;
        Ok(())
    }

    fn run(&self, consumer: Partial<'_>) -> Result<(), Error> {
        let planned = &self.planned;
        Work::new(planned.total(), |pace| async move {
            planned.run(&consumer, None, &pace).await
        })
        .finish()
    }
}

/// Whether options are those of a range of keys: what they say of keys counts from its first.
pub(super) fn check_key_range(options: &AttentionOptions<'_>) -> Result<(), Error> {
    let is_banded = options.is_causal || options.window.is_some_and(|w| w != [None, None]);
    if is_banded && options.query_offset.is_none() {
        return Err(Error::option(
            "query_offset",
            "the first query's key position in the range",
            "none",
        ));
    }
    if options.cu_seqlens_k.is_some() {
        return Err(Error::option(
            "cu_seqlens_k",
            "none for a range of keys",
            "one",
        ));
    }
    Ok(())
}

/// Norm and store of all rows.
struct Finish<'c, 'a, 'o> {
    call: &'c Call<'a>,
    accumulator: &'c mut [f32],
    out: &'c RowsOut<'o>,
}

impl Kernel for Finish<'_, '_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let axis = &self.call.axis;
        if axis.width == 0 {
            return;
        }
        for (row, y) in self.accumulator.chunks_exact_mut(axis.width).enumerate() {
            let (head, query) = (row / axis.length, row % axis.length);
            let at = (head / axis.heads, head % axis.heads, query);
            self.out.write_row::<V>(self.call, at, y);
        }
    }
}

fn write_lse(call: &Call<'_>, rows: &RowStatistics, out: &RowsOut<'_>) {
    let [batch, heads, terms, queries] = call.lse_shape();
    for head in 0..batch * heads {
        for t in 0..terms {
            let (batch, head) = (head / heads, head % heads);
            let has_term = t < call.plan.heads[head].terms.len();
            let sink = call.sink(head, t);
            for query in 0..queries {
                let at = ((batch * heads + head) * terms + t) * queries + query;
                let (max, sum) = (rows.row_max[at], rows.row_sum[at]);
                let lse = if has_term {
                    call.scores.log_sum_exp(max, sum, sink)
                } else {
                    f32::NEG_INFINITY
                };
                out.write_lse(call, (batch, head, query), t, lse);
            }
        }
    }
}
