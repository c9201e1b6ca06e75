//! What a forward pass over texts gives, and how it is run. Types only.

use super::ids::Logits;
use crate::pass::alone::Maps;
use diffattn::{MapOutputs, Run};

/// What a forward pass of a text model gives, and how it is run.
#[derive(Debug, Clone, Default)]
pub struct TextOptions {
    /// Of which tokens there are logits.
    pub logits: Logits,
    /// Whether to give the hidden states, `[num_hidden_layers + 1, B, L, hidden_size]`: the
    /// embeddings, then what each layer gives, the last one's after the final norm (as Hugging Face
    /// has them). False by default.
    pub hidden_states: bool,
    /// The layers whose attention maps are wanted, in this order: with caches of the new tokens
    /// over all. None by default.
    pub map_layers: Vec<usize>,
    /// Tokens that each token sees, itself included; all by default. Not with caches, which have
    /// their own.
    pub window: Option<usize>,
    /// How the call runs: instruction set, threads, fused or not.
    pub run: Run,
}

/// The result of a forward pass over texts, float32. What was not asked for is empty.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TextOutput {
    /// Of [`TextOutput::logits_shape`].
    pub logits: Vec<f32>,
    /// `[B, L, vocab_size]` or `[B, 1, vocab_size]`.
    pub logits_shape: [usize; 3],
    /// Of [`TextOutput::hidden_states_shape`].
    pub hidden_states: Vec<f32>,
    /// `[num_hidden_layers + 1, B, L, hidden_size]`.
    pub hidden_states_shape: [usize; 4],
    /// Of each layer that was asked for.
    pub maps: Vec<Maps>,
}

impl TextOutput {
    /// Where the work writes.
    pub(crate) fn as_outputs(&mut self) -> TextOutputs<'_> {
        TextOutputs {
            logits: &mut self.logits,
            hidden_states: &mut self.hidden_states,
            maps: self.maps.iter_mut().map(Maps::as_outputs).collect(),
        }
    }
}

/// Where the results of a forward pass over texts go. What was not asked for is empty.
#[derive(Debug, Default)]
pub struct TextOutputs<'a> {
    /// Of [`TextForward::logits_shape`](super::TextForward::logits_shape).
    pub logits: &'a mut [f32],
    /// Of [`TextForward::hidden_states_shape`](super::TextForward::hidden_states_shape).
    pub hidden_states: &'a mut [f32],
    /// Of each layer that was asked for: as many terms as
    /// [`TextForward::terms`](super::TextForward::terms) says and the difference, each of
    /// [`TextForward::map_shape`](super::TextForward::map_shape).
    pub maps: Vec<MapOutputs<'a>>,
}
