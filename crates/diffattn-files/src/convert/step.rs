//! One tensor of a checkpoint that is converted: what it is made of, and how. Holds no other.

use super::codes::divide_columns;
use super::packed::{self, Packed};
use super::random::Noise;
use super::rounded::map_rows;
use crate::dtype::Dtype;
use crate::elements::write;
use crate::entry::Entry;
use crate::mlx::MlxQuantization;
use crate::tensor::RawTensor;
use diffattn::{Error, format_shape, try_zeroed};
use std::borrow::Cow;
use std::cell::Cell;

/// One tensor that is written.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub(crate) name: String,
    /// The element type that it is made in: that of what it is made of, or floats of its codes.
    dtype: Dtype,
    /// The element type of the first tensor that it is made of.
    source: Dtype,
    /// The element type that it is written in.
    written: Dtype,
    pub(crate) shape: Vec<usize>,
    /// The tensors that it is made of.
    pub(crate) from: Vec<String>,
    /// The shape of the first of them.
    before: Vec<usize>,
    make: Make,
    /// Into which two further tensors, A and B, are merged at last: `W + scale · B A`.
    merge: Option<f64>,
    /// What it is to a packed weight that stays so.
    pub(super) packed: Option<Packed>,
    /// Whether its first source is codes, with scales and biases behind it, of which it is the
    /// floats.
    is_unpacked: bool,
}

/// How a tensor is made.
#[derive(Debug, Clone)]
pub(crate) enum Make {
    Copy,
    /// Of rows of heads of that width: head `i` is head `heads[i]`, of those that there are and
    /// behind them so many of noise.
    Heads {
        heads: Vec<usize>,
        width: usize,
        noise: (usize, Noise),
    },
    /// Of columns of heads of that width, divided: those of head `i` are those of head `heads[i]`.
    Columns {
        heads: Vec<usize>,
        width: usize,
        by: f64,
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
    /// Times that.
    Scale(f64),
    /// One value.
    Fill(f64),
    /// Noise.
    Noise(Noise),
}

impl Step {
    /// A tensor as it is.
    pub(crate) fn copy(entry: &Entry) -> Self {
        Self {
            name: entry.name.clone(),
            dtype: entry.dtype,
            source: entry.dtype,
            written: entry.dtype,
            shape: entry.shape.clone(),
            from: vec![entry.name.clone()],
            before: entry.shape.clone(),
            make: Make::Copy,
            merge: None,
            packed: None,
            is_unpacked: false,
        }
    }

    /// A tensor that there was not.
    pub(super) fn new(name: String, dtype: Dtype, shape: Vec<usize>, make: Make) -> Self {
        Self {
            name,
            dtype,
            source: dtype,
            written: dtype,
            shape,
            from: Vec::new(),
            before: Vec::new(),
            make,
            merge: None,
            packed: None,
            is_unpacked: false,
        }
    }

    /// The floats of codes of rows of so many inputs, before anything is done to them.
    pub(super) fn unpacked(mut self, inputs: usize) -> Self {
        if let Some(last) = self.shape.last_mut() {
            *last = inputs;
        }
        self.before.clone_from(&self.shape);
        self.from.extend(MlxQuantization::beside(&self.name));
        let dtype = Dtype::F32;
        Self {
            dtype,
            source: dtype,
            written: dtype,
            is_unpacked: true,
            ..self
        }
    }

    /// Whether it makes floats of a packed weight.
    pub(crate) fn is_unpacked(&self) -> bool {
        self.is_unpacked
    }

    /// Whether it is codes of a packed weight, which stays so.
    pub(crate) fn is_codes(&self) -> bool {
        matches!(self.packed, Some(Packed::Codes { .. }))
    }

    /// The extent of each axis; of packed codes that of what they stand for.
    pub(crate) fn extents(&self) -> Vec<usize> {
        let mut shape = self.shape.clone();
        if let (Some(Packed::Codes { inputs, .. }), Some(last)) = (&self.packed, shape.last_mut()) {
            *last = *inputs;
        }
        shape
    }

    /// Elements of the weight that it is; none of scales and biases beside one.
    pub(super) fn parameters(&self) -> u64 {
        if matches!(self.packed, Some(Packed::Numbers { .. })) {
            return 0;
        }
        let sizes = self.extents().into_iter().map(|size| size as u64);
        sizes.fold(1, u64::saturating_mul)
    }

    /// The element type that it is written in.
    pub(crate) fn written(&self) -> Dtype {
        self.written
    }

    /// Whether its bytes are those of the tensor that it is made of.
    pub(super) fn is_copied(&self) -> bool {
        let is_copy = matches!(self.make, Make::Copy) && self.merge.is_none();
        is_copy && self.written == self.source && !self.is_unpacked
    }

    /// Has it written in another element type, where it has floats of 16 bits or more, or codes of
    /// floats; whether that rounds.
    pub(crate) fn cast(&mut self, to: Dtype) -> bool {
        if self.source.block_bytes().is_some() {
            self.dtype = Dtype::F32;
        }
        if !self.dtype.is_float() {
            return false;
        }
        self.written = to;
        to != Dtype::F32 && to != self.dtype && !self.from.is_empty()
    }

    /// Makes it of other heads, of that width, some of noise.
    pub(super) fn take_heads(
        &mut self,
        heads: Vec<usize>,
        width: usize,
        noise: (usize, Noise),
    ) -> Result<(), Error> {
        if noise.0 > 0 && !self.dtype.is_float() {
            return Err(Error::dtype(
                format_args!("weights.{}", self.name),
                "floats, behind which there can be heads of noise",
                self.dtype,
            ));
        }
        let rows = heads.len().checked_mul(width);
        let (Some(rows), Some(first)) = (rows, self.shape.first_mut()) else {
            return Err(Error::shape(
                format_args!("weights.{}", self.name),
                "rows, of a number that fits this machine",
                format_shape(&self.shape),
            ));
        };
        *first = rows;
        self.make = Make::Heads {
            heads,
            width,
            noise,
        };
        Ok(())
    }

    /// Checks that it is a matrix of that shape.
    pub(super) fn check(&self, shape: [usize; 2]) -> Result<(), Error> {
        let extents = self.extents();
        match extents == shape {
            true => Ok(()),
            false => Err(Error::file(
                format_args!("weights.{}", self.name),
                format_args!("a tensor of shape {}", format_shape(&shape)),
                format_shape(&extents),
            )),
        }
    }

    /// Makes it, a matrix of that shape, otherwise.
    pub(super) fn change(&mut self, shape: [usize; 2], make: Make) -> Result<(), Error> {
        self.check(shape)?;
        if let Make::Columns { heads, width, .. } = &make {
            let columns = heads.len().checked_mul(*width);
            let none = || Error::shape("head_dim", "a size that fits this machine", *width);
            self.shape[1] = columns.ok_or_else(none)?;
        }
        self.make = make;
        Ok(())
    }

    /// Makes it that of another name, times that.
    pub(crate) fn renamed(self, name: String, scale: f64) -> Self {
        let make = match scale == 1.0 {
            true => self.make,
            false => Make::Scale(scale),
        };
        Self { name, make, ..self }
    }

    /// Has `scale · B A` added to it at last.
    pub(crate) fn merge(&mut self, a: &Entry, b: &Entry, scale: f64) {
        self.from.extend([a.name.clone(), b.name.clone()]);
        self.merge = Some(scale);
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
        let mut sources = sources;
        let merged = match self.merge {
            None => None,
            Some(scale) => sources.pop().zip(sources.pop()).map(|(b, a)| (a, b, scale)),
        };
        let mut sources = sources.into_iter();
        let first = match self.is_unpacked {
            true => Some(packed::floats(&argument, &mut sources, &self.before)?),
            false => sources.next(),
        };
        let made = match first {
            None => self.of_nothing(&argument)?,
            Some(source) => self.of_source(&argument, source, sources)?,
        };
        let made = match made.dtype() == self.written {
            true => made,
            false => made.cast(&argument, self.written)?.tensor.into_owned()?,
        };
        let Some((a, b, scale)) = merged else {
            return Ok(made);
        };
        let sum = sum(&argument, &made, [&a, &b], scale)?;
        check_finite(&argument, &made, &sum)?;
        Ok(sum)
    }

    fn of_source<'a>(
        &self,
        argument: &str,
        source: RawTensor<'a>,
        others: impl Iterator<Item = RawTensor<'a>>,
    ) -> Result<RawTensor<'a>, Error> {
        if source.shape() != self.before || source.dtype() != self.source {
            return Err(Error::file(
                argument,
                format_args!("{} of {}", format_shape(&self.before), self.source),
                format_args!("{} of {}", format_shape(source.shape()), source.dtype()),
            ));
        }
        let source = match self.dtype == self.source {
            true => source,
            false => {
                let values = write(&source.to_f32(argument)?, f32::to_le_bytes)?;
                RawTensor::new(argument, self.dtype, &self.before, values)?
            }
        };
        let columns = self.shape.last().copied().unwrap_or(0);
        let made = match &self.make {
            Make::Copy => return Ok(source),
            Make::Fill(_) | Make::Noise(_) => return self.of_nothing(argument),
            Make::Heads {
                heads,
                width,
                noise,
            } => {
                let source = self.with_noise(argument, source, *width, *noise)?;
                let rows: Vec<usize> = places(heads, *width).collect();
                return source.gather(argument, &rows);
            }
            Make::Columns { heads, width, by } => {
                map_rows(argument, &source, columns, |row, to| {
                    for (to, column) in to.iter_mut().zip(places(heads, *width)) {
                        *to = row[column] / by;
                    }
                })
            }
            Make::Scale(by) => map_rows(argument, &source, columns, |row, to| {
                for (to, value) in to.iter_mut().zip(row) {
                    *to = value * by;
                }
            }),
            Make::Divide { heads, width, by } if !source.dtype().is_float() => {
                return divide_columns(argument, source, places(heads, *width), *by);
            }
            Make::Divide { heads, width, by } => map_rows(argument, &source, columns, |row, to| {
                to.copy_from_slice(row);
                for column in places(heads, *width) {
                    to[column] /= by;
                }
            }),
            Make::Fold { heads, width, mix } => {
                let map = turned(others, *width, *mix)?;
                map_rows(argument, &source, columns, |row, to| {
                    to.copy_from_slice(row);
                    for &head in heads {
                        let columns = head * width..(head + 1) * width;
                        multiply(&row[columns.clone()], &mut to[columns], &map);
                    }
                })
            }
        }?;
        check_finite(argument, &source, &made)?;
        Ok(made)
    }

    /// The tensor, and behind its rows heads of noise.
    fn with_noise<'a>(
        &self,
        argument: &str,
        source: RawTensor<'a>,
        width: usize,
        (heads, noise): (usize, Noise),
    ) -> Result<RawTensor<'a>, Error> {
        if heads == 0 {
            return Ok(source);
        }
        let mut shape = source.shape().to_vec();
        let too_many = || Error::shape(argument, "rows that fit this machine", heads);
        let rows = heads.checked_mul(width).ok_or_else(too_many)?;
        let columns: usize = shape.iter().skip(1).product();
        let len = rows.checked_mul(columns).ok_or_else(too_many)?;
        let values = write(&noise.values(&self.name, len)?, f32::to_le_bytes)?;
        let values = RawTensor::new(argument, Dtype::F32, &[len], values)?;
        let values = values.cast(argument, source.dtype())?.tensor.into_owned()?;
        let mut bytes = try_zeroed(source.bytes().len() + values.bytes().len())?;
        let (old, new) = bytes.split_at_mut(source.bytes().len());
        old.copy_from_slice(source.bytes());
        new.copy_from_slice(values.bytes());
        if let Some(first) = shape.first_mut() {
            *first += rows;
        }
        RawTensor::new(argument, source.dtype(), &shape, Cow::Owned(bytes))
    }

    fn of_nothing(&self, argument: &str) -> Result<RawTensor<'static>, Error> {
        let len: usize = self.shape.iter().product();
        let values = match self.make {
            Make::Fill(value) => {
                let mut values: Vec<f32> = try_zeroed(len)?;
                values.fill(value as f32);
                values
            }
            Make::Noise(noise) => noise.values(&self.name, len)?,
            _ => return Err(Error::internal(format!("{argument} is made of nothing"))),
        };
        let bytes = write(&values, f32::to_le_bytes)?;
        RawTensor::new(argument, Dtype::F32, &self.shape, bytes)
    }
}

/// Checks that no value became infinite.
fn check_finite(
    argument: &str,
    before: &RawTensor<'_>,
    after: &RawTensor<'_>,
) -> Result<(), Error> {
    let is_finite = |tensor: &RawTensor<'_>| {
        let values = tensor.to_f32(argument)?;
        Ok::<bool, Error>(values.iter().all(|value| value.is_finite()))
    };
    match is_finite(after)? || !is_finite(before)? {
        true => Ok(()),
        false => Err(Error::dtype(
            argument,
            "elements that hold what its values become: F32 or BF16",
            "some that become infinite",
        )),
    }
}

/// `base + scale · B A`, of A `[rank, inputs]` and B `[outputs, rank]`.
fn sum(
    argument: &str,
    base: &RawTensor<'_>,
    [a, b]: [&RawTensor<'_>; 2],
    scale: f64,
) -> Result<RawTensor<'static>, Error> {
    let (&[outputs, inputs], &[rank, of], &[rows, depth]) = (base.shape(), a.shape(), b.shape())
    else {
        return Err(Error::shape(argument, "matrices", "others"));
    };
    if of != inputs || rows != outputs || depth != rank {
        return Err(Error::shape(
            argument,
            format_args!("lora_A [rank, {inputs}] and lora_B [{outputs}, rank]"),
            format_args!("[{rank}, {of}] and [{rows}, {depth}]"),
        ));
    }
    let (a, b) = (a.to_f32(argument)?, b.to_f32(argument)?);
    let index = Cell::new(0);
    map_rows(argument, base, inputs, |row, to| {
        to.copy_from_slice(row);
        let factors = index.replace(index.get() + rank);
        let factors = &b[factors..factors + rank];
        for (&factor, a) in factors.iter().zip(a.chunks_exact(inputs.max(1))) {
            let factor = scale * f64::from(factor);
            for (to, &a) in to.iter_mut().zip(a) {
                *to += factor * f64::from(a);
            }
        }
    })
}

/// Rows, or columns, of heads.
pub(super) fn places(heads: &[usize], width: usize) -> impl Iterator<Item = usize> {
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
    if Some(weight.len()) != width.checked_mul(width) {
        return Err(Error::file(
            "weights.dex.weight",
            format_args!("a matrix of {width} rows and columns"),
            format_args!("{} values", weight.len()),
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
fn multiply(row: &[f64], made: &mut [f64], map: &[f64]) {
    for (to, line) in made.iter_mut().zip(map.chunks_exact(row.len().max(1))) {
        *to = row.iter().zip(line).map(|(x, y)| x * y).sum();
    }
}
