//! A text model as passes, caches and generation see it. Knows no family and runs nothing.

use crate::layers::{Embedding, Head, Layer};
use crate::pass::StateOptions;
use diffattn::Error;
use std::any::Any;

/// The parts of a model that continues texts: embeddings, a list of layers and the head, which has
/// the last norm.
#[derive(Debug, Clone)]
pub struct Decoder<'m> {
    pub(crate) embedding: &'m Embedding,
    pub(crate) layers: Vec<Layer<'m>>,
    pub(crate) head: Head<'m>,
    /// Ids that end a text.
    pub(crate) eos_token_ids: &'m [u32],
    /// Tokens that a text may have, where its positions end.
    pub(crate) longest: Option<f64>,
}

/// A model that continues texts, of whatever family: what generation and caches ask of it.
pub trait TextModel: std::fmt::Debug + Send + Sync + Any {
    /// What it is made of.
    fn decoder(&self) -> Decoder<'_>;
}

impl Decoder<'_> {
    /// Ids that there are.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.head.outputs()
    }

    /// Channels of its hidden states.
    #[must_use]
    pub fn hidden_size(&self) -> usize {
        self.head.inputs()
    }

    /// What the state of each layer is made for, for one text, before it is said what it holds.
    pub(crate) fn states(&self) -> impl Iterator<Item = StateOptions> {
        let layers = self.layers.iter();
        layers.map(|layer| StateOptions::of(layer.mixer))
    }

    /// The smallest window that a layer has of its own.
    pub(crate) fn own_window(&self) -> Option<usize> {
        let layers = self.layers.iter();
        layers.filter_map(|layer| layer.mixer.window(None)).min()
    }

    /// Checks that all ids are below `vocab_size`.
    pub(crate) fn check_ids(
        &self,
        argument: &str,
        ids: impl Iterator<Item = i64>,
    ) -> Result<(), Error> {
        let vocab = self.vocab_size();
        for (index, id) in ids.enumerate() {
            if !usize::try_from(id).is_ok_and(|id| id < vocab) {
                return Err(Error::option(
                    argument,
                    format_args!("ids from 0 to {}", vocab - 1),
                    format_args!("{id} at {index}"),
                ));
            }
        }
        Ok(())
    }
}
