//! RMS norm backward: what its rows are summed to, and the call. The walks are those of `rows`.

use super::call::{Factors, NormBackward, NormGradients};
use super::rows::{Row, RowNorm, RowScale, RowsBackward, row_backward};
use crate::error::Error;
use crate::norm::check_norm;
use crate::norm::group::normalise::Standardise;
use crate::norm::products::squares_and_products;
use crate::norm::rms::{RmsNormOptions, inverse_root};
use crate::simd::Vector;
use crate::tensor::Tensor;

/// Divides by the root mean square.
#[derive(Debug, Clone, Copy)]
pub struct Rms {
    eps: f32,
    scale: f32,
}

impl RowNorm for Rms {
    const CENTRES: bool = false;
    /// Σ x² and Σ g·x.
    type Sums = [f64; 2];

    #[inline(always)]
    fn sums<V: Vector>(self, Row { x, dy, weight }: Row<'_>) -> [f64; 2] {
        squares_and_products::<V::Wide>(x, dy, weight)
    }

    #[inline(always)]
    fn factors(self, [squares, products]: [f64; 2], width: usize) -> (Factors, RowScale) {
        let inverse = inverse_root(squares / width as f64, self.eps);
        let scale = RowScale {
            mean: 0.0,
            inverse: inverse.value(),
        };
        let standardise = Standardise {
            mean: 0.0,
            rest_of_mean: 0.0,
            inverse,
        };
        let means = [0.0, products * scale.inverse / width as f64];
        (Factors::new(standardise, means, self.scale), scale)
    }
}

/// dx of one row, and what it adds to the gradient of the weight before `scale`, where that is
/// wanted: of attention's norm per head. The same bits whatever `V`.
#[inline(always)]
pub(crate) fn rms_norm_row_backward<V: Vector>(
    [dy, x]: [&[f32]; 2],
    (weight, eps, scale): (Option<&[f32]>, f32, f32),
    dx: &mut [f32],
    products: Option<&mut [f64]>,
) {
    row_backward::<V, Rms>(Rms { eps, scale }, Row { x, dy, weight }, dx, products);
}

/// A checked call of [`rms_norm_backward`]: made by `new`.
pub type RmsNormBackward<'a> = NormBackward<RowsBackward<'a, Rms>>;

impl<'a> RmsNormBackward<'a> {
    /// Checks everything and allocates no scratch yet. `x` has any rank of 1 or more, `dy` is as x
    /// is, and the options are those of the forward call.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape), [`ErrorKind::Dtype`](crate::ErrorKind::Dtype)
    /// or [`ErrorKind::Option`](crate::ErrorKind::Option), naming the argument.
    pub fn new(dy: Tensor<'a>, x: Tensor<'a>, options: &RmsNormOptions<'a>) -> Result<Self, Error> {
        let &RmsNormOptions {
            eps,
            weight,
            scale,
            run,
        } = options;
        let norm = Rms { eps, scale };
        let operator = RowsBackward::new(&dy, &x, (weight, scale), norm, run)?;
        check_norm(eps, operator.width(), [("weight", weight), ("bias", None)])?;
        Ok(Self::of(
            operator,
            x.shape,
            [weight.map(<[f32]>::len), None],
        ))
    }
}

/// Gradients of [`rms_norm`](crate::rms_norm) over the last axis (arXiv 1910.07467) for `dy`, the
/// gradient of its result: with x̂ = x/r and g = weight ∘ dy · scale, r = √(mean(x²) + eps), dx is
/// `(g − x̂ · mean(g ∘ x̂)) / r` and dweight `Σ dy ∘ x̂ · scale` over the rows, which takes strips
/// of 128 rows, each from zero, in float64. A row of zeros has a dx of zeros when eps is 0, and
/// adds zero to dweight; a row with NaN or an infinite value has a dx of NaN, and makes dweight
/// NaN.
///
/// ```
/// use diffattn::{RmsNormOptions, Tensor, rms_norm_backward};
///
/// let weight = Some(&[1.0, 1.0][..]);
/// let options = RmsNormOptions { eps: 0.0, weight, ..RmsNormOptions::default() };
/// let (dy, x) = ([1.0, 0.0], [2.0, 2.0]);
/// let gradients = rms_norm_backward(Tensor::f32(&dy, &[2]), Tensor::f32(&x, &[2]), &options)?;
/// assert_eq!(gradients.dx, [0.25, -0.25]);
/// assert_eq!(gradients.dweight, Some(vec![1.0, 0.0]));
/// # Ok::<(), diffattn::Error>(())
/// ```
///
/// # Errors
/// [`ErrorKind::Shape`](crate::ErrorKind::Shape), [`ErrorKind::Dtype`](crate::ErrorKind::Dtype) or
/// [`ErrorKind::Option`](crate::ErrorKind::Option) for arguments that do not fit;
/// [`Error::out_of_memory`] when memory is refused.
pub fn rms_norm_backward(
    dy: Tensor<'_>,
    x: Tensor<'_>,
    options: &RmsNormOptions<'_>,
) -> Result<NormGradients, Error> {
    RmsNormBackward::new(dy, x, options)?.finish()
}
