//! Where the rows of a tensor of heads lie, in either layout. Knows nothing of what the heads are.

use super::shape::{check_len, format_shape};
use super::{Data, Tensor};
use crate::blocks::PANEL;
use crate::error::Error;
use crate::simd::{Use, Vector};

/// Float32 values in a cache line.
const LINE: usize = 16;

/// Where the head axis of q, k, v and the result lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Layout {
    /// `[B, heads, L, width]`.
    #[default]
    Bhsd,
    /// `[B, L, heads, width]`.
    Bshd,
}

/// The strides of a `[B, heads, L, width]` tensor in either layout.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeadAxis {
    pub(crate) batch: usize,
    pub(crate) heads: usize,
    pub(crate) length: usize,
    pub(crate) width: usize,
    pub(crate) layout: Layout,
}

impl HeadAxis {
    pub(crate) fn new(argument: &str, tensor: &Tensor<'_>, layout: Layout) -> Result<Self, Error> {
        let &[batch, second, third, width] = tensor.shape.as_slice() else {
            return Err(Error::shape(
                argument,
                "4 axes",
                format_shape(&tensor.shape),
            ));
        };
        check_len(argument, &tensor.shape, tensor.data.len())?;
        if width == 0 {
            return Err(Error::shape(
                argument,
                "a last axis of 1 or more",
                format_shape(&tensor.shape),
            ));
        }
        let (heads, length) = match layout {
            Layout::Bhsd => (second, third),
            Layout::Bshd => (third, second),
        };
        Ok(Self {
            batch,
            heads,
            length,
            width,
            layout,
        })
    }

    /// Rows of one head from row `first`.
    pub(crate) fn rows<'a>(
        &self,
        data: Data<'a>,
        batch: usize,
        head: usize,
        first: usize,
    ) -> Rows<'a> {
        let stride = match self.layout {
            Layout::Bhsd => self.width,
            Layout::Bshd => self.heads * self.width,
        };
        Rows {
            data,
            first: self.row(batch, head, first),
            stride,
            width: self.width,
        }
    }

    /// Where row `index` begins.
    pub(crate) fn row(&self, batch: usize, head: usize, index: usize) -> usize {
        let row = match self.layout {
            Layout::Bhsd => (batch * self.heads + head) * self.length + index,
            Layout::Bshd => (batch * self.length + index) * self.heads + head,
        };
        row * self.width
    }

    pub(crate) fn shape(&self) -> [usize; 4] {
        match self.layout {
            Layout::Bhsd => [self.batch, self.heads, self.length, self.width],
            Layout::Bshd => [self.batch, self.length, self.heads, self.width],
        }
    }
}

/// Rows of one head of a tensor: row j is `width` elements at `first + j · stride`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rows<'a> {
    pub(crate) data: Data<'a>,
    pub(crate) first: usize,
    pub(crate) stride: usize,
    pub(crate) width: usize,
}

impl Rows<'_> {
    /// Rows `j..j + count` as float32, and the distance between two of them: where they lie, or
    /// widened into `buffer`, which has room for them.
    #[inline]
    pub(crate) fn read<'r>(
        &'r self,
        j: usize,
        count: usize,
        buffer: &'r mut [f32],
    ) -> (&'r [f32], usize) {
        let first = self.first + j * self.stride;
        match self.data {
            Data::F32(values) => {
                let len = (count - 1) * self.stride + self.width;
                (&values[first..first + len], self.stride)
            }
            _ => {
                let rows = &mut buffer[..count * self.width];
                for (i, row) in rows.chunks_exact_mut(self.width).enumerate() {
                    self.data.widen(first + i * self.stride, row);
                }
                (rows, self.width)
            }
        }
    }
}

impl Rows<'_> {
    /// Asks for rows `first..end` of float32 data, a panel of them at most, which would otherwise
    /// be waited for one by one.
    #[inline(always)]
    pub(crate) fn prefetch<V: Vector>(&self, first: usize, end: usize) {
        if let Data::F32(values) = self.data {
            for row in first..end.min(first + PANEL) {
                let start = values.as_ptr().wrapping_add(self.first + row * self.stride);
                for channel in (0..self.width).step_by(LINE) {
                    V::prefetch(start.wrapping_add(channel), Use::Read);
                }
            }
        }
    }
}
