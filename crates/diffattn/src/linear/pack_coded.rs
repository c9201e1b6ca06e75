//! Codes in the order in which the kernel reads them. Knows nothing of what they mean.

use super::coded::Coded;
use super::quantised::{CodedRow, CodedRows};
use crate::blocks::linear::PANEL;
use crate::error::Error;
use crate::run::buffer::try_zeroed;
use crate::simd::BLOCK;

/// The rows of a panel, unpacked. Rows past the last output are zeros.
pub(super) struct PanelRows {
    inputs: usize,
    /// `[PANEL, inputs]`.
    codes: Vec<u8>,
    /// `[PANEL, inputs / 32]` each.
    scales: Vec<f32>,
    biases: Vec<f32>,
}

impl PanelRows {
    pub(super) fn new(inputs: usize) -> Result<Self, Error> {
        let blocks = inputs / BLOCK;
        Ok(Self {
            inputs,
            codes: try_zeroed(PANEL * inputs)?,
            scales: try_zeroed(PANEL * blocks)?,
            biases: try_zeroed(PANEL * blocks)?,
        })
    }

    /// Reads rows `first..end` of `from`.
    pub(super) fn read(
        &mut self,
        from: &mut impl CodedRows,
        first: usize,
        end: usize,
    ) -> Result<(), Error> {
        let (inputs, blocks) = (self.inputs, self.inputs / BLOCK);
        let rows = end - first;
        for row in 0..rows {
            let numbers = row * blocks..(row + 1) * blocks;
            let row_of_codes = CodedRow {
                codes: &mut self.codes[row * inputs..(row + 1) * inputs],
                scales: &mut self.scales[numbers.clone()],
                biases: &mut self.biases[numbers],
            };
            from.read(first + row, row_of_codes)?;
        }
        self.codes[rows * inputs..].fill(0);
        self.scales[rows * blocks..].fill(0.0);
        self.biases[rows * blocks..].fill(0.0);
        Ok(())
    }

    /// Whether all biases are those with which codes count from `zero`.
    pub(super) fn count_from(&self, zero: u8) -> bool {
        let numbers = self.scales.iter().zip(&self.biases);
        let mut biases = numbers.map(|(scale, bias)| (-f32::from(zero) * scale, *bias));
        biases.all(|(implied, bias)| implied == bias)
    }

    /// Packs the strip that begins with channel `from`.
    pub(super) fn pack<const BITS: usize>(
        &self,
        format: Coded<BITS>,
        from: usize,
        strip: &mut [u8],
    ) {
        let per_row = self.inputs / BLOCK;
        let in_block = strip.chunks_exact_mut(format.block_bytes());
        for (block, to) in in_block.enumerate() {
            let first = from + block * BLOCK;
            let (codes, numbers) = to.split_at_mut(Coded::<BITS>::CODE_BYTES);
            for (at, to) in codes.as_chunks_mut::<4>().0.iter_mut().enumerate() {
                let (four, lane) = (at / PANEL, at % PANEL);
                let channel = lane * self.inputs + first + four * 4;
                let low = &self.codes[channel..channel + 4];
                if BITS == 8 {
                    to.copy_from_slice(low);
                } else {
                    let high = &self.codes[channel + BLOCK / 2..][..4];
                    for (to, (low, high)) in to.iter_mut().zip(low.iter().zip(high)) {
                        *to = low | (high << 4);
                    }
                }
            }
            for (kind, to) in numbers
                .chunks_exact_mut(Coded::<BITS>::SCALES_BYTES)
                .enumerate()
            {
                let from_numbers = if kind == 0 {
                    &self.scales
                } else {
                    &self.biases
                };
                for (lane, to) in to.as_chunks_mut::<2>().0.iter_mut().enumerate() {
                    *to = format.stored(from_numbers[lane * per_row + first / BLOCK]);
                }
            }
        }
    }
}
