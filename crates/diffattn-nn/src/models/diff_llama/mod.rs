//! The DIFF Llama of Hugging Face (`diffllama`): a decoder whose attention is
//! [`crate::MultiheadDiffAttn`]; and the Llamas that differ from it in nothing else: plain ones,
//! and those some of whose heads were made differential.

mod attention;
mod config;
mod conversion;
mod load;
mod model;
mod run;

pub(crate) use config::POLY_NORM;
pub use config::{DiffLlamaConfig, HiddenAct};
pub use conversion::{DifferentialHeads, LlamaConversion, NoiseOrder};
#[cfg(feature = "training")]
pub(crate) use load::decoder_sizes;
pub use load::{DiffLlamaBuilder, DiffLlamaLoader};
pub(crate) use load::{of_config, open, open_converted, open_llama};
pub(crate) use model::DecoderLayer;
pub use model::DiffLlama;
