//! timm's DIFF vision transformers: image in, logits out.

mod block;
mod call;
mod config;
mod forward;
mod load;
mod model;
mod run;
mod sizes;

#[cfg(feature = "training")]
pub(crate) use block::{Block, NORM_EPS, Norm};
#[cfg(feature = "training")]
pub(crate) use call::Call;
pub use config::{DiffViTArchitecture, DiffViTConfig};
#[cfg(feature = "training")]
pub(crate) use forward::pool;
pub use forward::{DiffViTForward, DiffViTMaps};
pub(crate) use load::open;
pub use load::{DiffViTBuilder, DiffViTLoader};
pub use model::{DiffViT, DiffViTOptions};
