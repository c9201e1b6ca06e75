//! The loss of logits that a head makes of hidden states, chunk by chunk, and the gradients of
//! both: the logits of all rows never exist at once. Runs at once or in slices.

use super::chunks::{Chunk, Chunks};
use super::options::{CrossEntropyOptions, Logits, Loss};
use crate::blocks::linear::{LEAST_UNIT_ROWS, UNIT_WORK};
use crate::error::Error;
use crate::linear::{Linear, LinearBackward, LinearGradients};
use crate::run::Run;
use crate::run::buffer::Buffer;
use crate::run::work::{Pace, Work, at_once};
use crate::tensor::shape::check_len;

/// Where the gradients of a head's loss, and the losses of rows, go; what is `None` is not
/// computed.
#[derive(Debug, Default)]
pub struct HeadGradients<'g> {
    /// `[rows, inputs]`: written; zeros in rows that take no part.
    pub dhidden: Option<&'g mut [f32]>,
    /// `[vocabulary, inputs]`: added to what is there.
    pub dweight: Option<&'g mut [f32]>,
    /// `[vocabulary]`: added to what is there.
    pub dbias: Option<&'g mut [f32]>,
    /// `[rows]`: each row's loss, undivided; 0 in rows that take no part.
    pub rows: Option<&'g mut [f64]>,
}

/// A call of [`linear_cross_entropy`], which runs at once or in slices.
#[derive(Debug, Clone, Copy)]
pub struct LinearCrossEntropy<'a> {
    head: &'a Linear,
    hidden: &'a [f32],
    labels: &'a [i32],
    options: CrossEntropyOptions<'a>,
}

/// [`cross_entropy`](crate::cross_entropy) of the logits that `head` `[vocabulary, inputs]` makes
/// of rows of `hidden` `[rows, inputs]`, and the gradients of both. Rows that count are gathered in
/// chunks of 128 at most, within windows of 256 tokens counted from the first: there is memory for
/// the logits of one chunk alone, as for the teacher's, and rows that take no part cost no product.
/// The head may be of any format; x is met as it is
/// ([`Linear::forward_float`](crate::Linear::forward_float)).
///
/// dW is summed over the rows of a chunk from zero, and chunks are added in order to what is there:
/// calls on whole windows give the bits of one call, where all have one
/// [`count`](CrossEntropyOptions::count).
///
/// # Errors
/// As [`cross_entropy`](crate::cross_entropy), of shapes naming `hidden`, `dhidden`, `dweight`,
/// `dbias`, `rows`, `teacher`, `teacher.hidden` or `teacher.head`.
pub fn linear_cross_entropy<'a>(
    head: &'a Linear,
    hidden: &'a [f32],
    labels: &'a [i32],
    gradients: HeadGradients<'_>,
    options: &CrossEntropyOptions<'a>,
) -> Result<Loss, Error> {
    LinearCrossEntropy::new(head, hidden, labels, options).finish_into(gradients)
}

/// A checked call.
#[derive(Debug)]
struct Plan<'a> {
    chunks: Chunks<'a>,
    head: &'a Linear,
    /// Rows of a unit.
    unit_rows: usize,
    has_gradient: bool,
    run: Run,
}

impl<'a> LinearCrossEntropy<'a> {
    /// A call of [`linear_cross_entropy`]; nothing is checked yet.
    #[must_use]
    pub fn new(
        head: &'a Linear,
        hidden: &'a [f32],
        labels: &'a [i32],
        options: &CrossEntropyOptions<'a>,
    ) -> Self {
        Self {
            head,
            hidden,
            labels,
            options: *options,
        }
    }

    /// The work of the call into `gradients`, and of its loss into `loss`, which is written last.
    ///
    /// # Errors
    /// As [`linear_cross_entropy`].
    pub fn into_work(
        self,
        gradients: HeadGradients<'a>,
        loss: &'a mut Loss,
    ) -> Result<Work<'a>, Error> {
        let plan = self.plan(&gradients)?;
        Ok(Work::new(plan.units(), move |pace| async move {
            *loss = plan.work(&pace, gradients).await?;
            Ok(())
        }))
    }

    /// Works the whole call off at once, into `gradients`.
    ///
    /// # Errors
    /// As [`linear_cross_entropy`].
    pub fn finish_into(self, gradients: HeadGradients<'_>) -> Result<Loss, Error> {
        let plan = self.plan(&gradients)?;
        let mut loss = Loss::default();
        at_once(async |pace| {
            loss = plan.work(pace, gradients).await?;
            Ok(())
        })?;
        Ok(loss)
    }

    /// Checks the call.
    fn plan(self, gradients: &HeadGradients<'_>) -> Result<Plan<'a>, Error> {
        let (head, hidden) = (self.head, self.hidden);
        let HeadGradients {
            dhidden,
            dweight,
            dbias,
            rows,
        } = gradients;
        let has_gradient = dhidden.is_some() || dweight.is_some() || dbias.is_some();
        let logits = Logits::Head { hidden, head };
        let chunks = Chunks::new(logits, self.labels, &self.options, has_gradient)?;
        let (count, inputs) = (self.labels.len(), head.inputs());
        let shapes: [(_, &[usize], _); 3] = [
            ("dhidden", &[count, inputs], dhidden),
            ("dweight", &[head.outputs(), inputs], dweight),
            ("dbias", &[head.outputs()], dbias),
        ];
        for (name, shape, gradient) in shapes {
            if let Some(gradient) = gradient {
                check_len(name, shape, gradient.len())?;
            }
        }
        if let Some(rows) = rows {
            check_len("rows", &[count], rows.len())?;
        }
        let row_work = inputs.saturating_mul(head.outputs()).max(1);
        Ok(Plan {
            chunks,
            head,
            unit_rows: (UNIT_WORK / row_work).max(LEAST_UNIT_ROWS),
            has_gradient,
            run: self.options.run,
        })
    }
}

impl Plan<'_> {
    /// Units of all chunks, and one for what comes before them.
    fn units(&self) -> usize {
        let each = self.chunks.each().map(|rows| {
            let [forward, backward] = self.chunk_units(rows.len());
            forward + backward
        });
        1 + each.sum::<usize>()
    }

    /// Units of a chunk, forward and backward.
    fn chunk_units(&self, rows: usize) -> [usize; 2] {
        let forward = rows.div_ceil(self.unit_rows);
        let backward = if self.has_gradient { 2 * forward } else { 0 };
        [forward, backward]
    }

    async fn work(&self, pace: &Pace, gradients: HeadGradients<'_>) -> Result<Loss, Error> {
        let HeadGradients {
            mut dhidden,
            mut dweight,
            mut dbias,
            mut rows,
        } = gradients;
        pace.granted().await;
        if let Some(dhidden) = &mut dhidden {
            dhidden.fill(0.0);
        }
        if let Some(rows) = &mut rows {
            rows.fill(0.0);
        }
        let mut chunk = self.chunks.memory()?;
        let inputs = self.head.inputs();
        let made = if dhidden.is_some() {
            chunk.hidden.len()
        } else {
            0
        };
        let mut made = Buffer::new(made)?;
        let mut sums = Loss::default();
        pace.worked(1);
        for numbers in self.chunks.each() {
            let count = numbers.len();
            chunk.rows = numbers;
            pace.rows(0..count, self.unit_rows, |rows| {
                self.chunks.run(&mut chunk, rows)
            })
            .await?;
            self.chunks.join(&chunk, &mut sums, rows.as_deref_mut());
            if !self.has_gradient {
                continue;
            }
            let of_chunk = LinearGradients {
                dx: dhidden.as_ref().map(|_| &mut made[..count * inputs]),
                adds_dx: false,
                dweight: dweight.as_deref_mut(),
                dbias: dbias.as_deref_mut(),
            };
            self.backward(pace, &chunk, of_chunk).await?;
            if let Some(dhidden) = &mut dhidden
                && inputs > 0
            {
                for (from, &row) in made.chunks_exact(inputs).zip(&chunk.rows) {
                    dhidden[row * inputs..(row + 1) * inputs].copy_from_slice(from);
                }
            }
        }
        Ok(self.chunks.means(&sums))
    }

    /// The gradients of a chunk whose logits have become theirs.
    async fn backward(
        &self,
        pace: &Pace,
        chunk: &Chunk,
        gradients: LinearGradients<'_>,
    ) -> Result<(), Error> {
        let count = chunk.rows.len();
        let dy = &chunk.logits[..count * self.chunks.vocabulary];
        let x = &chunk.hidden[..count * self.head.inputs()];
        let call = LinearBackward::new(self.head, dy, x, self.run);
        let [_, units] = self.chunk_units(count);
        pace.within(&mut call.into_work(gradients)?, units).await
    }
}
