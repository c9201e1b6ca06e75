//! Norms of rows, with their weights.

use diffattn::{
    DataMut, DynamicTanhOptions, Error, LayerNormOptions, RmsNorm, RmsNormOptions, Run, Tensor,
    dynamic_tanh, layer_norm,
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
    /// `tanh(alpha · x) · weight + bias`.
    DynamicTanh {
        alpha: f32,
        weight: &'m [f32],
        bias: &'m [f32],
    },
}

impl Norm<'_> {
    /// Channels of a row.
    pub(crate) fn width(self) -> usize {
        match self {
            Self::Rms { weight, .. }
            | Self::Layer { weight, .. }
            | Self::DynamicTanh { weight, .. } => weight.len(),
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
            Self::DynamicTanh {
                alpha,
                weight,
                bias,
            } => {
                let options = DynamicTanhOptions {
                    alpha,
                    weight: Some(weight),
                    bias: Some(bias),
                    run,
                };
                let width = weight.len();
                dynamic_tanh(Tensor::f32(x, &[x.len() / width, width]), y, &options)
            }
        }
    }
}

/// A norm of heads of q or k, with the weights that are its own.
#[derive(Debug, Clone)]
pub(crate) enum HeadsNorm {
    /// [`Norm::Rms`].
    Rms { weight: Vec<f32>, eps: f32 },
    /// [`Norm::DynamicTanh`].
    DynamicTanh(DynamicTanh),
}

/// The weights of [`Norm::DynamicTanh`].
#[derive(Debug, Clone)]
pub(crate) struct DynamicTanh {
    pub(crate) alpha: f32,
    pub(crate) weight: Vec<f32>,
    pub(crate) bias: Vec<f32>,
}

impl HeadsNorm {
    pub(crate) fn rows(&self) -> Norm<'_> {
        match self {
            Self::Rms { weight, eps } => Norm::Rms { weight, eps: *eps },
            Self::DynamicTanh(norm) => norm.rows(),
        }
    }
}

impl DynamicTanh {
    pub(crate) fn rows(&self) -> Norm<'_> {
        Norm::DynamicTanh {
            alpha: self.alpha,
            weight: &self.weight,
            bias: &self.bias,
        }
    }
}
