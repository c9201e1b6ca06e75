//! `y = x Wᵀ + b`, the projection of layers, on the register tile of attention. The crate's own
//! product, so that a row of a layer keeps its bits whatever stands beside it: a row's sums run
//! over the input channels in one fixed order, in strips of 128 from zero, added in order.
//! Halves stay halves, so that one row, which is bound by reading them, takes half the time; so do
//! codes, whose products are of integers. Knows nothing of layers.
//!
//! Measured against the `gemm` crate 0.19 with its AVX-512 kernels, one thread of a Zen 5 (inputs ×
//! outputs × rows, GFLOP/s ours : gemm): 256×256×214 220 : 228, 1024×1024×512 244 : 187, ×8 rows
//! 239 : 10, ×1 row 49 : 53; and half the error at 1024 inputs.

mod coded;
mod format;
mod pack;
mod pack_coded;
mod panels;
mod quantised;
mod rows;
mod strip;

#[cfg(test)]
mod tests;

use std::sync::{Mutex, PoisonError};

pub use self::quantised::{
    CodedRow, CodedRows, Codes, Quantisation, Quantised, Quantiser, coded_values,
};

use self::panels::{Panels, with_format};
use self::quantised::{check_inputs, check_weight};
use self::rows::Rows;
use self::strip::{Block, PackedBlock};
use crate::blocks::linear::{BLOCK, CHANNELS, FEW_ROWS, LEAST_BLOCK, MAX_ROWS, PANEL, READ_COST};
use crate::error::Error;
use crate::run::Run;
use crate::run::buffer::try_zeroed;
use crate::run::threads::{Disjoint, for_each, thread_count};
use crate::tensor::Tensor;
use crate::tensor::shape::{check_len, format_shape};

/// A linear map `y = x Wᵀ + b`, its weight packed in panels of its own element type. Made once,
/// used for any number of rows.
#[derive(Debug, Clone)]
pub struct Linear {
    inputs: usize,
    outputs: usize,
    weight: Panels,
    bias: Option<Vec<f32>>,
    /// A and B of a low-rank difference.
    low_rank: Option<Box<[Self; 2]>>,
}

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

impl Linear {
    /// Packs `weight` `[outputs, inputs]`, each value in as many bytes as it has there, and `bias`
    /// `[outputs]`. Products are those of the float32 values: a weight of halves gives the bits
    /// of the same weight in float32.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) naming `weight` or `bias`,
    /// [`Error::out_of_memory`].
    pub fn new(weight: &Tensor<'_>, bias: Option<&Tensor<'_>>) -> Result<Self, Error> {
        let shape = check_weight(weight)?;
        Self::of(Panels::new(weight.data, shape)?, shape, bias)
    }

    /// Packs `weight` `[outputs, inputs]`, quantised as `to` says, row by row, and `bias`
    /// `[outputs]`. Products are those of x in int8: blocks of 32 channels with a scale of
    /// max |x| / 127 each, to the nearest, ties to even. So a row has the same bits on every
    /// instruction set, and with `deterministic` or without.
    ///
    /// # Errors
    /// As [`Linear::new`]; [`ErrorKind::Shape`](crate::ErrorKind::Shape) naming `weight` also when
    /// `inputs` is no multiple of 32, and [`ErrorKind::Option`](crate::ErrorKind::Option) when one
    /// of its numbers is not finite or too large for a scale of float16.
    pub fn quantise(
        weight: &Tensor<'_>,
        bias: Option<&Tensor<'_>>,
        to: Quantisation,
    ) -> Result<Self, Error> {
        let shape = check_weight(weight)?;
        Self::of_codes(Quantiser::new(weight, to)?, shape, bias)
    }

    /// Packs a weight that is quantised already; products are those of [`Linear::quantise`].
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) naming `weight` when `inputs` is no multiple
    /// of 32, or `codes`, `scales`, `biases` or `bias`;
    /// [`ErrorKind::Dtype`](crate::ErrorKind::Dtype) naming `scales` or `biases`;
    /// [`ErrorKind::Option`](crate::ErrorKind::Option) for biases of signed codes;
    /// [`Error::out_of_memory`].
    pub fn quantised(weight: &Quantised<'_>, bias: Option<&Tensor<'_>>) -> Result<Self, Error> {
        weight.check()?;
        Self::of_codes(weight, weight.shape, bias)
    }

    /// Packs a weight `[outputs, inputs]` row by row out of whatever holds its codes; products are
    /// those of [`Linear::quantise`].
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) naming `weight` when `inputs` is no multiple
    /// of 32, or `bias`; what reading a row says; [`Error::out_of_memory`].
    pub fn of_codes(
        rows: impl CodedRows,
        shape: [usize; 2],
        bias: Option<&Tensor<'_>>,
    ) -> Result<Self, Error> {
        check_inputs(shape[1])?;
        Self::of(Panels::of_codes(rows, shape)?, shape, bias)
    }

    /// Bits that a weight takes, its share of scales and biases included and rounded down.
    #[must_use]
    pub fn bits(&self) -> usize {
        with_format!(&self.weight, weight => weight.bits())
    }

    fn of(
        weight: Panels,
        [outputs, inputs]: [usize; 2],
        bias: Option<&Tensor<'_>>,
    ) -> Result<Self, Error> {
        if let Some(bias) = bias {
            if bias.shape != [outputs] {
                return Err(Error::shape(
                    "bias",
                    format_args!("shape [{outputs}]"),
                    format_shape(&bias.shape),
                ));
            }
            check_len("bias", &bias.shape, bias.data.len())?;
        }
        Ok(Self {
            inputs,
            outputs,
            weight,
            bias: bias.map(|bias| bias.data.to_f32()).transpose()?,
            low_rank: None,
        })
    }

    /// The same map with a low-rank difference beside it: `y = x Wᵀ + b + (x Aᵀ) Bᵀ` of
    /// `lora_a` `[rank, inputs]` and `lora_b` `[outputs, rank]` (arXiv 2106.09685, whose factor
    /// alpha / rank is in one of them). W stays in its own format, and the rows of
    /// [`Linear::weight_row`] are W's. Another difference takes the place of the one before.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) naming `lora_a` or `lora_b`.
    pub fn with_low_rank(self, lora_a: Self, lora_b: Self) -> Result<Self, Error> {
        if lora_a.inputs != self.inputs {
            return Err(Error::shape(
                "lora_a",
                format_args!("shape [rank, {}]", self.inputs),
                format_args!("[{}, {}]", lora_a.outputs, lora_a.inputs),
            ));
        }
        if lora_b.outputs != self.outputs || lora_b.inputs != lora_a.outputs {
            return Err(Error::shape(
                "lora_b",
                format_args!("shape [{}, {}]", self.outputs, lora_a.outputs),
                format_args!("[{}, {}]", lora_b.outputs, lora_b.inputs),
            ));
        }
        Ok(Self {
            low_rank: Some(Box::new([lora_a, lora_b])),
            ..self
        })
    }

    /// Row `index` of the weight, as float32: the `inputs` weights of output channel `index`. So a
    /// matrix that is both the embedding and the output head of a language model is held once.
    ///
    /// # Errors
    /// [`ErrorKind::Option`](crate::ErrorKind::Option) for an `index` that is no output channel,
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) when `row` has not `inputs` values.
    pub fn weight_row(&self, index: usize, row: &mut [f32]) -> Result<(), Error> {
        if index >= self.outputs {
            return Err(Error::option(
                "index",
                format_args!("an output channel below {}", self.outputs),
                index,
            ));
        }
        check_len("row", &[self.inputs], row.len())?;
        with_format!(&self.weight, weight => weight.read_row(index, row));
        Ok(())
    }

    /// Channels of a row of x.
    #[must_use]
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Channels of a row of y.
    #[must_use]
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Maps every row of x `[rows, inputs]` to one of y `[rows, outputs]`. A row's bits depend on
    /// that row alone.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) when `x` is not whole rows or `y` not as many;
    /// [`Error::out_of_memory`].
    pub fn forward(&self, x: &[f32], y: &mut [f32], run: Run) -> Result<(), Error> {
        let rows = x
            .len()
            .checked_div(self.inputs)
            .unwrap_or(y.len() / self.outputs.max(1));
        check_len("x", &[rows, self.inputs], x.len())?;
        check_len("y", &[rows, self.outputs], y.len())?;
        if rows == 0 || self.outputs == 0 {
            return Ok(());
        }
        let cut = self.cut(rows, run);
        let widened = match cut.block {
            ..=FEW_ROWS => 0,
            _ => with_format!(&self.weight, weight => weight.widened_len()),
        };
        let rows_as = with_format!(&self.weight, weight => weight.rows());
        let strip = rows_as.packed_len(cut.block, self.inputs);
        let holds_all = cut.block <= MAX_ROWS;
        let strips = if holds_all {
            self.inputs.div_ceil(CHANNELS)
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
        let panels = self.outputs.div_ceil(PANEL);
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
                weight: &self.weight,
                shape: [self.outputs, self.inputs],
                bias: self.bias.as_deref(),
                x: &x[rows.start * self.inputs..rows.end * self.inputs],
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
        let Some(low_rank) = &self.low_rank else {
            return Ok(());
        };
        let [lora_a, lora_b] = &**low_rank;
        let mut thin = try_zeroed(rows * lora_a.outputs)?;
        lora_a.forward(x, &mut thin, run)?;
        let mut added = try_zeroed(y.len())?;
        lora_b.forward(&thin, &mut added, run)?;
        for (y, added) in y.iter_mut().zip(&added) {
            *y += added;
        }
        Ok(())
    }

    fn cut(&self, rows: usize, run: Run) -> Cut {
        let weights = self.outputs.saturating_mul(self.inputs);
        let bits = self.bits();
        let threads = thread_count(
            run.threads(),
            weights.saturating_mul(rows.saturating_add(READ_COST * bits / 8)),
        );
        // Where threads share rows, each packs and widens for itself alone.
        let shared = if threads == 1 { 1 } else { 2 * threads };
        let blocks = rows.div_ceil(BLOCK).max(shared.min(rows / LEAST_BLOCK));
        let panels = self.outputs.div_ceil(PANEL);
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
