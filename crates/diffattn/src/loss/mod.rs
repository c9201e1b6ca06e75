//! Losses of rows of logits and their gradients: cross entropy, and distillation from a teacher; of
//! logits that are there, or of a head's, which are made some rows at a time and never exist as a
//! whole. Rows whose label says so take no part, and cost no product. Knows nothing of models.

mod chunks;
mod cross_entropy;
mod linear;
mod options;
mod row;
mod sums;

pub use self::cross_entropy::{CrossEntropyGradients, cross_entropy};
pub use self::linear::{HeadGradients, LinearCrossEntropy, linear_cross_entropy};
pub use self::options::{CrossEntropyOptions, Distillation, Logits, Loss};
