//! The weights of timm's DIFF vision transformers: patches and positions, blocks, a norm, a head.
//! Written once, for loading and inspecting. Runs nothing.

use crate::attention::{AttentionSizes, LambdaForm, LambdaIds, SCALARS};
use crate::declare::{Declare, Id, Need, Precision};

/// The map of patches to tokens, `[embed_dim, in_chans, patch_size, patch_size]`.
pub const PATCHES: &str = "patch_embed.proj.weight";
/// The position embeddings, `[1, patches, embed_dim]`.
pub const POSITIONS: &str = "pos_embed";
/// The register tokens, `[1, reg_tokens, embed_dim]`.
pub const REGISTERS: &str = "reg_token";
/// The head, `[num_classes, embed_dim]`.
pub const HEAD_WEIGHT: &str = "head.weight";

/// The modules that timm's DIFF vision transformers have besides their blocks.
const MODULES: [&str; 5] = [
    "patch_embed.",
    "pos_embed",
    "reg_token",
    "fc_norm.",
    "head.",
];

/// What others of their kind have in the way of every token.
const OTHERS: [&str; 5] = [
    "cls_token",
    "dist_token",
    "norm_pre.",
    "norm.",
    "attn_pool.",
];

/// A layer norm's weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerNormIds {
    /// The factors.
    pub weight: Id,
    /// What is added.
    pub bias: Id,
}

/// Several maps in one weight, which is cut as floats.
fn in_one(d: &mut Declare, name: &str, shape: [usize; 2], bias: Option<Need>) -> Id {
    let id = d.linear(name, shape, bias);
    d.precision(id, Precision::Exact);
    id
}

fn layer_norm(d: &mut Declare, name: &str, width: usize) -> LayerNormIds {
    let mut vector = |part: &str| d.tensor(&format!("{name}.{part}"), &[width], Need::Required);
    LayerNormIds {
        weight: vector("weight"),
        bias: vector("bias"),
    }
}

/// Sizes of what makes tokens of pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenSizes {
    /// Channels of a token.
    pub embed_dim: usize,
    /// Channels of an image.
    pub in_chans: usize,
    /// Rows and columns of a patch.
    pub patch_size: usize,
    /// Position embeddings.
    pub positions: usize,
    /// Register tokens.
    pub reg_tokens: usize,
}

/// The weights of what makes tokens of pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenIds {
    /// The map of patches.
    pub patches: Id,
    /// Its bias.
    pub patches_bias: Id,
    /// The position embeddings.
    pub positions: Id,
    /// The register tokens, where there are any.
    pub registers: Option<Id>,
}

impl TokenSizes {
    /// Lists what makes tokens of pixels.
    pub fn declare(&self, d: &mut Declare) -> TokenIds {
        let &Self {
            embed_dim,
            in_chans,
            patch_size,
            positions,
            reg_tokens,
        } = self;
        let patch = [embed_dim, in_chans, patch_size, patch_size];
        TokenIds {
            patches: d.tensor(PATCHES, &patch, Need::Required),
            patches_bias: d.tensor("patch_embed.proj.bias", &[embed_dim], Need::Optional),
            positions: d.tensor(POSITIONS, &[1, positions, embed_dim], Need::Required),
            registers: (reg_tokens > 0)
                .then(|| d.tensor(REGISTERS, &[1, reg_tokens, embed_dim], Need::Required)),
        }
    }
}

/// Sizes that all blocks share.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BlockSizes {
    /// Channels of a token.
    pub embed_dim: usize,
    /// Channels of an output head.
    pub head_width: usize,
    /// Channels within the MLP.
    pub hidden: usize,
}

/// How the blocks of an architecture are built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockForm {
    /// timm's `Block`: `norm1`, `attn.qkv`, `attn.proj`, `ls1`, `norm2`, `mlp.fc1`, `mlp.fc2`,
    /// `ls2`.
    Plain,
    /// timm's `DiffParallelScalingBlock`: `in_norm`, `in_proj` (rows: the MLP, q, k, v), `out_proj`
    /// (columns: attention, the MLP), `ls`. `in_proj.bias` is that of all rows, `mlp_bias` that of
    /// the MLP's alone.
    Parallel,
}

/// The maps of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockMaps {
    /// Those of a plain block.
    Plain {
        /// q, k and v, a third of the rows each.
        qkv: Id,
        /// The output projection.
        proj: Id,
        /// Into the MLP.
        fc1: Id,
        /// Out of the MLP.
        fc2: Id,
    },
    /// Those of a parallel block.
    Parallel {
        /// Into the MLP, then q, k and v.
        into: Id,
        /// The bias of the MLP's rows, where `into` has none.
        mlp_bias: Id,
        /// Out of attention, then of the MLP.
        out: Id,
    },
}

/// The weights of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockIds {
    /// Its maps.
    pub maps: BlockMaps,
    /// The weight of the norm per head.
    pub head_norm: Id,
    /// λ.
    pub lambda: LambdaIds,
    /// The norm before attention, and in a parallel block before the MLP.
    pub norm: LayerNormIds,
    /// The norm before the MLP, in a plain block.
    pub mlp_norm: Option<LayerNormIds>,
    /// What scales attention, and in a parallel block the MLP.
    pub scale: Id,
    /// What scales the MLP, in a plain block.
    pub mlp_scale: Option<Id>,
}

impl BlockForm {
    /// Where attention's own weights are within a block.
    fn attention(self) -> &'static str {
        match self {
            Self::Plain => "attn.",
            Self::Parallel => "",
        }
    }

    /// The name of the norm per head of the first block, whose length tells the heads.
    #[must_use]
    pub fn first_head_norm(self) -> String {
        format!("{}{}sub_norm.weight", block(0), self.attention())
    }

    /// The name of the map of the first block whose rows tell the channels within the MLP.
    #[must_use]
    pub fn first_map(self) -> String {
        match self {
            Self::Plain => format!("{}mlp.fc1.weight", block(0)),
            Self::Parallel => format!("{}in_proj.weight", block(0)),
        }
    }
}

fn block(index: usize) -> String {
    format!("blocks.{index}.")
}

impl BlockSizes {
    /// Lists a block. `has` tells which tensors there are: λ is of the form that is there.
    pub fn block(
        &self,
        form: BlockForm,
        index: usize,
        has: impl Fn(&str) -> bool,
        d: &mut Declare,
    ) -> BlockIds {
        let prefix = block(index);
        let has = |name: &str| has(&format!("{prefix}{name}"));
        let scalar = format!("{}{}", form.attention(), SCALARS[0]);
        let lambda_form = match has(&scalar) {
            true => LambdaForm::Scalars,
            false => LambdaForm::Vectors,
        };
        d.within(&prefix, |d| {
            let maps = match form {
                BlockForm::Plain => self.plain(d),
                BlockForm::Parallel => self.parallel(has("in_proj.bias"), d),
            };
            let (head_norm, lambda) = d.within(form.attention(), |d| {
                let width = [self.head_width];
                let norm = d.tensor("sub_norm.weight", &width, Need::Required);
                (norm, self.lambda(lambda_form, d))
            });
            let norm = |d: &mut Declare, name| layer_norm(d, name, self.embed_dim);
            let scale = |d: &mut Declare, name| d.tensor(name, &[self.embed_dim], Need::Optional);
            match form {
                BlockForm::Plain => BlockIds {
                    maps,
                    head_norm,
                    lambda,
                    norm: norm(d, "norm1"),
                    mlp_norm: Some(norm(d, "norm2")),
                    scale: scale(d, "ls1.gamma"),
                    mlp_scale: Some(scale(d, "ls2.gamma")),
                },
                BlockForm::Parallel => BlockIds {
                    maps,
                    head_norm,
                    lambda,
                    norm: norm(d, "in_norm"),
                    mlp_norm: None,
                    scale: scale(d, "ls.gamma"),
                    mlp_scale: None,
                },
            }
        })
    }

    /// Rows of q, k and v together.
    fn qkv(&self) -> usize {
        self.embed_dim.saturating_mul(3)
    }

    fn plain(&self, d: &mut Declare) -> BlockMaps {
        let (width, hidden) = (self.embed_dim, self.hidden);
        let bias = Some(Need::Optional);
        BlockMaps::Plain {
            qkv: in_one(d, "attn.qkv", [self.qkv(), width], bias),
            proj: d.linear("attn.proj", [width, width], bias),
            fc1: d.linear("mlp.fc1", [hidden, width], bias),
            fc2: d.linear("mlp.fc2", [width, hidden], bias),
        }
    }

    fn parallel(&self, is_biased: bool, d: &mut Declare) -> BlockMaps {
        let (width, hidden) = (self.embed_dim, self.hidden);
        let bias = Some(Need::Optional);
        let mlp_bias = match is_biased {
            true => Need::Refused("beside in_proj.bias"),
            false => Need::Optional,
        };
        BlockMaps::Parallel {
            into: in_one(
                d,
                "in_proj",
                [hidden.saturating_add(self.qkv()), width],
                bias,
            ),
            mlp_bias: d.tensor("mlp_bias", &[hidden], mlp_bias),
            out: in_one(d, "out_proj", [width, width.saturating_add(hidden)], bias),
        }
    }

    fn lambda(&self, form: LambdaForm, d: &mut Declare) -> LambdaIds {
        let sizes = AttentionSizes {
            head_dim: self.head_width / 2,
            ..AttentionSizes::default()
        };
        match form {
            LambdaForm::Vectors => LambdaIds::Vectors(sizes.vectors(d, Need::Required)),
            LambdaForm::Scalars => LambdaIds::Scalars(AttentionSizes::scalars(d, Need::Required)),
        }
    }
}

/// The weights of what makes logits of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogitIds {
    /// The last norm.
    pub norm: LayerNormIds,
    /// The head, where there are classes.
    pub head: Option<Id>,
}

/// Lists what makes logits of tokens; of no classes it has no head.
pub fn logits(embed_dim: usize, num_classes: usize, d: &mut Declare) -> LogitIds {
    LogitIds {
        norm: layer_norm(d, "fc_norm", embed_dim),
        head: (num_classes > 0)
            .then(|| d.linear("head", [num_classes, embed_dim], Some(Need::Optional))),
    }
}

/// The block that a weight is of.
#[must_use]
pub fn block_of(name: &str) -> Option<usize> {
    let (number, _) = name.strip_prefix("blocks.")?.split_once('.')?;
    number.parse::<usize>().ok()
}

/// Whether the name is one within a module that a model of that many blocks has besides others of
/// its kind.
#[must_use]
pub(crate) fn has_place(name: &str, blocks: usize) -> bool {
    block_of(name).is_some_and(|block| block < blocks)
        || MODULES.iter().any(|module| name.starts_with(module))
}

/// Whether the name is one within a module that would change the numbers of a model of that many
/// blocks.
#[must_use]
pub fn is_within(name: &str, blocks: usize, has_head: bool) -> bool {
    let mut modules = (MODULES.iter().chain(&OTHERS))
        .filter(|module| has_head || !HEAD_WEIGHT.starts_with(**module));
    block_of(name).is_some_and(|block| block < blocks)
        || modules.any(|module| name.starts_with(module))
}
