//! timm's DIFF vision transformers: image in, logits out. Holds the weights; the numbers are made in `trunk.rs` and
//! `forward.rs`.

mod block;
mod classify;
mod config;
mod forward;
mod maps;
mod preprocess;
mod resample;
mod trunk;
mod weights;

pub use classify::{ClassScore, top_classes};
pub use config::{DiffViTArchitecture, DiffViTConfig};
pub use forward::DiffViTForward;
pub use maps::DiffViTMaps;
pub use preprocess::{Image, Preprocessing};
pub use resample::Interpolation;

use crate::layer::DiffAttnLayer;
use crate::maps::Maps;
use crate::weights::Weights;
use block::{Block, Norm, Sizes};
use diffattn::{
    DataMut, Error, Isa, Linear, MapOutputs, Slices, Tensor, checked_len, format_shape, try_zeroed,
};
use weights::Source;

/// How many times as large as the stored one, to a side, a resampled grid of position embeddings may be: more is a wrong
/// number rather than an image.
const LARGEST_GROWTH: usize = 16;

/// A DIFF vision transformer with its weights (timm, `vision_transformer.py`): patches through a linear map and with a
/// position embedding each, register tokens before them, blocks of [`crate::MultiheadDiffAttn`] (not causal) and an MLP with
/// exact GELU, the mean of the patches' tokens, a layer norm and the logits.
///
/// An image's bits do not depend on the batch, on threads or on the slices that a job is worked off in.
#[derive(Debug, Clone)]
pub struct DiffViT {
    config: DiffViTConfig,
    sizes: Sizes,
    /// S and P.
    img_size: usize,
    patch_size: usize,
    patches: Linear,
    /// `[(S / P)², embed_dim]`.
    positions: Vec<f32>,
    /// `[registers, embed_dim]`.
    registers: Vec<f32>,
    blocks: Vec<Block>,
    norm: Norm,
    head: Linear,
}

/// How a call of a model is run.
#[derive(Debug, Clone, Copy, Default)]
pub struct DiffViTOptions {
    /// Unfused multiply-adds: the same bits on every backend.
    pub deterministic: bool,
    /// The instruction set; the fastest by default.
    pub isa: Option<Isa>,
    /// Threads to use; what the machine allows by default.
    pub threads: Option<usize>,
}

impl DiffViT {
    /// Checks config and weights and packs the weights; they are not needed afterwards.
    ///
    /// Weights, by timm's names: `patch_embed.proj.weight` `[E, 3, P, P]`, `pos_embed` `[1, (S / P)², E]`, `reg_token`
    /// `[1, R, E]` where there are registers, `fc_norm.weight|bias` `[E]`, `head.weight` `[classes, E]`. Per block
    /// `norm1.weight|bias`, `attn.qkv.weight` `[3E, E]`, `attn.proj.weight` `[E, E]`, `attn.sub_norm.weight` `[2d]`,
    /// `attn.lambda_q1`, `_k1`, `_q2`, `_k2` `[d]` or `attn.lambda_a`, `_b` `[]`, `norm2.weight|bias`, `mlp.fc1.weight`
    /// `[hidden, E]`, `mlp.fc2.weight` `[E, hidden]`, and where there are layer scales `ls1.gamma`, `ls2.gamma` `[E]`; in the
    /// parallel form `in_norm.weight|bias`, `in_proj.weight` `[hidden + 3E, E]`, `out_proj.weight` `[E, E + hidden]`,
    /// `sub_norm.weight`, `lambda_…`, `ls.gamma`. A `.bias` may stand beside any of the maps (`mlp_bias` `[hidden]` instead of
    /// `in_proj.bias`).
    ///
    /// # Errors
    /// [`Error::File`] naming the entry of the config as `config.KEY`, or the weight as `weights.NAME`: missing, unknown, of
    /// another shape, or not as the other says; [`Error::Option`] for preprocessing that makes no sense;
    /// [`Error::OutOfMemory`].
    pub fn new(config: &DiffViTConfig, weights: &Weights<'_>) -> Result<Self, Error> {
        config.preprocessing.check()?;
        let mut source = Source::new(weights);
        let name = "patch_embed.proj.weight";
        let [embed_dim, colours, patch_size, columns] =
            source.shape(name, "[embed_dim, 3, patch_size, patch_size]")?;
        if colours != 3 || columns != patch_size {
            return Err(Error::file(
                format_args!("weights.{name}"),
                "a tensor of shape [embed_dim, 3, patch_size, patch_size]",
                format_shape(&[embed_dim, colours, patch_size, columns]),
            ));
        }
        agree("embed_dim", config.embed_dim, embed_dim, name)?;
        agree("patch_size", config.patch_size, patch_size, name)?;
        let patches = Linear::new(
            &Tensor {
                data: source
                    .required(name, &[embed_dim, 3, patch_size, patch_size])?
                    .data,
                shape: vec![embed_dim, 3 * patch_size * patch_size],
            },
            source.optional("patch_embed.proj.bias", &[embed_dim])?,
        )?;
        let (img_size, positions) = positions(&mut source, config, embed_dim, patch_size)?;
        let reg_tokens = if source.has("reg_token") {
            let [_, count, _] = source.shape("reg_token", "[1, reg_tokens, embed_dim]")?;
            count
        } else {
            0
        };
        agree("reg_tokens", config.reg_tokens, reg_tokens, "reg_token")?;
        let registers = match reg_tokens {
            0 => Vec::new(),
            count => source
                .required("reg_token", &[1, count, embed_dim])?
                .data
                .to_f32()?,
        };
        let sizes = block_sizes(&mut source, config, embed_dim)?;
        let depth = source.blocks();
        agree("depth", config.depth, depth, "blocks")?;
        let mut blocks = Vec::new();
        for index in 0..depth {
            blocks.push(if config.architecture.is_parallel() {
                Block::load_parallel(&mut source, index, sizes)?
            } else {
                Block::load(&mut source, index, sizes)?
            });
        }
        let norm = Norm::load(&mut source, "fc_norm", embed_dim)?;
        let [num_classes, _] = source.shape("head.weight", "[num_classes, embed_dim]")?;
        agree(
            "num_classes",
            config.num_classes,
            num_classes,
            "head.weight",
        )?;
        let head = source.linear("head", num_classes, embed_dim)?;
        source.finish()?;
        Ok(Self {
            config: DiffViTConfig {
                architecture: config.architecture,
                img_size: Some(img_size),
                patch_size: Some(patch_size),
                num_classes: Some(num_classes),
                embed_dim: Some(embed_dim),
                depth: Some(depth),
                num_heads: Some(sizes.num_heads),
                mlp_ratio: config
                    .mlp_ratio
                    .or(Some(sizes.hidden as f64 / embed_dim as f64)),
                reg_tokens: Some(reg_tokens),
                preprocessing: config.preprocessing,
            },
            sizes,
            img_size,
            patch_size,
            patches,
            positions,
            registers,
            blocks,
            norm,
            head,
        })
    }

    /// What it is made of, with every size as the weights have it.
    #[must_use]
    pub fn config(&self) -> &DiffViTConfig {
        &self.config
    }

    /// S: it takes images of S × S pixels.
    #[must_use]
    pub fn img_size(&self) -> usize {
        self.img_size
    }

    /// Classes.
    #[must_use]
    pub fn num_classes(&self) -> usize {
        self.head.outputs()
    }

    /// Blocks.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.blocks.len()
    }

    /// H, the differential heads of a block.
    #[must_use]
    pub fn num_heads(&self) -> usize {
        self.sizes.num_heads
    }

    /// N, tokens of an image: the registers, then the patches, row by row.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.registers() + self.positions.len() / self.sizes.embed_dim
    }

    /// Register tokens.
    fn registers(&self) -> usize {
        self.registers.len() / self.sizes.embed_dim
    }

    /// The attention of a block, if there is one of that index.
    #[must_use]
    pub fn attention(&self, layer: usize) -> Option<&DiffAttnLayer> {
        self.blocks.get(layer).map(|block| &block.attention)
    }

    /// The pixels `[3, S, S]` of an image of any size; see [`Preprocessing::apply`].
    ///
    /// # Errors
    /// As there.
    pub fn preprocess(&self, image: &Image<'_>) -> Result<Vec<f32>, Error> {
        self.config.preprocessing.pixels(image, self.img_size)
    }

    /// Checks a call and prepares it; its output is the logits `[B, classes]`. Pixels are `[B, 3, S, S]`, float32,
    /// normalised (see [`DiffViT::preprocess`]).
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::Dtype`] or [`Error::Option`], naming the argument.
    pub fn forward_job<'a>(
        &'a self,
        pixels: Tensor<'a>,
        options: &DiffViTOptions,
    ) -> Result<DiffViTForward<'a>, Error> {
        DiffViTForward::new(self, &pixels, options)
    }

    /// The logits `[B, classes]` of pixels `[B, 3, S, S]`, as [`DiffViT::forward_job`] in one call.
    ///
    /// # Errors
    /// As [`DiffViT::forward_job`], and [`Error::OutOfMemory`].
    pub fn forward(&self, pixels: Tensor<'_>, options: &DiffViTOptions) -> Result<Vec<f32>, Error> {
        let mut logits: Vec<f32>;
        let mut job = DiffViTForward::new(self, &pixels, options)?;
        logits = try_zeroed(checked_len("pixels", &job.output_shape())?)?;
        job.bind(DataMut::F32(&mut logits))?;
        job.finish()?;
        drop(job);
        Ok(logits)
    }

    /// The `top` likeliest classes of each image, the likeliest first; see [`top_classes`].
    ///
    /// # Errors
    /// As [`DiffViT::forward`]; [`Error::Option`] when `top` is 0 or more than there are classes.
    pub fn classify(
        &self,
        pixels: Tensor<'_>,
        top: usize,
        options: &DiffViTOptions,
    ) -> Result<Vec<Vec<ClassScore>>, Error> {
        let classes = self.num_classes();
        if top == 0 || top > classes {
            return Err(Error::option("top", format_args!("1 to {classes}"), top));
        }
        let logits = self.forward(pixels, options)?;
        logits
            .chunks_exact(classes)
            .map(|logits| top_classes(logits, top))
            .collect()
    }

    /// Checks a call for the maps of block `layer` (from 0) and prepares it: both softmaxes and their difference, each
    /// `[B, H, N, N]`.
    ///
    /// # Errors
    /// As [`DiffViT::forward_job`]; [`Error::Option`] for a block that there is not.
    pub fn maps_job<'a>(
        &'a self,
        pixels: Tensor<'a>,
        layer: usize,
        options: &DiffViTOptions,
    ) -> Result<DiffViTMaps<'a>, Error> {
        DiffViTMaps::new(self, &pixels, layer, options)
    }

    /// The maps of block `layer` in one call; see [`DiffViT::maps_job`].
    ///
    /// # Errors
    /// As [`DiffViT::maps_job`], and [`Error::OutOfMemory`].
    pub fn maps(
        &self,
        pixels: Tensor<'_>,
        layer: usize,
        options: &DiffViTOptions,
    ) -> Result<Maps, Error> {
        let mut terms: Vec<Vec<f32>>;
        let mut diff: Vec<f32>;
        let mut job = DiffViTMaps::new(self, &pixels, layer, options)?;
        let shape = job.map_shape();
        let len = checked_len("pixels", &shape)?;
        terms = vec![try_zeroed(len)?, try_zeroed(len)?];
        diff = try_zeroed(len)?;
        job.bind(MapOutputs {
            terms: terms.iter_mut().map(Vec::as_mut_slice).collect(),
            diff: &mut diff,
        })?;
        job.finish()?;
        drop(job);
        Ok(Maps { shape, terms, diff })
    }
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

/// S and the position embeddings of its patches, resampled where the weights have those of another grid.
fn positions(
    source: &mut Source<'_, '_>,
    config: &DiffViTConfig,
    embed_dim: usize,
    patch_size: usize,
) -> Result<(usize, Vec<f32>), Error> {
    let name = "pos_embed";
    let [_, count, _] = source.shape(name, "[1, patches, embed_dim]")?;
    let stored = source
        .required(name, &[1, count, embed_dim])?
        .data
        .to_f32()?;
    let side = count.isqrt();
    if side * side != count {
        return Err(Error::file(
            format_args!("weights.{name}"),
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
    if grid == side {
        return Ok((img_size, stored));
    }
    let resampled = resample::resample_grid(&stored, side, grid, embed_dim)?;
    Ok((img_size, resampled))
}

/// Heads and channels of the MLP, from the first block.
fn block_sizes(
    source: &mut Source<'_, '_>,
    config: &DiffViTConfig,
    embed_dim: usize,
) -> Result<Sizes, Error> {
    let is_parallel = config.architecture.is_parallel();
    let (norm, into) = if is_parallel {
        ("blocks.0.sub_norm.weight", "blocks.0.in_proj.weight")
    } else {
        ("blocks.0.attn.sub_norm.weight", "blocks.0.mlp.fc1.weight")
    };
    let [head_width] = source.shape(norm, "[2 · head_dim]")?;
    if !head_width.is_multiple_of(2) || !embed_dim.is_multiple_of(head_width) {
        return Err(Error::file(
            format_args!("weights.{norm}"),
            format_args!("an even length that divides embed_dim {embed_dim}"),
            head_width,
        ));
    }
    let num_heads = embed_dim / head_width;
    agree("num_heads", config.num_heads, num_heads, norm)?;
    let [outputs, _] = source.shape(into, "[outputs, embed_dim]")?;
    let attention = if is_parallel { 3 * embed_dim } else { 0 };
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
