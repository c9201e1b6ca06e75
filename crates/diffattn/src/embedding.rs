//! Backward pass of an embedding: rows of gradients, added up by id. Knows nothing of what ids
//! mean; looking rows up is left to callers.

use std::ops::Range;

use crate::blocks::norm::UNIT;
use crate::error::Error;
use crate::run::Run;
use crate::run::buffer::try_zeroed;
use crate::run::threads::Disjoint;
use crate::run::units::Units;
use crate::run::work::{Pace, Work, at_once};
use crate::simd::{Kernel, Vector};
use crate::tensor::gradients::bind;
use crate::tensor::shape::{check_len, checked_len, format_shape};
use crate::tensor::{DType, Data, Tensor};

/// A checked call of [`embedding_backward`].
#[derive(Debug)]
pub struct EmbeddingBackward<'a> {
    dy: Data<'a>,
    ids: &'a [u32],
    vocab_size: usize,
    width: usize,
    run: Run,
}

/// The tokens of each id, in their order: those of id i are `tokens[starts[i]..starts[i + 1]]`.
struct ById {
    starts: Vec<usize>,
    tokens: Vec<usize>,
}

impl ById {
    fn new(ids: &[u32], vocab_size: usize) -> Result<Self, Error> {
        let mut starts: Vec<usize> = try_zeroed(vocab_size + 1)?;
        for &id in ids {
            starts[id as usize + 1] += 1;
        }
        for id in 0..vocab_size {
            starts[id + 1] += starts[id];
        }
        let mut next: Vec<usize> = try_zeroed(vocab_size)?;
        next.copy_from_slice(&starts[..vocab_size]);
        let mut tokens = try_zeroed(ids.len())?;
        for (token, &id) in ids.iter().enumerate() {
            tokens[next[id as usize]] = token;
            next[id as usize] += 1;
        }
        Ok(Self { starts, tokens })
    }

    fn tokens(&self, id: usize) -> &[usize] {
        &self.tokens[self.starts[id]..self.starts[id + 1]]
    }
}

impl<'a> EmbeddingBackward<'a> {
    /// Checks everything and allocates no scratch yet. `dy` is `[…, E]` with a row for each of
    /// `ids`, which are below `vocab_size`.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) or
    /// [`ErrorKind::Option`](crate::ErrorKind::Option), naming the argument.
    pub fn new(dy: Tensor<'a>, ids: &'a [u32], vocab_size: usize, run: Run) -> Result<Self, Error> {
        check_len("dy", &dy.shape, dy.data.len())?;
        let Some((&width, rows)) = dy.shape.split_last() else {
            let expected = "1 axis or more";
            return Err(Error::shape("dy", expected, format_shape(&dy.shape)));
        };
        let rows = checked_len("dy", rows)?;
        if ids.len() != rows {
            let expected = format_args!("{rows} ids, one for each row of dy").to_string();
            return Err(Error::shape("ids", expected, ids.len()));
        }
        if let Some(id) = ids.iter().find(|&&id| id as usize >= vocab_size) {
            let expected = format_args!("ids below vocab_size {vocab_size}").to_string();
            return Err(Error::option("ids", expected, id));
        }
        checked_len("vocab_size", &[vocab_size, width])?;
        Ok(Self {
            dy: dy.data,
            ids,
            vocab_size,
            width,
            run,
        })
    }

    /// The shape of dweight: `[vocab_size, E]`.
    #[must_use]
    pub fn output_shape(&self) -> [usize; 2] {
        [self.vocab_size, self.width]
    }

    /// The work of the call into `dweight`. What it holds before does not matter.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) when it has another length.
    pub fn into_work<'o>(self, dweight: &'o mut [f32]) -> Result<Work<'o>, Error>
    where
        'a: 'o,
    {
        let dweight = bind("dweight", self.vocab_size * self.width, dweight)?;
        Ok(Work::new(self.units(), move |pace| async move {
            self.work(&pace, &dweight).await
        }))
    }

    /// Ids of a unit of work.
    fn unit_ids(&self) -> usize {
        UNIT.checked_div(self.width).unwrap_or(UNIT).max(1)
    }

    fn units(&self) -> usize {
        if self.width == 0 {
            0
        } else {
            self.vocab_size.div_ceil(self.unit_ids())
        }
    }

    async fn work(&self, pace: &Pace, dweight: &Disjoint<'_, f32>) -> Result<(), Error> {
        let by_id = ById::new(self.ids, self.vocab_size)?;
        let unit_ids = self.unit_ids();
        let make_scratch = || {
            let is_wide = self.dy.dtype() == DType::F32;
            let row = if is_wide { 0 } else { self.width };
            Ok((try_zeroed(self.width)?, try_zeroed(row)?))
        };
        let mut units = Units::new(self.run, unit_ids * self.width, make_scratch);
        let work = |scratch: &mut (Vec<f64>, Vec<f32>), unit: usize| {
            let ids = unit * unit_ids..((unit + 1) * unit_ids).min(self.vocab_size);
            // SAFETY: each id is one unit's.
            let rows = unsafe { dweight.part(ids.start * self.width..ids.end * self.width) };
            self.run.unfused_kernel(Rows {
                call: self,
                by_id: &by_id,
                ids,
                rows,
                scratch,
            });
        };
        units.paced(pace, 0..self.units(), &work).await
    }
}

/// The rows of some ids.
struct Rows<'u, 'a> {
    call: &'u EmbeddingBackward<'a>,
    by_id: &'u ById,
    ids: Range<usize>,
    rows: &'u mut [f32],
    /// A row's sums, and a row of dy that is not float32.
    scratch: &'u mut (Vec<f64>, Vec<f32>),
}

impl Kernel for Rows<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self {
            call: &EmbeddingBackward { dy, width, .. },
            by_id,
            ids,
            rows,
            scratch: (sums, wide),
        } = self;
        for (id, to) in ids.zip(rows.chunks_exact_mut(width)) {
            sums.fill(0.0);
            for &token in by_id.tokens(id) {
                let row = dy.values(token * width..(token + 1) * width, wide);
                for (sum, &value) in sums.iter_mut().zip(row) {
                    *sum += f64::from(value);
                }
            }
            for (to, &sum) in to.iter_mut().zip(sums.iter()) {
                *to = sum as f32;
            }
        }
    }
}

/// The gradient of an embedding's weight, `[vocab_size, E]`, for `dy`, `[…, E]`, the gradient of
/// the rows that `ids` looked up: row i is the sum of the rows of dy whose id is i, added in their
/// order in float64 and rounded once; zeros where there is none.
///
/// ```
/// use diffattn::{Run, Tensor, embedding_backward};
///
/// let dy = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
/// let dweight = embedding_backward(Tensor::f32(&dy, &[3, 2]), &[2, 0, 2], 3, Run::default())?;
/// assert_eq!(dweight, [3.0, 4.0, 0.0, 0.0, 6.0, 8.0]);
/// # Ok::<(), diffattn::Error>(())
/// ```
///
/// # Errors
/// [`ErrorKind::Shape`](crate::ErrorKind::Shape) or [`ErrorKind::Option`](crate::ErrorKind::Option)
/// for arguments that do not fit; [`Error::out_of_memory`] when memory is refused.
pub fn embedding_backward(
    dy: Tensor<'_>,
    ids: &[u32],
    vocab_size: usize,
    run: Run,
) -> Result<Vec<f32>, Error> {
    let call = EmbeddingBackward::new(dy, ids, vocab_size, run)?;
    let mut dweight = try_zeroed(call.vocab_size * call.width)?;
    let out = bind("dweight", dweight.len(), &mut dweight)?;
    at_once(async |pace| call.work(pace, &out).await)?;
    Ok(dweight)
}
