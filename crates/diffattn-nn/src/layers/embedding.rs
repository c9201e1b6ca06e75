//! The table of token embeddings, held in the element type of the checkpoint or as codes, and once
//! where it is the output head too. Computes nothing.

use super::Head;
use crate::parts::{Table, WeightData};
use diffattn::{Error, Linear, try_copied};
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
    /// Those of a packed weight.
    Packed(Linear),
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

    /// Keeps the checked table, floats without a copy where they were read for this purpose.
    pub(crate) fn new(table: Table<'_>) -> Result<Self, Error> {
        let weight = match table {
            Table::Floats(weight) => weight,
            Table::Packed(packed) => {
                let width = packed.inputs();
                let rows = Rows::Packed(packed);
                return Ok(Self { rows, width });
            }
        };
        let width = weight.shape.last().copied().unwrap_or(0);
        let rows = match weight.data {
            WeightData::F32(data) => Rows::F32(owned(data)?),
            WeightData::F16(data) => Rows::F16(owned(data)?),
            WeightData::Bf16(data) => Rows::Bf16(owned(data)?),
            WeightData::Stored(..) => return Err(Error::internal("a table of bytes")),
        };
        Ok(Self { rows, width })
    }

    /// Whether it is the output head.
    #[cfg(feature = "training")]
    pub(crate) fn is_of_head(&self) -> bool {
        matches!(self.rows, Rows::OfHead)
    }

    /// All rows of a table that is not the head, widened.
    #[cfg(feature = "training")]
    pub(crate) fn read(&self, to: &mut [f32]) -> Result<(), Error> {
        for (id, to) in to.chunks_exact_mut(self.width.max(1)).enumerate() {
            self.own_row(id, to)?;
        }
        Ok(())
    }

    /// Makes `values` its rows.
    #[cfg(feature = "training")]
    pub(crate) fn set(&mut self, values: &[f32]) -> Result<(), Error> {
        match &mut self.rows {
            Rows::F32(rows) if rows.len() == values.len() => rows.copy_from_slice(values),
            rows => *rows = Rows::F32(try_copied(values)?),
        }
        Ok(())
    }

    /// The row of a checked id, widened. `head` is the model's.
    pub(crate) fn row(&self, head: &Head<'_>, id: u32, to: &mut [f32]) -> Result<(), Error> {
        match &self.rows {
            Rows::OfHead => head.weight_row(id as usize, to),
            _ => self.own_row(id as usize, to),
        }
    }

    /// A row of a table that is not the head.
    fn own_row(&self, id: usize, to: &mut [f32]) -> Result<(), Error> {
        let range = id * self.width..(id + 1) * self.width;
        match &self.rows {
            Rows::OfHead => return Err(Error::internal("a row of a table that is the head")),
            Rows::Packed(rows) => return rows.weight_row(id, to),
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
        std::borrow::Cow::Borrowed(data) => try_copied(data),
    }
}
