//! Differential attention layers on top of the kernels: projections, rotary embedding, λ, per-head
//! norm, output projection and key/value cache in one call.
//!
//! - [`MultiheadDiffAttn`]: the first version (arXiv 2410.05258). By option it equals unilm's naive
//!   and flash modules, Hugging Face's diffllama attention and timm's.
//! - [`MultiheadDiffAttnV2`]: the second version (microsoft/unilm, Diff-Transformer, 2026-01): λ
//!   per token and head, k and v shared by both maps, no norm.
//!
//! With the feature `models` also whole models of such layers: `DiffLlama` (Hugging Face's
//! `diffllama`; `llama`, whose heads are one softmax each; `diffattn_llama`, a Llama some of whose
//! heads were made differential; Motif; and diff-mlx), with caches, sampling and generation.
//! `FAMILIES` are all that there are.
//!
//! Both are a [`DiffAttnLayer`], which runs them: at once ([`DiffAttnLayer::forward`]) or in slices
//! ([`DiffAttnLayer::forward_job`]). A row's bits do not depend on batch, threads or how many
//! tokens are computed at once: decoding token by token with a cache equals the prefill.
//!
//! ```
//! use diffattn::Tensor;
//! use diffattn_nn::{ForwardOptions, MultiheadDiffAttn, MultiheadDiffAttnOptions, Weights};
//!
//! // One head of width 1 over two channels: q and k read the first channel, v and the result both.
//! let pick = [1.0, 0.0, 1.0, 0.0];
//! let both = [1.0, 0.0, 0.0, 1.0];
//! let zero = [0.0];
//! let mut weights = Weights::new();
//! for name in ["q_proj.weight", "k_proj.weight"] {
//!     weights.insert(name.into(), Tensor::f32(&pick, &[2, 2]));
//! }
//! for name in ["v_proj.weight", "out_proj.weight"] {
//!     weights.insert(name.into(), Tensor::f32(&both, &[2, 2]));
//! }
//! for name in ["lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2"] {
//!     weights.insert(name.into(), Tensor::f32(&zero, &[1]));
//! }
//! let layer = MultiheadDiffAttn::new(&MultiheadDiffAttnOptions::new(2, 0, 1), &weights)?;
//! let x = [3.0, 4.0, 1.0, 0.0];
//! let y = layer.forward(Tensor::f32(&x, &[1, 2, 2]), None, &ForwardOptions::default())?;
//! // λ_init is 0.2: the first token sees itself alone, so its direction is v's, normalised and
//! // times 0.8.
//! assert!((y[0] - 0.8 * 3.0 / 12.5f32.sqrt()).abs() < 1e-5);
//! # Ok::<(), diffattn::Error>(())
//! ```
//!
//! With the feature `models`, the module `checkpoint` reads, writes, inspects and converts
//! checkpoint files; nothing else here knows of files, and nothing at all of JavaScript.

#[cfg(feature = "models")]
pub mod checkpoint;
#[cfg(feature = "models")]
mod config;
#[cfg(feature = "models")]
mod generate;
#[cfg(feature = "models")]
mod image;
mod layers;
#[cfg(feature = "models")]
mod models;
#[cfg(feature = "models")]
mod parts;
mod pass;
#[cfg(feature = "training")]
pub mod training;
mod weights;

#[cfg(feature = "models")]
pub use diffattn_files::decoder::{ConversionKind, DecoderAttention};
#[cfg(feature = "models")]
pub use generate::{
    Finish, Generation, GenerationStep, Generator, GeneratorOptions, Logprobs, ModelCache,
    ModelCacheOptions, ModelCacheState, Sampler, SamplerOptions, Token,
};
#[cfg(feature = "models")]
pub use image::{ClassScore, Image, Interpolation, Preprocessing, top_classes};
pub use layers::attention::{
    DiffAttnLayer, ForwardOptions, LambdaForm, MultiheadDiffAttn, MultiheadDiffAttnOptions,
    MultiheadDiffAttnV2, MultiheadDiffAttnV2Options, NormConfig, RopeConfig, SequenceFusion,
};
#[cfg(feature = "models")]
pub use layers::attention::{FiveWayDiffAttn, FiveWayDiffAttnOptions};
#[cfg(feature = "models")]
pub use models::diff_llama::{
    DiffLlama, DiffLlamaBuilder, DiffLlamaConfig, DiffLlamaLoader, DifferentialHeads, HiddenAct,
    LlamaConversion, NoiseOrder,
};
#[cfg(feature = "models")]
pub use models::diff_vit::{
    DiffViT, DiffViTArchitecture, DiffViTBuilder, DiffViTConfig, DiffViTForward, DiffViTLoader,
    DiffViTMaps, DiffViTOptions,
};
#[cfg(feature = "models")]
pub use models::phi4flash::{
    FlashWindows, Phi4Flash, Phi4FlashBuilder, Phi4FlashConfig, Phi4FlashLoader,
};
#[cfg(feature = "models")]
pub use models::same_s::{
    SameS, SameSBuilder, SameSConfig, SameSDecoding, SameSEncoding, SameSLoader, SameSOptions,
};
#[cfg(feature = "models")]
pub use models::{
    Builder, Decoder, EmbedOptions, FAMILIES, Family, Loader, Logits, LogitsDistance, Model,
    ModelFiles, ModelLoader, Pooling, RecodePlan, Recoded, RecodedAs, Task, TextEmbed, TextForward,
    TextModel, TextOptions, TextOutput, TextOutputs, TokenIds, compare_logits, map_entropy,
};
#[cfg(feature = "models")]
pub use models::{
    TextForward as DiffLlamaForward, TextOptions as DiffLlamaOptions,
    TextOutput as DiffLlamaOutput, TextOutputs as DiffLlamaOutputs,
};
#[cfg(feature = "models")]
pub use parts::{
    PartWeights, Recoding, Weight, WeightData, WeightFormat, WeightFormats, WeightInfo,
    WeightSource,
};
pub use pass::alone::{Forward, LayerMaps, Maps};
#[cfg(feature = "models")]
pub use pass::{LayerState, PartData, StatePart};
pub use weights::Weights;
