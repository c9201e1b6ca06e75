//! Columns of quantised matrices divided where that is exact: by their blocks' scales, codes stay.
//! Knows no layer.

use crate::dtype::{BLOCK, Dtype};
use crate::tensor::RawTensor;
use diffattn::{Error, format_shape};
use half::f16;
use std::borrow::Cow;

/// The float16 numbers of a block that all its values grow with: scale, and bias where there is
/// one, at the beginning of its bytes.
fn numbers(dtype: Dtype) -> usize {
    match dtype {
        Dtype::Q4_1 => 2,
        _ => 1,
    }
}

/// A matrix of blocks with these columns divided.
///
/// # Errors
/// [`ErrorKind::Dtype`](diffattn::ErrorKind::Dtype) naming `argument` where a block has only some
/// of the columns, or float16 does not hold what a scale becomes.
pub(super) fn divide_columns(
    argument: &str,
    matrix: RawTensor<'_>,
    columns: impl Iterator<Item = usize>,
    by: f64,
) -> Result<RawTensor<'static>, Error> {
    let (dtype, shape) = (matrix.dtype(), matrix.shape().to_vec());
    let (Some(width), &[_, inputs]) = (dtype.block_bytes(), shape.as_slice()) else {
        return Err(Error::shape(
            argument,
            "a matrix of blocks",
            format_shape(&shape),
        ));
    };
    let refuse = |got: &str| {
        let expected = format!("floats, not {dtype}, which cannot be divided by {by} exactly");
        Error::dtype(argument, expected, got)
    };
    let mut counts = vec![0; inputs / BLOCK];
    for column in columns {
        if let Some(count) = counts.get_mut(column / BLOCK) {
            *count += 1;
        }
    }
    if counts.iter().any(|&count| count != 0 && count != BLOCK) {
        return Err(refuse("heads that are parts of blocks"));
    }
    let mut bytes = matrix.into_bytes();
    for row in bytes.chunks_exact_mut((width * counts.len()).max(1)) {
        let blocks = row.chunks_exact_mut(width).zip(&counts);
        for (block, _) in blocks.filter(|(_, count)| **count > 0) {
            for number in block.as_chunks_mut().0.iter_mut().take(numbers(dtype)) {
                let value = f64::from(f16::from_le_bytes(*number).to_f32()) / by;
                let stored = f16::from_f64(value);
                if stored.to_f64() != value && !value.is_nan() {
                    return Err(refuse("scales that float16 does not hold then"));
                }
                *number = stored.to_le_bytes();
            }
        }
    }
    RawTensor::new(argument, dtype, &shape, Cow::Owned(bytes))
}
