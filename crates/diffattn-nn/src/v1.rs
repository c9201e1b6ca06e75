//! The first version of the layer: makes a [`DiffAttnLayer`] of its options and weights.

use crate::layer::{DiffAttnLayer, Dimensions, Fusion, HeadNorm, LambdaSource};
use crate::options::{LambdaForm, MultiheadDiffAttnOptions};
#[cfg(feature = "models")]
use crate::weights::Packed;
use crate::weights::{Source, Weights};
use diffattn::{Error, lambda_full, lambda_init, lambda_scalars};
use std::ops::Deref;

/// Multi-head differential attention, first version (arXiv 2410.05258): per head
/// `(1 − λ_init) · RMSNorm((softmax(q1 k1ᵀ) − λ softmax(q2 k2ᵀ)) v)`, between projections.
///
/// | source | pairing | rope | norm | else |
/// |---|---|---|---|---|
/// | unilm `multihead_diffattn.py` | interleaved, `KvRepeat::Flat` | interleaved | `subln.weight` | |
/// | unilm `multihead_flashdiff_2.py` | interleaved | interleaved | `subln.weight` | |
/// | Hugging Face `diffllama` | halves; `num_kv_heads` counts flat heads | half-split | no weight | `o_proj` |
/// | timm `DiffAttention` | interleaved | none | `subln.weight` (its `sub_norm.weight`) | not causal; `dual_lambda`: scalars |
#[derive(Debug, Clone)]
pub struct MultiheadDiffAttn(DiffAttnLayer);

/// What it takes besides projections.
const OTHERS: [&str; 7] = [
    "lambda_q1",
    "lambda_k1",
    "lambda_q2",
    "lambda_k2",
    "lambda_a",
    "lambda_b",
    "subln.weight",
];

impl MultiheadDiffAttn {
    /// Checks options and weights and packs the weights; they are not needed afterwards.
    ///
    /// Weights: `q_proj.weight` `[n_q · d, E]`, `k_proj.weight` `[n_k · d, E]`, `v_proj.weight` `[n_v · dv, E]`,
    /// `out_proj.weight` or `o_proj.weight` `[E, H · 2d]`, a `.bias` beside any of them; `lambda_q1`, `lambda_k1`,
    /// `lambda_q2`, `lambda_k2` `[d]` or `lambda_a`, `lambda_b` `[]`; `subln.weight` `[2d]` where there is one. E is
    /// `embed_dim`, d `head_dim`; head counts are those of the pairing, dv is 2d (d with halves).
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](diffattn::ErrorKind::Shape) or [`ErrorKind::Option`](diffattn::ErrorKind::Option) naming the option, or the weight as `weights.NAME`;
    /// [`Error::OutOfMemory`].
    pub fn new(options: &MultiheadDiffAttnOptions, weights: &Weights<'_>) -> Result<Self, Error> {
        Self::of(options, &Source::new(weights, &[], &OTHERS)?)
    }

    /// The same, with projections that are packed already.
    #[cfg(feature = "models")]
    pub(crate) fn packed(
        options: &MultiheadDiffAttnOptions,
        weights: &Weights<'_>,
        packed: Packed,
    ) -> Result<Self, Error> {
        let source = Source::new(weights, &[], &OTHERS)?.with_packed(packed);
        Self::of(options, &source)
    }

    fn of(options: &MultiheadDiffAttnOptions, source: &Source<'_, '_>) -> Result<Self, Error> {
        let &MultiheadDiffAttnOptions {
            embed_dim,
            depth,
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
        let head_width = head_dim
            .checked_mul(2)
            .ok_or_else(|| Error::shape("head_dim", "a size that fits this machine", head_dim))?;
        let heads = Dimensions {
            embed_dim,
            heads: num_heads,
            groups: num_kv_heads,
            head_dim,
            head_width,
            pairing,
            kv_repeat,
            ratio,
        };
        let heads = heads.check(source, options.rope.as_ref())?;
        let init = lambda_init(depth as f64);
        let lambda = match options.lambda_form {
            LambdaForm::Vectors => {
                for name in ["lambda_a", "lambda_b"] {
                    source.refuse(name, "unless lambda_form is scalars")?;
                }
                let [q1, k1, q2, k2] = ["lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2"]
                    .map(|name| source.vector(name, head_dim));
                lambda_full(&q1?, &k1?, &q2?, &k2?, init)?
            }
            LambdaForm::Scalars => {
                for name in ["lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2"] {
                    source.refuse(name, "unless lambda_form is vectors")?;
                }
                lambda_scalars(source.number("lambda_a")?, source.number("lambda_b")?, init)
            }
        };
        if !(options.norm.eps >= 0.0 && options.norm.eps.is_finite()) {
            return Err(Error::option(
                "norm.eps",
                "0 or a positive number",
                options.norm.eps,
            ));
        }
        let weight = match options.norm.affine {
            None => source.optional_vector("subln.weight", head_width)?,
            Some(true) => Some(source.vector("subln.weight", head_width)?),
            Some(false) => {
                source.refuse("subln.weight", "where norm.affine is false")?;
                None
            }
        };
        let norm = HeadNorm {
            eps: options.norm.eps,
            weight,
            scale: (1.0 - init) as f32,
        };
        let fusion = options
            .sequence
            .map(|sequence| Fusion::new(sequence, &heads))
            .transpose()?
            .flatten();
        let lambda = LambdaSource::Value(lambda as f32);
        let layer = DiffAttnLayer::new(heads, source, lambda, options.rope, options.is_causal)?;
        Ok(Self(DiffAttnLayer {
            norm: Some(norm),
            fusion,
            ..layer
        }))
    }
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
