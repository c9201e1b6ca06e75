//! RMS norm over the last axis. Rows go in blocks that stay in L1, in three steps: all sums, all spreads, all results.
//! So the roots and divisions of a block, which each row alone would wait for, overlap.

use std::marker::PhantomData;

use super::write::{is_backward, is_streamed, write};
use super::{InverseSpread, check_norm, lanes};
use crate::error::Error;
use crate::run::Run;
use crate::run::buffer::try_zeroed;
use crate::run::slices::Slices;
use crate::run::units::{UNIT, Units};
use crate::simd::{Isa, Kernel, Vector};
use crate::tensor::output::Output;
use crate::tensor::shape::{check_len, format_shape};
use crate::tensor::{DType, Data, DataMut, Tensor};

/// Elements per block of rows (8 KiB of float32, and as much again of results, stay in L1), unless one row is longer.
const BLOCK: usize = 1 << 11;

/// Rows per block at most.
const BLOCK_ROWS: usize = 16;

/// Options of [`rms_norm`].
#[derive(Debug, Clone)]
pub struct RmsNormOptions<'a> {
    /// Added to the mean square; 1e-5 by default.
    pub eps: f32,
    /// One factor per element of the last axis.
    pub weight: Option<&'a [f32]>,
    /// A factor on the result; 1 by default.
    pub scale: f32,
    /// How the call runs: instruction set, threads, fused or not.
    pub run: Run,
}

impl Default for RmsNormOptions<'_> {
    fn default() -> Self {
        Self {
            eps: 1e-5,
            weight: None,
            scale: 1.0,
            run: Run::default(),
        }
    }
}

/// A checked call of [`rms_norm`]: made by [`RmsNorm::new`], given its output by [`RmsNorm::bind`], worked off
/// by [`Slices::step`].
#[derive(Debug)]
pub struct RmsNorm<'a> {
    x: Data<'a>,
    shape: Vec<usize>,
    width: usize,
    rows: usize,
    unit_rows: usize,
    eps: f32,
    weight: Option<&'a [f32]>,
    scale: f32,
    isa: Isa,
    output: Option<Output>,
    /// A block of x and one of y per thread; empty where both are float32 themselves.
    units: Units<[Vec<f32>; 2]>,
    borrow: PhantomData<&'a mut [f32]>,
}

impl<'a> RmsNorm<'a> {
    /// Checks everything and allocates no scratch yet. `x` has any rank of 1 or more.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) or [`ErrorKind::Option`](crate::ErrorKind::Option), naming the argument.
    pub fn new(x: Tensor<'a>, options: &RmsNormOptions<'a>) -> Result<Self, Error> {
        let len = check_len("x", &x.shape, x.data.len())?;
        let Some(&width) = x.shape.last() else {
            return Err(Error::shape("x", "1 axis or more", format_shape(&x.shape)));
        };
        check_norm(
            options.eps,
            width,
            [("weight", options.weight), ("bias", None)],
        )?;
        // Without elements there are no rows, whatever the width.
        let rows = len.checked_div(width).unwrap_or(0);
        let unit_rows = UNIT.checked_div(width).unwrap_or(1).max(1);
        Ok(Self {
            x: x.data,
            shape: x.shape,
            width,
            rows,
            unit_rows,
            eps: options.eps,
            weight: options.weight,
            scale: options.scale,
            isa: options.run.isa(),
            output: None,
            units: Units::new(
                options.run.threads(),
                rows.div_ceil(unit_rows),
                unit_rows * width,
            )?,
            borrow: PhantomData,
        })
    }

    /// The result's shape: x's.
    #[must_use]
    pub fn output_shape(&self) -> &[usize] {
        &self.shape
    }

    /// The result's element type: x's.
    #[must_use]
    pub fn output_dtype(&self) -> DType {
        self.x.dtype()
    }

    /// Gives the output.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) or [`ErrorKind::Dtype`](crate::ErrorKind::Dtype) when it does not fit.
    pub fn bind(&mut self, out: DataMut<'a>) -> Result<(), Error> {
        self.output = Some(Output::bind(out, self.x.dtype(), &self.shape)?);
        Ok(())
    }
}

impl Slices for RmsNorm<'_> {
    fn total(&self) -> usize {
        self.units.total()
    }

    fn done(&self) -> usize {
        self.units.done()
    }

    fn step(&mut self, count: usize) -> Result<(), Error> {
        let output = Output::bound(self.output)?;
        let Self {
            x,
            width,
            rows,
            unit_rows,
            eps,
            weight,
            scale,
            isa,
            ..
        } = *self;
        let block_rows = (BLOCK / width.max(1)).clamp(1, BLOCK_ROWS);
        let is_streamed = is_streamed(output, x.len(), width);
        let make_scratch = || {
            let widened = if x.dtype() == DType::F32 {
                0
            } else {
                block_rows * width
            };
            Ok([try_zeroed(widened)?, try_zeroed(widened)?])
        };
        self.units
            .step(count, usize::MAX, make_scratch, |scratch, unit| {
                let first = unit * unit_rows;
                let rows = first..(first + unit_rows).min(rows);
                isa.run(
                    true,
                    Rows {
                        x,
                        rows,
                        width,
                        block_rows,
                        is_streamed,
                        weight,
                        eps,
                        scale,
                        output,
                        scratch,
                    },
                );
            })
    }
}

/// Some rows of a call.
struct Rows<'u> {
    x: Data<'u>,
    rows: std::ops::Range<usize>,
    width: usize,
    block_rows: usize,
    is_streamed: bool,
    weight: Option<&'u [f32]>,
    eps: f32,
    scale: f32,
    output: Output,
    scratch: &'u mut [Vec<f32>; 2],
}

impl Kernel for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self {
            x,
            rows,
            width,
            block_rows,
            is_streamed,
            weight,
            eps,
            scale,
            output,
            scratch,
        } = self;
        let [wide_x, wide_y] = scratch;
        for row in rows.clone().step_by(block_rows) {
            let first = row * width;
            let len = block_rows.min(rows.end - row) * width;
            let x = match x {
                Data::F32(x) => &x[first..first + len],
                Data::F16(_) | Data::Bf16(_) => {
                    x.widen(first, &mut wide_x[..len]);
                    &wide_x[..len]
                }
            };
            let mut squares = [0.0; BLOCK_ROWS];
            for (row, squares) in x.chunks_exact(width).zip(&mut squares) {
                *squares = lanes::sum_squares::<V::Wide>(row);
            }
            let mut by_row = [[0.0; 2]; BLOCK_ROWS];
            for (factors, squares) in by_row.iter_mut().zip(squares) {
                *factors = spread_factors(squares / width as f64, eps, scale);
            }
            // SAFETY: `bind` checked that the output has all rows, and borrowed it; each row is one unit's.
            let direct = unsafe { output.at(first, len) };
            let is_narrow = direct.is_none();
            let y = direct.unwrap_or_else(|| &mut wide_y[..len]);
            let (is_backward, rows) = (is_backward(x, y), len / width);
            for i in 0..rows {
                let row = if is_backward { rows - 1 - i } else { i };
                let range = row * width..(row + 1) * width;
                let (x, y) = (&x[range.clone()], &mut y[range]);
                let factors = by_row[row];
                if is_streamed && V::STREAMS {
                    scale_row::<V, true>(x, y, weight, factors, is_backward, len);
                } else {
                    scale_row::<V, false>(x, y, weight, factors, is_backward, len);
                }
            }
            if is_narrow {
                // SAFETY: as above.
                unsafe { output.narrow(first, y) };
            }
        }
        if is_streamed {
            V::fence();
        }
    }
}

/// What x is multiplied with, one after the other, `scale` included.
#[inline(always)]
fn spread_factors(mean_square: f64, eps: f32, scale: f32) -> [f32; 2] {
    // The square of no finite float32 overflows float64.
    let spread = if mean_square == f64::INFINITY {
        f64::NAN
    } else {
        (mean_square + f64::from(eps)).sqrt()
    };
    let inverse = InverseSpread::of(spread);
    [inverse.power, (inverse.rest * f64::from(scale)) as f32]
}

/// `y = x · power · rest · weight`. If `STREAM`, the row `ahead` elements further on is asked for.
#[inline(always)]
fn scale_row<V: Vector, const STREAM: bool>(
    x: &[f32],
    y: &mut [f32],
    weight: Option<&[f32]>,
    [power, rest]: [f32; 2],
    is_backward: bool,
    ahead: usize,
) {
    debug_assert!(x.len() == y.len() && weight.is_none_or(|weight| weight.len() == x.len()));
    let ahead = x.as_ptr().wrapping_add(ahead);
    let done = write::<V, STREAM>(y, is_backward, ahead, |at| {
        // SAFETY: `write` gives vectors of y, and x and the weights are as long.
        let load = |values: &[f32]| unsafe { V::load(values.as_ptr().add(at)) };
        let y = load(x).mul(V::splat(power)).mul(V::splat(rest));
        weight.map_or(y, |weight| y.mul(load(weight)))
    });
    for i in done..y.len() {
        y[i] = x[i] * power * rest;
        if let Some(weight) = weight {
            y[i] *= weight[i];
        }
    }
}

/// `x / √(mean(x²) + eps) · scale · weight` of one row, in place. A row of zeros stays zeros when eps is 0; a row
/// with an infinite value becomes NaN. The same bits whatever `V`: it names the instructions, not the order.
#[inline(always)]
pub(crate) fn rms_norm_row<V: Vector>(
    row: &mut [f32],
    weight: Option<&[f32]>,
    eps: f32,
    scale: f32,
) {
    let squares = lanes::sum_squares::<V::Wide>(row);
    let [power, rest] = spread_factors(squares / row.len() as f64, eps, scale);
    match weight {
        None => row.iter_mut().for_each(|x| *x = *x * power * rest),
        Some(weight) => row
            .iter_mut()
            .zip(weight)
            .for_each(|(x, weight)| *x = *x * power * rest * weight),
    }
}

/// RMS norm of a float32 tensor over its last axis: `x / √(mean(x²) + eps) · scale · weight` (arXiv 1910.07467),
/// in x's shape.
///
/// ```
/// use diffattn::{RmsNormOptions, Tensor, rms_norm};
///
/// let options = RmsNormOptions { eps: 0.0, ..RmsNormOptions::default() };
/// assert_eq!(rms_norm(Tensor::f32(&[2.0, -2.0], &[1, 2]), &options)?, [1.0, -1.0]);
/// # Ok::<(), diffattn::Error>(())
/// ```
///
/// # Errors
/// [`ErrorKind::Shape`](crate::ErrorKind::Shape), [`ErrorKind::Dtype`](crate::ErrorKind::Dtype) or [`ErrorKind::Option`](crate::ErrorKind::Option) for arguments that do not fit (halves need
/// [`RmsNorm`]); [`Error::OutOfMemory`] when memory is refused.
pub fn rms_norm(x: Tensor<'_>, options: &RmsNormOptions<'_>) -> Result<Vec<f32>, Error> {
    let mut call = RmsNorm::new(x, options)?;
    let mut out = try_zeroed(call.x.len())?;
    call.bind(DataMut::F32(&mut out))?;
    call.finish()?;
    Ok(out)
}
