//! From pixels to the tokens before a block, in slices: what logits and maps share. A slice is some rows of tokens, or some
//! units of a block's attention.

use super::resample::resample_grid;
use super::{DiffViT, DiffViTOptions};
use crate::forward::{Forward, forward_units};
use crate::layer::DiffAttnLayer;
use crate::options::ForwardOptions;
use crate::projection::{CHUNK, Run, unit_rows};
use diffattn::{
    Data, DataMut, Error, Slices, Tensor, check_len, checked_len, format_shape, gelu, try_zeroed,
};
use self_cell::{MutBorrow, self_cell};
use std::borrow::Cow;
use std::ops::Range;

/// Hidden states and what a block's attention borrows of them.
pub(super) struct Hidden<'a> {
    layer: &'a DiffAttnLayer,
    run: Run,
    /// `[B, N, embed_dim]`, the normalised tokens.
    normed: Vec<f32>,
    /// As large: what attention makes of them.
    attended: MutBorrow<Vec<f32>>,
}

self_cell!(
    /// The attention of a block and what it borrows.
    struct Attending<'a> {
        owner: Hidden<'a>,
        #[not_covariant]
        dependent: Forward,
    }
);

/// How layers are told to run.
pub(super) fn forward_options(run: &Run) -> ForwardOptions<'static> {
    ForwardOptions {
        attn_mask: None,
        run: run.run,
    }
}

impl<'a> Hidden<'a> {
    fn attend(self) -> Result<Attending<'a>, Error> {
        Attending::try_new(self, |hidden| {
            let Run { batch, length, .. } = hidden.run;
            let shape = [batch, length, hidden.layer.embed_dim()];
            let x = Tensor::f32(&hidden.normed, &shape);
            let mut job = hidden
                .layer
                .forward_job(x, None, &forward_options(&hidden.run))?;
            job.bind(DataMut::F32(hidden.attended.borrow_mut()))?;
            Ok(job)
        })
    }
}

enum Stage<'a> {
    /// Patches and registers to tokens, `next` the rows done.
    Embed { next: usize },
    /// A block's attention.
    Attend { block: usize, call: Attending<'a> },
    /// All else of a block, row by row: adds what attention made, runs the MLP, and the norm before what follows. `normed` is
    /// the block's own until a row is done, then the next one's.
    Rows {
        block: usize,
        attended: Vec<f32>,
        next: usize,
    },
    /// The tokens before block `end` are there.
    Done,
    /// A step failed.
    Failed,
}

/// A started pass through the blocks before `end`.
pub(super) struct Trunk<'a> {
    pub(super) model: &'a DiffViT,
    pub(super) run: Run,
    pixels: &'a [f32],
    /// Rows and columns of patches.
    grid: [usize; 2],
    /// `[grid, embed_dim]`: the model's position embeddings, or what they were resampled to once work began.
    positions: Cow<'a, [f32]>,
    /// The first block that is not run.
    end: usize,
    stage: Stage<'a>,
    /// `[B, N, embed_dim]`, the tokens.
    pub(super) x: Vec<f32>,
    /// As large: the tokens through the norm of the next block to run, if there is one in the model; away while attention
    /// has it.
    pub(super) normed: Vec<f32>,
    /// Units of the embedding, of one attention, and of one block's rows.
    units: [usize; 3],
}

impl<'a> Trunk<'a> {
    /// Checks pixels and options. Allocates nothing yet.
    pub(super) fn new(
        model: &'a DiffViT,
        pixels: &Tensor<'a>,
        end: usize,
        options: &DiffViTOptions,
    ) -> Result<Self, Error> {
        let Data::F32(data) = pixels.data else {
            let got = pixels.data.dtype().name();
            return Err(Error::dtype("pixels", "float32", got));
        };
        let (size, side) = (model.img_size, model.patch_size);
        let (batch, sides) = match *pixels.shape.as_slice() {
            [batch, channels, rows, columns] if channels == model.in_chans => {
                (batch, [rows, columns])
            }
            _ => return Err(wrong_shape(model, &pixels.shape)),
        };
        let fits = if model.config.dynamic_img_size {
            let whole = |length: usize| length > 0 && length.is_multiple_of(side);
            sides.into_iter().all(whole)
        } else {
            sides == [size; 2]
        };
        if !fits {
            return Err(wrong_shape(model, &pixels.shape));
        }
        check_len("pixels", &pixels.shape, data.len())?;
        let grid = sides.map(|length| length / side);
        // (Of no images, sides may be of any size.)
        let tokens = grid[0]
            .checked_mul(grid[1])
            .and_then(|patches| patches.checked_add(model.registers()))
            .ok_or_else(|| wrong_shape(model, &pixels.shape))?;
        let run = Run {
            batch,
            length: tokens,
            past: 0,
            run: options.run,
        };
        let embed_dim = model.sizes.embed_dim;
        checked_len("pixels", &[batch, run.length, embed_dim, 4])?;
        let attention = model
            .blocks
            .first()
            .map_or(0, |block| forward_units(&block.attention, &run));
        let units = [
            run.rows().div_ceil(embed_unit(model)),
            attention,
            run.rows().div_ceil(block_unit(model)),
        ];
        let stage = match batch {
            0 => Stage::Done,
            _ => Stage::Embed { next: 0 },
        };
        Ok(Self {
            model,
            run,
            pixels: data,
            grid,
            positions: Cow::Borrowed(&model.positions),
            end,
            stage,
            x: Vec::new(),
            normed: Vec::new(),
            units,
        })
    }

    pub(super) fn units(&self) -> usize {
        let [embed, attention, rows] = self.units;
        embed + self.end * (attention + rows)
    }

    pub(super) fn units_done(&self) -> usize {
        let [embed, attention, rows] = self.units;
        match &self.stage {
            Stage::Embed { next } => next / embed_unit(self.model),
            Stage::Attend { block, call } => {
                let part =
                    call.with_dependent(|_, call| call.done() * attention / call.total().max(1));
                embed + block * (attention + rows) + part
            }
            Stage::Rows { block, next, .. } => {
                embed + block * (attention + rows) + attention + next / block_unit(self.model)
            }
            Stage::Done => self.units(),
            Stage::Failed => 0,
        }
    }

    pub(super) fn is_done(&self) -> bool {
        matches!(self.stage, Stage::Done)
    }

    /// Works on `count` units of the stage at most; returns how many.
    pub(super) fn advance(&mut self, count: usize) -> Result<usize, Error> {
        let rows = self.run.rows();
        // Whatever fails leaves the job failed.
        let (stage, worked) = match std::mem::replace(&mut self.stage, Stage::Failed) {
            Stage::Embed { next } => {
                if next == 0 {
                    let len = rows * self.model.sizes.embed_dim;
                    (self.x, self.normed) = (try_zeroed(len)?, try_zeroed(len)?);
                    self.resample()?;
                }
                let (end, worked) = slice(next, rows, embed_unit(self.model), count);
                self.embed(next..end)?;
                if end < rows {
                    (Stage::Embed { next: end }, worked)
                } else {
                    (self.enter(0, None)?, worked)
                }
            }
            Stage::Attend { block, mut call } => {
                let (worked, finished) = call.with_dependent_mut(|_, call| {
                    let before = call.done();
                    call.step(count)?;
                    Ok((call.done() - before, call.done() == call.total()))
                })?;
                if finished {
                    let Hidden {
                        normed, attended, ..
                    } = call.into_owner();
                    self.normed = normed;
                    let attended = attended.into_inner();
                    (
                        Stage::Rows {
                            block,
                            attended,
                            next: 0,
                        },
                        worked,
                    )
                } else {
                    (Stage::Attend { block, call }, worked)
                }
            }
            Stage::Rows {
                block,
                attended,
                next,
            } => {
                let (end, worked) = slice(next, rows, block_unit(self.model), count);
                self.block_rows(block, &attended, next..end)?;
                if end < rows {
                    (
                        Stage::Rows {
                            block,
                            attended,
                            next: end,
                        },
                        worked,
                    )
                } else {
                    (self.enter(block + 1, Some(attended))?, worked)
                }
            }
            Stage::Done => (Stage::Done, 0),
            Stage::Failed => {
                return Err(Error::Internal(
                    "a model was stepped after a step that failed".to_owned(),
                ));
            }
        };
        self.stage = stage;
        Ok(worked)
    }

    /// Prepares the attention of a block, if it is to be run; `memory` is that of the last one.
    fn enter(&mut self, block: usize, memory: Option<Vec<f32>>) -> Result<Stage<'a>, Error> {
        if block == self.end {
            return Ok(Stage::Done);
        }
        let attended = match memory {
            Some(memory) => memory,
            None => try_zeroed(self.normed.len())?,
        };
        let hidden = Hidden {
            layer: &self.model.blocks[block].attention,
            run: self.run,
            normed: std::mem::take(&mut self.normed),
            attended: MutBorrow::new(attended),
        };
        let call = hidden.attend()?;
        Ok(Stage::Attend { block, call })
    }

    /// Position embeddings for a grid that is not the model's.
    fn resample(&mut self) -> Result<(), Error> {
        let model = self.model;
        let from = [model.img_size / model.patch_size; 2];
        if self.grid != from {
            let width = model.sizes.embed_dim;
            let made = resample_grid("pixels", &model.positions, from, self.grid, width)?;
            self.positions = Cow::Owned(made);
        }
        Ok(())
    }

    /// Rows of tokens from their pixels: registers as they are, patches through their map, plus their position; then the
    /// first block's norm.
    fn embed(&mut self, rows: Range<usize>) -> Result<(), Error> {
        let model = self.model;
        let (tokens, registers, width) =
            (self.run.length, model.registers(), model.sizes.embed_dim);
        let side = model.patch_size;
        let [_, columns] = self.grid;
        // Values of a row of pixels, of a channel, and of an image.
        let line_len = columns * side;
        let plane = self.grid[0] * side * line_len;
        let image_len = model.in_chans * plane;
        let inputs = model.patches.inputs();
        let mut patches = try_zeroed(CHUNK.min(rows.len()) * inputs)?;
        let mut at = rows.start;
        while at < rows.end {
            // A stretch of registers, or one of patches of one image.
            let (image, token) = (at / tokens, at % tokens);
            let left = rows.end - at;
            if token < registers {
                let count = left.min(registers - token);
                let from = &model.registers[token * width..(token + count) * width];
                self.x[at * width..(at + count) * width].copy_from_slice(from);
                at += count;
                continue;
            }
            let count = left.min(tokens - token).min(CHUNK);
            let first = token - registers;
            let image = &self.pixels[image * image_len..(image + 1) * image_len];
            for (patch, to) in (first..).zip(patches[..count * inputs].chunks_exact_mut(inputs)) {
                let corner = patch / columns * side * line_len + patch % columns * side;
                for (line, to) in to.chunks_exact_mut(side).enumerate() {
                    let from = line / side * plane + line % side * line_len + corner;
                    to.copy_from_slice(&image[from..from + side]);
                }
            }
            let x = &mut self.x[at * width..(at + count) * width];
            model
                .patches
                .forward(&patches[..count * inputs], x, self.run.run)?;
            let positions = &self.positions[first * width..(first + count) * width];
            for (x, position) in x.iter_mut().zip(positions) {
                *x += position;
            }
            at += count;
        }
        let range = rows.start * width..rows.end * width;
        match model.blocks.first() {
            None => Ok(()),
            Some(block) => {
                let normed = &mut self.normed[range.clone()];
                block.norm.forward(&self.x[range], normed, self.run.run)
            }
        }
    }

    /// The rest of a block for some rows.
    fn block_rows(
        &mut self,
        block: usize,
        attended: &[f32],
        rows: Range<usize>,
    ) -> Result<(), Error> {
        let (width, hidden) = (self.model.sizes.embed_dim, self.model.sizes.hidden);
        let next = self.model.blocks.get(block + 1);
        let block = &self.model.blocks[block];
        let options = self.run.run;
        let chunk = CHUNK.min(rows.len());
        let mut inner = try_zeroed(chunk * hidden)?;
        let mut outer = try_zeroed(chunk * width)?;
        for first in rows.clone().step_by(CHUNK) {
            let count = CHUNK.min(rows.end - first);
            let range = first * width..(first + count) * width;
            let x = &mut self.x[range.clone()];
            let normed = &mut self.normed[range.clone()];
            let inner = &mut inner[..count * hidden];
            let outer = &mut outer[..count * width];
            add(x, &attended[range], block.attention_scale.as_deref());
            if let Some(norm) = &block.mlp_norm {
                norm.forward(x, normed, options)?;
            }
            block.fc1.forward(normed, inner, options)?;
            gelu(inner, options);
            block.fc2.forward(inner, outer, options)?;
            add(x, outer, block.mlp_scale.as_deref());
            if let Some(next) = next {
                next.norm.forward(x, normed, options)?;
            }
        }
        Ok(())
    }
}

fn wrong_shape(model: &DiffViT, shape: &[usize]) -> Error {
    let DiffViT {
        in_chans,
        img_size,
        patch_size,
        ..
    } = model;
    let expected = if model.config.dynamic_img_size {
        format!("shape [B, {in_chans}, H, W], H and W multiples of the patch size {patch_size}")
    } else {
        format!("shape [B, {in_chans}, {img_size}, {img_size}]")
    };
    Error::shape("pixels", expected, format_shape(shape))
}

/// `x += scale · y`, the scale one per channel.
fn add(x: &mut [f32], y: &[f32], scale: Option<&[f32]>) {
    match scale {
        None => x.iter_mut().zip(y).for_each(|(x, y)| *x += y),
        Some(scale) => {
            for (x, y) in x
                .chunks_exact_mut(scale.len())
                .zip(y.chunks_exact(scale.len()))
            {
                for ((x, y), scale) in x.iter_mut().zip(y).zip(scale) {
                    *x += scale * y;
                }
            }
        }
    }
}

/// Where `count` units of `unit` rows from `next` end, and how many units that is.
pub(super) fn slice(next: usize, rows: usize, unit: usize, count: usize) -> (usize, usize) {
    let end = next.saturating_add(count.saturating_mul(unit)).min(rows);
    (end, (end - next).div_ceil(unit))
}

/// Rows per unit of the embedding.
fn embed_unit(model: &DiffViT) -> usize {
    unit_rows(
        model
            .patches
            .inputs()
            .saturating_mul(model.patches.outputs()),
    )
}

/// Rows per unit of what a block has beside attention.
fn block_unit(model: &DiffViT) -> usize {
    let block = model.sizes.embed_dim.saturating_mul(model.sizes.hidden);
    unit_rows(block.saturating_mul(2))
}
