//! Forward passes over texts, and texts as vectors.

use diffattn::{DType, Error};
use diffattn_nn::{
    EmbedOptions, Logits, Pooling, TextEmbed, TextForward, TextOptions, TextOutputs, TokenIds,
};

use super::maps::{map_outputs, take_map_outputs};
use super::model::Model;
use super::model_cache::Caches;
use crate::encoding::{Count, Flag, Ints, List, Object, choice, request};
use crate::job::{OutputSpec, Prepared};
use crate::objects::Use;
use crate::operation::{Inputs, Operation};
use crate::reader::TensorAt;

choice! { Logits { "none" = None, "last" = Last, "all" = All } }

request! {
    /// A request of `textForward`.
    80 textForward TextForwardRequest {
        model: Object<Model>,
        ids: Ints,
        caches: Caches,
        logits: Logits,
        hidden_states: Flag,
        layer: List<Count>,
        window: Option<Count>,
        deterministic: Flag,
    }
}

impl Operation for TextForwardRequest {
    fn uses(&self) -> Vec<Use> {
        let caches = self.caches.iter().map(|slot| slot.to_use(true));
        [self.model.to_use(false)]
            .into_iter()
            .chain(caches)
            .collect()
    }

    fn prepare<'m>(&'m self, inputs: Inputs<'_, 'm>) -> Result<Prepared<'m>, Error> {
        let model = inputs.objects.look(&self.model)?.text()?;
        let model = inputs.objects.keep(model);
        let ids = TokenIds::i32(self.ids.i32(inputs.operands)?, &self.ids.shape);
        let mut caches = None;
        if !self.caches.is_empty() {
            let taken = self.caches.iter().map(|slot| inputs.objects.take(slot));
            caches = Some(taken.collect::<Result<Vec<_>, _>>()?);
        }
        let options = TextOptions {
            logits: self.logits,
            hidden_states: self.hidden_states,
            map_layers: self.layer.clone(),
            window: self.window,
            run: inputs.run.with_deterministic(self.deterministic),
        };
        let job = TextForward::new(model.decoder(), &ids, caches, &options)?;
        let mut specs = Vec::new();
        if self.logits != Logits::None {
            specs.push(OutputSpec::new("logits", DType::F32, &job.logits_shape())?);
        }
        if self.hidden_states {
            let shape = job.hidden_states_shape();
            specs.push(OutputSpec::new("hidden_states", DType::F32, &shape)?);
        }
        for &layer in &self.layer {
            specs.extend(map_outputs(job.terms(layer), &job.map_shape(layer))?);
        }
        Ok(Prepared::new(specs, move |outputs| {
            let mut to = TextOutputs::default();
            if self.logits != Logits::None {
                to.logits = outputs.f32()?;
            }
            if self.hidden_states {
                to.hidden_states = outputs.f32()?;
            }
            for &layer in &self.layer {
                to.maps.push(take_map_outputs(job.terms(layer), outputs)?);
            }
            job.into_work(to)
        }))
    }
}

choice! { Pooling { "mean" = Mean, "last" = Last } }

request! {
    /// A request of `embedTexts`.
    86 embedTexts EmbedTextsRequest {
        model: Object<Model>,
        texts: List<Ints>,
        pooling: Pooling,
        normalize: Flag,
        deterministic: Flag,
    }
}

impl Operation for EmbedTextsRequest {
    fn uses(&self) -> Vec<Use> {
        vec![self.model.to_use(false)]
    }

    fn prepare<'m>(&'m self, inputs: Inputs<'_, 'm>) -> Result<Prepared<'m>, Error> {
        let model = inputs.objects.look(&self.model)?.text()?;
        let model = inputs.objects.keep(model);
        let texts = self.texts.iter();
        let texts = texts.map(|ids| token_ids("texts", ids, inputs.operands));
        let options = EmbedOptions {
            pooling: self.pooling,
            normalize: self.normalize,
            run: inputs.run.with_deterministic(self.deterministic),
        };
        let texts = texts.collect::<Result<_, _>>()?;
        let job = TextEmbed::new(model.decoder(), texts, &options)?;
        let spec = OutputSpec::new("embeddings", DType::F32, &job.shape())?;
        Ok(Prepared::new(vec![spec], move |outputs| {
            job.into_work(outputs.f32()?)
        }))
    }
}

/// The ids of one text.
pub(super) fn token_ids(
    argument: &'static str,
    ids: &TensorAt,
    operands: &[&[u8]],
) -> Result<Vec<u32>, Error> {
    let ids = ids.i32(operands)?.iter();
    ids.map(|&id| u32::try_from(id).map_err(|_| Error::option(argument, "ids from 0", id)))
        .collect()
}
