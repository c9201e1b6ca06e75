//! How a DIFF vision transformer takes its weights: what becomes of each part. Reads no file; which
//! weights there are, its lists say ([`diffattn_files::vision`]), and how large, they themselves
//! ([`super::sizes`]).

use super::block::{Block, Norm, Sizes};
use super::config::DiffViTConfig;
use super::model::DiffViT;
use super::sizes;
use crate::image;
use crate::models::{Builder, Loader, Model, ModelFiles, ModelLoader};
use crate::parts::{Part, PartWeights, Parts, WeightInfo};
use diffattn::{Error, Linear, Pace, Tensor};
use diffattn_files::vision::{self, BlockSizes, REGISTERS, TokenSizes};
use diffattn_files::{Declare, Entries};
use serde_json::Value;
use std::sync::Arc;

/// A [`DiffViT`] on its way: checked as a whole before it has a single element, then loaded part by
/// part, in any order.
///
/// Parts are what makes tokens; each block; what makes logits. Weights, by timm's names:
/// `patch_embed.proj.weight` `[E, C, P, P]`, `pos_embed` `[1, (S / P)², E]`, `reg_token` `[1, R,
/// E]` where there are registers, `fc_norm.weight|bias` `[E]`, and `head.weight` `[classes, E]`
/// unless there are no classes. Per block `norm1.weight|bias`, `attn.qkv.weight` `[3E, E]`,
/// `attn.proj.weight` `[E, E]`, `attn.sub_norm.weight` `[2d]`, `attn.lambda_q1`, `_k1`, `_q2`,
/// `_k2` `[d]` or `attn.lambda_a`, `_b` `[]`, `norm2.weight|bias`, `mlp.fc1.weight` `[hidden, E]`,
/// `mlp.fc2.weight` `[E, hidden]`, and where there are layer scales `ls1.gamma`, `ls2.gamma` `[E]`;
/// in the parallel form `in_norm.weight|bias`, `in_proj.weight` `[hidden + 3E, E]`,
/// `out_proj.weight` `[E, E + hidden]`, `sub_norm.weight`, `lambda_…`, `ls.gamma`. A `.bias` may
/// stand beside any of the maps (`mlp_bias` `[hidden]` instead of `in_proj.bias`).
pub type DiffViTLoader = Loader<DiffViTBuilder>;

impl DiffViTLoader {
    /// Checks the config, and a checkpoint's entries against it.
    ///
    /// # Errors
    /// [`ErrorKind::File`](diffattn::ErrorKind::File) naming the entry of the config as
    /// `config.KEY`, or the weight as `weights.NAME`: missing, of another shape, of elements that
    /// are not F64, F32, F16 or BF16, without a place in its module, or not as the other says;
    /// [`ErrorKind::Option`](diffattn::ErrorKind::Option) for preprocessing that makes no sense.
    pub fn new(config: &DiffViTConfig, entries: &[WeightInfo]) -> Result<Self, Error> {
        config.preprocessing.check()?;
        let mut entries = Entries::new(entries, false)?;
        let tokens = sizes::tokens(&entries, config)?;
        let (img_size, sides) = sizes::grid(config, &tokens)?;
        let reg_tokens = tokens.reg_tokens;
        sizes::agree("reg_tokens", config.reg_tokens, reg_tokens, REGISTERS)?;
        let mut list = Declare::new();
        tokens.declare(&mut list);
        entries.part(&list)?;
        let sizes = sizes::blocks(&entries, config, tokens.embed_dim)?;
        let stored = sizes::depth(&entries);
        let depth = config.depth.unwrap_or(stored).min(stored);
        if depth < stored {
            entries.tell_layers(depth, stored);
        } else {
            sizes::agree("depth", config.depth, depth, "blocks")?;
        }
        // (As many as the entries bear out: the first that is missing ends it.)
        for index in 0..depth {
            let mut list = Declare::new();
            let has = |name: &str| entries.has(name);
            block_sizes(sizes).block(config.architecture.form(), index, has, &mut list);
            entries.part(&list)?;
        }
        let num_classes = sizes::classes(&entries, config)?;
        let mut list = Declare::new();
        vision::logits(tokens.embed_dim, num_classes, &mut list);
        entries.part(&list)?;
        let is_within = |name: &str| vision::is_within(name, depth, num_classes > 0);
        let parts = entries.finish(|_| false, is_within)?;
        let mlp_ratio = sizes.hidden as f64 / tokens.embed_dim as f64;
        let config = DiffViTConfig {
            architecture: config.architecture,
            img_size: Some(img_size),
            patch_size: Some(tokens.patch_size),
            num_classes: Some(num_classes),
            in_chans: Some(tokens.in_chans),
            dynamic_img_size: config.dynamic_img_size,
            embed_dim: Some(tokens.embed_dim),
            depth: Some(depth),
            num_heads: Some(sizes.num_heads),
            mlp_ratio: config.mlp_ratio.or(Some(mlp_ratio)),
            reg_tokens: Some(reg_tokens),
            preprocessing: config.preprocessing,
        };
        let builder = DiffViTBuilder {
            config,
            sizes,
            token_sizes: tokens,
            img_size,
            num_classes,
            sides,
            tokens: None,
            blocks: vec![None; depth],
            logits: None,
        };
        Ok(Self::of(Parts::new(parts), builder))
    }
}

/// A loader of a DIFF vision transformer.
pub(crate) fn open(files: &ModelFiles<'_>) -> Result<Box<dyn ModelLoader>, Error> {
    let config = DiffViTConfig::from_json(files.config)?;
    Ok(Box::new(DiffViTLoader::new(&config, files.entries)?))
}

/// The sizes that a list of a block's weights wants.
fn block_sizes(sizes: Sizes) -> BlockSizes {
    BlockSizes {
        embed_dim: sizes.embed_dim,
        head_width: sizes.embed_dim / sizes.num_heads,
        hidden: sizes.hidden,
    }
}

/// What makes tokens of pixels.
#[derive(Debug)]
struct Tokens {
    patches: Linear,
    positions: Vec<f32>,
    registers: Vec<f32>,
}

/// What is there of a [`DiffViT`], part by part.
#[derive(Debug)]
pub struct DiffViTBuilder {
    config: DiffViTConfig,
    sizes: Sizes,
    token_sizes: TokenSizes,
    img_size: usize,
    num_classes: usize,
    sides: [usize; 2],
    tokens: Option<Tokens>,
    blocks: Vec<Option<Block>>,
    /// The last norm, and the head where there is one.
    logits: Option<(Norm, Option<Linear>)>,
}

impl Builder for DiffViTBuilder {
    type Config = DiffViTConfig;
    type Model = DiffViT;

    fn config(&self) -> &DiffViTConfig {
        &self.config
    }

    fn config_json(&self) -> Value {
        self.config.known()
    }

    /// All weights at once: these models are small.
    fn units(&self, _part: usize) -> usize {
        1
    }

    async fn build(
        &mut self,
        part: usize,
        weights: PartWeights<'_>,
        pace: &Pace,
    ) -> Result<(), Error> {
        pace.granted().await;
        let mut list = Declare::new();
        match part.checked_sub(1) {
            None => self.tokens = Some(self.make_tokens(weights)?),
            Some(block) if block < self.blocks.len() => {
                let (form, sizes) = (self.config.architecture.form(), block_sizes(self.sizes));
                let has = |name: &str| weights.contains_key(name);
                let ids = sizes.block(form, block, has, &mut list);
                let mut part = Part::new(list, weights);
                self.blocks[block] = Some(Block::load(&mut part, block, self.sizes, &ids)?);
            }
            Some(_) => {
                let ids = vision::logits(self.sizes.embed_dim, self.num_classes, &mut list);
                let mut part = Part::new(list, weights);
                let head = ids.head.map(|head| part.linear(head)).transpose()?;
                self.logits = Some((Norm::load(&part, ids.norm)?, head));
            }
        }
        Ok(())
    }

    fn complete(&mut self) -> Result<DiffViT, Error> {
        let blocks = std::mem::take(&mut self.blocks).into_iter().collect();
        let (Some(blocks), Some(tokens), Some((norm, head))) =
            (blocks, self.tokens.take(), self.logits.take())
        else {
            return Err(Error::internal("a part left nothing behind"));
        };
        Ok(DiffViT {
            config: self.config.clone(),
            sizes: self.sizes,
            img_size: self.img_size,
            patch_size: self.token_sizes.patch_size,
            in_chans: self.token_sizes.in_chans,
            patches: tokens.patches,
            positions: tokens.positions,
            registers: tokens.registers,
            blocks,
            norm,
            head,
        })
    }

    fn of_any_family(model: Arc<DiffViT>) -> Model {
        Model::Image(model)
    }
}

impl DiffViTBuilder {
    fn make_tokens(&self, weights: PartWeights<'_>) -> Result<Tokens, Error> {
        let mut list = Declare::new();
        let ids = self.token_sizes.declare(&mut list);
        let part = Part::new(list, weights);
        let TokenSizes {
            embed_dim,
            in_chans,
            patch_size,
            ..
        } = self.token_sizes;
        let weight = Tensor {
            data: part.tensor(ids.patches)?.data,
            shape: vec![embed_dim, in_chans * patch_size * patch_size],
        };
        let bias = part.optional(ids.patches_bias);
        let stored = part.vector(ids.positions)?;
        let [side, grid] = self.sides;
        let registers = ids.registers.map(|registers| part.vector(registers));
        Ok(Tokens {
            patches: Linear::new(&weight, bias.as_ref())?,
            positions: match grid == side {
                true => stored,
                false => {
                    let (from, to) = ([side; 2], [grid; 2]);
                    image::resample_grid("config.img_size", &stored, from, to, embed_dim)?
                }
            },
            registers: registers.transpose()?.unwrap_or_default(),
        })
    }
}
