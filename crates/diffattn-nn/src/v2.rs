//! The second version of the layer: makes a [`DiffAttnLayer`] of its options and weights.

use crate::layer::{DiffAttnLayer, Dimensions, LambdaSource};
use crate::options::MultiheadDiffAttnV2Options;
use crate::weights::{Source, Weights};
use diffattn::{Error, Pairing};
use std::ops::Deref;

/// Multi-head differential attention, second version (microsoft/unilm, Diff-Transformer, 2026-01): per head
/// `(softmax(q1 kᵀ) − λ softmax(q2 kᵀ)) v` with λ = σ(`lambda_proj` x) per token, between projections; no norm. With a
/// ratio, a noise head serves that many signal heads (arXiv 2510.06949).
#[derive(Debug, Clone)]
pub struct MultiheadDiffAttnV2(DiffAttnLayer);

impl MultiheadDiffAttnV2 {
    /// Checks options and weights and packs the weights; they are not needed afterwards.
    ///
    /// Weights: `q_proj.weight` `[(H + H / ratio) · d, E]`, `k_proj.weight` and `v_proj.weight` `[G · d, E]`,
    /// `lambda_proj.weight` `[H, E]`, `out_proj.weight` or `o_proj.weight` `[E, H · d]`, a `.bias` beside any of them.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](diffattn::ErrorKind::Shape) or [`ErrorKind::Option`](diffattn::ErrorKind::Option) naming the option, or the weight as `weights.NAME`;
    /// [`Error::OutOfMemory`].
    pub fn new(options: &MultiheadDiffAttnV2Options, weights: &Weights<'_>) -> Result<Self, Error> {
        let &MultiheadDiffAttnV2Options {
            embed_dim,
            num_heads,
            num_kv_heads,
            head_dim,
            ratio,
            ..
        } = options;
        let source = Source::new(weights, &["lambda_proj"], &[])?;
        let heads = Dimensions {
            embed_dim,
            heads: num_heads,
            groups: num_kv_heads,
            head_dim,
            head_width: head_dim,
            pairing: Pairing::Shared,
            kv_repeat: None,
            ratio,
        };
        let heads = heads.check(&source, options.rope.as_ref())?;
        let lambda = LambdaSource::Projected(source.linear("lambda_proj", num_heads, embed_dim)?);
        Ok(Self(DiffAttnLayer::new(
            heads,
            &source,
            lambda,
            options.rope,
            options.is_causal,
        )?))
    }
}

impl Deref for MultiheadDiffAttnV2 {
    type Target = DiffAttnLayer;

    fn deref(&self) -> &DiffAttnLayer {
        &self.0
    }
}

impl From<MultiheadDiffAttnV2> for DiffAttnLayer {
    fn from(layer: MultiheadDiffAttnV2) -> Self {
        layer.0
    }
}
