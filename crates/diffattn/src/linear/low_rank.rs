//! A low-rank difference beside a linear map: two thin products, added to what the map made. Knows
//! nothing of the map's own weight.

use super::Linear;
use crate::error::Error;
use crate::run::Run;
use crate::run::buffer::try_zeroed;

/// `(x Aᵀ) Bᵀ`.
#[derive(Debug, Clone)]
pub(super) struct LowRank {
    /// A, `[rank, inputs]`.
    a: Linear,
    /// B, `[outputs, rank]`.
    b: Linear,
}

impl LowRank {
    /// Checks that they fit a map of `[outputs, inputs]`.
    pub(super) fn new([outputs, inputs]: [usize; 2], a: Linear, b: Linear) -> Result<Self, Error> {
        if a.inputs != inputs {
            return Err(Error::shape(
                "lora_a",
                format_args!("shape [rank, {inputs}]"),
                format_args!("[{}, {}]", a.outputs, a.inputs),
            ));
        }
        if b.outputs != outputs || b.inputs != a.outputs {
            return Err(Error::shape(
                "lora_b",
                format_args!("shape [{outputs}, {}]", a.outputs),
                format_args!("[{}, {}]", b.outputs, b.inputs),
            ));
        }
        Ok(Self { a, b })
    }

    /// Adds it, of rows of x, to rows of y.
    pub(super) fn add(&self, x: &[f32], y: &mut [f32], run: Run) -> Result<(), Error> {
        let rows = y.len().checked_div(self.b.outputs).unwrap_or(0);
        let mut thin = try_zeroed(rows * self.a.outputs)?;
        self.a.forward(x, &mut thin, run)?;
        let mut added = try_zeroed(y.len())?;
        self.b.forward(&thin, &mut added, run)?;
        for (y, added) in y.iter_mut().zip(&added) {
            *y += added;
        }
        Ok(())
    }
}
