//! A result, written by several threads, each its own elements. Knows nothing of what is computed.

use std::ops::Range;

use super::halves::{narrow_bf16, narrow_f16};
use super::shape::check_len;
use super::{DType, DataMut, Elements};
use crate::error::Error;
use crate::run::threads::Disjoint;

/// Where a call writes.
pub(crate) type Output<'a> = Elements<Disjoint<'a, f32>, Disjoint<'a, u16>>;

impl<'a> Output<'a> {
    /// Checks that `out` has `dtype` and fills `shape`.
    pub(crate) fn bind(out: DataMut<'a>, dtype: DType, shape: &[usize]) -> Result<Self, Error> {
        if out.dtype() != dtype {
            return Err(Error::dtype(
                "out",
                format_args!("{} as the input", dtype.name()),
                out.dtype().name(),
            ));
        }
        check_len("out", shape, out.len())?;
        Ok(match out {
            DataMut::F32(x) => Self::F32(Disjoint::new(x)),
            DataMut::F16(x) => Self::F16(Disjoint::new(x)),
            DataMut::Bf16(x) => Self::Bf16(Disjoint::new(x)),
        })
    }

    /// Where the elements `range` are made as float32: where they belong, or in `wide`.
    /// [`Output::finish`] takes them from there.
    ///
    /// # Safety
    /// Nobody else uses them meanwhile.
    #[inline]
    pub(crate) unsafe fn values<'s>(
        &'s self,
        range: Range<usize>,
        wide: &'s mut [f32],
    ) -> &'s mut [f32] {
        match self {
            // SAFETY: the caller's promise.
            Self::F32(x) => unsafe { x.part(range) },
            Self::F16(_) | Self::Bf16(_) => &mut wide[..range.len()],
        }
    }

    /// Takes the elements from `first` on, which [`Output::values`] gave as `values`.
    ///
    /// # Safety
    /// Nobody else uses them meanwhile.
    #[inline]
    pub(crate) unsafe fn finish(&self, first: usize, values: &[f32]) {
        if self.dtype() != DType::F32 {
            // SAFETY: the caller's promise.
            unsafe { self.narrow(first, values) };
        }
    }

    /// Writes `from` at `first`, rounded once to nearest even.
    ///
    /// # Safety
    /// Nobody else uses the `from.len()` elements from `first` on meanwhile.
    #[inline]
    pub(crate) unsafe fn narrow(&self, first: usize, from: &[f32]) {
        let range = first..first + from.len();
        // SAFETY: (all three) the caller's promise.
        let part = unsafe {
            match self {
                Self::F32(x) => DataMut::F32(x.part(range)),
                Self::F16(x) => DataMut::F16(x.part(range)),
                Self::Bf16(x) => DataMut::Bf16(x.part(range)),
            }
        };
        part.fill(from);
    }
}

impl DataMut<'_> {
    /// Takes over `values`, each rounded once to nearest even.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) naming `out` when they are not as many.
    pub fn narrow(self, values: &[f32]) -> Result<(), Error> {
        check_len("out", &[values.len()], self.len())?;
        self.fill(values);
        Ok(())
    }

    /// Writes `values`, as many as there are elements, each rounded once to nearest even.
    pub(crate) fn fill(self, values: &[f32]) {
        match self {
            Self::F32(x) => x.copy_from_slice(values),
            Self::F16(x) => narrow_f16(values, x),
            Self::Bf16(x) => narrow_bf16(values, x),
        }
    }
}
