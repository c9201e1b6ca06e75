//! Weights that a public layer is given, on their way into it: each must be there, known and of its
//! shape, as the layer's list says ([`Declare`]). Reads no file.

use diffattn::{Error, Linear, Tensor, check_len, format_shape};
pub use diffattn_files::Weights;
use diffattn_files::{Declare, Declared, Id, Kind, Need, Projections};

/// Weights on their way into a layer.
pub(crate) struct Source<'w, 'a> {
    weights: &'w Weights<'a>,
    list: Declare,
}

impl<'w, 'a> Source<'w, 'a> {
    /// The weights of this list. Their names were checked ([`check_names`]).
    pub(crate) fn new(weights: &'w Weights<'a>, list: Declare) -> Self {
        Self { weights, list }
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
    fn required(&self, name: &str, shape: &[usize]) -> Result<&'w Tensor<'a>, Error> {
        self.optional(name, shape)?.ok_or_else(|| {
            Error::option(
                format_args!("weights.{name}"),
                format_args!("a tensor of shape {}", format_shape(shape)),
                "none",
            )
        })
    }

    /// Whichever of its names a weight of the list is given by.
    fn name<'l>(&self, weight: &'l Declared) -> Result<&'l str, Error> {
        let (name, Some(also)) = (weight.name.as_str(), weight.also.as_deref()) else {
            return Ok(&weight.name);
        };
        let [by_name, by_other] = [name, also].map(|name| {
            let mut stems = self.weights.keys().map(|key| key.strip_prefix(name));
            stems.any(|rest| rest.is_some_and(|rest| rest.starts_with('.')))
        });
        if by_name && by_other {
            return Err(Error::option(
                "weights",
                format_args!("one of {name} and {also}"),
                "both",
            ));
        }
        Ok(if by_other { also } else { name })
    }

    /// The weight and, where given, the bias of a linear map, not packed yet.
    fn map(&self, id: Id) -> Result<(&'w Tensor<'a>, Option<&'w Tensor<'a>>), Error> {
        let map = self.list.get(id);
        let name = self.name(map)?;
        let Kind::Linear {
            outputs, inputs, ..
        } = map.kind
        else {
            return Err(Error::internal(format!("{name} is no map")));
        };
        let weight = self.required(&format!("{name}.weight"), &[outputs, inputs])?;
        let bias = self.optional(&format!("{name}.bias"), &[outputs])?;
        Ok((weight, bias))
    }

    /// Checks the weight of a linear map, and packs nothing yet.
    pub(crate) fn check_weight(&self, id: Id) -> Result<(), Error> {
        let map = self.list.get(id);
        match &map.kind {
            &Kind::Linear {
                outputs, inputs, ..
            } => self.required(&map.weight(), &[outputs, inputs]).map(drop),
            Kind::Tensor(_) | Kind::Number => Ok(()),
        }
    }

    /// The weight of a linear map, not packed.
    #[cfg(feature = "models")]
    pub(crate) fn tensor(&self, id: Id) -> Result<&'w Tensor<'a>, Error> {
        Ok(self.map(id)?.0)
    }

    /// A linear map, packed.
    pub(crate) fn linear(&self, id: Id) -> Result<Linear, Error> {
        let (weight, bias) = self.map(id)?;
        Linear::new(weight, bias)
    }

    /// A linear map in the place of `held`, where it is given, with a bias if that has one.
    pub(crate) fn renewed(&self, id: Id, held: &Linear) -> Result<Option<Linear>, Error> {
        let name = self.name(self.list.get(id))?;
        let mut stems = self.weights.keys().map(|key| key.strip_prefix(name));
        if !stems.any(|rest| rest.is_some_and(|rest| rest.starts_with('.'))) {
            return Ok(None);
        }
        let linear = self.linear(id)?;
        let has_bias = [held, &linear].map(|of| of.bias().is_some());
        let [expected, got] = has_bias.map(|is_there| if is_there { "one" } else { "none" });
        if expected == got {
            return Ok(Some(linear));
        }
        Err(Error::option(
            format_args!("weights.{name}.bias"),
            format_args!("{expected}, as the layer has"),
            got,
        ))
    }

    /// The projections, packed.
    pub(crate) fn projections(&self, ids: Projections<Id>) -> Result<Projections<Linear>, Error> {
        Ok(Projections {
            q: self.linear(ids.q)?,
            k: self.linear(ids.k)?,
            v: self.linear(ids.v)?,
            out: self.linear(ids.out)?,
        })
    }

    /// The values of a tensor, where it is given; one that must be there is.
    pub(crate) fn values(&self, id: Id) -> Result<Option<Vec<f32>>, Error> {
        let Declared {
            name, kind, need, ..
        } = self.list.get(id);
        let shape: &[usize] = match kind {
            Kind::Tensor(shape) => shape,
            // (Of one axis, too.)
            _ if self
                .weights
                .get(name)
                .is_some_and(|weight| weight.shape == [1]) =>
            {
                &[1]
            }
            _ => &[],
        };
        let weight = match need {
            Need::Required => Some(self.required(name, shape)?),
            Need::Optional => self.optional(name, shape)?,
            Need::Refused(why) => {
                return match self.weights.get(name) {
                    None => Ok(None),
                    Some(_) => Err(Error::option(
                        format_args!("weights.{name}"),
                        format_args!("none {why}"),
                        "one",
                    )),
                };
            }
        };
        weight.map(|weight| weight.data.to_f32()).transpose()
    }

    /// The values of a tensor that must be there.
    pub(crate) fn vector(&self, id: Id) -> Result<Vec<f32>, Error> {
        let values = self.values(id)?;
        values.ok_or_else(|| Error::internal(format!("{} is not wanted", self.list.get(id).name)))
    }

    /// One number.
    pub(crate) fn number(&self, id: Id) -> Result<f64, Error> {
        let first = self.vector(id)?.first().copied().map(f64::from);
        let name = &self.list.get(id).name;
        first.ok_or_else(|| Error::internal(format!("{name} has no element")))
    }
}

/// The names of a list's tensors, each weight by its first one.
pub(crate) fn tensor_names(list: &Declare) -> Vec<String> {
    let mut names = Vec::new();
    for weight in list.weights() {
        names.push(weight.weight());
        if let Kind::Linear { .. } = weight.kind {
            names.push(weight.bias());
        }
    }
    names
}

/// Checks that all names are of a list: with another one, somebody's weight would be passed over.
pub(crate) fn check_names(weights: &Weights<'_>, list: &Declare) -> Result<(), Error> {
    let known = |name: &str| list.weights().iter().any(|weight| weight.is_named(name));
    let Some(unknown) = weights.keys().find(|name| !known(name)) else {
        return Ok(());
    };
    let names = list.weights().iter().flat_map(|weight| {
        let end = match weight.kind {
            Kind::Linear { .. } => ".weight|bias",
            Kind::Tensor(_) | Kind::Number => "",
        };
        let names = std::iter::once(weight.name.as_str()).chain(weight.also.as_deref());
        names.map(move |name| format!("{name}{end}"))
    });
    let names: Vec<String> = names.collect();
    Err(Error::option(
        "weights",
        format_args!("names among {}", names.join(", ")),
        format_args!("{unknown:?}"),
    ))
}
