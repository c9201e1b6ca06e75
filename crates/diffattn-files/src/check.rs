//! A checkpoint's entries against the lists of a model's weights, part by part, before a single
//! element is read: names, element types, shapes. Names in lists are those that models have
//! ([`Names`]); sentences on a weight that is there have the file's.

use crate::declare::{Declare, DeclaredTensor, Id, Need};
use crate::dtype::Dtype;
use crate::names::Names;
use crate::notices;
use diffattn::{DType, Error, Tensor, format_shape};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

/// What a checkpoint says of a weight: all but its elements. Of F64, a model takes the elements
/// rounded to F32, of quantised blocks what they stand for, as F32.
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
            dtype: tensor.data.dtype().into(),
            shape: tensor.shape.clone(),
        }
    }
}

impl From<DType> for Dtype {
    fn from(dtype: DType) -> Self {
        match dtype {
            DType::F32 => Self::F32,
            DType::F16 => Self::F16,
            DType::Bf16 => Self::BF16,
        }
    }
}

impl Dtype {
    /// What a model keeps of a weight's elements: those that are wider than it computes with are
    /// rounded on their way, quantised ones widened.
    #[must_use]
    pub fn kept(self) -> Self {
        match self {
            Self::F64 | Self::Q8_0 | Self::Q4_0 | Self::Q4_1 => Self::F32,
            other => other,
        }
    }
}

/// A checkpoint's entries on their way into the parts of a model.
#[derive(Debug)]
pub struct Entries<'e> {
    by_name: BTreeMap<Cow<'e, str>, &'e WeightInfo>,
    /// By the file's names.
    used: BTreeSet<&'e str>,
    parts: CheckedParts,
}

/// The weights of each part of a model, and what is odd about the checkpoint.
#[derive(Debug, Clone, Default)]
pub struct CheckedParts {
    list: Vec<Vec<WeightInfo>>,
    names: Vec<Vec<String>>,
    notices: Vec<String>,
}

impl CheckedParts {
    /// The weights of each part, by the file's names.
    #[must_use]
    pub fn list(&self) -> &[Vec<WeightInfo>] {
        &self.list
    }

    /// What the model calls each weight of each part.
    #[must_use]
    pub fn names(&self) -> &[Vec<String>] {
        &self.names
    }

    /// What is odd about the checkpoint and loaded all the same.
    #[must_use]
    pub fn notices(&self) -> &[String] {
        &self.notices
    }
}

impl<'e> Entries<'e> {
    /// Reads the entries; `has_base`: whether the model may be saved without its head, and then
    /// without the prefix `model.`.
    ///
    /// # Errors
    /// [`ErrorKind::File`](diffattn::ErrorKind::File) for two weights of one name.
    pub fn new(entries: &'e [WeightInfo], has_base: bool) -> Result<Self, Error> {
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
            parts: CheckedParts {
                notices,
                ..CheckedParts::default()
            },
        })
    }

    /// Every name, as models have them.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(Cow::as_ref)
    }

    /// Whether there is a weight of that name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// Tells whoever loads what is odd.
    pub fn tell(&mut self, notice: impl IntoIterator<Item = String>) {
        self.parts.notices.extend(notice);
    }

    /// Tells of layers that the configuration does not count.
    pub fn tell_layers(&mut self, said: usize, stored: usize) {
        self.parts.notices.push(notices::layers(said, stored));
    }

    /// Whether any of these maps of a list has a bias.
    #[must_use]
    pub fn has_bias(&self, list: &Declare, maps: impl IntoIterator<Item = Id>) -> bool {
        let mut maps = maps.into_iter();
        maps.any(|map| self.has(&list.get(map).bias()))
    }

    /// The extents of a weight of `N` axes, which `expected` puts in words. Not yet of any part.
    ///
    /// # Errors
    /// [`ErrorKind::File`](diffattn::ErrorKind::File) naming the weight: missing, of other axes, or
    /// of none in one of them.
    pub fn shape<const N: usize>(&self, name: &str, expected: &str) -> Result<[usize; N], Error> {
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

    /// Takes the weights of a list as the next part.
    ///
    /// # Errors
    /// [`ErrorKind::File`](diffattn::ErrorKind::File) naming the first weight of the list that is
    /// missing, not wanted, of another shape, or of elements that no model takes.
    pub fn part(&mut self, list: &Declare) -> Result<(), Error> {
        let (mut part, mut names) = (Vec::new(), Vec::new());
        for tensor in list.tensors() {
            if let Some(info) = self.take(&tensor)? {
                part.push(info.clone());
                names.push(tensor.name);
            }
        }
        self.parts.list.push(part);
        self.parts.names.push(names);
        Ok(())
    }

    fn take(&mut self, tensor: &DeclaredTensor) -> Result<Option<&'e WeightInfo>, Error> {
        let DeclaredTensor { name, shape, need } = tensor;
        let Some(&entry) = self.by_name.get(name.as_str()) else {
            return match need {
                Need::Optional | Need::Refused(_) => Ok(None),
                Need::Required => Err(Error::file(
                    format_args!("weights.{name}"),
                    format_args!("a tensor of shape {}", format_shape(shape)),
                    "none",
                )),
            };
        };
        if entry.shape != *shape {
            return Err(Error::file(
                format_args!("weights.{}", entry.name),
                format_args!("a tensor of shape {}", format_shape(shape)),
                format_shape(&entry.shape),
            ));
        }
        if ![Dtype::F32, Dtype::F16, Dtype::BF16].contains(&entry.dtype.kept()) {
            return Err(Error::file(
                format_args!("weights.{}", entry.name),
                "elements of F64, F32, F16 or BF16",
                entry.dtype,
            ));
        }
        if let Need::Refused(why) = need {
            let expected = format_args!("none {why}").to_string();
            return Err(Error::file(format_args!("weights.{name}"), expected, "one"));
        }
        self.used.insert(&entry.name);
        Ok(Some(entry))
    }

    /// The parts. Tells of the entries that none took and `is_buffer` does not know of. One within
    /// a module that the model has, by `is_within`, is an error: it would change the numbers.
    ///
    /// # Errors
    /// [`ErrorKind::File`](diffattn::ErrorKind::File) naming the weight within a module.
    pub fn finish(
        mut self,
        is_buffer: impl Fn(&str) -> bool,
        is_within: impl Fn(&str) -> bool,
    ) -> Result<CheckedParts, Error> {
        let others = self
            .by_name
            .iter()
            .filter(|(name, entry)| !self.used.contains(entry.name.as_str()) && !is_buffer(name));
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
        let mut taken: Vec<_> = (self.parts.list.iter().flatten())
            .map(|entry| (entry.name.as_str(), entry.dtype))
            .collect();
        taken.sort_unstable_by_key(|(name, _)| *name);
        let told = [notices::wide(taken), notices::unused(names(&others))];
        self.parts.notices.extend(told.into_iter().flatten());
        Ok(self.parts)
    }
}
