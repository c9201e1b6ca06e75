//! Differential attention: check, plan, run blocks. The public doors are in `diff_attention.rs` and
//! `maps.rs`; the numbers are made in `row_block.rs` and `decode.rs`.

mod cache;
mod call;
mod check;
mod decode;
mod decode_plan;
mod diff_attention;
mod groups;
mod inputs;
mod lambda;
mod maps;
mod mask;
mod options;
mod outputs;
mod packed;
mod packing;
mod pairing;
mod panels;
mod plan;
mod row_block;
mod scale;
mod schedule;
mod scratch;
mod softmax;
mod visible;
mod waves;

pub use cache::{KvCache, KvCacheOptions};
pub use diff_attention::{DiffAttention, diff_attention};
pub use inputs::{KeysOnly, KeysValues};
pub use lambda::{lambda_full, lambda_init, lambda_scalars};
pub use maps::DiffAttentionMaps;
pub use options::{
    AttentionOptions, BlockMask, HeadPlan, KvRepeat, Lambda, MapOutputs, Mask, NormOptions, Pairing,
};
