//! What training adds around matrix products: gradients of linear maps, losses, and the optimiser.

mod linear;
mod loss;
mod optimizer;
mod rates;
mod support;
