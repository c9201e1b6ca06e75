//! Tests of DiffLlama, differential, plain and Motif's, one program.

mod accuracy;
mod bits;
mod caches;
mod common;
mod config;
mod empty;
mod errors;
mod families;
mod generate;
mod load;
mod motif;
mod plain;
mod reference;
mod sampling;
