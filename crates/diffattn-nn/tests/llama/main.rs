//! Tests of DiffLlama, differential, plain, Motif's and of diff-mlx, one program.

mod accuracy;
mod bits;
mod caches;
mod common;
mod config;
mod diff_mlx;
mod empty;
mod errors;
mod families;
mod generate;
mod load;
mod motif;
mod plain;
mod reference;
mod sampling;
