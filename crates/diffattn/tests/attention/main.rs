//! The tests of attention, one binary: accuracy against the oracle, bits, refusals.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod accuracy;
mod bits;
mod caches;
mod errors;
mod gradients;
mod gradients_special;
mod pre_norm;
mod ranges;
mod sparse;
mod support;
