//! Tests of SAME-S and of the layer that it is made of, one program.

mod accuracy;
mod bits;
mod common;
mod errors;
mod layer;
