//! Quantised weights and activations: how codes are made, in the float32 arithmetic that is part of
//! each rule, and what they stand for, in float64. The rules of weights are GGUF's.

use half::f16;

use crate::{Tensor, linear};

/// Values that share a scale.
const BLOCK: usize = 32;

/// Codes of a weight, row by row, and for every 32 of them what they are multiplied with and then
/// added: value = code · scale + bias.
#[derive(Clone, Debug, PartialEq)]
pub struct QuantisedWeight {
    /// Unsigned.
    pub codes: Vec<u8>,
    /// One for each 32 codes.
    pub scales: Vec<f64>,
    /// As many.
    pub biases: Vec<f64>,
}

impl QuantisedWeight {
    /// What the codes stand for.
    pub fn values(&self) -> Vec<f64> {
        let of = |(at, &code): (usize, &u8)| {
            f64::from(code) * self.scales[at / BLOCK] + self.biases[at / BLOCK]
        };
        self.codes.iter().enumerate().map(of).collect()
    }
}

/// Values as int8: value = code · scale, a scale for each few of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Int8 {
    /// The codes.
    pub codes: Vec<i8>,
    /// One for each `width` codes.
    pub scales: Vec<f32>,
    /// Codes that share a scale.
    pub width: usize,
}

impl Int8 {
    /// What the codes stand for.
    pub fn values(&self) -> Vec<f64> {
        let of =
            |(at, &code): (usize, &i8)| f64::from(code) * f64::from(self.scales[at / self.width]);
        self.codes.iter().enumerate().map(of).collect()
    }
}

/// 1/scale as float32, 0 where it has none.
fn inverse(scale: f32) -> f32 {
    let inverse = 1.0 / scale;
    if inverse.is_finite() { inverse } else { 0.0 }
}

fn largest(block: &[f32]) -> f32 {
    block.iter().fold(0.0, |most, x| most.max(x.abs()))
}

/// A row of x for a product with quantised weights: scale max |x| / 127, ties to even.
pub fn quantise_int8(x: &[f32]) -> Int8 {
    quantise_int8_rows(x, BLOCK)
}

/// Rows of `width` numbers by the same rule, each with a scale: as a cache of int8 holds keys and
/// values.
pub fn quantise_int8_rows(x: &[f32], width: usize) -> Int8 {
    let (mut codes, mut scales) = (Vec::new(), Vec::new());
    for block in x.chunks(width) {
        let scale = largest(block) / 127.0;
        let steps = block.iter().map(|x| x * inverse(scale));
        codes.extend(steps.map(|steps| steps.round_ties_even() as i8));
        scales.push(scale);
    }
    Int8 {
        codes,
        scales,
        width,
    }
}

/// Quantises block by block: `of` gives a block's codes, scale and bias as float32.
fn blocks(w: &[f32], of: impl Fn(&[f32]) -> (Vec<u8>, f32, f32)) -> QuantisedWeight {
    let mut made = QuantisedWeight {
        codes: Vec::new(),
        scales: Vec::new(),
        biases: Vec::new(),
    };
    for block in w.chunks(BLOCK) {
        let (codes, scale, bias) = of(block);
        made.codes.extend(codes);
        made.scales.push(f64::from(scale));
        made.biases.push(f64::from(bias));
    }
    made
}

/// Rounded to float16.
fn stored(number: f32) -> f32 {
    f16::from_f32(number).to_f32()
}

/// Q8_0: scale max |w| / 127, halves away from zero; codes less 128.
pub fn quantise_q8_0(w: &[f32]) -> QuantisedWeight {
    blocks(w, |block| {
        let scale = largest(block) / 127.0;
        let steps = block.iter().map(|w| (w * inverse(scale)).round());
        let codes = steps.map(|steps| (steps + 128.0) as u8).collect();
        (codes, stored(scale), -128.0 * stored(scale))
    })
}

/// Q4_0: the value of largest magnitude, the first of equals, is −8 steps; codes less 8.
pub fn quantise_q4_0(w: &[f32]) -> QuantisedWeight {
    blocks(w, |block| {
        let first = block.iter().find(|w| w.abs() == largest(block));
        let scale = first.copied().unwrap_or(0.0) / -8.0;
        let code = |w: &f32| (w * inverse(scale) + 8.5).trunc().clamp(0.0, 15.0) as u8;
        let codes = block.iter().map(code).collect();
        (codes, stored(scale), -8.0 * stored(scale))
    })
}

/// Q4_1: codes from the minimum in steps of a fifteenth of the range.
pub fn quantise_q4_1(w: &[f32]) -> QuantisedWeight {
    blocks(w, |block| {
        let least = block.iter().copied().fold(f32::INFINITY, f32::min);
        let most = block.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let scale = (most - least) / 15.0;
        let code = |w: &f32| ((w - least) * inverse(scale) + 0.5).trunc().min(15.0) as u8;
        let codes = block.iter().map(code).collect();
        (codes, stored(scale), stored(least))
    })
}

/// `y = x Wᵀ + b` with x as int8, a row a run of whole blocks; `weight` is `[outputs, inputs]`.
pub fn linear_int8(
    x: &Tensor<f32>,
    weight: &Tensor<f64>,
    bias: Option<&Tensor<f64>>,
) -> Tensor<f64> {
    let x = Tensor::new(&x.shape, quantise_int8(&x.data).values());
    linear(&x, weight, bias)
}
