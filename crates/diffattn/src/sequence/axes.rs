//! The axes of a tensor of heads along a sequence. Knows nothing of what is done to it.

use crate::error::Error;
use crate::tensor::Tensor;
use crate::tensor::axis::Layout;
use crate::tensor::shape::{check_len, format_shape};

/// The axes of a `[B, n, L, d]` tensor in either layout.
#[derive(Debug, Clone, Copy)]
pub(super) struct Axes {
    pub(super) batch: usize,
    pub(super) heads: usize,
    pub(super) length: usize,
    pub(super) width: usize,
    pub(super) layout: Layout,
}

impl Axes {
    /// The axes of the tensor that the caller knows as `name`.
    pub(super) fn new(name: &str, x: &Tensor<'_>, layout: Layout) -> Result<Self, Error> {
        let &[batch, second, third, width] = x.shape.as_slice() else {
            return Err(Error::shape(name, "4 axes", format_shape(&x.shape)));
        };
        check_len(name, &x.shape, x.data.len())?;
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

    /// Rows of `width` elements; 0 when the tensor is empty.
    pub(super) fn rows(&self) -> usize {
        let Self {
            batch,
            heads,
            length,
            width,
            ..
        } = *self;
        // (Beside a zero, the others may be of any size.)
        if [batch, heads, length, width].contains(&0) {
            0
        } else {
            batch * heads * length
        }
    }

    /// Batch entry and token of a row, in the order in which rows lie.
    #[inline]
    pub(super) fn token(&self, row: usize) -> (usize, usize) {
        match self.layout {
            Layout::Bhsd => (row / self.length / self.heads, row % self.length),
            Layout::Bshd => (
                row / self.heads / self.length,
                row / self.heads % self.length,
            ),
        }
    }
}
