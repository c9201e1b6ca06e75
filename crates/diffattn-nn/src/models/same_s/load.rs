//! How SAME-S takes its weights: what becomes of each part. Reads no file; which weights there are,
//! its lists say ([`diffattn_files::same_s`]).

use super::config::SameSConfig;
use super::model::{Block, Decoder, Encoder, SameS};
use crate::layers::DynamicTanh;
use crate::layers::attention::{
    FiveWayDiffAttn, FiveWayDiffAttnOptions, FiveWayWeights, RopeConfig, heads_norm,
};
use crate::models::{Builder, Loader, Model, ModelFiles, ModelLoader};
use crate::parts::{Part, PartWeights, Parts, WeightInfo, elements};
use diffattn::{Error, Linear, Pace, RopeFrequencies, Tensor, try_zeroed};
use diffattn_files::five_way::DynamicTanhIds;
use diffattn_files::same_s::{CodecBlockIds, CodecSizes, Direction, block_of, is_within};
use diffattn_files::{Declare, Entries, Id};
use serde_json::Value;
use std::sync::Arc;

/// The base of the rotary embedding.
const ROPE_THETA: f64 = 10_000.0;

/// A [`SameS`] on its way: checked as a whole before it has a single element, then loaded part by
/// part, in any order.
///
/// Weights, by the names of `same_s_decoder_f32` and `same_s_encoder_f32`, behind `decoder.` and
/// `encoder.`; a checkpoint may have one of the two alone. Parts are what is around the blocks of
/// the decoder (`running_std` `[1]`, `new_tokens` `[1, 1, dim]`, `project_in` `[dim, latent]`,
/// `mapping.weight` `[channels, dim, 3]`), each of its blocks, then the same of the encoder
/// (`running_std`, `new_tokens`, `mapping` `[dim, channels]`, `project_out` `[latent, dim]`,
/// `scaling_factor` and `bias` `[1, latent, 1]`). A block `blocks.i.` has `pre_norm`, `ff_norm`
/// (`.alpha` `[1]`, `.gamma` and `.beta` `[dim]`), `attn.to_qkv.weight` `[5 · dim, dim]`,
/// `attn.to_out.weight`, `attn.q_norm`, `attn.k_norm`, `ff.glu_proj` `[2 · inner, dim]` and
/// `ff.proj_out`, these two with a bias.
pub type SameSLoader = Loader<SameSBuilder>;

impl SameSLoader {
    /// Checks the config, and a checkpoint's entries against it.
    ///
    /// # Errors
    /// [`ErrorKind::File`](diffattn::ErrorKind::File) naming the entry of the config as
    /// `config.KEY`, or the weight as `weights.NAME`: missing, of another shape, of elements that
    /// are not F64, F32, F16 or BF16, or without a place in the codec; `weights` where none has a
    /// name of the codec's.
    pub fn new(config: &SameSConfig, entries: &[WeightInfo]) -> Result<Self, Error> {
        config.check()?;
        let mut entries = Entries::new(entries, false)?;
        let directions: Vec<Direction> = Direction::ALL
            .into_iter()
            .filter(|direction| direction.is_among(entries.names()))
            .collect();
        if directions.is_empty() {
            let expected = "names as those of the files same_s_decoder_f32 and same_s_encoder_f32, behind \"decoder.\" and \"encoder.\"";
            let got = match entries.names().next() {
                None => "none at all".to_owned(),
                Some(name) => format!("others, such as {name:?}"),
            };
            return Err(Error::file("weights", expected, got));
        }
        let sizes = config.codec_sizes();
        for &direction in &directions {
            let mut list = Declare::new();
            ends(sizes, direction, &mut list);
            entries.part(&list)?;
            // (As many as the entries bear out: the first that is missing ends it.)
            for index in 0..config.depth {
                let mut list = Declare::new();
                sizes.block(direction, index, &mut list);
                entries.part(&list)?;
            }
        }
        let stored = (entries.names().filter_map(block_of))
            .map(|(_, index)| index.saturating_add(1))
            .max();
        if let Some(stored) = stored.filter(|&stored| stored > config.depth) {
            entries.tell_layers(config.depth, stored);
        }
        let is_more = |name: &str| block_of(name).is_some_and(|(_, index)| index >= config.depth);
        let parts = entries.finish(|_| false, |name| is_within(name) && !is_more(name))?;
        let halves = directions.iter().map(|&direction| Half {
            direction,
            ends: None,
            blocks: (0..config.depth).map(|_| None).collect(),
        });
        let builder = SameSBuilder {
            config: *config,
            halves: halves.collect(),
        };
        Ok(Self::of(Parts::new(parts), builder))
    }
}

/// A loader of SAME-S.
pub(crate) fn open(files: &ModelFiles<'_>) -> Result<Box<dyn ModelLoader>, Error> {
    let config = SameSConfig::from_json(files.config)?;
    Ok(Box::new(SameSLoader::new(&config, files.entries)?))
}

/// Lists what is around the blocks of a direction.
fn ends(sizes: CodecSizes, direction: Direction, list: &mut Declare) {
    match direction {
        Direction::Decoder => _ = sizes.decoder(list),
        Direction::Encoder => _ = sizes.encoder(list),
    }
}

/// What is around the blocks, which are none yet.
#[derive(Debug)]
enum Ends {
    Decoder(Decoder),
    Encoder(Encoder),
}

/// What is there of a direction.
#[derive(Debug)]
struct Half {
    direction: Direction,
    ends: Option<Ends>,
    blocks: Vec<Option<Block>>,
}

/// What is there of a [`SameS`], part by part.
#[derive(Debug)]
pub struct SameSBuilder {
    config: SameSConfig,
    halves: Vec<Half>,
}

impl Builder for SameSBuilder {
    type Config = SameSConfig;
    type Model = SameS;

    fn config(&self) -> &SameSConfig {
        &self.config
    }

    fn config_json(&self) -> Value {
        self.config.known()
    }

    /// A part at once: blocks of 8 million weights are the largest.
    fn units(&self, _part: usize) -> usize {
        1
    }

    async fn build(
        &mut self,
        part: usize,
        weights: PartWeights<'_>,
        pace: &Pace,
    ) -> Result<(), Error> {
        pace.granted().await;
        let (config, per) = (self.config, self.config.depth + 1);
        let Some(half) = self.halves.get_mut(part / per) else {
            return Err(Error::internal("a part of no direction"));
        };
        let mut list = Declare::new();
        let sizes = config.codec_sizes();
        match (part % per).checked_sub(1) {
            Some(index) => {
                let ids = sizes.block(half.direction, index, &mut list);
                half.blocks[index] = Some(block(&config, Part::new(list, weights), ids)?);
            }
            None => {
                half.ends = Some(match half.direction {
                    Direction::Decoder => Ends::Decoder(decoder(sizes, weights)?),
                    Direction::Encoder => Ends::Encoder(encoder(sizes, weights)?),
                });
            }
        }
        Ok(())
    }

    fn complete(&mut self) -> Result<SameS, Error> {
        let mut model = SameS {
            config: self.config,
            decoder: None,
            encoder: None,
        };
        for half in std::mem::take(&mut self.halves) {
            let (Some(ends), Some(blocks)) = (half.ends, half.blocks.into_iter().collect()) else {
                return Err(Error::internal("a part left nothing behind"));
            };
            match ends {
                Ends::Decoder(decoder) => model.decoder = Some(Decoder { blocks, ..decoder }),
                Ends::Encoder(encoder) => model.encoder = Some(Encoder { blocks, ..encoder }),
            }
        }
        Ok(model)
    }

    fn of_any_family(model: Arc<SameS>) -> Model {
        Model::Audio(model)
    }
}

fn number(part: &Part<'_>, id: Id) -> Result<f32, Error> {
    let first = part.vector(id)?.first().copied();
    first.ok_or_else(|| Error::internal("a number without an element"))
}

fn dynamic_tanh(part: &Part<'_>, ids: DynamicTanhIds) -> Result<DynamicTanh, Error> {
    Ok(DynamicTanh {
        alpha: number(part, ids.alpha)?,
        weight: part.vector(ids.gamma)?,
        bias: part.vector(ids.beta)?,
    })
}

fn decoder(sizes: CodecSizes, weights: PartWeights<'_>) -> Result<Decoder, Error> {
    let mut list = Declare::new();
    let ids = sizes.decoder(&mut list);
    let mut part = Part::new(list, weights);
    // From [outputs, channel, neighbour] to the channels of one neighbour after the other.
    let CodecSizes { dim, channels, .. } = sizes;
    let stored = part.vector(ids.mapping)?;
    let mut rows = try_zeroed(stored.len())?;
    for (to, from) in rows
        .chunks_exact_mut(3 * dim)
        .zip(stored.chunks_exact(3 * dim))
    {
        for (at, to) in to.iter_mut().enumerate() {
            *to = from[at % dim * 3 + at / dim];
        }
    }
    let bias = part.tensor(ids.mapping_bias)?;
    Ok(Decoder {
        running_std: number(&part, ids.running_std)?,
        new_token: part.vector(ids.new_tokens)?,
        mapping: Linear::new(&Tensor::f32(&rows, &[channels, 3 * dim]), Some(&bias))?,
        project_in: part.linear(ids.project_in)?,
        blocks: Vec::new(),
    })
}

fn encoder(sizes: CodecSizes, weights: PartWeights<'_>) -> Result<Encoder, Error> {
    let mut list = Declare::new();
    let ids = sizes.encoder(&mut list);
    let mut part = Part::new(list, weights);
    Ok(Encoder {
        running_std: number(&part, ids.running_std)?,
        new_token: part.vector(ids.new_tokens)?,
        scale: part.vector(ids.scaling_factor)?,
        bias: part.vector(ids.bias)?,
        mapping: part.linear(ids.mapping)?,
        project_out: part.linear(ids.project_out)?,
        blocks: Vec::new(),
    })
}

/// Packs a block.
fn block(config: &SameSConfig, mut part: Part<'_>, ids: CodecBlockIds) -> Result<Block, Error> {
    let frequencies = RopeFrequencies {
        theta: Some(ROPE_THETA),
        ..RopeFrequencies::default()
    };
    let options = FiveWayDiffAttnOptions {
        rope: Some(RopeConfig {
            interleaved: false,
            frequencies,
        }),
        rotary_dim: Some(config.rope_dims),
        ..FiveWayDiffAttnOptions::new(config.dim, config.dim_heads)
    };
    let heads_norms = match ids.attention.heads_norms {
        None => None,
        Some([q, k]) => {
            let norm = |ids| heads_norm(ids, |id| part.vector(id));
            Some([norm(q)?, norm(k)?])
        }
    };
    let out = part.linear(ids.attention.out)?;
    let weights = FiveWayWeights {
        qkv: part.tensor(ids.attention.qkv)?,
        out,
        heads_norms,
    };
    let attention = FiveWayDiffAttn::of_weights(&options, weights)?.into();
    let (weight, bias) = (part.tensor(ids.glu_proj)?, part.bias(ids.glu_proj));
    // Values, then gates.
    let inner = config.ff_inner;
    let half = |first: usize| {
        let bias = bias.as_ref().map(|bias| rows(bias, first, inner));
        Linear::new(&rows(&weight, first, inner), bias.as_ref())
    };
    let (up, gate) = (half(0)?, half(inner)?);
    Ok(Block {
        pre_norm: dynamic_tanh(&part, ids.pre_norm)?,
        attention,
        ff_norm: dynamic_tanh(&part, ids.ff_norm)?,
        gate,
        up,
        down: part.linear(ids.proj_out)?,
    })
}

/// So many rows of a weight or a bias from `first` on.
fn rows<'t>(of: &Tensor<'t>, first: usize, count: usize) -> Tensor<'t> {
    let width: usize = of.shape[1..].iter().product();
    let mut shape = of.shape.clone();
    shape[0] = count;
    Tensor {
        data: elements(&of.data, first * width..(first + count) * width),
        shape,
    }
}
