//! Adapters on their way into files: their configuration, and what their tensors are called. Knows
//! neither; diffattn-files does.

use diffattn::Error;
use diffattn_nn::checkpoint::{
    AdapterOptions, AdapterWeight, ConversionTarget, Dtype, WrittenAdapter,
};
use serde::Deserialize;
use serde_json::Value;

use super::files;
use super::ready::{Made, ready};
use crate::encoding::{Text, request};
use crate::job::Prepared;
use crate::operation::{Inputs, Operation};

request! {
    /// A request of `adapterFiles`: the text of `adapter_config.json`, and the tensors beside it.
    93 adapterFiles AdapterFilesRequest {
        spec("weights"): Text,
    }
}

/// What an adapter is to hold.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct AdapterSpec {
    weights: Vec<(String, WeightJson)>,
    alpha: Option<f64>,
    conversion: Option<Value>,
    base_model: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum WeightJson {
    LowRank { a: ElementsJson, b: ElementsJson },
    Whole(ElementsJson),
}

#[derive(Debug, Deserialize)]
struct ElementsJson {
    dtype: Dtype,
    shape: Vec<usize>,
}

impl ElementsJson {
    fn elements(&self) -> (Dtype, &[usize]) {
        (self.dtype, &self.shape)
    }
}

impl Operation for AdapterFilesRequest {
    fn prepare<'m>(&'m self, inputs: Inputs<'_, 'm>) -> Result<Prepared<'m>, Error> {
        let spec: AdapterSpec = serde_json::from_str(self.spec.text(inputs.operands)?)
            .map_err(|why| Error::option("weights", "element types of files and shapes", why))?;
        let weights = spec.weights.iter().map(|(name, weight)| {
            let weight = match weight {
                WeightJson::Whole(whole) => AdapterWeight::Whole(whole.elements()),
                WeightJson::LowRank { a, b } => AdapterWeight::LowRank {
                    a: a.elements(),
                    b: b.elements(),
                },
            };
            (name.as_str(), weight)
        });
        let weights: Vec<_> = weights.collect();
        let conversion = spec.conversion.map(|conversion| conversion.to_string());
        let conversion = conversion.as_deref().map(ConversionTarget::from_json);
        let made = WrittenAdapter::new(
            &weights,
            &AdapterOptions {
                alpha: spec.alpha,
                conversion: conversion.transpose()?,
                base_model: spec.base_model,
            },
        )?;
        let tensors: Vec<files::TensorJson> = made
            .tensors()
            .into_iter()
            .map(|spec| files::TensorJson {
                name: spec.name.to_owned(),
                dtype: spec.dtype,
                shape: spec.shape.to_vec(),
            })
            .collect();
        ready(vec![
            ("config", Made::Bytes(made.config().into_bytes())),
            ("tensors", Made::json(&tensors)?),
        ])
    }
}
