//! A decoder layer in training: attention and a gated MLP, each behind an RMS norm and beside a
//! residual connection. Runs in slices. Knows no embeddings and no loss.

use super::arena::{Arena, ParameterId};
use super::attention::{AttentionPass, KeptAttention, Tokens};
use super::gate::GateBackward;
use super::ids::AttentionIds;
use super::maps::{self, MapBackward, MapIds};
use super::rows::{RmsRows, STRETCH, add};
use super::scratch::{Scratch, sized};
use super::sums::LayerGrads;
use crate::models::diff_llama::DecoderLayer;
use diffattn::{Error, Pace};
use std::ops::Range;

/// Which parameters a layer is made of.
#[derive(Debug, Clone, Default)]
pub(crate) struct LayerIds {
    pub(crate) attention: AttentionIds,
    pub(crate) gate: MapIds,
    pub(crate) up: MapIds,
    pub(crate) down: MapIds,
    /// Factors and bias of PolyNorm, where it stands in the MLP.
    pub(crate) poly_norm: [Option<ParameterId>; 2],
    pub(crate) input_norm: Option<ParameterId>,
    pub(crate) post_norm: Option<ParameterId>,
}

/// What is kept of a layer's tokens beside its input.
#[derive(Debug, Default)]
pub(crate) struct KeptLayer {
    attention: KeptAttention,
    /// What stands between attention and the MLP.
    middle: Vec<f32>,
    /// Gate and up, where they are kept.
    gates: [Vec<f32>; 2],
}

impl KeptLayer {
    /// The mean of a projected λ, of a pass through `layer`.
    pub(super) fn lambda_mean(&self, layer: &DecoderLayer) -> Option<f64> {
        self.attention.lambda_mean(&layer.attention)
    }
}

/// What is computed anew in the backward pass instead of being kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Recompute {
    /// Nothing: the fastest.
    #[default]
    Nothing,
    /// What stands within MLPs, half of what there is to keep: two of seven products anew.
    Mlps,
    /// Layers: only the input of each is kept.
    Layers,
}

/// Tokens whose gate and up stand in memory at a time where they are not kept: whole stretches, so
/// that sums have the same bits. (SmolLM2-135M, 2048 tokens: 256, 512 and 1024 of them hold 44, 38
/// and 25 MB less than all; codes of weights are widened once for each.)
const STRIP: usize = 2 * STRETCH;

/// A layer over the tokens of a call.
#[derive(Debug, Clone, Copy)]
pub(super) struct LayerPass<'p> {
    pub(super) layer: &'p DecoderLayer,
    pub(super) tokens: Tokens<'p>,
    /// Of every norm.
    pub(super) eps: f32,
    /// Whether what stands within the MLP is kept, and not computed anew.
    pub(super) keeps_gates: bool,
}

impl LayerPass<'_> {
    fn attention(&self) -> AttentionPass<'_> {
        AttentionPass {
            layer: &self.layer.attention,
            tokens: self.tokens,
        }
    }

    fn norm<'w>(&self, weight: &'w [f32]) -> RmsRows<'w> {
        RmsRows::of(weight, self.eps, self.tokens.run)
    }

    /// The tokens whose MLP is computed at a time, strip after strip.
    fn strips(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let count = self.tokens.count();
        let strip = if self.keeps_gates {
            count.max(1)
        } else {
            STRIP
        };
        let of = move |first: usize| first..(first + strip).min(count);
        (0..count).step_by(strip).map(of)
    }

    /// Values of hidden states of a strip.
    fn values(&self, strip: &Range<usize>) -> Range<usize> {
        let width = self.layer.down.outputs();
        strip.start * width..strip.end * width
    }

    /// x through attention, in place: what stands before the MLP.
    pub(super) async fn attend(
        &self,
        pace: &Pace,
        x: &mut [f32],
        kept: &mut KeptLayer,
        scratch: &mut Scratch,
    ) -> Result<(), Error> {
        let normed = sized(&mut scratch.normed, x.len())?;
        self.norm(&self.layer.input_norm).forward(x, normed)?;
        let added = sized(&mut scratch.added, x.len())?;
        let memory = (&mut kept.attention, &mut scratch.attention);
        self.attention()
            .forward(pace, normed, added, memory)
            .await?;
        add(x, added);
        sized(&mut kept.middle, x.len())?.copy_from_slice(x);
        Ok(())
    }

    /// x through the layer, in place.
    pub(super) async fn forward(
        &self,
        pace: &Pace,
        x: &mut [f32],
        kept: &mut KeptLayer,
        scratch: &mut Scratch,
    ) -> Result<(), Error> {
        self.attend(pace, x, kept, scratch).await?;
        let (run, inner) = (self.tokens.run, self.layer.down.inputs());
        for strip in self.strips() {
            let values = self.values(&strip);
            let gates = match self.keeps_gates {
                true => &mut kept.gates,
                false => &mut scratch.gates,
            };
            let middle = &kept.middle[values.clone()];
            self.gates(pace, middle, gates, &mut scratch.normed).await?;
            let [gate, up] = gates;
            let hidden = sized(&mut scratch.hidden, gate.len())?;
            let sigmoids = sized(&mut scratch.d_gate, gate.len())?;
            hidden.copy_from_slice(gate);
            self.layer.act.gate(hidden, up, inner, sigmoids, run)?;
            let added = sized(&mut scratch.added, values.len())?;
            maps::forward(pace, &self.layer.down, hidden, added, run).await?;
            add(&mut x[values], added);
        }
        Ok(())
    }

    /// Gate and up of what stands before the MLP.
    async fn gates(
        &self,
        pace: &Pace,
        middle: &[f32],
        gates: &mut [Vec<f32>; 2],
        normed: &mut Vec<f32>,
    ) -> Result<(), Error> {
        let run = self.tokens.run;
        let normed = sized(normed, middle.len())?;
        self.norm(&self.layer.post_norm).forward(middle, normed)?;
        let rows = middle.len() / self.layer.down.outputs().max(1);
        for (linear, to) in [&self.layer.gate, &self.layer.up].into_iter().zip(gates) {
            let to = sized(to, rows * linear.outputs())?;
            maps::forward(pace, linear, normed, to, run).await?;
        }
        Ok(())
    }

    /// The gradient of the layer's input, over that of its result in `d`; and those of what moves.
    pub(super) async fn backward(
        &self,
        pace: &Pace,
        (x, d): (&[f32], &mut [f32]),
        kept: &KeptLayer,
        scratch: &mut Scratch,
        to: LayerGrads<'_, LayerIds>,
    ) -> Result<(), Error> {
        let LayerGrads { ids, arena, sums } = to;
        for strip in self.strips() {
            let values = self.values(&strip);
            let (middle, d) = (&kept.middle[values.clone()], &mut d[values]);
            let to = (ids, &mut *arena);
            if self.keeps_gates {
                self.mlp_backward(pace, (middle, d), &kept.gates, scratch, to)
                    .await?;
                continue;
            }
            let mut gates = std::mem::take(&mut scratch.gates);
            self.gates(pace, middle, &mut gates, &mut scratch.normed)
                .await?;
            self.mlp_backward(pace, (middle, d), &gates, scratch, to)
                .await?;
            scratch.gates = gates;
        }
        let normed = sized(&mut scratch.normed, x.len())?;
        let norm = self.norm(&self.layer.input_norm);
        norm.forward(x, normed)?;
        let d_normed = sized(&mut scratch.d_normed, x.len())?;
        let grads = LayerGrads {
            ids: &ids.attention,
            arena: &mut *arena,
            sums,
        };
        let memory = (&kept.attention, &mut scratch.attention);
        self.attention()
            .backward(pace, [normed, d], d_normed, memory, grads)
            .await?;
        let added = sized(&mut scratch.added, x.len())?;
        norm.backward(d_normed, x, added, (arena, ids.input_norm))?;
        add(d, added);
        Ok(())
    }

    /// The gradient of what stands before the MLP of a strip, over that of the result in `d`.
    async fn mlp_backward(
        &self,
        pace: &Pace,
        (middle, d): (&[f32], &mut [f32]),
        [gate, up]: &[Vec<f32>; 2],
        scratch: &mut Scratch,
        (ids, arena): (&LayerIds, &mut Arena),
    ) -> Result<(), Error> {
        let run = self.tokens.run;
        let layer = self.layer;
        let hidden = sized(&mut scratch.hidden, gate.len())?;
        let d_gate = sized(&mut scratch.d_gate, gate.len())?;
        if ids.down.moves() {
            hidden.copy_from_slice(gate);
            let width = layer.down.inputs();
            layer.act.gate(hidden, up, width, d_gate, run)?;
        }
        // (dW of down reads what stands within, then its dx takes that place.)
        MapBackward {
            linear: &layer.down,
            ids: ids.down,
            dy: d,
            x: hidden,
            dx: Some((d_gate, false)),
        }
        .run(pace, arena, run)
        .await?;
        hidden.copy_from_slice(d_gate);
        GateBackward {
            act: layer.act,
            width: layer.down.inputs(),
            gate,
            up,
            run,
        }
        .run(pace, hidden, d_gate, (&mut *arena, ids.poly_norm))
        .await?;
        let normed = sized(&mut scratch.normed, d.len())?;
        let norm = self.norm(&layer.post_norm);
        norm.forward(middle, normed)?;
        let d_normed = sized(&mut scratch.d_normed, d.len())?;
        for (linear, ids, dy, adds) in [
            (&layer.gate, ids.gate, &*d_gate, false),
            (&layer.up, ids.up, &*hidden, true),
        ] {
            MapBackward {
                linear,
                ids,
                dy,
                x: normed,
                dx: Some((d_normed, adds)),
            }
            .run(pace, arena, run)
            .await?;
        }
        let added = sized(&mut scratch.added, d.len())?;
        norm.backward(d_normed, middle, added, (arena, ids.post_norm))?;
        add(d, added);
        Ok(())
    }
}
