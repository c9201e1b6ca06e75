//! How a DIFF Llama is made and called. Computes nothing itself.

use super::config::DiffLlamaConfig;
use super::load::DiffLlamaLoader;
use super::model::DiffLlama;
use crate::generate::{ModelCache, ModelCacheOptions, ModelCacheState};
use crate::models::{Logits, TextForward, TextModel, TextOptions, TextOutput, TokenIds};
use crate::parts::{WeightSource, read_part};
use crate::pass::alone::Maps;
use crate::weights::Weights;
use diffattn::Error;

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
    /// As [`DiffLlamaLoader::new`]; what the source says; [`Error::out_of_memory`].
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

    /// An empty cache for one text.
    ///
    /// # Errors
    /// [`ErrorKind::Option`](diffattn::ErrorKind::Option) for a window of nothing;
    /// [`ErrorKind::Shape`](diffattn::ErrorKind::Shape) or [`Error::out_of_memory`] for a capacity
    /// that is not to be had.
    pub fn cache(&self, options: &ModelCacheOptions) -> Result<ModelCache, Error> {
        ModelCache::new(&self.decoder(), options)
    }

    /// The cache that [`ModelCache::export`] copied out, from this model.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](diffattn::ErrorKind::Shape) or
    /// [`ErrorKind::Option`](diffattn::ErrorKind::Option) naming the part that does not fit;
    /// [`Error::out_of_memory`].
    pub fn import_cache(&self, state: &ModelCacheState) -> Result<ModelCache, Error> {
        ModelCache::import(&self.decoder(), state)
    }

    /// Checks a forward pass of `ids` `[B, L]` and prepares it. With `caches`, one per text,
    /// positions start at their lengths and the ids are added to them, once the job is done. A job
    /// that fails or is dropped before leaves them as they were; one whose window let go of tokens
    /// already, at the last stretch that it finished.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](diffattn::ErrorKind::Shape),
    /// [`ErrorKind::Dtype`](diffattn::ErrorKind::Dtype) or
    /// [`ErrorKind::Option`](diffattn::ErrorKind::Option), naming the argument.
    pub fn forward_job<'a>(
        &'a self,
        ids: TokenIds<'_>,
        caches: Option<Vec<&'a mut ModelCache>>,
        options: &TextOptions,
    ) -> Result<TextForward<'a>, Error> {
        TextForward::new(self.decoder(), &ids, caches, options)
    }

    /// What `options` asks for, as [`DiffLlama::forward_job`] in one call.
    ///
    /// # Errors
    /// As [`DiffLlama::forward_job`], and [`Error::out_of_memory`].
    pub fn forward(
        &self,
        ids: TokenIds<'_>,
        caches: Option<&mut [ModelCache]>,
        options: &TextOptions,
    ) -> Result<TextOutput, Error> {
        let caches = caches.map(|caches| caches.iter_mut().collect());
        let job = self.forward_job(ids, caches, options)?;
        let mut output = job.output()?;
        job.into_work(output.as_outputs())?.finish()?;
        Ok(output)
    }

    /// The attention maps of one layer for `ids` `[B, L]`: `[B, H, L, L]`, both terms and the
    /// difference. For several layers at once see [`TextOptions::map_layers`].
    ///
    /// # Errors
    /// As [`DiffLlama::forward`].
    pub fn maps(
        &self,
        ids: TokenIds<'_>,
        layer: usize,
        options: &TextOptions,
    ) -> Result<Maps, Error> {
        let options = TextOptions {
            logits: Logits::None,
            hidden_states: false,
            map_layers: vec![layer],
            ..options.clone()
        };
        let output = self.forward(ids, None, &options)?;
        let maps = output.maps.into_iter().next();
        maps.ok_or_else(|| Error::internal("no maps were made"))
    }
}
