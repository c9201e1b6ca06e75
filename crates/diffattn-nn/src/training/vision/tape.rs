//! What a forward pass through a vision transformer keeps for the backward pass, and that pass:
//! from pixels to the features that the head reads, and back. Runs in slices. Knows no loss.

use super::block::{BlockPass, KeptBlock, norm_rows};
use super::parameters::VisionIds;
use crate::models::diff_vit::{Call, DiffViT, DiffViTOptions, pool};
use crate::training::attention::Tokens;
use crate::training::grads::ModelGrads;
use crate::training::images::ImageBatch;
use crate::training::layer::Recompute;
use crate::training::maps::{self, MapBackward};
use crate::training::rows::add;
use crate::training::scratch::{Scratch, sized};
use diffattn::{Error, Pace, Run, Tensor, try_zeroed};

/// What the backward pass needs of the forward pass.
#[derive(Debug, Default)]
pub(super) struct VisionTape {
    /// The pixels of each patch, `[images · patches, C · P · P]`.
    pixels: Vec<f32>,
    /// What the map makes of them; in the backward pass its gradient.
    patches: Vec<f32>,
    /// The input of each block, and the result of the last.
    inputs: Vec<Vec<f32>>,
    /// Of each block, or of one after the other where they are recomputed.
    kept: Vec<KeptBlock>,
    /// The mean of each image's patches.
    pooled: Vec<f32>,
}

/// How a pass runs.
#[derive(Debug, Clone, Copy)]
pub(super) struct How {
    pub(super) recompute: Recompute,
    pub(super) run: Run,
}

/// The tokens of images, as blocks take them.
fn tokens(model: &DiffViT, batch: &ImageBatch, run: Run) -> Tokens<'static> {
    Tokens {
        shape: [batch.images(), model.tokens()],
        cu_seqlens: None,
        turns: &[],
        mask: None,
        run,
    }
}

impl VisionTape {
    /// The features `[images, embed_dim]` of a batch, normed: what the head reads.
    pub(super) async fn forward(
        &mut self,
        pace: &Pace,
        (model, batch): (&DiffViT, &ImageBatch),
        features: &mut Vec<f32>,
        scratch: &mut Scratch,
        How { recompute, run }: How,
    ) -> Result<(), Error> {
        let blocks = model.blocks.len();
        self.inputs.resize_with(blocks + 1, Vec::new);
        self.embed(pace, model, batch, run).await?;
        let is_anew = recompute == Recompute::Layers;
        self.kept
            .resize_with(if is_anew { 1 } else { blocks }, KeptBlock::default);
        for (index, block) in model.blocks.iter().enumerate() {
            let pass = BlockPass {
                block,
                tokens: tokens(model, batch, run),
                keeps_inner: recompute != Recompute::Mlps,
            };
            let (before, after) = self.inputs.split_at_mut(index + 1);
            let x = sized(&mut after[0], before[index].len())?;
            x.copy_from_slice(&before[index]);
            let kept = &mut self.kept[if is_anew { 0 } else { index }];
            pass.forward(pace, x, kept, scratch).await?;
        }
        let width = model.sizes.embed_dim;
        let pooled = sized(&mut self.pooled, batch.images() * width)?;
        let mut sums = try_zeroed::<f64>(width)?;
        let images = self.inputs[blocks].chunks_exact(model.tokens() * width);
        for (tokens, mean) in images.zip(pooled.chunks_exact_mut(width)) {
            pool(tokens, model.registers(), &mut sums, mean);
        }
        let features = sized(features, pooled.len())?;
        norm_rows(&model.norm, run).forward(pooled, features)
    }

    /// Tokens of pixels: registers as they are, patches through their map, plus their position.
    async fn embed(
        &mut self,
        pace: &Pace,
        model: &DiffViT,
        batch: &ImageBatch,
        run: Run,
    ) -> Result<(), Error> {
        let [channels, side] = batch.sizes;
        let shape = [batch.images(), channels, side, side];
        let pixels = Tensor::f32(&batch.pixels, &shape);
        let call = Call::new(model, &pixels, &DiffViTOptions { run })?;
        let (width, inputs) = (model.sizes.embed_dim, model.patches.inputs());
        let count = model.positions.len() / width;
        let rows = batch.images() * count;
        let pixels = sized(&mut self.pixels, rows * inputs)?;
        for (image, to) in pixels.chunks_exact_mut(count * inputs).enumerate() {
            call.gather(image, 0, to);
        }
        let patches = sized(&mut self.patches, rows * width)?;
        maps::forward(pace, &model.patches, pixels, patches, run).await?;
        let len = model.tokens() * width;
        let x = sized(&mut self.inputs[0], batch.images() * len)?;
        let of = patches.chunks_exact(count * width);
        for (x, patches) in x.chunks_exact_mut(len).zip(of) {
            let (registers, x) = x.split_at_mut(model.registers.len());
            registers.copy_from_slice(&model.registers);
            x.copy_from_slice(patches);
            add(x, &model.positions);
        }
        Ok(())
    }

    /// Backward from the gradient of the features; and the gradients of what moves.
    pub(super) async fn backward(
        &mut self,
        pace: &Pace,
        (model, batch, d_features): (&DiffViT, &ImageBatch, &[f32]),
        scratch: &mut Scratch,
        How { recompute, run }: How,
        mut to: ModelGrads<'_, VisionIds>,
    ) -> Result<(), Error> {
        let blocks = model.blocks.len();
        let mut d_pooled = try_zeroed(self.pooled.len())?;
        let norm = norm_rows(&model.norm, run);
        let grads = (&mut *to.arena, to.ids.norm);
        norm.backward([d_features, &self.pooled], &mut d_pooled, grads)?;
        to.tell(blocks + 1)?;
        let mut d = try_zeroed(self.inputs[blocks].len())?;
        unpool(model, &d_pooled, &mut d);
        for (index, block) in model.blocks.iter().enumerate().rev() {
            let pass = BlockPass {
                block,
                tokens: tokens(model, batch, run),
                keeps_inner: recompute != Recompute::Mlps,
            };
            let is_anew = recompute == Recompute::Layers;
            let kept = &mut self.kept[if is_anew { 0 } else { index }];
            if is_anew {
                // (What stood behind the block is not read again.)
                let (before, behind) = self.inputs.split_at_mut(index + 1);
                behind[0].copy_from_slice(&before[index]);
                pass.forward(pace, &mut behind[0], kept, scratch).await?;
            }
            let ids = &to.ids.blocks[index];
            let grads = to.layer(index, ids);
            let x = (self.inputs[index].as_slice(), d.as_mut_slice());
            pass.backward(pace, x, kept, scratch, grads).await?;
            to.end_layer(index, &block.attention, &ids.attention)?;
        }
        self.embed_backward(pace, (model, &d), &mut to, run).await?;
        to.tell(0)
    }

    /// The gradients of registers and positions, image after image, and of the map of patches.
    async fn embed_backward(
        &mut self,
        pace: &Pace,
        (model, d): (&DiffViT, &[f32]),
        to: &mut ModelGrads<'_, VisionIds>,
        run: Run,
    ) -> Result<(), Error> {
        let ModelGrads { ids, arena, .. } = to;
        let len = model.tokens() * model.sizes.embed_dim;
        let of = self.patches.chunks_exact_mut(model.positions.len());
        for (d, patches) in d.chunks_exact(len).zip(of) {
            let (registers, d) = d.split_at(model.registers.len());
            patches.copy_from_slice(d);
            for (id, d) in [(ids.registers, registers), (ids.positions, d)] {
                if let Some(id) = id {
                    add(arena.gradient(id), d);
                }
            }
        }
        MapBackward {
            linear: &model.patches,
            ids: ids.patches,
            dy: &self.patches,
            x: &self.pixels,
            dx: None,
        }
        .run(pace, arena, run)
        .await
    }
}

/// The gradient of tokens for that of the mean of each image's patches.
fn unpool(model: &DiffViT, d_pooled: &[f32], d: &mut [f32]) {
    let (width, registers) = (model.sizes.embed_dim, model.registers());
    let patches = (model.tokens() - registers) as f64;
    let images = d.chunks_exact_mut(model.tokens() * width);
    for (d, of) in images.zip(d_pooled.chunks_exact(width)) {
        for d in d.chunks_exact_mut(width).skip(registers) {
            for (d, &of) in d.iter_mut().zip(of) {
                *d = (f64::from(of) / patches) as f32;
            }
        }
    }
}
