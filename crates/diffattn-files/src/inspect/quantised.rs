//! MLX's quantised weights in an inspection: codes, scales and biases as the one weight that they
//! are, by what the configuration says, and how many there are of each packing.

use super::config::Config;
use crate::dtype::Dtype;
use crate::entry::Entry;
use crate::mlx::{MlxPacking, MlxQuantization};
use std::collections::{BTreeMap, BTreeSet};

/// Weights that are packed alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuantizedCount {
    /// How.
    pub packing: MlxPacking,
    /// How many weights.
    pub weights: usize,
    /// Their elements.
    pub elements: u64,
    /// Bytes of codes, scales and biases.
    pub bytes: u64,
}

/// What a checkpoint has of quantised weights.
#[derive(Debug, Default)]
pub(super) struct Unpacked {
    /// The weights, with the shapes that they have as floats.
    pub(super) weights: Vec<Entry>,
    /// The names of their tensors.
    pub(super) packed: BTreeSet<String>,
    pub(super) counts: Vec<QuantizedCount>,
    /// What is wrong with what the configuration says.
    pub(super) warning: Option<String>,
}

impl Unpacked {
    pub(super) fn of(entries: &[&Entry], config: &Config) -> Self {
        let quantization = match config.map().map(MlxQuantization::of_config) {
            Some(Ok(Some(quantization))) => quantization,
            Some(Err(error)) => {
                return Self {
                    warning: Some(error.to_string()),
                    ..Self::default()
                };
            }
            Some(Ok(None)) | None => return Self::default(),
        };
        let by_name: BTreeMap<&str, &Entry> =
            (entries.iter().map(|&entry| (entry.name.as_str(), entry))).collect();
        let mut unpacked = Self::default();
        let mut counts: BTreeMap<MlxPacking, QuantizedCount> = BTreeMap::new();
        for codes in entries.iter().filter(|entry| entry.dtype == Dtype::U32) {
            let beside = MlxQuantization::beside(&codes.name);
            let beside = beside.map(|name| by_name.get(name.as_str()).copied());
            let ([Some(scales), Some(biases)], Some(packing), &[rows, words]) = (
                beside,
                quantization.packing(&codes.name),
                codes.shape.as_slice(),
            ) else {
                continue;
            };
            let Some(columns) = words.checked_mul(32 / packing.bits) else {
                continue;
            };
            let weight = Entry {
                shape: vec![rows, columns],
                ..(*codes).clone()
            };
            let count = counts.entry(packing).or_insert(QuantizedCount {
                packing,
                weights: 0,
                elements: 0,
                bytes: 0,
            });
            count.weights += 1;
            count.elements = count.elements.saturating_add(weight.elements());
            for tensor in [codes, &scales, &biases] {
                count.bytes = count.bytes.saturating_add(tensor.byte_len());
                unpacked.packed.insert(tensor.name.clone());
            }
            unpacked.weights.push(weight);
        }
        unpacked.counts = counts.into_values().collect();
        unpacked
    }
}
