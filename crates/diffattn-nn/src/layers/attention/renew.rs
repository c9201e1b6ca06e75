//! New values in the place of a layer's weights: what follows a step of training. Computes nothing
//! but λ.

use super::lambda::LambdaParts;
use super::layer::{DiffAttnLayer, LambdaSource};
use super::v1::lambda_of;
use crate::weights::{Source, Weights, check_names};
use diffattn::{Error, Linear};
use diffattn_files::{Declare, Need};

impl DiffAttnLayer {
    /// Puts `weights` in the place of the layer's own of these names, each of the shape that it has
    /// and of any element type; the others stay as they are, and on an error all. A map's weight
    /// comes with its bias, where it has one, and what λ is made of comes together.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](diffattn::ErrorKind::Shape) naming the weight as `weights.NAME`,
    /// [`ErrorKind::Option`](diffattn::ErrorKind::Option) for one that the layer has not, or that
    /// another comes without; [`Error::out_of_memory`].
    pub fn set_weights(&mut self, weights: &Weights<'_>) -> Result<(), Error> {
        let (mut list, sizes) = (Declare::new(), self.heads.sizes());
        let (projections, lambda, v1) = if let LambdaSource::Projected(_) = self.lambda {
            let ids = sizes.v2(&mut list);
            (ids.projections, Some(ids.lambda), None)
        } else {
            let has_norm = self.norm.as_ref().is_some_and(|of| of.weight.is_some());
            let norm = match has_norm {
                true => Need::Optional,
                false => Need::Refused("where the layer has none"),
            };
            let form = self.lambda_parts.as_ref().map(LambdaParts::form);
            let ids = sizes.v1(&mut list, form.unwrap_or_default(), norm);
            (ids.projections, None, Some(ids))
        };
        check_names(weights, &list)?;
        let source = Source::new(weights, list);
        // Everything that can fail first.
        let ids = projections.into_array().into_iter().chain(lambda);
        let mut new = Vec::with_capacity(5);
        for (id, held) in ids.zip(self.linears()) {
            new.push(source.renewed(id, held)?);
        }
        if let (Some(ids), Some(parts)) = (&v1, &mut self.lambda_parts) {
            let norm = source.values(ids.norm)?;
            if weights.keys().any(|name| name.starts_with("lambda_")) {
                let made = LambdaParts {
                    weights: lambda_of(&source, ids)?,
                    ..*parts
                };
                self.lambda = LambdaSource::Value(made.value()? as f32);
                *parts = made;
            }
            if let (Some(of), Some(_)) = (&mut self.norm, &norm) {
                of.weight = norm;
            }
        }
        for (held, new) in self.linears().into_iter().zip(new) {
            if let Some(new) = new {
                *held = new;
            }
        }
        Ok(())
    }

    /// The maps: the projections, and that of λ.
    fn linears(&mut self) -> Vec<&mut Linear> {
        let mut maps = vec![&mut self.q, &mut self.k, &mut self.v, &mut self.out];
        if let LambdaSource::Projected(of) = &mut self.lambda {
            maps.push(&mut of.linear);
        }
        maps
    }
}
