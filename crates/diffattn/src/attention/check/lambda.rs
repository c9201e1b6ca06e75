//! λ in each of its forms.

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

impl LambdaAt<'_> {
    #[inline]
    pub(in crate::attention) fn of(&self, head: usize, batch: usize, query: usize) -> f32 {
        match &self.lambda {
            Lambda::Value(value) => *value,
            Lambda::PerHead(values) => values[head],
            Lambda::PerToken { data, .. } => {
                data[batch * self.strides[0] + query * self.strides[1] + head]
            }
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
