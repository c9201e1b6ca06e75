//! Named weights. Reads no file.

use diffattn::Tensor;
use std::collections::BTreeMap;

/// Weights of a layer by the reference's names, float32, float16 or bfloat16: `q_proj.weight`,
/// `k_proj.weight`, `v_proj.weight`, `out_proj.weight` or `o_proj.weight`, a `.bias` beside any of
/// them, and what the version has besides.
pub type Weights<'a> = BTreeMap<String, Tensor<'a>>;

/// The projections of every layer; the last two are one, under two names.
pub const PROJECTIONS: [&str; 5] = ["q_proj", "k_proj", "v_proj", "out_proj", "o_proj"];
