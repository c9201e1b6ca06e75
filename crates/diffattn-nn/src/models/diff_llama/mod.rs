//! The DIFF Llama of Hugging Face (`diffllama`): a decoder whose attention is
//! [`crate::MultiheadDiffAttn`].

mod config;
mod load;
mod model;
mod run;

pub use config::{DiffLlamaConfig, HiddenAct};
pub use load::{DiffLlamaBuilder, DiffLlamaLoader};
pub(crate) use load::{open, open_llama};
pub(crate) use model::DecoderLayer;
pub use model::DiffLlama;
