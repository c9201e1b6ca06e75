//! Tests of DiffLlama, differential, plain and converted, one program.

mod accuracy;
mod adapted;
mod bits;
mod caches;
mod common;
mod config;
mod converted;
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
