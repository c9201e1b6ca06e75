//! The outputs of every operator that gives maps: `map1`, `map2`, …, `diff`.

use diffattn::{DType, Error, MapOutputs};

use crate::job::{OutputSpec, Outputs};

pub(super) fn map_outputs(terms: usize, shape: &[usize]) -> Result<Vec<OutputSpec>, Error> {
    let names = (1..=terms)
        .map(|term| format!("map{term}"))
        .chain(["diff".to_owned()]);
    names
        .map(|name| OutputSpec::new(name, DType::F32, shape))
        .collect()
}

/// Takes outputs of [`map_outputs`].
pub(super) fn take_map_outputs<'m>(
    terms: usize,
    outputs: &mut Outputs<'m>,
) -> Result<MapOutputs<'m>, Error> {
    let terms = (0..terms)
        .map(|_| outputs.f32())
        .collect::<Result<Vec<_>, _>>()?;
    Ok(MapOutputs {
        terms,
        diff: outputs.f32()?,
    })
}
