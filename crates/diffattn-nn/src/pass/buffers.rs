//! The memory of a pass: rows of what layers make on the way from hidden states to hidden states.

use super::pieces::Block;
use super::plan::{Keys, Plan};
use crate::layers::attention::{Projected, Widths};
use diffattn::{Error, checked_len, try_zeroed};
use std::ops::Range;

/// What attention takes, of all rows of the chunk, or of the block where texts have caches.
#[derive(Debug, Default)]
pub(super) struct Operands {
    pub(super) q: Vec<f32>,
    pub(super) k: Vec<f32>,
    pub(super) v: Vec<f32>,
    pub(super) lambda: Vec<f32>,
}

impl Operands {
    /// Memory of rows of these widths.
    pub(super) fn rows(&mut self, widths: &Widths, rows: Range<usize>) -> Projected<'_> {
        let of = |width: usize| rows.start * width..rows.end * width;
        Projected {
            q: &mut self.q[of(widths.q)],
            k: &mut self.k[of(widths.k)],
            v: &mut self.v[of(widths.v)],
            lambda: &mut self.lambda[of(widths.lambda)],
        }
    }
}

/// Rows of a block, but for what is said to be of the chunk.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    /// As wide as hidden states: normalised ones, or what is to be added to them.
    #[cfg(feature = "models")]
    pub(super) row: Vec<f32>,
    /// q or k, not yet turned; of Mamba, B and C.
    pub(super) still: Vec<f32>,
    pub(super) operands: Operands,
    /// What the mixer makes, of as many rows as its operands.
    pub(super) attended: Vec<f32>,
    /// What a recurrent layer gave for later ones, of the rows of the chunk that go into these: of
    /// all, or of each text's last.
    #[cfg(feature = "models")]
    pub(super) memory: Vec<f32>,
    /// Between the halves of an MLP.
    #[cfg(feature = "models")]
    pub(super) hidden: Vec<f32>,
    /// Scratch of its first half.
    #[cfg(feature = "models")]
    pub(super) spare: Vec<f32>,
}

impl Buffers {
    /// Memory for the widest layer. `attended` comes later where all keys come before the first
    /// query.
    pub(super) fn new(plan: &Plan<'_>, blocks: &[Block], argument: &str) -> Result<Self, Error> {
        let rows = blocks.last().map_or(0, |block| block.rows.end);
        let block = blocks.iter().map(|block| block.rows.len()).max();
        let block = block.unwrap_or(0);
        let kept = match plan.keys {
            Keys::Whole { .. } => rows,
            #[cfg(feature = "models")]
            Keys::Apart => block,
        };
        let (mut widths, mut still) = (Widths::default(), 0);
        for (index, layer) in plan.layers.iter().enumerate() {
            let wanted = plan.wanted(index);
            widths = widths.max(layer.mixer.widths(wanted));
            still = still.max(layer.mixer.still(wanted));
        }
        let zeroed = |rows: usize, width: usize| -> Result<Vec<f32>, Error> {
            try_zeroed(checked_len(argument, &[rows, width])?)
        };
        Ok(Self {
            #[cfg(feature = "models")]
            row: zeroed(block, row_width(plan))?,
            still: zeroed(block, still)?,
            operands: Operands {
                q: zeroed(kept, widths.q)?,
                k: zeroed(kept, widths.k)?,
                v: zeroed(kept, widths.v)?,
                lambda: zeroed(kept, widths.lambda)?,
            },
            attended: match plan.keys {
                Keys::Whole { .. } => Vec::new(),
                #[cfg(feature = "models")]
                Keys::Apart => zeroed(kept, widths.attended)?,
            },
            #[cfg(feature = "models")]
            memory: zeroed(plan.memory_rows(rows), plan.memory_width())?,
            #[cfg(feature = "models")]
            hidden: zeroed(block, mlp_width(plan, |mlp| mlp.width()))?,
            #[cfg(feature = "models")]
            spare: zeroed(block, mlp_width(plan, |mlp| mlp.spare()))?,
        })
    }
}

/// Channels of a row beside the hidden states: none for attention alone.
#[cfg(feature = "models")]
fn row_width(plan: &Plan<'_>) -> usize {
    let layers = plan.layers.iter();
    let widths = layers.filter(|layer| layer.norm.is_some());
    widths.map(|layer| layer.mixer.width()).max().unwrap_or(0)
}

#[cfg(feature = "models")]
fn mlp_width(plan: &Plan<'_>, width: impl Fn(crate::layers::Mlp<'_>) -> usize) -> usize {
    let branches = plan.layers.iter().filter_map(|layer| layer.mlp);
    branches.map(|branch| width(branch.mlp)).max().unwrap_or(0)
}
