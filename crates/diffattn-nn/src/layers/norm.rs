//! Norms of rows, with their weights.

use diffattn::{
    DataMut, Error, LayerNormOptions, RmsNorm, RmsNormOptions, Run, Tensor, layer_norm,
};

/// A norm over the channels of each row.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Norm<'m> {
    /// `x · weight / √(mean(x²) + eps)`.
    Rms { weight: &'m [f32], eps: f32 },
    /// `(x − mean) · weight / √(variance + eps) + bias`.
    Layer {
        weight: &'m [f32],
        bias: &'m [f32],
        eps: f32,
    },
}

impl Norm<'_> {
    /// Channels of a row.
    pub(crate) fn width(self) -> usize {
        match self {
            Self::Rms { weight, .. } | Self::Layer { weight, .. } => weight.len(),
        }
    }

    /// Rows of x, normalised, into y.
    pub(crate) fn rows(self, x: &[f32], y: &mut [f32], run: Run) -> Result<(), Error> {
        match self {
            Self::Rms { weight, eps } => {
                let options = RmsNormOptions {
                    eps,
                    weight: Some(weight),
                    scale: 1.0,
                    run,
                };
                let width = weight.len();
                let call = RmsNorm::new(Tensor::f32(x, &[x.len() / width, width]), &options)?;
                call.finish_into(DataMut::F32(y))
            }
            Self::Layer { weight, bias, eps } => {
                let options = LayerNormOptions {
                    weight: Some(weight),
                    bias: Some(bias),
                    eps,
                    run,
                };
                let width = weight.len();
                layer_norm(Tensor::f32(x, &[x.len() / width, width]), y, &options)
            }
        }
    }
}
