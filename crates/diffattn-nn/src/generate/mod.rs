//! Texts continued token by token: caches, choice of tokens, batching. Knows no family of models:
//! it asks a [`TextModel`](crate::models::TextModel).

mod cache;
mod generator;
mod logprobs;
mod sampler;

pub(crate) use cache::chunk_of;
pub use cache::{ModelCache, ModelCacheOptions, ModelCacheState};
pub use generator::{Finish, Generation, GenerationStep, Generator, GeneratorOptions, Token};
pub use logprobs::Logprobs;
pub use sampler::{Sampler, SamplerOptions};
