//! One transformer block: norms, attention, MLP. timm's fused projections are taken apart here, so that attention is the
//! layer that it is everywhere. Runs nothing.

use super::weights::{Source, columns, rows};
use crate::layer::DiffAttnLayer;
use crate::options::{LambdaForm, MultiheadDiffAttnOptions, NormConfig};
use crate::v1::MultiheadDiffAttn;
use crate::weights::Weights;
use diffattn::{Error, LayerNormOptions, Linear, LinearOptions, Tensor, checked_len, layer_norm};

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
    pub(super) fn load(
        source: &mut Source<'_, '_>,
        name: &str,
        width: usize,
    ) -> Result<Self, Error> {
        Ok(Self {
            weight: source.vector(&format!("{name}.weight"), width)?,
            bias: source.vector(&format!("{name}.bias"), width)?,
        })
    }

    /// Rows of x, normalised, into y.
    pub(super) fn forward(
        &self,
        x: &[f32],
        y: &mut [f32],
        options: &LinearOptions,
    ) -> Result<(), Error> {
        let width = self.weight.len();
        let options = LayerNormOptions {
            weight: Some(&self.weight),
            bias: Some(&self.bias),
            eps: NORM_EPS,
            isa: options.isa,
            threads: options.threads,
        };
        layer_norm(Tensor::f32(x, &[x.len() / width, width]), y, &options)
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

impl Block {
    /// `Block` of timm: `norm1`, `attn.qkv`, `attn.proj`, `ls1`, `norm2`, `mlp.fc1`, `mlp.fc2`, `ls2`.
    pub(super) fn load(
        source: &mut Source<'_, '_>,
        index: usize,
        sizes: Sizes,
    ) -> Result<Self, Error> {
        let Sizes {
            embed_dim, hidden, ..
        } = sizes;
        let name = |part: &str| format!("blocks.{index}.{part}");
        let qkv = source.required(
            &name("attn.qkv.weight"),
            &[checked_len("weights", &[3, embed_dim])?, embed_dim],
        )?;
        let qkv_bias = source.optional(&name("attn.qkv.bias"), &[3 * embed_dim])?;
        let proj = source.required(&name("attn.proj.weight"), &[embed_dim, embed_dim])?;
        let proj_bias = source.optional(&name("attn.proj.bias"), &[embed_dim])?;
        let parts = Projections {
            qkv: qkv.clone(),
            qkv_bias: qkv_bias.cloned(),
            out: proj.clone(),
            out_bias: proj_bias.cloned(),
        };
        Ok(Self {
            norm: Norm::load(source, &name("norm1"), embed_dim)?,
            attention: attention(source, &name("attn."), index, sizes, parts)?,
            attention_scale: source.optional_vector(&name("ls1.gamma"), embed_dim)?,
            mlp_norm: Some(Norm::load(source, &name("norm2"), embed_dim)?),
            fc1: source.linear(&name("mlp.fc1"), hidden, embed_dim)?,
            fc2: source.linear(&name("mlp.fc2"), embed_dim, hidden)?,
            mlp_scale: source.optional_vector(&name("ls2.gamma"), embed_dim)?,
        })
    }

    /// `DiffParallelScalingBlock` of timm: `in_norm`, `in_proj` (rows: the MLP, q, k, v), `out_proj` (columns: attention, the
    /// MLP), `ls`. `in_proj.bias` is that of all rows, `mlp_bias` that of the MLP's alone.
    pub(super) fn load_parallel(
        source: &mut Source<'_, '_>,
        index: usize,
        sizes: Sizes,
    ) -> Result<Self, Error> {
        let Sizes {
            embed_dim, hidden, ..
        } = sizes;
        let name = |part: &str| format!("blocks.{index}.{part}");
        let split = hidden..hidden + 3 * embed_dim;
        let into = source.required(&name("in_proj.weight"), &[split.end, embed_dim])?;
        let into_bias = source.optional(&name("in_proj.bias"), &[split.end])?;
        let mlp_bias = source.optional(&name("mlp_bias"), &[hidden])?;
        if into_bias.is_some() && mlp_bias.is_some() {
            return Err(Error::file(
                format_args!("weights.{}", name("mlp_bias")),
                "none beside in_proj.bias",
                "one",
            ));
        }
        let inputs = embed_dim + hidden;
        let out = source.required(&name("out_proj.weight"), &[embed_dim, inputs])?;
        let out_bias = source.optional(&name("out_proj.bias"), &[embed_dim])?;
        let attention_out = columns(out, [embed_dim, inputs], 0..embed_dim)?;
        let parts = Projections {
            qkv: rows(into, split.clone()),
            qkv_bias: into_bias.map(|bias| rows(bias, split)),
            out: Tensor::f32(&attention_out, &[embed_dim, embed_dim]),
            out_bias: out_bias.cloned(),
        };
        let attention = attention(source, &name(""), index, sizes, parts)?;
        let fc1_bias = into_bias.map(|bias| rows(bias, 0..hidden));
        let fc2 = columns(out, [embed_dim, inputs], embed_dim..inputs)?;
        let scale = source.optional_vector(&name("ls.gamma"), embed_dim)?;
        Ok(Self {
            norm: Norm::load(source, &name("in_norm"), embed_dim)?,
            attention,
            attention_scale: scale.clone(),
            mlp_norm: None,
            fc1: Linear::new(&rows(into, 0..hidden), fc1_bias.as_ref().or(mlp_bias))?,
            fc2: Linear::new(&Tensor::f32(&fc2, &[embed_dim, hidden]), None)?,
            mlp_scale: scale,
        })
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
    source: &mut Source<'_, '_>,
    prefix: &str,
    depth: usize,
    sizes: Sizes,
    parts: Projections<'_>,
) -> Result<DiffAttnLayer, Error> {
    let Sizes {
        embed_dim,
        num_heads,
        ..
    } = sizes;
    let head_width = embed_dim / num_heads;
    let mut weights = Weights::new();
    for (index, name) in ["q_proj", "k_proj", "v_proj"].into_iter().enumerate() {
        let range = index * embed_dim..(index + 1) * embed_dim;
        if let Some(bias) = &parts.qkv_bias {
            weights.insert(format!("{name}.bias"), rows(bias, range.clone()));
        }
        weights.insert(format!("{name}.weight"), rows(&parts.qkv, range));
    }
    weights.insert("out_proj.weight".to_owned(), parts.out);
    if let Some(bias) = parts.out_bias {
        weights.insert("out_proj.bias".to_owned(), bias);
    }
    let norm = source.required(&format!("{prefix}sub_norm.weight"), &[head_width])?;
    weights.insert("subln.weight".to_owned(), norm.clone());
    let (lambda_form, shape, names): (_, &[usize], &[&str]) =
        if source.has(&format!("{prefix}lambda_a")) {
            (LambdaForm::Scalars, &[], &["lambda_a", "lambda_b"])
        } else {
            let names = &["lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2"];
            (LambdaForm::Vectors, &[head_width / 2], names)
        };
    for &name in names {
        let weight = source.required(&format!("{prefix}{name}"), shape)?;
        weights.insert(name.to_owned(), weight.clone());
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
