//! How a Phi-4-mini-flash takes its weights: its sizes, and what becomes of each part. Reads no
//! file; which weights there are, its lists say ([`diffattn_files::phi4flash`]).

use super::config::Phi4FlashConfig;
use super::layer::{FlashLayer, Making, NormWeights, norm};
use super::model::Phi4Flash;
use crate::config::file_error;
use crate::models::tables::{TextParts, listed};
use crate::models::{Builder, Loader, Model, ModelFiles, ModelLoader};
use crate::parts::{Part, PartWeights, Parts, WeightInfo, WeightSource};
use diffattn::{Error, Pace};
use diffattn_files::Entries;
use diffattn_files::decoder::{DecoderAttention, DecoderPart, Head};
use diffattn_files::phi4flash::{self, FlashSizes, X_PROJ};
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::Arc;

/// A [`Phi4Flash`] on its way: checked as a whole before it has a single element, then loaded part
/// by part, in any order.
///
/// Parts are the embeddings; the output projection, unless the config ties it to them; each layer;
/// the last norm. Weights have the public checkpoint's names, before which what wraps a model may
/// have put its own: `model.embed_tokens.weight`; for each layer N `model.layers.N.attn.` with
/// `in_proj`, `conv1d`, `x_proj`, `dt_proj`, `A_log`, `D` and `out_proj`, or with `Wqkv`,
/// `out_proj` and `inner_cross_attn.{lambda_q1, lambda_k1, lambda_q2, lambda_k2, subln.weight}`, or
/// with `in_proj` and `out_proj`; `.mlp.{fc1, fc2}`, `.input_layernorm` and
/// `.post_attention_layernorm`; `model.final_layernorm`. The rank of step sizes is what
/// `x_proj.weight` of layer 0 has.
pub type Phi4FlashLoader = Loader<Phi4FlashBuilder>;

impl Phi4FlashLoader {
    /// Checks the config, and a checkpoint's entries against it.
    ///
    /// # Errors
    /// [`ErrorKind::File`](diffattn::ErrorKind::File) naming the entry of the config, or the weight
    /// as `weights.NAME`: missing, of another shape, of elements that are not F64, F32, F16 or
    /// BF16, or one that a module of the model has no place for.
    pub fn new(config: &Phi4FlashConfig, entries: &[WeightInfo]) -> Result<Self, Error> {
        config.check()?;
        let mut entries = Entries::new(entries, true)?;
        let kind = DecoderAttention::default();
        let names = kind.names();
        let head = Head::of(kind, config.tie_word_embeddings, |name| entries.has(name));
        entries.tell(head.notice());
        let sizes = sizes(config, head, &entries)?;
        let layers = config.num_hidden_layers;
        let decoder = sizes.decoder();
        entries.part(&listed(|d| decoder.embeddings(d)).0)?;
        if head == Head::Stored {
            entries.part(&listed(|d| decoder.head(d)).0)?;
        }
        let stored = entries.names().filter_map(|name| names.layer_of(name));
        let stored: BTreeSet<usize> = stored.collect();
        if stored.len() > layers {
            entries.tell_layers(layers, stored.len());
        }
        // (As many as the entries bear out: the first that is missing ends it.)
        for index in 0..layers {
            entries.part(&listed(|d| sizes.layer(index, d)).0)?;
        }
        entries.part(&listed(|d| sizes.norm(d)).0)?;
        let is_within = |name: &str| phi4flash::is_within(name, layers);
        let parts = entries.finish(|name| names.is_buffer(name), is_within)?;
        let builder = Phi4FlashBuilder {
            parts: TextParts::new(layers),
            config: config.clone(),
            sizes,
        };
        Ok(Self::of(Parts::new(parts), builder))
    }
}

impl Phi4Flash {
    /// Takes the weights from `source`, one part after the other; see
    /// [`Phi4FlashLoader`].
    ///
    /// # Errors
    /// As [`Phi4FlashLoader::new`]; what the source says;
    /// [`Error::out_of_memory`].
    pub fn load<'a>(
        config: &Phi4FlashConfig,
        source: &mut dyn WeightSource<'a>,
    ) -> Result<Self, Error> {
        let mut loader = Phi4FlashLoader::new(config, &source.entries()?)?;
        <dyn ModelLoader>::load_all(&mut loader, source)?;
        loader.finish()
    }
}

/// A loader of a Phi-4-mini-flash.
pub(crate) fn open(files: &ModelFiles<'_>) -> Result<Box<dyn ModelLoader>, Error> {
    let mut config = Phi4FlashConfig::from_json(files.config)?;
    if let Some(generation) = files.generation_config {
        config = config.with_generation_config(generation)?;
    }
    Ok(Box::new(Phi4FlashLoader::new(&config, files.entries)?))
}

/// The sizes of a model's weights.
fn sizes(config: &Phi4FlashConfig, head: Head, entries: &Entries<'_>) -> Result<FlashSizes, Error> {
    let (name, shape) = X_PROJ;
    let [rows, _] = entries.shape::<2>(name, shape)?;
    let states = config.mamba_d_state;
    let rank = rows.checked_sub(2 * states).filter(|&rank| rank > 0);
    let rank = rank.ok_or_else(|| {
        let expected = format_args!("more than 2 · mamba_d_state = {} rows", 2 * states);
        file_error(format_args!("weights.{name}"), expected, rows)
    })?;
    Ok(FlashSizes {
        vocab_size: config.vocab_size,
        hidden_size: config.hidden_size,
        intermediate_size: config.intermediate_size,
        layers: config.num_hidden_layers,
        q: config.hidden_size,
        k: config.num_key_value_heads * config.head_dim(),
        head_dim: config.head_dim(),
        inner: config.mamba_expand * config.hidden_size,
        states,
        taps: config.mamba_d_conv,
        rank,
        mlp_bias: config.mlp_bias,
        head,
    })
}

/// What is there of a [`Phi4Flash`], part by part.
#[derive(Debug)]
pub struct Phi4FlashBuilder {
    config: Phi4FlashConfig,
    sizes: FlashSizes,
    parts: TextParts<FlashLayer, NormWeights>,
}

impl Phi4FlashBuilder {
    fn part(&self, index: usize) -> DecoderPart {
        self.sizes.decoder().part(index, self.parts.layers.len())
    }
}

impl Builder for Phi4FlashBuilder {
    type Config = Phi4FlashConfig;
    type Model = Phi4Flash;

    fn config(&self) -> &Phi4FlashConfig {
        &self.config
    }

    fn config_json(&self) -> Value {
        self.config.known()
    }

    /// A unit for every map of a layer, and one to put the part together.
    fn units(&self, part: usize) -> usize {
        match self.part(part) {
            DecoderPart::Layer(index) => {
                let (list, _) = listed(|d| self.sizes.layer(index, d));
                list.linears().count() + 1
            }
            DecoderPart::Embeddings | DecoderPart::Head | DecoderPart::Norm => 1,
        }
    }

    async fn build(
        &mut self,
        part: usize,
        weights: PartWeights<'_>,
        pace: &Pace,
    ) -> Result<(), Error> {
        let sizes = self.sizes;
        match self.part(part) {
            DecoderPart::Embeddings => {
                pace.granted().await;
                self.parts.embeddings(&sizes.decoder(), weights)?;
            }
            DecoderPart::Head => {
                pace.granted().await;
                self.parts.head(&sizes.decoder(), weights)?;
            }
            DecoderPart::Layer(index) => {
                let (list, ids) = listed(|d| sizes.layer(index, d));
                let making = Making {
                    config: &self.config,
                    sizes: &sizes,
                    index,
                    part: Part::new(list, weights),
                };
                let layer = making.layer(&ids, pace).await?;
                pace.granted().await;
                self.parts.layers[index] = Some(layer);
            }
            DecoderPart::Norm => {
                pace.granted().await;
                let (list, ids) = listed(|d| sizes.norm(d));
                self.parts.norm = Some(norm(&Part::new(list, weights), ids)?);
            }
        }
        Ok(())
    }

    fn complete(&mut self) -> Result<Phi4Flash, Error> {
        let whole = self.parts.complete()?;
        Ok(Phi4Flash {
            config: self.config.clone(),
            embedding: whole.embedding,
            layers: whole.layers,
            norm: whole.norm,
            head: whole.head,
        })
    }

    fn of_any_family(model: Arc<Phi4Flash>) -> Model {
        Model::Text(model)
    }
}
