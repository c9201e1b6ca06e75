//! A checkpoint's entries against the lists of a model's weights, part by part, before a single
//! element is read: names, element types, shapes. Names in lists are those that models have
//! ([`Names`]); sentences on a weight that is there have the file's. A quantised weight is one of a
//! list, whatever tensors a file has for it.

use crate::declare::{Declare, DeclaredTensor, Id, Need, Precision};
use crate::dtype::Dtype;
use crate::mlx::{self, MlxQuantization};
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

/// What A and B of a low-rank difference beside a map's weight are called, `W x + B A x`; none of a
/// tensor that is no map's weight. (Not as PEFT calls them, whose B A is yet to be multiplied.)
#[must_use]
pub fn low_rank_names(weight: &str) -> Option<[String; 2]> {
    let module = weight.strip_suffix(".weight")?;
    Some(["a", "b"].map(|part| format!("{module}.low_rank_{part}.weight")))
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
    declared: Vec<Vec<DeclaredTensor>>,
    notices: Vec<String>,
}

impl CheckedParts {
    /// The weights of each part, by the file's names.
    #[must_use]
    pub fn list(&self) -> &[Vec<WeightInfo>] {
        &self.list
    }

    /// What each weight of each part is to the model, by the model's names. Where the file has
    /// scales and biases of a quantised weight beside it, they follow it.
    #[must_use]
    pub fn declared(&self) -> &[Vec<DeclaredTensor>] {
        &self.declared
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
        let (mut part, mut declared) = (Vec::new(), Vec::new());
        for tensor in list.tensors() {
            let Some(info) = self.take(&tensor)? else {
                continue;
            };
            part.push(info.clone());
            let beside = match info.dtype {
                Dtype::U32 => self.take_numbers(info, &tensor)?,
                _ => Vec::new(),
            };
            declared.push(tensor);
            let low_rank = self.take_low_rank(&declared[declared.len() - 1])?;
            for (info, tensor) in beside.into_iter().chain(low_rank) {
                part.push(info.clone());
                declared.push(tensor);
            }
        }
        self.parts.list.push(part);
        self.parts.declared.push(declared);
        Ok(())
    }

    fn take(&mut self, tensor: &DeclaredTensor) -> Result<Option<&'e WeightInfo>, Error> {
        let DeclaredTensor {
            name, shape, need, ..
        } = tensor;
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
        let is_packed = entry.dtype == Dtype::U32 && tensor.precision != Precision::Exact;
        if entry.shape != *shape && !is_packed {
            return Err(Error::file(
                format_args!("weights.{}", entry.name),
                format_args!("a tensor of shape {}", format_shape(shape)),
                format_shape(&entry.shape),
            ));
        }
        if ![Dtype::F32, Dtype::F16, Dtype::BF16].contains(&entry.dtype.kept()) && !is_packed {
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

    /// The low-rank difference beside the weight of a map, where there is one ([`low_rank_names`]).
    fn take_low_rank(
        &mut self,
        tensor: &DeclaredTensor,
    ) -> Result<Vec<(&'e WeightInfo, DeclaredTensor)>, Error> {
        let &[outputs, inputs] = tensor.shape.as_slice() else {
            return Ok(Vec::new());
        };
        let Some([a, b]) = low_rank_names(&tensor.name) else {
            return Ok(Vec::new());
        };
        let rank = match (tensor.precision, self.by_name.get(a.as_str())) {
            (Precision::Map, Some(entry)) => entry.shape.first().copied().unwrap_or(0),
            _ => return Ok(Vec::new()),
        };
        let mut taken = Vec::new();
        for (name, shape) in [(a, [rank, inputs]), (b, [outputs, rank])] {
            let declared = DeclaredTensor {
                name,
                shape: shape.to_vec(),
                need: Need::Required,
                precision: Precision::Exact,
            };
            if let Some(entry) = self.take(&declared)? {
                taken.push((entry, declared));
            }
        }
        Ok(taken)
    }

    /// The scales and biases of codes as MLX packs them, which must fit the weight `tensor`.
    fn take_numbers(
        &mut self,
        codes: &WeightInfo,
        tensor: &DeclaredTensor,
    ) -> Result<Vec<(&'e WeightInfo, DeclaredTensor)>, Error> {
        let mut numbers = Vec::new();
        for name in MlxQuantization::beside(&tensor.name) {
            let entry = self.by_name.get(name.as_str()).copied();
            let entry = entry.ok_or_else(|| {
                Error::file(
                    format_args!("weights.{name}"),
                    format_args!("a tensor, as {} is of U32, MLX's codes", codes.name),
                    "none",
                )
            })?;
            self.used.insert(&entry.name);
            let declared = DeclaredTensor {
                name,
                shape: entry.shape.clone(),
                need: Need::Optional,
                precision: Precision::Exact,
            };
            numbers.push((entry, declared));
        }
        let [scales, biases] = [0, 1].map(|at: usize| numbers[at].0);
        mlx::check([codes, scales, biases], &tensor.shape)?;
        Ok(numbers)
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
