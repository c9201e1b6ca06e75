//! Images before a model, and classes after it. Knows no model.

mod classes;
mod preprocess;
mod resample;

pub use classes::{ClassScore, top_classes};
pub use preprocess::{Image, Preprocessing};
pub use resample::Interpolation;
pub(crate) use resample::resample_grid;
