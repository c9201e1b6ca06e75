//! Activations of layers, value by value in place, and their backward passes.

mod backward;
mod gate;
mod gelu;
mod sigmoid;
mod softplus;
mod wide;

pub use backward::{
    GeluBackward, SwigluBackward, SwigluGradients, gelu_backward, gelu_tanh_backward,
    swiglu_backward,
};
pub use gate::silu_gate;
pub use gelu::{gelu, gelu_tanh};
pub use sigmoid::sigmoid;
pub use softplus::softplus;
