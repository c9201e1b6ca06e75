//! A model of any family on its way: what it is made of, and how it takes its weights. What a part
//! becomes, a family's [`Builder`] says; all else stands here once. Reads no file.

use super::decoder::TextModel;
use super::diff_vit::DiffViT;
use super::same_s::SameS;
use crate::parts::{
    PartWeights, Parts, WeightFormat, WeightFormats, WeightInfo, WeightSource, read_part,
};
use diffattn::{Error, Pace, Work};
use diffattn_files::DeclaredTensor;
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
    /// It makes latents of audio, and audio of latents.
    Audio,
}

/// A whole model, of whatever family.
#[derive(Debug, Clone)]
pub enum Model {
    /// One that continues texts.
    Text(Arc<dyn TextModel>),
    /// One that looks at images.
    Image(Arc<DiffViT>),
    /// One that makes latents of audio, and audio of latents.
    Audio(Arc<SameS>),
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
    /// As what they are held.
    pub formats: WeightFormats,
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

    /// Says as what the weights are held, before the first comes: as they are stored, if nothing
    /// is said. Those that cannot be so stay as they are stored, and [`ModelLoader::notices`] names
    /// them.
    fn hold_as(&mut self, formats: WeightFormats);

    /// As what the linear maps are held; where not all are alike, as what most of their elements
    /// are.
    fn held_as(&self) -> WeightFormat;

    /// Elements of all weights that the model takes; of quantised ones those that their codes stand
    /// for, of a head that is the embeddings none besides these.
    fn parameters(&self) -> u64;

    /// The weights of each part.
    fn parts(&self) -> &[Vec<WeightInfo>];

    /// Every weight that the model takes, as its file has it, and what it is to the model.
    fn weights(&self) -> Vec<(&WeightInfo, &DeclaredTensor)>;

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

    /// The model, out of its loader, which has none from then on.
    ///
    /// # Errors
    /// As [`ModelLoader::whole`].
    #[cfg(feature = "training")]
    fn take(&mut self) -> Result<Model, Error>;
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

/// What a family makes of its parts.
pub trait Builder: Debug + Send + Sync {
    /// What its configuration says.
    type Config;
    /// The model, once it has all parts.
    type Model: Debug + Send + Sync;

    /// What it is made of.
    fn config(&self) -> &Self::Config;

    /// As [`ModelLoader::config_json`].
    fn config_json(&self) -> Value;

    /// Units of work of a part.
    fn units(&self, part: usize) -> usize;

    /// Makes a part of its weights, which are checked and under the names of the family's lists;
    /// counts all of its units but the last.
    fn build(
        &mut self,
        part: usize,
        weights: PartWeights<'_>,
        pace: &Pace,
    ) -> impl Future<Output = Result<(), Error>> + Send;

    /// The model, of all parts.
    ///
    /// # Errors
    /// [`Error::internal`] where one left nothing behind.
    fn complete(&mut self) -> Result<Self::Model, Error>;

    /// The model as one of any family.
    fn of_any_family(model: Arc<Self::Model>) -> Model;
}

/// A model of one family on its way.
#[derive(Debug)]
pub struct Loader<B: Builder> {
    parts: Parts,
    builder: B,
    model: Option<Arc<B::Model>>,
}

impl<B: Builder> Loader<B> {
    pub(crate) fn of(parts: Parts, builder: B) -> Self {
        Self {
            parts,
            builder,
            model: None,
        }
    }

    /// What the model is made of, with every size as the weights have it.
    #[must_use]
    pub fn config(&self) -> &B::Config {
        self.builder.config()
    }

    /// The model, once all parts are there.
    ///
    /// # Errors
    /// [`ErrorKind::Option`](diffattn::ErrorKind::Option) naming `model` and the part that is
    /// missing.
    pub fn model(&self) -> Result<&Arc<B::Model>, Error> {
        self.parts.whole(&self.model)
    }

    /// The model, out of its loader.
    ///
    /// # Errors
    /// As [`Loader::model`].
    pub fn finish(self) -> Result<B::Model, Error> {
        self.parts.finish(self.model)
    }
}

impl<B: Builder> ModelLoader for Loader<B> {
    fn config_json(&self) -> Value {
        self.builder.config_json()
    }

    fn notices(&self) -> &[String] {
        self.parts.notices()
    }

    fn hold_as(&mut self, formats: WeightFormats) {
        self.parts.hold_as(formats);
    }

    fn held_as(&self) -> WeightFormat {
        self.parts.held_as()
    }

    fn parameters(&self) -> u64 {
        self.parts.parameters()
    }

    fn parts(&self) -> &[Vec<WeightInfo>] {
        self.parts.list()
    }

    fn weights(&self) -> Vec<(&WeightInfo, &DeclaredTensor)> {
        self.parts.weights().collect()
    }

    fn load_part<'l>(
        &'l mut self,
        part: usize,
        weights: PartWeights<'l>,
    ) -> Result<Work<'l>, Error> {
        let weights = self.parts.take(part, weights)?;
        let Self {
            parts,
            builder,
            model,
        } = self;
        let units = builder.units(part);
        Ok(Work::new(units, move |pace| async move {
            builder.build(part, weights, &pace).await?;
            if parts.end(part) {
                *model = Some(Arc::new(builder.complete()?));
            }
            pace.worked(1);
            Ok(())
        }))
    }

    fn whole(&self) -> Result<Model, Error> {
        Ok(B::of_any_family(self.model()?.clone()))
    }

    #[cfg(feature = "training")]
    fn take(&mut self) -> Result<Model, Error> {
        let model = self.whole()?;
        self.model = None;
        Ok(model)
    }
}
