//! Where quantised weights come from: codes and scales as files have them, or floats by the rules
//! of GGUF. Gives them row by row, in one form; does not know how they are packed.

use half::f16;

use crate::error::{Error, ErrorKind};
use crate::run::buffer::try_zeroed;
use crate::simd::BLOCK;
use crate::tensor::shape::{check_len, checked_len, format_shape};
use crate::tensor::{DType, Data, Tensor};

/// How floats become codes, in blocks of 32 input channels: the rules of GGUF, whose names these
/// are. Scales, and Q4_1's minima, are float16.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantisation {
    /// Eight bits and a scale (8.5 bits per weight): the largest magnitude is ±127; to the nearest,
    /// halves away from zero.
    Q8_0,
    /// Four bits and a scale (4.5 bits per weight): the value of largest magnitude, the first of
    /// equals, is −8 steps.
    Q4_0,
    /// Four bits, a scale and the minimum (5 bits per weight), from which the codes count.
    Q4_1,
}

/// Codes of weights, row by row, as files have them.
#[derive(Debug, Clone, Copy)]
pub enum Codes<'a> {
    /// Signed, a byte each: those of [`Quantisation::Q8_0`].
    I8(&'a [i8]),
    /// Unsigned, a byte each, which zero is 128 of where there are no biases.
    U8(&'a [u8]),
    /// Unsigned, two in a byte, the first in its low bits; zero is 8 where there are no biases.
    U4(&'a [u8]),
}

/// A quantised weight `[outputs, inputs]`. A value is `code · scale + bias`; without biases it is
/// `(code − zero) · scale`.
#[derive(Debug, Clone)]
pub struct Quantised<'a> {
    /// Outputs, inputs: the latter a multiple of 32.
    pub shape: [usize; 2],
    /// A code for each weight.
    pub codes: Codes<'a>,
    /// A scale for each group of input channels, whose size, a multiple of 32, follows from how
    /// many there are: `[outputs, inputs / group]`, float16 or bfloat16.
    pub scales: Data<'a>,
    /// As many biases, of the same type. None with [`Codes::I8`].
    pub biases: Option<Data<'a>>,
}

/// A row of a quantised weight: value = code · scale + bias.
#[derive(Debug)]
pub struct CodedRow<'r> {
    /// A code for each input channel, unsigned, a byte each.
    pub codes: &'r mut [u8],
    /// A scale for each 32 codes.
    pub scales: &'r mut [f32],
    /// As many biases.
    pub biases: &'r mut [f32],
}

/// What rows of quantised weights are read from, whatever their form: one row at a time, so that
/// nothing is unpacked as a whole.
pub trait CodedRows {
    /// Bits of a code: 4, or 8.
    fn bits(&self) -> usize;

    /// Whether a bfloat16 holds scales and biases exactly; else float16 does.
    fn bf16(&self) -> bool;

    /// Row `index` into all of `row`, which is of as many channels as rows have. Rows may be asked
    /// for in any order, and again.
    ///
    /// # Errors
    /// What keeps the row from being made.
    fn read(&mut self, index: usize, row: CodedRow<'_>) -> Result<(), Error>;
}

/// What the rows of `rows`, a weight `[outputs, inputs]`, stand for: `code · scale + bias` in
/// float32, which rounds once, at the sum.
///
/// # Errors
/// [`ErrorKind::Shape`](crate::ErrorKind::Shape) naming `weight` when `inputs` is no multiple of 32;
/// what reading a row says; [`Error::out_of_memory`].
pub fn coded_values(
    rows: &mut impl CodedRows,
    [outputs, inputs]: [usize; 2],
) -> Result<Vec<f32>, Error> {
    check_inputs(inputs)?;
    let mut values = try_zeroed(checked_len("weight", &[outputs, inputs])?)?;
    let mut codes: Vec<u8> = try_zeroed(inputs)?;
    let blocks = inputs / BLOCK;
    let (mut scales, mut biases) = (try_zeroed(blocks)?, try_zeroed(blocks)?);
    for (index, values) in values.chunks_exact_mut(inputs.max(1)).enumerate() {
        let row = CodedRow {
            codes: &mut codes,
            scales: &mut scales,
            biases: &mut biases,
        };
        rows.read(index, row)?;
        for (at, (value, &code)) in values.iter_mut().zip(&codes).enumerate() {
            // (A code of eight bits times a float16 is exact.)
            *value = f32::from(code) * scales[at / BLOCK] + biases[at / BLOCK];
        }
    }
    Ok(values)
}

/// The shape of a weight, `[outputs, inputs]`.
pub(super) fn check_weight(weight: &Tensor<'_>) -> Result<[usize; 2], Error> {
    let &[outputs, inputs] = weight.shape.as_slice() else {
        return Err(Error::shape(
            "weight",
            "2 axes, [outputs, inputs]",
            format_shape(&weight.shape),
        ));
    };
    check_len("weight", &weight.shape, weight.data.len())?;
    Ok([outputs, inputs])
}

/// Refuses a number of input channels that is no multiple of 32.
pub(super) fn check_inputs(inputs: usize) -> Result<(), Error> {
    if inputs.is_multiple_of(BLOCK) {
        return Ok(());
    }
    Err(Error::shape(
        "weight",
        format_args!("a multiple of {BLOCK} input channels, to be quantised"),
        inputs,
    ))
}

impl Quantised<'_> {
    /// Refuses what does not fit together.
    pub(super) fn check(&self) -> Result<(), Error> {
        let [outputs, inputs] = self.shape;
        check_inputs(inputs)?;
        let weights = checked_len("weight", &self.shape)?;
        let codes = match self.codes {
            Codes::I8(codes) => codes.len(),
            Codes::U8(codes) => codes.len(),
            Codes::U4(codes) => codes.len().saturating_mul(2),
        };
        check_len("codes", &self.shape, codes)?;
        let scales = self.scales.len();
        let groups = scales.checked_div(outputs).unwrap_or(0);
        let whole = groups > 0 && inputs.is_multiple_of(groups * BLOCK);
        if scales != groups * outputs || !(whole || weights == 0) {
            return Err(Error::shape(
                "scales",
                format_args!(
                    "one for each group of a multiple of {BLOCK} of the {outputs} · {inputs} weights"
                ),
                scales,
            ));
        }
        if self.scales.dtype() == DType::F32 {
            return Err(Error::argument(
                ErrorKind::Dtype,
                "scales",
                "float16 or bfloat16",
                self.scales.dtype().name(),
            ));
        }
        let Some(biases) = &self.biases else {
            return Ok(());
        };
        if matches!(self.codes, Codes::I8(_)) {
            return Err(Error::option("biases", "none with signed codes", "some"));
        }
        if biases.dtype() != self.scales.dtype() {
            return Err(Error::argument(
                ErrorKind::Dtype,
                "biases",
                format_args!("{}, as the scales are", self.scales.dtype().name()),
                biases.dtype().name(),
            ));
        }
        check_len("biases", &[outputs, groups], biases.len())?;
        Ok(())
    }
}

/// Some numbers of each group, as one of them for each block.
fn spread(numbers: &Data<'_>, first: usize, to: &mut [f32], groups: usize) {
    let blocks = to.len() / groups.max(1);
    for (group, to) in to.chunks_exact_mut(blocks.max(1)).enumerate() {
        let mut number = [0.0];
        numbers.widen(first + group, &mut number);
        to.fill(number[0]);
    }
}

impl CodedRows for &Quantised<'_> {
    fn bits(&self) -> usize {
        match self.codes {
            Codes::U4(_) => 4,
            Codes::I8(_) | Codes::U8(_) => 8,
        }
    }

    fn bf16(&self) -> bool {
        self.scales.dtype() == DType::Bf16
    }

    fn read(&mut self, index: usize, row: CodedRow<'_>) -> Result<(), Error> {
        let [outputs, inputs] = self.shape;
        let first = index * inputs;
        match self.codes {
            Codes::I8(codes) => {
                for (to, code) in row.codes.iter_mut().zip(&codes[first..]) {
                    *to = code.cast_unsigned() ^ 128;
                }
            }
            Codes::U8(codes) => row.codes.copy_from_slice(&codes[first..first + inputs]),
            Codes::U4(codes) => {
                let pairs = row.codes.as_chunks_mut::<2>().0;
                for (to, byte) in pairs.iter_mut().zip(&codes[first / 2..]) {
                    *to = [byte & 15, byte >> 4];
                }
            }
        }
        let groups = self.scales.len() / outputs;
        spread(&self.scales, index * groups, row.scales, groups);
        match &self.biases {
            Some(biases) => spread(biases, index * groups, row.biases, groups),
            None => from_zero(self.bits(), row.scales, row.biases),
        }
        Ok(())
    }
}

/// The biases with which codes of `bits` bits count from their middle.
fn from_zero(bits: usize, scales: &[f32], biases: &mut [f32]) {
    let zero = if bits == 4 { 8.0 } else { 128.0 };
    for (bias, scale) in biases.iter_mut().zip(scales) {
        *bias = -zero * scale;
    }
}

/// Rows of floats, quantised as they are read. A row with a number that is not finite, or too large
/// for a scale of float16, is [`ErrorKind::Option`](crate::ErrorKind::Option) naming `weight`.
#[derive(Debug)]
pub struct Quantiser<'a> {
    weight: Data<'a>,
    to: Quantisation,
    /// A row.
    values: Vec<f32>,
}

impl<'a> Quantiser<'a> {
    /// The rows of `weight`, `[outputs, inputs]`.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) naming `weight`: other axes, elements that do
    /// not fill it, or `inputs` that are no multiple of 32; [`Error::out_of_memory`].
    pub fn new(weight: &Tensor<'a>, to: Quantisation) -> Result<Self, Error> {
        let [_, inputs] = check_weight(weight)?;
        check_inputs(inputs)?;
        Ok(Self {
            weight: weight.data,
            to,
            values: try_zeroed(inputs)?,
        })
    }
}

impl Quantisation {
    /// Bits of a code.
    #[must_use]
    pub fn bits(self) -> usize {
        match self {
            Self::Q8_0 => 8,
            Self::Q4_0 | Self::Q4_1 => 4,
        }
    }
}

impl CodedRows for Quantiser<'_> {
    fn bits(&self) -> usize {
        self.to.bits()
    }

    fn bf16(&self) -> bool {
        false
    }

    fn read(&mut self, index: usize, row: CodedRow<'_>) -> Result<(), Error> {
        self.weight
            .widen(index * self.values.len(), &mut self.values);
        let blocks = self.values.as_chunks::<BLOCK>().0;
        let codes = row.codes.as_chunks_mut::<BLOCK>().0;
        let numbers = row.scales.iter_mut().zip(row.biases.iter_mut());
        for ((values, codes), (scale, bias)) in blocks.iter().zip(codes).zip(numbers) {
            let stored = match self.to {
                Quantisation::Q8_0 => q8_0(values, codes),
                Quantisation::Q4_0 => q4_0(values, codes),
                Quantisation::Q4_1 => q4_1(values, codes),
            };
            // Of a NaN every comparison is false.
            let finite = values.iter().all(|value| value.is_finite());
            if !finite
                || stored
                    .iter()
                    .any(|number| f16::from_f32(*number).is_infinite())
            {
                return Err(Error::option(
                    "weight",
                    "finite numbers whose scales float16 holds, to be quantised",
                    format_args!("others in row {index}"),
                ));
            }
            [*scale, *bias] = stored.map(|number| f16::from_f32(number).to_f32());
        }
        if self.to != Quantisation::Q4_1 {
            from_zero(self.bits(), row.scales, row.biases);
        }
        Ok(())
    }
}

/// The reciprocal, rounded to float32; zero of zero, and of what float16 rounds to zero anyway.
fn inverse(scale: f32) -> f32 {
    let inverse = 1.0 / scale;
    if inverse.is_finite() { inverse } else { 0.0 }
}

/// Codes, counted from 128; gives the scale.
fn q8_0(values: &[f32; BLOCK], codes: &mut [u8; BLOCK]) -> [f32; 2] {
    /// Below ½ by one unit: what is added before the fraction is dropped, so that a half goes away
    /// from zero and what is less does not.
    const HALF: f32 = 0.5 - f32::EPSILON / 4.0;
    let largest = values.iter().fold(0.0, |most: f32, x| most.max(x.abs()));
    let scale = largest / 127.0;
    let inverse = inverse(scale);
    for (code, x) in codes.iter_mut().zip(values) {
        let steps = x * inverse;
        *code = (steps + HALF.copysign(steps)) as i8 as u8 ^ 128;
    }
    [scale, 0.0]
}

/// Codes; gives the scale.
fn q4_0(values: &[f32; BLOCK], codes: &mut [u8; BLOCK]) -> [f32; 2] {
    let first_largest = |most: f32, &x: &f32| if x.abs() > most.abs() { x } else { most };
    let scale = values.iter().fold(0.0, first_largest) / -8.0;
    let inverse = inverse(scale);
    for (code, x) in codes.iter_mut().zip(values) {
        *code = ((x * inverse + 8.5) as u8).min(15);
    }
    [scale, 0.0]
}

/// Codes; gives the scale and the minimum.
fn q4_1(values: &[f32; BLOCK], codes: &mut [u8; BLOCK]) -> [f32; 2] {
    let least = values.iter().copied().fold(f32::INFINITY, f32::min);
    let most = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let scale = (most - least) / 15.0;
    let inverse = inverse(scale);
    for (code, x) in codes.iter_mut().zip(values) {
        *code = (((x - least) * inverse + 0.5) as u8).min(15);
    }
    [scale, least]
}
