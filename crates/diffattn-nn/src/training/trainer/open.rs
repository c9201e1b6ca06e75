//! What a step on its way has gathered. Computes nothing.

use crate::training::model::TrainingModel;
use crate::training::trainable::Trainable;
use diffattn::Loss;

/// Numbers that are told of a micro-batch before those of layers: its loss, of which cross entropy,
/// of which divergence.
pub(super) const TOLD: usize = 3;

/// What is told of a micro-batch: [`TOLD`] numbers, and the mean of each layer's projected λ.
pub(super) fn told_of<M: Trainable>(loss: &Loss, model: &TrainingModel<M>) -> Vec<f64> {
    let own = [loss.loss, loss.cross_entropy, loss.divergence];
    own.into_iter().chain(model.lambda_means()).collect()
}

/// A step on its way: what its micro-batches gave so far.
#[derive(Debug, Clone, Default)]
pub(super) struct OpenStep {
    /// Micro-batches.
    pub(super) added: usize,
    pub(super) tokens: usize,
    /// Sums of what is told of each.
    sums: Vec<f64>,
}

impl OpenStep {
    pub(super) fn add(&mut self, tokens: usize, told: &[f64]) {
        self.added += 1;
        self.tokens += tokens;
        self.sums.resize(told.len(), 0.0);
        for (sum, of) in self.sums.iter_mut().zip(told) {
            *sum += of;
        }
    }

    /// The loss, of which cross entropy, of which divergence.
    pub(super) fn losses(&self) -> [f64; TOLD] {
        let of = |index: usize| self.sums.get(index).copied().unwrap_or(0.0);
        [of(0), of(1), of(2)]
    }

    /// The mean of each layer's projected λ.
    pub(super) fn lambda_means(&self) -> Vec<f64> {
        let sums = self.sums.iter().skip(TOLD);
        sums.map(|sum| sum / self.added as f64).collect()
    }
}
