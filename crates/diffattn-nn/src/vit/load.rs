//! How a DIFF vision transformer takes its weights: which there must be, in which parts, and what becomes of them. Reads no file.

use super::block::{Block, Norm, Sizes};
use super::config::DiffViTConfig;
use super::model::DiffViT;
use super::preprocess::Preprocessing;
use super::resample;
use crate::checkpoint::{VIT_MODULES, notices};
use crate::parts::{Build, Entries, Part, PartLoad, PartWeights, Parts, WeightInfo};
use diffattn::{Error, Linear, Tensor, checked_len, format_shape};
use std::sync::Arc;

/// How many times as large as the stored one, to a side, a resampled grid of position embeddings may be: more is a wrong
/// number rather than an image.
const LARGEST_GROWTH: usize = 16;

const PATCHES: &str = "patch_embed.proj.weight";
const PATCHES_BIAS: &str = "patch_embed.proj.bias";
const POSITIONS: &str = "pos_embed";
const REGISTERS: &str = "reg_token";
const HEAD: &str = "head.weight";

/// What others of their kind have in the way of every token.
const OTHERS: [&str; 5] = [
    "cls_token",
    "dist_token",
    "norm_pre.",
    "norm.",
    "attn_pool.",
];

/// A [`DiffViT`] on its way: checked as a whole before it has a single element, then loaded part by part, in any order.
///
/// Parts are what makes tokens; each block; what makes logits. Weights, by timm's names: `patch_embed.proj.weight`
/// `[E, C, P, P]`, `pos_embed` `[1, (S / P)², E]`, `reg_token` `[1, R, E]` where there are registers,
/// `fc_norm.weight|bias` `[E]`, and `head.weight` `[classes, E]` unless there are no classes. Per block
/// `norm1.weight|bias`, `attn.qkv.weight` `[3E, E]`, `attn.proj.weight` `[E, E]`, `attn.sub_norm.weight` `[2d]`,
/// `attn.lambda_q1`, `_k1`, `_q2`, `_k2` `[d]` or `attn.lambda_a`, `_b` `[]`, `norm2.weight|bias`, `mlp.fc1.weight`
/// `[hidden, E]`, `mlp.fc2.weight` `[E, hidden]`, and where there are layer scales `ls1.gamma`, `ls2.gamma` `[E]`; in the
/// parallel form `in_norm.weight|bias`, `in_proj.weight` `[hidden + 3E, E]`, `out_proj.weight` `[E, E + hidden]`,
/// `sub_norm.weight`, `lambda_…`, `ls.gamma`. A `.bias` may stand beside any of the maps (`mlp_bias` `[hidden]` instead of
/// `in_proj.bias`).
#[derive(Debug)]
pub struct DiffViTLoader {
    parts: Parts,
    builder: Builder,
}

impl DiffViTLoader {
    /// Checks the config, and a checkpoint's entries against it.
    ///
    /// # Errors
    /// [`ErrorKind::File`](diffattn::ErrorKind::File) naming the entry of the config as `config.KEY`, or the weight as `weights.NAME`: missing, of
    /// another shape, of elements that are not F64, F32, F16 or BF16, without a place in its module, or not as the other says; [`ErrorKind::Option`](diffattn::ErrorKind::Option) for
    /// preprocessing that makes no sense.
    pub fn new(config: &DiffViTConfig, entries: &[WeightInfo]) -> Result<Self, Error> {
        config.preprocessing.check()?;
        let mut entries = Entries::new(entries, false)?;
        let expected = "[embed_dim, in_chans, patch_size, patch_size]";
        let [embed_dim, in_chans, patch_size, columns] = entries.shape(PATCHES, expected)?;
        if columns != patch_size {
            return Err(Error::file(
                format_args!("weights.{PATCHES}"),
                format_args!("a tensor of shape {expected}"),
                format_shape(&[embed_dim, in_chans, patch_size, columns]),
            ));
        }
        agree("in_chans", config.in_chans, in_chans, PATCHES)?;
        one_spread(config, in_chans)?;
        agree("embed_dim", config.embed_dim, embed_dim, PATCHES)?;
        agree("patch_size", config.patch_size, patch_size, PATCHES)?;
        entries.required(PATCHES, &[embed_dim, in_chans, patch_size, patch_size])?;
        entries.optional(PATCHES_BIAS, &[embed_dim])?;
        let (img_size, sides) = grid(&mut entries, config, embed_dim, patch_size)?;
        let mut reg_tokens = 0;
        if entries.has(REGISTERS) {
            [_, reg_tokens, _] = entries.shape(REGISTERS, "[1, reg_tokens, embed_dim]")?;
        }
        agree("reg_tokens", config.reg_tokens, reg_tokens, REGISTERS)?;
        if reg_tokens > 0 {
            entries.required(REGISTERS, &[1, reg_tokens, embed_dim])?;
        }
        entries.end_part();
        let is_parallel = config.architecture.is_parallel();
        let sizes = block_sizes(&entries, config, embed_dim)?;
        let stored = blocks(&entries);
        let depth = config.depth.unwrap_or(stored).min(stored);
        if depth < stored {
            entries.tell(notices::layers(depth, stored));
        } else {
            agree("depth", config.depth, depth, "blocks")?;
        }
        // (As many as the entries bear out: the first that is missing ends it.)
        for index in 0..depth {
            Block::entries(&mut entries, index, sizes, is_parallel)?;
            entries.end_part();
        }
        Norm::entries(&mut entries, "fc_norm", embed_dim)?;
        let num_classes = match config.num_classes {
            // As timm leaves a head that a checkpoint holds for none: told as unused.
            Some(0) => 0,
            None if !entries.has(HEAD) => 0,
            given => {
                let [classes, _] = entries.shape(HEAD, "[num_classes, embed_dim]")?;
                agree("num_classes", given, classes, HEAD)?;
                entries.required(HEAD, &[classes, embed_dim])?;
                entries.optional("head.bias", &[classes])?;
                classes
            }
        };
        entries.end_part();
        entries.end(
            |_| false,
            |name| {
                // What has no place in these would change the numbers.
                let mut modules = (VIT_MODULES.iter().chain(&OTHERS))
                    .filter(|module| num_classes > 0 || !HEAD.starts_with(**module));
                block_of(name).is_some_and(|block| block < depth)
                    || modules.any(|module| name.starts_with(module))
            },
        )?;
        let config = DiffViTConfig {
            architecture: config.architecture,
            img_size: Some(img_size),
            patch_size: Some(patch_size),
            num_classes: Some(num_classes),
            in_chans: Some(in_chans),
            dynamic_img_size: config.dynamic_img_size,
            embed_dim: Some(embed_dim),
            depth: Some(depth),
            num_heads: Some(sizes.num_heads),
            mlp_ratio: config
                .mlp_ratio
                .or(Some(sizes.hidden as f64 / embed_dim as f64)),
            reg_tokens: Some(reg_tokens),
            preprocessing: config.preprocessing,
        };
        Ok(Self {
            parts: entries.finish(),
            builder: Builder {
                config,
                sizes,
                img_size,
                patch_size,
                in_chans,
                sides,
                tokens: None,
                blocks: vec![None; depth],
                logits: None,
                model: None,
            },
        })
    }

    /// What is odd about the checkpoint and loaded all the same, each a sentence: weights that the model has no use for, more blocks
    /// than the config counts, elements of F64 (taken as F32), prefixes of names that were taken off.
    #[must_use]
    pub fn notices(&self) -> &[String] {
        self.parts.notices()
    }

    /// What it is made of, with every size as the weights have it.
    #[must_use]
    pub fn config(&self) -> &DiffViTConfig {
        &self.builder.config
    }

    /// The weights of each part.
    #[must_use]
    pub fn parts(&self) -> &[Vec<WeightInfo>] {
        self.parts.list()
    }

    /// Checks the weights of a part and prepares to pack them, all of them in one unit of work: these models are small.
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
    pub fn model(&self) -> Result<&Arc<DiffViT>, Error> {
        self.parts.check_complete()?;
        let model = self.builder.model.as_ref();
        model.ok_or_else(|| Error::Internal("all parts make no model".to_owned()))
    }

    /// The same, out of its loader.
    ///
    /// # Errors
    /// As [`DiffViTLoader::model`].
    pub fn finish(mut self) -> Result<DiffViT, Error> {
        self.model()?;
        let model = self.builder.model.take().and_then(Arc::into_inner);
        model.ok_or_else(|| Error::Internal("a model that others have, too".to_owned()))
    }
}

/// Of one channel, there is one mean and one spread.
fn one_spread(config: &DiffViTConfig, in_chans: usize) -> Result<(), Error> {
    let Preprocessing { mean, std, .. } = config.preprocessing;
    for (key, numbers) in [("mean", mean), ("std", std)] {
        if in_chans == 1 && numbers != [numbers[0]; 3] {
            return Err(Error::file(
                format_args!("config.{key}"),
                "one number, as images of one channel have it",
                format_args!("{numbers:?}"),
            ));
        }
    }
    Ok(())
}

/// A size that the config gives must be the weights'.
fn agree(key: &str, given: Option<usize>, stored: usize, name: &str) -> Result<(), Error> {
    match given {
        Some(given) if given != stored => Err(Error::file(
            format_args!("config.{key}"),
            format_args!("{stored}, as weights.{name} has it"),
            given,
        )),
        _ => Ok(()),
    }
}

/// S, and the sides of the grids of patches: that of the weights, and that of the images, which others are resampled to.
fn grid(
    entries: &mut Entries<'_>,
    config: &DiffViTConfig,
    embed_dim: usize,
    patch_size: usize,
) -> Result<(usize, [usize; 2]), Error> {
    let [_, count, _] = entries.shape(POSITIONS, "[1, patches, embed_dim]")?;
    entries.required(POSITIONS, &[1, count, embed_dim])?;
    let side = count.isqrt();
    if side * side != count {
        return Err(Error::file(
            format_args!("weights.{POSITIONS}"),
            "embeddings of a square grid of patches",
            format_shape(&[1, count, embed_dim]),
        ));
    }
    let img_size = match config.img_size {
        Some(size) => size,
        None => checked_len("weights.pos_embed", &[side, patch_size])?,
    };
    let grid = img_size / patch_size;
    let largest = side.saturating_mul(LARGEST_GROWTH);
    if grid == 0 || grid > largest || !img_size.is_multiple_of(patch_size) {
        return Err(Error::file(
            "config.img_size",
            format_args!(
                "a multiple of the patch size {patch_size}, {LARGEST_GROWTH} times that of the weights ({}) at most",
                side.saturating_mul(patch_size)
            ),
            img_size,
        ));
    }
    Ok((img_size, [side, grid]))
}

/// Heads and channels of the MLP, from the first block.
fn block_sizes(
    entries: &Entries<'_>,
    config: &DiffViTConfig,
    embed_dim: usize,
) -> Result<Sizes, Error> {
    let is_parallel = config.architecture.is_parallel();
    let (norm, into) = if is_parallel {
        ("blocks.0.sub_norm.weight", "blocks.0.in_proj.weight")
    } else {
        ("blocks.0.attn.sub_norm.weight", "blocks.0.mlp.fc1.weight")
    };
    let [head_width] = entries.shape(norm, "[2 · head_dim]")?;
    if !head_width.is_multiple_of(2) || !embed_dim.is_multiple_of(head_width) {
        return Err(Error::file(
            format_args!("weights.{norm}"),
            format_args!("an even length that divides embed_dim {embed_dim}"),
            head_width,
        ));
    }
    let num_heads = embed_dim / head_width;
    agree("num_heads", config.num_heads, num_heads, norm)?;
    let [outputs, _] = entries.shape(into, "[outputs, embed_dim]")?;
    let attention = if is_parallel {
        checked_len("weights", &[3, embed_dim])?
    } else {
        0
    };
    let hidden = outputs.checked_sub(attention).filter(|&hidden| hidden > 0);
    let hidden = hidden.ok_or_else(|| {
        Error::file(
            format_args!("weights.{into}"),
            format_args!("more than 3 · {embed_dim} rows"),
            outputs,
        )
    })?;
    if let Some(ratio) = config.mlp_ratio
        && (embed_dim as f64 * ratio) as usize != hidden
    {
        return Err(Error::file(
            "config.mlp_ratio",
            format_args!("{hidden} / {embed_dim}, as weights.{into} has it"),
            ratio,
        ));
    }
    Ok(Sizes {
        embed_dim,
        num_heads,
        hidden,
    })
}

/// How many blocks there are: one more than the highest number in a name `blocks.NUMBER.…`.
fn blocks(entries: &Entries<'_>) -> usize {
    let number = |name: &str| block_of(name)?.checked_add(1);
    entries.names().filter_map(number).max().unwrap_or(0)
}

/// The block that a weight is of.
fn block_of(name: &str) -> Option<usize> {
    let (number, _) = name.strip_prefix("blocks.")?.split_once('.')?;
    number.parse::<usize>().ok()
}

/// What makes tokens of pixels.
#[derive(Debug)]
struct Tokens {
    patches: Linear,
    positions: Vec<f32>,
    registers: Vec<f32>,
}

/// What is there of a model.
#[derive(Debug)]
struct Builder {
    config: DiffViTConfig,
    sizes: Sizes,
    img_size: usize,
    patch_size: usize,
    in_chans: usize,
    sides: [usize; 2],
    tokens: Option<Tokens>,
    blocks: Vec<Option<Block>>,
    /// The last norm, and the head where there is one.
    logits: Option<(Norm, Option<Linear>)>,
    model: Option<Arc<DiffViT>>,
}

impl Builder {
    fn make_tokens(&self, part: &Part<'_, '_>) -> Result<Tokens, Error> {
        let (embed_dim, patch_size) = (self.sizes.embed_dim, self.patch_size);
        let weight = Tensor {
            data: part.required(PATCHES)?.data,
            shape: vec![embed_dim, self.in_chans * patch_size * patch_size],
        };
        let bias = part.optional(PATCHES_BIAS);
        let stored = part.vector(POSITIONS)?;
        let [side, grid] = self.sides;
        Ok(Tokens {
            patches: Linear::new(&weight, bias.as_ref())?,
            positions: match grid == side {
                true => stored,
                false => {
                    let (from, to) = ([side; 2], [grid; 2]);
                    resample::resample_grid("config.img_size", &stored, from, to, embed_dim)?
                }
            },
            registers: part.optional_vector(REGISTERS)?.unwrap_or_default(),
        })
    }
}

impl Build for Builder {
    fn units(&self, _part: usize) -> usize {
        1
    }

    fn build(
        &mut self,
        part: usize,
        _unit: usize,
        weights: &mut PartWeights<'_>,
    ) -> Result<(), Error> {
        let weights = Part(weights);
        match part.checked_sub(1) {
            None => self.tokens = Some(self.make_tokens(&weights)?),
            Some(block) if block < self.blocks.len() => {
                let is_parallel = self.config.architecture.is_parallel();
                self.blocks[block] = Some(Block::load(&weights, block, self.sizes, is_parallel)?);
            }
            Some(_) => {
                let norm = Norm::load(&weights, "fc_norm")?;
                let head = match self.config.num_classes {
                    Some(0) => None,
                    _ => Some(weights.linear("head")?),
                };
                self.logits = Some((norm, head));
            }
        }
        Ok(())
    }

    fn forget(&mut self) {}

    fn complete(&mut self) -> Result<(), Error> {
        let blocks = std::mem::take(&mut self.blocks).into_iter().collect();
        let (Some(blocks), Some(tokens), Some((norm, head))) =
            (blocks, self.tokens.take(), self.logits.take())
        else {
            return Err(Error::Internal("a part left nothing behind".to_owned()));
        };
        self.model = Some(Arc::new(DiffViT {
            config: self.config.clone(),
            sizes: self.sizes,
            img_size: self.img_size,
            patch_size: self.patch_size,
            in_chans: self.in_chans,
            patches: tokens.patches,
            positions: tokens.positions,
            registers: tokens.registers,
            blocks,
            norm,
            head,
        }));
        Ok(())
    }
}
