//! Backward passes of activations, value by value.

mod gelu;
mod pointwise;
mod swiglu;

pub use gelu::{GeluBackward, gelu_backward, gelu_tanh_backward};
pub use swiglu::{SwigluBackward, SwigluGradients, swiglu_backward};
