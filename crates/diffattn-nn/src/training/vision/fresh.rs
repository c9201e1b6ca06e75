//! The weights of a vision transformer that knows nothing yet, as timm begins. Reads no file.

use crate::models::diff_vit::{DiffViTArchitecture, DiffViTConfig};
use crate::models::tables::listed;
use crate::training::start::{FreshTensor, Start};
use diffattn::{Error, checked_len};
use diffattn_files::vision::{self, BlockForm, BlockSizes, TokenSizes};
use diffattn_files::{Declare, Need, json_object};
use serde_json::Value;

/// The spread of maps and positions.
const SPREAD: f64 = 0.02;
/// The spread of λ's vectors.
const LAMBDA_SPREAD: f64 = 0.1;
/// The spread of registers.
const REGISTER_SPREAD: f64 = 1e-6;

/// What of a vision transformer's weights its sizes do not say: keys of timm's `model_args`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DiffViTStart {
    /// What factors of channels begin with (`init_values`); `None`: there are none. 10⁻⁵ by
    /// default.
    pub init_values: Option<f64>,
    /// Whether the maps of q, k and v have a bias (`qkv_bias`). By default.
    pub qkv_bias: bool,
    /// Whether the other maps of a block have one (`proj_bias`). By default.
    pub proj_bias: bool,
    /// Whether λ is made of two numbers instead of four vectors (`dual_lambda`). Not by default.
    pub dual_lambda: bool,
}

impl Default for DiffViTStart {
    fn default() -> Self {
        Self {
            init_values: Some(1e-5),
            qkv_bias: true,
            proj_bias: true,
            dual_lambda: false,
        }
    }
}

impl DiffViTStart {
    /// Of the text of a `config.json`, which has them among its `model_args`.
    ///
    /// # Errors
    /// [`ErrorKind::File`](diffattn::ErrorKind::File) naming the key, as `config.model_args.KEY`.
    pub fn from_json(text: &str) -> Result<Self, Error> {
        let root = json_object("config", text)?;
        let args = root.get("model_args");
        let value = |key: &str| args.and_then(|args| args.get(key));
        let wrong = |key: &str, expected: &str, value: &Value| {
            Error::file(format_args!("config.model_args.{key}"), expected, value)
        };
        let flag = |key: &str, otherwise: bool| match value(key) {
            None => Ok(otherwise),
            Some(Value::Bool(is)) => Ok(*is),
            Some(other) => Err(wrong(key, "true or false", other)),
        };
        let own = Self::default();
        Ok(Self {
            init_values: match value("init_values") {
                None => own.init_values,
                Some(Value::Null) => None,
                Some(number) => {
                    let expected = "a number, or null";
                    let is_number = number.as_f64().filter(|number| number.is_finite());
                    Some(is_number.ok_or_else(|| wrong("init_values", expected, number))?)
                }
            },
            qkv_bias: flag("qkv_bias", own.qkv_bias)?,
            proj_bias: flag("proj_bias", own.proj_bias)?,
            dual_lambda: flag("dual_lambda", own.dual_lambda)?,
        })
    }
}

/// Every size of a model.
struct AllSizes {
    tokens: TokenSizes,
    blocks: BlockSizes,
    depth: usize,
    classes: usize,
}

/// The sizes of a configuration; what it leaves out is timm's.
fn sizes(config: &DiffViTConfig) -> Result<AllSizes, Error> {
    let (embed_dim, depth, num_heads, mlp_ratio) = match config.architecture {
        DiffViTArchitecture::Wee => (256, 14, 4, 5.0),
        DiffViTArchitecture::Little => (320, 14, 5, 5.6),
        DiffViTArchitecture::ParallelWee => (256, 16, 4, 4.0),
    };
    let embed_dim = config.embed_dim.unwrap_or(embed_dim);
    let num_heads = config.num_heads.unwrap_or(num_heads);
    let (img_size, patch_size) = (
        config.img_size.unwrap_or(256),
        config.patch_size.unwrap_or(16),
    );
    let wrong = |key: &str, expected: String, got: usize| {
        Err(Error::file(format_args!("config.{key}"), expected, got))
    };
    if num_heads == 0 || !embed_dim.is_multiple_of(2 * num_heads) {
        let expected = format!("a number whose double divides embed_dim {embed_dim}");
        return wrong("num_heads", expected, num_heads);
    }
    if patch_size == 0 || img_size == 0 || !img_size.is_multiple_of(patch_size) {
        let expected = format!("a multiple of the patch size {patch_size}");
        return wrong("img_size", expected, img_size);
    }
    let hidden = (embed_dim as f64 * config.mlp_ratio.unwrap_or(mlp_ratio)) as usize;
    if hidden == 0 {
        let expected = "one that leaves channels within the MLP";
        return wrong("mlp_ratio", expected.to_owned(), hidden);
    }
    let side = img_size / patch_size;
    Ok(AllSizes {
        tokens: TokenSizes {
            embed_dim,
            in_chans: config.in_chans.unwrap_or(3),
            patch_size,
            positions: checked_len("config.img_size", &[side, side])?,
            reg_tokens: config.reg_tokens.unwrap_or(1),
        },
        blocks: BlockSizes {
            embed_dim,
            head_width: embed_dim / num_heads,
            hidden,
        },
        depth: config.depth.unwrap_or(depth),
        classes: config.num_classes.unwrap_or(1000),
    })
}

/// The weights of a configuration, each with what it begins with.
pub(in crate::training) fn vision_weights(
    config: &DiffViTConfig,
    start: &DiffViTStart,
) -> Result<Vec<FreshTensor>, Error> {
    let AllSizes {
        tokens,
        blocks,
        depth,
        classes,
    } = sizes(config)?;
    let inputs = tokens.in_chans as f64 * (tokens.patch_size as f64).powi(2);
    let mut made = Vec::new();
    let mut add = |list: &Declare, is_there: &dyn Fn(&str) -> bool| {
        for tensor in list.tensors() {
            let is_optional = tensor.need == Need::Optional && is_there(&tensor.name);
            if tensor.need != Need::Required && !is_optional {
                continue;
            }
            checked_len(&tensor.name, &tensor.shape)?;
            made.push(FreshTensor {
                start: start_of(&tensor.name, start, inputs),
                name: tensor.name,
                shape: tensor.shape,
            });
        }
        Ok::<_, Error>(())
    };
    add(&listed(|d| tokens.declare(d)).0, &|_| true)?;
    let is_there = |name: &str| match name {
        _ if name.ends_with(".gamma") => start.init_values.is_some(),
        // (Of a parallel block: either all of its rows have one, or those of the MLP alone.)
        _ if name.ends_with("mlp_bias") => !start.qkv_bias,
        _ if name.ends_with("qkv.bias") || name.ends_with("in_proj.bias") => start.qkv_bias,
        _ => start.proj_bias,
    };
    let form = config.architecture.form();
    for index in 0..depth {
        let has = |name: &str| {
            let is_scalar = name.ends_with("lambda_a") && start.dual_lambda;
            is_scalar || (form == BlockForm::Parallel && is_there(name))
        };
        add(&listed(|d| blocks.block(form, index, has, d)).0, &is_there)?;
    }
    let list = listed(|d| vision::logits(tokens.embed_dim, classes, d)).0;
    add(&list, &|_| true)?;
    Ok(made)
}

/// What a weight of that name begins with.
fn start_of(name: &str, start: &DiffViTStart, patch_inputs: f64) -> Start {
    let is = |part: &str| name.contains(part);
    if is("patch_embed.") {
        Start::Uniform(1.0 / patch_inputs.sqrt())
    } else if is("reg_token") {
        Start::Normal(REGISTER_SPREAD)
    } else if is("lambda_a") || is("lambda_b") {
        Start::Constant(0.0)
    } else if is("lambda_") {
        Start::Normal(LAMBDA_SPREAD)
    } else if is(".gamma") {
        Start::Constant(start.init_values.unwrap_or(1.0) as f32)
    } else if name.ends_with(".bias") || is("mlp_bias") {
        Start::Constant(0.0)
    } else if is("norm") {
        Start::Constant(1.0)
    } else {
        Start::Normal(SPREAD)
    }
}
