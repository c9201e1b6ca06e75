//! Layer norm backward: what its rows are summed to, and the call. The walks are those of `rows`.

use super::call::{Factors, NormBackward, NormGradients};
use super::rows::{Row, RowNorm, RowScale, RowsBackward};
use crate::error::Error;
use crate::norm::check_norm;
use crate::norm::group::moments::Moments;
use crate::norm::group::normalise::Standardise;
use crate::norm::layer::{LayerNormOptions, row_moments};
use crate::norm::products::sum_and_products;
use crate::simd::Vector;
use crate::tensor::Tensor;

/// Takes the mean of a row away, and divides by its spread.
#[derive(Debug, Clone, Copy)]
pub struct Layer {
    eps: f32,
}

/// What the values of a row are summed to.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LayerSums {
    moments: Moments,
    /// Σ g and Σ g·(x − mean).
    products: [f64; 2],
}

impl RowNorm for Layer {
    const CENTRES: bool = true;
    type Sums = LayerSums;

    #[inline(always)]
    fn sums<V: Vector>(self, Row { x, dy, weight }: Row<'_>) -> LayerSums {
        let moments = row_moments::<V>(x);
        LayerSums {
            moments,
            products: sum_and_products::<V::Wide>(x, moments.mean(), dy, weight),
        }
    }

    #[inline(always)]
    fn factors(self, sums: LayerSums, width: usize) -> (Factors, RowScale) {
        let LayerSums { moments, products } = sums;
        let standardise = Standardise::new(moments, self.eps);
        let scale = RowScale {
            mean: moments.mean(),
            inverse: standardise.inverse.value(),
        };
        let [gradients, products] = products.map(|sum| sum / width as f64);
        let means = [gradients, products * scale.inverse];
        (Factors::new(standardise, means, 1.0), scale)
    }
}

/// A checked call of [`layer_norm_backward`]: made by `new`.
pub type LayerNormBackward<'a> = NormBackward<RowsBackward<'a, Layer>>;

impl<'a> LayerNormBackward<'a> {
    /// Checks everything and allocates no scratch yet. `x` has any rank of 1 or more, `dy` is as x
    /// is, and the options are those of the forward call; of the bias only its length counts.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape), [`ErrorKind::Dtype`](crate::ErrorKind::Dtype)
    /// or [`ErrorKind::Option`](crate::ErrorKind::Option), naming the argument.
    pub fn new(
        dy: Tensor<'a>,
        x: Tensor<'a>,
        options: &LayerNormOptions<'a>,
    ) -> Result<Self, Error> {
        let &LayerNormOptions {
            weight,
            bias,
            eps,
            run,
        } = options;
        let operator = RowsBackward::new(&dy, &x, (weight, 1.0), Layer { eps }, run)?;
        check_norm(eps, operator.width(), [("weight", weight), ("bias", bias)])?;
        let wanted = [weight, bias].map(|values| values.map(<[f32]>::len));
        Ok(Self::of(operator, x.shape, wanted))
    }
}

/// Gradients of [`layer_norm`](crate::layer_norm) over the last axis (arXiv 1607.06450) for `dy`,
/// the gradient of its result: with x̂ = (x − mean)/σ, σ = √(variance + eps), and g = weight ∘ dy,
/// dx is `(g − mean(g) − x̂ · mean(g ∘ x̂)) / σ`, dweight `Σ dy ∘ x̂` and dbias `Σ dy` over the
/// rows, which take strips of 128 rows, each from zero, in float64. A row of equal values has a dx
/// of zeros when eps is 0, and adds zero to dweight; a row of x with NaN or an infinite value has a
/// dx of NaN, and makes dweight NaN. Halves are taken as well as float32.
///
/// ```
/// use diffattn::{LayerNormOptions, Tensor, layer_norm_backward};
///
/// let bias = Some(&[0.0; 4][..]);
/// let options = LayerNormOptions { eps: 0.0, bias, ..LayerNormOptions::default() };
/// let (dy, x) = ([4.0, 0.0, 0.0, 0.0], [1.0, 3.0, 1.0, 3.0]);
/// let gradients = layer_norm_backward(Tensor::f32(&dy, &[4]), Tensor::f32(&x, &[4]), &options)?;
/// assert_eq!(gradients.dx, [2.0, 0.0, -2.0, 0.0]);
/// assert_eq!((gradients.dweight, gradients.dbias), (None, Some(dy.to_vec())));
/// # Ok::<(), diffattn::Error>(())
/// ```
///
/// # Errors
/// [`ErrorKind::Shape`](crate::ErrorKind::Shape), [`ErrorKind::Dtype`](crate::ErrorKind::Dtype) or
/// [`ErrorKind::Option`](crate::ErrorKind::Option) for arguments that do not fit;
/// [`Error::out_of_memory`] when memory is refused.
pub fn layer_norm_backward(
    dy: Tensor<'_>,
    x: Tensor<'_>,
    options: &LayerNormOptions<'_>,
) -> Result<NormGradients, Error> {
    LayerNormBackward::new(dy, x, options)?.finish()
}
