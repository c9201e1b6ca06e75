//! A Llama with DEX (arXiv 2505.16333) made a plain one: what is subtracted from some heads becomes
//! part of the output projection.

use super::copies::copies;
use super::model::{ModelConversion, Totals};
use super::step::{Make, Step};
use crate::attention::O;
use crate::decoder::{ConversionKind, DEX};
use crate::entry::Entry;
use crate::inspect::{Architecture, Inspection, inspect};
use crate::json::json_object;
use crate::plain::HeadChoice;
use diffattn::Error;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

impl ModelConversion {
    /// Plans what makes a plain Llama of one with DEX, which computes the same: the columns of a
    /// differential head in the output projection are multiplied with `(I − λ W)ᵀ`, in float64,
    /// and rounded once.
    ///
    /// # Errors
    /// [`ErrorKind::File`](diffattn::ErrorKind::File) naming `source` when it is no Llama with DEX,
    /// or the weight that does not fit.
    pub fn fold_dex<'e>(
        entries: impl IntoIterator<Item = &'e Entry>,
        config: &str,
    ) -> Result<Self, Error> {
        let entries: BTreeMap<&str, &Entry> = entries
            .into_iter()
            .map(|entry| (entry.name.as_str(), entry))
            .collect();
        let found = inspect(entries.values().copied(), Some(config))?;
        check(&found)?;
        // (What is multiplied are floats.)
        let layers = found.converted_layers.iter();
        let outputs: BTreeSet<String> = layers.map(|layer| output(&layer.plain.prefix)).collect();
        let entries: Vec<&Entry> = entries.into_values().collect();
        let copies = copies(&entries, config, &|name| outputs.contains(name))?;
        let totals = Totals::new(copies.iter());
        let mut config = json_object("config.json", config)?;
        let mix = mix(&config)?;
        let named = copies.into_iter().map(|step| (step.name.clone(), step));
        let mut steps: BTreeMap<String, Step> = named.collect();
        let mut folded = Vec::new();
        for layer in &found.converted_layers {
            let prefix = &layer.plain.prefix;
            let (Some(of), Some(choice)) = (layer.plain.heads, &layer.differential) else {
                let got = format!("one of which config.json does not say the heads of {prefix}");
                return Err(wrong(got));
            };
            let dex = ["weight", "lambda_learn"].map(|name| format!("{prefix}{DEX}{name}"));
            for name in &dex {
                steps.remove(name);
            }
            let Some(step) = steps.get_mut(&output(prefix)) else {
                continue;
            };
            let shape = [layer.plain.embed_dim, of.heads.saturating_mul(of.head_dim)];
            // (First, so that no number of heads is believed that no weights bear out.)
            step.check(shape)?;
            let heads: Vec<usize> = match choice {
                HeadChoice::All => (0..of.heads).collect(),
                HeadChoice::Listed(heads) => heads.clone(),
            };
            let fold = Make::Fold {
                heads: heads.clone(),
                width: of.head_dim,
                mix,
            };
            step.change(shape, fold)?;
            step.from.extend(dex);
            folded.push(heads);
        }
        config.remove("diff_attention");
        config.insert("model_type".to_owned(), json!(Architecture::Llama.name()));
        config.insert("architectures".to_owned(), json!(["LlamaForCausalLM"]));
        let mut conversion = Self {
            totals: totals.becoming(steps.values()),
            is_exact: false,
            steps: steps.into_values().collect(),
            config,
            heads: folded,
            notes: vec![
                "the columns of these heads in o_proj were multiplied and rounded once".to_owned(),
            ],
        };
        conversion.forget_packing();
        Ok(conversion)
    }
}

/// The output projection of a layer.
fn output(prefix: &str) -> String {
    format!("{prefix}{O}.weight")
}

fn wrong(got: impl std::fmt::Display) -> Error {
    let expected = "a Llama with DEX (model_type \"diffattn_llama\", kind \"dex\")";
    Error::file("source", expected, got)
}

/// Whether all of a Llama with DEX is there.
fn check(found: &Inspection) -> Result<(), Error> {
    match found.architecture {
        Some(Architecture::DiffAttnLlama) => {}
        Some(other) => return Err(wrong(other)),
        None => return Err(wrong("a model that is not known")),
    }
    if let Some(missing) = found.missing.first() {
        return Err(wrong(format_args!("one without {missing}")));
    }
    let is_dex = |kind| kind == ConversionKind::Dex;
    // (Rows of nothing could be any number.)
    let mut layers = found.converted_layers.iter();
    match layers.all(|layer| is_dex(layer.kind) && layer.plain.embed_dim > 0) {
        true if !found.converted_layers.is_empty() => Ok(()),
        _ => Err(wrong("one whose heads are differential otherwise")),
    }
}

/// What λ is multiplied with.
fn mix(config: &Map<String, Value>) -> Result<f64, Error> {
    let mix = config
        .get("diff_attention")
        .and_then(|conversion| conversion.get("mix"));
    match mix {
        None | Some(Value::Null) => Ok(1.0),
        Some(mix) => mix
            .as_f64()
            .ok_or_else(|| Error::file("config.diff_attention.mix", "a number", mix)),
    }
}
