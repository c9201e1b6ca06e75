//! What images are asked for: logits, or the maps of one block.

use super::call::Call;
use super::model::{DiffViT, DiffViTOptions};
use crate::pass::Outputs;
use diffattn::{DataMut, Error, MapOutputs, Tensor, Work, check_len, checked_len, try_zeroed};
use std::ops::Range;

/// Images per unit of pooling and logits.
const HEAD_IMAGES: usize = 8;

/// A checked forward pass: made by [`DiffViT::forward_job`], worked off by what
/// [`DiffViTForward::into_work`] makes of it.
#[derive(Debug)]
pub struct DiffViTForward<'a> {
    call: Call<'a>,
}

impl<'a> DiffViTForward<'a> {
    pub(super) fn new(
        model: &'a DiffViT,
        pixels: &Tensor<'a>,
        options: &DiffViTOptions,
    ) -> Result<Self, Error> {
        let call = Call::new(model, pixels, options)?;
        checked_len("pixels", &[call.batch, model.outputs()])?;
        Ok(Self { call })
    }

    /// Units of its work.
    #[must_use]
    pub fn units(&self) -> usize {
        let heads = self.call.batch.div_ceil(HEAD_IMAGES);
        self.call.units(&self.call.plan(None)) + heads
    }

    /// `[B, classes]`, or `[B, embed_dim]` where there is no head.
    #[must_use]
    pub fn output_shape(&self) -> [usize; 2] {
        [self.call.batch, self.call.model.outputs()]
    }

    /// The work that writes the logits, float32, into `out`.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](diffattn::ErrorKind::Shape) or
    /// [`ErrorKind::Dtype`](diffattn::ErrorKind::Dtype) when it does not fit.
    pub fn into_work(self, out: DataMut<'a>) -> Result<Work<'a>, Error> {
        let DataMut::F32(out) = out else {
            return Err(Error::dtype("out", "float32", out.dtype().name()));
        };
        check_len("out", &self.output_shape(), out.len())?;
        let (call, total) = (self.call, self.units());
        let plan = call.plan(None);
        let outputs = call.model.outputs();
        Ok(Work::new(total, |pace| async move {
            let x = call.pass(plan, Outputs::default(), &pace).await?;
            let head = |images: Range<usize>| {
                let out = &mut out[images.start * outputs..images.end * outputs];
                logits(&call, &x, images, out)
            };
            pace.rows(0..call.batch, HEAD_IMAGES, head).await
        }))
    }
}

/// The logits of some images: the mean of the patches' tokens, in float64, its norm, and the last
/// map, if there is one.
fn logits(call: &Call<'_>, x: &[f32], images: Range<usize>, out: &mut [f32]) -> Result<(), Error> {
    let (model, tokens, run) = (call.model, call.tokens, call.run);
    let (width, registers) = (model.sizes.embed_dim, model.registers());
    let mut means = try_zeroed::<f32>(images.len() * width)?;
    let mut sums = try_zeroed::<f64>(width)?;
    for (image, mean) in images.clone().zip(means.chunks_exact_mut(width)) {
        let tokens = &x[image * tokens * width..(image + 1) * tokens * width];
        pool(tokens, registers, &mut sums, mean);
    }
    model.logits().rows(&means, out, run)
}

/// The mean of the patches' tokens of an image, behind its registers, in float64; `sums` is as wide
/// as a token.
pub(crate) fn pool(tokens: &[f32], registers: usize, sums: &mut [f64], mean: &mut [f32]) {
    let width = mean.len();
    sums.fill(0.0);
    for token in tokens.chunks_exact(width).skip(registers) {
        for (sum, &value) in sums.iter_mut().zip(token) {
            *sum += f64::from(value);
        }
    }
    let patches = (tokens.len() / width - registers) as f64;
    for (mean, sum) in mean.iter_mut().zip(sums) {
        *mean = (*sum / patches) as f32;
    }
}

/// A checked maps call of a model: made by [`DiffViT::maps_job`], worked off by what
/// [`DiffViTMaps::into_work`] makes of it.
#[derive(Debug)]
pub struct DiffViTMaps<'a> {
    call: Call<'a>,
    layer: usize,
}

impl<'a> DiffViTMaps<'a> {
    pub(super) fn new(
        model: &'a DiffViT,
        pixels: &Tensor<'a>,
        layer: usize,
        options: &DiffViTOptions,
    ) -> Result<Self, Error> {
        let depth = model.depth();
        if layer >= depth {
            let expected = format!("0 to {}", depth.saturating_sub(1));
            return Err(Error::option("layer", expected, layer));
        }
        let call = Call::new(model, pixels, options)?;
        let job = Self { call, layer };
        checked_len("pixels", &job.map_shape())?;
        Ok(job)
    }

    /// Units of its work.
    #[must_use]
    pub fn units(&self) -> usize {
        self.call.units(&self.call.plan(Some(self.layer)))
    }

    /// Maps besides the difference: two.
    #[must_use]
    pub fn terms(&self) -> usize {
        2
    }

    /// `[B, H, N, N]`.
    #[must_use]
    pub fn map_shape(&self) -> [usize; 4] {
        let Call { batch, tokens, .. } = self.call;
        [batch, self.call.model.num_heads(), tokens, tokens]
    }

    /// The work that writes the maps, each of [`DiffViTMaps::map_shape`].
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](diffattn::ErrorKind::Shape) when one does not fit.
    pub fn into_work(self, outputs: MapOutputs<'a>) -> Result<Work<'a>, Error> {
        outputs.check(self.terms(), &self.map_shape())?;
        let (call, total) = (self.call, self.units());
        let plan = call.plan(Some(self.layer));
        let outputs = Outputs {
            maps: vec![outputs],
            ..Outputs::default()
        };
        Ok(Work::new(total, |pace| async move {
            call.pass(plan, outputs, &pace).await.map(drop)
        }))
    }
}
