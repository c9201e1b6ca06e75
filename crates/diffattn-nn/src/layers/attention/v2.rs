//! The second version of the layer: makes a [`DiffAttnLayer`] of its options and weights.

use super::heads::Dimensions;
use super::layer::{DiffAttnLayer, LambdaSource};
use super::options::MultiheadDiffAttnV2Options;
use crate::weights::{Source, Weights, check_names, tensor_names};
use diffattn::{Error, Pairing};
use diffattn_files::{AttentionSizes, Declare};
use std::ops::Deref;

/// Multi-head differential attention, second version (microsoft/unilm, Diff-Transformer, 2026-01):
/// per head `(softmax(q1 kᵀ) − λ softmax(q2 kᵀ)) v` with λ = σ(`lambda_proj` x) per token, between
/// projections; no norm. With a ratio, a noise head serves that many signal heads (arXiv
/// 2510.06949).
#[derive(Debug, Clone)]
pub struct MultiheadDiffAttnV2(DiffAttnLayer);

impl MultiheadDiffAttnV2 {
    /// Names alone of all weights that there are.
    fn names() -> Declare {
        let mut list = Declare::new();
        AttentionSizes::default().v2(&mut list);
        list
    }

    /// The name of every tensor that a layer may take, by its first name.
    #[must_use]
    pub fn weight_names() -> Vec<String> {
        tensor_names(&Self::names())
    }

    /// Checks options and weights and packs the weights; they are not needed afterwards.
    ///
    /// Weights: `q_proj.weight` `[(H + H / ratio) · d, E]`, `k_proj.weight` and `v_proj.weight` `[G
    /// · d, E]`, `lambda_proj.weight` `[H, E]`, `out_proj.weight` or `o_proj.weight` `[E, H · d]`,
    /// a `.bias` beside any of them.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](diffattn::ErrorKind::Shape) or
    /// [`ErrorKind::Option`](diffattn::ErrorKind::Option) naming the option, or the weight as
    /// `weights.NAME`; [`Error::out_of_memory`].
    pub fn new(options: &MultiheadDiffAttnV2Options, weights: &Weights<'_>) -> Result<Self, Error> {
        let &MultiheadDiffAttnV2Options {
            embed_dim,
            num_heads,
            num_kv_heads,
            head_dim,
            ratio,
            ..
        } = options;
        let listed = |sizes: AttentionSizes| {
            let mut list = Declare::new();
            let ids = sizes.v2(&mut list);
            (Source::new(weights, list), ids)
        };
        check_names(weights, &Self::names())?;
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
        let fits = |sizes| {
            let (source, ids) = listed(sizes);
            source.check_weight(ids.projections.q)
        };
        let heads = heads.check(fits, options.rope.as_ref())?;
        let (source, ids) = listed(heads.sizes());
        let lambda = LambdaSource::Projected(source.linear(ids.lambda)?.into());
        let projections = source.projections(ids.projections)?;
        let (rope, is_causal) = (options.rope, options.is_causal);
        let layer = DiffAttnLayer::new(heads, projections, lambda, rope, is_causal);
        Ok(Self(layer))
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
