//! How models take their weights: part by part. First all that can be known without them is checked
//! ([`diffattn_files::Entries`]); then come the elements of one part after the other, which are
//! packed and not needed afterwards, so that no more than one part is in memory twice. Reads no
//! file; what a model is made of, its lists say.

mod part;
mod source;

pub(crate) use part::{Part, elements};
pub use source::{PartWeights, Weight, WeightData, WeightSource};

use crate::checkpoint::Dtype;
use diffattn::{Error, check_len, format_shape};
use diffattn_files::CheckedParts;
pub use diffattn_files::WeightInfo;
use std::sync::Arc;

/// The parts of a model, and which are there.
#[derive(Debug, Clone)]
pub(crate) struct Parts {
    checked: CheckedParts,
    loaded: Vec<bool>,
}

impl Parts {
    pub(crate) fn new(checked: CheckedParts) -> Self {
        Self {
            loaded: vec![false; checked.list().len()],
            checked,
        }
    }

    /// The weights of each part, by the file's names.
    pub(crate) fn list(&self) -> &[Vec<WeightInfo>] {
        self.checked.list()
    }

    /// What is odd about the checkpoint and loaded all the same.
    pub(crate) fn notices(&self) -> &[String] {
        self.checked.notices()
    }

    /// Checks the weights of a part; gives them by the names that the model has for them.
    pub(crate) fn take<'w>(
        &self,
        part: usize,
        mut weights: PartWeights<'w>,
    ) -> Result<PartWeights<'w>, Error> {
        self.check(part, &weights)?;
        let pairs = self.list()[part].iter().zip(&self.checked.names()[part]);
        Ok(pairs
            .filter_map(|(info, name)| Some((name.clone(), weights.remove(&info.name)?)))
            .collect())
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
            let tensor = weight.tensor();
            let dtype = Dtype::from(tensor.data.dtype());
            if (dtype, &weight.shape) != (entry.dtype.kept(), &entry.shape) {
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
