//! Five-way differential self-attention, as Stable Audio 3 has it: makes a [`DiffAttnLayer`] of its
//! options and weights.

use super::heads::Dimensions;
use super::layer::{DiffAttnLayer, LambdaSource};
use super::options::RopeConfig;
use crate::layers::{DynamicTanh, HeadsNorm};
use crate::weights::{Source, Weights, check_names, tensor_names};
use diffattn::{Data, Error, Linear, Pairing, Tensor, try_zeroed};
use diffattn_files::five_way::{FiveWaySizes, HeadsNormForm, HeadsNormIds};
use diffattn_files::{Declare, Projections};
use std::ops::Deref;

/// Added to the mean square where q and k have an RMS norm.
const NORM_EPS: f32 = 1e-6;

/// What a [`FiveWayDiffAttn`] is made of.
#[derive(Debug, Clone, Copy)]
pub struct FiveWayDiffAttnOptions {
    /// Channels of x and y.
    pub embed_dim: usize,
    /// d, the width of every head of q, k and v; divides `embed_dim`.
    pub head_dim: usize,
    /// Rotary embedding; none by default.
    pub rope: Option<RopeConfig>,
    /// Channels of a head that turn, the first ones: an even number; all by default.
    pub rotary_dim: Option<usize>,
    /// Whether a token sees only itself and those before it; false by default.
    pub is_causal: bool,
}

impl FiveWayDiffAttnOptions {
    /// A layer that is not causal, without rotary embedding.
    #[must_use]
    pub fn new(embed_dim: usize, head_dim: usize) -> Self {
        Self {
            embed_dim,
            head_dim,
            rope: None,
            rotary_dim: None,
            is_causal: false,
        }
    }
}

/// Multi-head differential self-attention of Stable Audio 3 (Stability-AI/stable-audio-3,
/// `Attention(differential=True)`): per head `softmax(q1 k1ᵀ) v − softmax(q2 k2ᵀ) v` between
/// projections, of which one makes q1, k1, v, q2 and k2; λ is 1, and there is no norm behind it.
#[derive(Debug, Clone)]
pub struct FiveWayDiffAttn(DiffAttnLayer);

/// The weights of a layer.
pub(crate) struct FiveWayWeights<'w> {
    /// `[5 · embed_dim, embed_dim]`: rows of q1, k1, v, q2, k2.
    pub(crate) qkv: Tensor<'w>,
    pub(crate) out: Linear,
    pub(crate) heads_norms: Option<[HeadsNorm; 2]>,
}

impl FiveWayDiffAttn {
    /// The name of every tensor that a layer may take.
    #[must_use]
    pub fn weight_names() -> Vec<String> {
        tensor_names(&FiveWaySizes::names())
    }

    /// Checks options and weights and packs the weights; they are not needed afterwards.
    ///
    /// Weights: `to_qkv.weight` `[5E, E]` (rows of q1, k1, v, q2, k2), `to_out.weight` `[E, E]`,
    /// and where q and k of each head have a norm before they turn, for both streams the same,
    /// `q_norm.gamma`, `k_norm.gamma` `[d]` (RMS norm, eps 1e-6) or besides these `.alpha` `[1]`
    /// and `.beta` `[d]` (dynamic tanh).
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](diffattn::ErrorKind::Shape) or
    /// [`ErrorKind::Option`](diffattn::ErrorKind::Option) naming the option, or the weight as
    /// `weights.NAME`; [`Error::out_of_memory`].
    pub fn new(options: &FiveWayDiffAttnOptions, weights: &Weights<'_>) -> Result<Self, Error> {
        check_names(weights, &FiveWaySizes::names())?;
        if let Some(name) = weights.keys().find(|name| name.ends_with(".bias")) {
            let argument = format_args!("weights.{name}").to_string();
            return Err(Error::option(
                argument,
                "none: its projections have no bias",
                "one",
            ));
        }
        let form = HeadsNormForm::of(|name| weights.contains_key(name));
        let sizes = FiveWaySizes {
            embed_dim: options.embed_dim,
            head_dim: options.head_dim,
        };
        let mut list = Declare::new();
        let ids = sizes.declare(form, &mut list);
        let source = Source::new(weights, list);
        source.check_weight(ids.qkv)?;
        let heads_norms = match ids.heads_norms {
            None => None,
            Some([q, k]) => {
                let norm = |ids| heads_norm(ids, |id| source.vector(id));
                Some([norm(q)?, norm(k)?])
            }
        };
        let weights = FiveWayWeights {
            qkv: source.tensor(ids.qkv)?.clone(),
            out: source.linear(ids.out)?,
            heads_norms,
        };
        Self::of_weights(options, weights)
    }

    /// The layer of checked weights.
    pub(crate) fn of_weights(
        options: &FiveWayDiffAttnOptions,
        weights: FiveWayWeights<'_>,
    ) -> Result<Self, Error> {
        let &FiveWayDiffAttnOptions {
            embed_dim,
            head_dim,
            rope,
            is_causal,
            ..
        } = options;
        if head_dim == 0 || embed_dim == 0 || !embed_dim.is_multiple_of(head_dim) {
            return Err(Error::shape(
                "head_dim",
                format_args!("a number that divides embed_dim {embed_dim}"),
                head_dim,
            ));
        }
        let rotary_dim = options.rotary_dim.unwrap_or(head_dim);
        if rotary_dim > head_dim || !rotary_dim.is_multiple_of(2) {
            let expected = format!("an even number of at most {head_dim} channels");
            return Err(Error::shape("rotary_dim", expected, rotary_dim));
        }
        let heads = embed_dim / head_dim;
        let dimensions = Dimensions {
            embed_dim,
            heads,
            groups: None,
            head_dim,
            head_width: head_dim,
            pairing: Pairing::Interleaved,
            kv_repeat: None,
            ratio: None,
        };
        let checked = dimensions.check(|_| Ok(()), rope.as_ref())?;
        // Partners become neighbours.
        let pairs =
            |first: usize| move |head: usize| [first * heads + head, (first + 3) * heads + head];
        let qkv = |order: &mut dyn Iterator<Item = usize>| stacked(&weights.qkv, head_dim, order);
        let projections = Projections {
            q: qkv(&mut (0..heads).flat_map(pairs(0)))?,
            k: qkv(&mut (0..heads).flat_map(pairs(1)))?,
            v: qkv(&mut (2 * heads..3 * heads))?,
            out: weights.out,
        };
        let lambda = LambdaSource::Value(1.0);
        let layer = DiffAttnLayer::new(checked, projections, lambda, rope, is_causal);
        Ok(Self(DiffAttnLayer {
            rotary_dim,
            heads_norms: weights.heads_norms,
            ..layer
        }))
    }
}

/// A norm of heads, by what reads vectors.
pub(crate) fn heads_norm(
    ids: HeadsNormIds,
    vector: impl Fn(diffattn_files::Id) -> Result<Vec<f32>, Error>,
) -> Result<HeadsNorm, Error> {
    Ok(match ids {
        HeadsNormIds::Rms { gamma } => HeadsNorm::Rms {
            weight: vector(gamma)?,
            eps: NORM_EPS,
        },
        HeadsNormIds::DynamicTanh(ids) => HeadsNorm::DynamicTanh(DynamicTanh {
            alpha: vector(ids.alpha)?.first().copied().unwrap_or(f32::NAN),
            weight: vector(ids.gamma)?,
            bias: vector(ids.beta)?,
        }),
    })
}

/// Blocks of `rows` rows of a weight, in this order, packed in its own element type.
fn stacked(
    weight: &Tensor<'_>,
    rows: usize,
    order: &mut dyn Iterator<Item = usize>,
) -> Result<Linear, Error> {
    let inputs = weight.shape.last().copied().unwrap_or(0);
    let order: Vec<usize> = order.collect();
    let shape = vec![order.len() * rows, inputs];
    let block = rows * inputs;
    let linear = |data: Data<'_>| Linear::new(&Tensor { data, shape }, None);
    match weight.data {
        Data::F32(x) => linear(Data::F32(&gathered(x, block, &order)?)),
        Data::F16(x) => linear(Data::F16(&gathered(x, block, &order)?)),
        Data::Bf16(x) => linear(Data::Bf16(&gathered(x, block, &order)?)),
    }
}

/// Blocks of so many elements, in this order.
fn gathered<T: Copy + Default>(x: &[T], block: usize, order: &[usize]) -> Result<Vec<T>, Error> {
    let mut to = try_zeroed(order.len() * block)?;
    for (to, &from) in to.chunks_exact_mut(block.max(1)).zip(order) {
        to.copy_from_slice(&x[from * block..(from + 1) * block]);
    }
    Ok(to)
}

impl Deref for FiveWayDiffAttn {
    type Target = DiffAttnLayer;

    fn deref(&self) -> &DiffAttnLayer {
        &self.0
    }
}

impl From<FiveWayDiffAttn> for DiffAttnLayer {
    fn from(layer: FiveWayDiffAttn) -> Self {
        layer.0
    }
}
