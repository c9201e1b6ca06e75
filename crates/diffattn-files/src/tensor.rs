//! Tensors of a checkpoint: raw bytes of any element type. Converts between element types; knows no
//! files.

use crate::blocks::{Block, widen};
use crate::dtype::Dtype;
use crate::elements::{elements, read, write};
use crate::entry::byte_len;
use crate::floats::{FloatTensor, Floats};
use crate::layout::turned;
use diffattn::{Data, Error, Tensor, format_shape, try_copied};
use half::{bf16, f16};
use std::borrow::Cow;

/// A tensor as a file holds it: little-endian elements of any type, borrowed where they could be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawTensor<'a> {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Cow<'a, [u8]>,
}

/// A tensor in another element type, and what that did to its values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cast<'a> {
    /// The tensor.
    pub tensor: RawTensor<'a>,
    /// Finite elements that are infinite now.
    pub overflowed: usize,
    /// Elements other than zero that are zero now.
    pub vanished: usize,
}

impl<'a> RawTensor<'a> {
    /// Checks that `bytes` are as many as `shape` and `dtype` ask for.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](diffattn::ErrorKind::Shape) naming `argument`.
    pub fn new(
        argument: &str,
        dtype: Dtype,
        shape: &[usize],
        bytes: impl Into<Cow<'a, [u8]>>,
    ) -> Result<Self, Error> {
        let bytes = bytes.into();
        let wanted = byte_len(dtype, shape)
            .map_err(|expected| Error::shape(argument, expected, format_shape(shape)))?;
        if wanted != bytes.len() as u64 {
            return Err(Error::shape(
                argument,
                format_args!("{wanted} bytes for {shape:?} of {dtype}"),
                bytes.len(),
            ));
        }
        Ok(Self {
            dtype,
            shape: shape.to_vec(),
            bytes,
        })
    }

    /// A tensor whose parts are known to fit.
    pub(crate) fn checked(dtype: Dtype, shape: Vec<usize>, bytes: Cow<'a, [u8]>) -> Self {
        debug_assert_eq!(byte_len(dtype, &shape), Ok(bytes.len() as u64));
        Self {
            dtype,
            shape,
            bytes,
        }
    }

    /// A copy of a tensor of a layer.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](diffattn::ErrorKind::Shape) naming `argument` when its elements do not
    /// fill its shape; [`Error::out_of_memory`].
    pub fn of(argument: &str, tensor: &Tensor<'_>) -> Result<RawTensor<'static>, Error> {
        let (dtype, bytes) = match tensor.data {
            Data::F32(data) => (Dtype::F32, write(data, f32::to_le_bytes)?),
            Data::F16(data) => (Dtype::F16, write(data, u16::to_le_bytes)?),
            Data::Bf16(data) => (Dtype::BF16, write(data, u16::to_le_bytes)?),
        };
        RawTensor::new(argument, dtype, &tensor.shape, bytes)
    }

    /// The type of the elements.
    #[must_use]
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// The extent of each axis, last axis fastest.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The elements, little-endian.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes, out of the tensor; copied where they are another's.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes.into_owned()
    }

    /// The elements out of the tensor, borrowed where they were.
    #[must_use]
    pub fn into_elements(self) -> Cow<'a, [u8]> {
        self.bytes
    }

    /// The tensor, borrowing from this one.
    #[must_use]
    pub fn borrowed(&self) -> RawTensor<'_> {
        RawTensor {
            dtype: self.dtype,
            shape: self.shape.clone(),
            bytes: Cow::Borrowed(&self.bytes),
        }
    }

    /// The tensor with bytes of its own.
    ///
    /// # Errors
    /// [`Error::out_of_memory`].
    pub fn into_owned(self) -> Result<RawTensor<'static>, Error> {
        let bytes = match self.bytes {
            Cow::Owned(bytes) => bytes,
            Cow::Borrowed(bytes) => try_copied(bytes)?,
        };
        Ok(RawTensor {
            dtype: self.dtype,
            shape: self.shape,
            bytes: Cow::Owned(bytes),
        })
    }

    /// The tensor as layers take it, F32, F16 or BF16: in place where the bytes are aligned, else
    /// copied.
    ///
    /// # Errors
    /// [`ErrorKind::Dtype`](diffattn::ErrorKind::Dtype) naming `argument` for another element type;
    /// [`Error::out_of_memory`].
    pub fn floats(&self, argument: &str) -> Result<FloatTensor<'_>, Error> {
        self.borrowed().into_floats(argument)
    }

    /// The floats of the tensor, borrowing from where it does.
    ///
    /// # Errors
    /// As [`RawTensor::floats`].
    pub fn into_floats(self, argument: &str) -> Result<FloatTensor<'a>, Error> {
        let data = match self.dtype {
            Dtype::F32 => Floats::F32(elements(self.bytes, f32::from_le_bytes)?),
            Dtype::F16 => Floats::F16(elements(self.bytes, u16::from_le_bytes)?),
            Dtype::BF16 => Floats::Bf16(elements(self.bytes, u16::from_le_bytes)?),
            other => {
                return Err(Error::dtype(argument, "F32, F16 or BF16", other));
            }
        };
        Ok(FloatTensor {
            data,
            shape: self.shape,
        })
    }

    /// All elements as float32: F16, BF16, booleans, short integers, Q8_0 and Q4_0 exactly, F64,
    /// longer integers and Q4_1 rounded once to nearest, ties to even.
    ///
    /// # Errors
    /// [`ErrorKind::Dtype`](diffattn::ErrorKind::Dtype) naming `argument` for eight-bit and
    /// narrower floats and for complex numbers, which have no reader here ([`RawTensor::bytes`]
    /// gives them as they are); [`Error::out_of_memory`].
    pub fn to_f32(&self, argument: &str) -> Result<Vec<f32>, Error> {
        let bytes = &self.bytes;
        match self.dtype {
            Dtype::F32 => read(bytes, f32::from_le_bytes),
            Dtype::F64 => read(bytes, |x| f64::from_le_bytes(x) as f32),
            Dtype::F16 => read(bytes, |x| f16::from_le_bytes(x).to_f32()),
            Dtype::BF16 => read(bytes, |x| bf16::from_le_bytes(x).to_f32()),
            Dtype::BOOL => read(bytes, |[x]: [u8; 1]| f32::from(u8::from(x != 0))),
            Dtype::U8 => read(bytes, |[x]: [u8; 1]| f32::from(x)),
            Dtype::I8 => read(bytes, |x| f32::from(i8::from_le_bytes(x))),
            Dtype::U16 => read(bytes, |x| f32::from(u16::from_le_bytes(x))),
            Dtype::I16 => read(bytes, |x| f32::from(i16::from_le_bytes(x))),
            Dtype::U32 => read(bytes, |x| u32::from_le_bytes(x) as f32),
            Dtype::I32 => read(bytes, |x| i32::from_le_bytes(x) as f32),
            Dtype::U64 => read(bytes, |x| u64::from_le_bytes(x) as f32),
            Dtype::I64 => read(bytes, |x| i64::from_le_bytes(x) as f32),
            Dtype::Q8_0 | Dtype::Q4_0 | Dtype::Q4_1 => widen(self.dtype, bytes),
            other => Err(Error::dtype(
                argument,
                "a boolean, an integer, F16, BF16, F32 or F64",
                other,
            )),
        }
    }

    /// The tensor with elements of type `to`, each rounded once to nearest, ties to even; among
    /// F32, F16 and BF16. The same type is the same bytes.
    ///
    /// # Errors
    /// [`ErrorKind::Dtype`](diffattn::ErrorKind::Dtype) naming `argument` for other types;
    /// [`Error::out_of_memory`].
    pub fn cast(&self, argument: &str, to: Dtype) -> Result<Cast<'_>, Error> {
        let unchanged = |tensor| Cast {
            tensor,
            overflowed: 0,
            vanished: 0,
        };
        let floats = [Dtype::F32, Dtype::F16, Dtype::BF16];
        for dtype in [self.dtype, to] {
            if !floats.contains(&dtype) {
                return Err(Error::dtype(argument, "F32, F16 or BF16", dtype));
            }
        }
        if self.dtype == to {
            return Ok(unchanged(self.borrowed()));
        }
        let from = self.to_f32(argument)?;
        let tensor = |bytes| RawTensor::checked(to, self.shape.clone(), Cow::Owned(bytes));
        let bytes = match to {
            Dtype::F16 => write(&from, |x| f16::from_f32(x).to_le_bytes())?,
            Dtype::BF16 => write(&from, |x| bf16::from_f32(x).to_le_bytes())?,
            _ => return Ok(unchanged(tensor(write(&from, f32::to_le_bytes)?))),
        };
        let back = |bytes| match to {
            Dtype::F16 => f16::from_le_bytes(bytes).to_f32(),
            _ => bf16::from_le_bytes(bytes).to_f32(),
        };
        let (mut overflowed, mut vanished) = (0, 0);
        for (&before, &after) in from.iter().zip(bytes.as_chunks().0) {
            let after = back(after);
            overflowed += usize::from(before.is_finite() && after.is_infinite());
            vanished += usize::from(before != 0.0 && after == 0.0);
        }
        Ok(Cast {
            tensor: tensor(bytes),
            overflowed,
            vanished,
        })
    }

    /// Bytes of a row (all axes but the first), for whole-byte elements.
    fn row_bytes(&self, argument: &str) -> Result<usize, Error> {
        match self.shape.first() {
            Some(&rows) if rows > 0 && self.bytes.len().is_multiple_of(rows) => {
                Ok(self.bytes.len() / rows)
            }
            _ => Err(Error::shape(
                argument,
                "rows of whole bytes",
                format_args!("{:?} of {}", self.shape, self.dtype),
            )),
        }
    }

    /// The blocks of 32 elements that the tensor lies in, row by row; none where it lies in none.
    #[must_use]
    pub fn blocks(&self) -> Option<impl Iterator<Item = Block> + '_> {
        let bytes = self.dtype.block_bytes()?;
        let dtype = self.dtype;
        let blocks = self.bytes.chunks_exact(bytes);
        Some(blocks.map(move |bytes| Block::read(dtype, bytes)))
    }

    /// The rows of `heads` heads of q or k as Hugging Face has them, channel i beside i + d/2, of
    /// those that GGUF has: the channels that turn together side by side. Elements keep their bits.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](diffattn::ErrorKind::Shape) naming `argument` for rows that are not
    /// those of so many heads of an even width; [`Error::out_of_memory`].
    pub fn half_split(&self, argument: &str, heads: usize) -> Result<RawTensor<'static>, Error> {
        let rows = self.shape.first().copied().unwrap_or(0);
        let width = rows.checked_div(heads).unwrap_or(0);
        if width == 0 || !width.is_multiple_of(2) || width.checked_mul(heads) != Some(rows) {
            let expected = format_args!("the rows of {heads} heads of an even width").to_string();
            return Err(Error::shape(argument, expected, format_shape(&self.shape)));
        }
        let turned = turned(width, false);
        let rows: Vec<usize> = (0..heads)
            .flat_map(|head| turned.iter().map(move |at| head * width + at))
            .collect();
        self.gather(argument, &rows)
    }

    /// Row `i` of the result is row `rows[i]`; elements keep their bits.
    pub(crate) fn gather(
        &self,
        argument: &str,
        rows: &[usize],
    ) -> Result<RawTensor<'static>, Error> {
        let width = self.row_bytes(argument)?;
        let len = rows
            .len()
            .checked_mul(width)
            .ok_or_else(|| Error::shape(argument, "a size that fits this machine", rows.len()))?;
        let mut bytes = Vec::new();
        bytes
            .try_reserve_exact(len)
            .map_err(|_| Error::out_of_memory(len as u64))?;
        for &row in rows {
            let from = row
                .checked_mul(width)
                .and_then(|first| self.bytes.get(first..)?.get(..width))
                .ok_or_else(|| {
                    Error::shape(
                        argument,
                        format_args!("more than {row} rows"),
                        format_shape(&self.shape),
                    )
                })?;
            bytes.extend_from_slice(from);
        }
        let shape = std::iter::once(rows.len())
            .chain(self.shape.iter().skip(1).copied())
            .collect();
        Ok(RawTensor::checked(self.dtype, shape, Cow::Owned(bytes)))
    }

    /// Rows `rows` alone, in place.
    pub(crate) fn rows(
        self,
        argument: &str,
        rows: std::ops::Range<usize>,
    ) -> Result<RawTensor<'a>, Error> {
        let width = self.row_bytes(argument)?;
        let place = |row: usize| row.checked_mul(width);
        let (first, end) = match (place(rows.start), place(rows.end)) {
            (Some(first), Some(end)) if first <= end && end <= self.bytes.len() => (first, end),
            _ => {
                return Err(Error::shape(
                    argument,
                    format_args!("rows {} to {}", rows.start, rows.end),
                    format_shape(&self.shape),
                ));
            }
        };
        let bytes = match self.bytes {
            Cow::Borrowed(bytes) => Cow::Borrowed(&bytes[first..end]),
            Cow::Owned(bytes) => Cow::Owned(bytes[first..end].to_vec()),
        };
        let shape = std::iter::once(rows.len())
            .chain(self.shape.iter().skip(1).copied())
            .collect();
        Ok(RawTensor::checked(self.dtype, shape, bytes))
    }
}
