//! A weight as a checkpoint lists it, and what a model keeps of each element type. Holds no
//! elements.

use crate::dtype::Dtype;
use diffattn::{DType, Tensor};

/// What a checkpoint says of a weight: all but its elements. Of F64, a model takes the elements
/// rounded to F32, of quantised blocks what they stand for, as F32.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WeightInfo {
    /// Its name.
    pub name: String,
    /// The type of its elements.
    pub dtype: Dtype,
    /// Its shape.
    pub shape: Vec<usize>,
}

impl WeightInfo {
    /// What a tensor of that name is.
    #[must_use]
    pub fn of(name: &str, tensor: &Tensor<'_>) -> Self {
        Self {
            name: name.to_owned(),
            dtype: tensor.data.dtype().into(),
            shape: tensor.shape.clone(),
        }
    }
}

impl From<DType> for Dtype {
    fn from(dtype: DType) -> Self {
        match dtype {
            DType::F32 => Self::F32,
            DType::F16 => Self::F16,
            DType::Bf16 => Self::BF16,
        }
    }
}

impl Dtype {
    /// What a model keeps of a weight's elements: those that are wider than it computes with are
    /// rounded on their way, quantised ones widened.
    #[must_use]
    pub fn kept(self) -> Self {
        match self {
            Self::F64 | Self::Q8_0 | Self::Q4_0 | Self::Q4_1 => Self::F32,
            other => other,
        }
    }
}
