//! What the λ of a whole layer is made of. Knows no layer.

use diffattn::{Error, lambda_full, lambda_scalars};
use diffattn_files::LambdaForm;

/// The weights of λ.
#[derive(Debug, Clone)]
pub(crate) enum LambdaWeights {
    Vectors([Vec<f32>; 4]),
    Scalars([f64; 2]),
}

/// λ = mix · (what its weights make + λ_init).
#[derive(Debug, Clone)]
pub(crate) struct LambdaParts {
    pub(crate) weights: LambdaWeights,
    pub(crate) init: f64,
    pub(crate) mix: f64,
}

impl LambdaParts {
    /// λ as it comes.
    pub(crate) fn new(weights: LambdaWeights, init: f64) -> Self {
        Self {
            weights,
            init,
            mix: 1.0,
        }
    }

    /// Which weights they are.
    pub(crate) fn form(&self) -> LambdaForm {
        match self.weights {
            LambdaWeights::Vectors(_) => LambdaForm::Vectors,
            LambdaWeights::Scalars(_) => LambdaForm::Scalars,
        }
    }

    /// λ.
    pub(crate) fn value(&self) -> Result<f64, Error> {
        let init = self.init;
        let value = match &self.weights {
            LambdaWeights::Vectors([q1, k1, q2, k2]) => lambda_full(q1, k1, q2, k2, init)?,
            &LambdaWeights::Scalars([a, b]) => lambda_scalars(a, b, init),
        };
        Ok(self.mix * value)
    }
}
