//! timm's DIFF vision transformers: image in, logits out.

mod block;
mod call;
mod classify;
mod config;
mod forward;
mod load;
mod model;
mod preprocess;
mod resample;
mod run;
mod sizes;

pub use classify::{ClassScore, top_classes};
pub use config::{DiffViTArchitecture, DiffViTConfig};
pub use forward::{DiffViTForward, DiffViTMaps};
pub use load::DiffViTLoader;
pub use model::{DiffViT, DiffViTOptions};
pub use preprocess::{Image, Preprocessing};
pub use resample::Interpolation;
