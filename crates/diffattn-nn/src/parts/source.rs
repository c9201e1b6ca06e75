//! Where a model's weights come from: one at a time, so that a checkpoint need not be in memory at once. Reads no file.

use super::WeightInfo;
use crate::weights::Weights;
use diffattn::{Data, Error, Tensor};
pub use diffattn_files::{FloatTensor as Weight, Floats as WeightData};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Weights by name: those of one part of a model.
pub type PartWeights<'a> = BTreeMap<String, Weight<'a>>;

/// A weight that stays where it lies.
fn borrowed<'a>(tensor: &Tensor<'a>) -> Weight<'a> {
    Weight {
        data: match tensor.data {
            Data::F32(data) => WeightData::F32(Cow::Borrowed(data)),
            Data::F16(data) => WeightData::F16(Cow::Borrowed(data)),
            Data::Bf16(data) => WeightData::Bf16(Cow::Borrowed(data)),
        },
        shape: tensor.shape.clone(),
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
        Ok(self.get(name).map(borrowed))
    }
}
