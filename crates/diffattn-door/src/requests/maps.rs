//! The outputs of every operator that gives maps: `map1`, `map2`, …, `diff`.

use diffattn::{DType, Error, MapOutputs};

use crate::job::{OutputSpec, Outputs};

pub(super) fn map_outputs(terms: usize, shape: &[usize]) -> Result<Vec<OutputSpec>, Error> {
    let mut specs = Vec::with_capacity(terms + 1);
    for term in 1..=terms {
        specs.push(OutputSpec::new(format!("map{term}"), DType::F32, shape)?);
    }
    specs.push(OutputSpec::new("diff", DType::F32, shape)?);
    Ok(specs)
}

/// Takes outputs of [`map_outputs`].
pub(super) fn take_map_outputs<'m>(
    terms: usize,
    outputs: &mut Outputs<'m>,
) -> Result<MapOutputs<'m>, Error> {
    let mut maps = Vec::with_capacity(terms);
    for _ in 0..terms {
        maps.push(outputs.f32()?);
    }
    Ok(MapOutputs {
        terms: maps,
        diff: outputs.f32()?,
    })
}
