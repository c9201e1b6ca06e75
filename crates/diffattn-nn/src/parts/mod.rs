//! How models take their weights: part by part. First all that can be known without them is checked (names, element types,
//! shapes); then come the elements of one part after the other, which are packed and not needed afterwards, so that no more
//! than one part is in memory twice. Reads no file; what a model is made of, the models say.

mod source;

pub use source::{PartWeights, Weight, WeightData, WeightSource};

use crate::weights::Weights;
use diffattn::{DType, Data, Error, Linear, Slices, Tensor, check_len, format_shape};
use safetensors::Dtype;
use std::collections::{BTreeMap, BTreeSet};

/// How many unknown names an error lists.
const LISTED: usize = 4;

/// What a checkpoint says of a weight: all but its elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WeightInfo {
    /// Its name.
    pub name: String,
    /// The type of its elements.
    pub dtype: Dtype,
    /// Its shape.
    pub shape: Vec<usize>,
}

impl WeightInfo {
    /// What a tensor of that name is.
    #[must_use]
    pub fn of(name: &str, tensor: &Tensor<'_>) -> Self {
        Self {
            name: name.to_owned(),
            dtype: stored(tensor.data.dtype()),
            shape: tensor.shape.clone(),
        }
    }
}

fn stored(dtype: DType) -> Dtype {
    match dtype {
        DType::F32 => Dtype::F32,
        DType::F16 => Dtype::F16,
        DType::Bf16 => Dtype::BF16,
    }
}

/// A checkpoint's entries while a model makes its parts of them.
pub(crate) struct Entries<'e> {
    by_name: BTreeMap<&'e str, &'e WeightInfo>,
    used: BTreeSet<&'e str>,
    part: Vec<WeightInfo>,
    parts: Vec<Vec<WeightInfo>>,
}

impl<'e> Entries<'e> {
    pub(crate) fn new(entries: &'e [WeightInfo]) -> Result<Self, Error> {
        let mut by_name = BTreeMap::new();
        for entry in entries {
            if by_name.insert(entry.name.as_str(), entry).is_some() {
                return Err(Error::file(
                    format_args!("weights.{}", entry.name),
                    "one weight of this name",
                    "more than one",
                ));
            }
        }
        Ok(Self {
            by_name,
            used: BTreeSet::new(),
            part: Vec::new(),
            parts: Vec::new(),
        })
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &'e str> {
        self.by_name.keys().copied()
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// The extents of a weight of `N` axes, which `expected` puts in words. Not yet of any part.
    pub(crate) fn shape<const N: usize>(
        &self,
        name: &str,
        expected: &str,
    ) -> Result<[usize; N], Error> {
        let fault = |got: String| {
            let expected = format!("a tensor of shape {expected}");
            Error::file(format_args!("weights.{name}"), expected, got)
        };
        let entry = self
            .by_name
            .get(name)
            .ok_or_else(|| fault("none".to_owned()))?;
        <[usize; N]>::try_from(entry.shape.as_slice())
            .ok()
            .filter(|shape| !shape.contains(&0))
            .ok_or_else(|| fault(format_shape(&entry.shape)))
    }

    /// Takes the weight, which must have `shape`, into the part, where there is one; gives whether there is.
    pub(crate) fn optional(&mut self, name: &str, shape: &[usize]) -> Result<bool, Error> {
        let Some((&name, &entry)) = self.by_name.get_key_value(name) else {
            return Ok(false);
        };
        if entry.shape != shape {
            return Err(Error::file(
                format_args!("weights.{name}"),
                format_args!("a tensor of shape {}", format_shape(shape)),
                format_shape(&entry.shape),
            ));
        }
        if ![Dtype::F32, Dtype::F16, Dtype::BF16].contains(&entry.dtype) {
            return Err(Error::file(
                format_args!("weights.{name}"),
                "elements of F32, F16 or BF16",
                entry.dtype,
            ));
        }
        self.used.insert(name);
        self.part.push(entry.clone());
        Ok(true)
    }

    /// Takes the weight, which must be there and have `shape`, into the part.
    pub(crate) fn required(&mut self, name: &str, shape: &[usize]) -> Result<(), Error> {
        if self.optional(name, shape)? {
            return Ok(());
        }
        Err(Error::file(
            format_args!("weights.{name}"),
            format_args!("a tensor of shape {}", format_shape(shape)),
            "none",
        ))
    }

    /// Leaves the weights whose names begin with `prefix` where they are: they are known, and not wanted.
    pub(crate) fn leave_aside(&mut self, prefix: &str) {
        let names = self.by_name.keys().filter(|name| name.starts_with(prefix));
        self.used.extend(names);
    }

    /// What was taken since the last one is a part.
    pub(crate) fn end_part(&mut self) {
        self.parts.push(std::mem::take(&mut self.part));
    }

    /// An error for entries that no part took.
    pub(crate) fn refuse_others(&self) -> Result<(), Error> {
        let unknown: Vec<&str> = self
            .names()
            .filter(|name| !self.used.contains(name))
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

    pub(crate) fn finish(self) -> Parts {
        Parts {
            loaded: vec![false; self.parts.len()],
            list: self.parts,
        }
    }
}

/// The parts of a model, and which are there.
#[derive(Debug, Clone)]
pub(crate) struct Parts {
    list: Vec<Vec<WeightInfo>>,
    loaded: Vec<bool>,
}

impl Parts {
    pub(crate) fn list(&self) -> &[Vec<WeightInfo>] {
        &self.list
    }

    /// [`Error::Option`] naming `model` unless all parts are there.
    pub(crate) fn check_complete(&self) -> Result<(), Error> {
        match self.loaded.iter().position(|loaded| !loaded) {
            None => Ok(()),
            Some(part) => Err(Error::option(
                "model",
                format_args!("one with all of its {} parts", self.list.len()),
                format_args!("one without part {part}"),
            )),
        }
    }

    /// Whether the part may come, and of these weights.
    fn check(&self, part: usize, weights: &PartWeights<'_>) -> Result<(), Error> {
        let Some(wanted) = self.list.get(part) else {
            return Err(Error::option(
                "part",
                format_args!("one of {} parts, counted from 0", self.list.len()),
                part,
            ));
        };
        if self.loaded[part] {
            return Err(Error::option(
                "part",
                "one that is not loaded yet",
                format_args!("{part}, which is"),
            ));
        }
        for entry in wanted {
            let argument = format!("weights.{}", entry.name);
            let expected = || {
                let shape = format_shape(&entry.shape);
                format!("a tensor of shape {shape} and type {}", entry.dtype)
            };
            let Some(weight) = weights.get(&entry.name) else {
                return Err(Error::file(argument, expected(), "none"));
            };
            let tensor = weight.tensor();
            let dtype = stored(tensor.data.dtype());
            if (dtype, &weight.shape) != (entry.dtype, &entry.shape) {
                let got = format!("{} of {dtype}", format_shape(&weight.shape));
                return Err(Error::file(argument, expected(), got));
            }
            check_len(&argument, &weight.shape, tensor.data.len())?;
        }
        if let Some(other) = weights
            .keys()
            .find(|name| !wanted.iter().any(|entry| entry.name == **name))
        {
            return Err(Error::file(
                format_args!("weights.{other}"),
                format_args!("only the weights of part {part}"),
                "one of another",
            ));
        }
        Ok(())
    }
}

/// What a model makes of its parts. Their weights are checked before.
pub(crate) trait Build {
    /// Units of work of a part.
    fn units(&self, part: usize) -> usize;

    /// Does one, in order; the last one puts the part together.
    fn build(
        &mut self,
        part: usize,
        unit: usize,
        weights: &mut PartWeights<'_>,
    ) -> Result<(), Error>;

    /// Forgets a part that is not put together.
    fn forget(&mut self);

    /// All parts are there.
    fn complete(&mut self) -> Result<(), Error>;
}

/// A part of a model on its way: worked off by [`Slices::step`]. One that is dropped before its end changes nothing.
pub struct PartLoad<'l, 'w> {
    parts: &'l mut Parts,
    build: &'l mut dyn Build,
    part: usize,
    weights: PartWeights<'w>,
    done: usize,
    is_failed: bool,
}

impl std::fmt::Debug for PartLoad<'_, '_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PartLoad")
            .field("part", &self.part)
            .field("done", &self.done)
            .finish_non_exhaustive()
    }
}

impl<'l, 'w> PartLoad<'l, 'w> {
    pub(crate) fn new(
        parts: &'l mut Parts,
        build: &'l mut dyn Build,
        part: usize,
        weights: PartWeights<'w>,
    ) -> Result<Self, Error> {
        parts.check(part, &weights)?;
        Ok(Self {
            parts,
            build,
            part,
            weights,
            done: 0,
            is_failed: false,
        })
    }
}

impl Slices for PartLoad<'_, '_> {
    fn total(&self) -> usize {
        self.build.units(self.part)
    }

    fn done(&self) -> usize {
        self.done
    }

    fn step(&mut self, count: usize) -> Result<(), Error> {
        if self.is_failed {
            return Err(Error::Internal(
                "a part was loaded on after a step that failed".to_owned(),
            ));
        }
        self.is_failed = true;
        for _ in 0..count.max(1).min(self.total() - self.done) {
            self.build.build(self.part, self.done, &mut self.weights)?;
            self.done += 1;
            if self.done == self.total() {
                self.weights.clear();
                self.parts.loaded[self.part] = true;
                if self.parts.check_complete().is_ok() {
                    self.build.complete()?;
                }
            }
        }
        self.is_failed = false;
        Ok(())
    }
}

impl Drop for PartLoad<'_, '_> {
    fn drop(&mut self) {
        if self.done < self.total() {
            self.build.forget();
        }
    }
}

/// The weights of a part, read from a source.
pub(crate) fn read_part<'a>(
    entries: &[WeightInfo],
    source: &mut dyn WeightSource<'a>,
) -> Result<PartWeights<'a>, Error> {
    let mut weights = PartWeights::new();
    for entry in entries {
        // (One that is missing after all is refused with the part.)
        if let Some(weight) = source.read(&entry.name)? {
            weights.insert(entry.name.clone(), weight);
        }
    }
    Ok(weights)
}

/// The weights of a part on their way into a layer: they are known to be there, and of their shapes.
pub(crate) struct Part<'p, 'w>(pub(crate) &'p PartWeights<'w>);

impl<'p> Part<'p, '_> {
    pub(crate) fn optional(&self, name: &str) -> Option<Tensor<'p>> {
        self.0.get(name).map(Weight::tensor)
    }

    pub(crate) fn required(&self, name: &str) -> Result<Tensor<'p>, Error> {
        self.optional(name)
            .ok_or_else(|| Error::Internal(format!("{name} is not in its part")))
    }

    pub(crate) fn vector(&self, name: &str) -> Result<Vec<f32>, Error> {
        self.required(name)?.data.to_f32()
    }

    pub(crate) fn optional_vector(&self, name: &str) -> Result<Option<Vec<f32>>, Error> {
        self.optional(name)
            .map(|weight| weight.data.to_f32())
            .transpose()
    }

    /// `{name}.weight` and, where given, `{name}.bias`.
    pub(crate) fn linear(&self, name: &str) -> Result<Linear, Error> {
        let weight = self.required(&format!("{name}.weight"))?;
        let bias = self.optional(&format!("{name}.bias"));
        Linear::new(&weight, bias.as_ref())
    }

    /// The weights under `prefix`, by what follows it.
    pub(crate) fn under(&self, prefix: &str) -> Weights<'p> {
        let under = |(name, weight): (&String, &'p Weight<'_>)| {
            Some((name.strip_prefix(prefix)?.to_owned(), weight.tensor()))
        };
        self.0.iter().filter_map(under).collect()
    }
}

/// Elements of a weight, where they lie.
pub(crate) fn elements<'a>(data: &Data<'a>, range: std::ops::Range<usize>) -> Data<'a> {
    match *data {
        Data::F32(x) => Data::F32(&x[range]),
        Data::F16(x) => Data::F16(&x[range]),
        Data::Bf16(x) => Data::Bf16(&x[range]),
    }
}
