//! Whole models: each is a config, a list of [`crate::layers`] over its weights, and what stands at
//! both ends of it. What runs them is [`crate::pass`].

mod decoder;
pub(crate) mod diff_llama;
pub(crate) mod diff_vit;
mod ends;
mod ids;
mod outputs;
mod pasts;
mod texts;

pub use decoder::{Decoder, TextModel};
pub use ids::{Logits, TokenIds};
pub use outputs::{TextOptions, TextOutput, TextOutputs};
pub use texts::TextForward;
