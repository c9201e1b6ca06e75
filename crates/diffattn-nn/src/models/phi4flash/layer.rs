//! A layer of a Phi-4-mini-flash, and how it is made of the weights of its part. Runs nothing.

use super::config::Phi4FlashConfig;
use crate::layers::attention::{
    DiffAttnLayer, MultiheadDiffAttn, MultiheadDiffAttnOptions, NormConfig, V1Weights,
};
use crate::layers::{Mamba, MemoryGate, Norm};
use crate::parts::Part;
use diffattn::{CausalConvolution, Error, Linear, Pace, Pairing, SelectiveScan, Tensor};
use diffattn_files::phi4flash::{FlashLayerIds, FlashMixer, FlashMixerIds, FlashSizes};
use diffattn_files::{Id, Projections};

/// Weight and bias of a layer norm.
#[derive(Debug, Clone)]
pub(super) struct NormWeights {
    pub(super) weight: Vec<f32>,
    pub(super) bias: Vec<f32>,
}

impl NormWeights {
    pub(super) fn rows(&self, eps: f64) -> Norm<'_> {
        Norm::Layer {
            weight: &self.weight,
            bias: &self.bias,
            eps: eps as f32,
        }
    }
}

/// A layer with its weights.
#[derive(Debug, Clone)]
pub(super) struct FlashLayer {
    pub(super) weights: Weights,
    pub(super) input_norm: NormWeights,
    pub(super) post_norm: NormWeights,
    pub(super) gate: Linear,
    pub(super) up: Linear,
    pub(super) down: Linear,
}

/// Those of its mixer.
#[derive(Debug, Clone)]
pub(super) enum Weights {
    Mamba(Box<Mamba>),
    Attention(Box<DiffAttnLayer>),
    MemoryGate(Box<MemoryGate>),
}

/// Weight and bias of a norm.
pub(super) fn norm(part: &Part<'_>, [weight, bias]: [Id; 2]) -> Result<NormWeights, Error> {
    Ok(NormWeights {
        weight: part.vector(weight)?,
        bias: part.vector(bias)?,
    })
}

/// A layer on its way.
pub(super) struct Making<'m, 'w> {
    pub(super) config: &'m Phi4FlashConfig,
    pub(super) sizes: &'m FlashSizes,
    pub(super) index: usize,
    pub(super) part: Part<'w>,
}

impl Making<'_, '_> {
    /// The layer; a unit for every linear map of its part.
    pub(super) async fn layer(
        mut self,
        ids: &FlashLayerIds,
        pace: &Pace,
    ) -> Result<FlashLayer, Error> {
        let weights = match ids.mixer {
            FlashMixerIds::Mamba { .. } => self.mamba(ids.mixer, pace).await?,
            FlashMixerIds::Attention { .. } => self.attention(ids.mixer, pace).await?,
            FlashMixerIds::MemoryGate { input, output } => {
                Weights::MemoryGate(Box::new(MemoryGate {
                    gate: self.map(input, pace).await?,
                    output: self.map(output, pace).await?,
                }))
            }
        };
        let inner = self.sizes.intermediate_size;
        let [gate, up] = self.parts(ids.fc1, [inner, inner], pace).await?;
        Ok(FlashLayer {
            weights,
            input_norm: norm(&self.part, ids.input_norm)?,
            post_norm: norm(&self.part, ids.post_norm)?,
            gate,
            up,
            down: self.map(ids.fc2, pace).await?,
        })
    }

    /// A linear map.
    async fn map(&mut self, id: Id, pace: &Pace) -> Result<Linear, Error> {
        pace.granted().await;
        let map = self.part.linear(id);
        pace.worked(1);
        map
    }

    /// The rows of a linear map as maps of so many rows each.
    async fn parts<const N: usize>(
        &mut self,
        id: Id,
        rows: [usize; N],
        pace: &Pace,
    ) -> Result<[Linear; N], Error> {
        pace.granted().await;
        let maps = self.part.split(id, rows);
        pace.worked(1);
        maps
    }

    async fn mamba(&mut self, ids: FlashMixerIds, pace: &Pace) -> Result<Weights, Error> {
        let FlashMixerIds::Mamba {
            input,
            convolution,
            convolution_bias,
            x_proj,
            step,
            a_log,
            d,
            output,
        } = ids
        else {
            return Err(Error::internal("a layer of another kind"));
        };
        let &FlashSizes {
            inner,
            states,
            taps,
            rank,
            layers,
            ..
        } = self.sizes;
        let [input, gate] = self.parts(input, [inner, inner], pace).await?;
        let [to_rank, b_c] = self.parts(x_proj, [rank, 2 * states], pace).await?;
        let (step, output) = (self.map(step, pace).await?, self.map(output, pace).await?);
        let vector = |id: Id| self.part.vector(id);
        Ok(Weights::Mamba(Box::new(Mamba {
            input,
            gate,
            convolution: CausalConvolution::new(
                [inner, taps],
                &vector(convolution)?,
                &vector(convolution_bias)?,
            )?,
            rank: to_rank,
            b_c,
            step,
            scan: SelectiveScan::new([inner, states], &vector(a_log)?, &vector(d)?)?,
            output,
            is_memory: self.index == layers / 2,
        })))
    }

    /// Heads in neighbouring pairs, with a norm per head; without keys and values of its own, the
    /// maps to them are empty.
    async fn attention(&mut self, ids: FlashMixerIds, pace: &Pace) -> Result<Weights, Error> {
        let FlashMixerIds::Attention {
            qkv,
            output,
            lambda,
            norm,
        } = ids
        else {
            return Err(Error::internal("a layer of another kind"));
        };
        let &FlashSizes {
            q, k, hidden_size, ..
        } = self.sizes;
        let is_cross = FlashMixer::of(self.index, self.sizes.layers) == FlashMixer::Cross;
        let [q, k, v] = match is_cross {
            false => self.parts(qkv, [q, k, k], pace).await?,
            true => {
                let none = || Linear::new(&Tensor::f32(&[], &[0, hidden_size]), None);
                [self.map(qkv, pace).await?, none()?, none()?]
            }
        };
        let out = self.map(output, pace).await?;
        let config = self.config;
        let options = MultiheadDiffAttnOptions {
            num_kv_heads: Some(config.num_key_value_heads / 2),
            head_dim: Some(config.head_dim()),
            pairing: Pairing::Interleaved,
            norm: Some(NormConfig {
                eps: 1e-5,
                affine: Some(true),
            }),
            ..MultiheadDiffAttnOptions::new(
                config.hidden_size,
                self.index,
                config.num_attention_heads / 2,
            )
        };
        let weights = V1Weights {
            projections: Projections { q, k, v, out },
            lambda: self.part.lambda(lambda)?,
            norm: Some(self.part.vector(norm)?),
        };
        let layer = MultiheadDiffAttn::of_weights(&options, weights)?;
        Ok(Weights::Attention(Box::new(layer.into())))
    }
}
