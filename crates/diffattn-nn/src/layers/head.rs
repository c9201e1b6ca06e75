//! What a model ends with: the norm behind its layers, and the map to logits. Chooses nothing among
//! them.

use super::Norm;
use diffattn::{Error, Linear, Run, try_zeroed};

/// `map(norm(x))`: logits of rows of x. Without a map, features: what the norm gives.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Head<'m> {
    pub(crate) norm: Norm<'m>,
    pub(crate) map: Option<&'m Linear>,
}

impl Head<'_> {
    /// Channels of a row of x.
    pub(crate) fn inputs(&self) -> usize {
        self.norm.width()
    }

    /// Values of a row of the result.
    pub(crate) fn outputs(&self) -> usize {
        self.map.map_or(self.inputs(), Linear::outputs)
    }

    /// Logits (or features) of rows of x, into y.
    pub(crate) fn rows(&self, x: &[f32], y: &mut [f32], run: Run) -> Result<(), Error> {
        let Some(map) = self.map else {
            return self.norm.rows(x, y, run);
        };
        let mut normed = try_zeroed(x.len())?;
        self.norm.rows(x, &mut normed, run)?;
        map.forward(&normed, y, run)
    }

    /// A row of the map's weight, widened exactly: that of an id, where the map is the table of
    /// embeddings, too.
    pub(crate) fn weight_row(&self, row: usize, to: &mut [f32]) -> Result<(), Error> {
        let none = || Error::internal("embeddings of a head without a map");
        self.map.ok_or_else(none)?.weight_row(row, to)
    }
}
