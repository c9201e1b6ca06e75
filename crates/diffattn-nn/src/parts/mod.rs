//! How models take their weights: part by part. First all that can be known without them is checked
//! ([`diffattn_files::Entries`]); then come the elements of one part after the other, which are
//! packed and not needed afterwards, so that no more than one part is in memory twice. Reads no
//! file; what a model is made of, its lists say.

mod formats;
mod matrix;
mod part;
mod source;

pub(crate) use formats::stored_bits;
pub use formats::{WeightFormat, WeightFormats};
pub(crate) use matrix::GROUP;
pub use matrix::Recoding;
pub(crate) use part::{Part, Table, elements};
pub use source::{PartWeights, Weight, WeightData, WeightSource};

use diffattn::{Error, format_shape};
pub use diffattn_files::WeightInfo;
use diffattn_files::{CheckedParts, DeclaredTensor, Dtype, MlxQuantization, Precision};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The parts of a model, and which are there.
#[derive(Debug, Clone)]
pub(crate) struct Parts {
    checked: CheckedParts,
    loaded: Vec<bool>,
    formats: WeightFormats,
    notices: Vec<String>,
}

impl Parts {
    pub(crate) fn new(checked: CheckedParts) -> Self {
        Self {
            loaded: vec![false; checked.list().len()],
            notices: checked.notices().to_vec(),
            checked,
            formats: WeightFormats::default(),
        }
    }

    /// Says as what the weights are held, before the first comes.
    pub(crate) fn hold_as(&mut self, formats: WeightFormats) {
        self.formats = formats;
        let missing: Vec<&str> = self
            .weights()
            .filter(|(_, tensor)| formats.misses(tensor))
            .map(|(info, _)| info.name.as_str())
            .collect();
        self.notices.extend(not_quantised(&missing));
    }

    /// Every weight, as its file says it and as what the model has it.
    pub(crate) fn weights(&self) -> impl Iterator<Item = (&WeightInfo, &DeclaredTensor)> {
        let parts = self.list().iter().zip(self.checked.declared());
        parts.flat_map(|(infos, tensors)| infos.iter().zip(tensors))
    }

    /// Elements of all weights; of quantised ones those that the codes stand for.
    pub(crate) fn parameters(&self) -> u64 {
        let weights: Vec<_> = self.weights().collect();
        let beside: BTreeSet<String> = weights
            .iter()
            .filter(|(info, _)| info.dtype == Dtype::U32)
            .flat_map(|(_, tensor)| MlxQuantization::beside(&tensor.name))
            .collect();
        let counted = weights.iter().filter(|(_, of)| !beside.contains(&of.name));
        counted.fold(0, |sum, (_, of)| sum.saturating_add(elements_of(of)))
    }

    /// As what the linear maps are held: where not all are alike, that of most elements.
    pub(crate) fn held_as(&self) -> WeightFormat {
        let mut counts: Vec<(WeightFormat, u64)> = Vec::new();
        let maps = self.weights();
        for (info, tensor) in maps.filter(|(_, of)| of.precision == Precision::Map) {
            let format = self.formats.held(info, tensor);
            match counts.iter_mut().find(|(known, _)| *known == format) {
                Some((_, count)) => *count = count.saturating_add(elements_of(tensor)),
                None => counts.push((format, elements_of(tensor))),
            }
        }
        // (Of as many, the first.)
        let most = counts.iter().rev().max_by_key(|(_, count)| *count);
        most.map_or(WeightFormat::F32, |(format, _)| *format)
    }

    /// The weights of each part, by the file's names.
    pub(crate) fn list(&self) -> &[Vec<WeightInfo>] {
        self.checked.list()
    }

    /// What is odd about the checkpoint and loaded all the same.
    pub(crate) fn notices(&self) -> &[String] {
        &self.notices
    }

    /// Checks the weights of a part; gives them by the names that the model has for them.
    pub(crate) fn take<'w>(
        &self,
        part: usize,
        mut weights: PartWeights<'w>,
    ) -> Result<PartWeights<'w>, Error> {
        self.check(part, &weights)?;
        let pairs = self.list()[part].iter().zip(&self.checked.declared()[part]);
        let mut taken = PartWeights::new();
        taken.formats = self.formats;
        for (info, tensor) in pairs {
            let Some(weight) = weights.remove(&info.name) else {
                continue;
            };
            let is_coded = info.dtype != info.dtype.kept() || info.dtype == Dtype::U32;
            let weight = if tensor.precision != Precision::Exact && is_coded {
                weight
            } else {
                weight.into_floats(&format!("weights.{}", info.name))?
            };
            taken.insert(tensor.name.clone(), weight);
        }
        Ok(taken)
    }

    /// The part is there; gives whether all are.
    pub(crate) fn end(&mut self, part: usize) -> bool {
        self.loaded[part] = true;
        self.loaded.iter().all(|&loaded| loaded)
    }

    /// The model that was made once all parts were there;
    /// [`ErrorKind::Option`](diffattn::ErrorKind::Option) naming `model` where one is missing.
    pub(crate) fn whole<'m, M>(&self, model: &'m Option<Arc<M>>) -> Result<&'m Arc<M>, Error> {
        match self.loaded.iter().position(|loaded| !loaded) {
            None => model
                .as_ref()
                .ok_or_else(|| Error::internal("all parts make no model")),
            Some(part) => Err(Error::option(
                "model",
                format_args!("one with all of its {} parts", self.list().len()),
                format_args!("one without part {part}"),
            )),
        }
    }

    /// The model out of its loader, which alone has it; errors as those of [`Parts::whole`].
    pub(crate) fn finish<M>(&self, model: Option<Arc<M>>) -> Result<M, Error> {
        self.whole(&model)?;
        model
            .and_then(Arc::into_inner)
            .ok_or_else(|| Error::internal("a model that others have, too"))
    }

    /// Whether the part may come, and of these weights.
    fn check(&self, part: usize, weights: &PartWeights<'_>) -> Result<(), Error> {
        let Some(wanted) = self.list().get(part) else {
            return Err(Error::option(
                "part",
                format_args!("one of {} parts, counted from 0", self.list().len()),
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
                format!("a tensor of shape {shape} and type {}", entry.dtype.kept())
            };
            let Some(weight) = weights.get(&entry.name) else {
                return Err(Error::file(argument, expected(), "none"));
            };
            let dtype = weight.dtype();
            let is_it = [entry.dtype, entry.dtype.kept()].contains(&dtype);
            if !is_it || weight.shape != entry.shape {
                let got = format!("{} of {dtype}", format_shape(&weight.shape));
                return Err(Error::file(argument, expected(), got));
            }
            weight.check_len(&argument)?;
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

/// Elements of a weight.
fn elements_of(tensor: &DeclaredTensor) -> u64 {
    let sizes = tensor.shape.iter().map(|&size| size as u64);
    sizes.fold(1, u64::saturating_mul)
}

/// That weights are not quantised, though it was asked for.
fn not_quantised(names: &[&str]) -> Option<String> {
    const LISTED: usize = 4;
    let (listed, more) = names.split_at(names.len().min(LISTED));
    let more = match more.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    (!names.is_empty()).then(|| {
        format!(
            "weights whose rows are no multiple of 32 stay as they are stored: {}{more}",
            listed.join(", ")
        )
    })
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
