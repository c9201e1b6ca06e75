//! What the layers of a model keep of the texts of a pass: in caches that are given, or of its own.

use crate::generate::ModelCache;
use crate::pass::{Plan, State, StateOptions};
use diffattn::Error;
use std::ops::Range;

/// What the layers keep of each text. Caches keep what was committed, however the work ends.
#[derive(Debug)]
pub(super) enum Pasts<'a> {
    /// One state per text, used for one layer after the other, as far as these are alike.
    Own(Vec<State>),
    Given(Vec<&'a mut ModelCache>),
}

impl<'a> Pasts<'a> {
    pub(super) fn new(caches: Option<Vec<&'a mut ModelCache>>) -> Self {
        caches.map_or_else(|| Self::Own(Vec::new()), Self::Given)
    }

    /// The states of a layer, those of its own empty.
    pub(super) fn layer(
        &mut self,
        index: usize,
        plan: &Plan<'_>,
    ) -> Result<Vec<&mut State>, Error> {
        match self {
            Self::Given(caches) => {
                let caches = caches.iter_mut();
                Ok(caches.map(|cache| &mut cache.layers[index]).collect())
            }
            Self::Own(states) => {
                let attention = plan.layers[index].attention;
                if states
                    .first()
                    .is_some_and(|state| !state.fits(&StateOptions::Kv(attention.cache_options(1, 0))))
                {
                    states.clear();
                }
                for text in &plan.texts[states.len()..] {
                    let attention = plan.layers[index].attention;
                    let options = attention.cache_options(1, text.length);
                    states.push(State::new(&StateOptions::Kv(options))?);
                }
                for state in states.iter_mut() {
                    state.rewind(0);
                }
                Ok(states.iter_mut().collect())
            }
        }
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

impl Drop for Pasts<'_> {
    fn drop(&mut self) {
        if let Self::Given(caches) = self {
            for cache in caches {
                cache.roll_back();
            }
        }
    }
}
