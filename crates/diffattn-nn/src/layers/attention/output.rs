//! From what attention made to the layer's result: mixes and normalises where attention could not,
//! then projects. Works row by row.

use super::fusion::Fusion;
use super::layer::{DiffAttnLayer, HeadNorm};
use diffattn::{DataMut, Error, RmsNorm, RmsNormOptions, Run, Tensor, try_zeroed};

impl DiffAttnLayer {
    /// Multiply-adds of a row in the output projection.
    pub(crate) fn output_work(&self) -> usize {
        self.out.inputs().saturating_mul(self.out.outputs())
    }

    /// Rows of y from rows of what attention made.
    pub(crate) fn output(&self, attended: &[f32], y: &mut [f32], run: Run) -> Result<(), Error> {
        #[cfg(feature = "models")]
        if let Some(dex) = &self.dex {
            return self.out.forward(&dex.rows(attended, run)?, y, run);
        }
        let Some(fusion) = &self.fusion else {
            return self.out.forward(attended, y, run);
        };
        let widths = self.mixed_widths(fusion);
        let mut mixed = try_zeroed(attended.len() / widths.iter().sum::<usize>() * widths[0])?;
        fusion.mix(attended, widths, &mut mixed);
        let Some(norm) = &self.norm else {
            return self.out.forward(&mixed, y, run);
        };
        let mut normed = try_zeroed(mixed.len())?;
        self.normalise(norm, &mixed, &mut normed, run)?;
        self.out.forward(&normed, y, run)
    }

    /// Values of a row of the plain heads, and of those among them that take part in a mix.
    pub(crate) fn mixed_widths(&self, fusion: &Fusion) -> [usize; 2] {
        [
            self.out.inputs(),
            fusion.heads * self.heads.dimensions.head_width,
        ]
    }

    fn normalise(
        &self,
        norm: &HeadNorm,
        from: &[f32],
        to: &mut [f32],
        run: Run,
    ) -> Result<(), Error> {
        let width = self.heads.dimensions.head_width;
        let options = RmsNormOptions {
            eps: norm.eps,
            weight: norm.weight.as_deref(),
            scale: norm.scale,
            run,
        };
        let call = RmsNorm::new(Tensor::f32(from, &[from.len() / width, width]), &options)?;
        call.finish_into(DataMut::F32(to))
    }
}
