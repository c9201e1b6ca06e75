//! `y = x Wᵀ + b`, the projection of layers, on the register tile of attention. The crate's own
//! product, so that a row of a layer keeps its bits whatever stands beside it: a row's sums run
//! over the input channels in one fixed order, in strips of 128 from zero, added in order.
//! Halves stay halves, so that one row, which is bound by reading them, takes half the time; so do
//! codes, whose products are of integers. Knows nothing of layers.
//!
//! Measured against the `gemm` crate 0.19 with its AVX-512 kernels, one thread of a Zen 5 (inputs ×
//! outputs × rows, GFLOP/s ours : gemm): 256×256×214 220 : 228, 1024×1024×512 244 : 187, ×8 rows
//! 239 : 10, ×1 row 49 : 53; and half the error at 1024 inputs.

mod backward;
mod call;
mod coded;
mod format;
mod pack;
mod pack_coded;
mod panels;
mod product;
mod quantised;
mod rows;
mod strip;
mod turned;
mod weight_gradient;

#[cfg(test)]
mod tests;

pub use self::backward::{LinearBackward, LinearGradients, linear_backward};
pub use self::quantised::{
    CodedRow, CodedRows, Codes, Quantisation, Quantised, Quantiser, coded_values,
};

use self::panels::{Panels, with_format};
use self::product::{Float, Forward, Met, Product};
use self::quantised::{check_inputs, check_weight};
use self::rows::Rows;
use crate::error::Error;
use crate::run::Run;
use crate::run::buffer::try_zeroed;
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

    /// The map `dx = dy W` of a weight `[outputs, inputs]`: its transpose packed, so that rows of
    /// `outputs` channels become rows of `inputs`. [`linear_backward`] needs none, and gives its
    /// bits; it saves turning panels in each call, for the memory of a second weight.
    ///
    /// # Errors
    /// As [`Linear::new`].
    pub fn pack_transposed(weight: &Tensor<'_>) -> Result<Self, Error> {
        let [outputs, inputs] = check_weight(weight)?;
        let shape = [inputs, outputs];
        Self::of(Panels::transposed(weight.data, shape)?, shape, None)
    }

    /// Packs `weight` `[outputs, inputs]` over the one before, and copies `bias` over that one:
    /// what follows an optimiser's step. Takes no memory.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) or
    /// [`ErrorKind::Dtype`](crate::ErrorKind::Dtype) naming `weight` or `bias` where they are not
    /// as they were, a bias that there was none of or is none of now included.
    pub fn repack(&mut self, weight: &Tensor<'_>, bias: Option<&Tensor<'_>>) -> Result<(), Error> {
        self.check_repack(weight, [self.outputs, self.inputs])?;
        if bias.is_some() != self.bias.is_some() {
            let word = |is_some| if is_some { "a bias" } else { "none" };
            return Err(Error::shape(
                "bias",
                format_args!("{}, as before", word(self.bias.is_some())),
                word(bias.is_some()),
            ));
        }
        if let (Some(bias), Some(to)) = (bias, &mut self.bias) {
            check_bias(bias, self.outputs)?;
            bias.data.widen(0, to);
        }
        self.write(weight, false)
    }

    /// [`Linear::repack`] of a map that [`Linear::pack_transposed`] made, `weight` as there.
    ///
    /// # Errors
    /// As [`Linear::repack`].
    pub fn repack_transposed(&mut self, weight: &Tensor<'_>) -> Result<(), Error> {
        self.check_repack(weight, [self.inputs, self.outputs])?;
        self.write(weight, true)
    }

    fn check_repack(&self, weight: &Tensor<'_>, expected: [usize; 2]) -> Result<(), Error> {
        if check_weight(weight)? != expected {
            return Err(Error::shape(
                "weight",
                format_args!("shape {}", format_shape(&expected)),
                format_shape(&weight.shape),
            ));
        }
        let (held, dtype) = (self.weight.name(), weight.data.dtype().name());
        if held != dtype {
            return Err(Error::dtype(
                "weight",
                format_args!("{held}, as before"),
                dtype,
            ));
        }
        Ok(())
    }

    fn write(&mut self, weight: &Tensor<'_>, is_transposed: bool) -> Result<(), Error> {
        let shape = [self.outputs, self.inputs];
        if self.weight.repack(weight.data, shape, is_transposed) {
            Ok(())
        } else {
            Err(Error::internal("a weight was repacked in another format"))
        }
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
            check_bias(bias, outputs)?;
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

    /// A and B of the low-rank difference, where there is one.
    #[must_use]
    pub fn low_rank(&self) -> Option<&[Self; 2]> {
        self.low_rank.as_deref()
    }

    /// A and B of the low-rank difference to write to, where there is one: what training moves.
    pub fn low_rank_mut(&mut self) -> Option<&mut [Self; 2]> {
        self.low_rank.as_deref_mut()
    }

    /// The bias, one value per output channel, where there is one.
    #[must_use]
    pub fn bias(&self) -> Option<&[f32]> {
        self.bias.as_deref()
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
        self.map(Forward, x, y, run)
    }

    /// [`Linear::forward`] of x as it is, whatever the weight's format: what training through a
    /// frozen quantised weight maps by, whose gradients are those of its float32 values. The same
    /// as [`Linear::forward`] where the weight is of floats.
    ///
    /// # Errors
    /// As [`Linear::forward`].
    pub fn forward_float(&self, x: &[f32], y: &mut [f32], run: Run) -> Result<(), Error> {
        if with_format!(&self.weight, weight => weight.rows()) == Rows::Float {
            self.map(Forward, x, y, run)
        } else {
            self.map(Float, x, y, run)
        }
    }

    fn map<W: Met>(&self, way: W, x: &[f32], y: &mut [f32], run: Run) -> Result<(), Error> {
        let rows = x
            .len()
            .checked_div(self.inputs)
            .unwrap_or(y.len() / self.outputs.max(1));
        check_len("x", &[rows, self.inputs], x.len())?;
        check_len("y", &[rows, self.outputs], y.len())?;
        if rows == 0 || self.outputs == 0 {
            return Ok(());
        }
        let product = Product {
            weight: &self.weight,
            way,
            shape: [self.outputs, self.inputs],
            bias: self.bias.as_deref(),
            adds: false,
        };
        product.run(rows, x, y, run)?;
        let Some(low_rank) = &self.low_rank else {
            return Ok(());
        };
        let [lora_a, lora_b] = &**low_rank;
        let mut thin = try_zeroed(rows * lora_a.outputs)?;
        lora_a.map(way, x, &mut thin, run)?;
        let mut added = try_zeroed(y.len())?;
        lora_b.map(way, &thin, &mut added, run)?;
        for (y, added) in y.iter_mut().zip(&added) {
            *y += added;
        }
        Ok(())
    }
}

/// Refuses a bias that is not `[outputs]`.
fn check_bias(bias: &Tensor<'_>, outputs: usize) -> Result<(), Error> {
    if bias.shape != [outputs] {
        return Err(Error::shape(
            "bias",
            format_args!("shape [{outputs}]"),
            format_shape(&bias.shape),
        ));
    }
    check_len("bias", &bias.shape, bias.data.len())?;
    Ok(())
}
