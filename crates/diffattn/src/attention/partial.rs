//! Attention over ranges of keys that different places hold: each gives the statistics of its
//! strips, these merge in key order, then each adds its strips to what the ranges before it hand
//! on. Bit for bit the call over all keys. Knows nothing of how statistics and sums travel.

use super::call::Call;
use super::inputs::KeysValues;
use super::options::AttentionOptions;
use super::outputs::RowsOut;
use super::prefill::Partial;
use super::softmax::{self, Rows, Strips};
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
        let rows = checked_len("q", &self.statistics_shape())?;
        let mut strips = 0;
        for (index, part) in statistics.iter().enumerate() {
            if index + 1 < statistics.len() && !part.keys.is_multiple_of(STRIP) {
                return Err(Error::shape(
                    "statistics",
                    format_args!("ranges of multiples of {STRIP} keys before the last"),
                    part.keys,
                ));
            }
            let shape = [part.keys.div_ceil(STRIP), rows];
            check_len("statistics", &shape, part.row_max.len())?;
            check_len("statistics", &shape, part.row_sum.len())?;
            strips += shape[0];
        }
        let len = checked_len("statistics", &[strips, rows])?;
        let (mut max, mut sum) = (try_zeroed(len)?, try_zeroed(len)?);
        let mut at = 0;
        for part in statistics {
            max[at..][..part.row_max.len()].copy_from_slice(&part.row_max);
            sum[at..][..part.row_sum.len()].copy_from_slice(&part.row_sum);
            at += part.row_max.len();
        }
        let mut footing = try_zeroed(len)?;
        let (mut row_max, mut row_sum) = (try_zeroed(rows)?, try_zeroed(rows)?);
        if rows > 0 {
            let scale = self.planned.call.scores.exponent.exact;
            let strips = Strips {
                max: &max,
                sum: &sum,
            };
            let rows = Rows {
                max: &mut row_max,
                sum: &mut row_sum,
            };
            softmax::reduce(scale, &strips, &mut footing, rows);
        }
        Ok(RowStatistics { row_max, row_sum })
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
