//! A layer's weights as files hold them, and their way to what layers take. Reads no file.

use crate::floats::FloatTensor;
use crate::tensor::RawTensor;
use crate::weights::Weights;
use diffattn::Error;
use std::collections::BTreeMap;

/// A layer's weights by the names of [`Weights`], in any element type.
pub type RawWeights<'a> = BTreeMap<String, RawTensor<'a>>;

/// The weights as layers take them, in place where they can be; [`borrow_weights`] makes [`Weights`] of them.
///
/// # Errors
/// As [`RawTensor::floats`], naming the weight.
pub fn float_weights<'w>(
    weights: &'w RawWeights<'_>,
) -> Result<BTreeMap<String, FloatTensor<'w>>, Error> {
    weights
        .iter()
        .map(|(name, tensor)| Ok((name.clone(), tensor.floats(&format!("weights.{name}"))?)))
        .collect()
}

/// [`Weights`] of float tensors.
#[must_use]
pub fn borrow_weights<'w>(weights: &'w BTreeMap<String, FloatTensor<'_>>) -> Weights<'w> {
    weights
        .iter()
        .map(|(name, tensor)| (name.clone(), tensor.tensor()))
        .collect()
}
