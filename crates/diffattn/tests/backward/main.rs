//! The tests of the backward operators, one binary: reference cases, accuracy against float64 by
//! the rule of the contract, bits, refusals.

#![expect(clippy::unwrap_used, reason = "tests")]

mod activation;
mod embedding;
mod formulas;
mod group_norm;
mod lambda;
mod layer_norm;
mod norms;
mod poly_norm;
mod rms_norm;
mod sequence;
mod support;
