//! A checked call over images: from pixels to tokens, and through the blocks. What logits and maps
//! share.

use super::model::{DiffViT, DiffViTOptions};
use crate::image::resample_grid;
use crate::pass::{After, Keys, Memory, Outputs, Pass, Plan, Settings, Text};
use diffattn::{Data, Error, Pace, Run, Tensor, check_len, checked_len, format_shape, try_zeroed};
use std::borrow::Cow;
use std::ops::Range;

/// Patches that are gathered at once at most.
const GATHERED: usize = 512;

/// Checked pixels.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call<'a> {
    pub(super) model: &'a DiffViT,
    pixels: &'a [f32],
    pub(super) batch: usize,
    /// Rows and columns of patches.
    grid: [usize; 2],
    /// N, tokens of an image.
    pub(super) tokens: usize,
    pub(super) run: Run,
}

impl<'a> Call<'a> {
    pub(crate) fn new(
        model: &'a DiffViT,
        pixels: &Tensor<'a>,
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
        checked_len("pixels", &[batch, tokens, model.sizes.embed_dim, 4])?;
        Ok(Self {
            model,
            pixels: data,
            batch,
            grid,
            tokens,
            run: options.run,
        })
    }

    /// A pass through all blocks, or for the maps of one through those before.
    pub(super) fn plan(&self, map_layer: Option<usize>) -> Plan<'a> {
        let mut layers = self.model.layers();
        if let Some(layer) = map_layer {
            layers.truncate(layer + 1);
        }
        let text = Text {
            length: self.tokens,
            start: 0,
            again: 0,
        };
        Plan {
            layers,
            texts: vec![text; self.batch],
            chunk: usize::MAX,
            keys: Keys::Whole { append: None },
            after: match map_layer {
                None => After::All,
                Some(_) => After::None,
            },
            map_layers: map_layer.into_iter().collect(),
        }
    }

    /// Units of [`Call::pass`].
    pub(super) fn units(&self, plan: &Plan<'_>) -> usize {
        (self.batch * self.tokens).div_ceil(self.embed_unit(plan)) + plan.units()
    }

    /// Tokens of all images through the layers of the plan, `[B, N, embed_dim]`.
    pub(super) async fn pass(
        &self,
        plan: Plan<'a>,
        mut outputs: Outputs<'_>,
        pace: &Pace,
    ) -> Result<Vec<f32>, Error> {
        let settings = Settings {
            run: self.run,
            window: None,
            argument: "pixels",
            mask: None,
        };
        let mut pass = Pass::new(plan, settings, self.model.sizes.embed_dim)?;
        let positions = self.positions()?;
        let unit = self.embed_unit(&pass.plan);
        let embed = |rows| self.embed(&positions, rows, &mut pass.x);
        pace.rows(0..self.batch * self.tokens, unit, embed).await?;
        for layer in 0..pass.plan.layers.len() {
            pass.layer(layer, Memory::Rows, &mut outputs, pace).await?;
        }
        Ok(pass.x)
    }

    /// Rows per unit of the embedding.
    fn embed_unit(&self, plan: &Plan<'_>) -> usize {
        let patches = &self.model.patches;
        plan.unit(patches.inputs().saturating_mul(patches.outputs()))
    }

    /// The model's position embeddings, resampled for a grid that is not its own.
    fn positions(&self) -> Result<Cow<'a, [f32]>, Error> {
        let model = self.model;
        let from = [model.img_size / model.patch_size; 2];
        if self.grid == from {
            return Ok(Cow::Borrowed(&model.positions));
        }
        let width = model.sizes.embed_dim;
        resample_grid("pixels", &model.positions, from, self.grid, width).map(Cow::Owned)
    }

    /// Rows of tokens from their pixels: registers as they are, patches through their map, plus
    /// their position.
    fn embed(&self, positions: &[f32], rows: Range<usize>, x: &mut [f32]) -> Result<(), Error> {
        let model = self.model;
        let (registers, width) = (model.registers(), model.sizes.embed_dim);
        let inputs = model.patches.inputs();
        let mut patches = try_zeroed(GATHERED.min(rows.len()) * inputs)?;
        let mut at = rows.start;
        while at < rows.end {
            // A stretch of registers, or one of patches of one image.
            let (image, token) = (at / self.tokens, at % self.tokens);
            let left = rows.end - at;
            if token < registers {
                let count = left.min(registers - token);
                let from = &model.registers[token * width..(token + count) * width];
                x[at * width..(at + count) * width].copy_from_slice(from);
                at += count;
                continue;
            }
            let count = left.min(self.tokens - token).min(GATHERED);
            let first = token - registers;
            let patches = &mut patches[..count * inputs];
            self.gather(image, first, patches);
            let x = &mut x[at * width..(at + count) * width];
            model.patches.forward(patches, x, self.run)?;
            let positions = &positions[first * width..(first + count) * width];
            for (x, position) in x.iter_mut().zip(positions) {
                *x += position;
            }
            at += count;
        }
        Ok(())
    }

    /// Pixels of patches of an image, each `[C, P, P]`, from patch `first` on.
    pub(crate) fn gather(&self, image: usize, first: usize, patches: &mut [f32]) {
        let side = self.model.patch_size;
        let [rows, columns] = self.grid;
        // Values of a row of pixels, of a channel, and of an image.
        let line_len = columns * side;
        let plane = rows * side * line_len;
        let image_len = self.model.in_chans * plane;
        let image = &self.pixels[image * image_len..(image + 1) * image_len];
        for (patch, to) in (first..).zip(patches.chunks_exact_mut(self.model.patches.inputs())) {
            let corner = patch / columns * side * line_len + patch % columns * side;
            for (line, to) in to.chunks_exact_mut(side).enumerate() {
                let from = line / side * plane + line % side * line_len + corner;
                to.copy_from_slice(&image[from..from + side]);
            }
        }
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
