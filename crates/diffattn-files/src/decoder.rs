//! The weights of a decoder of Llama's kind, differential or plain: embeddings, layers of attention
//! and a gated MLP, a norm, a head. Written once, for loading and inspecting. Runs nothing.

use crate::attention::{self, LAMBDA, LambdaForm, O, VECTORS};
use crate::attention::{AttentionSizes, LambdaIds, Projections};
use crate::declare::{Declare, Id, Need, Precision};

/// The output projection.
pub(crate) const HEAD: &str = "lm_head";
pub(crate) const HEAD_WEIGHT: &str = "lm_head.weight";
/// The module of what DEX adds to attention.
pub(crate) const DEX: &str = "dex.";

/// What a source calls the weights of its decoders, as far as sources differ.
#[derive(Debug, PartialEq, Eq)]
pub struct DecoderNames {
    /// The table of embeddings.
    pub(crate) table: &'static str,
    /// The last norm.
    norm: &'static str,
    /// What stands before the number of a layer.
    layers: &'static str,
    /// The module of a layer's attention.
    attention: &'static str,
    /// The weight of the norm per head.
    head_norm: &'static str,
    /// Gate, up and down.
    mlp: [&'static str; 3],
    input_norm: &'static str,
    post_norm: &'static str,
    /// What the model has besides its layers: a weight within that has no place would change the
    /// numbers.
    modules: [&'static str; 3],
    /// What is no weight of the model.
    others: &'static [&'static str],
}

/// Hugging Face's.
const HUGGING_FACE: DecoderNames = DecoderNames {
    table: "model.embed_tokens.weight",
    norm: "model.norm.weight",
    layers: "model.layers.",
    attention: "self_attn.",
    head_norm: attention::NORM,
    mlp: ["gate_proj", "up_proj", "down_proj"],
    input_norm: "input_layernorm.weight",
    post_norm: "post_attention_layernorm.weight",
    modules: ["model.embed_tokens.", "model.norm.", "lm_head."],
    others: &[],
};

/// Those of diff-mlx, which keeps the state of its optimizer beside them.
const DIFF_MLX: DecoderNames = DecoderNames {
    table: "model.tok_embed.weight",
    norm: "model.final_norm.scale",
    layers: "model.blocks.",
    attention: "attn.",
    head_norm: "subln.scale",
    mlp: ["gate", "up", "down"],
    input_norm: "norm_attn.scale",
    post_norm: "norm_mlp.scale",
    modules: ["model.tok_embed.", "model.final_norm.", "lm_head."],
    others: &["opt."],
};

/// PolyNorm's weights in a layer's MLP.
const POLY_NORM: &str = "act_fn.weight";
const POLY_NORM_BIAS: &str = "act_fn.bias";

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
    pub fn of(kind: DecoderAttention, is_tied: bool, has: impl Fn(&str) -> bool) -> Self {
        match (has(kind.names().table), has(HEAD_WEIGHT)) {
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
    /// Differential attention of the first version, with λ of vectors and a weight in the norm per
    /// head, its flat heads in groups of signal heads and a noise head: `motif`.
    Grouped,
    /// Differential attention of the first version as its authors have it, flat heads in pairs and
    /// neighbouring channels turned together, under the names of diff-mlx.
    Interleaved,
}

impl DecoderAttention {
    /// The entry of the configuration that says whether the projections of attention have biases.
    #[must_use]
    pub fn bias_key(self) -> &'static str {
        match self {
            Self::Differential | Self::Plain | Self::Converted(_) | Self::Interleaved => {
                "attention_bias"
            }
            Self::Grouped => "use_bias",
        }
    }

    /// What its source calls weights.
    #[must_use]
    pub fn names(self) -> &'static DecoderNames {
        match self {
            Self::Differential | Self::Plain | Self::Converted(_) | Self::Grouped => &HUGGING_FACE,
            Self::Interleaved => &DIFF_MLX,
        }
    }

    /// Whether the norm per head has a weight.
    #[must_use]
    pub fn has_head_norm(self) -> bool {
        matches!(self, Self::Grouped | Self::Interleaved)
    }

    /// What is said where the configuration has no biases, and yet there are.
    #[must_use]
    pub fn biases(self) -> String {
        let key = self.bias_key();
        format!("config.json says {key} false, yet there are biases: they are used")
    }
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
    /// Whether PolyNorm, which has weights, stands between them.
    pub poly_norm: bool,
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
    /// The weight of the norm per head, where it has one.
    pub head_norm: Option<Id>,
    /// The MLP's gate.
    pub gate: Id,
    /// What the gate multiplies.
    pub up: Id,
    /// The way out of the MLP.
    pub down: Id,
    /// PolyNorm's three factors and its bias, where it stands in the MLP.
    pub poly_norm: Option<[Id; 2]>,
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

    /// The sizes of a layer of a converted model of whose heads so many are differential; a layer
    /// of any other model is as all are.
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
        let table = self.kind.names().table;
        let table = has_table.then(|| d.table(table, shape));
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
        let names = self.kind.names();
        d.within(&format!("{}{index}.", names.layers), |d| {
            let (projections, lambda, head_norm) = d.within(names.attention, |d| {
                let projections = self.attention.projections(d, Some(O), self.bias());
                let lambda = self.lambda(d);
                let width = [self.attention.head_width];
                let head_norm = self.kind.has_head_norm();
                let head_norm =
                    head_norm.then(|| d.tensor(names.head_norm, &width, Need::Required));
                (projections, lambda, head_norm)
            });
            let mlp_bias = self.mlp_bias.then_some(Need::Required);
            let [gate, up, down] = names.mlp;
            let [gate, up, down] = d.within("mlp.", |d| {
                [
                    d.linear(gate, [inner, hidden], mlp_bias),
                    d.linear(up, [inner, hidden], mlp_bias),
                    d.linear(down, [hidden, inner], mlp_bias),
                ]
            });
            let poly_norm = self.poly_norm.then(|| {
                d.within("mlp.", |d| {
                    let weight = d.tensor(POLY_NORM, &[3], Need::Required);
                    [weight, d.tensor(POLY_NORM_BIAS, &[1], Need::Required)]
                })
            });
            let mut norm = |name: &str| d.tensor(name, &[hidden], Need::Required);
            DecoderLayerIds {
                projections,
                lambda,
                head_norm,
                gate,
                up,
                down,
                poly_norm,
                input_norm: norm(names.input_norm),
                post_norm: norm(names.post_norm),
            }
        })
    }

    /// Whether the projections of attention must have biases, may have them, or have no place for
    /// them.
    fn bias(&self) -> Option<Need> {
        match (self.kind, self.attention_bias) {
            (DecoderAttention::Interleaved, _) => None,
            (_, true) => Some(Need::Required),
            (_, false) => Some(Need::Optional),
        }
    }

    /// Lists what makes heads of a layer differential.
    fn lambda(&self, d: &mut Declare) -> Option<DecoderLambda> {
        let sizes = &self.attention;
        Some(match self.kind {
            DecoderAttention::Plain => return None,
            DecoderAttention::Differential
            | DecoderAttention::Grouped
            | DecoderAttention::Interleaved
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
        d.tensor(self.kind.names().norm, &[self.hidden_size], Need::Required)
    }
}

impl DecoderNames {
    /// The layer that a weight is of, by its number as written: no sign, no zeros before it.
    #[must_use]
    pub fn layer_of(&self, name: &str) -> Option<usize> {
        let (index, _) = name.strip_prefix(self.layers)?.split_once('.')?;
        let number = index.parse::<usize>().ok()?;
        (number.to_string() == index).then_some(number)
    }

    /// Whether the name is one within a module of a model of that many layers.
    #[must_use]
    pub fn is_within(&self, name: &str, layers: usize) -> bool {
        self.layer_of(name).is_some_and(|layer| layer < layers)
            || self.modules.iter().any(|module| name.starts_with(module))
    }

    /// Whether it is no weight of the model, but what its source keeps beside them: the frequencies
    /// that old files have, or the state of an optimizer.
    #[must_use]
    pub fn is_buffer(&self, name: &str) -> bool {
        name.ends_with("rotary_emb.inv_freq")
            || self.others.iter().any(|module| name.starts_with(module))
    }

    /// The module of a layer's attention, without what base models do not have before it.
    pub(crate) fn attention_of(&self, layer: usize) -> String {
        let layers = self.layers.trim_start_matches("model.");
        format!("{layers}{layer}.{}", self.attention)
    }
}

/// The layer that a weight is of under Hugging Face's names.
pub(crate) fn layer_of(name: &str) -> Option<usize> {
    HUGGING_FACE.layer_of(name)
}

/// Whether it is the embeddings of diff-mlx, which no other source calls so.
pub(crate) fn is_diff_mlx(name: &str) -> bool {
    name == DIFF_MLX.table
}

/// Whether it is a weight of λ in a layer's attention: those of a plain decoder have none.
#[must_use]
pub fn is_lambda(name: &str) -> bool {
    let stem = VECTORS.iter().find_map(|vector| name.strip_suffix(vector));
    layer_of(name).is_some() && stem.is_some_and(|stem| stem.ends_with(".self_attn."))
}

/// Whether it is PolyNorm's factors in a layer's MLP.
#[must_use]
pub fn is_poly_norm(name: &str) -> bool {
    let stem = name.strip_suffix(POLY_NORM);
    layer_of(name).is_some() && stem.is_some_and(|stem| stem.ends_with(".mlp."))
}
