//! A decoder layer in training: attention and a gated MLP, each behind an RMS norm and beside a
//! residual connection. Runs in slices. Knows no embeddings and no loss.

use super::arena::{Arena, ParameterId};
use super::attention::{AttentionGrads, AttentionPass, KeptAttention, Tokens};
use super::gate::GateBackward;
use super::ids::AttentionIds;
use super::maps::{self, MapBackward, MapIds};
use super::rows::{RmsRows, add};
use super::scratch::{Scratch, sized};
use super::sums::LayerSums;
use crate::models::diff_llama::DecoderLayer;
use diffattn::{Error, Pace};

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
    gate: Vec<f32>,
    up: Vec<f32>,
}

impl KeptLayer {
    /// The mean of a projected λ, of a pass through `layer`.
    pub(super) fn lambda_mean(&self, layer: &DecoderLayer) -> Option<f64> {
        self.attention.lambda_mean(&layer.attention)
    }

    /// Changes what stands within the MLP for another's: memory that layers share.
    pub(super) fn lend_gates(&mut self, other: &mut Self) {
        std::mem::swap(&mut self.gate, &mut other.gate);
        std::mem::swap(&mut self.up, &mut other.up);
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

/// A layer over the tokens of a call.
#[derive(Debug, Clone, Copy)]
pub(super) struct LayerPass<'p> {
    pub(super) layer: &'p DecoderLayer,
    pub(super) tokens: Tokens<'p>,
    /// Of every norm.
    pub(super) eps: f32,
}

/// Where the gradients of a layer go.
pub(super) struct LayerGrads<'g> {
    pub(super) ids: &'g LayerIds,
    pub(super) arena: &'g mut Arena,
    pub(super) sums: &'g mut LayerSums,
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

    /// x through the layer, in place; what it keeps of the MLP, it keeps where asked to.
    pub(super) async fn forward(
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
        self.gates(pace, kept, scratch).await?;
        let hidden = sized(&mut scratch.hidden, kept.gate.len())?;
        let sigmoids = sized(&mut scratch.d_gate, kept.gate.len())?;
        hidden.copy_from_slice(&kept.gate);
        let (act, width) = (self.layer.act, self.layer.down.inputs());
        act.gate(hidden, &kept.up, width, sigmoids, self.tokens.run)?;
        let added = sized(&mut scratch.added, x.len())?;
        maps::forward(pace, &self.layer.down, hidden, added, self.tokens.run).await?;
        add(x, added);
        Ok(())
    }

    /// Gate and up of what stands before the MLP.
    async fn gates(
        &self,
        pace: &Pace,
        kept: &mut KeptLayer,
        scratch: &mut Scratch,
    ) -> Result<(), Error> {
        let run = self.tokens.run;
        let normed = sized(&mut scratch.normed, kept.middle.len())?;
        self.norm(&self.layer.post_norm)
            .forward(&kept.middle, normed)?;
        for (linear, to) in [
            (&self.layer.gate, &mut kept.gate),
            (&self.layer.up, &mut kept.up),
        ] {
            let to = sized(to, self.tokens.count() * linear.outputs())?;
            maps::forward(pace, linear, normed, to, run).await?;
        }
        Ok(())
    }

    /// The gradient of the layer's input, over that of its result in `d`; and those of what moves.
    /// Without `has_gates` gate and up are computed anew.
    pub(super) async fn backward(
        &self,
        pace: &Pace,
        (x, d): (&[f32], &mut [f32]),
        (kept, has_gates): (&mut KeptLayer, bool),
        scratch: &mut Scratch,
        to: LayerGrads<'_>,
    ) -> Result<(), Error> {
        let LayerGrads { ids, arena, sums } = to;
        if !has_gates {
            self.gates(pace, kept, scratch).await?;
        }
        self.mlp_backward(pace, d, kept, scratch, (ids, &mut *arena))
            .await?;
        let normed = sized(&mut scratch.normed, x.len())?;
        let norm = self.norm(&self.layer.input_norm);
        norm.forward(x, normed)?;
        let d_normed = sized(&mut scratch.d_normed, x.len())?;
        let grads = AttentionGrads {
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

    /// The gradient of what stands before the MLP, over that of the layer's result in `d`.
    async fn mlp_backward(
        &self,
        pace: &Pace,
        d: &mut [f32],
        kept: &KeptLayer,
        scratch: &mut Scratch,
        (ids, arena): (&LayerIds, &mut Arena),
    ) -> Result<(), Error> {
        let run = self.tokens.run;
        let layer = self.layer;
        let hidden = sized(&mut scratch.hidden, kept.gate.len())?;
        let d_gate = sized(&mut scratch.d_gate, kept.gate.len())?;
        if ids.down.moves() {
            hidden.copy_from_slice(&kept.gate);
            let width = layer.down.inputs();
            layer.act.gate(hidden, &kept.up, width, d_gate, run)?;
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
            gate: &kept.gate,
            up: &kept.up,
            run,
        }
        .run(pace, hidden, d_gate, (&mut *arena, ids.poly_norm))
        .await?;
        let normed = sized(&mut scratch.normed, d.len())?;
        let norm = self.norm(&layer.post_norm);
        norm.forward(&kept.middle, normed)?;
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
        norm.backward(d_normed, &kept.middle, added, (arena, ids.post_norm))?;
        add(d, added);
        Ok(())
    }
}
