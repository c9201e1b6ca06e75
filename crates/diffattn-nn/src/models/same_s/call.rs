//! What encoding and decoding share at their door: planes of channels in and out.

use diffattn::{Data, DataMut, Error, Tensor, check_len, format_shape};

/// The elements of a tensor `[B, channels, length]`, B and the length. `what` says what the length
/// is.
pub(super) fn planes<'a>(
    argument: &str,
    tensor: &Tensor<'a>,
    channels: usize,
    what: &str,
) -> Result<(&'a [f32], [usize; 2]), Error> {
    let Data::F32(data) = tensor.data else {
        let got = tensor.data.dtype().name();
        return Err(Error::dtype(argument, "float32", got));
    };
    let &[batch, stored, length] = tensor.shape.as_slice() else {
        return Err(wrong_shape(argument, channels, what, &tensor.shape));
    };
    if stored != channels {
        return Err(wrong_shape(argument, channels, what, &tensor.shape));
    }
    check_len(argument, &tensor.shape, data.len())?;
    Ok((data, [batch, length]))
}

/// That a tensor is no `[B, channels, length]`.
pub(super) fn wrong_shape(argument: &str, channels: usize, what: &str, shape: &[usize]) -> Error {
    let expected = format!("shape [B, {channels}, {what}");
    Error::shape(argument, expected, format_shape(shape))
}

/// Memory for a result of that shape.
pub(super) fn output<'o>(out: DataMut<'o>, shape: &[usize]) -> Result<&'o mut [f32], Error> {
    let DataMut::F32(out) = out else {
        return Err(Error::dtype("out", "float32", out.dtype().name()));
    };
    check_len("out", shape, out.len())?;
    Ok(out)
}
