//! The norm of the result's rows.

use crate::attention::options::NormOptions;
use crate::error::Error;

/// A checked norm.
#[derive(Debug, Clone, Copy)]
pub(in crate::attention) struct Norm<'a> {
    pub(in crate::attention) eps: f32,
    pub(in crate::attention) weight: Option<&'a [f32]>,
    pub(in crate::attention) scale: f32,
}

/// The norm of rows of `width` channels, where there is one.
pub(in crate::attention) fn norm<'a>(
    norm: Option<&NormOptions<'a>>,
    width: usize,
) -> Result<Option<Norm<'a>>, Error> {
    let Some(&NormOptions { eps, weight, scale }) = norm else {
        return Ok(None);
    };
    if !(eps >= 0.0 && eps.is_finite()) {
        return Err(Error::option("norm.eps", "0 or a positive number", eps));
    }
    if let Some(weight) = weight
        && weight.len() != width
    {
        return Err(Error::shape(
            "norm.weight",
            format_args!("length {width}, the result's channels"),
            weight.len(),
        ));
    }
    Ok(Some(Norm { eps, weight, scale }))
}
