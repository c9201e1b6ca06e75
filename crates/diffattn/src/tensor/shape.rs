//! Checked sizes. The only place where lengths are checked: below it, indices are trusted.

use crate::error::Error;

/// The product of `shape`, or [`ErrorKind::Shape`](crate::ErrorKind::Shape) when it overflows (also
/// on 32-bit targets).
pub fn checked_len(argument: &str, shape: &[usize]) -> Result<usize, Error> {
    // Zero extents first: an empty tensor is legal whatever its other extents are.
    if shape.contains(&0) {
        return Ok(0);
    }
    shape
        .iter()
        .try_fold(1usize, |product, &extent| product.checked_mul(extent))
        .filter(|&len| len <= isize::MAX as usize / 8)
        .ok_or_else(|| {
            Error::shape(
                argument,
                "a shape whose element count fits this machine",
                format_shape(shape),
            )
        })
}

/// Checks that `len` elements fill `shape`; returns the element count.
pub fn check_len(argument: &str, shape: &[usize], len: usize) -> Result<usize, Error> {
    let expected = checked_len(argument, shape)?;
    if expected == len {
        Ok(len)
    } else {
        Err(Error::shape(
            argument,
            format_args!("{expected} elements for shape {}", format_shape(shape)),
            len,
        ))
    }
}

/// `[2, 4, 33, 16]`, as errors print a shape; of one with many axes the first ones.
#[must_use]
pub fn format_shape(shape: &[usize]) -> String {
    const MOST: usize = 8;
    let mut text = String::from("[");
    for (axis, extent) in shape.iter().take(MOST).enumerate() {
        if axis > 0 {
            text.push_str(", ");
        }
        text.push_str(&extent.to_string());
    }
    if shape.len() > MOST {
        text.push_str(&format!(", …] ({} axes)", shape.len()));
    } else {
        text.push(']');
    }
    text
}

#[cfg(test)]
mod tests;
