//! The end of a step of a model in training: its gradients joined, measured and clipped, its
//! parameters moved, and put back into the model. Computes no gradient.

use super::arena::Parameter;
use super::model::TrainingModel;
use super::trainable::Trainable;
use diffattn::{AdamW, Error, Pace, Work, clip_coefficient};
use std::ops::Range;

/// Elements that the optimizer moves at a time: 7 arrays' worth of 4 bytes each, some
/// milliseconds.
const STEP_ELEMENTS: usize = 1 << 20;

/// The joint norm of gradients, of the sums of all their chunks in order.
pub(super) fn joint_norm(squares: &[f64]) -> f64 {
    squares.iter().fold(0.0, |sum, square| sum + square).sqrt()
}

impl<M: Trainable> TrainingModel<M> {
    /// Ends a step: the gradients of all micro-batches, clipped to `max_norm` where there is one,
    /// move the parameters, as `adamw` says of those that decay; step `step` counts from 1. Gives
    /// the joint norm before clipping.
    ///
    /// # Errors
    /// [`ErrorKind::Option`](diffattn::ErrorKind::Option) as [`AdamW::step`].
    pub fn step(&mut self, step: u64, adamw: &AdamW, max_norm: Option<f64>) -> Result<f64, Error> {
        let norm = self.norm()?;
        let total = self.step_units();
        Work::new(total, |pace| async move {
            let clip = max_norm.map_or(1.0, |max_norm| clip_coefficient(norm, max_norm));
            self.move_paced(&pace, step, (adamw, clip)).await?;
            self.put_back_paced(&pace).await
        })
        .finish()?;
        Ok(norm)
    }

    /// The joint norm of the step's gradients, behind its last micro-batch.
    fn norm(&mut self) -> Result<f64, Error> {
        self.join();
        Ok(joint_norm(&self.arena.gradient_squares(self.run)?))
    }

    /// Σ g² of what is owned of the step's gradients, chunk after chunk: `has_units` where they are
    /// the sums of units.
    pub(super) fn squares(&mut self, has_units: bool) -> Result<Vec<f64>, Error> {
        match has_units {
            true => self.arena.take_sums(),
            false => self.join(),
        }
        self.arena.gradient_squares(self.run)
    }

    /// [`Trainable::buckets`], each as the stretches of its tensors.
    pub(super) fn bucket_ranges(&self) -> Vec<Vec<Range<usize>>> {
        let buckets = M::buckets(&self.passes).iter();
        buckets.map(|of| self.arena.ranges_of(of.clone())).collect()
    }

    /// Units of work of a step of the optimizer.
    #[must_use]
    pub fn step_units(&self) -> usize {
        let moving = self.arena.parameters().iter().flat_map(Parameter::moving);
        let units: usize = moving
            .map(|range| range.len().div_ceil(STEP_ELEMENTS))
            .sum();
        units + self.model.parts()
    }

    /// Moves what is owned of the parameters by their gradients times `clip`. Where it ends before
    /// its end, some have moved; the model has them after [`TrainingModel::put_back_paced`].
    pub(super) async fn move_paced(
        &mut self,
        pace: &Pace,
        step: u64,
        (adamw, clip): (&AdamW, f64),
    ) -> Result<(), Error> {
        for index in 0..self.arena.parameters().len() {
            let of = &self.arena.parameters()[index];
            let adamw = AdamW {
                lr: adamw.lr * of.lr_scale,
                weight_decay: if of.decays() { adamw.weight_decay } else { 0.0 },
                ..*adamw
            };
            for range in of.moving() {
                let (arena, run) = (&mut self.arena, self.run);
                let some = |some| arena.step(some, step, (&adamw, clip), run);
                pace.rows(range, STEP_ELEMENTS, some).await?;
            }
        }
        Ok(())
    }

    /// [`TrainingModel::put_back`] in slices.
    pub(super) async fn put_back_paced(&mut self, pace: &Pace) -> Result<(), Error> {
        for part in 0..self.model.parts() {
            pace.granted().await;
            self.model.put_back(part, &self.passes, &self.arena)?;
            pace.worked(1);
        }
        Ok(())
    }

    /// Joins what is summed apart with the gradients: once, behind the last micro-batch.
    pub fn join(&mut self) {
        self.model.join(&mut self.passes, &mut self.arena);
    }

    /// Puts all that moves back into the model.
    pub(crate) fn put_back(&mut self) -> Result<(), Error> {
        (0..self.model.parts())
            .try_for_each(|part| self.model.put_back(part, &self.passes, &self.arena))
    }
}
