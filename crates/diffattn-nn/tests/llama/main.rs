//! Tests of DiffLlama, one program.

mod accuracy;
mod bits;
mod caches;
mod common;
mod config;
mod empty;
mod errors;
mod generate;
mod load;
mod reference;
mod sampling;
