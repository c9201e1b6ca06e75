//! The end of a step, and steps that several ranks make together: unit i is of rank i mod N, their
//! gradients are added in the order of their numbers, and each rank moves the parameters of its
//! part. What one rank alone computes, any number of them does, bit for bit. Carries no message:
//! that is [`Ranks`].

use super::open::{OpenStep, TOLD, told_of};
use super::{Cursor, StepPlan, StepReport, Trainer};
use crate::training::arena::StateTensor;
use crate::training::dataset::Dataset;
use crate::training::model::TrainingModel;
use crate::training::ranks::{Message, Ranks, Shards};
use crate::training::step::joint_norm;
use crate::training::trainable::{Measured, MeasuredSums, Trainable};
use diffattn::{AdamW, Error, Pace, Work, clip_coefficient};
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Units of work after which messages are looked after: some milliseconds. (Who carries them may do
/// so only when asked, and looked after once a layer what was on its way stood still meanwhile.)
const UNITS_BETWEEN: usize = 2;

/// Who carries messages; a panic of theirs has ended this rank, too.
fn held<'m, 'r, 'd>(
    ranks: &'m Mutex<&'r mut (dyn Ranks + 'd)>,
) -> MutexGuard<'m, &'r mut (dyn Ranks + 'd)> {
    ranks.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Numbers that are told of a micro-batch that is measured: its losses, how many labels count, how
/// many of them were right, NaN where that is not told.
const MEASURED: usize = 3;

impl<D: Dataset> Trainer<D> {
    /// Makes this one of the ranks of a training whose steps are made of units: gradients are
    /// summed, and moments kept, of this rank's part alone. Moments begin as zeros: it is done
    /// before the first step, or before a checkpoint is gone on from.
    ///
    /// # Errors
    /// [`ErrorKind::Option`](diffattn::ErrorKind::Option) naming `unit` where there are none.
    pub fn join(&mut self, ranks: &dyn Ranks) -> Result<(), Error> {
        if self.options.unit.is_none() {
            return Err(Error::option("unit", "tokens of a unit", "none"));
        }
        let shards = Shards::new(&self.model.bucket_ranges(), ranks.size());
        self.model.arena.own(shards.of(ranks.rank()))?;
        self.shards = Some(shards);
        Ok(())
    }

    /// [`Trainer::advance`], together with the other ranks, all of which call it.
    ///
    /// # Errors
    /// As [`Trainer::advance`], and what `ranks` says; [`Error::internal`] before
    /// [`Trainer::join`]. An error of one rank is not told to the others.
    pub fn advance_among(
        &mut self,
        ranks: &mut dyn Ranks,
        teacher: Option<&D::Model>,
    ) -> Result<Option<StepReport>, Error> {
        let Some(plan) = self.plan()? else {
            return Ok(None);
        };
        let Some(shards) = self.shards.clone() else {
            return Err(Error::internal("a rank that has not joined"));
        };
        self.anneal(self.step + 1)?;
        self.model.begin_step(true)?;
        let mut own = Vec::new();
        for first in (0..plan.windows.len()).step_by(ranks.size()) {
            own.extend(self.round(ranks, (&plan, first), &shards, teacher)?);
        }
        self.open = self.told_of_units(ranks, &plan, &own)?;
        let mut report = None;
        Work::new(self.model.step_units(), |pace| {
            let report = &mut report;
            async move {
                *report = Some(self.update_among(&pace, plan.cursor, ranks).await?);
                Ok(())
            }
        })
        .finish()?;
        Ok(report)
    }

    /// Units `first..first + N` of a step: this rank's one is computed, while each bucket of it
    /// that is whole is on its way; then all are added in order. Gives what is told of the own one.
    fn round(
        &mut self,
        ranks: &mut dyn Ranks,
        (plan, first): (&StepPlan, usize),
        shards: &Shards,
        teacher: Option<&D::Model>,
    ) -> Result<Vec<f64>, Error> {
        let rank = ranks.rank();
        let taking_part = ranks.size().min(plan.windows.len() - first);
        let message = |from: usize, to: usize, bucket: usize| Message {
            from,
            to,
            tag: bucket as u32,
        };
        // In the order in which buckets become whole: the last first.
        for (bucket, parts) in shards.parts.iter().enumerate().rev() {
            for from in (0..taking_part).filter(|&from| from != rank) {
                if !parts[rank].is_empty() {
                    ranks.expect(message(from, rank, bucket), parts[rank].len())?;
                }
            }
        }
        let mut told = Vec::new();
        if rank < taking_part {
            let batch = self.data.batch(&plan.windows[first + rank])?;
            self.model.check_batch(&batch)?;
            let options = self.options.loss(plan.counted, teacher);
            let model = &mut self.model;
            model.begin();
            let on_the_way = Mutex::new(&mut *ranks);
            let mut send = |bucket: usize, gradients: &[f32]| {
                let mut ranks = held(&on_the_way);
                for (to, part) in shards.parts[bucket].iter().enumerate() {
                    if to != rank && !part.is_empty() {
                        ranks.send(message(rank, to, bucket), &gradients[part.clone()])?;
                    }
                }
                Ok(())
            };
            let told = &mut told;
            let mut work = Work::new(model.units(&batch), |pace| async move {
                let whole = Some(&mut send as _);
                let of = model.add_paced(&pace, &batch, &options, whole).await?;
                *told = told_of(&of, model);
                Ok(())
            });
            while work.done() < work.total() {
                work.step(UNITS_BETWEEN)?;
                held(&on_the_way).progress()?;
            }
        }
        for (bucket, parts) in shards.parts.iter().enumerate().rev() {
            let part = &parts[rank];
            if part.is_empty() {
                continue;
            }
            for from in 0..taking_part {
                if from == rank {
                    self.model.arena.add_to_sums(part.clone(), None);
                    continue;
                }
                let values = ranks.receive(message(from, rank, bucket))?;
                self.model.arena.add_to_sums(part.clone(), Some(&values));
            }
        }
        Ok(told)
    }

    /// What all units of a step gave, added in order.
    fn told_of_units(
        &self,
        ranks: &mut dyn Ranks,
        plan: &StepPlan,
        own: &[f64],
    ) -> Result<OpenStep, Error> {
        let of_unit = TOLD + self.model.model().attentions().count();
        let all = in_turns(ranks, own, [plan.windows.len(), of_unit])?;
        let mut open = OpenStep::default();
        for (windows, told) in plan.windows.iter().zip(all.chunks_exact(of_unit)) {
            open.add(windows.len() * self.row_tokens(), told);
        }
        Ok(open)
    }

    /// Ends a step all of whose gradients are summed.
    pub(super) async fn update_among(
        &mut self,
        pace: &Pace,
        cursor: Cursor,
        ranks: &mut dyn Ranks,
    ) -> Result<StepReport, Error> {
        let open = std::mem::take(&mut self.open);
        let [loss, cross_entropy, divergence] = open.losses();
        let step = self.step + 1;
        let adamw = AdamW {
            lr: self.options.schedule.at(step),
            betas: self.options.betas,
            eps: self.options.eps,
            weight_decay: self.options.weight_decay,
        };
        let squares = self.model.squares(self.options.unit.is_some())?;
        let norm = match &self.shards {
            Some(shards) => joint_norm(&in_order(&self.model, shards, ranks, &squares)?),
            None => joint_norm(&squares),
        };
        let has_diverged = !(loss.is_finite() && norm.is_finite());
        if !has_diverged {
            let clip = self.options.max_grad_norm;
            let clip = clip.map_or(1.0, |max_norm| clip_coefficient(norm, max_norm));
            self.is_moving = true;
            self.model.move_paced(pace, step, (&adamw, clip)).await?;
            for parts in self.shards.iter().flat_map(|shards| &shards.parts) {
                ranks.gather(self.model.arena.all_values(), parts)?;
            }
            self.model.put_back_paced(pace).await?;
            self.is_moving = false;
            (self.step, self.cursor) = (step, cursor);
            self.tokens += open.tokens as u64;
        }
        self.has_diverged = has_diverged;
        Ok(StepReport {
            step,
            loss,
            parts: [cross_entropy, divergence],
            lr: adamw.lr,
            grad_norm: norm,
            tokens: self.tokens,
            lambda: self.model.lambda_of_step(&open.lambda_means()),
            has_diverged,
        })
    }

    /// A tensor of the state, whichever ranks have its parts, to all of them, which all call this.
    ///
    /// # Errors
    /// [`ErrorKind::Option`](diffattn::ErrorKind::Option) naming `name` where no such parameter
    /// moves; what `ranks` says.
    pub fn tensor_among(
        &self,
        ranks: &mut dyn Ranks,
        name: &str,
        of: StateTensor,
    ) -> Result<Vec<f32>, Error> {
        let arena = &self.model.arena;
        let whole = arena.range_of(name)?;
        let mut values = diffattn::try_zeroed(whole.len())?;
        arena.read(name, of, &mut values)?;
        if of == StateTensor::Value {
            return Ok(values);
        }
        for parts in self.shards.iter().flat_map(|shards| &shards.parts) {
            // What of the tensor is in the bucket, counted from the tensor's beginning.
            let within = |at: usize| at.clamp(whole.start, whole.end) - whole.start;
            let parts: Vec<_> = parts
                .iter()
                .map(|part| within(part.start)..within(part.end))
                .collect();
            if parts.iter().any(|part| !part.is_empty()) {
                ranks.gather(&mut values, &parts)?;
            }
        }
        Ok(values)
    }

    /// [`Trainer::evaluate`], micro-batch i measured by rank i mod N; all call it.
    ///
    /// # Errors
    /// As [`Trainer::evaluate`], and what `ranks` says.
    pub fn evaluate_among(
        &mut self,
        ranks: &mut dyn Ranks,
        batches: Option<usize>,
    ) -> Result<Option<Measured>, Error> {
        let (rows, size) = (self.options.batch, ranks.size());
        let [_, windows] = self.data.windows();
        let all = usize::try_from(windows.div_ceil(rows as u64)).unwrap_or(usize::MAX);
        let all = batches.map_or(all, |batches| batches.min(all));
        let mut own = Vec::new();
        for index in (ranks.rank()..all).step_by(size) {
            let first = index as u64 * rows as u64;
            if let Some(batch) = self.data.eval(first, rows)? {
                let mut of = MeasuredSums::default();
                self.evaluate_work(batch, &mut of)?.finish()?;
                let right = of.right.map_or(f64::NAN, |right| right as f64);
                own.extend([of.loss, of.counted as f64, right]);
            }
        }
        let mut sums = MeasuredSums::default();
        for told in in_turns(ranks, &own, [all, MEASURED])?.chunks_exact(MEASURED) {
            if let &[loss, counted, right] = told {
                sums.add(&MeasuredSums {
                    loss,
                    right: (!right.is_nan()).then_some(right as usize),
                    counted: counted as usize,
                });
            }
        }
        Ok(sums.means())
    }
}

/// Numbers of each of `[count, width]` things in their order, of which thing i was rank i mod N's.
fn in_turns(
    ranks: &mut dyn Ranks,
    own: &[f64],
    [count, width]: [usize; 2],
) -> Result<Vec<f64>, Error> {
    let size = ranks.size();
    let of_rank = |rank: usize| (count + size - 1 - rank) / size * width;
    let counts: Vec<usize> = (0..size).map(of_rank).collect();
    let all = ranks.gather_numbers(own, &counts)?;
    let mut ordered = Vec::with_capacity(all.len());
    for index in 0..count {
        let before: usize = counts[..index % size].iter().sum();
        let at = before + index / size * width;
        let of = all.get(at..at + width);
        ordered.extend(of.ok_or_else(|| Error::internal("a rank told of too few"))?);
    }
    Ok(ordered)
}

/// Σ g² of all chunks of the arena in order, of those that each rank has.
fn in_order<M: Trainable>(
    model: &TrainingModel<M>,
    shards: &Shards,
    ranks: &mut dyn Ranks,
    own: &[f64],
) -> Result<Vec<f64>, Error> {
    let counts_of = |parts: &Vec<Range<usize>>| -> Vec<usize> {
        let chunks = |part: &Range<usize>| model.arena.chunks_of(part.clone());
        parts.iter().map(chunks).collect()
    };
    // [bucket][rank]
    let counts: Vec<Vec<usize>> = shards.parts.iter().map(counts_of).collect();
    let of_rank = |rank: usize| counts.iter().map(|of| of[rank]).sum();
    let told: Vec<usize> = (0..ranks.size()).map(of_rank).collect();
    let all = ranks.gather_numbers(own, &told)?;
    let mut at: Vec<usize> = told
        .iter()
        .scan(0, |end, count| {
            *end += count;
            Some(*end - count)
        })
        .collect();
    let mut ordered = Vec::with_capacity(all.len());
    for counts in &counts {
        for (at, count) in at.iter_mut().zip(counts) {
            let of = all.get(*at..*at + count);
            ordered.extend(of.ok_or_else(|| Error::internal("a rank told of too few chunks"))?);
            *at += count;
        }
    }
    Ok(ordered)
}
