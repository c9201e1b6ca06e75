//! One transformer block: norms, attention, MLP. timm's fused projections are taken apart here, so
//! that attention is the layer that it is everywhere. Runs nothing.

use crate::layers;
use crate::layers::attention::DiffAttnLayer;
use crate::layers::attention::{LambdaForm, MultiheadDiffAttnOptions, NormConfig};
use crate::layers::attention::{MultiheadDiffAttn, V1Weights};
use crate::parts::{Part, elements};
use diffattn::{Error, Linear, Tensor, try_zeroed};
use diffattn_files::vision::{BlockIds, BlockMaps, LayerNormIds};
use diffattn_files::{Id, LambdaIds, Projections};
use std::ops::Range;

/// timm's eps of layer norms.
pub(crate) const NORM_EPS: f32 = 1e-6;

/// timm's eps of the norm per head.
const HEAD_NORM_EPS: f32 = 1e-5;

/// A layer norm with its weights.
#[derive(Debug, Clone)]
pub(crate) struct Norm {
    pub(crate) weight: Vec<f32>,
    pub(crate) bias: Vec<f32>,
}

impl Norm {
    pub(super) fn load(part: &Part<'_>, ids: LayerNormIds) -> Result<Self, Error> {
        Ok(Self {
            weight: part.vector(ids.weight)?,
            bias: part.vector(ids.bias)?,
        })
    }

    /// As passes see it.
    pub(super) fn rows(&self) -> layers::Norm<'_> {
        layers::Norm::Layer {
            weight: &self.weight,
            bias: &self.bias,
            eps: NORM_EPS,
        }
    }
}

/// `x = x + scale₁ · attention(n)`, `x = x + scale₂ · fc2(gelu(fc1(m)))`, with n = norm₁(x) and m =
/// norm₂(x); or, where there is no second norm, m = n.
#[derive(Debug, Clone)]
pub(crate) struct Block {
    pub(crate) norm: Norm,
    pub(crate) attention: DiffAttnLayer,
    pub(crate) attention_scale: Option<Vec<f32>>,
    pub(crate) mlp_norm: Option<Norm>,
    pub(crate) fc1: Linear,
    pub(crate) fc2: Linear,
    pub(crate) mlp_scale: Option<Vec<f32>>,
}

/// What all blocks share.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    pub(crate) embed_dim: usize,
    pub(crate) num_heads: usize,
    /// Channels within the MLP.
    pub(crate) hidden: usize,
}

impl Block {
    /// Packs block `index` of the weights that its list has.
    pub(super) fn load(
        part: &mut Part<'_>,
        index: usize,
        sizes: Sizes,
        ids: &BlockIds,
    ) -> Result<Self, Error> {
        let (projections, fc1, fc2) = match ids.maps {
            BlockMaps::Plain {
                qkv,
                proj,
                fc1,
                fc2,
            } => {
                let bias = part.bias(qkv);
                let [q, k, v] = attention_rows(&part.tensor(qkv)?, bias.as_ref(), 0, sizes)?;
                let out = part.linear(proj)?;
                let (fc1, fc2) = (part.linear(fc1)?, part.linear(fc2)?);
                (Projections { q, k, v, out }, fc1, fc2)
            }
            BlockMaps::Parallel {
                into,
                mlp_bias,
                out,
            } => parallel(part, sizes, [into, mlp_bias, out])?,
        };
        let (lambda_form, lambda) = (form(ids.lambda), part.lambda(ids.lambda)?);
        let options = MultiheadDiffAttnOptions {
            is_causal: false,
            norm: Some(NormConfig {
                eps: HEAD_NORM_EPS,
                affine: Some(true),
            }),
            lambda_form,
            ..MultiheadDiffAttnOptions::new(sizes.embed_dim, index, sizes.num_heads)
        };
        let weights = V1Weights {
            projections,
            lambda,
            norm: Some(part.vector(ids.head_norm)?),
        };
        let scale = part.optional_vector(ids.scale)?;
        let mlp_scale = match ids.mlp_scale {
            Some(id) => part.optional_vector(id)?,
            None => scale.clone(),
        };
        let mlp_norm = ids.mlp_norm.map(|ids| Norm::load(part, ids));
        Ok(Self {
            norm: Norm::load(part, ids.norm)?,
            attention: MultiheadDiffAttn::of_weights(&options, weights)?.into(),
            attention_scale: scale,
            mlp_norm: mlp_norm.transpose()?,
            fc1,
            fc2,
            mlp_scale,
        })
    }
}

fn form(lambda: LambdaIds) -> LambdaForm {
    match lambda {
        LambdaIds::Vectors(_) => LambdaForm::Vectors,
        LambdaIds::Scalars(_) => LambdaForm::Scalars,
    }
}

/// The projections of q, k and v: a third each of the rows from `first` on.
fn attention_rows(
    weight: &Tensor<'_>,
    bias: Option<&Tensor<'_>>,
    first: usize,
    sizes: Sizes,
) -> Result<[Linear; 3], Error> {
    let width = sizes.embed_dim;
    let [q, k, v] = [0, 1, 2].map(|third| {
        let range = first + third * width..first + (third + 1) * width;
        let bias = bias.map(|bias| rows(bias, range.clone()));
        Linear::new(&rows(weight, range), bias.as_ref())
    });
    Ok([q?, k?, v?])
}

/// The maps of a parallel block: attention's projections, into the MLP and out of it.
fn parallel(
    part: &mut Part<'_>,
    sizes: Sizes,
    [into, mlp_bias, out]: [Id; 3],
) -> Result<(Projections<Linear>, Linear, Linear), Error> {
    let Sizes {
        embed_dim, hidden, ..
    } = sizes;
    let inputs = embed_dim + hidden;
    let (into_bias, weight) = (part.bias(into), part.tensor(into)?);
    let [q, k, v] = attention_rows(&weight, into_bias.as_ref(), hidden, sizes)?;
    let fc1_bias = into_bias.as_ref().map(|bias| rows(bias, 0..hidden));
    let mlp_bias = part.optional(mlp_bias);
    let fc1 = Linear::new(
        &rows(&weight, 0..hidden),
        fc1_bias.as_ref().or(mlp_bias.as_ref()),
    )?;
    let (out_bias, out) = (part.bias(out), part.tensor(out)?);
    let columns = |range: Range<usize>| columns(&out, [embed_dim, inputs], range);
    let attention = columns(0..embed_dim)?;
    let attention = Tensor::f32(&attention, &[embed_dim, embed_dim]);
    let fc2 = columns(embed_dim..inputs)?;
    let projections = Projections {
        q,
        k,
        v,
        out: Linear::new(&attention, out_bias.as_ref())?,
    };
    let fc2 = Linear::new(&Tensor::f32(&fc2, &[embed_dim, hidden]), None)?;
    Ok((projections, fc1, fc2))
}

/// Some rows of a weight of one or two axes, where they lie.
fn rows<'a>(weight: &Tensor<'a>, rows: Range<usize>) -> Tensor<'a> {
    let mut shape = weight.shape.clone();
    let width: usize = shape.iter().skip(1).product();
    if let Some(first) = shape.first_mut() {
        *first = rows.len();
    }
    Tensor {
        data: elements(&weight.data, rows.start * width..rows.end * width),
        shape,
    }
}

/// Some columns of a weight `[outputs, inputs]`, copied, widened exactly.
fn columns(
    weight: &Tensor<'_>,
    [outputs, inputs]: [usize; 2],
    columns: Range<usize>,
) -> Result<Vec<f32>, Error> {
    // (No more than the weight itself has.)
    let mut copy = try_zeroed(outputs * columns.len())?;
    for (row, to) in copy.chunks_exact_mut(columns.len()).enumerate() {
        let from = row * inputs + columns.start..row * inputs + columns.end;
        to.copy_from_slice(&elements(&weight.data, from).to_f32()?);
    }
    Ok(copy)
}
