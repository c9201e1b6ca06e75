//! Rows of x as formats of weights meet them: one strip of input channels at a time, as float32 or
//! as int8 in blocks of 32. Knows nothing of weights.

use std::ops::Range;

use crate::blocks::linear::{CHANNELS, MAX_ROWS};
use crate::simd::BLOCK;
use crate::tensor::int8;

/// As what a format meets rows of x.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rows {
    /// `[group of rows][channel][row]` of float32. One row is read where it lies.
    Float,
    /// Row by row the codes, four in the bits of a float32, then [`NUMBERS`] for each block.
    Int8(Offset),
}

/// What of a block is beside its scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Offset {
    /// So many times the sum of its codes, an exact integer: codes of weights are counted from
    /// there.
    Zero(u8),
    /// Its scale times that sum: what a weight's bias is multiplied with.
    Sum,
}

/// Numbers of a block beside its codes: the scale, and what [`Offset`] says.
pub(super) const NUMBERS: usize = 2;

/// Float32 values that `depth` channels of a row take as [`Rows::Int8`].
pub(super) const fn int8_width(depth: usize) -> usize {
    depth / 4 + depth / BLOCK * NUMBERS
}

impl Rows {
    /// Float32 values that `depth` channels of a row take.
    #[inline(always)]
    pub(super) fn width(self, depth: usize) -> usize {
        match self {
            Self::Float => depth,
            Self::Int8(_) => int8_width(depth),
        }
    }

    /// Float32 values that a strip of `rows` rows of `inputs` channels takes at most.
    pub(super) fn packed_len(self, rows: usize, inputs: usize) -> usize {
        let depth = inputs.min(CHANNELS);
        match (self, rows) {
            (Self::Float, 1) => 0,
            (Self::Float, _) => rows.next_multiple_of(MAX_ROWS) * depth,
            (Self::Int8(_), _) => rows * int8_width(depth),
        }
    }
}

/// Packs channels `channels` of the rows of x as [`Rows::Float`], `group` rows beside each other.
#[inline(always)]
pub(super) fn pack_floats(
    x: &[f32],
    inputs: usize,
    channels: Range<usize>,
    group: usize,
    packed: &mut [f32],
) {
    let groups = packed.chunks_exact_mut(channels.len() * group);
    for (to, x) in groups.zip(x.chunks(group * inputs)) {
        for (row, x) in x.chunks_exact(inputs).enumerate() {
            let from = &x[channels.clone()];
            for (to, &value) in to[row..].iter_mut().step_by(group).zip(from) {
                *to = value;
            }
        }
    }
}

/// Packs channels `channels`, whole blocks, of the rows of x as [`Rows::Int8`].
#[inline(always)]
pub(super) fn pack_int8(
    x: &[f32],
    inputs: usize,
    channels: Range<usize>,
    offset: Offset,
    packed: &mut [f32],
) {
    let depth = channels.len();
    let records = packed.chunks_exact_mut(int8_width(depth));
    for (record, x) in records.zip(x.chunks_exact(inputs)) {
        let (words, numbers) = record.split_at_mut(depth / 4);
        let blocks = x[channels.clone()].as_chunks::<BLOCK>().0;
        let words = words.as_chunks_mut::<{ BLOCK / 4 }>().0;
        let numbers = numbers.as_chunks_mut::<NUMBERS>().0;
        for ((x, words), numbers) in blocks.iter().zip(words).zip(numbers) {
            let (codes, scale) = quantise(x);
            for (word, codes) in words.iter_mut().zip(codes.as_chunks::<4>().0) {
                *word = f32::from_bits(u32::from_ne_bytes(codes.map(i8::cast_unsigned)));
            }
            let sum = codes.iter().map(|&code| i32::from(code)).sum::<i32>() as f32;
            let offset = match offset {
                Offset::Zero(zero) => f32::from(zero) * sum,
                Offset::Sum => scale * sum,
            };
            *numbers = [scale, offset];
        }
    }
}

/// Codes of a block and their scale: by the rule of [`int8`]. A block with a NaN or an infinity has
/// a scale that is none, so that every sum becomes NaN.
#[inline(always)]
fn quantise(x: &[f32; BLOCK]) -> ([i8; BLOCK], f32) {
    let magnitudes = x.map(int8::magnitude);
    let largest = magnitudes.into_iter().fold(0, u32::max);
    let [scale, inverse] = int8::scale_of(largest);
    (x.map(|x| int8::code(x, inverse)), scale)
}
