//! Matrices whose rows are computed anew, in float64, and rounded once to their own element type.
//! Knows no layer.

use crate::dtype::Dtype;
use crate::elements::write;
use crate::tensor::RawTensor;
use diffattn::{Error, try_zeroed};
use half::{bf16, f16};
use std::borrow::Cow;

/// The matrix whose rows, of so many columns, `row` makes of its own. What is exact in float64 is
/// rounded once, to nearest, ties to even.
///
/// # Errors
/// [`ErrorKind::Dtype`](diffattn::ErrorKind::Dtype) naming `argument` for elements other than F32,
/// F16 and BF16; [`ErrorKind::Shape`](diffattn::ErrorKind::Shape) for what is no matrix;
/// [`Error::out_of_memory`].
pub(super) fn map_rows(
    argument: &str,
    matrix: &RawTensor<'_>,
    columns: usize,
    row: impl Fn(&[f64], &mut [f64]),
) -> Result<RawTensor<'static>, Error> {
    let dtype = matrix.dtype();
    if ![Dtype::F32, Dtype::F16, Dtype::BF16].contains(&dtype) {
        return Err(Error::dtype(argument, "F32, F16 or BF16", dtype));
    }
    let &[rows, before] = matrix.shape() else {
        let got = diffattn::format_shape(matrix.shape());
        return Err(Error::shape(argument, "a matrix", got));
    };
    let values = matrix.to_f32(argument)?;
    let len = rows.checked_mul(columns);
    let len =
        len.ok_or_else(|| Error::shape(argument, "a size that fits this machine", columns))?;
    let mut made: Vec<f32> = try_zeroed(len)?;
    let (mut from, mut to) = (try_zeroed(before)?, try_zeroed(columns)?);
    let pairs = values.chunks_exact(before.max(1));
    for (values, made) in pairs.zip(made.chunks_exact_mut(columns.max(1))) {
        for (wide, &value) in from.iter_mut().zip(values) {
            *wide = f64::from(value);
        }
        row(&from, &mut to);
        for (value, &wide) in made.iter_mut().zip(&to) {
            *value = match dtype {
                Dtype::F32 => wide as f32,
                _ => to_odd(wide),
            };
        }
    }
    let bytes = match dtype {
        Dtype::F32 => write(&made, f32::to_le_bytes)?,
        Dtype::F16 => write(&made, |x| f16::from_f32(x).to_le_bytes())?,
        _ => write(&made, |x| bf16::from_f32(x).to_le_bytes())?,
    };
    RawTensor::new(argument, dtype, &[rows, columns], Cow::Owned(bytes))
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

/// Whether a division by it rounds nothing.
pub(super) fn is_power(rest: f64) -> bool {
    const MANTISSA: u64 = (1 << 52) - 1;
    rest.to_bits() & MANTISSA == 0
}
