//! Where the rows of a tensor of heads lie, in either layout.

use super::options::Layout;
use super::packed::Rows;
use crate::error::Error;
use crate::tensor::shape::{check_len, format_shape};
use crate::tensor::{Data, Tensor};

/// The strides of a `[B, heads, L, width]` tensor in either layout.
#[derive(Debug, Clone, Copy)]
pub(super) struct HeadAxis {
    pub(super) batch: usize,
    pub(super) heads: usize,
    pub(super) length: usize,
    pub(super) width: usize,
    pub(super) layout: Layout,
}

impl HeadAxis {
    pub(super) fn new(argument: &str, tensor: &Tensor<'_>, layout: Layout) -> Result<Self, Error> {
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
    pub(super) fn rows<'a>(
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
    pub(super) fn row(&self, batch: usize, head: usize, index: usize) -> usize {
        let row = match self.layout {
            Layout::Bhsd => (batch * self.heads + head) * self.length + index,
            Layout::Bshd => (batch * self.length + index) * self.heads + head,
        };
        row * self.width
    }

    pub(super) fn shape(&self) -> [usize; 4] {
        match self.layout {
            Layout::Bhsd => [self.batch, self.heads, self.length, self.width],
            Layout::Bshd => [self.batch, self.length, self.heads, self.width],
        }
    }
}
