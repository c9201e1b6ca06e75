//! A checkpoint as it is: what every conversion begins with. Changes nothing.

use super::packed::Packed;
use super::step::Step;
use crate::entry::Entry;
use crate::inspect::packed_weights;
use crate::mlx::{self, MlxQuantization};
use crate::weight_info::WeightInfo;
use diffattn::Error;
use std::collections::BTreeMap;

/// A step for every tensor of a checkpoint, as it is; but of packed weights that `unpack` names one
/// step, which makes their floats.
pub(crate) fn copies(
    entries: &[&Entry],
    config: &str,
    unpack: &dyn Fn(&str) -> bool,
) -> Result<Vec<Step>, Error> {
    let by_name: BTreeMap<&str, &Entry> =
        (entries.iter().map(|entry| (entry.name.as_str(), *entry))).collect();
    let mut packed: BTreeMap<String, Packed> = BTreeMap::new();
    for weight in packed_weights(entries, config)? {
        let [scales, biases] = MlxQuantization::beside(&weight.name);
        let three = [&weight.name, &scales, &biases];
        let [Some(codes), Some(of_scales), Some(of_biases)] =
            three.map(|name| by_name.get(name.as_str()).map(|entry| info(entry)))
        else {
            continue;
        };
        let packing = mlx::check([&codes, &of_scales, &of_biases], &weight.shape)?;
        for name in [scales, biases] {
            let of = weight.name.clone();
            packed.insert(name, Packed::Numbers { of });
        }
        let codes = Packed::Codes {
            inputs: weight.shape.last().copied().unwrap_or(0),
            group_size: packing.group_size,
        };
        packed.insert(weight.name, codes);
    }
    let steps = entries.iter().filter_map(|entry| {
        let mut step = Step::copy(entry);
        match packed.remove(&entry.name) {
            Some(Packed::Numbers { of }) if unpack(&of) => None,
            Some(Packed::Codes { inputs, .. }) if unpack(&entry.name) => {
                Some(step.unpacked(inputs))
            }
            packed => {
                step.packed = packed;
                Some(step)
            }
        }
    });
    Ok(steps.collect())
}

fn info(entry: &Entry) -> WeightInfo {
    WeightInfo {
        name: entry.name.clone(),
        dtype: entry.dtype,
        shape: entry.shape.clone(),
    }
}
