//! What a `config.json` says of a Llama that was converted to differential attention, in its entry
//! `diff_attention`: read and checked. Reads text, no file; knows nothing of weights.

use crate::config::Entries;
use diffattn::Error;
use diffattn_files::LambdaForm;
use diffattn_files::decoder::ConversionKind;
use serde_json::{Value, json};

/// The entry of the configuration.
const KEY: &str = "diff_attention";

/// The version of the entry that is read.
const VERSION: f64 = 1.0;

/// Where the noise heads of a converted layer lie among the rows of its q projection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoiseOrder {
    /// Each behind the head that it belongs to: `[q0, noise0, q1, noise1, …]`. All heads of a layer
    /// are differential, or none.
    Pairs,
    /// All behind the heads that there were before, in the order of those that they belong to.
    Appended,
}

impl NoiseOrder {
    /// Its name in a configuration file.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pairs => "pairs",
            Self::Appended => "appended",
        }
    }
}

/// Which heads of a converted Llama are differential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DifferentialHeads {
    /// All of every layer.
    All,
    /// Those of these numbers, layer by layer, ascending.
    Listed(Vec<Vec<usize>>),
}

/// How a Llama was converted to differential attention: the entries of `diff_attention`.
#[derive(Debug, Clone, PartialEq)]
pub struct LlamaConversion {
    /// Which heads are differential. All by default.
    pub heads: DifferentialHeads,
    /// Where their noise heads lie; with DEX there are none.
    pub order: NoiseOrder,
    /// λ_init of each layer, of the kind `v1`; otherwise empty.
    pub lambda_init: Vec<f64>,
    /// What λ is multiplied with. 1 by default.
    pub mix: f64,
}

impl LlamaConversion {
    /// How many heads of a layer are differential, of `heads` in all.
    pub(crate) fn count(&self, layer: usize, heads: usize) -> usize {
        match &self.heads {
            DifferentialHeads::All => heads,
            DifferentialHeads::Listed(layers) => layers.get(layer).map_or(0, Vec::len),
        }
    }

    /// Which heads of a layer are differential, of `heads` in all.
    pub(crate) fn layer(&self, layer: usize, heads: usize) -> Vec<usize> {
        match &self.heads {
            DifferentialHeads::All => (0..heads).collect(),
            DifferentialHeads::Listed(layers) => layers.get(layer).cloned().unwrap_or_default(),
        }
    }

    /// What the entries that have a default say.
    pub(super) fn known(&self, kind: ConversionKind) -> Value {
        let mut known = json!({
            "heads": match &self.heads {
                DifferentialHeads::All => json!("all"),
                DifferentialHeads::Listed(layers) => json!(layers),
            },
            "mix": self.mix,
        });
        if kind != ConversionKind::Dex {
            known["order"] = json!(self.order.name());
            known["lambda"] = json!(lambda_name(kind));
        }
        known
    }

    /// Reads `diff_attention`, as far as it stands for itself.
    pub(super) fn read(entries: &Entries<'_>) -> Result<(ConversionKind, Self), Error> {
        let entries = entries.object(KEY)?.ok_or_else(|| {
            let expected = "an object that says how the Llama was converted";
            entries.wrong(KEY, expected, entries.value(KEY))
        })?;
        if let Some(version) = entries.number("version")?
            && version != VERSION
        {
            return Err(entries.wrong("version", VERSION, entries.value("version")));
        }
        let kind = kind(&entries)?;
        let order = order(kind, &entries)?;
        let heads = heads(&entries)?;
        let lambda_init = match kind {
            ConversionKind::V1(_) => lambda_init(&entries)?,
            ConversionKind::V2 | ConversionKind::Dex => Vec::new(),
        };
        if let Some(norm) = entries.value("norm") {
            let expected = "none, as converted heads have no norm";
            return Err(entries.wrong("norm", expected, Some(norm)));
        }
        let mix = entries.number("mix")?.unwrap_or(1.0);
        if !mix.is_finite() {
            return Err(entries.wrong("mix", "a finite number", entries.value("mix")));
        }
        let conversion = Self {
            heads,
            order,
            lambda_init,
            mix,
        };
        Ok((kind, conversion))
    }

    /// Checks it against a model of that many layers and heads in each.
    pub(super) fn check(
        &self,
        kind: ConversionKind,
        [layers, heads]: [usize; 2],
    ) -> Result<(), Error> {
        let wrong = |key: String, expected: String, got: String| {
            Err(Error::file(format!("config.{KEY}.{key}"), expected, got))
        };
        let per_layer = || format!("an entry for each of {layers} layers (num_hidden_layers)");
        if matches!(kind, ConversionKind::V1(_)) && self.lambda_init.len() != layers {
            let got = format!("{} entries", self.lambda_init.len());
            return wrong("lambda_init".to_owned(), per_layer(), got);
        }
        let DifferentialHeads::Listed(listed) = &self.heads else {
            return Ok(());
        };
        if listed.len() != layers {
            let got = format!("{} entries", listed.len());
            return wrong("heads".to_owned(), per_layer(), got);
        }
        for (layer, list) in listed.iter().enumerate() {
            let key = format!("heads[{layer}]");
            let is_ascending = list.is_sorted_by(|a, b| a < b);
            if !is_ascending || list.last().is_some_and(|&head| head >= heads) {
                let expected = format!("numbers of heads below {heads}, ascending");
                return wrong(key, expected, format!("{list:?}"));
            }
            let is_paired = kind != ConversionKind::Dex && self.order == NoiseOrder::Pairs;
            if is_paired && !list.is_empty() && list.len() != heads {
                let expected =
                    format!("all {heads} heads or none, as their noise heads lie in pairs");
                return wrong(key, expected, format!("{list:?}"));
            }
        }
        Ok(())
    }
}

/// What λ is made of, by its name.
fn lambda_name(kind: ConversionKind) -> &'static str {
    match kind {
        ConversionKind::V2 => "sigmoid",
        ConversionKind::V1(LambdaForm::Vectors) => "vectors",
        ConversionKind::V1(LambdaForm::Scalars) => "scalars",
        ConversionKind::Dex => "learned",
    }
}

/// A text of an entry, or that it is none of `names`.
fn one_of<T: Copy>(
    entries: &Entries<'_>,
    key: &str,
    names: &[(&str, T)],
    default: Option<T>,
) -> Result<T, Error> {
    let value = entries.value(key);
    let text = value.and_then(Value::as_str);
    let named = names.iter().find(|(name, _)| Some(*name) == text);
    match (named, value, default) {
        (Some(&(_, found)), ..) => Ok(found),
        (None, None, Some(default)) => Ok(default),
        (None, ..) => {
            let names: Vec<String> = names.iter().map(|(name, _)| format!("{name:?}")).collect();
            Err(entries.wrong(key, names.join(" or "), value))
        }
    }
}

/// What the differential heads are.
fn kind(entries: &Entries<'_>) -> Result<ConversionKind, Error> {
    let v1 = |form| ConversionKind::V1(form);
    let kinds = [
        ("v2", ConversionKind::V2),
        ("v1", v1(LambdaForm::Vectors)),
        ("dex", ConversionKind::Dex),
    ];
    let kind = one_of(entries, "kind", &kinds, None)?;
    let forms = [LambdaForm::Vectors, LambdaForm::Scalars].map(v1);
    match kind {
        ConversionKind::V1(_) => {
            let forms = forms.map(|kind| (lambda_name(kind), kind));
            one_of(entries, "lambda", &forms, None)
        }
        ConversionKind::V2 => {
            let forms = [(lambda_name(kind), kind)];
            one_of(entries, "lambda", &forms, Some(kind))
        }
        ConversionKind::Dex => Ok(kind),
    }
}

/// Where the noise heads lie.
fn order(kind: ConversionKind, entries: &Entries<'_>) -> Result<NoiseOrder, Error> {
    let named = |order: NoiseOrder| (order.name(), order);
    let (pairs, appended) = (named(NoiseOrder::Pairs), named(NoiseOrder::Appended));
    match kind {
        ConversionKind::V2 => one_of(entries, "order", &[pairs, appended], None),
        ConversionKind::V1(_) => {
            // (Under its other name, which it has in layers.)
            one_of(entries, "pairing", &[("interleaved", ())], Some(()))?;
            one_of(entries, "order", &[pairs], Some(NoiseOrder::Pairs))
        }
        ConversionKind::Dex => Ok(NoiseOrder::Appended),
    }
}

/// The heads, as they stand.
fn heads(entries: &Entries<'_>) -> Result<DifferentialHeads, Error> {
    let Some(value) = entries.value("heads") else {
        return Ok(DifferentialHeads::All);
    };
    if value.as_str() == Some("all") {
        return Ok(DifferentialHeads::All);
    }
    let number = |value: &Value| usize::try_from(value.as_u64()?).ok();
    let layer = |value: &Value| {
        let list = value.as_array()?.iter();
        list.map(number).collect::<Option<Vec<_>>>()
    };
    let layers = value.as_array().and_then(|layers| {
        let layers = layers.iter();
        layers.map(layer).collect::<Option<Vec<_>>>()
    });
    layers.map(DifferentialHeads::Listed).ok_or_else(|| {
        let expected = "\"all\" or a list of heads' numbers for each layer";
        entries.wrong("heads", expected, Some(value))
    })
}

/// λ_init of each layer.
fn lambda_init(entries: &Entries<'_>) -> Result<Vec<f64>, Error> {
    let value = entries.value("lambda_init");
    let numbers = value.and_then(Value::as_array).and_then(|list| {
        let numbers = list.iter().map(Value::as_f64);
        numbers.collect::<Option<Vec<_>>>()
    });
    numbers.ok_or_else(|| entries.wrong("lambda_init", "a number for each layer", value))
}
