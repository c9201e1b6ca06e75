//! The DIFF Llama of Hugging Face (`diffllama`): a decoder whose attention is
//! [`crate::MultiheadDiffAttn`].

mod attention;
mod config;
mod load;
mod model;
mod run;

pub(crate) use config::POLY_NORM;
pub use config::{DiffLlamaConfig, HiddenAct};
pub use load::{DiffLlamaBuilder, DiffLlamaLoader};
pub(crate) use load::{of_config, open, open_llama};
pub(crate) use model::DecoderLayer;
pub use model::DiffLlama;
