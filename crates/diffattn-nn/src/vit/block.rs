//! One transformer block: norms, attention, MLP. timm's fused projections are taken apart here, so that attention is the
//! layer that it is everywhere. Runs nothing.

use crate::layer::DiffAttnLayer;
use crate::layers;
use crate::options::{LambdaForm, MultiheadDiffAttnOptions, NormConfig};
use crate::parts::{Entries, Part, elements};
use crate::v1::MultiheadDiffAttn;
use crate::weights::Weights;
use diffattn::{Error, Linear, Tensor, checked_len, try_zeroed};
use std::ops::Range;

/// timm's eps of layer norms.
const NORM_EPS: f32 = 1e-6;

/// timm's eps of the norm per head.
const HEAD_NORM_EPS: f32 = 1e-5;

/// A layer norm with its weights.
#[derive(Debug, Clone)]
pub(super) struct Norm {
    weight: Vec<f32>,
    bias: Vec<f32>,
}

impl Norm {
    /// Takes the entries of one.
    pub(super) fn entries(
        entries: &mut Entries<'_>,
        name: &str,
        width: usize,
    ) -> Result<(), Error> {
        entries.required(&format!("{name}.weight"), &[width])?;
        entries.required(&format!("{name}.bias"), &[width])
    }

    pub(super) fn load(part: &Part<'_, '_>, name: &str) -> Result<Self, Error> {
        Ok(Self {
            weight: part.vector(&format!("{name}.weight"))?,
            bias: part.vector(&format!("{name}.bias"))?,
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

/// `x = x + scale₁ · attention(n)`, `x = x + scale₂ · fc2(gelu(fc1(m)))`, with n = norm₁(x) and m = norm₂(x); or, where
/// there is no second norm, m = n.
#[derive(Debug, Clone)]
pub(super) struct Block {
    pub(super) norm: Norm,
    pub(super) attention: DiffAttnLayer,
    pub(super) attention_scale: Option<Vec<f32>>,
    pub(super) mlp_norm: Option<Norm>,
    pub(super) fc1: Linear,
    pub(super) fc2: Linear,
    pub(super) mlp_scale: Option<Vec<f32>>,
}

/// What all blocks share.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    pub(super) embed_dim: usize,
    pub(super) num_heads: usize,
    /// Channels within the MLP.
    pub(super) hidden: usize,
}

/// Takes the entries of `{name}.weight` `[outputs, inputs]` and, where given, `{name}.bias` `[outputs]`.
fn linear_entries(
    entries: &mut Entries<'_>,
    name: &str,
    [outputs, inputs]: [usize; 2],
) -> Result<(), Error> {
    entries.required(&format!("{name}.weight"), &[outputs, inputs])?;
    entries.optional(&format!("{name}.bias"), &[outputs])?;
    Ok(())
}

impl Block {
    /// Takes the entries of a block.
    ///
    /// `Block` of timm: `norm1`, `attn.qkv`, `attn.proj`, `ls1`, `norm2`, `mlp.fc1`, `mlp.fc2`, `ls2`.
    ///
    /// `DiffParallelScalingBlock` of timm: `in_norm`, `in_proj` (rows: the MLP, q, k, v), `out_proj` (columns: attention, the
    /// MLP), `ls`. `in_proj.bias` is that of all rows, `mlp_bias` that of the MLP's alone.
    pub(super) fn entries(
        entries: &mut Entries<'_>,
        index: usize,
        sizes: Sizes,
        is_parallel: bool,
    ) -> Result<(), Error> {
        let Sizes {
            embed_dim,
            num_heads,
            hidden,
        } = sizes;
        let name = |part: &str| format!("blocks.{index}.{part}");
        let qkv = checked_len("weights", &[3, embed_dim])?;
        let (attention, norms, scales): (&str, &[&str], &[&str]) = if is_parallel {
            linear_entries(
                entries,
                &name("in_proj"),
                [hidden.saturating_add(qkv), embed_dim],
            )?;
            let is_biased = entries.has(&name("in_proj.bias"));
            if entries.optional(&name("mlp_bias"), &[hidden])? && is_biased {
                return Err(Error::file(
                    format_args!("weights.{}", name("mlp_bias")),
                    "none beside in_proj.bias",
                    "one",
                ));
            }
            linear_entries(
                entries,
                &name("out_proj"),
                [embed_dim, embed_dim.saturating_add(hidden)],
            )?;
            ("", &["in_norm"], &["ls.gamma"])
        } else {
            for (linear, shape) in [
                ("attn.qkv", [qkv, embed_dim]),
                ("attn.proj", [embed_dim, embed_dim]),
                ("mlp.fc1", [hidden, embed_dim]),
                ("mlp.fc2", [embed_dim, hidden]),
            ] {
                linear_entries(entries, &name(linear), shape)?;
            }
            ("attn.", &["norm1", "norm2"], &["ls1.gamma", "ls2.gamma"])
        };
        let head_width = embed_dim / num_heads;
        entries.required(&name(&format!("{attention}sub_norm.weight")), &[head_width])?;
        let has_scalars = entries.has(&name(&format!("{attention}lambda_a")));
        let (_, lambdas) = lambda_form(has_scalars);
        for lambda in lambdas {
            let vector = [head_width / 2];
            let shape: &[usize] = if has_scalars { &[] } else { &vector };
            entries.required(&name(&format!("{attention}{lambda}")), shape)?;
        }
        for norm in norms {
            Norm::entries(entries, &name(norm), embed_dim)?;
        }
        for scale in scales {
            entries.optional(&name(scale), &[embed_dim])?;
        }
        Ok(())
    }

    /// Packs a block whose entries were taken.
    pub(super) fn load(
        part: &Part<'_, '_>,
        index: usize,
        sizes: Sizes,
        is_parallel: bool,
    ) -> Result<Self, Error> {
        if is_parallel {
            Self::load_parallel(part, index, sizes)
        } else {
            Self::load_plain(part, index, sizes)
        }
    }

    fn load_plain(part: &Part<'_, '_>, index: usize, sizes: Sizes) -> Result<Self, Error> {
        let name = |of: &str| format!("blocks.{index}.{of}");
        let projections = Projections {
            qkv: part.required(&name("attn.qkv.weight"))?,
            qkv_bias: part.optional(&name("attn.qkv.bias")),
            out: part.required(&name("attn.proj.weight"))?,
            out_bias: part.optional(&name("attn.proj.bias")),
        };
        Ok(Self {
            norm: Norm::load(part, &name("norm1"))?,
            attention: attention(part, &name("attn."), index, sizes, projections)?,
            attention_scale: part.optional_vector(&name("ls1.gamma"))?,
            mlp_norm: Some(Norm::load(part, &name("norm2"))?),
            fc1: part.linear(&name("mlp.fc1"))?,
            fc2: part.linear(&name("mlp.fc2"))?,
            mlp_scale: part.optional_vector(&name("ls2.gamma"))?,
        })
    }

    fn load_parallel(part: &Part<'_, '_>, index: usize, sizes: Sizes) -> Result<Self, Error> {
        let Sizes {
            embed_dim, hidden, ..
        } = sizes;
        let name = |of: &str| format!("blocks.{index}.{of}");
        let split = hidden..hidden + 3 * embed_dim;
        let into = part.required(&name("in_proj.weight"))?;
        let into_bias = part.optional(&name("in_proj.bias"));
        let mlp_bias = part.optional(&name("mlp_bias"));
        let inputs = embed_dim + hidden;
        let out = part.required(&name("out_proj.weight"))?;
        let attention_out = columns(&out, [embed_dim, inputs], 0..embed_dim)?;
        let projections = Projections {
            qkv: rows(&into, split.clone()),
            qkv_bias: into_bias.as_ref().map(|bias| rows(bias, split)),
            out: Tensor::f32(&attention_out, &[embed_dim, embed_dim]),
            out_bias: part.optional(&name("out_proj.bias")),
        };
        let attention = attention(part, &name(""), index, sizes, projections)?;
        let fc1_bias = into_bias.as_ref().map(|bias| rows(bias, 0..hidden));
        let fc2 = columns(&out, [embed_dim, inputs], embed_dim..inputs)?;
        let scale = part.optional_vector(&name("ls.gamma"))?;
        Ok(Self {
            norm: Norm::load(part, &name("in_norm"))?,
            attention,
            attention_scale: scale.clone(),
            mlp_norm: None,
            fc1: Linear::new(
                &rows(&into, 0..hidden),
                fc1_bias.as_ref().or(mlp_bias.as_ref()),
            )?,
            fc2: Linear::new(&Tensor::f32(&fc2, &[embed_dim, hidden]), None)?,
            mlp_scale: scale,
        })
    }
}

/// The form of λ with and without two numbers of its own, and the names of its weights.
fn lambda_form(has_scalars: bool) -> (LambdaForm, &'static [&'static str]) {
    if has_scalars {
        (LambdaForm::Scalars, &["lambda_a", "lambda_b"])
    } else {
        let names = &["lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2"];
        (LambdaForm::Vectors, names)
    }
}

/// The projections of attention, checked: rows of q, k and v together.
struct Projections<'a> {
    qkv: Tensor<'a>,
    qkv_bias: Option<Tensor<'a>>,
    out: Tensor<'a>,
    out_bias: Option<Tensor<'a>>,
}

/// timm's differential attention as the layer has it: interleaved heads, not causal, λ of vectors or of two numbers, as the
/// weights have it.
fn attention(
    part: &Part<'_, '_>,
    prefix: &str,
    depth: usize,
    sizes: Sizes,
    projections: Projections<'_>,
) -> Result<DiffAttnLayer, Error> {
    let Sizes {
        embed_dim,
        num_heads,
        ..
    } = sizes;
    let mut weights = Weights::new();
    for (index, name) in ["q_proj", "k_proj", "v_proj"].into_iter().enumerate() {
        let range = index * embed_dim..(index + 1) * embed_dim;
        if let Some(bias) = &projections.qkv_bias {
            weights.insert(format!("{name}.bias"), rows(bias, range.clone()));
        }
        weights.insert(format!("{name}.weight"), rows(&projections.qkv, range));
    }
    weights.insert("out_proj.weight".to_owned(), projections.out);
    if let Some(bias) = projections.out_bias {
        weights.insert("out_proj.bias".to_owned(), bias);
    }
    let norm = part.required(&format!("{prefix}sub_norm.weight"))?;
    weights.insert("subln.weight".to_owned(), norm);
    let has_scalars = part.optional(&format!("{prefix}lambda_a")).is_some();
    let (lambda_form, names) = lambda_form(has_scalars);
    for &name in names {
        let weight = part.required(&format!("{prefix}{name}"))?;
        weights.insert(name.to_owned(), weight);
    }
    let options = MultiheadDiffAttnOptions {
        is_causal: false,
        norm: NormConfig {
            eps: HEAD_NORM_EPS,
            affine: Some(true),
        },
        lambda_form,
        ..MultiheadDiffAttnOptions::new(embed_dim, depth, num_heads)
    };
    MultiheadDiffAttn::new(&options, &weights).map(DiffAttnLayer::from)
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
