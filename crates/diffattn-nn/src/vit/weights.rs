//! A checkpoint's named weights on their way into a model: each must be there, known and of its shape. Reads no file.

use crate::weights::Weights;
use diffattn::{Data, Error, Linear, Tensor, check_len, format_shape, try_zeroed};
use std::collections::BTreeSet;
use std::ops::Range;

/// How many unknown names an error lists.
const LISTED: usize = 4;

/// Weights, and which of them were asked for.
pub(super) struct Source<'w, 'a> {
    weights: &'w Weights<'a>,
    asked: BTreeSet<String>,
}

impl<'w, 'a> Source<'w, 'a> {
    pub(super) fn new(weights: &'w Weights<'a>) -> Self {
        Self {
            weights,
            asked: BTreeSet::new(),
        }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.weights.contains_key(name)
    }

    /// The weight, whatever its shape; of as many elements as that says.
    fn any(&mut self, name: &str) -> Result<Option<&'w Tensor<'a>>, Error> {
        let Some(weight) = self.weights.get(name) else {
            return Ok(None);
        };
        self.asked.insert(name.to_owned());
        check_len(&format!("weights.{name}"), &weight.shape, weight.data.len())?;
        Ok(Some(weight))
    }

    /// The extents of a weight of `N` axes, which `expected` puts in words.
    pub(super) fn shape<const N: usize>(
        &mut self,
        name: &str,
        expected: &str,
    ) -> Result<[usize; N], Error> {
        let fault = |got: String| {
            let expected = format!("a tensor of shape {expected}");
            Error::file(format_args!("weights.{name}"), expected, got)
        };
        let weight = self.any(name)?.ok_or_else(|| fault("none".to_owned()))?;
        <[usize; N]>::try_from(weight.shape.as_slice())
            .ok()
            .filter(|shape| !shape.contains(&0))
            .ok_or_else(|| fault(format_shape(&weight.shape)))
    }

    /// The weight, which must have `shape`, where it is given.
    pub(super) fn optional(
        &mut self,
        name: &str,
        shape: &[usize],
    ) -> Result<Option<&'w Tensor<'a>>, Error> {
        match self.any(name)? {
            Some(weight) if weight.shape != shape => Err(Error::file(
                format_args!("weights.{name}"),
                format_args!("a tensor of shape {}", format_shape(shape)),
                format_shape(&weight.shape),
            )),
            weight => Ok(weight),
        }
    }

    /// The weight, which must be there and have `shape`.
    pub(super) fn required(
        &mut self,
        name: &str,
        shape: &[usize],
    ) -> Result<&'w Tensor<'a>, Error> {
        self.optional(name, shape)?.ok_or_else(|| {
            Error::file(
                format_args!("weights.{name}"),
                format_args!("a tensor of shape {}", format_shape(shape)),
                "none",
            )
        })
    }

    /// A vector of `len` values.
    pub(super) fn vector(&mut self, name: &str, len: usize) -> Result<Vec<f32>, Error> {
        self.required(name, &[len])?.data.to_f32()
    }

    /// A vector of `len` values, where it is given.
    pub(super) fn optional_vector(
        &mut self,
        name: &str,
        len: usize,
    ) -> Result<Option<Vec<f32>>, Error> {
        let weight = self.optional(name, &[len])?;
        weight.map(|weight| weight.data.to_f32()).transpose()
    }

    /// `{name}.weight` `[outputs, inputs]` and, where given, `{name}.bias` `[outputs]`.
    pub(super) fn linear(
        &mut self,
        name: &str,
        outputs: usize,
        inputs: usize,
    ) -> Result<Linear, Error> {
        let weight = self.required(&format!("{name}.weight"), &[outputs, inputs])?;
        let bias = self.optional(&format!("{name}.bias"), &[outputs])?;
        Linear::new(weight, bias)
    }

    /// How many blocks there are: one more than the highest number in a name `blocks.NUMBER.…`.
    pub(super) fn blocks(&self) -> usize {
        let number = |name: &str| -> Option<usize> {
            let (number, _) = name.strip_prefix("blocks.")?.split_once('.')?;
            number.parse::<usize>().ok()?.checked_add(1)
        };
        let numbers = self.weights.keys().filter_map(|name| number(name));
        numbers.max().unwrap_or(0)
    }

    /// An error for weights that nothing asked for.
    pub(super) fn finish(self) -> Result<(), Error> {
        let unknown: Vec<&str> = self
            .weights
            .keys()
            .map(String::as_str)
            .filter(|&name| !self.asked.contains(name))
            .collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let mut names = unknown[..unknown.len().min(LISTED)].join(", ");
        if unknown.len() > LISTED {
            names += &format!(" and {} more", unknown.len() - LISTED);
        }
        Err(Error::file(
            "weights",
            "only weights that the model has",
            names,
        ))
    }
}

/// Elements of a weight, where they lie.
fn elements<'a>(data: &Data<'a>, range: Range<usize>) -> Data<'a> {
    match *data {
        Data::F32(x) => Data::F32(&x[range]),
        Data::F16(x) => Data::F16(&x[range]),
        Data::Bf16(x) => Data::Bf16(&x[range]),
    }
}

/// Some rows of a weight of one or two axes, where they lie.
pub(super) fn rows<'a>(weight: &Tensor<'a>, rows: Range<usize>) -> Tensor<'a> {
    let mut shape = weight.shape.clone();
    let width: usize = shape.iter().skip(1).product();
    if let Some(first) = shape.first_mut() {
        *first = rows.len();
    }
    Tensor {
        data: elements(&weight.data, rows.start * width..rows.end * width),
        shape,
    }
}

/// Some columns of a weight `[outputs, inputs]`, copied, widened exactly.
pub(super) fn columns(
    weight: &Tensor<'_>,
    [outputs, inputs]: [usize; 2],
    columns: Range<usize>,
) -> Result<Vec<f32>, Error> {
    // (No more than the weight itself has.)
    let mut copy = try_zeroed(outputs * columns.len())?;
    for (row, to) in copy.chunks_exact_mut(columns.len()).enumerate() {
        let from = row * inputs + columns.start..row * inputs + columns.end;
        to.copy_from_slice(&elements(&weight.data, from).to_f32()?);
    }
    Ok(copy)
}
