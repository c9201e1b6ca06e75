//! Where the gradients of a model go, layer after layer, and who is told of those that are whole.
//! Computes none.

use super::arena::Arena;
use super::ids::AttentionIds;
use super::sums::{LayerGrads, LayerSums, join_sums};
use super::trainable::Whole;
use crate::layers::attention::DiffAttnLayer;
use diffattn::Error;

/// Where the gradients of a model go: `I` says which parameters it is made of.
pub(super) struct ModelGrads<'g, I> {
    pub(super) ids: &'g I,
    pub(super) arena: &'g mut Arena,
    /// What of each layer's gradients is summed apart.
    pub(super) sums: &'g mut [LayerSums],
    /// Of a unit of a step: who is told of gradients that are whole.
    pub(super) whole: Option<Whole<'g>>,
}

impl<I> ModelGrads<'_, I> {
    /// Where those of a layer go.
    pub(super) fn layer<'l, L>(&'l mut self, index: usize, ids: &'l L) -> LayerGrads<'l, L> {
        LayerGrads {
            ids,
            arena: &mut *self.arena,
            sums: &mut self.sums[index],
        }
    }

    /// Behind a layer: of a unit of a step its gradients are whole.
    pub(super) fn end_layer(
        &mut self,
        index: usize,
        attention: &DiffAttnLayer,
        ids: &AttentionIds,
    ) -> Result<(), Error> {
        if self.whole.is_some() {
            join_sums(attention, ids, &mut self.sums[index], self.arena);
        }
        self.tell(index + 1)
    }

    /// Tells of a bucket whose gradients are whole, whoever is to be told.
    pub(super) fn tell(&mut self, bucket: usize) -> Result<(), Error> {
        match &mut self.whole {
            Some(whole) => whole(bucket, self.arena.all_gradients()),
            None => Ok(()),
        }
    }
}
