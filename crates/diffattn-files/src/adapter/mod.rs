//! Low-rank adapters in PEFT's names: which weights a file of one changes, by how much, and which
//! conversion it was trained over; read and written. Knows text and headers; holds no elements and
//! merges none.

mod config;
mod plan;
mod written;

use crate::entry::Entry;
use config::AdapterConfig;
pub use config::AdapterConversion;
use diffattn::{Error, format_shape};
use std::collections::BTreeMap;
pub use written::{AdapterOptions, AdapterWeight, WrittenAdapter};

/// What stands before the names of a model's modules in an adapter.
pub const ADAPTER_PREFIX: &str = "base_model.model.";

const LORA_A: &str = ".lora_A.weight";
const LORA_B: &str = ".lora_B.weight";

/// What an adapter does to one weight.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Change {
    /// `W + scale · B A`; the entries of A and B.
    LowRank { a: Entry, b: Entry },
    /// The weight is this one.
    Whole(Entry),
}

/// A low-rank adapter, as its two files describe it.
#[derive(Debug, Clone)]
pub struct Adapter {
    config: AdapterConfig,
    /// By the weight's name.
    changes: BTreeMap<String, Change>,
}

impl Adapter {
    /// Reads the text of `adapter_config.json`, and the entries of `adapter_model.safetensors`.
    ///
    /// # Errors
    /// [`ErrorKind::File`](diffattn::ErrorKind::File) naming the entry of the configuration, or the
    /// tensor: kinds of adapters other than LoRA, tensors that are not in pairs, shapes that do not
    /// fit one another or `r`.
    pub fn new<'e>(
        config: &str,
        entries: impl IntoIterator<Item = &'e Entry>,
    ) -> Result<Self, Error> {
        let config = AdapterConfig::read(config)?;
        let (mut changes, mut first, mut second) =
            (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for entry in entries {
            let Some(name) = entry.name.strip_prefix(ADAPTER_PREFIX) else {
                let expected = format_args!("names that begin with {ADAPTER_PREFIX}");
                return Err(Error::file("adapter", expected, &entry.name));
            };
            if let Some(module) = name.strip_suffix(LORA_A) {
                first.insert(module.to_owned(), entry);
            } else if let Some(module) = name.strip_suffix(LORA_B) {
                second.insert(module.to_owned(), entry);
            } else {
                config.check_whole(name)?;
                changes.insert(name.to_owned(), Change::Whole(entry.clone()));
            }
        }
        for (module, a) in first {
            let Some(b) = second.remove(&module) else {
                return Err(unpaired(&module, LORA_B));
            };
            config.check_rank(a, b)?;
            let (a, b) = (a.clone(), b.clone());
            let weight = format!("{module}.weight");
            if changes.contains_key(&weight) {
                let expected = "a low-rank difference or the whole weight, not both";
                return Err(Error::file("adapter", expected, weight));
            }
            changes.insert(weight, Change::LowRank { a, b });
        }
        if let Some(module) = second.keys().next() {
            return Err(unpaired(module, LORA_A));
        }
        if changes.is_empty() {
            return Err(Error::file("adapter", "one tensor or more", "none"));
        }
        Ok(Self { config, changes })
    }

    /// What B A is multiplied with: alpha / r.
    #[must_use]
    pub fn scale(&self) -> f64 {
        self.config.scale
    }

    /// Channels between A and B.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.config.rank
    }

    /// The conversion of a plain Llama that it was trained over, where it says one.
    #[must_use]
    pub fn conversion(&self) -> Option<&AdapterConversion> {
        self.config.conversion.as_ref()
    }

    /// Whether a source of [`ModelConversion`](crate::ModelConversion) lies in the adapter's file.
    #[must_use]
    pub fn has(&self, source: &str) -> bool {
        source.starts_with(ADAPTER_PREFIX)
    }
}

fn unpaired(module: &str, missing: &str) -> Error {
    let missing = format!("{ADAPTER_PREFIX}{module}{missing}");
    Error::file("adapter", format_args!("the tensor {missing}"), "none")
}

/// Checks that a change fits a weight of that shape.
fn check_fits(name: &str, shape: &[usize], change: &Change) -> Result<(), Error> {
    let wrong = |entry: &Entry, expected: &[usize]| {
        Err(Error::file(
            format_args!("adapter, tensor {}", entry.name),
            format_args!("shape {}, as {name} has", format_shape(expected)),
            format_shape(&entry.shape),
        ))
    };
    match change {
        Change::Whole(entry) if entry.shape != shape => wrong(entry, shape),
        Change::Whole(_) => Ok(()),
        Change::LowRank { a, b } => {
            let &[outputs, inputs] = shape else {
                let expected = format_args!("{name} to be a matrix");
                return Err(Error::file("adapter", expected, format_shape(shape)));
            };
            if a.shape.last() != Some(&inputs) {
                return wrong(a, &[a.shape.first().copied().unwrap_or(0), inputs]);
            }
            if b.shape.first() != Some(&outputs) {
                return wrong(b, &[outputs, b.shape.last().copied().unwrap_or(0)]);
            }
            Ok(())
        }
    }
}
