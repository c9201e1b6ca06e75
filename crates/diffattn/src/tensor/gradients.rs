//! Where gradients go: float32 whatever the inputs are, several of a call, some of them only where
//! they are wanted. Checks what a backward call is given; computes nothing.

use super::Tensor;
use super::shape::{check_len, format_shape};
use crate::error::Error;
use crate::run::buffer::try_zeroed;
use crate::run::threads::Disjoint;

/// Checks that `dy`, the gradient of a result shaped as `x`, has its shape and element type; gives
/// how many elements each has.
pub(crate) fn check_gradient(dy: &Tensor<'_>, x: (&str, &Tensor<'_>)) -> Result<usize, Error> {
    check_alike(("dy", dy), x)
}

/// Checks that a tensor has the shape and element type of `x`; gives how many elements each has.
pub(crate) fn check_alike(
    (name, tensor): (&str, &Tensor<'_>),
    (x_name, x): (&str, &Tensor<'_>),
) -> Result<usize, Error> {
    let len = check_len(x_name, &x.shape, x.data.len())?;
    if tensor.shape != x.shape {
        return Err(Error::shape(
            name,
            format_args!("shape {} as {x_name}", format_shape(&x.shape)),
            format_shape(&tensor.shape),
        ));
    }
    check_len(name, &tensor.shape, tensor.data.len())?;
    let (expected, got) = (x.data.dtype(), tensor.data.dtype());
    if expected != got {
        return Err(Error::dtype(
            name,
            format_args!("{} as {x_name}", expected.name()),
            got.name(),
        ));
    }
    Ok(len)
}

/// Takes `out` for a gradient of `len` elements.
pub(crate) fn bind<'o>(
    name: &str,
    len: usize,
    out: &'o mut [f32],
) -> Result<Disjoint<'o, f32>, Error> {
    check_len(name, &[len], out.len())?;
    Ok(Disjoint::new(out))
}

/// [`bind`] where the gradient is one of an option that a caller may give or not: `wanted` are its
/// elements where it was given.
pub(crate) fn bind_wanted<'o>(
    name: &str,
    wanted: Option<usize>,
    out: Option<&'o mut [f32]>,
) -> Result<Option<Disjoint<'o, f32>>, Error> {
    match (wanted, out) {
        (None, None) => Ok(None),
        (Some(len), Some(out)) => bind(name, len, out).map(Some),
        (Some(len), None) => Err(Error::shape(
            name,
            format_args!("{len} elements, as the call has what it is the gradient of"),
            "none",
        )),
        (None, Some(_)) => Err(Error::option(
            name,
            "none, as the call does not have what it is the gradient of",
            "one",
        )),
    }
}

/// Memory for a gradient where it is wanted.
pub(crate) fn wanted_zeros(wanted: Option<usize>) -> Result<Option<Vec<f32>>, Error> {
    wanted.map(try_zeroed).transpose()
}
