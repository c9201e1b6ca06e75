//! Tensors as the operators take them. Does no arithmetic on values.

pub(crate) mod axis;
pub(crate) mod call;
pub(crate) mod gradients;
mod halves;
pub(crate) mod int8;
pub(crate) mod output;
pub(crate) mod shape;

use crate::error::Error;
use crate::run::buffer::try_zeroed;
use std::ops::Range;

/// The element type of a tensor. Compute is always float32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DType {
    /// IEEE single precision.
    #[default]
    F32,
    /// IEEE half precision, held as its bits.
    F16,
    /// bfloat16, held as its bits.
    Bf16,
}

impl DType {
    /// The name that the JavaScript side uses.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::F16 => "float16",
            Self::Bf16 => "bfloat16",
        }
    }

    /// Bytes per element.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }
}

/// Elements of one type: float32 as `F` holds it, halves as `H` holds their bits.
#[derive(Debug, Clone, Copy)]
pub enum Elements<F, H> {
    /// float32.
    F32(F),
    /// float16 bits.
    F16(H),
    /// bfloat16 bits.
    Bf16(H),
}

/// Elements to read.
pub type Data<'a> = Elements<&'a [f32], &'a [u16]>;

/// Elements to write.
pub type DataMut<'a> = Elements<&'a mut [f32], &'a mut [u16]>;

impl<F, H> Elements<F, H> {
    /// The element type.
    #[must_use]
    pub fn dtype(&self) -> DType {
        match self {
            Self::F32(_) => DType::F32,
            Self::F16(_) => DType::F16,
            Self::Bf16(_) => DType::Bf16,
        }
    }
}

impl<F: AsRef<[f32]>, H: AsRef<[u16]>> Elements<F, H> {
    /// How many elements there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::F32(x) => x.as_ref().len(),
            Self::F16(x) | Self::Bf16(x) => x.as_ref().len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<'a> Data<'a> {
    /// All elements as float32, which holds them exactly.
    ///
    /// # Errors
    /// [`Error::out_of_memory`].
    pub fn to_f32(&self) -> Result<Vec<f32>, Error> {
        let mut values = try_zeroed(self.len())?;
        self.widen(0, &mut values);
        Ok(values)
    }

    /// Elements from `first` on as float32, which holds them exactly.
    #[inline]
    pub(crate) fn widen(&self, first: usize, to: &mut [f32]) {
        let range = first..first + to.len();
        match self {
            Self::F32(x) => to.copy_from_slice(&x[range]),
            Self::F16(x) => halves::widen_f16(&x[range], to),
            Self::Bf16(x) => halves::widen_bf16(&x[range], to),
        }
    }

    /// Memory for `len` elements and as many results as float32, if these are not that themselves.
    pub(crate) fn wide(&self, len: usize) -> Result<[Vec<f32>; 2], Error> {
        let len = if self.dtype() == DType::F32 { 0 } else { len };
        Ok([try_zeroed(len)?, try_zeroed(len)?])
    }

    /// The elements `range` as float32: where they lie, or widened in `wide`.
    #[inline]
    pub(crate) fn values<'s>(&self, range: Range<usize>, wide: &'s mut [f32]) -> &'s [f32]
    where
        'a: 's,
    {
        if let Self::F32(x) = self {
            return &x[range];
        }
        let wide = &mut wide[..range.len()];
        self.widen(range.start, wide);
        wide
    }
}

/// A contiguous tensor to read: elements and their shape, last axis fastest.
#[derive(Debug, Clone)]
pub struct Tensor<'a> {
    /// The elements.
    pub data: Data<'a>,
    /// The extent of each axis.
    pub shape: Vec<usize>,
}

impl<'a> Tensor<'a> {
    /// A float32 tensor.
    #[must_use]
    pub fn f32(data: &'a [f32], shape: &[usize]) -> Self {
        Self {
            data: Data::F32(data),
            shape: shape.to_vec(),
        }
    }
}
