//! One tensor of a checkpoint that is converted: what it is made of, and how. Holds no other.

use super::rounded::map_rows;
use crate::dtype::Dtype;
use crate::elements::write;
use crate::entry::Entry;
use crate::tensor::RawTensor;
use diffattn::{Error, format_shape, try_zeroed};

/// One tensor that is written.
#[derive(Debug, Clone)]
pub(super) struct Step {
    pub(super) name: String,
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    /// The tensors that it is made of.
    pub(super) from: Vec<String>,
    pub(super) make: Make,
}

/// How a tensor is made.
#[derive(Debug, Clone)]
pub(super) enum Make {
    Copy,
    /// Of rows of heads of that width: head `i` is head `heads[i]`.
    Heads {
        heads: Vec<usize>,
        width: usize,
    },
    /// Columns of these heads are divided.
    Divide {
        heads: Vec<usize>,
        width: usize,
        by: f64,
    },
    /// Columns of these heads are multiplied with `(I − mix · λ W)ᵀ`, of W and λ.
    Fold {
        heads: Vec<usize>,
        width: usize,
        mix: f64,
    },
    /// One value.
    Fill(f64),
}

impl Step {
    /// A tensor as it is.
    pub(super) fn copy(entry: &Entry) -> Self {
        Self {
            name: entry.name.clone(),
            dtype: entry.dtype,
            shape: entry.shape.clone(),
            from: vec![entry.name.clone()],
            make: Make::Copy,
        }
    }

    /// Makes it of other heads, of that width.
    pub(super) fn take_heads(&mut self, heads: Vec<usize>, width: usize) -> Result<(), Error> {
        let rows = heads.len().checked_mul(width);
        let (Some(rows), Some(first)) = (rows, self.shape.first_mut()) else {
            return Err(Error::shape(
                format_args!("weights.{}", self.name),
                "rows, of a number that fits this machine",
                format_shape(&self.shape),
            ));
        };
        *first = rows;
        self.make = Make::Heads { heads, width };
        Ok(())
    }

    /// Checks that it is of so many rows and columns, which are to be changed.
    pub(super) fn check_shape(&self, shape: [usize; 2]) -> Result<(), Error> {
        match self.shape == shape {
            true => Ok(()),
            false => Err(Error::file(
                format_args!("weights.{}", self.name),
                format_args!("a tensor of shape {}", format_shape(&shape)),
                format_shape(&self.shape),
            )),
        }
    }

    /// The tensor, of those that it is made of.
    pub(super) fn made<'a>(&self, sources: Vec<RawTensor<'a>>) -> Result<RawTensor<'a>, Error> {
        let argument = format!("weights.{}", self.name);
        if sources.len() != self.from.len() {
            return Err(Error::option(
                "sources",
                format_args!("{} tensors: {}", self.from.len(), self.from.join(", ")),
                sources.len(),
            ));
        }
        let mut sources = sources.into_iter();
        let Some(source) = sources.next() else {
            return self.filled(&argument);
        };
        let is_changed = matches!(self.make, Make::Divide { .. } | Make::Fold { .. });
        if is_changed && source.shape() != self.shape {
            return Err(Error::file(
                argument,
                format_args!("a tensor of shape {}", format_shape(&self.shape)),
                format_shape(source.shape()),
            ));
        }
        let made = match &self.make {
            Make::Copy | Make::Fill(_) => return Ok(source),
            Make::Heads { heads, width } => {
                let rows: Vec<usize> = places(heads, *width).collect();
                return source.gather(&argument, &rows);
            }
            Make::Divide { heads, width, by } => map_rows(&argument, &source, |row| {
                for column in places(heads, *width) {
                    row[column] /= by;
                }
            })?,
            Make::Fold { heads, width, mix } => {
                let map = turned(sources, *width, *mix)?;
                map_rows(&argument, &source, |row| {
                    for &head in heads {
                        multiply(&mut row[head * width..(head + 1) * width], &map);
                    }
                })?
            }
        };
        check_finite(&argument, &source, &made)?;
        Ok(made)
    }

    fn filled(&self, argument: &str) -> Result<RawTensor<'static>, Error> {
        let Make::Fill(value) = self.make else {
            return Err(Error::internal(format!("{argument} is made of nothing")));
        };
        let len: usize = self.shape.iter().product();
        let mut values: Vec<f32> = try_zeroed(len)?;
        values.fill(value as f32);
        let bytes = write(&values, f32::to_le_bytes)?;
        let filled = RawTensor::new(argument, Dtype::F32, &self.shape, bytes)?;
        filled.cast(argument, self.dtype)?.tensor.into_owned()
    }
}

/// Rows, or columns, of heads.
fn places(heads: &[usize], width: usize) -> impl Iterator<Item = usize> {
    heads
        .iter()
        .flat_map(move |head| head * width..(head + 1) * width)
}

/// `I − mix · λ W`, of W `[width, width]` and λ.
fn turned<'a>(
    mut sources: impl Iterator<Item = RawTensor<'a>>,
    width: usize,
    mix: f64,
) -> Result<Vec<f64>, Error> {
    let mut next = |argument| match sources.next() {
        Some(tensor) => tensor.to_f32(argument),
        None => Err(Error::internal(format!("there is no {argument}"))),
    };
    let (weight, lambda) = (next("dex.weight")?, next("dex.lambda_learn")?);
    let lambda = mix * lambda.first().map_or(0.0, |&lambda| f64::from(lambda));
    if weight.len() != width * width {
        return Err(Error::file(
            "weights.dex.weight",
            format_args!("{} values", width * width),
            weight.len(),
        ));
    }
    let mut map = try_zeroed(weight.len())?;
    for (at, (to, &value)) in map.iter_mut().zip(&weight).enumerate() {
        let one = if at / width == at % width { 1.0 } else { 0.0 };
        *to = one - lambda * f64::from(value);
    }
    Ok(map)
}

/// A row times a matrix turned.
fn multiply(row: &mut [f64], map: &[f64]) {
    let of = row.to_vec();
    for (to, line) in row.iter_mut().zip(map.chunks_exact(of.len().max(1))) {
        *to = of.iter().zip(line).map(|(x, y)| x * y).sum();
    }
}

/// Checks that no finite value became infinite.
fn check_finite(
    argument: &str,
    before: &RawTensor<'_>,
    after: &RawTensor<'_>,
) -> Result<(), Error> {
    let (before, after) = (before.to_f32(argument)?, after.to_f32(argument)?);
    let mut pairs = before.iter().zip(&after);
    match pairs.any(|(before, after)| before.is_finite() && !after.is_finite()) {
        false => Ok(()),
        true => Err(Error::dtype(
            argument,
            "elements that hold what its values become: F32 or BF16",
            "some that become infinite",
        )),
    }
}
