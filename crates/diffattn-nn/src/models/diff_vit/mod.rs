//! timm's DIFF vision transformers: image in, logits out.

mod block;
mod call;
mod config;
mod forward;
mod load;
mod model;
mod run;
mod sizes;

pub use config::{DiffViTArchitecture, DiffViTConfig};
pub use forward::{DiffViTForward, DiffViTMaps};
pub(crate) use load::open;
pub use load::{DiffViTBuilder, DiffViTLoader};
pub use model::{DiffViT, DiffViTOptions};
