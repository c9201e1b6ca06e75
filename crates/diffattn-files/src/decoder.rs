//! The weights of a decoder of Llama's kind, differential or plain: embeddings, layers of attention
//! and a gated MLP, a norm, a head. Written once, for loading and inspecting. Runs nothing.

use crate::attention::{AttentionSizes, LAMBDA, LambdaForm, LambdaIds, O, Projections, VECTORS};
use crate::declare::{Declare, Id, Need, Precision};
use std::fmt;

/// The table of embeddings.
pub(crate) const TABLE: &str = "model.embed_tokens.weight";
/// The output projection.
pub(crate) const HEAD: &str = "lm_head";
pub(crate) const HEAD_WEIGHT: &str = "lm_head.weight";
const NORM: &str = "model.norm.weight";
const LAYERS: &str = "model.layers.";
/// The module of what DEX adds to attention.
pub(crate) const DEX: &str = "dex.";

/// What the model has besides its layers: a weight within that has no place would change the
/// numbers.
const MODULES: [&str; 3] = ["model.embed_tokens.", "model.norm.", "lm_head."];

/// What is said where the configuration has no biases, and yet there are.
pub const BIASES: &str =
    "config.json says attention_bias false, yet there are biases: they are used";

/// Where the output projection comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Head {
    /// It is a part of its own.
    #[default]
    Stored,
    /// It is the table of embeddings.
    Tied,
    /// The config ties it, and yet it is there beside the table: held once where they are equal,
    /// else as they are.
    Both,
    /// The config ties it, and it alone is there: it is the table, too.
    Alone,
}

impl Head {
    /// What a config that ties the head or not makes of what is there.
    #[must_use]
    pub fn of(is_tied: bool, has: impl Fn(&str) -> bool) -> Self {
        match (has(TABLE), has(HEAD_WEIGHT)) {
            _ if !is_tied => Self::Stored,
            (_, false) => Self::Tied,
            (true, true) => Self::Both,
            (false, true) => Self::Alone,
        }
    }

    /// What is odd about it, as a sentence.
    #[must_use]
    pub fn notice(self) -> Option<String> {
        match self {
            Self::Stored | Self::Tied => None,
            Self::Both => Some(format!(
                "config.json ties the embeddings, yet there is {HEAD_WEIGHT}: the file's own head is used"
            )),
            Self::Alone => Some(format!(
                "there are no embeddings: {HEAD_WEIGHT}, to which config.json ties them, is both"
            )),
        }
    }
}

/// What a decoder's attention is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DecoderAttention {
    /// Differential attention of the first version, with λ of vectors: `diffllama`.
    #[default]
    Differential,
    /// One softmax per head: `llama`.
    Plain,
    /// That of a Llama some of whose heads were made differential, the others left as they were:
    /// `diffattn_llama`.
    Converted(ConversionKind),
}

/// What the differential heads of a converted Llama are. None of them has a norm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConversionKind {
    /// Two maps of two q heads over one k head, λ projected from x per token and head.
    V2,
    /// Two maps of two q heads over two k heads, one λ per layer.
    V1(LambdaForm),
    /// One map; from what it makes, that times one matrix of the layer and λ is subtracted (DEX,
    /// arXiv 2505.16333).
    Dex,
}

/// What makes heads of a decoder layer differential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecoderLambda {
    /// One λ for the layer.
    Layer(LambdaIds),
    /// λ is projected from x, per token and differential head.
    Projected(Id),
    /// That of [`ConversionKind::Dex`].
    Dex {
        /// `[value_dim, value_dim]`; rows of what attention made are multiplied with it from the
        /// left.
        weight: Id,
        /// λ, one number.
        lambda: Id,
    },
}

/// Sizes of a decoder's weights. The default is for whoever wants names alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DecoderSizes {
    /// Rows of the embeddings and of the head.
    pub vocab_size: usize,
    /// Channels between the layers.
    pub hidden_size: usize,
    /// Channels within the MLP.
    pub intermediate_size: usize,
    /// What attention is.
    pub kind: DecoderAttention,
    /// The sizes of its weights.
    pub attention: AttentionSizes,
    /// Whether the projections of attention must have biases; they may, anyway.
    pub attention_bias: bool,
    /// Whether the maps of the MLP have biases.
    pub mlp_bias: bool,
    /// Where the head comes from.
    pub head: Head,
}

/// The embeddings, and the head where it comes with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EmbeddingIds {
    /// The table; none where the head is the table.
    pub table: Option<Id>,
    /// The head.
    pub head: Option<Id>,
}

/// The weights of a decoder layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecoderLayerIds {
    /// The projections of attention.
    pub projections: Projections<Id>,
    /// λ, where any head is differential.
    pub lambda: Option<DecoderLambda>,
    /// The MLP's gate.
    pub gate: Id,
    /// What the gate multiplies.
    pub up: Id,
    /// The way out of the MLP.
    pub down: Id,
    /// The norm before attention.
    pub input_norm: Id,
    /// The norm before the MLP.
    pub post_norm: Id,
}

/// A part of the model: its weights are there at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecoderPart {
    /// The embeddings, and a head that comes with them.
    Embeddings,
    /// The head.
    Head,
    /// A layer.
    Layer(usize),
    /// The last norm.
    Norm,
}

impl DecoderSizes {
    /// Which part of a model of that many layers it is, in the order in which parts are checked.
    #[must_use]
    pub fn part(&self, index: usize, layers: usize) -> DecoderPart {
        let before = match self.head {
            Head::Stored => 2,
            Head::Tied | Head::Both | Head::Alone => 1,
        };
        match index.checked_sub(before) {
            None if index == 0 => DecoderPart::Embeddings,
            None => DecoderPart::Head,
            Some(layer) if layer < layers => DecoderPart::Layer(layer),
            Some(_) => DecoderPart::Norm,
        }
    }

    /// The sizes of a layer of a converted model of whose heads so many are differential; a layer of
    /// any other model is as all are.
    #[must_use]
    pub fn with_differential(self, heads: usize) -> Self {
        let DecoderAttention::Converted(kind) = self.kind else {
            return self;
        };
        if heads == 0 {
            let kind = DecoderAttention::Plain;
            return Self { kind, ..self };
        }
        let sizes = self.attention;
        let more = match kind {
            ConversionKind::V2 | ConversionKind::V1(_) => heads.saturating_mul(sizes.head_dim),
            ConversionKind::Dex => 0,
        };
        let keys = match kind {
            ConversionKind::V1(_) => 2,
            ConversionKind::V2 | ConversionKind::Dex => 1,
        };
        Self {
            attention: AttentionSizes {
                q: sizes.q.saturating_add(more),
                k: sizes.k.saturating_mul(keys),
                head_width: sizes.head_dim,
                heads,
                ..sizes
            },
            ..self
        }
    }

    /// Lists the embeddings.
    pub fn embeddings(&self, d: &mut Declare) -> EmbeddingIds {
        let shape = [self.vocab_size, self.hidden_size];
        let has_table = self.head != Head::Alone;
        let table = has_table.then(|| d.table(TABLE, shape));
        let has_head = matches!(self.head, Head::Both | Head::Alone);
        let head = has_head.then(|| self.head(d));
        EmbeddingIds { table, head }
    }

    /// Lists the head.
    pub fn head(&self, d: &mut Declare) -> Id {
        let id = d.linear(HEAD, [self.vocab_size, self.hidden_size], None);
        d.precision(id, Precision::End);
        id
    }

    /// Lists a layer.
    pub fn layer(&self, index: usize, d: &mut Declare) -> DecoderLayerIds {
        let (hidden, inner) = (self.hidden_size, self.intermediate_size);
        let bias = match self.attention_bias {
            true => Need::Required,
            false => Need::Optional,
        };
        d.within(&format!("{LAYERS}{index}."), |d| {
            let (projections, lambda) = d.within("self_attn.", |d| {
                let projections = self.attention.projections(d, Some(O), Some(bias));
                (projections, self.lambda(d))
            });
            let mlp_bias = self.mlp_bias.then_some(Need::Required);
            let [gate, up, down] = d.within("mlp.", |d| {
                [
                    d.linear("gate_proj", [inner, hidden], mlp_bias),
                    d.linear("up_proj", [inner, hidden], mlp_bias),
                    d.linear("down_proj", [hidden, inner], mlp_bias),
                ]
            });
            let mut norm = |name: &str| d.tensor(name, &[hidden], Need::Required);
            DecoderLayerIds {
                projections,
                lambda,
                gate,
                up,
                down,
                input_norm: norm("input_layernorm.weight"),
                post_norm: norm("post_attention_layernorm.weight"),
            }
        })
    }

    /// Lists what makes heads of a layer differential.
    fn lambda(&self, d: &mut Declare) -> Option<DecoderLambda> {
        let sizes = &self.attention;
        Some(match self.kind {
            DecoderAttention::Plain => return None,
            DecoderAttention::Differential
            | DecoderAttention::Converted(ConversionKind::V1(LambdaForm::Vectors)) => {
                DecoderLambda::Layer(LambdaIds::Vectors(sizes.vectors(d, Need::Required)))
            }
            DecoderAttention::Converted(ConversionKind::V1(LambdaForm::Scalars)) => {
                let scalars = AttentionSizes::scalars(d, Need::Required);
                DecoderLambda::Layer(LambdaIds::Scalars(scalars))
            }
            DecoderAttention::Converted(ConversionKind::V2) => {
                let shape = [sizes.heads, sizes.embed_dim];
                let id = d.linear(LAMBDA, shape, Some(Need::Optional));
                d.precision(id, Precision::Exact);
                DecoderLambda::Projected(id)
            }
            DecoderAttention::Converted(ConversionKind::Dex) => d.within(DEX, |d| {
                let width = sizes.head_width;
                DecoderLambda::Dex {
                    weight: d.tensor("weight", &[width, width], Need::Required),
                    lambda: d.number("lambda_learn", Need::Required),
                }
            }),
        })
    }

    /// Lists the last norm.
    pub fn norm(&self, d: &mut Declare) -> Id {
        d.tensor(NORM, &[self.hidden_size], Need::Required)
    }
}

/// The layer that a weight is of, by its number as written: no sign, no zeros before it.
#[must_use]
pub fn layer_of(name: &str) -> Option<usize> {
    let (index, _) = name.strip_prefix(LAYERS)?.split_once('.')?;
    let number = index.parse::<usize>().ok()?;
    (number.to_string() == index).then_some(number)
}

/// Whether the name is one within a module of a model of that many layers.
#[must_use]
pub fn is_within(name: &str, layers: usize) -> bool {
    layer_of(name).is_some_and(|layer| layer < layers)
        || MODULES.iter().any(|module| name.starts_with(module))
}

/// Whether it is a weight of λ in a layer's attention: those of a plain decoder have none.
#[must_use]
pub fn is_lambda(name: &str) -> bool {
    let stem = VECTORS.iter().find_map(|vector| name.strip_suffix(vector));
    layer_of(name).is_some() && stem.is_some_and(|stem| stem.ends_with(".self_attn."))
}

/// Whether it is no weight, but the frequencies that old files have.
#[must_use]
pub fn is_buffer(name: &str) -> bool {
    name.ends_with("rotary_emb.inv_freq")
}

/// The module of a layer's attention, as a sentence or a name has it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AttentionOf(pub(crate) usize);

impl fmt::Display for AttentionOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "layers.{}.self_attn.", self.0)
    }
}
