//! Layers of checkpoints, converted, that run.

mod common;
mod convert;
