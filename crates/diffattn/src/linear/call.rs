//! All rows of a call by all of a weight: how rows and outputs are cut for threads. Knows neither
//! formats nor what a low-rank difference adds.

use std::sync::{Mutex, PoisonError};

use super::panels::with_format;
use super::product::{Met, Product, Way};
use super::rows::Rows;
use super::strip::{Block, PackedBlock};
use super::turned::turned_len;
use crate::blocks::linear::{
    BLOCK, CHANNELS, FEW_ROWS, LEAST_BLOCK, MAX_ROWS, PANEL, READ_COST, TURNED_BLOCK,
};
use crate::error::Error;
use crate::run::Run;
use crate::run::buffer::try_zeroed;
use crate::run::threads::{Disjoint, for_each, thread_count};

/// How the rows and outputs of a call are cut, so that every thread has work: blocks of rows of one
/// size, and where those are fewer than the threads, stretches of panels.
#[derive(Debug, Clone, Copy)]
struct Cut {
    threads: usize,
    /// Rows of a block.
    block: usize,
    blocks: usize,
    /// Panels of a stretch.
    stretch: usize,
    stretches: usize,
}

/// Memory of a thread.
#[derive(Debug)]
struct Scratch {
    memory: Vec<f32>,
    /// The block whose rows are packed in it.
    packed: Option<usize>,
}

impl<W: Met> Product<'_, W> {
    /// `rows` rows of x to as many of y, whose lengths were checked.
    pub(super) fn run(self, rows: usize, x: &[f32], y: &mut [f32], run: Run) -> Result<(), Error> {
        let [outputs, inputs] = self.shape;
        if rows == 0 || outputs == 0 {
            return Ok(());
        }
        assert!(x.len() == rows * inputs && y.len() == rows * outputs);
        let cut = self.cut(rows, run);
        let widened = match self.way.which() {
            Way::Forward if cut.block <= FEW_ROWS => 0,
            Way::Forward => with_format!(self.weight, weight => weight.widened_len()),
            Way::Float => PANEL * inputs.min(CHANNELS),
            Way::Turned => turned_len(inputs),
        };
        let rows_as = self.rows();
        let strip = rows_as.packed_len(cut.block, inputs);
        let holds_all = cut.block <= MAX_ROWS;
        let strips = if holds_all {
            inputs.div_ceil(CHANNELS)
        } else {
            1
        };
        let mut scratch = Vec::with_capacity(cut.threads);
        for _ in 0..cut.threads {
            scratch.push(Mutex::new(Scratch {
                memory: try_zeroed(widened + strips * strip)?,
                packed: None,
            }));
        }
        let panels = outputs.div_ceil(PANEL);
        let parts = &Disjoint::new(y);
        for_each(cut.threads, cut.blocks * cut.stretches, |slot, item| {
            let block = item / cut.stretches;
            let first_row = block * cut.block;
            let first_panel = item % cut.stretches * cut.stretch;
            if first_row >= rows {
                return;
            }
            let rows = first_row..(first_row + cut.block).min(rows);
            let mut scratch = scratch[slot].lock().unwrap_or_else(PoisonError::into_inner);
            let is_packed = scratch.packed.replace(block) == Some(block);
            let (widened, memory) = scratch.memory.split_at_mut(widened);
            let packed = PackedBlock {
                memory,
                strip,
                holds_all,
                is_packed: holds_all && is_packed,
            };
            let block = Block {
                product: self,
                x: &x[rows.start * inputs..rows.end * inputs],
                y: parts,
                rows,
                panels: first_panel..(first_panel + cut.stretch).min(panels),
                packed,
                widened,
            };
            match rows_as {
                Rows::Float => run.kernel(block),
                Rows::Int8(_) => run.unfused_kernel(block),
            }
        });
        Ok(())
    }

    fn cut(&self, rows: usize, run: Run) -> Cut {
        let [outputs, inputs] = self.shape;
        let weights = outputs.saturating_mul(inputs);
        let bits = with_format!(self.weight, weight => weight.bits());
        let threads = thread_count(
            run.threads(),
            weights.saturating_mul(rows.saturating_add(READ_COST * bits / 8)),
        );
        // Where threads share rows, each packs and widens for itself alone.
        let shared = if threads == 1 { 1 } else { 2 * threads };
        let most = match self.way.which() {
            Way::Forward => BLOCK,
            Way::Float | Way::Turned => TURNED_BLOCK,
        };
        let blocks = rows.div_ceil(most).max(shared.min(rows / LEAST_BLOCK));
        let panels = outputs.div_ceil(PANEL);
        let stretches = if threads == 1 {
            1
        } else {
            (2 * threads).div_ceil(blocks).min(panels)
        };
        let stretch = panels.div_ceil(stretches);
        Cut {
            threads,
            block: rows.div_ceil(blocks),
            blocks,
            stretch,
            stretches: panels.div_ceil(stretch),
        }
    }
}
