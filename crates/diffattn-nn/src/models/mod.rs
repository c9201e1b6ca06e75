//! Whole models: each is a config, a list of [`crate::layers`] over its weights, and what stands at both ends
//! of it. What runs them is [`crate::pass`].

mod decoder;
mod ids;
mod outputs;
mod texts;

pub use decoder::{Decoder, TextModel};
pub use ids::{Logits, TokenIds};
pub use outputs::{TextOptions, TextOutput, TextOutputs};
pub use texts::TextForward;
