//! λ and how it is re-parameterised. Scalar work, done once per call: float64 inside, rounded once.

use crate::error::Error;

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
    for (name, x) in [("k1", k1), ("q2", q2), ("k2", k2)] {
        if x.len() != q1.len() {
            return Err(Error::shape(
                name,
                format_args!("length {} as q1", q1.len()),
                x.len(),
            ));
        }
    }
    let dot = |a: &[f32], b: &[f32]| {
        a.iter()
            .zip(b)
            .map(|(&a, &b)| f64::from(a) * f64::from(b))
            .sum::<f64>()
    };
    Ok(libm::exp(dot(q1, k1)) - libm::exp(dot(q2, k2)) + init)
}

/// λ of the two-scalar form: `exp(a) − exp(b) + init`.
#[must_use]
pub fn lambda_scalars(a: f64, b: f64, init: f64) -> f64 {
    libm::exp(a) - libm::exp(b) + init
}
