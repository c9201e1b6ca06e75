//! Requests of models and checkpoints against diffattn-nn itself: what travels through a stream
//! must give the bits of a direct call, and whatever stands in a file or a stream must never panic.
//! One program.

mod caches;
mod common;
mod files;
mod generate;
mod gguf;
mod llama;
mod load;
mod vit;
