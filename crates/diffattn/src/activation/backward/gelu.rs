//! GELU backward, exact (by erf) and in its form by tanh. In float64, as the forward function;
//! nothing fuses, so every instruction set gives the same bits.

use super::pointwise::{self, Pointwise, store, vectors};
use crate::activation::gelu::{slope, slope_by_tanh};
use crate::error::Error;
use crate::run::Run;
use crate::run::work::Pace;
use crate::simd::Wide;
use crate::tensor::call::{Call, Operator};
use crate::tensor::gradients::check_gradient;
use crate::tensor::output::Output;
use crate::tensor::{Data, Tensor};

/// A checked call of [`gelu_backward`], made by `new`, or of [`gelu_tanh_backward`], by `by_tanh`.
pub type GeluBackward<'a> = Call<GeluBackwardOperator<'a>>;

/// What the call is made on.
#[derive(Debug, Clone, Copy)]
pub struct GeluBackwardOperator<'a> {
    dy: Data<'a>,
    x: Data<'a>,
    is_by_tanh: bool,
    run: Run,
}

/// dy times the slope at x.
#[derive(Debug, Clone, Copy)]
struct Slope<const IS_BY_TANH: bool>;

impl<const IS_BY_TANH: bool> Pointwise<2, 1> for Slope<IS_BY_TANH> {
    const COST: usize = 8;

    #[inline(always)]
    unsafe fn map<W: Wide>(self, [dy, x]: [*const f32; 2], [dx]: [*mut f32; 1]) {
        // SAFETY: (all of it) the caller's promise.
        let (dy, x) = unsafe { (vectors::<W>(dy), vectors::<W>(x)) };
        let mut gradient = match IS_BY_TANH {
            true => slope_by_tanh(x),
            false => slope(x),
        };
        for (gradient, dy) in gradient.iter_mut().zip(dy) {
            *gradient = dy.mul(*gradient);
        }
        // SAFETY: as above.
        unsafe { store(gradient, dx) };
    }
}

impl<'a> GeluBackward<'a> {
    /// Checks everything. `dy` and `x` have one shape, of any rank, and one element type.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) or
    /// [`ErrorKind::Dtype`](crate::ErrorKind::Dtype), naming the argument.
    pub fn new(dy: Tensor<'a>, x: Tensor<'a>, run: Run) -> Result<Self, Error> {
        Self::of_form(dy, x, false, run)
    }

    /// Checks everything for [`gelu_tanh_backward`]. `dy` and `x` have one shape, of any rank, and
    /// one element type.
    ///
    /// # Errors
    /// As [`GeluBackward::new`].
    pub fn by_tanh(dy: Tensor<'a>, x: Tensor<'a>, run: Run) -> Result<Self, Error> {
        Self::of_form(dy, x, true, run)
    }

    fn of_form(dy: Tensor<'a>, x: Tensor<'a>, is_by_tanh: bool, run: Run) -> Result<Self, Error> {
        check_gradient(&dy, ("x", &x))?;
        let operator = GeluBackwardOperator {
            dy: dy.data,
            x: x.data,
            is_by_tanh,
            run,
        };
        Ok(Self::of_gradient(operator, x.shape))
    }
}

impl Operator for GeluBackwardOperator<'_> {
    fn units(&self) -> usize {
        pointwise::units(self.x.len())
    }

    async fn work(&self, pace: &Pace, output: &Output<'_>) -> Result<(), Error> {
        let operands = [self.dy, self.x];
        match self.is_by_tanh {
            true => pointwise::work(Slope::<true>, self.run, pace, operands, [output]).await,
            false => pointwise::work(Slope::<false>, self.run, pace, operands, [output]).await,
        }
    }
}

/// The gradient of [`gelu`](crate::gelu)'s x for `dy`, the gradient of its result: `dy · (Φ(x) + x
/// · φ(x))`, Φ and φ the normal distribution's function and density (arXiv 1606.08415), rounded
/// once: 0 and dy at −∞ and ∞, NaN for NaN. Every instruction set gives the same bits.
///
/// ```
/// use diffattn::{Run, Tensor, gelu_backward};
///
/// let (dy, x) = ([2.0, 3.0], [0.0, f32::INFINITY]);
/// let dx = gelu_backward(Tensor::f32(&dy, &[2]), Tensor::f32(&x, &[2]), Run::default())?;
/// assert_eq!(dx, [1.0, 3.0]);
/// # Ok::<(), diffattn::Error>(())
/// ```
///
/// # Errors
/// [`ErrorKind::Shape`](crate::ErrorKind::Shape) or [`ErrorKind::Dtype`](crate::ErrorKind::Dtype)
/// for tensors that do not fit; [`Error::out_of_memory`] when memory is refused.
pub fn gelu_backward(dy: Tensor<'_>, x: Tensor<'_>, run: Run) -> Result<Vec<f32>, Error> {
    GeluBackward::new(dy, x, run)?.finish_f32()
}

/// The gradient of [`gelu_tanh`](crate::gelu_tanh)'s x for `dy`, the gradient of its result: dy
/// times the slope of `x / 2 · (1 + tanh(√(2/π) · (x + 0.044715 · x³)))`, rounded once: 0 and dy at
/// −∞ and ∞, NaN for NaN. Every instruction set gives the same bits.
///
/// ```
/// use diffattn::{Run, Tensor, gelu_tanh_backward};
///
/// let (dy, x) = ([2.0, 3.0], [0.0, f32::INFINITY]);
/// let dx = gelu_tanh_backward(Tensor::f32(&dy, &[2]), Tensor::f32(&x, &[2]), Run::default())?;
/// assert_eq!(dx, [1.0, 3.0]);
/// # Ok::<(), diffattn::Error>(())
/// ```
///
/// # Errors
/// As [`gelu_backward`].
pub fn gelu_tanh_backward(dy: Tensor<'_>, x: Tensor<'_>, run: Run) -> Result<Vec<f32>, Error> {
    GeluBackward::by_tanh(dy, x, run)?.finish_f32()
}
