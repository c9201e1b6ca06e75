//! Phi-4-mini-flash (SambaY, arXiv 2507.06607): Mamba and differential attention by turns, the
//! upper half of them reading what the lower half kept.

mod config;
mod layer;
mod load;
mod model;

pub use config::{FlashWindows, Phi4FlashConfig};
pub(crate) use load::open;
pub use load::{Phi4FlashBuilder, Phi4FlashLoader};
pub use model::Phi4Flash;
