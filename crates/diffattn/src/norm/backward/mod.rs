//! Backward passes of the norms over the last axis, and what all norms' have in common. As in the
//! forward pass, sums are float64 in a fixed order and nothing fuses, so every instruction set and
//! every number of threads gives one set of bits.

pub(super) mod call;
mod layer;
mod poly;
mod rms;
mod rows;

pub use call::{NormBackward, NormGradients};
pub use layer::{LayerNormBackward, layer_norm_backward};
pub use poly::{PolyNormBackward, PolyNormGradients, poly_norm_backward};
pub(crate) use rms::rms_norm_row_backward;
pub use rms::{RmsNormBackward, rms_norm_backward};
