//! Texts continued token by token: caches, choice of tokens, batching. Knows no family of models:
//! it asks a [`TextModel`](crate::models::TextModel).

mod cache;
mod generator;
mod logprobs;
mod prefixes;
mod sampler;
mod text;

pub(crate) use cache::chunk_of;
pub use cache::{ModelCache, ModelCacheOptions, ModelCacheState};
pub use generator::{GenerationStep, Generator, GeneratorOptions};
pub use logprobs::Logprobs;
pub use sampler::{Sampler, SamplerOptions};
pub use text::{Finish, Generation, Token};
