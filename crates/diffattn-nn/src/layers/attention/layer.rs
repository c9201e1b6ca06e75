//! What all versions of the layer are: heads, packed projections, λ, norm. Runs nothing itself.

#[cfg(feature = "models")]
use super::dex::Dex;
use super::fusion::Fusion;
use super::heads::{Dimensions, Heads};
use super::lambda::LambdaParts;
use super::options::RopeConfig;
#[cfg(feature = "models")]
use crate::layers::HeadsNorm;
use diffattn::{CacheDType, KvCacheOptions, Linear};
use diffattn_files::Projections;

/// Where λ comes from.
#[derive(Debug, Clone)]
pub(crate) enum LambdaSource {
    /// Nowhere: each head is one softmax, from which nothing is subtracted.
    #[cfg(feature = "models")]
    None,
    /// One for the layer.
    Value(f32),
    /// σ of a projection of x, per token and head.
    Projected(ProjectedLambda),
}

/// λ = mix · σ(W x).
#[derive(Debug, Clone)]
pub(crate) struct ProjectedLambda {
    pub(crate) linear: Linear,
    /// The output heads that W has a row for, ascending, where these are not all.
    pub(crate) heads: Option<Vec<usize>>,
    pub(crate) mix: f32,
}

impl From<Linear> for ProjectedLambda {
    /// A row for each head, and λ as it comes.
    fn from(linear: Linear) -> Self {
        Self {
            linear,
            heads: None,
            mix: 1.0,
        }
    }
}

/// The per-head norm.
#[derive(Debug, Clone)]
pub(crate) struct HeadNorm {
    pub(crate) eps: f32,
    pub(crate) weight: Option<Vec<f32>>,
    pub(crate) scale: f32,
}

/// A layer of either version, ready to run: [`crate::MultiheadDiffAttn`] and
/// [`crate::MultiheadDiffAttnV2`] make it.
#[derive(Debug, Clone)]
pub struct DiffAttnLayer {
    pub(crate) heads: Heads,
    pub(crate) q: Linear,
    pub(crate) k: Linear,
    pub(crate) v: Linear,
    pub(crate) out: Linear,
    pub(crate) lambda: LambdaSource,
    /// What a λ of the whole layer is made of.
    pub(crate) lambda_parts: Option<LambdaParts>,
    pub(crate) rope: Option<RopeConfig>,
    /// Channels of a head that turn, the first ones: all by default.
    pub(crate) rotary_dim: usize,
    pub(crate) is_causal: bool,
    /// The norms of the heads of q and of k before they turn.
    #[cfg(feature = "models")]
    pub(crate) heads_norms: Option<[HeadsNorm; 2]>,
    pub(crate) norm: Option<HeadNorm>,
    pub(crate) fusion: Option<Fusion>,
    /// What is subtracted from what some heads made.
    #[cfg(feature = "models")]
    pub(crate) dex: Option<Dex>,
}

impl DiffAttnLayer {
    /// A layer of packed projections. No norm, no fusion.
    pub(crate) fn new(
        heads: Heads,
        projections: Projections<Linear>,
        lambda: LambdaSource,
        rope: Option<RopeConfig>,
        is_causal: bool,
    ) -> Self {
        let Projections { q, k, v, out } = projections;
        Self {
            q,
            k,
            v,
            out,
            rotary_dim: heads.dimensions.head_dim,
            heads,
            lambda,
            lambda_parts: None,
            rope,
            is_causal,
            #[cfg(feature = "models")]
            heads_norms: None,
            norm: None,
            fusion: None,
            #[cfg(feature = "models")]
            dex: None,
        }
    }

    /// Channels of x and y.
    #[must_use]
    pub fn embed_dim(&self) -> usize {
        self.heads.dimensions.embed_dim
    }

    /// Softmaxes of an output head: two, or one where nothing is subtracted; of a layer with heads
    /// of both kinds two.
    #[must_use]
    pub fn terms(&self) -> usize {
        match self.lambda {
            #[cfg(feature = "models")]
            LambdaSource::None => 1,
            LambdaSource::Value(_) | LambdaSource::Projected(_) => 2,
        }
    }

    /// H, output heads.
    #[must_use]
    pub fn num_heads(&self) -> usize {
        self.heads.dimensions.heads
    }

    /// The cache that the layer takes for `batch` sequences, with memory for `capacity` tokens at
    /// once. A layer with `sequence` keeps more in it: the differences of k and v, and its inputs
    /// (as further k heads), from which the differences of the next tokens are made, and takes only
    /// one of float32; any other layer takes one of any dtype.
    #[must_use]
    pub fn cache_options(&self, batch: usize, capacity: usize) -> KvCacheOptions {
        let Heads {
            k,
            v,
            value_dim,
            dimensions:
                Dimensions {
                    embed_dim,
                    head_dim,
                    ..
                },
            ..
        } = self.heads;
        let (groups, k_heads) = match &self.fusion {
            None => (v, k),
            Some(fusion) => (
                v + fusion.v.len(),
                k + fusion.k.len() + embed_dim.div_ceil(head_dim),
            ),
        };
        let terms = k_heads.div_ceil(groups);
        KvCacheOptions {
            batch,
            groups,
            terms,
            head_dim,
            value_dim,
            capacity,
            dtype: CacheDType::F32,
        }
    }
}
