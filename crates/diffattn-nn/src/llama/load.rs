//! How a DIFF Llama takes its weights: which there must be, in which parts, and what becomes of them. Reads no file.

use super::embedding::Embedding;
use super::{DecoderLayer, DiffLlama, DiffLlamaConfig};
use crate::checkpoint::notices;
use crate::options::{MultiheadDiffAttnOptions, NormConfig, RopeConfig};
use crate::parts::{Build, Entries, Part, PartLoad, PartWeights, Parts, WeightData, WeightInfo};
use crate::v1::MultiheadDiffAttn;
use diffattn::{Error, Linear, Pairing};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const TABLE: &str = "model.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";
const NORM: &str = "model.norm.weight";

/// The projections of a layer's attention, then those of its MLP.
const ATTENTION: [&str; 4] = ["q_proj", "k_proj", "v_proj", "o_proj"];
const MLP: [&str; 3] = ["gate_proj", "up_proj", "down_proj"];
const LAMBDAS: [&str; 4] = ["lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2"];

/// What the model has besides its layers: a weight within that has no place would change the numbers.
const MODULES: [&str; 3] = ["model.embed_tokens.", "model.norm.", "lm_head."];

/// Where the output projection comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Head {
    /// It is a part of its own.
    Stored,
    /// It is the table of embeddings.
    Tied,
    /// The config ties it, and yet it is there beside the table: held once where they are equal, else as they are.
    Both,
    /// The config ties it, and it alone is there: it is the table, too.
    Alone,
}

impl Head {
    fn of(config: &DiffLlamaConfig, entries: &Entries<'_>) -> Self {
        match (entries.has(TABLE), entries.has(HEAD)) {
            _ if !config.tie_word_embeddings => Self::Stored,
            (_, false) => Self::Tied,
            (true, true) => Self::Both,
            (false, true) => Self::Alone,
        }
    }
}

/// A [`DiffLlama`] on its way: checked as a whole before it has a single element, then loaded part by part, in any order.
///
/// Parts are the embeddings; the output projection, unless the config ties it to them; each layer; the last norm. Weights have the
/// names of Hugging Face, before which what wraps a model may have put its own (`_orig_mod.`, `module.`,
/// `base_model.model.`), or all without `model.`, as base models have them: `model.embed_tokens.weight` `[vocab_size, hidden_size]`; for each layer N
/// `model.layers.N.self_attn.{q,k,v,o}_proj.weight` (and `.bias` with `attention_bias`),
/// `.self_attn.lambda_{q1,k1,q2,k2}` `[head_dim]`, `.mlp.{gate,up,down}_proj.weight`, `.input_layernorm.weight` and
/// `.post_attention_layernorm.weight`; `model.norm.weight`; `lm_head.weight` `[vocab_size, hidden_size]`.
///
/// Weights that are there win over what the config claims: with `tie_word_embeddings` a head of the file's own is the head
/// (it comes with the embeddings, and where both are the same they are held once), or the embeddings where these are
/// missing; biases are used without `attention_bias`, too. Elements of F64 are taken as F32. Weights outside of the
/// model's modules, and layers that the config does not count, stay unread. Of all that [`DiffLlamaLoader::notices`] tells; of
/// the frequencies that old files have (`…rotary_emb.inv_freq`) nobody.
#[derive(Debug)]
pub struct DiffLlamaLoader {
    parts: Parts,
    builder: Builder,
}

impl DiffLlamaLoader {
    /// Checks the config, and a checkpoint's entries against it.
    ///
    /// # Errors
    /// [`ErrorKind::File`](diffattn::ErrorKind::File) naming the entry of the config, or the weight as `weights.NAME`: missing, of another shape, of
    /// elements that are not F64, F32, F16 or BF16, or one that a module of the model has no place for.
    pub fn new(config: &DiffLlamaConfig, entries: &[WeightInfo]) -> Result<Self, Error> {
        config.check()?;
        let mut entries = Entries::new(entries, true)?;
        let table = [config.vocab_size, config.hidden_size];
        let head = Head::of(config, &entries);
        match head {
            Head::Stored => {
                entries.required(TABLE, &table)?;
                entries.end_part();
                entries.required(HEAD, &table)?;
            }
            Head::Tied => entries.required(TABLE, &table)?,
            Head::Both => {
                entries.tell(notices::own_head(HEAD));
                entries.required(TABLE, &table)?;
                entries.required(HEAD, &table)?;
            }
            Head::Alone => {
                entries.tell(notices::head_is_table(HEAD));
                entries.required(HEAD, &table)?;
            }
        }
        entries.end_part();
        let stored = layers(&entries);
        if stored > config.num_hidden_layers {
            entries.tell(notices::layers(config.num_hidden_layers, stored));
        }
        let mut has_biases = false;
        // (As many as the entries bear out: the first that is missing ends it.)
        for index in 0..config.num_hidden_layers {
            has_biases |= layer_entries(config, index, &mut entries)?;
            entries.end_part();
        }
        if has_biases && !config.attention_bias {
            entries.tell(notices::biases());
        }
        entries.required(NORM, &[config.hidden_size])?;
        entries.end_part();
        entries.end(
            |name| name.ends_with("rotary_emb.inv_freq"),
            |name| {
                let layer = layer_of(name).is_some_and(|layer| layer < config.num_hidden_layers);
                layer || MODULES.iter().any(|module| name.starts_with(module))
            },
        )?;
        Ok(Self {
            parts: entries.finish(),
            builder: Builder {
                layers: vec![None; config.num_hidden_layers],
                config: config.clone(),
                place_of_head: head,
                embedding: None,
                norm: None,
                head: None,
                packed: BTreeMap::new(),
                model: None,
            },
        })
    }

    /// What is odd about the checkpoint and loaded all the same, each a sentence.
    #[must_use]
    pub fn notices(&self) -> &[String] {
        self.parts.notices()
    }

    /// What it is made of.
    #[must_use]
    pub fn config(&self) -> &DiffLlamaConfig {
        &self.builder.config
    }

    /// The weights of each part.
    #[must_use]
    pub fn parts(&self) -> &[Vec<WeightInfo>] {
        self.parts.list()
    }

    /// Checks the weights of a part and prepares to pack them, a tensor per unit of work.
    ///
    /// # Errors
    /// [`ErrorKind::Option`](diffattn::ErrorKind::Option) naming `part`: none of that number, or one that is there already. [`ErrorKind::File`](diffattn::ErrorKind::File) naming the
    /// weight that is not as its entry says; [`ErrorKind::Shape`](diffattn::ErrorKind::Shape) when its elements do not fill its shape.
    pub fn load_part<'l, 'w>(
        &'l mut self,
        part: usize,
        weights: PartWeights<'w>,
    ) -> Result<PartLoad<'l, 'w>, Error> {
        PartLoad::new(&mut self.parts, &mut self.builder, part, weights)
    }

    /// The model, once all parts are there.
    ///
    /// # Errors
    /// [`ErrorKind::Option`](diffattn::ErrorKind::Option) naming `model` and the part that is missing.
    pub fn model(&self) -> Result<&Arc<DiffLlama>, Error> {
        self.parts.check_complete()?;
        let model = self.builder.model.as_ref();
        model.ok_or_else(|| Error::Internal("all parts make no model".to_owned()))
    }

    /// The same, out of its loader.
    ///
    /// # Errors
    /// As [`DiffLlamaLoader::model`].
    pub fn finish(mut self) -> Result<DiffLlama, Error> {
        self.model()?;
        let model = self.builder.model.take().and_then(Arc::into_inner);
        model.ok_or_else(|| Error::Internal("a model that others have, too".to_owned()))
    }
}

/// The layer that a weight is of, by its number as written: no sign, no zeros before it.
fn layer_of(name: &str) -> Option<usize> {
    let (index, _) = name.strip_prefix("model.layers.")?.split_once('.')?;
    let number = index.parse::<usize>().ok()?;
    (number.to_string() == index).then_some(number)
}

/// How many layers the entries have.
fn layers(entries: &Entries<'_>) -> usize {
    let layers: BTreeSet<usize> = entries.names().filter_map(layer_of).collect();
    layers.len()
}

/// Takes the entries of a layer; gives whether attention has biases.
fn layer_entries(
    config: &DiffLlamaConfig,
    index: usize,
    entries: &mut Entries<'_>,
) -> Result<bool, Error> {
    let &DiffLlamaConfig {
        hidden_size: hidden,
        intermediate_size: intermediate,
        num_attention_heads: heads,
        num_key_value_heads: groups,
        head_dim,
        ..
    } = config;
    let (wide, narrow) = (heads * head_dim, groups * head_dim);
    let attention = [
        [wide, hidden],
        [narrow, hidden],
        [narrow, hidden],
        [hidden, wide],
    ];
    let within = prefix(index);
    let mut has_biases = config.attention_bias;
    for (name, [outputs, inputs]) in ATTENTION.into_iter().zip(attention) {
        let name = format!("{within}self_attn.{name}");
        entries.required(&format!("{name}.weight"), &[outputs, inputs])?;
        let bias = format!("{name}.bias");
        if config.attention_bias {
            entries.required(&bias, &[outputs])?;
        } else {
            has_biases |= entries.optional(&bias, &[outputs])?;
        }
    }
    for name in LAMBDAS {
        entries.required(&format!("{within}self_attn.{name}"), &[head_dim])?;
    }
    let mlp = [
        [intermediate, hidden],
        [intermediate, hidden],
        [hidden, intermediate],
    ];
    for (name, shape) in MLP.into_iter().zip(mlp) {
        entries.required(&format!("{within}mlp.{name}.weight"), &shape)?;
    }
    for name in ["input_layernorm", "post_attention_layernorm"] {
        entries.required(&format!("{within}{name}.weight"), &[hidden])?;
    }
    Ok(has_biases)
}

fn prefix(layer: usize) -> String {
    format!("model.layers.{layer}.")
}

/// What is there of a model.
#[derive(Debug)]
struct Builder {
    config: DiffLlamaConfig,
    place_of_head: Head,
    embedding: Option<Embedding>,
    layers: Vec<Option<DecoderLayer>>,
    norm: Option<Vec<f32>>,
    head: Option<Linear>,
    /// Projections of the layer at work.
    packed: BTreeMap<&'static str, Linear>,
    model: Option<Arc<DiffLlama>>,
}

/// What a part is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Embedding,
    Head,
    Layer(usize),
    Norm,
}

impl Builder {
    fn kind(&self, part: usize) -> Kind {
        let before = match self.place_of_head {
            Head::Stored => 2,
            Head::Tied | Head::Both | Head::Alone => 1,
        };
        match part.checked_sub(before) {
            None if part == 0 => Kind::Embedding,
            None => Kind::Head,
            Some(layer) if layer < self.layers.len() => Kind::Layer(layer),
            Some(_) => Kind::Norm,
        }
    }

    /// The table, and the head where it comes with it.
    fn embeddings(&mut self, weights: &mut PartWeights<'_>) -> Result<(), Error> {
        let is_tied = match self.place_of_head {
            Head::Stored => false,
            Head::Tied | Head::Alone => true,
            Head::Both => match (weights.get(TABLE), weights.get(HEAD)) {
                (Some(table), Some(head)) => is_equal(&table.data, &head.data),
                _ => false,
            },
        };
        if is_tied {
            let name = match self.place_of_head {
                Head::Alone => HEAD,
                _ => TABLE,
            };
            let head = Linear::new(&Part(weights).required(name)?, None)?;
            self.embedding = Some(Embedding::of_head(&head));
            self.head = Some(head);
            return Ok(());
        }
        // Taken, so that one which was read for this purpose need not be copied.
        let table = weights.remove(TABLE);
        let missing = || Error::Internal("the embeddings are not in their part".to_owned());
        self.embedding = Some(Embedding::new(table.ok_or_else(missing)?)?);
        if self.place_of_head == Head::Both {
            self.head = Some(Linear::new(&Part(weights).required(HEAD)?, None)?);
        }
        Ok(())
    }

    fn layer(
        &mut self,
        index: usize,
        unit: usize,
        weights: &mut PartWeights<'_>,
    ) -> Result<(), Error> {
        let within = prefix(index);
        if let Some(name) = ATTENTION.get(unit) {
            let linear = Part(weights).linear(&format!("{within}self_attn.{name}"))?;
            self.packed.insert(name, linear);
        } else if let Some(name) = MLP.get(unit - ATTENTION.len()) {
            let full = format!("{within}mlp.{name}");
            self.packed.insert(name, Part(weights).linear(&full)?);
            weights.remove(&format!("{full}.weight"));
        } else {
            self.layers[index] = Some(self.assemble(index, &Part(weights))?);
        }
        Ok(())
    }

    /// A layer of the packed projections and the rest of its weights.
    fn assemble(&mut self, index: usize, part: &Part<'_, '_>) -> Result<DecoderLayer, Error> {
        let config = &self.config;
        let within = prefix(index);
        let mut packed = std::mem::take(&mut self.packed);
        let mut mlp = |name: &str| {
            let linear = packed.remove(name);
            linear.ok_or_else(|| Error::Internal(format!("{name} is not packed")))
        };
        let (gate, up, down) = (mlp("gate_proj")?, mlp("up_proj")?, mlp("down_proj")?);
        let attention = MultiheadDiffAttn::packed(
            &MultiheadDiffAttnOptions {
                num_kv_heads: Some(config.num_key_value_heads),
                head_dim: Some(config.head_dim),
                rope: Some(RopeConfig {
                    interleaved: false,
                    frequencies: config.rope,
                }),
                pairing: Pairing::Halves,
                norm: NormConfig {
                    eps: config.rms_norm_eps as f32,
                    affine: Some(false),
                },
                ..MultiheadDiffAttnOptions::new(config.hidden_size, index, config.num_heads())
            },
            &part.under(&format!("{within}self_attn.")),
            packed,
        )?
        .into();
        Ok(DecoderLayer {
            attention,
            gate,
            up,
            down,
            input_norm: part.vector(&format!("{within}input_layernorm.weight"))?,
            post_norm: part.vector(&format!("{within}post_attention_layernorm.weight"))?,
        })
    }
}

/// Whether two weights of one shape are the same bits.
fn is_equal(a: &WeightData<'_>, b: &WeightData<'_>) -> bool {
    match (a, b) {
        (WeightData::F32(a), WeightData::F32(b)) => {
            a.iter().zip(&**b).all(|(a, b)| a.to_bits() == b.to_bits())
        }
        (WeightData::F16(a), WeightData::F16(b)) | (WeightData::Bf16(a), WeightData::Bf16(b)) => {
            a == b
        }
        _ => false,
    }
}

impl Build for Builder {
    fn units(&self, part: usize) -> usize {
        match self.kind(part) {
            Kind::Embedding | Kind::Head | Kind::Norm => 1,
            Kind::Layer(_) => ATTENTION.len() + MLP.len() + 1,
        }
    }

    fn build(
        &mut self,
        part: usize,
        unit: usize,
        weights: &mut PartWeights<'_>,
    ) -> Result<(), Error> {
        match self.kind(part) {
            Kind::Embedding => self.embeddings(weights)?,
            Kind::Head => self.head = Some(Linear::new(&Part(weights).required(HEAD)?, None)?),
            Kind::Layer(index) => self.layer(index, unit, weights)?,
            Kind::Norm => self.norm = Some(Part(weights).vector(NORM)?),
        }
        Ok(())
    }

    fn forget(&mut self) {
        self.packed.clear();
    }

    fn complete(&mut self) -> Result<(), Error> {
        let layers = std::mem::take(&mut self.layers).into_iter().collect();
        let parts = (
            layers,
            self.embedding.take(),
            self.norm.take(),
            self.head.take(),
        );
        let (Some(layers), Some(embedding), Some(norm), Some(head)) = parts else {
            return Err(Error::Internal("a part left nothing behind".to_owned()));
        };
        self.model = Some(Arc::new(DiffLlama {
            config: self.config.clone(),
            embedding,
            layers,
            norm,
            head,
        }));
        Ok(())
    }
}
