//! How a DIFF vision transformer is made and called. Computes nothing itself.

use super::config::DiffViTConfig;
use super::forward::{DiffViTForward, DiffViTMaps};
use super::load::DiffViTLoader;
use super::model::{DiffViT, DiffViTOptions};
use crate::image::Image;
use crate::image::{ClassScore, top_classes};
use crate::models::ModelLoader;
use crate::parts::WeightSource;
use crate::pass::alone::Maps;
use crate::weights::Weights;
use diffattn::{DataMut, Error, Tensor, checked_len, try_zeroed};

impl DiffViT {
    /// Checks config and weights and packs the weights, which are not needed afterwards; see
    /// [`DiffViTLoader`].
    ///
    /// # Errors
    /// As [`DiffViTLoader::new`] and [`ModelLoader::load_part`]; [`Error::out_of_memory`].
    pub fn new(config: &DiffViTConfig, weights: &Weights<'_>) -> Result<Self, Error> {
        let mut source = weights;
        let mut loader = DiffViTLoader::new(config, &source.entries()?)?;
        <dyn ModelLoader>::load_all(&mut loader, &mut source)?;
        loader.finish()
    }

    /// The pixels `[C, S, S]` of an image of any size; see
    /// [`Preprocessing::apply`](crate::Preprocessing::apply) and, of one channel,
    /// [`Preprocessing::apply_luminance`](crate::Preprocessing::apply_luminance).
    ///
    /// # Errors
    /// As [`Preprocessing::apply`](crate::Preprocessing::apply) and [`DiffViT::check_images`].
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
    /// [`ErrorKind::Dtype`](diffattn::ErrorKind::Dtype) naming `image` where its pixels are neither
    /// colours nor luminance.
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

    /// Checks a call and prepares it; its output is the logits `[B, classes]`, or features `[B,
    /// embed_dim]` where there is no head. Pixels are `[B, C, S, S]`, float32, normalised (see
    /// [`DiffViT::preprocess`]); with `dynamic_img_size` `[B, C, H, W]` of any whole patches, for
    /// whose grid position embeddings are resampled (timm's `resample_abs_pos_embed`).
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](diffattn::ErrorKind::Shape),
    /// [`ErrorKind::Dtype`](diffattn::ErrorKind::Dtype) or
    /// [`ErrorKind::Option`](diffattn::ErrorKind::Option), naming the argument.
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
    /// As [`DiffViT::forward_job`], and [`Error::out_of_memory`].
    pub fn forward(&self, pixels: Tensor<'_>, options: &DiffViTOptions) -> Result<Vec<f32>, Error> {
        let job = self.forward_job(pixels, options)?;
        let mut logits = try_zeroed(checked_len("pixels", &job.output_shape())?)?;
        job.into_work(DataMut::F32(&mut logits))?.finish()?;
        Ok(logits)
    }

    /// The `top` likeliest classes of each image, the likeliest first; see [`top_classes`].
    ///
    /// # Errors
    /// As [`DiffViT::forward`] and [`DiffViT::check_classes`];
    /// [`ErrorKind::Option`](diffattn::ErrorKind::Option) when `top` is 0 or more than there are
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

    /// Checks a call for the maps of block `layer` (from 0) and prepares it: both softmaxes and
    /// their difference, each `[B, H, N, N]`.
    ///
    /// # Errors
    /// As [`DiffViT::forward_job`]; [`ErrorKind::Option`](diffattn::ErrorKind::Option) for a block
    /// that there is not.
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
    /// As [`DiffViT::maps_job`], and [`Error::out_of_memory`].
    pub fn maps(
        &self,
        pixels: Tensor<'_>,
        layer: usize,
        options: &DiffViTOptions,
    ) -> Result<Maps, Error> {
        let job = self.maps_job(pixels, layer, options)?;
        let mut maps = Maps::zeroed("pixels", job.map_shape(), job.terms())?;
        job.into_work(maps.as_outputs())?.finish()?;
        Ok(maps)
    }
}
