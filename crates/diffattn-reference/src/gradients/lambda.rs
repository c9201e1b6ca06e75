//! The gradients of the forms of λ: from the gradient of λ to what makes it. λ_init has none.

use crate::{Real, dot, sigmoid};

/// What [`lambda_full_backward`] returns, a vector for each vector of λ.
#[derive(Clone, Debug, PartialEq)]
pub struct LambdaGradients<R> {
    /// exp(q1·k1)·k1·dλ.
    pub dq1: Vec<R>,
    /// exp(q1·k1)·q1·dλ.
    pub dk1: Vec<R>,
    /// −exp(q2·k2)·k2·dλ.
    pub dq2: Vec<R>,
    /// −exp(q2·k2)·q2·dλ.
    pub dk2: Vec<R>,
}

/// The gradients of [`crate::lambda_full`], dλ being the gradient of its result.
pub fn lambda_full_backward<R: Real>(
    dlambda: R,
    q1: &[R],
    k1: &[R],
    q2: &[R],
    k2: &[R],
) -> LambdaGradients<R> {
    let [da, db] = lambda_from_scalars_backward(dlambda, dot(q1, k1), dot(q2, k2));
    let times = |factor: R, x: &[R]| x.iter().map(|&x| factor * x).collect();
    LambdaGradients {
        dq1: times(da, k1),
        dk1: times(da, q1),
        dq2: times(db, k2),
        dk2: times(db, q2),
    }
}

/// da and db of [`crate::lambda_from_scalars`], dλ being the gradient of its result.
pub fn lambda_from_scalars_backward<R: Real>(dlambda: R, a: R, b: R) -> [R; 2] {
    [a.exp() * dlambda, -(b.exp() * dlambda)]
}

/// dx of [`sigmoid`], dy being the gradient of its result.
pub fn sigmoid_backward<R: Real>(x: R, dy: R) -> R {
    let y = sigmoid(x);
    dy * y * (R::ONE - y)
}
