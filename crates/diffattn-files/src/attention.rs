//! What the weights of an attention layer do not say of themselves. Plain data; runs nothing.

use diffattn::RopeFrequencies;

/// Rotary embedding of q and k, over the whole head; positions start at the cache's length.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RopeConfig {
    /// Pairs (2i, 2i + 1), as unilm has them; else (i, i + d/2), as Hugging Face has them. True by
    /// default.
    pub interleaved: bool,
    /// How fast the pairs turn.
    pub frequencies: RopeFrequencies,
}

impl Default for RopeConfig {
    fn default() -> Self {
        Self {
            interleaved: true,
            frequencies: RopeFrequencies::default(),
        }
    }
}

/// Where λ of the first version of differential attention comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LambdaForm {
    /// `exp(lambda_q1 · lambda_k1) − exp(lambda_q2 · lambda_k2) + λ_init`, four vectors of
    /// `head_dim`.
    #[default]
    Vectors,
    /// `exp(lambda_a) − exp(lambda_b) + λ_init`, two numbers (timm's `dual_lambda`).
    Scalars,
}
