//! What is done to scores: their scale, their cap, and the sinks that join their softmax.

use crate::error::Error;
use crate::tensor::axis::HeadAxis;
use crate::tensor::shape::{check_len, format_shape};
use crate::tensor::{Data, Tensor};

/// The factor of the scores of heads of `width` channels.
pub(in crate::attention) fn scale(scale: Option<f32>, width: usize) -> Result<f64, Error> {
    let scale = scale.map_or_else(|| 1.0 / (width as f64).sqrt(), f64::from);
    if (scale as f32).is_finite() {
        Ok(scale)
    } else {
        Err(Error::option("scale", "a finite number", scale))
    }
}

/// The bound of the scores, where there is one.
pub(in crate::attention) fn softcap(softcap: Option<f32>) -> Result<Option<f32>, Error> {
    match softcap {
        Some(softcap) if !(softcap > 0.0 && softcap.is_finite()) => {
            Err(Error::option("softcap", "a positive number", softcap))
        }
        softcap => Ok(softcap),
    }
}

/// Checked sinks, `[H, terms]`; one term where all terms of a head have the same.
#[derive(Debug, Clone, Copy)]
pub(in crate::attention) struct Sinks<'a> {
    data: &'a [f32],
    terms: usize,
}

impl Sinks<'_> {
    /// The sink of a term of an output head.
    pub(in crate::attention) fn of(&self, head: usize, term: usize) -> f32 {
        self.data[head * self.terms + term.min(self.terms - 1)]
    }
}

/// Sinks of the heads of the result, `[H]` or `[H, terms]`.
pub(in crate::attention) fn sinks<'a>(
    sinks: Option<&Tensor<'a>>,
    out_axis: &HeadAxis,
    terms: usize,
) -> Result<Option<Sinks<'a>>, Error> {
    let Some(Tensor { data, shape }) = sinks else {
        return Ok(None);
    };
    let heads = out_axis.heads;
    let per_head = match *shape.as_slice() {
        [h] if h == heads => 1,
        [h, t] if h == heads && t == terms => terms,
        _ => {
            return Err(Error::shape(
                "sinks",
                format_args!("shape [{heads}] or [{heads}, {terms}]"),
                format_shape(shape),
            ));
        }
    };
    check_len("sinks", shape, data.len())?;
    let &Data::F32(data) = data else {
        return Err(Error::dtype("sinks", "float32", data.dtype().name()));
    };
    if let Some(sink) = data
        .iter()
        .find(|sink| sink.is_nan() || **sink == f32::INFINITY)
    {
        return Err(Error::option("sinks", "numbers or -Infinity", sink));
    }
    Ok(Some(Sinks {
        data,
        terms: per_head,
    }))
}
