//! Floats that layers take. Converts nothing.

use diffattn::{Data, Tensor};
use std::borrow::Cow;

/// Elements that layers compute with, borrowed where the bytes allowed it.
#[derive(Debug, Clone, PartialEq)]
pub enum Floats<'a> {
    /// float32.
    F32(Cow<'a, [f32]>),
    /// float16 bits.
    F16(Cow<'a, [u16]>),
    /// bfloat16 bits.
    Bf16(Cow<'a, [u16]>),
}

/// Floats with their shape.
#[derive(Debug, Clone, PartialEq)]
pub struct FloatTensor<'a> {
    /// The elements.
    pub data: Floats<'a>,
    /// The extent of each axis, last axis fastest.
    pub shape: Vec<usize>,
}

impl FloatTensor<'_> {
    /// The tensor as operators and layers take it.
    #[must_use]
    pub fn tensor(&self) -> Tensor<'_> {
        let data = match &self.data {
            Floats::F32(data) => Data::F32(data),
            Floats::F16(data) => Data::F16(data),
            Floats::Bf16(data) => Data::Bf16(data),
        };
        Tensor {
            data,
            shape: self.shape.clone(),
        }
    }

    /// Whether the elements lie where they were read, not copied.
    #[must_use]
    pub fn is_borrowed(&self) -> bool {
        match &self.data {
            Floats::F32(data) => matches!(data, Cow::Borrowed(_)),
            Floats::F16(data) | Floats::Bf16(data) => matches!(data, Cow::Borrowed(_)),
        }
    }
}
