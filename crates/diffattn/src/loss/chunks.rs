//! A checked loss, chunk by chunk: which rows count, where their logits come from, and how their
//! losses are joined. Knows nothing of what becomes of gradients.

use std::ops::Range;

use super::options::{CrossEntropyOptions, Distillation, Logits, Loss};
use super::row::{Row, RowLoss, Terms};
use crate::blocks::loss::{CHUNK, LOGIT_WORK, WINDOW};
use crate::error::Error;
use crate::run::Run;
use crate::run::buffer::Buffer;
use crate::run::threads::{Disjoint, for_each, thread_count};
use crate::simd::math::ExponentScale;
use crate::tensor::shape::check_len;

/// A checked call.
#[derive(Debug)]
pub(super) struct Chunks<'a> {
    logits: Logits<'a>,
    teacher: Option<Logits<'a>>,
    labels: &'a [i32],
    ignore_index: i32,
    pub(super) vocabulary: usize,
    terms: Terms,
    /// What sums are divided by.
    count: f64,
    pub(super) counted: usize,
    run: Run,
}

/// Some rows that count, one beside the other, and memory for the next.
#[derive(Debug)]
pub(super) struct Chunk {
    /// Which of the call's.
    pub(super) rows: Vec<usize>,
    /// `[rows, vocabulary]`: logits; then their gradients, where those are wanted.
    pub(super) logits: Buffer,
    /// `[rows, inputs]`: what a head made them of.
    pub(super) hidden: Buffer,
    teacher: Buffer,
    teacher_hidden: Buffer,
    losses: Vec<RowLoss>,
}

impl<'a> Chunks<'a> {
    /// Checks everything but where gradients go.
    pub(super) fn new(
        logits: Logits<'a>,
        labels: &'a [i32],
        options: &CrossEntropyOptions<'a>,
        has_gradient: bool,
    ) -> Result<Self, Error> {
        let rows = labels.len();
        let vocabulary = match logits {
            Logits::Rows(logits) => logits.len().checked_div(rows).unwrap_or(0),
            Logits::Head { head, .. } => head.outputs(),
        };
        check_logits(["logits", "hidden"], logits, [rows, vocabulary])?;
        check_options(options)?;
        let alpha = match options.distillation {
            Some(Distillation { teacher, alpha }) => {
                check_logits(["teacher", "teacher.hidden"], teacher, [rows, vocabulary])?;
                alpha
            }
            None => 1.0,
        };
        let mut counted = 0;
        for &label in labels
            .iter()
            .filter(|&&label| label != options.ignore_index)
        {
            if usize::try_from(label).map_or(true, |label| label >= vocabulary) {
                return Err(Error::option(
                    "labels",
                    format_args!("{} or 0 to below {vocabulary}", options.ignore_index),
                    label,
                ));
            }
            counted += 1;
        }
        if options.count == Some(0) && counted > 0 {
            return Err(Error::option("count", "1 or more, as labels count", 0));
        }
        // (Without labels that count, nothing is divided.)
        let count = options.count.unwrap_or(counted).max(1) as f64;
        Ok(Self {
            logits,
            teacher: options
                .distillation
                .map(|distillation| distillation.teacher),
            labels,
            ignore_index: options.ignore_index,
            vocabulary,
            terms: Terms {
                scale: ExponentScale::new(std::f64::consts::LOG2_E),
                label_smoothing: options.label_smoothing,
                z_loss: options.z_loss,
                alpha,
                weight: 1.0 / count,
                has_gradient,
            },
            count,
            counted,
            run: options.run,
        })
    }

    /// Rows that count of each chunk, in order: those of a window of tokens, so many at most.
    pub(super) fn each(&self) -> impl Iterator<Item = Vec<usize>> {
        let windows = self.labels.chunks(WINDOW).enumerate();
        windows.flat_map(|(window, labels)| {
            let counted = labels.iter().enumerate();
            let counted = counted.filter(|&(_, &label)| label != self.ignore_index);
            let rows: Vec<usize> = counted.map(|(row, _)| window * WINDOW + row).collect();
            let chunks = rows.chunks(CHUNK).map(<[usize]>::to_vec);
            chunks.collect::<Vec<_>>()
        })
    }

    /// Memory for the call's chunks.
    pub(super) fn memory(&self) -> Result<Chunk, Error> {
        let rows = self.counted.min(CHUNK);
        let [logits, hidden] = memory_for(Some(self.logits), rows, self.vocabulary)?;
        let [teacher, teacher_hidden] = memory_for(self.teacher, rows, self.vocabulary)?;
        Ok(Chunk {
            rows: Vec::new(),
            logits,
            hidden,
            teacher,
            teacher_hidden,
            losses: vec![RowLoss::default(); rows],
        })
    }

    /// The losses of rows `rows` of a chunk, and gradients in the place of their logits.
    pub(super) fn run(&self, chunk: &mut Chunk, rows: Range<usize>) -> Result<(), Error> {
        let Chunk {
            rows: numbers,
            logits,
            hidden,
            teacher,
            teacher_hidden,
            losses,
        } = chunk;
        let width = self.vocabulary;
        let places = rows.start * width..rows.end * width;
        let numbers = &numbers[rows.clone()];
        let (logits, losses) = (&mut logits[places.clone()], &mut losses[rows.clone()]);
        self.gather(self.logits, numbers, (logits, hidden), rows.start)?;
        if let Some(of) = self.teacher {
            let teacher = &mut teacher[places.clone()];
            self.gather(of, numbers, (teacher, teacher_hidden), rows.start)?;
        }
        let work = logits.len().saturating_mul(LOGIT_WORK);
        let threads = thread_count(self.run.threads(), work);
        let (logits, losses) = (Disjoint::new(logits), Disjoint::new(losses));
        let teacher = Disjoint::new(if self.teacher.is_some() {
            &mut teacher[places]
        } else {
            &mut []
        });
        for_each(threads, rows.len(), |_, row| {
            let place = row * width..(row + 1) * width;
            let taught = if self.teacher.is_some() {
                place.clone()
            } else {
                0..0
            };
            // SAFETY: a row of each is one item's.
            let (logits, taught, loss) = unsafe {
                (
                    logits.part(place),
                    teacher.part(taught),
                    losses.part(row..row + 1),
                )
            };
            let teacher = self.teacher.map(|_| taught);
            loss[0] = self.run.kernel(Row {
                terms: &self.terms,
                logits,
                teacher,
                label: self.labels[numbers[row]] as usize,
            });
        });
        Ok(())
    }

    /// The logits of the rows `numbers`, which are the chunk's from `first` on.
    fn gather(
        &self,
        of: Logits<'_>,
        numbers: &[usize],
        (to, hidden_to): (&mut [f32], &mut Buffer),
        first: usize,
    ) -> Result<(), Error> {
        match of {
            Logits::Rows(logits) => {
                gather(logits, self.vocabulary, numbers, to);
                Ok(())
            }
            Logits::Head { hidden, head } => {
                let inputs = head.inputs();
                let x = &mut hidden_to[first * inputs..(first + numbers.len()) * inputs];
                gather(hidden, inputs, numbers, x);
                head.forward_float(x, to, self.run)
            }
        }
    }

    /// Adds a chunk's losses to the sums of a call, and to `rows` where they are wanted.
    pub(super) fn join(&self, chunk: &Chunk, sums: &mut Loss, mut rows: Option<&mut [f64]>) {
        let alpha = self.terms.alpha;
        for (&row, of) in chunk.rows.iter().zip(&chunk.losses) {
            // (A share of nothing is nothing, whatever the other comes to.)
            let shares = [(alpha, of.cross_entropy), (1.0 - alpha, of.divergence)];
            let shares = shares.into_iter().filter(|&(share, _)| share != 0.0);
            let loss = shares.fold(0.0, |sum, (share, loss)| sum + share * loss);
            sums.loss += loss;
            sums.cross_entropy += of.cross_entropy;
            sums.divergence += of.divergence;
            if let Some(rows) = rows.as_deref_mut() {
                rows[row] = loss;
            }
        }
    }

    /// The means of sums.
    pub(super) fn means(&self, sums: &Loss) -> Loss {
        Loss {
            loss: sums.loss / self.count,
            cross_entropy: sums.cross_entropy / self.count,
            divergence: sums.divergence / self.count,
            counted: self.counted,
        }
    }
}

/// Memory for rows of logits and what a head makes them of.
fn memory_for(
    logits: Option<Logits<'_>>,
    rows: usize,
    vocabulary: usize,
) -> Result<[Buffer; 2], Error> {
    let [width, inputs] = match logits {
        None => [0; 2],
        Some(Logits::Rows(_)) => [vocabulary, 0],
        Some(Logits::Head { head, .. }) => [vocabulary, head.inputs()],
    };
    Ok([Buffer::new(rows * width)?, Buffer::new(rows * inputs)?])
}

/// Rows `numbers` of `from`, one beside the other.
fn gather(from: &[f32], width: usize, numbers: &[usize], to: &mut [f32]) {
    if width > 0 {
        for (to, &row) in to.chunks_exact_mut(width).zip(numbers) {
            to.copy_from_slice(&from[row * width..(row + 1) * width]);
        }
    }
}

/// Refuses logits that are not a row for each label.
fn check_logits(
    [logits_name, hidden_name]: [&str; 2],
    logits: Logits<'_>,
    [rows, vocabulary]: [usize; 2],
) -> Result<(), Error> {
    match logits {
        Logits::Rows(logits) => {
            check_len(logits_name, &[rows, vocabulary], logits.len())?;
        }
        Logits::Head { hidden, head } => {
            check_len(hidden_name, &[rows, head.inputs()], hidden.len())?;
            if head.outputs() != vocabulary {
                return Err(Error::shape(
                    format_args!("{logits_name}.head"),
                    format_args!("{vocabulary} outputs, as the student has"),
                    head.outputs(),
                ));
            }
        }
    }
    Ok(())
}

/// Refuses options out of their range.
fn check_options(options: &CrossEntropyOptions<'_>) -> Result<(), Error> {
    let share = |name: &str, value: f64| {
        if (0.0..=1.0).contains(&value) {
            Ok(())
        } else {
            Err(Error::option(name, "a number from 0 to 1", value))
        }
    };
    share("label_smoothing", options.label_smoothing)?;
    if let Some(distillation) = &options.distillation {
        share("alpha", distillation.alpha)?;
    }
    if !(options.z_loss >= 0.0 && options.z_loss.is_finite()) {
        return Err(Error::option(
            "z_loss",
            "a number from 0 on",
            options.z_loss,
        ));
    }
    Ok(())
}
