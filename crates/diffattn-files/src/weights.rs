//! Named weights. Reads no file.

use diffattn::Tensor;
use std::collections::BTreeMap;

/// Weights of a layer by the reference's names, float32, float16 or bfloat16: `q_proj.weight`,
/// `k_proj.weight`, `v_proj.weight`, `out_proj.weight` or `o_proj.weight`, a `.bias` beside any of
/// them, and what the version has besides.
pub type Weights<'a> = BTreeMap<String, Tensor<'a>>;
