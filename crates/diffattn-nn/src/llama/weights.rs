//! Where a model's weights come from: one at a time, so that a checkpoint need not be in memory at once. Reads no file.

use super::config::file_error;
use crate::weights::Weights;
use diffattn::{Data, Error, Tensor, check_len, format_shape};
use std::borrow::Cow;

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

impl Weight<'_> {
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
}

/// A checkpoint's weights by name. A model asks for each once, layer by layer, packs it and lets go of it.
pub trait WeightSource<'a> {
    /// The names of all weights: one that the model has no use for is an error.
    ///
    /// # Errors
    /// What keeps the source from knowing.
    fn names(&self) -> Result<Vec<String>, Error>;

    /// The weight of that name, or none.
    ///
    /// # Errors
    /// What keeps the source from reading it, such as an element type that is none of [`WeightData`]'s.
    fn read(&mut self, name: &str) -> Result<Option<Weight<'a>>, Error>;
}

/// Weights in memory, which are read where they lie.
impl<'a> WeightSource<'a> for &Weights<'a> {
    fn names(&self) -> Result<Vec<String>, Error> {
        Ok(self.keys().cloned().collect())
    }

    fn read(&mut self, name: &str) -> Result<Option<Weight<'a>>, Error> {
        Ok(self.get(name).map(|tensor| Weight {
            data: match tensor.data {
                Data::F32(data) => WeightData::F32(Cow::Borrowed(data)),
                Data::F16(data) => WeightData::F16(Cow::Borrowed(data)),
                Data::Bf16(data) => WeightData::Bf16(Cow::Borrowed(data)),
            },
            shape: tensor.shape.clone(),
        }))
    }
}

/// Reads the weight, which must be there and have `shape`.
pub(crate) fn required<'a>(
    source: &mut dyn WeightSource<'a>,
    name: &str,
    shape: &[usize],
) -> Result<Weight<'a>, Error> {
    let argument = format!("weights.{name}");
    let expected = format!("a tensor of shape {}", format_shape(shape));
    let Some(weight) = source.read(name)? else {
        return Err(file_error(argument, expected, "none"));
    };
    if weight.shape != shape {
        return Err(file_error(argument, expected, format_shape(&weight.shape)));
    }
    check_len(&argument, shape, weight.tensor().data.len())?;
    Ok(weight)
}
