//! The norm of all gradients together, in float64, and the factor that clips it.

use crate::blocks::optimizer::{CHUNK, ELEMENT_WORK};
use crate::error::Error;
use crate::norm::sum_squares;
use crate::run::Run;
use crate::run::buffer::try_zeroed;
use crate::run::threads::{for_each_chunk, thread_count};
use crate::simd::{Kernel, Vector};

/// Σ g² of a chunk.
struct Squares<'c>(&'c [f32]);

impl Kernel for Squares<'_> {
    type Output = f64;

    #[inline(always)]
    fn run<V: Vector>(self) -> f64 {
        sum_squares::<V::Wide>(self.0)
    }
}

/// Values of a chunk of [`gradient_squares`].
pub const NORM_CHUNK: usize = CHUNK;

/// `√(Σ g²)` over all of `gradients`, in float64: squares of each tensor in chunks counted from its
/// beginning, the chunks' sums added in order. No bit depends on threads or the instruction set.
///
/// ```
/// let norm = diffattn::gradient_norm(&[&[3.0], &[0.0, 4.0]], diffattn::Run::default())?;
/// assert_eq!(norm, 5.0);
/// # Ok::<(), diffattn::Error>(())
/// ```
///
/// # Errors
/// [`Error::out_of_memory`].
pub fn gradient_norm(gradients: &[&[f32]], run: Run) -> Result<f64, Error> {
    let mut total = 0.0;
    for gradient in gradients {
        let sums = gradient_squares(gradient, run)?;
        total = sums.iter().fold(total, |total, sum| total + sum);
    }
    Ok(total.sqrt())
}

/// What [`gradient_norm`] adds up of a tensor: `Σ g²` of each chunk of [`NORM_CHUNK`] values, for
/// who has a part of the chunks only.
///
/// ```
/// let squares = diffattn::gradient_squares(&[3.0, 4.0], diffattn::Run::default())?;
/// assert_eq!(squares, [25.0]);
/// # Ok::<(), diffattn::Error>(())
/// ```
///
/// # Errors
/// [`Error::out_of_memory`].
pub fn gradient_squares(gradient: &[f32], run: Run) -> Result<Vec<f64>, Error> {
    let mut sums: Vec<f64> = try_zeroed(gradient.len().div_ceil(CHUNK))?;
    let work = gradient.len().saturating_mul(ELEMENT_WORK);
    let threads = thread_count(run.threads(), work);
    for_each_chunk(threads, &mut sums, 1, |_, chunk, sum| {
        let values = &gradient[chunk * CHUNK..];
        let values = &values[..values.len().min(CHUNK)];
        sum[0] = run.unfused_kernel(Squares(values));
    });
    Ok(sums)
}

/// What gradients of that joint norm are multiplied with so that it is `max_norm` at most:
/// `min(1, max_norm / (norm + 10⁻⁶))`, as `torch.nn.utils.clip_grad_norm_` has it. NaN for NaN.
///
/// ```
/// assert_eq!(diffattn::clip_coefficient(0.5, 1.0), 1.0);
/// assert!((diffattn::clip_coefficient(4.0, 1.0) - 0.25).abs() < 1e-6);
/// ```
#[must_use]
pub fn clip_coefficient(norm: f64, max_norm: f64) -> f64 {
    let coefficient = max_norm / (norm + 1e-6);
    if coefficient > 1.0 { 1.0 } else { coefficient }
}
