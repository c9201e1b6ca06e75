//! A bound result, written by several threads, each its own elements. Knows nothing of what is computed.

use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use half::{bf16, f16};

use crate::error::Error;
use crate::tensor::shape::check_len;
use crate::tensor::{DType, DataMut};

/// Where a job writes. Made from an exclusive borrow that the job's lifetime holds.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Output {
    /// float32.
    F32(*mut f32),
    /// float16 bits.
    F16(*mut u16),
    /// bfloat16 bits.
    Bf16(*mut u16),
}

// SAFETY: only `at` and `narrow` use the pointers, and their callers promise disjoint elements.
unsafe impl Send for Output {}
// SAFETY: as above.
unsafe impl Sync for Output {}

impl Output {
    /// Checks that `out` has `dtype` and fills `shape`.
    pub(crate) fn bind(out: DataMut<'_>, dtype: DType, shape: &[usize]) -> Result<Self, Error> {
        if out.dtype() != dtype {
            return Err(Error::dtype(
                "out",
                format_args!("{} as the input", dtype.name()),
                out.dtype().name(),
            ));
        }
        check_len("out", shape, out.len())?;
        Ok(match out {
            DataMut::F32(x) => Self::F32(x.as_mut_ptr()),
            DataMut::F16(x) => Self::F16(x.as_mut_ptr()),
            DataMut::Bf16(x) => Self::Bf16(x.as_mut_ptr()),
        })
    }

    /// What a step writes to.
    pub(crate) fn bound(output: Option<Self>) -> Result<Self, Error> {
        output.ok_or_else(|| Error::Internal("a step before its output was bound".to_owned()))
    }

    /// `len` elements from `first` on, where they are float32.
    ///
    /// # Safety
    /// The elements lie in the array, which is still borrowed, and nobody else uses them meanwhile.
    #[inline]
    pub(crate) unsafe fn at<'o>(self, first: usize, len: usize) -> Option<&'o mut [f32]> {
        match self {
            // SAFETY: the caller's promise.
            Self::F32(x) => Some(unsafe { std::slice::from_raw_parts_mut(x.add(first), len) }),
            Self::F16(_) | Self::Bf16(_) => None,
        }
    }

    /// Writes `from` at `first`, rounded once to nearest even.
    ///
    /// # Safety
    /// As [`Output::at`], for `from.len()` elements.
    #[inline]
    pub(crate) unsafe fn narrow(self, first: usize, from: &[f32]) {
        match self {
            // SAFETY: the caller's promise, here and below.
            Self::F32(x) => unsafe { std::slice::from_raw_parts_mut(x.add(first), from.len()) }
                .copy_from_slice(from),
            // SAFETY: as above.
            Self::F16(x) => unsafe { std::slice::from_raw_parts_mut(x.add(first), from.len()) }
                .reinterpret_cast_mut::<f16>()
                .convert_from_f32_slice(from),
            // SAFETY: as above.
            Self::Bf16(x) => unsafe { std::slice::from_raw_parts_mut(x.add(first), from.len()) }
                .reinterpret_cast_mut::<bf16>()
                .convert_from_f32_slice(from),
        }
    }
}
