//! The DIFF Llama of Hugging Face (`diffllama`): a decoder whose attention is [`crate::MultiheadDiffAttn`]. Holds the weights;
//! the numbers are made in `forward.rs`.

mod cache;
mod config;
mod embedding;
mod forward;
mod generate;
mod load;
mod plan;
mod sampler;

pub use cache::{ModelCache, ModelCacheOptions, ModelCacheState};
pub use config::{DiffLlamaConfig, HiddenAct};
pub use forward::{
    DiffLlamaForward, DiffLlamaOptions, DiffLlamaOutput, DiffLlamaOutputs, Logits, TokenIds,
};
pub use generate::{Finish, Generation, GenerationStep, Generator, GeneratorOptions, Token};
pub use load::DiffLlamaLoader;
pub use sampler::{Sampler, SamplerOptions};

use crate::layer::DiffAttnLayer;
use crate::maps::Maps;
use crate::parts::{WeightSource, read_part};
use crate::weights::Weights;
use diffattn::{Error, Linear, Slices};
use embedding::Embedding;

/// One decoder layer: attention and an MLP, each behind a norm and beside a residual connection.
#[derive(Debug, Clone)]
pub(crate) struct DecoderLayer {
    pub(crate) input_norm: Vec<f32>,
    pub(crate) attention: DiffAttnLayer,
    pub(crate) post_norm: Vec<f32>,
    pub(crate) gate: Linear,
    pub(crate) up: Linear,
    pub(crate) down: Linear,
}

/// A DIFF Llama with its weights: `x = x + attention(norm(x))`, `x = x + down(act(gate(y)) · up(y))` with `y = norm(x)` in
/// each layer (act is [`HiddenAct`]'s, SiLU by default), then a norm and the logits (Hugging Face `transformers`, `modeling_diffllama.py`). Attention is that of
/// [`crate::MultiheadDiffAttn`] with pairing halves, half-split rotary embedding, and a norm per head without weight.
///
/// A row's bits do not depend on batch, threads or how many tokens are computed at once.
#[derive(Debug, Clone)]
pub struct DiffLlama {
    pub(crate) config: DiffLlamaConfig,
    pub(crate) embedding: Embedding,
    pub(crate) layers: Vec<DecoderLayer>,
    pub(crate) norm: Vec<f32>,
    pub(crate) head: Linear,
}

impl DiffLlama {
    /// A model of weights in memory; see [`DiffLlama::load`].
    ///
    /// # Errors
    /// As [`DiffLlama::load`].
    pub fn new(config: &DiffLlamaConfig, weights: &Weights<'_>) -> Result<Self, Error> {
        Self::load(config, &mut { weights })
    }

    /// Takes the weights from `source`, one part after the other; see [`DiffLlamaLoader`].
    ///
    /// # Errors
    /// As [`DiffLlamaLoader::new`]; what the source says; [`Error::OutOfMemory`].
    pub fn load<'a>(
        config: &DiffLlamaConfig,
        source: &mut dyn WeightSource<'a>,
    ) -> Result<Self, Error> {
        let mut loader = DiffLlamaLoader::new(config, &source.entries()?)?;
        for part in 0..loader.parts().len() {
            let weights = read_part(&loader.parts()[part], source)?;
            loader.load_part(part, weights)?.finish()?;
        }
        loader.finish()
    }

    /// What it is made of.
    #[must_use]
    pub fn config(&self) -> &DiffLlamaConfig {
        &self.config
    }

    /// The attention of a layer.
    #[must_use]
    pub fn attention(&self, layer: usize) -> Option<&DiffAttnLayer> {
        self.layers.get(layer).map(|layer| &layer.attention)
    }

    /// An empty cache for one text.
    ///
    /// # Errors
    /// [`ErrorKind::Option`](diffattn::ErrorKind::Option) for a window of nothing; [`ErrorKind::Shape`](diffattn::ErrorKind::Shape) or [`Error::OutOfMemory`] for a capacity that is not to
    /// be had.
    pub fn cache(&self, options: &ModelCacheOptions) -> Result<ModelCache, Error> {
        ModelCache::new(self, options)
    }

    /// The cache that [`ModelCache::export`] copied out, from this model.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](diffattn::ErrorKind::Shape) or [`ErrorKind::Option`](diffattn::ErrorKind::Option) naming the part that does not fit; [`Error::OutOfMemory`].
    pub fn import_cache(&self, state: &ModelCacheState) -> Result<ModelCache, Error> {
        ModelCache::import(self, state)
    }

    /// Checks a forward pass of `ids` `[B, L]` and prepares it. With `caches`, one per text, positions start at their
    /// lengths and the ids are added to them, once the job is done. A job that fails or is dropped before leaves them as
    /// they were; one whose window let go of tokens already, at the last stretch that it finished.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](diffattn::ErrorKind::Shape), [`ErrorKind::Dtype`](diffattn::ErrorKind::Dtype) or [`ErrorKind::Option`](diffattn::ErrorKind::Option), naming the argument.
    pub fn forward_job<'a>(
        &'a self,
        ids: TokenIds<'_>,
        caches: Option<Vec<&'a mut ModelCache>>,
        options: &DiffLlamaOptions,
    ) -> Result<DiffLlamaForward<'a>, Error> {
        DiffLlamaForward::new(self, ids, caches, options)
    }

    /// What `options` asks for, as [`DiffLlama::forward_job`] in one call.
    ///
    /// # Errors
    /// As [`DiffLlama::forward_job`], and [`Error::OutOfMemory`].
    pub fn forward(
        &self,
        ids: TokenIds<'_>,
        caches: Option<&mut [ModelCache]>,
        options: &DiffLlamaOptions,
    ) -> Result<DiffLlamaOutput, Error> {
        let mut output;
        let caches = caches.map(|caches| caches.iter_mut().collect());
        let mut job = DiffLlamaForward::new(self, ids, caches, options)?;
        output = job.output()?;
        job.bind(output.as_outputs())?;
        job.finish()?;
        drop(job);
        Ok(output)
    }

    /// The attention maps of one layer for `ids` `[B, L]`: `[B, H, L, L]`, both terms and the difference. For several layers
    /// at once see [`DiffLlamaOptions::map_layers`].
    ///
    /// # Errors
    /// As [`DiffLlama::forward`].
    pub fn maps(
        &self,
        ids: TokenIds<'_>,
        layer: usize,
        options: &DiffLlamaOptions,
    ) -> Result<Maps, Error> {
        let options = DiffLlamaOptions {
            logits: Logits::None,
            hidden_states: false,
            map_layers: vec![layer],
            ..options.clone()
        };
        let output = self.forward(ids, None, &options)?;
        let maps = output.maps.into_iter().next();
        maps.ok_or_else(|| Error::Internal("no maps were made".to_owned()))
    }

    /// Checks that all ids are below `vocab_size`.
    pub(crate) fn check_ids(
        &self,
        argument: &str,
        ids: impl Iterator<Item = i64>,
    ) -> Result<(), Error> {
        let vocab = self.config.vocab_size;
        for (index, id) in ids.enumerate() {
            if !usize::try_from(id).is_ok_and(|id| id < vocab) {
                return Err(Error::option(
                    argument,
                    format_args!("ids from 0 to {}", vocab - 1),
                    format_args!("{id} at {index}"),
                ));
            }
        }
        Ok(())
    }
}
