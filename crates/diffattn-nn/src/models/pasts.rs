//! What the layers of a model keep of the texts of a pass: in caches that are given, or of its own.

use crate::generate::ModelCache;
use crate::pass::{Plan, State, StateOptions};
use diffattn::{CacheDType, Error};
use std::ops::Range;

/// What the layers keep of each text. Caches keep what was committed, however the work ends.
#[derive(Debug)]
pub(super) enum Pasts<'a> {
    /// One state per text, used for one layer after the other.
    Own {
        states: Vec<State>,
        /// What they are made for.
        options: Option<StateOptions>,
        /// Those of layers whose keys others read, each with the layer's number.
        shared: Vec<(usize, Vec<State>)>,
    },
    Given(Vec<&'a mut ModelCache>),
}

impl<'a> Pasts<'a> {
    pub(super) fn new(caches: Option<Vec<&'a mut ModelCache>>) -> Self {
        let own = || Self::Own {
            states: Vec::new(),
            options: None,
            shared: Vec::new(),
        };
        caches.map_or_else(own, Self::Given)
    }

    /// The states of a layer, or of that whose keys it reads; those of its own empty.
    pub(super) fn layer(
        &mut self,
        index: usize,
        plan: &Plan<'_>,
    ) -> Result<Vec<&mut State>, Error> {
        let keys_of = plan.layers[index].mixer.keys_of();
        let (states, options, shared) = match self {
            Self::Given(caches) => {
                let layer = keys_of.unwrap_or(index);
                let caches = caches.iter_mut();
                return Ok(caches.map(|cache| &mut cache.layers[layer]).collect());
            }
            Self::Own {
                states,
                options,
                shared,
            } => (states, options, shared),
        };
        if let Some(layer) = keys_of {
            let mut found = shared.iter_mut().filter(|(of, _)| *of == layer);
            let (_, states) = found
                .next()
                .ok_or_else(|| Error::internal("keys of a layer that has none"))?;
            return Ok(states.iter_mut().collect());
        }
        let mut others = plan.layers.iter().map(|layer| layer.mixer.keys_of());
        if others.any(|layer| layer == Some(index)) {
            shared.push((index, made(index, plan)?));
            let states = shared.last_mut().map(|(_, states)| states);
            return Ok(states.into_iter().flatten().collect());
        }
        let wanted = StateOptions::of(plan.layers[index].mixer);
        if *options != Some(wanted) {
            (*states, *options) = (made(index, plan)?, Some(wanted));
        }
        for state in states.iter_mut() {
            state.rewind(0);
        }
        Ok(states.iter_mut().collect())
    }

    /// Caches take over a stretch of each text.
    pub(super) fn commit(&mut self, texts: &[Vec<u32>], tokens: impl Fn(usize) -> Range<usize>) {
        if let Self::Given(caches) = self {
            for (cache, ids) in caches.iter_mut().zip(texts) {
                cache.commit(&ids[tokens(ids.len())]);
            }
        }
    }
}

/// Empty states of a layer, one per text.
fn made(index: usize, plan: &Plan<'_>) -> Result<Vec<State>, Error> {
    let texts = plan.texts.iter();
    let options = StateOptions::of(plan.layers[index].mixer);
    let states = texts.map(|text| {
        let options = options.holding(text.length, CacheDType::F32);
        State::new(&options, false)
    });
    states.collect()
}

impl Drop for Pasts<'_> {
    fn drop(&mut self) {
        if let Self::Given(caches) = self {
            for cache in caches {
                cache.roll_back();
            }
        }
    }
}
