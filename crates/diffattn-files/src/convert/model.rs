//! The conversion of a whole checkpoint, planned: what is written, and how each tensor is made.
//! Reads and writes no file; holds one tensor at a time.

use super::step::Step;
use crate::dtype::Dtype;
use crate::mlx;
use crate::tensor::RawTensor;
use crate::write::TensorSpec;
use diffattn::Error;
use serde_json::{Map, Value, json};

/// A conversion, planned: what it writes, and how each tensor is made of those that there are.
#[derive(Debug, Clone)]
pub struct ModelConversion {
    pub(crate) steps: Vec<Step>,
    pub(crate) config: Map<String, Value>,
    pub(crate) heads: Vec<Vec<usize>>,
    pub(crate) is_exact: bool,
    pub(crate) totals: Totals,
    pub(crate) notes: Vec<String>,
}

/// Elements of tensors.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Totals {
    before: u64,
    after: u64,
}

impl Totals {
    /// Those of a checkpoint, of which nothing has become yet.
    pub(crate) fn new<'t>(steps: impl Iterator<Item = &'t Step>) -> Self {
        let before = count(steps);
        let after = before;
        Self { before, after }
    }

    /// Those of what it becomes.
    pub(crate) fn becoming<'t>(self, steps: impl Iterator<Item = &'t Step>) -> Self {
        let after = count(steps);
        Self { after, ..self }
    }
}

fn count<'t>(steps: impl Iterator<Item = &'t Step>) -> u64 {
    steps.fold(0, |sum, step| sum.saturating_add(step.parameters()))
}

impl ModelConversion {
    /// Has the configuration say nothing of packed weights where all became floats.
    pub(crate) fn forget_packing(&mut self) {
        let mut steps = self.steps.iter();
        if steps.clone().any(Step::is_unpacked) && !steps.any(Step::is_codes) {
            self.config.remove(mlx::KEY);
            self.config.remove("quantization_config");
        }
    }

    /// Which heads of each layer it makes differential, or makes plain.
    #[must_use]
    pub fn heads(&self) -> &[Vec<usize>] {
        &self.heads
    }

    /// Whether what is written computes what there was: no weight is rounded, and what is new
    /// subtracts nothing or is made up for. Sums come in another order, so the last bits differ.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        self.is_exact
    }

    /// Elements of all tensors that are written.
    #[must_use]
    pub fn parameters(&self) -> u64 {
        self.totals.after
    }

    /// How many elements more are written than there were; fewer are negative.
    #[must_use]
    pub fn added(&self) -> i64 {
        self.totals.after as i64 - self.totals.before as i64
    }

    /// What is to be known of it, each a sentence.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The text of the `config.json` of what is written.
    #[must_use]
    pub fn config(&self) -> String {
        format!("{:#}\n", Value::Object(self.config.clone()))
    }

    /// Has the configuration say that element type, where it says one.
    pub(crate) fn name_dtype(&mut self, dtype: Dtype) {
        let name = match dtype {
            Dtype::F16 => "float16",
            Dtype::BF16 => "bfloat16",
            _ => "float32",
        };
        for key in ["dtype", "torch_dtype"] {
            if let Some(said) = self.config.get_mut(key) {
                *said = json!(name);
            }
        }
    }

    /// The tensors that are written, by name.
    #[must_use]
    pub fn tensors(&self) -> Vec<TensorSpec<'_>> {
        let specs = self.steps.iter().map(|step| TensorSpec {
            name: &step.name,
            dtype: step.written(),
            shape: &step.shape,
        });
        specs.collect()
    }

    /// The names of the tensors that the one of that index is made of; none for one that is new.
    #[must_use]
    pub fn sources(&self, index: usize) -> &[String] {
        self.steps.get(index).map_or(&[], |step| &step.from)
    }

    /// Whether the bytes of the tensor of that index are those of its only source.
    #[must_use]
    pub fn is_copied(&self, index: usize) -> bool {
        self.steps.get(index).is_some_and(Step::is_copied)
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
