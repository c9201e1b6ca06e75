//! A block of a vision transformer in training: attention and an MLP with GELU, each behind a layer
//! norm, scaled per channel where it is, and beside a residual connection. Runs in slices. Knows no
//! pixels and no loss.

use super::parameters::BlockIds;
use crate::models::diff_vit::{Block, NORM_EPS, Norm};
use crate::training::arena::Arena;
use crate::training::attention::{AttentionPass, KeptAttention, Tokens};
use crate::training::maps::{self, MapBackward};
use crate::training::rows::{ChannelScale, LayerNormRows, add};
use crate::training::scratch::{Scratch, sized};
use crate::training::sums::LayerGrads;
use diffattn::{DataMut, Error, GeluBackward, Pace, Run, Tensor, gelu};

/// What is kept of a block's tokens beside its input.
#[derive(Debug, Default)]
pub(super) struct KeptBlock {
    attention: KeptAttention,
    /// What attention adds, before it is scaled, where it is.
    attended: Vec<f32>,
    /// What stands between attention and the MLP.
    middle: Vec<f32>,
    /// What stands within the MLP, before GELU, where it is kept.
    inner: Vec<f32>,
    /// What the MLP adds, before it is scaled, where it is.
    made: Vec<f32>,
}

/// A layer norm over rows.
pub(super) fn norm_rows(norm: &Norm, run: Run) -> LayerNormRows<'_> {
    LayerNormRows {
        weight: &norm.weight,
        bias: &norm.bias,
        eps: NORM_EPS,
        run,
    }
}

/// A block over the tokens of a call.
#[derive(Debug, Clone, Copy)]
pub(super) struct BlockPass<'p> {
    pub(super) block: &'p Block,
    pub(super) tokens: Tokens<'p>,
    /// Whether what stands within the MLP is kept, and not computed anew.
    pub(super) keeps_inner: bool,
}

impl BlockPass<'_> {
    fn attention(&self) -> AttentionPass<'_> {
        AttentionPass {
            layer: &self.block.attention,
            tokens: self.tokens,
        }
    }

    fn norm<'n>(&self, norm: &'n Norm) -> LayerNormRows<'n> {
        norm_rows(norm, self.tokens.run)
    }

    /// The norm before the MLP.
    fn mlp_norm(&self) -> Result<LayerNormRows<'_>, Error> {
        let none = || Error::internal("a block without a norm before its MLP in training");
        let norm = self.block.mlp_norm.as_ref().ok_or_else(none)?;
        Ok(self.norm(norm))
    }

    /// x through the block, in place.
    pub(super) async fn forward(
        &self,
        pace: &Pace,
        x: &mut [f32],
        kept: &mut KeptBlock,
        scratch: &mut Scratch,
    ) -> Result<(), Error> {
        let Self { block, tokens, .. } = self;
        let normed = sized(&mut scratch.normed, x.len())?;
        self.norm(&block.norm).forward(x, normed)?;
        let added = sized(&mut scratch.added, x.len())?;
        let memory = (&mut kept.attention, &mut scratch.attention);
        self.attention()
            .forward(pace, normed, added, memory)
            .await?;
        scaled(block.attention_scale.as_deref(), added, &mut kept.attended)?;
        add(x, added);
        sized(&mut kept.middle, x.len())?.copy_from_slice(x);
        let inner = match self.keeps_inner {
            true => &mut kept.inner,
            false => &mut scratch.gates[0],
        };
        self.inner(pace, &kept.middle, inner, &mut scratch.normed)
            .await?;
        let hidden = sized(&mut scratch.hidden, inner.len())?;
        hidden.copy_from_slice(inner);
        gelu(hidden, tokens.run);
        let added = sized(&mut scratch.added, x.len())?;
        maps::forward(pace, &block.fc2, hidden, added, tokens.run).await?;
        scaled(block.mlp_scale.as_deref(), added, &mut kept.made)?;
        add(x, added);
        Ok(())
    }

    /// What stands within the MLP, of what stands before it.
    async fn inner(
        &self,
        pace: &Pace,
        middle: &[f32],
        inner: &mut Vec<f32>,
        normed: &mut Vec<f32>,
    ) -> Result<(), Error> {
        let fc1 = &self.block.fc1;
        let normed = sized(normed, middle.len())?;
        self.mlp_norm()?.forward(middle, normed)?;
        let inner = sized(inner, self.tokens.count() * fc1.outputs())?;
        maps::forward(pace, fc1, normed, inner, self.tokens.run).await
    }

    /// The gradient of the block's input, over that of its result in `d`; and those of what moves.
    pub(super) async fn backward(
        &self,
        pace: &Pace,
        (x, d): (&[f32], &mut [f32]),
        kept: &KeptBlock,
        scratch: &mut Scratch,
        to: LayerGrads<'_, BlockIds>,
    ) -> Result<(), Error> {
        let LayerGrads { ids, arena, sums } = to;
        let to = (ids, &mut *arena);
        if self.keeps_inner {
            self.mlp_backward(pace, d, (kept, &kept.inner), scratch, to)
                .await?;
        } else {
            let mut gates = std::mem::take(&mut scratch.gates);
            self.inner(pace, &kept.middle, &mut gates[0], &mut scratch.normed)
                .await?;
            self.mlp_backward(pace, d, (kept, &gates[0]), scratch, to)
                .await?;
            scratch.gates = gates;
        }
        let normed = sized(&mut scratch.normed, x.len())?;
        let norm = self.norm(&self.block.norm);
        norm.forward(x, normed)?;
        let added = sized(&mut scratch.added, x.len())?;
        added.copy_from_slice(d);
        if let Some(scale) = &self.block.attention_scale {
            let to = (&mut *arena, ids.attention_scale);
            ChannelScale(scale).backward(added, &kept.attended, to);
        }
        let d_normed = sized(&mut scratch.d_normed, x.len())?;
        let grads = LayerGrads {
            ids: &ids.attention,
            arena: &mut *arena,
            sums,
        };
        let memory = (&kept.attention, &mut scratch.attention);
        self.attention()
            .backward(pace, [normed, added], d_normed, memory, grads)
            .await?;
        norm.backward([d_normed, x], added, (arena, ids.norm))?;
        add(d, added);
        Ok(())
    }

    /// The gradient of what stands before the MLP, over that of the block's result in `d`.
    async fn mlp_backward(
        &self,
        pace: &Pace,
        d: &mut [f32],
        (kept, inner): (&KeptBlock, &[f32]),
        scratch: &mut Scratch,
        (ids, arena): (&BlockIds, &mut Arena),
    ) -> Result<(), Error> {
        let run = self.tokens.run;
        let block = self.block;
        let added = sized(&mut scratch.added, d.len())?;
        added.copy_from_slice(d);
        if let Some(scale) = &block.mlp_scale {
            ChannelScale(scale).backward(added, &kept.made, (&mut *arena, ids.mlp_scale));
        }
        let hidden = sized(&mut scratch.hidden, inner.len())?;
        if ids.fc2.moves() {
            hidden.copy_from_slice(inner);
            gelu(hidden, run);
        }
        let d_hidden = sized(&mut scratch.d_gate, inner.len())?;
        MapBackward {
            linear: &block.fc2,
            ids: ids.fc2,
            dy: added,
            x: hidden,
            dx: Some((d_hidden, false)),
        }
        .run(pace, arena, run)
        .await?;
        let shape = [inner.len()];
        let [dy, x] = [&*d_hidden, inner].map(|values| Tensor::f32(values, &shape));
        let call = GeluBackward::new(dy, x, run)?;
        maps::finish(pace, call.into_work(DataMut::F32(hidden))?).await?;
        let normed = sized(&mut scratch.normed, d.len())?;
        let norm = self.mlp_norm()?;
        norm.forward(&kept.middle, normed)?;
        let d_normed = sized(&mut scratch.d_normed, d.len())?;
        MapBackward {
            linear: &block.fc1,
            ids: ids.fc1,
            dy: hidden,
            x: normed,
            dx: Some((d_normed, false)),
        }
        .run(pace, arena, run)
        .await?;
        let d_middle = [&*d_normed, kept.middle.as_slice()];
        norm.backward(d_middle, added, (arena, ids.mlp_norm))?;
        add(d, added);
        Ok(())
    }
}

/// Scales what a branch adds, where it is scaled, and keeps what it was.
fn scaled(scale: Option<&[f32]>, added: &mut [f32], kept: &mut Vec<f32>) -> Result<(), Error> {
    if let Some(scale) = scale {
        let before = sized(kept, added.len())?;
        before.copy_from_slice(added);
        ChannelScale(scale).forward(before, added);
    }
    Ok(())
}
