//! Activations of layers, value by value in place.

mod gate;
mod gelu;
mod sigmoid;
mod softplus;
mod wide;

pub use gate::silu_gate;
pub use gelu::{gelu, gelu_tanh};
pub use sigmoid::sigmoid;
pub use softplus::softplus;
