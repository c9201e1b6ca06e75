//! Instruction sets: what a machine has ([`Isa`]), one vector over all of them ([`Vector`]), and
//! what is written on it once: the register tile and the elementary functions. The only room that
//! names `core::arch`.

mod dots;
mod element;
mod instructions;
mod isa;
pub(crate) mod lanes;
pub(crate) mod math;
mod peak;
mod rows_sink;
mod tile;
mod unfused;
mod vector;
mod wide;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
mod scalar;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod simd128;

#[cfg(test)]
mod tests;

pub(crate) use dots::{BLOCK, Dot, Dots};
pub(crate) use element::{Element, widen};
pub use isa::Isa;
pub(crate) use isa::Kernel;
pub use peak::fma_flops;
pub(crate) use rows_sink::RowsSink;
pub(crate) use tile::{ByLane, ByRow, PackedRows, Unscaled, columns, product_of, product_over};
pub(crate) use vector::{
    Depth, Gapped, Operands, STREAM_ALIGNMENT, Sink, Tile, Use, Vector, Whole, transpose,
};
pub(crate) use wide::Wide;
