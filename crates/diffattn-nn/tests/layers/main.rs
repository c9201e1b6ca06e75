//! Tests of the layers, one program.

mod accuracy;
mod bits;
mod common;
mod empty;
mod errors;
#[cfg(feature = "training")]
mod vjp;
