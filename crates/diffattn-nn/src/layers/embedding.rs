//! The table of token embeddings, held in the element type of the checkpoint, and once where it is
//! the output head too. Computes nothing.

use super::Head;
use crate::parts::{Weight, WeightData};
use diffattn::{Error, Linear, try_zeroed};
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use half::{bf16, f16};

/// `[vocab_size, hidden_size]`.
#[derive(Debug, Clone)]
pub(crate) struct Embedding {
    rows: Rows,
    width: usize,
}

#[derive(Debug, Clone)]
enum Rows {
    /// Those of the output head's weight.
    OfHead,
    F32(Vec<f32>),
    F16(Vec<u16>),
    Bf16(Vec<u16>),
}

impl Embedding {
    /// The table that the output head is, too.
    pub(crate) fn of_head(head: &Linear) -> Self {
        Self {
            rows: Rows::OfHead,
            width: head.inputs(),
        }
    }

    /// Keeps the checked weight, without a copy where it was read for this purpose.
    pub(crate) fn new(weight: Weight<'_>) -> Result<Self, Error> {
        let width = weight.shape.last().copied().unwrap_or(0);
        let rows = match weight.data {
            WeightData::F32(data) => Rows::F32(owned(data)?),
            WeightData::F16(data) => Rows::F16(owned(data)?),
            WeightData::Bf16(data) => Rows::Bf16(owned(data)?),
        };
        Ok(Self { rows, width })
    }

    /// The row of a checked id, widened exactly. `head` is the model's.
    pub(crate) fn row(&self, head: &Head<'_>, id: u32, to: &mut [f32]) -> Result<(), Error> {
        let range = id as usize * self.width..(id as usize + 1) * self.width;
        match &self.rows {
            Rows::OfHead => return head.weight_row(id as usize, to),
            Rows::F32(rows) => to.copy_from_slice(&rows[range]),
            Rows::F16(rows) => rows[range]
                .reinterpret_cast::<f16>()
                .convert_to_f32_slice(to),
            Rows::Bf16(rows) => rows[range]
                .reinterpret_cast::<bf16>()
                .convert_to_f32_slice(to),
        }
        Ok(())
    }
}

/// The elements, copied where they are another's.
fn owned<T: Copy + Default>(data: std::borrow::Cow<'_, [T]>) -> Result<Vec<T>, Error> {
    match data {
        std::borrow::Cow::Owned(data) => Ok(data),
        std::borrow::Cow::Borrowed(data) => {
            let mut copy = try_zeroed(data.len())?;
            copy.copy_from_slice(data);
            Ok(copy)
        }
    }
}
