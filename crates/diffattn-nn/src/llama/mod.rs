//! The DIFF Llama of Hugging Face (`diffllama`): a decoder whose attention is [`MultiheadDiffAttn`]. Holds the weights;
//! the numbers are made in `forward.rs`.

mod cache;
mod config;
mod embedding;
mod forward;
mod generate;
mod plan;
mod sampler;
mod weights;

pub use cache::{ModelCache, ModelCacheOptions, ModelCacheState};
pub use config::DiffLlamaConfig;
pub use forward::{
    DiffLlamaForward, DiffLlamaOptions, DiffLlamaOutput, DiffLlamaOutputs, Logits, TokenIds,
};
pub use generate::{Finish, Generation, GenerationStep, Generator, GeneratorOptions, Token};
pub use sampler::{Sampler, SamplerOptions};
pub use weights::{Weight, WeightData, WeightSource};

use crate::layer::DiffAttnLayer;
use crate::maps::Maps;
use crate::options::{MultiheadDiffAttnOptions, NormConfig, RopeConfig};
use crate::v1::MultiheadDiffAttn;
use crate::weights::Weights;
use config::file_error;
use diffattn::{Error, Linear, Pairing, Slices};
use embedding::Embedding;
use std::collections::BTreeSet;
use weights::required;

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

/// A DIFF Llama with its weights: `x = x + attention(norm(x))`, `x = x + down(silu(gate(y)) · up(y))` with `y = norm(x)` in
/// each layer, then a norm and the logits (Hugging Face `transformers`, `modeling_diffllama.py`). Attention is that of
/// [`MultiheadDiffAttn`] with pairing halves, half-split rotary embedding, and a norm per head without weight.
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

    /// Takes the weights from `source`, one layer after the other, and packs them; they are not needed afterwards.
    ///
    /// Weights have the names of Hugging Face: `model.embed_tokens.weight` `[vocab_size, hidden_size]`; for each layer N
    /// `model.layers.N.self_attn.{q,k,v,o}_proj.weight` (and `.bias` with `attention_bias`),
    /// `.self_attn.lambda_{q1,k1,q2,k2}` `[head_dim]`, `.mlp.{gate,up,down}_proj.weight`, `.input_layernorm.weight` and
    /// `.post_attention_layernorm.weight`; `model.norm.weight`; `lm_head.weight` `[vocab_size, hidden_size]`, which
    /// is not read with `tie_word_embeddings`. Nor are the frequencies that old files have (`…rotary_emb.inv_freq`).
    ///
    /// # Errors
    /// [`Error::File`] naming the entry of the config, or the weight as `weights.NAME`: missing, unknown, of another
    /// shape; what the source says; [`Error::OutOfMemory`].
    pub fn load<'a>(
        config: &DiffLlamaConfig,
        source: &mut dyn WeightSource<'a>,
    ) -> Result<Self, Error> {
        config.check()?;
        let config = config.clone();
        check_names(&config, source.names()?)?;
        let (vocab, hidden) = (config.vocab_size, config.hidden_size);
        let table = required(source, "model.embed_tokens.weight", &[vocab, hidden])?;
        let (head, embedding) = if config.tie_word_embeddings {
            let head = Linear::new(&table.tensor(), None)?;
            drop(table);
            let embedding = Embedding::of_head(&head);
            (head, embedding)
        } else {
            let weight = required(source, "lm_head.weight", &[vocab, hidden])?;
            (Linear::new(&weight.tensor(), None)?, Embedding::new(table)?)
        };
        let mut layers = Vec::new();
        for index in 0..config.num_hidden_layers {
            layers.push(DecoderLayer::load(&config, index, source)?);
        }
        let norm = vector(source, "model.norm.weight", hidden)?;
        Ok(Self {
            config,
            embedding,
            layers,
            norm,
            head,
        })
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
    /// [`Error::Option`] for a window of nothing; [`Error::Shape`] or [`Error::OutOfMemory`] for a capacity that is not to
    /// be had.
    pub fn cache(&self, options: &ModelCacheOptions) -> Result<ModelCache, Error> {
        ModelCache::new(self, options)
    }

    /// The cache that [`ModelCache::export`] copied out, from this model.
    ///
    /// # Errors
    /// [`Error::Shape`] or [`Error::Option`] naming the part that does not fit; [`Error::OutOfMemory`].
    pub fn import_cache(&self, state: &ModelCacheState) -> Result<ModelCache, Error> {
        ModelCache::import(self, state)
    }

    /// Checks a forward pass of `ids` `[B, L]` and prepares it. With `caches`, one per text, positions start at their
    /// lengths and the ids are added to them, once the job is done. A job that fails or is dropped before leaves them as
    /// they were; one whose window let go of tokens already, at the last stretch that it finished.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::Dtype`] or [`Error::Option`], naming the argument.
    pub fn forward_job<'a>(
        &'a self,
        ids: TokenIds<'_>,
        caches: Option<&'a mut [ModelCache]>,
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

/// The linear maps of a layer, and what their names begin with.
const PROJECTIONS: [&str; 4] = ["q_proj", "k_proj", "v_proj", "o_proj"];
const LAMBDAS: [&str; 4] = ["lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2"];

/// Whether every weight is one that the model has.
fn check_names(config: &DiffLlamaConfig, names: Vec<String>) -> Result<(), Error> {
    let mut within: BTreeSet<String> = ["gate", "up", "down"]
        .iter()
        .map(|name| format!("mlp.{name}_proj.weight"))
        .chain(LAMBDAS.iter().map(|name| format!("self_attn.{name}")))
        .collect();
    for name in PROJECTIONS {
        within.insert(format!("self_attn.{name}.weight"));
        if config.attention_bias {
            within.insert(format!("self_attn.{name}.bias"));
        }
    }
    for name in ["input_layernorm.weight", "post_attention_layernorm.weight"] {
        within.insert(name.to_owned());
    }
    let whole = [
        "model.embed_tokens.weight",
        "model.norm.weight",
        "lm_head.weight",
    ];
    let known = |name: &str| {
        if whole.contains(&name) || name.ends_with("rotary_emb.inv_freq") {
            return true;
        }
        let layer = name
            .strip_prefix("model.layers.")
            .and_then(|name| name.split_once('.'));
        layer.is_some_and(|(index, name)| {
            // (As written: no sign, no zeros before it.)
            let number = index.parse::<usize>().ok();
            let number = number.filter(|number| number.to_string() == index);
            number.is_some_and(|index| index < config.num_hidden_layers) && within.contains(name)
        })
    };
    match names.into_iter().find(|name| !known(name)) {
        None => Ok(()),
        Some(unknown) => Err(file_error(
            format_args!("weights.{unknown}"),
            format_args!(
                "only the weights of {} layers{}",
                config.num_hidden_layers,
                if config.attention_bias {
                    ""
                } else {
                    " without attention_bias"
                }
            ),
            "one that the model has no use for",
        )),
    }
}

fn vector<'a>(
    source: &mut dyn WeightSource<'a>,
    name: &str,
    len: usize,
) -> Result<Vec<f32>, Error> {
    required(source, name, &[len])?.tensor().data.to_f32()
}

impl DecoderLayer {
    fn load<'a>(
        config: &DiffLlamaConfig,
        index: usize,
        source: &mut dyn WeightSource<'a>,
    ) -> Result<Self, Error> {
        let &DiffLlamaConfig {
            hidden_size: hidden,
            intermediate_size: intermediate,
            num_attention_heads: heads,
            num_key_value_heads: groups,
            head_dim,
            ..
        } = config;
        let prefix = format!("model.layers.{index}");
        // What attention takes, under the names it has there. All shapes are checked before anything is made of them.
        let mut read = Vec::new();
        let (wide, narrow) = (heads * head_dim, groups * head_dim);
        for (name, outputs, inputs) in [
            ("q_proj", wide, hidden),
            ("k_proj", narrow, hidden),
            ("v_proj", narrow, hidden),
            ("o_proj", hidden, wide),
        ] {
            let mut take = |part: &str, shape: &[usize]| -> Result<(), Error> {
                let full = format!("{prefix}.self_attn.{name}.{part}");
                read.push((format!("{name}.{part}"), required(source, &full, shape)?));
                Ok(())
            };
            take("weight", &[outputs, inputs])?;
            if config.attention_bias {
                take("bias", &[outputs])?;
            }
        }
        for name in LAMBDAS {
            let full = format!("{prefix}.self_attn.{name}");
            read.push((name.to_owned(), required(source, &full, &[head_dim])?));
        }
        let weights: Weights<'_> = read
            .iter()
            .map(|(name, weight)| (name.clone(), weight.tensor()))
            .collect();
        let attention = MultiheadDiffAttn::new(
            &MultiheadDiffAttnOptions {
                num_kv_heads: Some(groups),
                head_dim: Some(head_dim),
                rope: Some(RopeConfig {
                    interleaved: false,
                    frequencies: config.rope,
                }),
                pairing: Pairing::Halves,
                norm: NormConfig {
                    eps: config.rms_norm_eps as f32,
                    affine: Some(false),
                },
                ..MultiheadDiffAttnOptions::new(hidden, index, config.num_heads())
            },
            &weights,
        )?
        .into();
        drop(weights);
        drop(read);
        let mut linear = |name: &str, outputs: usize, inputs: usize| {
            let name = format!("{prefix}.mlp.{name}_proj.weight");
            let weight = required(source, &name, &[outputs, inputs])?;
            Linear::new(&weight.tensor(), None)
        };
        Ok(Self {
            attention,
            gate: linear("gate", intermediate, hidden)?,
            up: linear("up", intermediate, hidden)?,
            down: linear("down", hidden, intermediate)?,
            input_norm: vector(source, &format!("{prefix}.input_layernorm.weight"), hidden)?,
            post_norm: vector(
                source,
                &format!("{prefix}.post_attention_layernorm.weight"),
                hidden,
            )?,
        })
    }
}
