//! A model of any family on its way: what it is made of, and how it takes its weights. Knows no
//! family; reads no file.

use super::decoder::TextModel;
use super::diff_vit::DiffViT;
use crate::parts::{PartWeights, WeightInfo, WeightSource, read_part};
use diffattn::{Error, Work};
use serde_json::Value;
use std::fmt::Debug;
use std::sync::Arc;

/// What a model does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// It continues texts.
    Text,
    /// It looks at images.
    Image,
}

/// A whole model, of whatever family.
#[derive(Debug, Clone)]
pub enum Model {
    /// One that continues texts.
    Text(Arc<dyn TextModel>),
    /// One that looks at images.
    Image(Arc<DiffViT>),
}

/// What a checkpoint says of itself: all but the elements of its weights.
#[derive(Debug, Clone, Copy)]
pub struct ModelFiles<'f> {
    /// The text of `config.json`.
    pub config: &'f str,
    /// The text of `generation_config.json`, where there is one; only of models of texts.
    pub generation_config: Option<&'f str>,
    /// Its weights.
    pub entries: &'f [WeightInfo],
}

/// A model on its way: checked as a whole before it has a single element, then loaded part by part,
/// in any order.
pub trait ModelLoader: Debug + Send + Sync {
    /// The entries of its `config.json` that have a default, as an object, each with the value that
    /// it has.
    fn config_json(&self) -> Value;

    /// What is odd about the checkpoint and loaded all the same, each a sentence: weights that the
    /// model has no use for, more layers than the config counts, elements of F64 (taken as F32),
    /// prefixes of names that were taken off.
    fn notices(&self) -> &[String];

    /// The weights of each part.
    fn parts(&self) -> &[Vec<WeightInfo>];

    /// Checks the weights of a part and prepares to pack them.
    ///
    /// # Errors
    /// [`ErrorKind::Option`](diffattn::ErrorKind::Option) naming `part`: none of that number, or
    /// one that is there already. [`ErrorKind::File`](diffattn::ErrorKind::File) naming the weight
    /// that is not as its entry says; [`ErrorKind::Shape`](diffattn::ErrorKind::Shape) when its
    /// elements do not fill its shape.
    fn load_part<'l>(
        &'l mut self,
        part: usize,
        weights: PartWeights<'l>,
    ) -> Result<Work<'l>, Error>;

    /// The model, once all parts are there.
    ///
    /// # Errors
    /// [`ErrorKind::Option`](diffattn::ErrorKind::Option) naming `model` and the part that is
    /// missing.
    fn whole(&self) -> Result<Model, Error>;
}

impl dyn ModelLoader {
    /// Takes all weights from `source`, one part after the other.
    ///
    /// # Errors
    /// As [`ModelLoader::load_part`]; what the source says; [`Error::out_of_memory`].
    pub fn load_all<'a>(&mut self, source: &mut dyn WeightSource<'a>) -> Result<(), Error> {
        for part in 0..self.parts().len() {
            let weights = read_part(&self.parts()[part], source)?;
            self.load_part(part, weights)?.finish()?;
        }
        Ok(())
    }
}
