//! How a DIFF Llama takes its weights: its sizes, and what becomes of each part. Reads no file;
//! which weights there are, its lists say ([`diffattn_files::decoder`]).

use super::attention;
use super::{DecoderLayer, DiffLlama, DiffLlamaConfig, HiddenAct};
use crate::config::file_error;
use crate::layers::Activation;
use crate::models::tables::{TextParts, listed};
use crate::models::{Builder, Loader, Model, ModelFiles, ModelLoader};
use crate::parts::{Part, PartWeights, Parts, WeightInfo};
use diffattn::{Error, Pace};
use diffattn_files::decoder::{self, DecoderAttention, DecoderPart, DecoderSizes, Head};
use diffattn_files::{AttentionSizes, Entries, Id};
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::Arc;

/// A [`DiffLlama`] on its way: checked as a whole before it has a single element, then loaded part
/// by part, in any order.
///
/// Parts are the embeddings; the output projection, unless the config ties it to them; each layer;
/// the last norm. Weights have the names of Hugging Face, before which what wraps a model may have
/// put its own (`_orig_mod.`, `module.`, `base_model.model.`), or all without `model.`, as base
/// models have them: `model.embed_tokens.weight` `[vocab_size, hidden_size]`; for each layer N
/// `model.layers.N.self_attn.{q,k,v,o}_proj.weight` (and `.bias` with `attention_bias`),
/// `.self_attn.lambda_{q1,k1,q2,k2}` `[head_dim]` (of a converted Llama whichever weights make its
/// heads differential), `.mlp.{gate,up,down}_proj.weight`, `.input_layernorm.weight` and
/// `.post_attention_layernorm.weight`; `model.norm.weight`; `lm_head.weight` `[vocab_size,
/// hidden_size]`. Those of Motif have `.self_attn.subln.weight` `[2 · head_dim]`,
/// `.mlp.act_fn.weight` `[3]` and `.mlp.act_fn.bias` `[1]` besides; those of diff-mlx its own names
/// (`model.blocks.N.attn.q_proj.weight`).
///
/// Weights that are there win over what the config claims: with `tie_word_embeddings` a head of the
/// file's own is the head (it comes with the embeddings, and where both are the same they are held
/// once), or the embeddings where these are missing; biases are used without `attention_bias`, too.
/// Elements of F64 are taken as F32. Weights outside of the model's modules, and layers that the
/// config does not count, stay unread. Of all that [`ModelLoader::notices`] tells; of the
/// frequencies that old files have (`…rotary_emb.inv_freq`) nobody.
pub type DiffLlamaLoader = Loader<DiffLlamaBuilder>;

impl DiffLlamaLoader {
    /// Checks the config, and a checkpoint's entries against it.
    ///
    /// # Errors
    /// [`ErrorKind::File`](diffattn::ErrorKind::File) naming the entry of the config, or the weight
    /// as `weights.NAME`: missing, of another shape, of elements that are not F64, F32, F16 or
    /// BF16, or one that a module of the model has no place for.
    pub fn new(config: &DiffLlamaConfig, entries: &[WeightInfo]) -> Result<Self, Error> {
        config.check()?;
        let mut entries = Entries::new(entries, true)?;
        if config.kind == DecoderAttention::Plain
            && let Some(name) = entries.names().find(|name| decoder::is_lambda(name))
        {
            return Err(file_error(
                "config.model_type",
                format_args!("\"diffllama\", as the weights have λ ({name})"),
                "\"llama\"",
            ));
        }
        let names = config.kind.names();
        let has = |name: &str| entries.has(name);
        let head = Head::of(config.kind, config.tie_word_embeddings, has);
        entries.tell(head.notice());
        let sizes = sizes(config, head);
        let layers = config.num_hidden_layers;
        entries.part(&listed(|d| sizes.embeddings(d)).0)?;
        if head == Head::Stored {
            entries.part(&listed(|d| sizes.head(d)).0)?;
        }
        let stored: BTreeSet<usize> = entries
            .names()
            .filter_map(|name| names.layer_of(name))
            .collect();
        if stored.len() > layers {
            entries.tell_layers(layers, stored.len());
        }
        let mut has_biases = false;
        // (As many as the entries bear out: the first that is missing ends it.)
        for index in 0..layers {
            let sizes = sizes.with_differential(config.differential_heads(index));
            let (list, ids) = listed(|d| sizes.layer(index, d));
            entries.part(&list)?;
            has_biases |= entries.has_bias(&list, ids.projections.into_array());
        }
        if has_biases && !config.attention_bias {
            entries.tell([config.kind.biases()]);
        }
        entries.part(&listed(|d| sizes.norm(d)).0)?;
        let is_within = |name: &str| names.is_within(name, layers);
        let parts = entries.finish(|name| names.is_buffer(name), is_within)?;
        let builder = DiffLlamaBuilder {
            parts: TextParts::new(layers),
            config: config.clone(),
            sizes,
        };
        Ok(Self::of(Parts::new(parts), builder))
    }
}

/// A loader of a DIFF Llama.
pub(crate) fn open(files: &ModelFiles<'_>) -> Result<Box<dyn ModelLoader>, Error> {
    of_config(DiffLlamaConfig::from_json(files.config)?, files)
}

/// A loader of a Llama that was converted to differential attention.
pub(crate) fn open_converted(files: &ModelFiles<'_>) -> Result<Box<dyn ModelLoader>, Error> {
    of_config(
        DiffLlamaConfig::from_diffattn_llama_json(files.config)?,
        files,
    )
}

/// A loader of a plain Llama.
pub(crate) fn open_llama(files: &ModelFiles<'_>) -> Result<Box<dyn ModelLoader>, Error> {
    of_config(DiffLlamaConfig::from_llama_json(files.config)?, files)
}

/// A loader of a model of this config, which `generation_config.json` completes.
pub(crate) fn of_config(
    mut config: DiffLlamaConfig,
    files: &ModelFiles<'_>,
) -> Result<Box<dyn ModelLoader>, Error> {
    if let Some(generation) = files.generation_config {
        config = config.with_generation_config(generation)?;
    }
    Ok(Box::new(DiffLlamaLoader::new(&config, files.entries)?))
}

/// The sizes of the weights of a model that is there, whose head is its table or is stored.
#[cfg(feature = "training")]
pub(crate) fn decoder_sizes(config: &DiffLlamaConfig, is_tied: bool) -> DecoderSizes {
    sizes(config, if is_tied { Head::Tied } else { Head::Stored })
}

/// The sizes of a model's weights.
fn sizes(config: &DiffLlamaConfig, head: Head) -> DecoderSizes {
    let &DiffLlamaConfig {
        hidden_size,
        head_dim,
        ..
    } = config;
    let wide = config.num_attention_heads.saturating_mul(head_dim);
    let narrow = config.num_key_value_heads.saturating_mul(head_dim);
    let head_width = match config.kind {
        DecoderAttention::Plain | DecoderAttention::Converted(_) => head_dim,
        DecoderAttention::Differential
        | DecoderAttention::Grouped
        | DecoderAttention::Interleaved => head_dim.saturating_mul(2),
    };
    DecoderSizes {
        vocab_size: config.vocab_size,
        hidden_size,
        intermediate_size: config.intermediate_size,
        kind: config.kind,
        attention: AttentionSizes {
            embed_dim: hidden_size,
            q: wide,
            k: narrow,
            v: narrow,
            out: config.num_heads().saturating_mul(head_width),
            head_dim,
            head_width,
            ..AttentionSizes::default()
        },
        attention_bias: config.attention_bias,
        mlp_bias: config.mlp_bias,
        poly_norm: config.hidden_act == HiddenAct::PolyNorm,
        head,
    }
}

/// What is there of a [`DiffLlama`], part by part.
#[derive(Debug)]
pub struct DiffLlamaBuilder {
    config: DiffLlamaConfig,
    sizes: DecoderSizes,
    parts: TextParts<DecoderLayer, Vec<f32>>,
}

impl Builder for DiffLlamaBuilder {
    type Config = DiffLlamaConfig;
    type Model = DiffLlama;

    fn config(&self) -> &DiffLlamaConfig {
        &self.config
    }

    fn config_json(&self) -> Value {
        self.config.known()
    }

    /// A unit for every map of a layer, and one to put the part together.
    fn units(&self, part: usize) -> usize {
        match self.part(part) {
            DecoderPart::Layer(index) => {
                let sizes = self.layer_sizes(index);
                let (list, _) = listed(|d| sizes.layer(index, d));
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
                self.parts.embeddings(&sizes, weights)?;
            }
            DecoderPart::Head => {
                pace.granted().await;
                self.parts.head(&sizes, weights)?;
            }
            DecoderPart::Layer(index) => {
                let sizes = self.layer_sizes(index);
                let (list, ids) = listed(|d| sizes.layer(index, d));
                let mut part = Part::new(list, weights);
                part.pack(pace).await?;
                pace.granted().await;
                let attention = attention::of_part(&self.config, (index, &ids), &mut part)?;
                self.parts.layers[index] = Some(DecoderLayer {
                    attention,
                    gate: part.linear(ids.gate)?,
                    up: part.linear(ids.up)?,
                    down: part.linear(ids.down)?,
                    act: self.act(&part, ids.poly_norm)?,
                    input_norm: part.vector(ids.input_norm)?,
                    post_norm: part.vector(ids.post_norm)?,
                });
            }
            DecoderPart::Norm => {
                pace.granted().await;
                let (list, id) = listed(|d| sizes.norm(d));
                self.parts.norm = Some(Part::new(list, weights).vector(id)?);
            }
        }
        Ok(())
    }

    fn complete(&mut self) -> Result<DiffLlama, Error> {
        let whole = self.parts.complete()?;
        Ok(DiffLlama {
            config: self.config.clone(),
            embedding: whole.embedding,
            layers: whole.layers,
            norm: whole.norm,
            head: whole.head,
        })
    }

    fn of_any_family(model: Arc<DiffLlama>) -> Model {
        Model::Text(model)
    }
}

impl DiffLlamaBuilder {
    fn part(&self, index: usize) -> DecoderPart {
        self.sizes.part(index, self.parts.layers.len())
    }

    /// The sizes of a layer.
    fn layer_sizes(&self, index: usize) -> DecoderSizes {
        let differential = self.config.differential_heads(index);
        self.sizes.with_differential(differential)
    }

    /// What stands in the MLP of a layer, with PolyNorm's weights.
    fn act(&self, part: &Part<'_>, poly_norm: Option<[Id; 2]>) -> Result<Activation, Error> {
        let none = || Error::internal("PolyNorm without its weights");
        Ok(match self.config.hidden_act {
            HiddenAct::Silu => Activation::Silu,
            HiddenAct::Gelu => Activation::Gelu,
            HiddenAct::GeluTanh => Activation::GeluTanh,
            HiddenAct::PolyNorm => {
                let [weight, bias] = poly_norm.ok_or_else(none)?;
                let (weight, bias) = (part.vector(weight)?, part.vector(bias)?);
                let weight = weight.as_slice().try_into().map_err(|_| none())?;
                let bias = bias.first().copied().ok_or_else(none)?;
                Activation::PolyNorm { weight, bias }
            }
        })
    }
}
