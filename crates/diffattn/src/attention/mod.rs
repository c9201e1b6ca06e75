//! Differential attention: check, plan, run blocks. The public doors are in `diff_attention.rs`,
//! `maps.rs` and `partial.rs`; the numbers are made in `prefill/` and `decode/`.

mod adjust;
mod backward;
mod cache;
mod call;
mod check;
mod decode;
mod decode_plan;
mod diff_attention;
mod gradient_scratch;
mod gradients;
mod groups;
mod held;
mod inputs;
mod kept;
mod lambda;
mod lanes;
mod live;
mod maps;
mod mask;
mod options;
mod outputs;
mod packed;
mod packing;
mod pairing;
mod panels;
mod partial;
mod plan;
mod prefill;
mod scale;
mod schedule;
mod scratch;
mod scratch_size;
mod softmax;
mod span;
mod visible;
mod waves;

pub use backward::{
    AttentionGradients, AttentionGradientsMut, AttentionNeeds, DiffAttentionBackward,
    GradientOptions, GradientShapes, WholeRows, diff_attention_backward,
};
pub use cache::{CacheRows, KvCache, KvCacheOptions};
pub use diff_attention::{DiffAttention, diff_attention};
pub use held::CacheDType;
pub use inputs::{KeysOnly, KeysValues};
pub use lambda::{
    LambdaGradients, lambda_full, lambda_full_backward, lambda_init, lambda_scalars,
    lambda_scalars_backward,
};
pub use maps::DiffAttentionMaps;
pub use options::{
    AttentionOptions, BlockMask, HeadPlan, KvRepeat, Lambda, MapOutputs, Mask, NormOptions, Pairing,
};
pub use partial::{PartialAttention, PartialStatistics, RowStatistics};
