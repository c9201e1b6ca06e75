//! Tensors as the operators take them, and checked sizes. The only place where lengths are checked:
//! below it, indices are trusted. Does no arithmetic on values.

use crate::error::Error;
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use half::{bf16, f16};

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

/// Elements to read.
#[derive(Debug, Clone, Copy)]
pub enum Data<'a> {
    /// float32.
    F32(&'a [f32]),
    /// float16 bits.
    F16(&'a [u16]),
    /// bfloat16 bits.
    Bf16(&'a [u16]),
}

impl<'a> Data<'a> {
    /// The element type.
    #[must_use]
    pub fn dtype(&self) -> DType {
        match self {
            Self::F32(_) => DType::F32,
            Self::F16(_) => DType::F16,
            Self::Bf16(_) => DType::Bf16,
        }
    }

    /// How many elements there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::F32(x) => x.len(),
            Self::F16(x) | Self::Bf16(x) => x.len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All elements as float32, which holds them exactly.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
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
            Self::F16(x) => x[range].reinterpret_cast::<f16>().convert_to_f32_slice(to),
            Self::Bf16(x) => x[range].reinterpret_cast::<bf16>().convert_to_f32_slice(to),
        }
    }
}

/// Elements to write.
#[derive(Debug)]
pub enum DataMut<'a> {
    /// float32.
    F32(&'a mut [f32]),
    /// float16 bits.
    F16(&'a mut [u16]),
    /// bfloat16 bits.
    Bf16(&'a mut [u16]),
}

impl DataMut<'_> {
    /// The element type.
    #[must_use]
    pub fn dtype(&self) -> DType {
        match self {
            Self::F32(_) => DType::F32,
            Self::F16(_) => DType::F16,
            Self::Bf16(_) => DType::Bf16,
        }
    }

    /// How many elements there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::F32(x) => x.len(),
            Self::F16(x) | Self::Bf16(x) => x.len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
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

/// The product of `shape`, or [`ErrorKind::Shape`](crate::ErrorKind::Shape) when it overflows (also on 32-bit targets).
pub fn checked_len(argument: &str, shape: &[usize]) -> Result<usize, Error> {
    // Zero extents first: an empty tensor is legal whatever its other extents are.
    if shape.contains(&0) {
        return Ok(0);
    }
    shape
        .iter()
        .try_fold(1usize, |product, &extent| product.checked_mul(extent))
        .filter(|&len| len <= isize::MAX as usize / 8)
        .ok_or_else(|| {
            Error::shape(
                argument,
                "a shape whose element count fits this machine",
                format_shape(shape),
            )
        })
}

/// Checks that `len` elements fill `shape`; returns the element count.
pub fn check_len(argument: &str, shape: &[usize], len: usize) -> Result<usize, Error> {
    let expected = checked_len(argument, shape)?;
    if expected == len {
        Ok(len)
    } else {
        Err(Error::shape(
            argument,
            format_args!("{expected} elements for shape {}", format_shape(shape)),
            len,
        ))
    }
}

/// `[2, 4, 33, 16]`, as errors print a shape; of one with many axes the first ones.
#[must_use]
pub fn format_shape(shape: &[usize]) -> String {
    const MOST: usize = 8;
    match shape.get(..MOST) {
        Some(first) if shape.len() > MOST => {
            let axes: Vec<String> = first.iter().map(usize::to_string).collect();
            format!("[{}, …] ({} axes)", axes.join(", "), shape.len())
        }
        _ => format!("{shape:?}"),
    }
}

/// A zeroed buffer, or [`Error::OutOfMemory`] with the bytes wanted.
pub fn try_zeroed<T: Default + Clone>(len: usize) -> Result<Vec<T>, Error> {
    let mut buffer = Vec::new();
    buffer
        .try_reserve_exact(len)
        .map_err(|_| Error::OutOfMemory {
            bytes: (len as u64).saturating_mul(size_of::<T>() as u64),
        })?;
    buffer.resize(len, T::default());
    Ok(buffer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_prints_short_whatever_its_rank() {
        assert_eq!(format_shape(&[]), "[]");
        assert_eq!(format_shape(&[2, 4, 33, 16]), "[2, 4, 33, 16]");
        assert_eq!(format_shape(&[1; 8]), "[1, 1, 1, 1, 1, 1, 1, 1]");
        assert_eq!(
            format_shape(&[1; 300_000]),
            "[1, 1, 1, 1, 1, 1, 1, 1, …] (300000 axes)"
        );
    }
}
