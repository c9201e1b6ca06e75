//! The conversion of a whole checkpoint, planned: what is written, and how each tensor is made.
//! Reads and writes no file; holds one tensor at a time.

use super::step::Step;
use crate::tensor::RawTensor;
use crate::write::TensorSpec;
use diffattn::Error;
use serde_json::{Map, Value};

/// A conversion, planned: what it writes, and how each tensor is made of those that there are.
#[derive(Debug, Clone)]
pub struct ModelConversion {
    pub(super) steps: Vec<Step>,
    pub(super) config: Map<String, Value>,
    pub(super) heads: Vec<Vec<usize>>,
}

impl ModelConversion {
    /// Which heads of each layer it makes differential, or makes plain.
    #[must_use]
    pub fn heads(&self) -> &[Vec<usize>] {
        &self.heads
    }

    /// The text of the `config.json` of what is written.
    #[must_use]
    pub fn config(&self) -> String {
        format!("{:#}\n", Value::Object(self.config.clone()))
    }

    /// The tensors that are written, by name.
    #[must_use]
    pub fn tensors(&self) -> Vec<TensorSpec<'_>> {
        let specs = self.steps.iter().map(|step| TensorSpec {
            name: &step.name,
            dtype: step.dtype,
            shape: &step.shape,
        });
        specs.collect()
    }

    /// The names of the tensors that the one of that index is made of; none for one that is new.
    #[must_use]
    pub fn sources(&self, index: usize) -> &[String] {
        self.steps.get(index).map_or(&[], |step| &step.from)
    }

    /// Makes the tensor of that index, of those that [`ModelConversion::sources`] names, in this
    /// order.
    ///
    /// # Errors
    /// [`ErrorKind::Option`](diffattn::ErrorKind::Option) naming `index`, or `sources` where these
    /// are not as many; [`ErrorKind::Dtype`](diffattn::ErrorKind::Dtype) for elements that do not
    /// hold what they should; [`ErrorKind::File`](diffattn::ErrorKind::File) for tensors of other
    /// sizes than their entries said; [`Error::out_of_memory`].
    pub fn make<'a>(
        &self,
        index: usize,
        sources: Vec<RawTensor<'a>>,
    ) -> Result<RawTensor<'a>, Error> {
        let step = self.steps.get(index).ok_or_else(|| {
            let expected = format!("a number below {}", self.steps.len());
            Error::option("index", expected, index)
        })?;
        step.made(sources)
    }
}
