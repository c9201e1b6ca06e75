//! Queries of λ. Computes nothing.

use diffattn::{Error, lambda_full, lambda_init};

use crate::encoding::{Number, Vector, request};
use crate::operation::{Asked, Query};

request! {
    /// λ_init of a layer.
    32 lambdaInit LambdaInitRequest {
        layer: Number,
    }
}

impl Query for LambdaInitRequest {
    fn answer(self, _asked: Asked<'_>) -> Result<f64, Error> {
        Ok(lambda_init(self.layer))
    }
}

request! {
    /// λ of the vectors that are learned.
    33 lambdaFull LambdaFullRequest {} options {
        q1: Vector,
        k1: Vector,
        q2: Vector,
        k2: Vector,
        init: Number,
    }
}

impl Query for LambdaFullRequest {
    fn answer(self, asked: Asked<'_>) -> Result<f64, Error> {
        let vectors = [self.q1, self.k1, self.q2, self.k2];
        let [q1, k1, q2, k2] = vectors.map(|at| at.f32_vector(asked.operands));
        lambda_full(q1?, k1?, q2?, k2?, self.init)
    }
}
