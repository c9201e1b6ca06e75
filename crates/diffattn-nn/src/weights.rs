//! Named weights, and their way into a layer: each must be there, known and of its shape. Reads no file.

use diffattn::{Error, Linear, Tensor, check_len, format_shape};
use diffattn_files::PROJECTIONS;
pub use diffattn_files::Weights;
#[cfg(feature = "models")]
use std::cell::RefCell;
#[cfg(feature = "models")]
use std::collections::BTreeMap;

/// Weights on their way into a layer.
pub(crate) struct Source<'w, 'a> {
    weights: &'w Weights<'a>,
    #[cfg(feature = "models")]
    packed: RefCell<Packed>,
}

/// Projections that were packed before, one by one: of the weights that come with them.
#[cfg(feature = "models")]
pub(crate) type Packed = BTreeMap<&'static str, Linear>;

impl<'w, 'a> Source<'w, 'a> {
    /// Checks that all names are known: projections, and `others` in full.
    pub(crate) fn new(
        weights: &'w Weights<'a>,
        projections: &[&str],
        others: &[&str],
    ) -> Result<Self, Error> {
        let projections: Vec<&str> = PROJECTIONS.iter().chain(projections).copied().collect();
        let known = |name: &str| {
            let projection = name
                .strip_suffix(".weight")
                .or_else(|| name.strip_suffix(".bias"));
            others.contains(&name) || projection.is_some_and(|name| projections.contains(&name))
        };
        match weights.keys().find(|name| !known(name)) {
            None => Ok(Self {
                weights,
                #[cfg(feature = "models")]
                packed: RefCell::default(),
            }),
            Some(unknown) => {
                let mut names: Vec<String> = projections
                    .iter()
                    .map(|name| format!("{name}.weight|bias"))
                    .collect();
                names.extend(others.iter().map(|&name| name.to_owned()));
                Err(Error::option(
                    "weights",
                    format_args!("names among {}", names.join(", ")),
                    format_args!("{unknown:?}"),
                ))
            }
        }
    }

    /// With projections that are packed already, in the place of their weights.
    #[cfg(feature = "models")]
    pub(crate) fn with_packed(self, packed: Packed) -> Self {
        Self {
            packed: RefCell::new(packed),
            ..self
        }
    }

    /// The weight, which must have `shape`, where it is given.
    fn optional(&self, name: &str, shape: &[usize]) -> Result<Option<&'w Tensor<'a>>, Error> {
        let Some(weight) = self.weights.get(name) else {
            return Ok(None);
        };
        if weight.shape != shape {
            let expected = format_shape(shape);
            return Err(Error::shape(
                format_args!("weights.{name}"),
                format_args!("shape {expected}"),
                format_shape(&weight.shape),
            ));
        }
        check_len(&format!("weights.{name}"), shape, weight.data.len())?;
        Ok(Some(weight))
    }

    /// The weight, which must be there and have `shape`.
    pub(crate) fn required(&self, name: &str, shape: &[usize]) -> Result<&'w Tensor<'a>, Error> {
        self.optional(name, shape)?.ok_or_else(|| {
            Error::option(
                format_args!("weights.{name}"),
                format_args!("a tensor of shape {}", format_shape(shape)),
                "none",
            )
        })
    }

    /// `{name}.weight` `[outputs, inputs]` and, where given, `{name}.bias` `[outputs]`.
    pub(crate) fn linear(
        &self,
        name: &str,
        outputs: usize,
        inputs: usize,
    ) -> Result<Linear, Error> {
        let weight = self.required(&format!("{name}.weight"), &[outputs, inputs])?;
        let bias = self.optional(&format!("{name}.bias"), &[outputs])?;
        #[cfg(feature = "models")]
        if let Some(packed) = self.packed.borrow_mut().remove(name) {
            return Ok(packed);
        }
        Linear::new(weight, bias)
    }

    /// The output projection, under whichever name it has.
    pub(crate) fn output(&self, outputs: usize, inputs: usize) -> Result<Linear, Error> {
        let has = |name: &str| self.weights.keys().any(|key| key.starts_with(name));
        match (has("out_proj."), has("o_proj.")) {
            (true, true) => Err(Error::option(
                "weights",
                "one of out_proj and o_proj",
                "both",
            )),
            (false, true) => self.linear("o_proj", outputs, inputs),
            _ => self.linear("out_proj", outputs, inputs),
        }
    }

    /// A vector of `len` values.
    pub(crate) fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>, Error> {
        self.required(name, &[len])?.data.to_f32()
    }

    /// A vector of `len` values, where it is given.
    pub(crate) fn optional_vector(
        &self,
        name: &str,
        len: usize,
    ) -> Result<Option<Vec<f32>>, Error> {
        self.optional(name, &[len])?
            .map(|weight| weight.data.to_f32())
            .transpose()
    }

    /// One number, of shape `[]` or `[1]`.
    pub(crate) fn number(&self, name: &str) -> Result<f64, Error> {
        let shape: &[usize] = if self
            .weights
            .get(name)
            .is_some_and(|weight| weight.shape == [1])
        {
            &[1]
        } else {
            &[]
        };
        let values = self.required(name, shape)?.data.to_f32()?;
        values
            .first()
            .copied()
            .map(f64::from)
            .ok_or_else(|| Error::Internal(format!("{name} has no element")))
    }

    /// An error when the weight is given, though there is no use for it.
    pub(crate) fn refuse(&self, name: &str, why: &str) -> Result<(), Error> {
        match self.weights.get(name) {
            None => Ok(()),
            Some(_) => Err(Error::option(
                format_args!("weights.{name}"),
                format_args!("none {why}"),
                "one",
            )),
        }
    }
}
