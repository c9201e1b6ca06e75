//! The first version of the layer: makes a [`DiffAttnLayer`] of its options and weights.

use super::fusion::Fusion;
use super::heads::{Dimensions, Heads};
use super::lambda::{LambdaParts, LambdaWeights};
use super::layer::{DiffAttnLayer, HeadNorm, LambdaSource};
use super::options::{LambdaForm, MultiheadDiffAttnOptions, NormConfig};
use crate::weights::{Source, Weights, check_names, tensor_names};
use diffattn::{Error, Linear, Pairing, lambda_init};
use diffattn_files::{AttentionSizes, Declare, LambdaIds, Need, Projections, V1Ids};
use std::ops::Deref;

/// Multi-head differential attention, first version (arXiv 2410.05258): per head
/// `(1 − λ_init) · RMSNorm((softmax(q1 k1ᵀ) − λ softmax(q2 k2ᵀ)) v)`, between projections.
///
/// | source | pairing | rope | norm | else |
/// |---|---|---|---|---|
/// | unilm `multihead_diffattn.py` | interleaved, repeat `Flat` | interleaved | `subln.weight` | |
/// | unilm `multihead_flashdiff_2.py` | interleaved | interleaved | `subln.weight` | |
/// | Hugging Face `diffllama` | halves, counted flat | half-split | no weight | `o_proj` |
/// | Motif | grouped, V1 with ratio 1 | half-split | `subln.weight` | `o_proj` |
/// | timm `DiffAttention` | interleaved | none | `sub_norm.weight` | not causal; `dual_lambda` |
#[derive(Debug, Clone)]
pub struct MultiheadDiffAttn(DiffAttnLayer);

/// What a layer takes in: packed and widened, of the sizes that its options say.
#[cfg(feature = "models")]
#[derive(Debug)]
pub(crate) struct V1Weights {
    pub(crate) projections: Projections<Linear>,
    pub(crate) lambda: LambdaWeights,
    /// The weight of the norm per head.
    pub(crate) norm: Option<Vec<f32>>,
}

/// Takes the weights of λ, and refuses those of its other form.
pub(super) fn lambda_of(source: &Source<'_, '_>, ids: &V1Ids) -> Result<LambdaWeights, Error> {
    for &other in ids.other_lambda.as_slice() {
        source.values(other)?;
    }
    Ok(match ids.lambda {
        LambdaIds::Vectors(names) => {
            let [q1, k1, q2, k2] = names.map(|name| source.vector(name));
            LambdaWeights::Vectors([q1?, k1?, q2?, k2?])
        }
        LambdaIds::Scalars([a, b]) => {
            LambdaWeights::Scalars([source.number(a)?, source.number(b)?])
        }
    })
}

impl MultiheadDiffAttn {
    /// Names alone of all weights that there are.
    fn names() -> Declare {
        let mut list = Declare::new();
        AttentionSizes::default().v1(&mut list, LambdaForm::default(), Need::Optional);
        list
    }

    /// The name of every tensor that a layer may take, in both forms of λ, by its first name.
    #[must_use]
    pub fn weight_names() -> Vec<String> {
        tensor_names(&Self::names())
    }

    /// Checks options and weights and packs the weights; they are not needed afterwards.
    ///
    /// Weights: `q_proj.weight` `[n_q · d, E]`, `k_proj.weight` `[n_k · d, E]`, `v_proj.weight`
    /// `[n_v · dv, E]`, `out_proj.weight` or `o_proj.weight` `[E, H · w]`, a `.bias` beside any of
    /// them; `lambda_q1`, `lambda_k1`, `lambda_q2`, `lambda_k2` `[d]` or `lambda_a`, `lambda_b`
    /// `[]`; `subln.weight` `[w]` where there is one. E is `embed_dim`, d `head_dim`, w `value_dim`
    /// (2d by default); head counts are those of the pairing, dv is w (w / 2 with halves).
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](diffattn::ErrorKind::Shape) or
    /// [`ErrorKind::Option`](diffattn::ErrorKind::Option) naming the option, or the weight as
    /// `weights.NAME`; [`Error::out_of_memory`].
    pub fn new(options: &MultiheadDiffAttnOptions, weights: &Weights<'_>) -> Result<Self, Error> {
        let need = match options.norm.map(|norm| norm.affine) {
            Some(None) => Need::Optional,
            Some(Some(true)) => Need::Required,
            Some(Some(false)) => Need::Refused("where norm.affine is false"),
            None => Need::Refused("without a norm"),
        };
        let listed = |sizes: AttentionSizes| {
            let mut list = Declare::new();
            let ids = sizes.v1(&mut list, options.lambda_form, need);
            (Source::new(weights, list), ids)
        };
        check_names(weights, &Self::names())?;
        let fits = |sizes| {
            let (source, ids) = listed(sizes);
            source.check_weight(ids.projections.q)
        };
        let heads = dimensions(options)?.check(fits, options.rope.as_ref())?;
        let (source, ids) = listed(heads.sizes());
        let init = init(options)?;
        let lambda = LambdaParts::new(lambda_of(&source, &ids)?, init);
        let norm = norm(options, init, || source.values(ids.norm))?;
        let fusion = fusion(options, &heads)?;
        let projections = source.projections(ids.projections)?;
        Self::put_together(options, heads, projections, (lambda, norm, fusion))
    }

    /// A layer of weights that are known to fit, as those of a checked model do.
    #[cfg(feature = "models")]
    pub(crate) fn of_weights(
        options: &MultiheadDiffAttnOptions,
        weights: V1Weights,
    ) -> Result<Self, Error> {
        let heads = dimensions(options)?.check(|_| Ok(()), options.rope.as_ref())?;
        let init = init(options)?;
        let lambda = LambdaParts::new(weights.lambda, init);
        let norm = norm(options, init, || Ok(weights.norm))?;
        let fusion = fusion(options, &heads)?;
        let projections = weights.projections;
        Self::put_together(options, heads, projections, (lambda, norm, fusion))
    }

    fn put_together(
        options: &MultiheadDiffAttnOptions,
        heads: Heads,
        projections: Projections<Linear>,
        (parts, norm, fusion): (LambdaParts, Option<HeadNorm>, Option<Fusion>),
    ) -> Result<Self, Error> {
        let lambda = LambdaSource::Value(parts.value()? as f32);
        let (rope, is_causal) = (options.rope, options.is_causal);
        Ok(Self(DiffAttnLayer {
            norm,
            fusion,
            lambda_parts: Some(parts),
            ..DiffAttnLayer::new(heads, projections, lambda, rope, is_causal)
        }))
    }
}

/// λ_init, which follows from the layer's index where it is not given.
fn init(options: &MultiheadDiffAttnOptions) -> Result<f64, Error> {
    match options.lambda_init {
        None => Ok(lambda_init(options.depth as f64)),
        Some(init) if init.is_finite() => Ok(init),
        Some(init) => Err(Error::option("lambda_init", "a finite number", init)),
    }
}

/// The sizes that options ask for.
fn dimensions(options: &MultiheadDiffAttnOptions) -> Result<Dimensions, Error> {
    let &MultiheadDiffAttnOptions {
        embed_dim,
        num_heads,
        num_kv_heads,
        pairing,
        kv_repeat,
        ratio,
        ..
    } = options;
    let head_dim = match options.head_dim {
        Some(head_dim) => head_dim,
        None => Dimensions::default_head_dim(embed_dim, num_heads)?,
    };
    // v of an output head is made of two where heads are halves.
    let parts = if pairing == Pairing::Halves { 2 } else { 1 };
    let head_width = match options.value_dim {
        Some(width) if width > 0 && width.is_multiple_of(parts) => width,
        Some(width) => {
            let expected = format_args!("a multiple of {parts}, not 0").to_string();
            return Err(Error::shape("value_dim", expected, width));
        }
        None => head_dim
            .checked_mul(2)
            .ok_or_else(|| Error::shape("head_dim", "a size that fits this machine", head_dim))?,
    };
    Ok(Dimensions {
        embed_dim,
        heads: num_heads,
        groups: num_kv_heads,
        head_dim,
        head_width,
        pairing,
        kv_repeat,
        ratio,
    })
}

/// The norm per head, where there is one, its weight as `weight` gives it.
fn norm(
    options: &MultiheadDiffAttnOptions,
    init: f64,
    weight: impl FnOnce() -> Result<Option<Vec<f32>>, Error>,
) -> Result<Option<HeadNorm>, Error> {
    let weight = weight()?;
    let Some(NormConfig { eps, .. }) = options.norm else {
        return Ok(None);
    };
    if !(eps >= 0.0 && eps.is_finite()) {
        return Err(Error::option("norm.eps", "0 or a positive number", eps));
    }
    Ok(Some(HeadNorm {
        eps,
        weight,
        scale: (1.0 - init) as f32,
    }))
}

/// The attention over differences, where there is any.
fn fusion(options: &MultiheadDiffAttnOptions, heads: &Heads) -> Result<Option<Fusion>, Error> {
    let fusion = options
        .sequence
        .map(|sequence| Fusion::new(sequence, heads));
    Ok(fusion.transpose()?.flatten())
}

impl Deref for MultiheadDiffAttn {
    type Target = DiffAttnLayer;

    fn deref(&self) -> &DiffAttnLayer {
        &self.0
    }
}

impl From<MultiheadDiffAttn> for DiffAttnLayer {
    fn from(layer: MultiheadDiffAttn) -> Self {
        layer.0
    }
}
