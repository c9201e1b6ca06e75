//! A forward pass as a job: the blocks, then the logits, in slices.

use super::trunk::{Trunk, slice};
use super::{DiffViT, DiffViTOptions};
use diffattn::{DataMut, Error, Slices, Tensor, check_len, checked_len, try_zeroed};
use std::ops::Range;

/// Images per unit of pooling and logits.
const HEAD_IMAGES: usize = 8;

/// A checked forward pass: made by [`DiffViT::forward_job`], given its output by [`DiffViTForward::bind`], worked off by
/// [`Slices::step`].
pub struct DiffViTForward<'a> {
    trunk: Trunk<'a>,
    out: Option<&'a mut [f32]>,
    /// Images whose logits are there.
    next: usize,
}

impl std::fmt::Debug for DiffViTForward<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DiffViTForward")
            .field("run", &self.trunk.run)
            .field("done", &self.done())
            .finish_non_exhaustive()
    }
}

impl<'a> DiffViTForward<'a> {
    pub(super) fn new(
        model: &'a DiffViT,
        pixels: &Tensor<'a>,
        options: &DiffViTOptions,
    ) -> Result<Self, Error> {
        let trunk = Trunk::new(model, pixels, model.blocks.len(), options)?;
        checked_len("pixels", &[trunk.run.batch, model.outputs()])?;
        Ok(Self {
            trunk,
            out: None,
            next: 0,
        })
    }

    /// `[B, classes]`, or `[B, embed_dim]` where there is no head.
    #[must_use]
    pub fn output_shape(&self) -> [usize; 2] {
        [self.trunk.run.batch, self.trunk.model.outputs()]
    }

    /// Gives the output, float32.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](diffattn::ErrorKind::Shape) or [`ErrorKind::Dtype`](diffattn::ErrorKind::Dtype) when it does not fit.
    pub fn bind(&mut self, out: DataMut<'a>) -> Result<(), Error> {
        let DataMut::F32(out) = out else {
            return Err(Error::dtype("out", "float32", out.dtype().name()));
        };
        check_len("out", &self.output_shape(), out.len())?;
        self.out = Some(out);
        Ok(())
    }

    /// The logits of some images: the mean of the patches' tokens, in float64, its norm, and the last map, if there is one.
    fn logits(&mut self, images: Range<usize>) -> Result<(), Error> {
        let Trunk { model, run, x, .. } = &self.trunk;
        let (width, outputs) = (model.sizes.embed_dim, model.outputs());
        let registers = model.registers();
        let mut means = try_zeroed::<f32>(images.len() * width)?;
        let mut sums = try_zeroed::<f64>(width)?;
        let patches = (run.length - registers) as f64;
        for (image, mean) in images.clone().zip(means.chunks_exact_mut(width)) {
            sums.fill(0.0);
            let tokens = &x[image * run.length * width..(image + 1) * run.length * width];
            for token in tokens.chunks_exact(width).skip(registers) {
                for (sum, &value) in sums.iter_mut().zip(token) {
                    *sum += f64::from(value);
                }
            }
            for (mean, sum) in mean.iter_mut().zip(&sums) {
                *mean = (sum / patches) as f32;
            }
        }
        let out = self.out.as_deref_mut().ok_or_else(unbound)?;
        let out = &mut out[images.start * outputs..images.end * outputs];
        match &model.head {
            None => model.norm.forward(&means, out, run.run),
            Some(head) => {
                let mut normed = try_zeroed::<f32>(images.len() * width)?;
                model.norm.forward(&means, &mut normed, run.run)?;
                head.forward(&normed, out, run.run)
            }
        }
    }
}

pub(super) fn unbound() -> Error {
    Error::Internal("a model was stepped before its output was bound".to_owned())
}

impl Slices for DiffViTForward<'_> {
    fn total(&self) -> usize {
        self.trunk.units() + self.trunk.run.batch.div_ceil(HEAD_IMAGES)
    }

    fn done(&self) -> usize {
        self.trunk.units_done() + self.next.div_ceil(HEAD_IMAGES)
    }

    fn step(&mut self, count: usize) -> Result<(), Error> {
        if self.out.is_none() {
            return Err(unbound());
        }
        let batch = self.trunk.run.batch;
        let mut left = count.max(1);
        while left > 0 && self.next < batch {
            let worked = if self.trunk.is_done() {
                let (end, worked) = slice(self.next, batch, HEAD_IMAGES, left);
                self.logits(self.next..end)?;
                self.next = end;
                worked
            } else {
                self.trunk.advance(left)?
            };
            left -= worked.min(left);
        }
        Ok(())
    }
}
