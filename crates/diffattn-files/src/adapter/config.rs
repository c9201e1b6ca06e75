//! What an `adapter_config.json` says, in PEFT's words, and of the conversion that the adapter was
//! trained over, in its entry `diff_attention`. Knows no tensor but by its name and shape.

use crate::convert::{ConversionForm, ConversionStart, ConversionTarget, TargetHeads};
use crate::entry::Entry;
use crate::json::json_object;
use diffattn::{Error, format_shape};
use serde_json::{Map, Value};

/// How errors name the file.
const FILE: &str = "adapter_config.json";

/// The conversion that an adapter was trained over: what makes it, and the words for it, which a
/// model that was converted already must agree with.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterConversion {
    /// What makes it of a plain Llama.
    pub target: ConversionTarget,
    /// `pairs` or `appended`, where it is said.
    pub order: Option<String>,
}

/// The configuration of an adapter.
#[derive(Debug, Clone)]
pub(super) struct AdapterConfig {
    pub(super) rank: usize,
    pub(super) scale: f64,
    /// The last parts of the names of modules that are there whole.
    whole: Vec<String>,
    pub(super) conversion: Option<AdapterConversion>,
}

impl AdapterConfig {
    pub(super) fn read(text: &str) -> Result<Self, Error> {
        let config = json_object(FILE, text)?;
        one_of(&config, "peft_type", &["LORA"])?;
        refuse(&config, "bias", |bias| *bias == "none", "\"none\"")?;
        for key in ["fan_in_fan_out", "use_dora", "lora_bias"] {
            refuse(&config, key, |value| *value == false, "false")?;
        }
        for key in ["rank_pattern", "alpha_pattern", "layer_replication"] {
            let is_empty = |value: &Value| {
                value.as_object().is_some_and(Map::is_empty)
                    || value.as_array().is_some_and(Vec::is_empty)
            };
            refuse(&config, key, is_empty, "none, as all layers have one rank")?;
        }
        let rank = config.get("r").and_then(Value::as_u64);
        let rank = rank.and_then(|rank| usize::try_from(rank).ok());
        let Some(rank) = rank.filter(|&rank| rank > 0) else {
            return Err(wrong(&config, "r", "a whole number of 1 or more"));
        };
        let alpha = match config.get("lora_alpha") {
            None | Some(Value::Null) => Some(rank as f64),
            Some(alpha) => alpha.as_f64(),
        };
        let Some(alpha) = alpha.filter(|alpha| alpha.is_finite()) else {
            return Err(wrong(&config, "lora_alpha", "a finite number"));
        };
        let by = match config.get("use_rslora") {
            Some(Value::Bool(true)) => libm::sqrt(rank as f64),
            None | Some(Value::Null | Value::Bool(false)) => rank as f64,
            Some(_) => return Err(wrong(&config, "use_rslora", "true or false")),
        };
        Ok(Self {
            rank,
            scale: alpha / by,
            whole: names(&config, "modules_to_save")?,
            conversion: conversion(&config)?,
        })
    }

    /// Whether a tensor that is no difference may be there.
    pub(super) fn check_whole(&self, name: &str) -> Result<(), Error> {
        let module = name.rsplit_once('.').map_or(name, |(module, _)| module);
        let last = module.rsplit('.').next().unwrap_or(module);
        if self.whole.iter().any(|whole| whole == last) {
            return Ok(());
        }
        Err(Error::file(
            "adapter",
            "lora_A, lora_B and modules of modules_to_save",
            name,
        ))
    }

    /// Whether A and B are matrices that have the rank between them.
    pub(super) fn check_rank(&self, a: &Entry, b: &Entry) -> Result<(), Error> {
        let fits = |entry: &Entry, axis: usize| {
            if entry.shape.len() == 2 && entry.shape[axis] == self.rank {
                return Ok(());
            }
            Err(Error::file(
                format_args!("adapter, tensor {}", entry.name),
                format_args!("a matrix with {} on axis {axis}, as r says", self.rank),
                format_shape(&entry.shape),
            ))
        };
        fits(a, 0)?;
        fits(b, 1)
    }
}

fn wrong(config: &Map<String, Value>, key: &str, expected: &str) -> Error {
    let got = config.get(key).map_or("none".to_owned(), Value::to_string);
    Error::file(format_args!("adapter_config.{key}"), expected, got)
}

/// Refuses a value that is not as it must be, where there is one.
fn refuse(
    config: &Map<String, Value>,
    key: &str,
    is_right: impl Fn(&Value) -> bool,
    expected: &str,
) -> Result<(), Error> {
    match config.get(key) {
        None | Some(Value::Null) => Ok(()),
        Some(value) if is_right(value) => Ok(()),
        Some(_) => Err(wrong(config, key, expected)),
    }
}

fn one_of(config: &Map<String, Value>, key: &str, allowed: &[&str]) -> Result<(), Error> {
    match config.get(key).and_then(Value::as_str) {
        Some(text) if allowed.contains(&text) => Ok(()),
        _ => Err(wrong(config, key, &allowed.join(" or "))),
    }
}

/// A list of texts; none where there is no list.
fn names(config: &Map<String, Value>, key: &str) -> Result<Vec<String>, Error> {
    let value = match config.get(key) {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(value) => value,
    };
    let list = value.as_array().and_then(|list| {
        let names = list.iter().map(|name| name.as_str().map(str::to_owned));
        names.collect::<Option<Vec<_>>>()
    });
    list.ok_or_else(|| wrong(config, key, "a list of names"))
}

/// The conversion that is named.
fn conversion(config: &Map<String, Value>) -> Result<Option<AdapterConversion>, Error> {
    let value = match config.get("diff_attention") {
        None | Some(Value::Null) => return Ok(None),
        Some(value) => value,
    };
    let of = |key: &str, expected: &str| {
        let got = value.get(key).map_or("none".to_owned(), Value::to_string);
        Error::file(
            format_args!("adapter_config.diff_attention.{key}"),
            expected,
            got,
        )
    };
    let text = |key: &str| value.get(key).and_then(Value::as_str);
    if text("kind") != Some("v2") {
        return Err(of("kind", "\"v2\""));
    }
    if !matches!(text("lambda"), None | Some("sigmoid")) {
        return Err(of("lambda", "\"sigmoid\""));
    }
    if !matches!(text("start"), None | Some("mirror")) {
        return Err(of("start", "\"mirror\""));
    }
    let order = text("order").map(str::to_owned);
    if !matches!(order.as_deref(), None | Some("pairs" | "appended")) {
        return Err(of("order", "\"pairs\" or \"appended\""));
    }
    let heads = match value.get("heads") {
        None => TargetHeads::All,
        Some(heads) if *heads == "all" => TargetHeads::All,
        Some(heads) => TargetHeads::Listed(
            lists(heads).ok_or_else(|| of("heads", "\"all\" or a list of numbers per layer"))?,
        ),
    };
    let target = ConversionTarget {
        start: Some(ConversionStart::Mirror),
        ..ConversionTarget::new(ConversionForm::V2, heads)
    };
    Ok(Some(AdapterConversion { target, order }))
}

fn lists(value: &Value) -> Option<Vec<Vec<usize>>> {
    let number = |value: &Value| usize::try_from(value.as_u64()?).ok();
    let layer = |value: &Value| value.as_array()?.iter().map(number).collect();
    value.as_array()?.iter().map(layer).collect()
}
