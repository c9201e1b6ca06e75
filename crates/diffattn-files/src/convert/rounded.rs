//! Matrices whose rows are computed anew, in float64, and rounded once to their own element type.
//! Knows no layer.

use crate::dtype::Dtype;
use crate::elements::write;
use crate::tensor::RawTensor;
use diffattn::{Error, try_zeroed};
use half::{bf16, f16};
use std::borrow::Cow;

/// The matrix with each of its rows as `row` changes it. What is exact in float64 is rounded once,
/// to nearest, ties to even.
///
/// # Errors
/// [`ErrorKind::Dtype`](diffattn::ErrorKind::Dtype) naming `argument` for elements other than F32,
/// F16 and BF16; [`Error::out_of_memory`].
pub(super) fn map_rows(
    argument: &str,
    matrix: &RawTensor<'_>,
    row: impl Fn(&mut [f64]),
) -> Result<RawTensor<'static>, Error> {
    let dtype = matrix.dtype();
    if ![Dtype::F32, Dtype::F16, Dtype::BF16].contains(&dtype) {
        return Err(Error::dtype(argument, "F32, F16 or BF16", dtype));
    }
    let mut values = matrix.to_f32(argument)?;
    let columns = matrix.shape().last().copied().unwrap_or(1).max(1);
    let mut wide = try_zeroed(columns)?;
    for values in values.chunks_exact_mut(columns) {
        for (wide, &value) in wide.iter_mut().zip(&*values) {
            *wide = f64::from(value);
        }
        row(&mut wide);
        for (value, &wide) in values.iter_mut().zip(&wide) {
            *value = match dtype {
                Dtype::F32 => wide as f32,
                _ => to_odd(wide),
            };
        }
    }
    let bytes = match dtype {
        Dtype::F32 => write(&values, f32::to_le_bytes)?,
        Dtype::F16 => write(&values, |x| f16::from_f32(x).to_le_bytes())?,
        _ => write(&values, |x| bf16::from_f32(x).to_le_bytes())?,
    };
    RawTensor::new(argument, dtype, matrix.shape(), Cow::Owned(bytes))
}

/// Rounds to odd: what rounds the result again, to at most 22 bits, gets what it would have got of
/// `x` itself.
fn to_odd(x: f64) -> f32 {
    let near = x as f32;
    if f64::from(near) == x || x.is_nan() {
        return near;
    }
    // One step towards zero where the rounding went away from it; the bits of a float count up with
    // its magnitude.
    let away = f64::from(near).abs() > x.abs();
    f32::from_bits((near.to_bits() - u32::from(away)) | 1)
}
