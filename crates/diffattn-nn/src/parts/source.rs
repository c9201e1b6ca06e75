//! Where a model's weights come from: one at a time, so that a checkpoint need not be in memory at
//! once. Reads no file.

use super::{WeightFormat, WeightFormats, WeightInfo};
use crate::weights::Weights;
use diffattn::{Data, Error, Tensor, check_len, try_zeroed};
use diffattn_files::{Dtype, FloatTensor, Floats, RawTensor};
use half::{bf16, f16};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};

/// Weights by name: those of one part of a model. A map, with what the model holds them as.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PartWeights<'a> {
    by_name: BTreeMap<String, Weight<'a>>,
    /// As what the model holds them; known once it has taken them.
    pub(super) formats: WeightFormats,
}

impl PartWeights<'_> {
    /// No weights.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl<'a> Deref for PartWeights<'a> {
    type Target = BTreeMap<String, Weight<'a>>;

    fn deref(&self) -> &Self::Target {
        &self.by_name
    }
}

impl DerefMut for PartWeights<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.by_name
    }
}

impl<'a> FromIterator<(String, Weight<'a>)> for PartWeights<'a> {
    fn from_iter<T: IntoIterator<Item = (String, Weight<'a>)>>(weights: T) -> Self {
        Self {
            by_name: weights.into_iter().collect(),
            formats: WeightFormats::default(),
        }
    }
}

impl<'a> IntoIterator for PartWeights<'a> {
    type Item = (String, Weight<'a>);
    type IntoIter = std::collections::btree_map::IntoIter<String, Weight<'a>>;

    fn into_iter(self) -> Self::IntoIter {
        self.by_name.into_iter()
    }
}

/// A weight with its shape, as its file says it.
#[derive(Debug, Clone, PartialEq)]
pub struct Weight<'a> {
    /// The elements.
    pub data: WeightData<'a>,
    /// The extent of each axis, last axis fastest.
    pub shape: Vec<usize>,
}

/// Elements of a weight, borrowed where they could be.
#[derive(Debug, Clone, PartialEq)]
pub enum WeightData<'a> {
    /// float32.
    F32(Cow<'a, [f32]>),
    /// float16 bits.
    F16(Cow<'a, [u16]>),
    /// bfloat16 bits.
    Bf16(Cow<'a, [u16]>),
    /// Elements of any type as a file holds them.
    Stored(Dtype, Cow<'a, [u8]>),
}

impl WeightData<'_> {
    /// Whether all elements are the same bits.
    pub(super) fn has_bits_of(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::F32(a), Self::F32(b)) => {
                let mut pairs = a.iter().zip(&**b);
                a.len() == b.len() && pairs.all(|(a, b)| a.to_bits() == b.to_bits())
            }
            (Self::F16(a), Self::F16(b)) | (Self::Bf16(a), Self::Bf16(b)) => a == b,
            (Self::Stored(a, of_a), Self::Stored(b, of_b)) => (a, of_a) == (b, of_b),
            _ => false,
        }
    }
}

impl<'a> From<FloatTensor<'a>> for Weight<'a> {
    fn from(tensor: FloatTensor<'a>) -> Self {
        Self {
            data: match tensor.data {
                Floats::F32(data) => WeightData::F32(data),
                Floats::F16(data) => WeightData::F16(data),
                Floats::Bf16(data) => WeightData::Bf16(data),
            },
            shape: tensor.shape,
        }
    }
}

impl<'a> From<RawTensor<'a>> for Weight<'a> {
    fn from(tensor: RawTensor<'a>) -> Self {
        Self {
            shape: tensor.shape().to_vec(),
            data: WeightData::Stored(tensor.dtype(), tensor.into_elements()),
        }
    }
}

impl<'a> Weight<'a> {
    /// A weight that stays where it lies.
    #[must_use]
    pub fn borrowed(tensor: &Tensor<'a>) -> Self {
        Self {
            data: match tensor.data {
                Data::F32(data) => WeightData::F32(Cow::Borrowed(data)),
                Data::F16(data) => WeightData::F16(Cow::Borrowed(data)),
                Data::Bf16(data) => WeightData::Bf16(Cow::Borrowed(data)),
            },
            shape: tensor.shape.clone(),
        }
    }

    /// The type of its elements.
    #[must_use]
    pub fn dtype(&self) -> Dtype {
        match self.data {
            WeightData::F32(_) => Dtype::F32,
            WeightData::F16(_) => Dtype::F16,
            WeightData::Bf16(_) => Dtype::BF16,
            WeightData::Stored(dtype, _) => dtype,
        }
    }

    /// The floats that it is, where it is any; those of a file as long as they have not been made
    /// such ([`Weight::into_floats`]) are none.
    #[must_use]
    pub fn tensor(&self) -> Option<Tensor<'_>> {
        let data = match &self.data {
            WeightData::F32(data) => Data::F32(data),
            WeightData::F16(data) => Data::F16(data),
            WeightData::Bf16(data) => Data::Bf16(data),
            WeightData::Stored(..) => return None,
        };
        Some(Tensor {
            data,
            shape: self.shape.clone(),
        })
    }

    /// Checks that its elements fill its shape.
    pub(super) fn check_len(&self, argument: &str) -> Result<(), Error> {
        match (&self.data, self.tensor()) {
            (WeightData::Stored(dtype, bytes), _) => {
                let borrowed: &[u8] = bytes;
                RawTensor::new(argument, *dtype, &self.shape, borrowed).map(drop)
            }
            (_, Some(tensor)) => check_len(argument, &self.shape, tensor.data.len()).map(drop),
            (_, None) => Ok(()),
        }
    }

    /// As its file has it, where it is not floats already.
    pub(super) fn into_raw(self, argument: &str) -> Result<RawTensor<'a>, Error> {
        match self.data {
            WeightData::Stored(dtype, bytes) => RawTensor::new(argument, dtype, &self.shape, bytes),
            _ => Err(Error::internal(format!("{argument} is floats"))),
        }
    }

    /// Floats in another format of floats, each rounded once.
    pub(super) fn cast(self, to: WeightFormat) -> Result<Self, Error> {
        let wanted = match to {
            WeightFormat::F16 => Dtype::F16,
            WeightFormat::Bf16 => Dtype::BF16,
            WeightFormat::F32 | WeightFormat::Q8 | WeightFormat::Q4 => Dtype::F32,
        };
        if self.dtype() == wanted {
            return Ok(self);
        }
        let none = || Error::internal("codes where floats are meant");
        let wide = self.tensor().ok_or_else(none)?.data.to_f32()?;
        let mut halves = Vec::new();
        if wanted != Dtype::F32 {
            halves = try_zeroed(wide.len())?;
            for (to, &from) in halves.iter_mut().zip(&wide) {
                *to = match wanted {
                    Dtype::F16 => f16::from_f32(from).to_bits(),
                    _ => bf16::from_f32(from).to_bits(),
                };
            }
        }
        Ok(Self {
            shape: self.shape,
            data: match wanted {
                Dtype::F16 => WeightData::F16(halves.into()),
                Dtype::BF16 => WeightData::Bf16(halves.into()),
                _ => WeightData::F32(wide.into()),
            },
        })
    }

    /// Floats as files have them.
    pub(super) fn into_float_tensor(self) -> Result<FloatTensor<'a>, Error> {
        let data = match self.data {
            WeightData::F32(data) => Floats::F32(data),
            WeightData::F16(data) => Floats::F16(data),
            WeightData::Bf16(data) => Floats::Bf16(data),
            WeightData::Stored(..) => {
                return Err(Error::internal("codes where floats are meant"));
            }
        };
        Ok(FloatTensor {
            data,
            shape: self.shape,
        })
    }

    /// The weight as floats: those of a file in place where the bytes are aligned, F64 rounded to
    /// F32, quantised blocks as what they stand for, in F32.
    pub(super) fn into_floats(self, argument: &str) -> Result<Self, Error> {
        let WeightData::Stored(dtype, _) = self.data else {
            return Ok(self);
        };
        let raw = self.into_raw(argument)?;
        if dtype.kept() == dtype {
            return raw.into_floats(argument).map(Self::from);
        }
        Ok(Self {
            shape: raw.shape().to_vec(),
            data: WeightData::F32(raw.to_f32(argument)?.into()),
        })
    }
}

/// A checkpoint's weights by name. A model looks at all entries first, then asks for the weights
/// that it has a use for, each once, part by part; it packs them and lets go of them.
pub trait WeightSource<'a> {
    /// All weights but their elements.
    ///
    /// # Errors
    /// What keeps the source from knowing.
    fn entries(&self) -> Result<Vec<WeightInfo>, Error>;

    /// The weight of that name, or none; floats, or as a file has it.
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
