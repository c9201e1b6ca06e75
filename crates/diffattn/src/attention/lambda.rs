//! λ and how it is re-parameterised, forward and backward. Scalar work, done once per call: float64
//! inside, rounded once.

use crate::error::Error;
use crate::run::buffer::try_zeroed;

/// λ_init of V1: `0.8 − 0.6·exp(−0.3·layer)`, layer counted from 0 (arXiv 2410.05258, eq. 3 and its
/// appendix).
#[must_use]
pub fn lambda_init(layer: f64) -> f64 {
    0.8 - 0.6 * libm::exp(-0.3 * layer)
}

/// λ of V1: `exp(q1·k1) − exp(q2·k2) + init` (arXiv 2410.05258, eq. 2).
///
/// # Errors
/// [`ErrorKind::Shape`](crate::ErrorKind::Shape) when the four vectors differ in length.
pub fn lambda_full(
    q1: &[f32],
    k1: &[f32],
    q2: &[f32],
    k2: &[f32],
    init: f64,
) -> Result<f64, Error> {
    check_lengths([q1, k1, q2, k2])?;
    Ok(libm::exp(dot(q1, k1)) - libm::exp(dot(q2, k2)) + init)
}

fn check_lengths([q1, k1, q2, k2]: [&[f32]; 4]) -> Result<(), Error> {
    for (name, x) in [("k1", k1), ("q2", q2), ("k2", k2)] {
        if x.len() != q1.len() {
            return Err(Error::shape(
                name,
                format_args!("length {} as q1", q1.len()),
                x.len(),
            ));
        }
    }
    Ok(())
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    let products = a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b));
    products.sum()
}

/// Gradients of the vectors of [`lambda_full`], each of its vector's length.
#[derive(Debug, Clone, PartialEq)]
pub struct LambdaGradients {
    /// Of q1.
    pub dq1: Vec<f32>,
    /// Of k1.
    pub dk1: Vec<f32>,
    /// Of q2.
    pub dq2: Vec<f32>,
    /// Of k2.
    pub dk2: Vec<f32>,
}

/// Gradients of [`lambda_full`] for `dlambda`, the gradient of its λ: `exp(q1·k1) · k1 · dlambda`
/// of q1, `−exp(q2·k2) · k2 · dlambda` of q2, and of k1 and k2 with q and k exchanged (arXiv
/// 2410.05258, eq. 2, derived). That of `init` is `dlambda` itself.
///
/// ```
/// let gradients = diffattn::lambda_full_backward(2.0, &[0.0], &[3.0], &[4.0], &[0.0])?;
/// assert_eq!((gradients.dq1, gradients.dk1), (vec![6.0], vec![0.0]));
/// assert_eq!((gradients.dq2, gradients.dk2), (vec![-0.0], vec![-8.0]));
/// # Ok::<(), diffattn::Error>(())
/// ```
///
/// # Errors
/// [`ErrorKind::Shape`](crate::ErrorKind::Shape) when the four vectors differ in length;
/// [`Error::out_of_memory`] when memory is refused.
pub fn lambda_full_backward(
    dlambda: f64,
    q1: &[f32],
    k1: &[f32],
    q2: &[f32],
    k2: &[f32],
) -> Result<LambdaGradients, Error> {
    check_lengths([q1, k1, q2, k2])?;
    let [da, db] = lambda_scalars_backward(dlambda, dot(q1, k1), dot(q2, k2));
    let scaled = |factor: f64, values: &[f32]| {
        let mut gradient: Vec<f32> = try_zeroed(values.len())?;
        for (gradient, &value) in gradient.iter_mut().zip(values) {
            *gradient = (factor * f64::from(value)) as f32;
        }
        Ok::<_, Error>(gradient)
    };
    Ok(LambdaGradients {
        dq1: scaled(da, k1)?,
        dk1: scaled(da, q1)?,
        dq2: scaled(db, k2)?,
        dk2: scaled(db, q2)?,
    })
}

/// λ of the two-scalar form: `exp(a) − exp(b) + init`.
#[must_use]
pub fn lambda_scalars(a: f64, b: f64, init: f64) -> f64 {
    libm::exp(a) - libm::exp(b) + init
}

/// Gradients of a and b of [`lambda_scalars`] for `dlambda`, the gradient of its λ: `exp(a) ·
/// dlambda` and `−exp(b) · dlambda`. That of `init` is `dlambda` itself.
///
/// ```
/// assert_eq!(diffattn::lambda_scalars_backward(2.0, 0.0, 0.0), [2.0, -2.0]);
/// ```
#[must_use]
pub fn lambda_scalars_backward(dlambda: f64, a: f64, b: f64) -> [f64; 2] {
    [libm::exp(a) * dlambda, -libm::exp(b) * dlambda]
}
