//! timm's DIFF vision transformers: image in, logits out. Holds the weights; the numbers are made in `trunk.rs` and
//! `forward.rs`.

mod block;
mod classify;
mod config;
mod forward;
mod load;
mod maps;
mod preprocess;
mod resample;
mod trunk;

pub use classify::{ClassScore, top_classes};
pub use config::{DiffViTArchitecture, DiffViTConfig};
pub use forward::DiffViTForward;
pub use load::DiffViTLoader;
pub use maps::DiffViTMaps;
pub use preprocess::{Image, Preprocessing};
pub use resample::Interpolation;

use crate::layer::DiffAttnLayer;
use crate::maps::Maps;
use crate::parts::{WeightSource, read_part};
use crate::weights::Weights;
use block::{Block, Norm, Sizes};
use diffattn::{DataMut, Error, Linear, MapOutputs, Slices, Tensor, checked_len, try_zeroed};

/// A DIFF vision transformer with its weights (timm, `vision_transformer.py`): patches through a linear map and with a
/// position embedding each, register tokens before them, blocks of [`crate::MultiheadDiffAttn`] (not causal) and an MLP with
/// exact GELU, the mean of the patches' tokens, a layer norm, and the logits (or, without a head, what the norm gave:
/// features).
///
/// An image's bits do not depend on the batch, on threads or on the slices that a job is worked off in.
#[derive(Debug, Clone)]
pub struct DiffViT {
    config: DiffViTConfig,
    sizes: Sizes,
    /// S and P.
    img_size: usize,
    patch_size: usize,
    /// C.
    in_chans: usize,
    patches: Linear,
    /// `[(S / P)², embed_dim]`.
    positions: Vec<f32>,
    /// `[registers, embed_dim]`.
    registers: Vec<f32>,
    blocks: Vec<Block>,
    norm: Norm,
    /// None where there are no classes.
    head: Option<Linear>,
}

/// How a call of a model is run.
#[derive(Debug, Clone, Copy, Default)]
pub struct DiffViTOptions {
    /// How the call runs: instruction set, threads, fused or not.
    pub run: diffattn::Run,
}

impl DiffViT {
    /// Checks config and weights and packs the weights, which are not needed afterwards; see [`DiffViTLoader`].
    ///
    /// # Errors
    /// As [`DiffViTLoader::new`] and [`DiffViTLoader::load_part`]; [`Error::OutOfMemory`].
    pub fn new(config: &DiffViTConfig, weights: &Weights<'_>) -> Result<Self, Error> {
        let mut source = weights;
        let mut loader = DiffViTLoader::new(config, &source.entries()?)?;
        for part in 0..loader.parts().len() {
            let weights = read_part(&loader.parts()[part], &mut source)?;
            loader.load_part(part, weights)?.finish()?;
        }
        loader.finish()
    }

    /// What it is made of, with every size as the weights have it.
    #[must_use]
    pub fn config(&self) -> &DiffViTConfig {
        &self.config
    }

    /// S: it takes images of S × S pixels. (Of other sizes as well, where the config has `dynamic_img_size`.)
    #[must_use]
    pub fn img_size(&self) -> usize {
        self.img_size
    }

    /// C, the channels of its images.
    #[must_use]
    pub fn in_chans(&self) -> usize {
        self.in_chans
    }

    /// Classes; 0 where it has no head.
    #[must_use]
    pub fn num_classes(&self) -> usize {
        self.head.as_ref().map_or(0, Linear::outputs)
    }

    /// Values of an image's result: classes, or channels of the features where there is no head.
    #[must_use]
    pub fn outputs(&self) -> usize {
        self.head
            .as_ref()
            .map_or(self.sizes.embed_dim, Linear::outputs)
    }

    /// Whether it tells classes.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`](diffattn::ErrorKind::Unavailable) where it has no head.
    pub fn check_classes(&self) -> Result<(), Error> {
        match self.head {
            Some(_) => Ok(()),
            None => Err(Error::unavailable(
                "model",
                "one with a head (head.weight) to tell classes by",
                "one without, whose forward gives features",
            )),
        }
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

    /// N, tokens of an image of S × S pixels: the registers, then the patches, row by row.
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

    /// The pixels `[C, S, S]` of an image of any size; see [`Preprocessing::apply`] and, of one channel,
    /// [`Preprocessing::apply_luminance`].
    ///
    /// # Errors
    /// As there, and as [`DiffViT::check_images`].
    pub fn preprocess(&self, image: &Image<'_>) -> Result<Vec<f32>, Error> {
        self.check_images()?;
        let preprocessing = &self.config.preprocessing;
        match self.in_chans {
            1 => preprocessing.luminance(image, self.img_size),
            _ => preprocessing.pixels(image, self.img_size),
        }
    }

    /// Whether it takes 8-bit images.
    ///
    /// # Errors
    /// [`ErrorKind::Dtype`](diffattn::ErrorKind::Dtype) naming `image` where its pixels are neither colours nor luminance.
    pub fn check_images(&self) -> Result<(), Error> {
        match self.in_chans {
            1 | 3 => Ok(()),
            channels => Err(Error::dtype(
                "image",
                format_args!(
                    "a tensor [B, {channels}, H, W], as the model takes {channels} channels"
                ),
                "an image, which has colours",
            )),
        }
    }

    /// Checks a call and prepares it; its output is the logits `[B, classes]`, or features `[B, embed_dim]` where there is no
    /// head. Pixels are `[B, C, S, S]`, float32, normalised (see [`DiffViT::preprocess`]); with `dynamic_img_size` `[B, C, H,
    /// W]` of any whole patches, for whose grid position embeddings are resampled (timm's `resample_abs_pos_embed`).
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](diffattn::ErrorKind::Shape), [`ErrorKind::Dtype`](diffattn::ErrorKind::Dtype) or [`ErrorKind::Option`](diffattn::ErrorKind::Option), naming the argument.
    pub fn forward_job<'a>(
        &'a self,
        pixels: Tensor<'a>,
        options: &DiffViTOptions,
    ) -> Result<DiffViTForward<'a>, Error> {
        DiffViTForward::new(self, &pixels, options)
    }

    /// The logits (or features) of pixels, as [`DiffViT::forward_job`] in one call.
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
    /// As [`DiffViT::forward`] and [`DiffViT::check_classes`]; [`ErrorKind::Option`](diffattn::ErrorKind::Option) when `top` is 0 or more than there are
    /// classes.
    pub fn classify(
        &self,
        pixels: Tensor<'_>,
        top: usize,
        options: &DiffViTOptions,
    ) -> Result<Vec<Vec<ClassScore>>, Error> {
        self.check_classes()?;
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
    /// As [`DiffViT::forward_job`]; [`ErrorKind::Option`](diffattn::ErrorKind::Option) for a block that there is not.
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
