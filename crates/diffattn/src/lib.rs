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
mod embedding;
mod error;
mod linear;
mod loss;
mod norm;
mod optimizer;
mod recurrent;
mod run;
mod sequence;
mod simd;
mod tensor;

pub use activation::{
    GeluBackward, SwigluBackward, SwigluGradients, gelu, gelu_backward, gelu_tanh,
    gelu_tanh_backward, sigmoid, silu_gate, softplus, swiglu_backward,
};
pub use attention::{
    AttentionGradients, AttentionGradientsMut, AttentionNeeds, AttentionOptions, BlockMask,
    CacheDType, CacheRows, DiffAttention, DiffAttentionBackward, DiffAttentionMaps,
    GradientOptions, GradientShapes, HeadPlan, KeysOnly, KeysValues, KvCache, KvCacheOptions,
    KvRepeat, Lambda, LambdaGradients, MapOutputs, Mask, NormOptions, Pairing, PartialAttention,
    PartialStatistics, RowStatistics, WholeRows, diff_attention, diff_attention_backward,
    lambda_full, lambda_full_backward, lambda_init, lambda_scalars, lambda_scalars_backward,
};
pub use embedding::{EmbeddingBackward, embedding_backward};
pub use error::{Error, ErrorKind, Reason};
pub use linear::{
    CodedRow, CodedRows, Codes, Linear, LinearBackward, LinearGradients, Quantisation, Quantised,
    Quantiser, coded_values, linear_backward,
};
pub use loss::{
    CrossEntropyGradients, CrossEntropyOptions, Distillation, HeadGradients, LinearCrossEntropy,
    Logits, Loss, cross_entropy, linear_cross_entropy,
};
pub use norm::{
    Activation, ChannelLayout, DynamicTanhOptions, GroupNorm, GroupNormBackward, GroupNormOptions,
    LayerNormBackward, LayerNormOptions, NormBackward, NormGradients, PolyNormBackward,
    PolyNormGradients, PolyNormOptions, RmsNorm, RmsNormBackward, RmsNormOptions, dynamic_tanh,
    group_norm, group_norm_backward, layer_norm, layer_norm_backward, poly_norm,
    poly_norm_backward, rms_norm, rms_norm_backward,
};
pub use optimizer::{
    AdamW, NORM_CHUNK, Parameters, clip_coefficient, gradient_norm, gradient_squares,
};
pub use recurrent::{CausalConvolution, ScanRows, SelectiveScan};
pub use run::Run;
pub use run::buffer::{try_copied, try_zeroed};
pub use run::threads::{available_threads, release_threads};
pub use run::work::{Pace, Work};
pub use sequence::{
    Positions, Rope, RopeBackward, RopeFrequencies, RopeOptions, RopeScaling, RopeTable, RopeType,
    SequenceDifference, SequenceDifferenceBackward, SequenceDifferenceOptions, apply_rope,
    apply_rope_backward, sequence_difference, sequence_difference_backward,
};
pub use simd::{Isa, fma_flops};
pub use tensor::axis::Layout;
pub use tensor::call::Call;
pub use tensor::shape::{check_len, checked_len, format_shape};
pub use tensor::{DType, Data, DataMut, Elements, Tensor};
