//! Where a model's weights come from: one at a time, so that a checkpoint need not be in memory at once. Reads no file.

use super::WeightInfo;
use crate::weights::Weights;
use diffattn::{Data, Error, Tensor};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// A weight as a source gives it: where it lies, or read for this purpose.
#[derive(Debug, Clone)]
pub struct Weight<'a> {
    /// Its elements.
    pub data: WeightData<'a>,
    /// Its shape.
    pub shape: Vec<usize>,
}

/// Elements of a [`Weight`].
#[derive(Debug, Clone)]
pub enum WeightData<'a> {
    /// float32.
    F32(Cow<'a, [f32]>),
    /// float16 bits.
    F16(Cow<'a, [u16]>),
    /// bfloat16 bits.
    Bf16(Cow<'a, [u16]>),
}

/// Weights by name: those of one part of a model.
pub type PartWeights<'a> = BTreeMap<String, Weight<'a>>;

impl<'a> Weight<'a> {
    /// The weight, to read.
    #[must_use]
    pub fn tensor(&self) -> Tensor<'_> {
        let data = match &self.data {
            WeightData::F32(data) => Data::F32(data),
            WeightData::F16(data) => Data::F16(data),
            WeightData::Bf16(data) => Data::Bf16(data),
        };
        Tensor {
            data,
            shape: self.shape.clone(),
        }
    }

    /// A weight that stays where it lies.
    pub(crate) fn borrowed(tensor: &Tensor<'a>) -> Self {
        Self {
            data: match tensor.data {
                Data::F32(data) => WeightData::F32(Cow::Borrowed(data)),
                Data::F16(data) => WeightData::F16(Cow::Borrowed(data)),
                Data::Bf16(data) => WeightData::Bf16(Cow::Borrowed(data)),
            },
            shape: tensor.shape.clone(),
        }
    }
}

/// A checkpoint's weights by name. A model looks at all entries first, then asks for the weights that it has a use for,
/// each once, part by part; it packs them and lets go of them.
pub trait WeightSource<'a> {
    /// All weights but their elements.
    ///
    /// # Errors
    /// What keeps the source from knowing.
    fn entries(&self) -> Result<Vec<WeightInfo>, Error>;

    /// The weight of that name, or none; one of F64 as F32.
    ///
    /// # Errors
    /// What keeps the source from reading it.
    fn read(&mut self, name: &str) -> Result<Option<Weight<'a>>, Error>;
}

/// Weights in memory, which are read where they lie.
impl<'a> WeightSource<'a> for &Weights<'a> {
    fn entries(&self) -> Result<Vec<WeightInfo>, Error> {
        Ok(self
            .iter()
            .map(|(name, tensor)| WeightInfo::of(name, tensor))
            .collect())
    }

    fn read(&mut self, name: &str) -> Result<Option<Weight<'a>>, Error> {
        Ok(self.get(name).map(Weight::borrowed))
    }
}
