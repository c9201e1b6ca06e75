//! Activations of layers, value by value in place.

mod gelu;
mod sigmoid;

pub use gelu::{gelu, gelu_tanh};
pub use sigmoid::sigmoid;
