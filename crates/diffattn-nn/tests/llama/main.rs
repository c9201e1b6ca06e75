//! Tests of DiffLlama, differential and plain, one program.

mod accuracy;
mod bits;
mod caches;
mod common;
mod config;
mod empty;
mod errors;
mod families;
mod generate;
mod gguf;
mod load;
mod plain;
mod quantised;
mod reference;
mod sampling;
