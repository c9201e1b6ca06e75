//! How a DIFF Llama is made and called. Computes nothing itself.

use super::config::DiffLlamaConfig;
use super::load::DiffLlamaLoader;
use super::model::DiffLlama;
use crate::generate::{ModelCache, ModelCacheOptions, ModelCacheState};
use crate::models::{
    Logits, ModelLoader, TextForward, TextModel, TextOptions, TextOutput, TokenIds,
};
use crate::parts::WeightSource;
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
        <dyn ModelLoader>::load_all(&mut loader, source)?;
        loader.finish()
    }

    /// An empty cache for one text.
    ///
    /// # Errors
    /// As [`ModelCache::new`].
    pub fn cache(&self, options: &ModelCacheOptions) -> Result<ModelCache, Error> {
        ModelCache::new(&self.decoder(), options)
    }

    /// The cache that [`ModelCache::export`] copied out, from this model.
    ///
    /// # Errors
    /// As [`ModelCache::import`].
    pub fn import_cache(&self, state: &ModelCacheState) -> Result<ModelCache, Error> {
        ModelCache::import(&self.decoder(), state)
    }

    /// Checks a forward pass and prepares it; see [`TextForward::new`].
    ///
    /// # Errors
    /// As [`TextForward::new`].
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
