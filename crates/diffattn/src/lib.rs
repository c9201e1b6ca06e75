//! Differential attention, its norms and its rotary embedding on the CPU.
//!
//! For one output head, `y = norm((softmax(q1 k1ᵀ) − λ softmax(q2 k2ᵀ)) v)`; in general
//! `Σ_t c_t softmax(q_t k_tᵀ) v` over T terms (arXiv 2410.05258, V1 and the V2 note of
//! microsoft/unilm; grouped heads after arXiv 2510.06949). One fused kernel, fed by a head plan,
//! serves all of them.
//!
//! Letters used throughout: B batch, H output heads, G key/value groups, Lq queries, Lk keys, d and
//! dv head widths, T terms.
//!
//! ```
//! use diffattn::{AttentionOptions, Lambda, Tensor, diff_attention};
//!
//! // B 1, H 1 (two flat heads), L 2, d 2, dv 2.
//! let q = [1.0, 0.0, 0.0, 1.0, 0.5, 0.5, 0.5, 0.5];
//! let v = [1.0, 2.0, 3.0, 4.0];
//! let y = diff_attention(
//!     Tensor::f32(&q, &[1, 2, 2, 2]),
//!     Tensor::f32(&q, &[1, 2, 2, 2]),
//!     Tensor::f32(&v, &[1, 1, 2, 2]),
//!     &AttentionOptions {
//!         lambda: Some(Lambda::Value(0.0)),
//!         is_causal: true,
//!         ..AttentionOptions::default()
//!     },
//! )?;
//! assert_eq!(&y[..2], &[1.0, 2.0]); // the first query sees only the first key
//! # Ok::<(), diffattn::Error>(())
//! ```
//!
//! This crate knows nothing of JavaScript, files or models.

mod activation;
mod attention;
mod blocks;
mod error;
mod linear;
mod norm;
mod recurrent;
mod run;
mod sequence;
mod simd;
mod tensor;

pub use activation::{gelu, gelu_tanh, sigmoid, silu_gate, softplus};
pub use attention::{
    AttentionOptions, BlockMask, CacheDType, CacheRows, DiffAttention, DiffAttentionMaps, HeadPlan,
    KeysOnly, KeysValues, KvCache, KvCacheOptions, KvRepeat, Lambda, MapOutputs, Mask, NormOptions,
    Pairing, PartialAttention, PartialStatistics, RowStatistics, diff_attention, lambda_full,
    lambda_init, lambda_scalars,
};
pub use error::{Error, ErrorKind, Reason};
pub use linear::{
    CodedRow, CodedRows, Codes, Linear, Quantisation, Quantised, Quantiser, coded_values,
};
pub use norm::{
    Activation, ChannelLayout, DynamicTanhOptions, GroupNorm, GroupNormOptions, LayerNormOptions,
    PolyNormOptions, RmsNorm, RmsNormOptions, dynamic_tanh, group_norm, layer_norm, poly_norm,
    rms_norm,
};
pub use recurrent::{CausalConvolution, ScanRows, SelectiveScan};
pub use run::Run;
pub use run::buffer::{try_copied, try_zeroed};
pub use run::threads::{available_threads, release_threads};
pub use run::work::{Pace, Work};
pub use sequence::{
    Positions, Rope, RopeFrequencies, RopeOptions, RopeScaling, RopeTable, RopeType,
    SequenceDifference, SequenceDifferenceOptions, apply_rope, sequence_difference,
};
pub use simd::{Isa, fma_flops};
pub use tensor::axis::Layout;
pub use tensor::call::Call;
pub use tensor::shape::{check_len, checked_len, format_shape};
pub use tensor::{DType, Data, DataMut, Elements, Tensor};
