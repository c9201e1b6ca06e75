//! RMS norm over the last axis. Rows go in blocks that stay in L1, in three steps: all sums, all
//! spreads, all results. So the roots and divisions of a block, which each row alone would wait
//! for, overlap.

use std::ops::Range;

use super::spread::InverseSpread;
use super::write::{Place, Results, is_backward, is_streamed, write};
use super::{check_norm, lanes};
use crate::blocks::norm::{BLOCK_ROWS, ROWS_BLOCK, UNIT};
use crate::error::Error;
use crate::run::Run;
use crate::run::units::Units;
use crate::run::work::Pace;
use crate::simd::{Kernel, Vector};
use crate::tensor::call::{Call, Operator};
use crate::tensor::output::Output;
use crate::tensor::shape::{check_len, format_shape};
use crate::tensor::{Data, Tensor};

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

/// A checked call of [`rms_norm`]: made by `new`.
pub type RmsNorm<'a> = Call<RmsNormOperator<'a>>;

/// What the call is made on.
#[derive(Debug, Clone, Copy)]
pub struct RmsNormOperator<'a> {
    x: Data<'a>,
    rows: usize,
    width: usize,
    weight: Option<&'a [f32]>,
    eps: f32,
    scale: f32,
    run: Run,
}

impl<'a> RmsNorm<'a> {
    /// Checks everything and allocates no scratch yet. `x` has any rank of 1 or more.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) or
    /// [`ErrorKind::Option`](crate::ErrorKind::Option), naming the argument.
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
        let dtype = x.data.dtype();
        let operator = RmsNormOperator {
            x: x.data,
            // Without elements there are no rows, whatever the width.
            rows: len.checked_div(width).unwrap_or(0),
            width,
            weight: options.weight,
            eps: options.eps,
            scale: options.scale,
            run: options.run,
        };
        Ok(Self::of(operator, x.shape, dtype))
    }
}

impl Operator for RmsNormOperator<'_> {
    fn units(&self) -> usize {
        self.rows.div_ceil(self.unit_rows())
    }

    async fn work(&self, pace: &Pace, output: &Output<'_>) -> Result<(), Error> {
        let unit_rows = self.unit_rows();
        let is_streamed = is_streamed(output, self.width);
        let mut units = Units::new(self.run, unit_rows * self.width, || {
            self.x.wide(self.block_rows() * self.width)
        });
        let work = |scratch: &mut [Vec<f32>; 2], unit| {
            let first = unit * unit_rows;
            self.run.unfused_kernel(Rows {
                call: self,
                rows: first..(first + unit_rows).min(self.rows),
                is_streamed,
                output,
                scratch,
            });
        };
        units.paced(pace, 0..self.units(), &work).await
    }
}

impl RmsNormOperator<'_> {
    fn unit_rows(&self) -> usize {
        UNIT.checked_div(self.width).unwrap_or(1).max(1)
    }

    fn block_rows(&self) -> usize {
        (ROWS_BLOCK / self.width.max(1)).clamp(1, BLOCK_ROWS)
    }
}

/// Some rows of a call.
struct Rows<'u> {
    call: &'u RmsNormOperator<'u>,
    rows: Range<usize>,
    is_streamed: bool,
    /// Has all rows, of which no other thread writes these.
    output: &'u Output<'u>,
    scratch: &'u mut [Vec<f32>; 2],
}

impl Kernel for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self {
            call,
            rows,
            is_streamed,
            output,
            scratch: [wide_x, wide_y],
        } = self;
        let &RmsNormOperator {
            x,
            width,
            weight,
            eps,
            scale,
            ..
        } = call;
        let block_rows = call.block_rows();
        for row in rows.clone().step_by(block_rows) {
            let elements = row * width..(row + block_rows.min(rows.end - row)) * width;
            let len = elements.len();
            let x = x.values(elements.clone(), wide_x);
            let mut squares = [0.0; BLOCK_ROWS];
            for (row, squares) in x.chunks_exact(width).zip(&mut squares) {
                *squares = lanes::sum_squares::<V::Wide>(row);
            }
            let mut by_row = [[0.0; 2]; BLOCK_ROWS];
            for (factors, squares) in by_row.iter_mut().zip(squares) {
                *factors = spread_factors(squares / width as f64, eps, scale);
            }
            // SAFETY: each row is one unit's.
            let y = unsafe { output.values(elements.clone(), wide_y) };
            let (is_backward, rows) = (is_backward(x, y), len / width);
            for i in 0..rows {
                let row = if is_backward { rows - 1 - i } else { i };
                let range = row * width..(row + 1) * width;
                let (x, y) = (&x[range.clone()], &mut y[range]);
                let ahead = x.as_ptr().wrapping_add(len);
                let scaled = ScaledRow {
                    x,
                    weight,
                    factors: by_row[row],
                };
                debug_assert!(weight.is_none_or(|weight| weight.len() == width));
                // SAFETY: (both) x and the weights are as long as y.
                unsafe {
                    if is_streamed && V::STREAMS {
                        write::<V, true, 1>(y, is_backward, [ahead], scaled);
                    } else {
                        write::<V, false, 1>(y, is_backward, [ahead], scaled);
                    }
                }
            }
            // SAFETY: as above.
            unsafe { output.finish(elements.start, y) };
        }
        if is_streamed {
            V::fence();
        }
    }
}

/// What x is multiplied with, one after the other, `scale` included.
#[inline(always)]
fn spread_factors(mean_square: f64, eps: f32, scale: f32) -> [f32; 2] {
    let inverse = inverse_root(mean_square, eps);
    [inverse.power, (inverse.rest * f64::from(scale)) as f32]
}

/// `1 / √(mean_square + eps)`, zero where that is no number, and NaN where a value was infinite.
#[inline(always)]
pub(super) fn inverse_root(mean_square: f64, eps: f32) -> InverseSpread {
    // The square of no finite float32 overflows float64.
    let spread = if mean_square == f64::INFINITY {
        f64::NAN
    } else {
        (mean_square + f64::from(eps)).sqrt()
    };
    InverseSpread::of(spread)
}

/// `x · power · rest · weight` of a row.
struct ScaledRow<'u> {
    x: &'u [f32],
    weight: Option<&'u [f32]>,
    /// power and rest
    factors: [f32; 2],
}

impl Results for ScaledRow<'_> {
    #[inline(always)]
    unsafe fn vector<V: Vector>(&self, at: Place) -> V {
        let [power, rest] = self.factors;
        // SAFETY: the caller's promise.
        let x = unsafe { V::load(at.of(self.x)) };
        let y = x.mul(V::splat(power)).mul(V::splat(rest));
        match self.weight {
            None => y,
            // SAFETY: as above.
            Some(weight) => y.mul(unsafe { V::load(at.of(weight)) }),
        }
    }

    #[inline(always)]
    unsafe fn one(&self, at: usize) -> f32 {
        let [power, rest] = self.factors;
        // SAFETY: the caller's promise.
        let y = unsafe { self.x.get_unchecked(at) } * power * rest;
        match self.weight {
            None => y,
            // SAFETY: as above.
            Some(weight) => y * unsafe { weight.get_unchecked(at) },
        }
    }
}

/// `x / √(mean(x²) + eps) · scale · weight` of one row, in place. A row of zeros stays zeros when
/// eps is 0; a row with an infinite value becomes NaN. The same bits whatever `V`: it names the
/// instructions, not the order.
#[inline(always)]
pub(crate) fn rms_norm_row<V: Vector>(
    row: &mut [f32],
    weight: Option<&[f32]>,
    eps: f32,
    scale: f32,
) {
    let squares = lanes::sum_squares::<V::Wide>(row);
    let row_len = row.len();
    let [power, rest] = spread_factors(squares / row_len as f64, eps, scale);
    let weight = weight.unwrap_or(&[]);
    let mut vectors = row.chunks_exact_mut(V::LANES);
    for (index, vector) in vectors.by_ref().enumerate() {
        let at = vector.as_mut_ptr();
        // SAFETY: `vector` has LANES values, and so many weights there are where there are any.
        unsafe {
            let mut y = V::load(at).mul(V::splat(power)).mul(V::splat(rest));
            if !weight.is_empty() {
                y = y.mul(V::load(weight[index * V::LANES..][..V::LANES].as_ptr()));
            }
            y.store(at);
        }
    }
    let tail = vectors.into_remainder();
    let first = row_len - tail.len();
    for (at, x) in tail.iter_mut().enumerate() {
        *x = *x * power * rest;
        if let Some(weight) = weight.get(first + at) {
            *x *= weight;
        }
    }
}

/// RMS norm of a float32 tensor over its last axis: `x / √(mean(x²) + eps) · scale · weight` (arXiv
/// 1910.07467), in x's shape.
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
/// [`ErrorKind::Shape`](crate::ErrorKind::Shape), [`ErrorKind::Dtype`](crate::ErrorKind::Dtype) or
/// [`ErrorKind::Option`](crate::ErrorKind::Option) for arguments that do not fit (halves need
/// [`RmsNorm`]); [`Error::out_of_memory`] when memory is refused.
pub fn rms_norm(x: Tensor<'_>, options: &RmsNormOptions<'_>) -> Result<Vec<f32>, Error> {
    RmsNorm::new(x, options)?.finish_f32()
}
