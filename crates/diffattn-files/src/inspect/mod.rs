//! Says what a checkpoint is: by the names and shapes of its tensors, and by its configuration
//! where there is one. Reads no tensor and believes no configuration: where the two disagree,
//! tensors win and a sentence says so.

mod architecture;
mod config;
mod converted;
mod diff_llama;
mod inspection;
mod layers;
mod llama;
mod named;
mod phi4flash;
mod quantised;
mod same_s;
mod timm;

pub use architecture::Architecture;
pub use inspection::{DtypeCount, Inspection};
pub use quantised::QuantizedCount;

use crate::decoder::{is_diff_mlx, is_poly_norm};
use crate::dtype::Dtype;
use crate::entry::Entry;
use crate::found::{self, Entries, Found, MARKS, depth_of};
use crate::names::Names;
use crate::notices;
use config::Config;
use diffattn::Error;
use named::Named;
use quantised::Unpacked;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

/// The weights that lie packed as MLX has them, by the codes' names, with the shapes that they have
/// as floats. `config` is the text of the checkpoint's `config.json`.
pub(crate) fn packed_weights(entries: &[&Entry], config: &str) -> Result<Vec<Entry>, Error> {
    let config = Config::parse(Some(config))?;
    Ok(Unpacked::of(entries, &config).weights)
}

/// Says what a checkpoint of these tensors is. `config` is the text of its `config.json`.
///
/// # Errors
/// [`ErrorKind::File`](diffattn::ErrorKind::File) when `config` is no JSON object.
pub fn inspect<'e>(
    entries: impl IntoIterator<Item = &'e Entry>,
    config: Option<&str>,
) -> Result<Inspection, Error> {
    let stored: Vec<&'e Entry> = entries.into_iter().collect();
    let config = Config::parse(config)?;
    let unpacked = Unpacked::of(&stored, &config);
    let floats = stored
        .iter()
        .copied()
        .filter(|entry| !unpacked.packed.contains(&entry.name));
    let entries: Entries<'_> = floats
        .chain(&unpacked.weights)
        .map(|entry| (entry.name.as_str(), entry))
        .collect();
    let names = Names::read(entries.keys().copied());
    let mut inspection = Inspection {
        architecture: None,
        layers: Vec::new(),
        plain_layers: Vec::new(),
        converted_layers: Vec::new(),
        dtypes: dtypes(&stored),
        quantized: unpacked.counts,
        parameters: entries
            .values()
            .fold(0u64, |sum, entry| sum.saturating_add(entry.elements())),
        missing: Vec::new(),
        unexpected: Vec::new(),
        warnings: unpacked.warning.into_iter().collect(),
    };
    let is_named = || llama::is_named(&names.read);
    let is_converted = config.architecture() == Some(Architecture::DiffAttnLlama) && is_named();
    // (Names do not tell how a Llama was converted, but the configuration does.)
    let found = match is_converted {
        true => Vec::new(),
        false => find(&entries),
    };
    // (Other architectures have a Llama's names, too: where a configuration says one that is not
    // known here, it is that.)
    let is_llama = || {
        let is_known = config.architecture().is_some() || config.value("model_type").is_none();
        is_known && is_named()
    };
    inspection.architecture = match found.first() {
        _ if is_converted => Some(Architecture::DiffAttnLlama),
        Some(layer) => architecture(layer, &names.read),
        None => is_llama().then_some(Architecture::Llama),
    }
    .or_else(|| same_s::is_named(&names.read).then_some(Architecture::SameS))
    .or_else(|| config.architecture());
    inspection
        .warnings
        .extend(unlike(inspection.architecture, &config));
    let has_base = inspection.architecture.is_some_and(Architecture::is_text);
    inspection.warnings.extend(names.notices(has_base));
    if let Some(architecture) = inspection.architecture {
        // (A layer that reads another's keys and values cannot be taken out of its model.)
        for found in found.into_iter().filter(|found| !found.has_no_keys()) {
            layers::add(architecture, found, &config, &mut inspection);
        }
        if !matches!(architecture, Architecture::UnilmV1 | Architecture::UnilmV2) {
            let wide = entries
                .values()
                .map(|entry| (entry.name.as_str(), entry.dtype));
            inspection.warnings.extend(notices::wide(wide));
            let named = Named::new(names, &entries, &mut inspection);
            compare(
                architecture,
                is_converted,
                (&named, &config),
                &mut inspection,
            );
        }
    }
    Ok(inspection)
}

/// Compares the configuration and the names of a model with what it should have; `is_converted`:
/// whether it is a Llama with differential heads.
fn compare(
    architecture: Architecture,
    is_converted: bool,
    (entries, config): (&Named<'_>, &Config),
    inspection: &mut Inspection,
) {
    match architecture {
        Architecture::DiffLlama | Architecture::Motif | Architecture::DiffMlx => {
            diff_llama::compare(entries, config, inspection);
        }
        Architecture::Llama | Architecture::DiffAttnLlama => {
            llama::compare(is_converted, (entries, config), inspection);
        }
        Architecture::Phi4Flash => phi4flash::compare(entries, config, inspection),
        Architecture::SameS => same_s::compare(entries, config, inspection),
        _ => timm::compare(entries, config, inspection),
    }
}

/// What is odd about what was found, beside what the configuration says.
fn unlike(found: Option<Architecture>, config: &Config) -> Option<String> {
    match (found, config.architecture()) {
        (None, _) => Some("there is no differential attention that is known in it".to_owned()),
        (Some(found), Some(said)) if found != said => Some(format!(
            "config.json says {said}, but the tensors are those of {found}"
        )),
        _ => None,
    }
}

/// The layers that there are marks of, in order.
fn find<'e>(entries: &Entries<'e>) -> Vec<Found<'e>> {
    let mut prefixes = BTreeSet::new();
    for name in entries.keys() {
        for mark in MARKS {
            if let Some(prefix) = name.strip_suffix(mark)
                && (prefix.is_empty() || prefix.ends_with('.'))
            {
                prefixes.insert(prefix);
            }
        }
    }
    let names = found::names();
    let mut found: Vec<Found<'e>> = prefixes
        .into_iter()
        .map(|prefix| Found::new(entries, prefix, &names))
        .collect();
    found.sort_by_key(|found| (depth_of(found.prefix), found.prefix));
    found
}

fn dtypes(entries: &[&Entry]) -> Vec<DtypeCount> {
    let mut counts: BTreeMap<Dtype, DtypeCount> = BTreeMap::new();
    for entry in entries {
        let count = counts.entry(entry.dtype).or_insert(DtypeCount {
            dtype: entry.dtype,
            tensors: 0,
            elements: 0,
        });
        count.tensors += 1;
        count.elements = count.elements.saturating_add(entry.elements());
    }
    let mut counts: Vec<DtypeCount> = counts.into_values().collect();
    counts.sort_by_key(|count| std::cmp::Reverse(count.elements));
    counts
}

fn architecture(layer: &Found<'_>, names: &[Cow<'_, str>]) -> Option<Architecture> {
    if layer.is_flash {
        Some(Architecture::Phi4Flash)
    } else if layer.has("lambda_proj.weight") {
        Some(Architecture::UnilmV2)
    } else if layer.is_fused || layer.output == Some("proj") {
        Some(Architecture::TimmDiffVit)
    } else if layer.has("subln.weight") && names.iter().any(|name| is_poly_norm(name)) {
        Some(Architecture::Motif)
    } else if layer.has("subln.weight") && names.iter().any(|name| is_diff_mlx(name)) {
        Some(Architecture::DiffMlx)
    } else if layer.has("subln.weight") {
        Some(Architecture::UnilmV1)
    } else {
        match layer.output {
            Some("o_proj") => Some(Architecture::DiffLlama),
            Some(_) => Some(Architecture::UnilmV1),
            None => None,
        }
    }
}
