//! Weights that MLX has as codes with scales and biases beside them, in a conversion: what a
//! division of columns does to them, and their floats. Knows no layer.

use super::rounded::is_power;
use crate::coded::CodedTensor;
use crate::dtype::Dtype;
use crate::elements::write;
use crate::tensor::RawTensor;
use diffattn::{Error, ErrorKind};
use std::collections::BTreeMap;

/// What a tensor is to the packed weight that it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Packed {
    /// Codes of rows of so many inputs, of which so many share a scale.
    Codes { inputs: usize, group_size: usize },
    /// Scales or biases of the weight of that name.
    Numbers { of: String },
}

/// The groups of a row that these columns are, `inputs / group_size` of them, of which scales and
/// biases are divided in the place of the columns' values.
///
/// # Errors
/// [`ErrorKind::Dtype`] naming `argument` where a group has only some of the columns, or scales
/// would be rounded.
pub(super) fn groups(
    argument: &str,
    columns: impl Iterator<Item = usize>,
    (inputs, group_size): (usize, usize),
    by: f64,
) -> Result<Vec<usize>, Error> {
    let refuse = |got: &str| {
        let expected = format!("floats, not MLX's codes, which cannot be divided by {by} exactly");
        Err(Error::dtype(argument, expected, got))
    };
    let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
    for column in columns.filter(|&column| column < inputs) {
        *counts.entry(column / group_size.max(1)).or_default() += 1;
    }
    if counts.values().any(|&count| count != group_size) {
        return refuse("heads that are parts of groups");
    }
    match is_power(by) {
        true => Ok(counts.into_keys().collect()),
        false => refuse("scales that are rounded then"),
    }
}

/// What codes with scales and biases stand for, of that shape.
pub(super) fn floats<'a>(
    argument: &str,
    sources: &mut impl Iterator<Item = RawTensor<'a>>,
    shape: &[usize],
) -> Result<RawTensor<'static>, Error> {
    let mut next = || {
        let none = || Error::internal(format!("codes of {argument} without scales and biases"));
        sources.next().ok_or_else(none)
    };
    let (codes, scales, biases) = (next()?, next()?, next()?);
    let numbers = (scales.into_floats(argument)?, biases.into_floats(argument)?);
    let &[outputs, inputs] = shape else {
        return Err(Error::internal(format!("{argument} is no matrix")));
    };
    let coded = CodedTensor::mlx(argument, (codes, numbers.0, numbers.1), [outputs, inputs]);
    let values = coded.map_err(|error| error.of(ErrorKind::File))?.values()?;
    let bytes = write(&values, f32::to_le_bytes)?;
    RawTensor::new(argument, Dtype::F32, shape, bytes)
}
