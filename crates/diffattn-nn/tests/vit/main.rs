//! Tests of the DIFF vision transformers, one program.

mod accuracy;
mod bits;
mod common;
mod errors;
mod image;
mod timing;
mod variants;
