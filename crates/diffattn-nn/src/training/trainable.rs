//! What of training a family of models says itself: which of its weights move, the loss of a batch
//! and its gradients, how what moved comes back into it. Knows no family, no steps and no data.

use super::arena::Arena;
use super::layer::Recompute;
use super::parameters::Taking;
use crate::layers::attention::{DiffAttnLayer, LambdaSource};
use diffattn::{CrossEntropyOptions, Distillation, Error, Loss, Pace, Run};
use std::fmt::Debug;
use std::ops::Range;

/// What a micro-batch is measured by.
#[derive(Debug)]
pub struct LossOptions<'o, M = crate::DiffLlama> {
    /// The labels that count in the whole step, by which its losses are divided; those of the
    /// micro-batch by default.
    pub count: Option<usize>,
    /// A teacher, whose distribution takes part, and the share of cross entropy.
    pub teacher: Option<(&'o M, f64)>,
}

// (Derived, they would ask the same of M.)
impl<M> Clone for LossOptions<'_, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M> Copy for LossOptions<'_, M> {}

impl<M> Default for LossOptions<'_, M> {
    fn default() -> Self {
        Self {
            count: None,
            teacher: None,
        }
    }
}

/// The options of a loss that is divided by `count`.
pub(super) fn loss_options(
    count: Option<usize>,
    distillation: Option<Distillation<'_>>,
    run: Run,
) -> CrossEntropyOptions<'_> {
    CrossEntropyOptions {
        count,
        distillation,
        run,
        ..CrossEntropyOptions::default()
    }
}

/// What a batch, or what is measured in all, came to.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Measured {
    /// The mean loss over the labels that count.
    pub loss: f64,
    /// The share of them that the largest logit names, where that is told: of images.
    pub accuracy: Option<f64>,
    /// How many labels count.
    pub counted: usize,
}

/// Sums of what several batches came to.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct MeasuredSums {
    /// Of the losses of labels that count.
    pub loss: f64,
    /// Labels that the largest logit names; `None` where that is not told.
    pub right: Option<usize>,
    /// Labels that count.
    pub counted: usize,
}

impl MeasuredSums {
    /// Adds those of another batch.
    pub fn add(&mut self, other: &Self) {
        self.loss += other.loss;
        self.counted += other.counted;
        self.right = match (self.right, other.right) {
            (Some(one), Some(other)) => Some(one + other),
            (one, other) => one.or(other),
        };
    }

    /// The means; `None` where no label counts.
    #[must_use]
    pub fn means(&self) -> Option<Measured> {
        let counted = self.counted;
        (counted > 0).then(|| Measured {
            loss: self.loss / counted as f64,
            accuracy: self.right.map(|right| right as f64 / counted as f64),
            counted,
        })
    }
}

/// Told of a bucket of parameters ([`Trainable::buckets`]) whose gradients are whole, with those of
/// all.
pub type Whole<'h> = &'h mut (dyn FnMut(usize, &[f32]) -> Result<(), Error> + Send);

/// The same for a part of the work.
pub(super) fn lent<'a>(whole: &'a mut Option<Whole<'_>>) -> Option<Whole<'a>> {
    match whole {
        Some(whole) => Some(&mut **whole),
        None => None,
    }
}

/// A model in training, apart: itself, what its passes keep, and where gradients go.
#[derive(Debug)]
pub struct Parts<'p, M: Trainable> {
    pub(crate) model: &'p M,
    pub(crate) passes: &'p mut M::Passes,
    pub(crate) arena: &'p mut Arena,
    pub(crate) recompute: Recompute,
    pub(crate) run: Run,
}

/// A family of models that training moves.
pub trait Trainable: Debug + Sized + Send + Sync {
    /// What a micro-batch is of.
    type Batch: Debug + Send + Sync;
    /// Which parameters it is made of, and what its passes keep.
    type Passes: Debug + Send + Sync;

    /// Takes what moves into an arena, and holds it as float32 from then on.
    ///
    /// # Errors
    /// [`ErrorKind::Option`](diffattn::ErrorKind::Option) naming `model` for layers that are not
    /// trained, or `adapter`; [`Error::out_of_memory`].
    fn take(&mut self, taking: &mut Taking<'_>) -> Result<Self::Passes, Error>;

    /// Parameters whose gradients become whole together, by their numbers in the arena: what stands
    /// before the layers, each layer, what stands behind them.
    fn buckets(passes: &Self::Passes) -> &[Range<usize>];

    /// Whether a batch is one of this model.
    ///
    /// # Errors
    /// [`ErrorKind::Option`](diffattn::ErrorKind::Option) or
    /// [`ErrorKind::Shape`](diffattn::ErrorKind::Shape) naming what of it is not.
    fn check_batch(&self, batch: &Self::Batch) -> Result<(), Error>;

    /// The tokens of a batch.
    fn tokens(&self, batch: &Self::Batch) -> usize;

    /// Units of work of a batch, about.
    fn units(&self, batch: &Self::Batch) -> usize;

    /// Zeros what is summed apart from the arena.
    fn clear(passes: &mut Self::Passes);

    /// The loss of a checked batch, whose gradients are added to those of the arena. Of a unit of a
    /// step (`whole`) what else is summed apart is joined with them, and each bucket is told of
    /// once it is whole.
    fn add(
        parts: Parts<'_, Self>,
        pace: &Pace,
        batch: &Self::Batch,
        options: &LossOptions<'_, Self>,
        whole: Option<Whole<'_>>,
    ) -> impl Future<Output = Result<Loss, Error>> + Send;

    /// What a checked batch comes to, and nothing of its gradients.
    fn measure(
        parts: Parts<'_, Self>,
        pace: &Pace,
        batch: &Self::Batch,
    ) -> impl Future<Output = Result<MeasuredSums, Error>> + Send;

    /// Joins what is summed apart with the gradients.
    fn join(&self, passes: &mut Self::Passes, arena: &mut Arena);

    /// In how many parts [`Trainable::put_back`] comes: its layers, and what stands before and
    /// behind them.
    fn parts(&self) -> usize;

    /// Puts a part of what moved back into the model.
    ///
    /// # Errors
    /// [`Error::internal`].
    fn put_back(&mut self, part: usize, passes: &Self::Passes, arena: &Arena) -> Result<(), Error>;

    /// Whether nothing of it would move a λ that begins at zero, unless it is annealed.
    fn needs_annealing(&self) -> bool {
        false
    }

    /// Anneals λ that is annealed, to α of the learned one; whether there is any.
    ///
    /// # Errors
    /// [`Error::out_of_memory`].
    fn anneal(&mut self, _alpha: f64) -> Result<bool, Error> {
        Ok(false)
    }

    /// The mean of each layer's projected λ over the tokens of the last pass; 0 of one that has
    /// none.
    fn projected_lambda(passes: &Self::Passes) -> Vec<f64>;

    /// The attention of its layers.
    fn attentions(&self) -> impl Iterator<Item = &DiffAttnLayer>;
}

/// λ of each layer; `None` where it is projected or there is none.
pub(super) fn lambda_of<M: Trainable>(model: &M) -> Vec<Option<f32>> {
    let value = |layer: &DiffAttnLayer| match layer.lambda {
        LambdaSource::Value(value) => Some(value),
        _ => layer.dex.as_ref().map(|dex| dex.lambda() as f32),
    };
    model.attentions().map(value).collect()
}
