//! What of a layer's gradients is summed apart from the arena, and what it gives to what moves once
//! it is whole. Knows no passes.

use super::arena::{Arena, ParameterId};
use super::ids::{AttentionIds, LambdaParameters};
use crate::layers::attention::{Dex, DiffAttnLayer};

/// What of a layer's gradients is summed apart from the arena until they are whole.
#[derive(Debug, Default)]
pub(crate) struct LayerSums {
    /// Of a λ of the whole layer.
    pub(crate) lambda: f64,
    /// Of what rows are multiplied with by DEX.
    pub(crate) dex: Vec<f32>,
}

impl LayerSums {
    /// Zeros.
    pub(crate) fn clear(&mut self) {
        self.lambda = 0.0;
        self.dex.fill(0.0);
    }
}

/// Where the gradients of a layer, or of its attention, go: `I` says which parameters it is made
/// of.
pub(super) struct LayerGrads<'g, I> {
    pub(super) ids: &'g I,
    pub(super) arena: &'g mut Arena,
    pub(super) sums: &'g mut LayerSums,
}

/// What is summed apart gives to what moves, and is zero again. Of λ, `λ = mix · (exp(q1·k1) −
/// exp(q2·k2) + init)`, or of two numbers; of DEX, whose rows are multiplied with `−λ W`.
pub(crate) fn join_sums(
    attention: &DiffAttnLayer,
    ids: &AttentionIds,
    sums: &mut LayerSums,
    arena: &mut Arena,
) {
    let mix = attention
        .lambda_parts
        .as_ref()
        .map_or(1.0, |parts| parts.mix);
    let sum = sums.lambda * mix;
    match ids.lambda {
        LambdaParameters::Vectors([q1, k1, q2, k2]) => {
            for (q, k, sign) in [(q1, k1, 1.0), (q2, k2, -1.0)] {
                let (q_values, k_values) = (arena.value(q).to_vec(), arena.value(k).to_vec());
                let pairs = q_values.iter().zip(&k_values);
                let dot: f64 = pairs.map(|(&q, &k)| f64::from(q) * f64::from(k)).sum();
                let factor = sign * libm::exp(dot) * sum;
                for (id, of) in [(q, &k_values), (k, &q_values)] {
                    for (to, &value) in arena.gradient(id).iter_mut().zip(of) {
                        *to += (factor * f64::from(value)) as f32;
                    }
                }
            }
        }
        LambdaParameters::Scalars([a, b]) => {
            for (id, sign) in [(a, 1.0), (b, -1.0)] {
                let value = arena.value(id).first().copied().map_or(0.0, f64::from);
                let gradient = (sign * libm::exp(value) * sum) as f32;
                arena.gradient(id).iter_mut().for_each(|to| *to += gradient);
            }
        }
        LambdaParameters::Dex(ids) => {
            if let Some(dex) = &attention.dex
                && !sums.dex.is_empty()
            {
                dex_gradients(dex, ids, &sums.dex, arena);
            }
        }
        LambdaParameters::Projected(_) | LambdaParameters::Frozen => {}
    }
    sums.clear();
}

/// Of the gradient of `−λ W`, a row per output: those of W and of the λ that is learned.
fn dex_gradients(
    dex: &Dex,
    [weight, lambda]: [Option<ParameterId>; 2],
    sums: &[f32],
    arena: &mut Arena,
) {
    let (width, parts) = (dex.map.inputs(), dex.parts());
    if let Some(id) = weight {
        let factor = dex.lambda();
        let to = arena.gradient(id).chunks_exact_mut(width);
        for (input, to) in to.enumerate() {
            for (output, to) in to.iter_mut().enumerate() {
                *to -= (factor * f64::from(sums[output * width + input])) as f32;
            }
        }
    }
    if let Some(id) = lambda {
        let mut sum = 0.0;
        for (input, row) in parts.weight.chunks_exact(width).enumerate() {
            for (output, &weight) in row.iter().enumerate() {
                sum += f64::from(sums[output * width + input]) * f64::from(weight);
            }
        }
        let gradient = (-dex.lambda_slope() * sum) as f32;
        arena.gradient(id).iter_mut().for_each(|to| *to += gradient);
    }
}
