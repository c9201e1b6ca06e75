//! The weights of a DIFF vision transformer, and the list of layers that they are. Runs nothing.

use super::block::{Block, Norm, Sizes};
use super::config::DiffViTConfig;
use crate::layers::attention::DiffAttnLayer;
use crate::layers::{Head, Layer, Mlp, MlpBranch};
use diffattn::{Error, Linear, Run};

/// A DIFF vision transformer with its weights (timm, `vision_transformer.py`): patches through a
/// linear map and with a position embedding each, register tokens before them, blocks of
/// [`crate::MultiheadDiffAttn`] (not causal) and an MLP with exact GELU, the mean of the patches'
/// tokens, a layer norm, and the logits (or, without a head, what the norm gave: features).
///
/// An image's bits do not depend on the batch, on threads or on the slices that a job is worked off
/// in.
#[derive(Debug, Clone)]
pub struct DiffViT {
    pub(super) config: DiffViTConfig,
    pub(crate) sizes: Sizes,
    /// S and P.
    pub(super) img_size: usize,
    pub(crate) patch_size: usize,
    /// C.
    pub(super) in_chans: usize,
    pub(crate) patches: Linear,
    /// `[(S / P)², embed_dim]`.
    pub(crate) positions: Vec<f32>,
    /// `[registers, embed_dim]`.
    pub(crate) registers: Vec<f32>,
    pub(crate) blocks: Vec<Block>,
    pub(crate) norm: Norm,
    /// None where there are no classes.
    pub(crate) head: Option<Linear>,
}

/// How a call of a model is run.
#[derive(Debug, Clone, Copy, Default)]
pub struct DiffViTOptions {
    /// How the call runs: instruction set, threads, fused or not.
    pub run: Run,
}

impl DiffViT {
    /// What it is made of, with every size as the weights have it.
    #[must_use]
    pub fn config(&self) -> &DiffViTConfig {
        &self.config
    }

    /// S: it takes images of S × S pixels. (Of other sizes as well, where the config has
    /// `dynamic_img_size`.)
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
        self.logits().outputs()
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
    pub(crate) fn registers(&self) -> usize {
        self.registers.len() / self.sizes.embed_dim
    }

    /// The attention of a block, if there is one of that index.
    #[must_use]
    pub fn attention(&self, layer: usize) -> Option<&DiffAttnLayer> {
        self.blocks.get(layer).map(|block| &block.attention)
    }

    /// What makes logits of the mean of the patches' tokens.
    pub(super) fn logits(&self) -> Head<'_> {
        Head {
            norm: self.norm.rows(),
            map: self.head.as_ref(),
        }
    }

    /// Its blocks, as passes see them.
    pub(super) fn layers(&self) -> Vec<Layer<'_>> {
        let layers = self.blocks.iter().map(|block| {
            let Block {
                norm,
                attention,
                attention_scale,
                mlp_norm,
                fc1,
                fc2,
                mlp_scale,
            } = block;
            Layer {
                mixer: attention.into(),
                norm: Some(norm.rows()),
                scale: attention_scale.as_deref(),
                mlp: Some(MlpBranch {
                    norm: mlp_norm.as_ref().map(Norm::rows),
                    mlp: Mlp::Gelu { fc1, fc2 },
                    scale: mlp_scale.as_deref(),
                }),
            }
        });
        layers.collect()
    }
}
