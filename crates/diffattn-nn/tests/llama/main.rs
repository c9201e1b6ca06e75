//! Tests of DiffLlama, differential, plain, converted, Motif's and of diff-mlx, and of
//! Phi-4-mini-flash, one program.

mod accuracy;
mod adapted;
mod batch;
mod bits;
mod caches;
mod common;
mod config;
mod converted;
mod diff_mlx;
mod empty;
mod errors;
mod families;
mod flash_formulas;
mod generate;
mod gguf;
mod load;
mod measure;
mod motif;
mod phi4flash;
mod plain;
mod quantised;
mod reference;
mod sampling;
#[cfg(feature = "training")]
mod slopes;
