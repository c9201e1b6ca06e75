//! The tests of training, one binary: gradients and steps against reference cases, bits.

#![expect(clippy::unwrap_used, reason = "tests")]

mod common;
mod converted;
mod data;
mod layers;
mod llama;
mod trainer;
mod vision;
#[expect(
    dead_code,
    unused_imports,
    reason = "the tests of vision transformers need the rest"
)]
#[path = "../vit/common.rs"]
mod vit;
