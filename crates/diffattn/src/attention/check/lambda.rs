//! λ in each of its forms.

use crate::attention::mask::RowAt;
use crate::attention::options::Lambda;
use crate::error::Error;
use crate::tensor::axis::HeadAxis;
use crate::tensor::shape::{check_len, format_shape};

/// Checked λ, to ask at a head and a token.
#[derive(Debug, Clone)]
pub(in crate::attention) struct LambdaAt<'a> {
    lambda: Lambda<'a>,
    /// From batch entry to batch entry, from query to query.
    strides: [usize; 2],
}

/// What scales a term of a head: of queries one after the other.
#[derive(Debug, Clone, Copy)]
pub(in crate::attention) enum Coefficients<'a> {
    /// Of every query.
    One(f32),
    /// `factor` times λ of each query, `stride` apart.
    Each {
        factor: f32,
        lambda: &'a [f32],
        stride: usize,
    },
}

impl Coefficients<'_> {
    /// That of the query so many after the first.
    #[inline(always)]
    pub(in crate::attention) fn at(&self, query: usize) -> f32 {
        match *self {
            Self::One(coefficient) => coefficient,
            Self::Each {
                factor,
                lambda,
                stride,
            } => factor * lambda[query * stride],
        }
    }
}

impl<'a> LambdaAt<'a> {
    /// `factor` times λ of a head, from a query on.
    pub(in crate::attention) fn times(
        &self,
        factor: f32,
        (batch, head, query): RowAt,
    ) -> Coefficients<'a> {
        match self.lambda {
            Lambda::Value(value) => Coefficients::One(factor * value),
            Lambda::PerHead(values) => Coefficients::One(factor * values[head]),
            Lambda::PerToken { data, .. } => Coefficients::Each {
                factor,
                lambda: &data[batch * self.strides[0] + query * self.strides[1] + head..],
                stride: self.strides[1],
            },
        }
    }
}

/// λ of the heads and queries of the result.
pub(in crate::attention) fn lambda<'a>(
    lambda: Option<&Lambda<'a>>,
    out_axis: &HeadAxis,
) -> Result<Option<LambdaAt<'a>>, Error> {
    let Some(lambda) = lambda else {
        return Ok(None);
    };
    let &HeadAxis {
        batch,
        heads,
        length: queries,
        ..
    } = out_axis;
    let mut strides = [0, 0];
    match lambda {
        Lambda::Value(_) => {}
        Lambda::PerHead(values) => {
            if values.len() != heads {
                return Err(Error::shape(
                    "lambda",
                    format_args!("length {heads}, one per output head"),
                    values.len(),
                ));
            }
        }
        Lambda::PerToken { data, shape } => {
            let fits = |axis: usize, full: usize| shape[axis] == full || shape[axis] == 1;
            if shape.len() != 3 || !fits(0, batch) || !fits(1, queries) || shape[2] != heads {
                return Err(Error::shape(
                    "lambda",
                    format_args!("shape [{batch}|1, {queries}|1, {heads}]"),
                    format_shape(shape),
                ));
            }
            check_len("lambda", shape, data.len())?;
            strides = [
                if shape[0] == 1 { 0 } else { shape[1] * heads },
                if shape[1] == 1 { 0 } else { heads },
            ];
        }
    }
    Ok(Some(LambdaAt {
        lambda: lambda.clone(),
        strides,
    }))
}
