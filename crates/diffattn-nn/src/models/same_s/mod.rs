//! SAME-S, the audio codec of Stable Audio 3: audio to latents and back.

mod body;
mod call;
mod config;
mod decoding;
mod encoding;
mod load;
mod model;
mod run;

pub use config::SameSConfig;
pub use decoding::SameSDecoding;
pub use encoding::SameSEncoding;
pub(crate) use load::open;
pub use load::{SameSBuilder, SameSLoader};
pub use model::{SameS, SameSOptions};
