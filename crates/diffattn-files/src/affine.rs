//! MLX's own rule by which floats become codes: in each group of a row, the edge of larger
//! magnitude is met exactly. Packs nothing.

use crate::dtype::BLOCK;
use diffattn::{CodedRow, CodedRows, Data, Error, Tensor, check_len, format_shape};
use half::bf16;

/// The least step of a group, in float32.
const LEAST_STEP: f32 = 1e-7;

/// Rows of floats, quantised by MLX's rule as they are read: codes are made in float32, then scales
/// and biases are rounded to bfloat16. A row with a number that is not finite, or in which a step
/// is none that bfloat16 holds, is [`ErrorKind::Option`](diffattn::ErrorKind::Option) naming
/// `weight`.
#[derive(Debug, Clone)]
pub struct AffineRows<'a> {
    weight: Data<'a>,
    inputs: usize,
    bits: usize,
    group_size: usize,
}

impl<'a> AffineRows<'a> {
    /// The rows of `weight`, `[outputs, inputs]`, as codes of `bits` bits (4 or 8), of which
    /// `group_size` inputs, a multiple of 32 that divides their number, share a scale and a bias.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](diffattn::ErrorKind::Shape) naming `weight`: other axes, elements that
    /// do not fill it, or inputs that are no whole groups.
    pub fn new(weight: &Tensor<'a>, bits: usize, group_size: usize) -> Result<Self, Error> {
        let &[_, inputs] = weight.shape.as_slice() else {
            let got = format_shape(&weight.shape);
            return Err(Error::shape("weight", "2 axes, [outputs, inputs]", got));
        };
        check_len("weight", &weight.shape, weight.data.len())?;
        let is_group = group_size > 0 && group_size.is_multiple_of(BLOCK);
        if !is_group || !inputs.is_multiple_of(group_size) {
            let expected = format_args!("whole groups of {group_size} input channels");
            return Err(Error::shape("weight", expected, inputs));
        }
        Ok(Self {
            weight: weight.data,
            inputs,
            bits,
            group_size,
        })
    }

    /// A row as float32.
    fn values(&self, index: usize) -> Result<Vec<f32>, Error> {
        let range = index * self.inputs..(index + 1) * self.inputs;
        let row = match self.weight {
            Data::F32(all) => Data::F32(&all[range]),
            Data::F16(all) => Data::F16(&all[range]),
            Data::Bf16(all) => Data::Bf16(&all[range]),
        };
        row.to_f32()
    }
}

impl CodedRows for AffineRows<'_> {
    fn bits(&self) -> usize {
        self.bits
    }

    fn bf16(&self) -> bool {
        true
    }

    fn read(&mut self, index: usize, row: CodedRow<'_>) -> Result<(), Error> {
        let values = self.values(index)?;
        let most = ((1u32 << self.bits) - 1) as f32;
        let blocks = self.group_size / BLOCK;
        let numbers = row.scales.chunks_exact_mut(blocks);
        let numbers = numbers.zip(row.biases.chunks_exact_mut(blocks));
        let groups = values.chunks_exact(self.group_size);
        let codes = row.codes.chunks_exact_mut(self.group_size);
        for ((values, codes), (scales, biases)) in groups.zip(codes).zip(numbers) {
            let [scale, bias] = quantise(values, codes, most).map(bf16::from_f32);
            // (Of a NaN every comparison is false.)
            let is_finite = values.iter().all(|value| value.is_finite());
            if !is_finite || !scale.is_finite() || !bias.is_finite() {
                return Err(Error::option(
                    "weight",
                    "finite numbers whose scales bfloat16 holds, to be quantised",
                    format_args!("others in row {index}"),
                ));
            }
            scales.fill(scale.to_f32());
            biases.fill(bias.to_f32());
        }
        Ok(())
    }
}

/// The codes of a group, from 0 to `most`; gives the scale and the bias, not yet rounded.
fn quantise(values: &[f32], codes: &mut [u8], most: f32) -> [f32; 2] {
    let low = values.iter().copied().fold(f32::INFINITY, f32::min);
    let high = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let is_low = low.abs() > high.abs();
    let edge = if is_low { low } else { high };
    let step = ((high - low) / most).max(LEAST_STEP);
    // (Codes count from the edge of larger magnitude.)
    let step = if is_low { step } else { -step };
    let steps = (edge / step).round_ties_even();
    let (scale, bias) = match steps == 0.0 {
        true => (step, 0.0),
        false => (edge / steps, edge),
    };
    for (code, value) in codes.iter_mut().zip(values) {
        let steps = ((value - bias) / scale).round_ties_even();
        *code = steps.clamp(0.0, most) as u8;
    }
    [scale, bias]
}
