//! How models take their weights: part by part. First all that can be known without them is checked (names, element types,
//! shapes); then come the elements of one part after the other, which are packed and not needed afterwards, so that no more
//! than one part is in memory twice. Reads no file; what a model is made of, the models say.

mod source;

pub use source::{PartWeights, Weight, WeightData, WeightSource};

use crate::checkpoint::names::Names;
use crate::checkpoint::notices;
use crate::weights::Weights;
use diffattn::{DType, Data, Error, Linear, Slices, Tensor, check_len, format_shape};
use safetensors::Dtype;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

/// What a checkpoint says of a weight: all but its elements. Of F64, a model takes the elements rounded to F32.
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

/// What a model keeps of a weight's elements: those that are wider than it computes with are rounded on their way.
fn kept(dtype: Dtype) -> Dtype {
    match dtype {
        Dtype::F64 => Dtype::F32,
        other => other,
    }
}

/// A checkpoint's entries while a model makes its parts of them. Names here are those that models have ([`Names`]); sentences
/// on a weight that is there have the file's.
pub(crate) struct Entries<'e> {
    by_name: BTreeMap<Cow<'e, str>, &'e WeightInfo>,
    /// By the file's names.
    used: BTreeSet<&'e str>,
    part: Vec<PartEntry>,
    parts: Vec<Vec<PartEntry>>,
    notices: Vec<String>,
}

/// A weight of a part.
#[derive(Debug, Clone)]
struct PartEntry {
    name: String,
    info: WeightInfo,
}

impl<'e> Entries<'e> {
    /// Reads the entries; `has_base`: whether the model may be saved without its head, and then without the prefix `model.`.
    pub(crate) fn new(entries: &'e [WeightInfo], has_base: bool) -> Result<Self, Error> {
        let names = Names::read(entries.iter().map(|entry| entry.name.as_str()));
        let notices = names.notices(has_base);
        let mut by_name: BTreeMap<Cow<'e, str>, &'e WeightInfo> = BTreeMap::new();
        for (name, entry) in names.read.into_iter().zip(entries) {
            if let Some(other) = by_name.insert(name, entry) {
                return Err(Error::file(
                    format_args!("weights.{}", entry.name),
                    "one weight of this name",
                    match other.name == entry.name {
                        true => "more than one".to_owned(),
                        false => format!("{}, too", other.name),
                    },
                ));
            }
        }
        Ok(Self {
            by_name,
            used: BTreeSet::new(),
            part: Vec::new(),
            parts: Vec::new(),
            notices,
        })
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(Cow::as_ref)
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// Tells whoever loads what is odd.
    pub(crate) fn tell(&mut self, notice: String) {
        self.notices.push(notice);
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
        let Some((name, &entry)) = self.by_name.get_key_value(name) else {
            return Ok(false);
        };
        if entry.shape != shape {
            return Err(Error::file(
                format_args!("weights.{}", entry.name),
                format_args!("a tensor of shape {}", format_shape(shape)),
                format_shape(&entry.shape),
            ));
        }
        if ![Dtype::F32, Dtype::F16, Dtype::BF16].contains(&kept(entry.dtype)) {
            return Err(Error::file(
                format_args!("weights.{}", entry.name),
                "elements of F64, F32, F16 or BF16",
                entry.dtype,
            ));
        }
        self.used.insert(&entry.name);
        self.part.push(PartEntry {
            name: name.as_ref().to_owned(),
            info: entry.clone(),
        });
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

    /// What was taken since the last one is a part.
    pub(crate) fn end_part(&mut self) {
        self.parts.push(std::mem::take(&mut self.part));
    }

    /// Tells of the entries that no part took and `is_known` does not know of. One within a module that the model has, by
    /// `is_within`, is an error: it would change the numbers.
    pub(crate) fn end(
        &mut self,
        is_known: impl Fn(&str) -> bool,
        is_within: impl Fn(&str) -> bool,
    ) -> Result<(), Error> {
        let others = self
            .by_name
            .iter()
            .filter(|(name, entry)| !self.used.contains(entry.name.as_str()) && !is_known(name));
        let (within, others): (Vec<_>, Vec<_>) = others.partition(|(name, _)| is_within(name));
        let names = |list: &[(&Cow<'e, str>, &&'e WeightInfo)]| -> Vec<&'e str> {
            list.iter().map(|(_, entry)| entry.name.as_str()).collect()
        };
        if let Some(first) = names(&within).first() {
            return Err(Error::file(
                format_args!("weights.{first}"),
                "only weights that the model has, in its modules",
                notices::listed(names(&within)),
            ));
        }
        let mut taken: Vec<_> = (self.parts.iter().flatten())
            .map(|entry| (entry.info.name.as_str(), entry.info.dtype))
            .collect();
        taken.sort_unstable_by_key(|(name, _)| *name);
        let told = [notices::wide(taken), notices::unused(names(&others))];
        self.notices.extend(told.into_iter().flatten());
        Ok(())
    }

    pub(crate) fn finish(self) -> Parts {
        let (list, names) = self
            .parts
            .into_iter()
            .map(|part| {
                part.into_iter()
                    .map(|entry| (entry.info, entry.name))
                    .unzip()
            })
            .unzip::<_, _, Vec<_>, Vec<_>>();
        Parts {
            loaded: vec![false; list.len()],
            list,
            names,
            notices: self.notices,
        }
    }
}

/// The parts of a model, and which are there.
#[derive(Debug, Clone)]
pub(crate) struct Parts {
    /// By the file's names.
    list: Vec<Vec<WeightInfo>>,
    /// What the model calls each.
    names: Vec<Vec<String>>,
    loaded: Vec<bool>,
    notices: Vec<String>,
}

impl Parts {
    pub(crate) fn list(&self) -> &[Vec<WeightInfo>] {
        &self.list
    }

    /// What is odd about the checkpoint and loaded all the same.
    pub(crate) fn notices(&self) -> &[String] {
        &self.notices
    }

    /// The weights of a checked part by the names that the model has for them.
    fn by_model_names<'w>(&self, part: usize, mut weights: PartWeights<'w>) -> PartWeights<'w> {
        let (list, names) = (&self.list[part], &self.names[part]);
        let pairs = list.iter().zip(names);
        pairs
            .filter_map(|(info, name)| Some((name.clone(), weights.remove(&info.name)?)))
            .collect()
    }

    /// [`ErrorKind::Option`](diffattn::ErrorKind::Option) naming `model` unless all parts are there.
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
                format!("a tensor of shape {shape} and type {}", kept(entry.dtype))
            };
            let Some(weight) = weights.get(&entry.name) else {
                return Err(Error::file(argument, expected(), "none"));
            };
            let tensor = weight.tensor();
            let dtype = stored(tensor.data.dtype());
            if (dtype, &weight.shape) != (kept(entry.dtype), &entry.shape) {
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
pub(crate) trait Build: Send {
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
        let weights = parts.by_model_names(part, weights);
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
