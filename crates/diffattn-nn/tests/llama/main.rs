//! Tests of language models: DiffLlama, differential, plain and converted, and Phi-4-mini-flash,
//! one program.

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
mod phi4flash;
mod plain;
mod quantised;
mod reference;
mod sampling;
