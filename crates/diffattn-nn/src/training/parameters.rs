//! Which weights of a model move: their masters in an arena, by the names of the model's lists; and
//! the way back into the model after a step. Computes nothing.

use super::arena::{Arena, ParameterId};
use super::ids::{AttentionIds, LambdaParameters};
use super::layer::LayerIds;
use super::maps::{LowRankIds, MapIds, repack, weight_values};
use super::start::hash;
use crate::layers::Activation;
use crate::layers::attention::{DiffAttnLayer, LambdaSource, LambdaWeights};
use crate::models::diff_llama::{DecoderLayer, DiffLlama, decoder_sizes};
use crate::models::tables::listed;
use diffattn::{Error, Linear, Tensor};
use diffattn_files::decoder::{DecoderLambda, DecoderLayerIds};
use diffattn_files::{Declare, Id, LambdaIds};
use rand_pcg::Pcg64;
use rand_pcg::rand_core::{Rng, SeedableRng};
use std::ops::Range;

/// Adapters: low-rank differences of the maps of layers (arXiv 2106.09685).
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterOptions {
    /// Rows of A. 16 by default.
    pub rank: usize,
    /// The difference is alpha / rank · B A. As the rank by default.
    pub alpha: f64,
    /// The last parts of the names of maps that have one; all maps of layers by default.
    pub targets: Vec<String>,
    /// Of A's random values; B is zeros at first.
    pub seed: u64,
}

impl Default for AdapterOptions {
    fn default() -> Self {
        let targets = [
            "q_proj",
            "k_proj",
            "v_proj",
            "o_proj",
            "gate_proj",
            "up_proj",
            "down_proj",
        ];
        Self {
            rank: 16,
            alpha: 16.0,
            targets: targets.map(str::to_owned).to_vec(),
            seed: 0,
        }
    }
}

/// Which parameters a model is made of.
#[derive(Debug, Default)]
pub(crate) struct ModelIds {
    /// Parameters whose gradients become whole together, by their numbers in the arena: what stands
    /// before the layers, each layer, what stands behind them.
    pub(crate) buckets: Vec<Range<usize>>,
    /// The table of embeddings, where it is not the head's weight.
    pub(crate) table: Option<ParameterId>,
    pub(crate) layers: Vec<LayerIds>,
    pub(crate) norm: Option<ParameterId>,
    pub(crate) head: MapIds,
}

/// Takes the weights of a model that move into an arena.
pub struct Taking<'t> {
    pub(crate) arena: &'t mut Arena,
    /// Whether a weight of that name moves.
    pub(crate) moves: &'t dyn Fn(&str) -> bool,
    pub(crate) adapter: Option<&'t AdapterOptions>,
}

impl Taking<'_> {
    /// All of a language model, whose moving maps are held as float32 from then on.
    pub(super) fn text(&mut self, model: &mut DiffLlama) -> Result<ModelIds, Error> {
        let sizes = decoder_sizes(&model.config, model.embedding.is_of_head());
        let (list, ids) = listed(|d| sizes.embeddings(d));
        let mut made = ModelIds::default();
        let mut ends = Vec::new();
        let table = ids.table.map(|id| list.get(id).weight());
        let is_tied = model.embedding.is_of_head();
        match table {
            Some(name) if is_tied => {
                made.head.weight = self.weight(&name, &mut model.head)?;
            }
            Some(name) if (self.moves)(&name) => {
                let shape = [model.config.vocab_size, model.config.hidden_size];
                let rows = |to: &mut [f32]| model.embedding.read(to);
                made.table = Some(self.arena.add(name, &shape, rows)?);
            }
            _ => {}
        }
        for (index, layer) in model.layers.iter_mut().enumerate() {
            ends.push(self.arena.parameters().len());
            let sizes = sizes.with_differential(model.config.differential_heads(index));
            let (list, ids) = listed(|d| sizes.layer(index, d));
            made.layers.push(self.layer(layer, &list, &ids)?);
        }
        ends.push(self.arena.parameters().len());
        let (list, id) = listed(|d| sizes.norm(d));
        made.norm = self.vector(&list.get(id).weight(), &model.norm)?;
        if !is_tied {
            let (list, id) = listed(|d| sizes.head(d));
            made.head = self.map(&list, id, &mut model.head)?;
        }
        ends.push(self.arena.parameters().len());
        made.buckets = buckets(&ends);
        Ok(made)
    }

    fn layer(
        &mut self,
        layer: &mut DecoderLayer,
        list: &Declare,
        ids: &DecoderLayerIds,
    ) -> Result<LayerIds, Error> {
        let attention = &mut layer.attention;
        let maps = ids.projections;
        Ok(LayerIds {
            input_norm: self.vector(&list.get(ids.input_norm).weight(), &layer.input_norm)?,
            attention: AttentionIds {
                q: self.map(list, maps.q, &mut attention.q)?,
                k: self.map(list, maps.k, &mut attention.k)?,
                v: self.map(list, maps.v, &mut attention.v)?,
                out: self.map(list, maps.out, &mut attention.out)?,
                lambda: self.lambda(list, ids.lambda, attention)?,
                norm: match (ids.head_norm, &attention.norm) {
                    (Some(id), Some(norm)) => {
                        let weight = norm.weight.as_deref().unwrap_or_default();
                        self.vector(&list.get(id).weight(), weight)?
                    }
                    _ => None,
                },
            },
            post_norm: self.vector(&list.get(ids.post_norm).weight(), &layer.post_norm)?,
            gate: self.map(list, ids.gate, &mut layer.gate)?,
            up: self.map(list, ids.up, &mut layer.up)?,
            down: self.map(list, ids.down, &mut layer.down)?,
            poly_norm: match (ids.poly_norm, layer.act) {
                (Some([factors, own]), Activation::PolyNorm { weight, bias }) => [
                    self.vector(&list.get(factors).weight(), &weight)?,
                    self.vector(&list.get(own).weight(), &[bias])?,
                ],
                _ => [None; 2],
            },
        })
    }

    fn lambda(
        &mut self,
        list: &Declare,
        lambda: Option<DecoderLambda>,
        attention: &mut DiffAttnLayer,
    ) -> Result<LambdaParameters, Error> {
        if let (Some(DecoderLambda::Projected(id)), LambdaSource::Projected(of)) =
            (lambda, &mut attention.lambda)
        {
            let ids = self.map(list, id, &mut of.linear)?;
            return Ok(match ids.moves() {
                true => LambdaParameters::Projected(ids),
                false => LambdaParameters::Frozen,
            });
        }
        if let (Some(DecoderLambda::Dex { weight, lambda }), Some(dex)) = (lambda, &attention.dex) {
            let shape = [dex.map.inputs(), dex.map.outputs()];
            let parts = dex.parts();
            let ids = [
                self.tensor(&list.get(weight).weight(), &shape, &parts.weight)?,
                self.tensor(&list.get(lambda).weight(), &[], &[parts.lambda as f32])?,
            ];
            return Ok(match ids {
                [None, None] => LambdaParameters::Frozen,
                ids => LambdaParameters::Dex(ids),
            });
        }
        match lambda {
            Some(DecoderLambda::Layer(ids)) => self.layer_lambda(list, ids, attention),
            _ => Ok(LambdaParameters::Frozen),
        }
    }

    /// What a λ of a whole layer is made of.
    pub(super) fn layer_lambda(
        &mut self,
        list: &Declare,
        ids: LambdaIds,
        attention: &DiffAttnLayer,
    ) -> Result<LambdaParameters, Error> {
        let name = |id: Id| list.get(id).weight();
        let Some(parts) = &attention.lambda_parts else {
            return Ok(LambdaParameters::Frozen);
        };
        match (ids, &parts.weights) {
            (LambdaIds::Vectors(ids), LambdaWeights::Vectors(of)) => {
                let mut made = Vec::new();
                for (id, values) in ids.into_iter().zip(of) {
                    made.extend(self.vector(&name(id), values)?);
                }
                let made = <[ParameterId; 4]>::try_from(made);
                Ok(made.map_or(LambdaParameters::Frozen, LambdaParameters::Vectors))
            }
            (LambdaIds::Scalars(ids), LambdaWeights::Scalars(of)) => {
                let mut made = Vec::new();
                for (id, &value) in ids.into_iter().zip(of) {
                    made.extend(self.tensor(&name(id), &[], &[value as f32])?);
                }
                let made = <[ParameterId; 2]>::try_from(made);
                Ok(made.map_or(LambdaParameters::Frozen, LambdaParameters::Scalars))
            }
            _ => Ok(LambdaParameters::Frozen),
        }
    }

    pub(super) fn vector(
        &mut self,
        name: &str,
        values: &[f32],
    ) -> Result<Option<ParameterId>, Error> {
        self.tensor(name, &[values.len()], values)
    }

    /// A tensor that is no map's.
    pub(super) fn tensor(
        &mut self,
        name: &str,
        shape: &[usize],
        values: &[f32],
    ) -> Result<Option<ParameterId>, Error> {
        if !(self.moves)(name) {
            return Ok(None);
        }
        let add = self.arena.add(name.to_owned(), shape, |to| {
            to.copy_from_slice(values);
            Ok(())
        });
        add.map(Some)
    }

    /// The weight of a map, which is held as float32 from then on.
    fn weight(&mut self, name: &str, linear: &mut Linear) -> Result<Option<ParameterId>, Error> {
        let shape = [linear.outputs(), linear.inputs()];
        self.stacked(name, &shape, &mut [linear])
    }

    /// The weight of several maps of the same x, their rows one behind the other; each is held as
    /// float32 from then on.
    pub(super) fn stacked(
        &mut self,
        name: &str,
        shape: &[usize],
        maps: &mut [&mut Linear],
    ) -> Result<Option<ParameterId>, Error> {
        if !(self.moves)(name) {
            return Ok(None);
        }
        let mut all = Vec::new();
        for linear in maps {
            let values = weight_values(linear)?;
            let shape = [linear.outputs(), linear.inputs()];
            let bias = linear.bias().map(<[f32]>::to_vec);
            let bias = bias.as_ref().map(|bias| Tensor::f32(bias, &shape[..1]));
            **linear = Linear::new(&Tensor::f32(&values, &shape), bias.as_ref())?;
            all.push(values);
        }
        let add = self.arena.add(name.to_owned(), shape, |to| {
            let mut at = 0;
            for values in &all {
                to[at..at + values.len()].copy_from_slice(values);
                at += values.len();
            }
            Ok(())
        });
        add.map(Some)
    }

    pub(super) fn map(
        &mut self,
        list: &Declare,
        id: Id,
        linear: &mut Linear,
    ) -> Result<MapIds, Error> {
        let declared = list.get(id);
        let weight = self.weight(&declared.weight(), linear)?;
        let bias = match linear.bias() {
            Some(bias) => {
                let bias = bias.to_vec();
                self.vector(&declared.bias(), &bias)?
            }
            None => None,
        };
        let low_rank = self.low_rank(&declared.name, linear)?;
        Ok(MapIds {
            weight,
            bias,
            low_rank,
        })
    }

    /// The low-rank difference of a map that is to have one.
    fn low_rank(&mut self, name: &str, linear: &mut Linear) -> Result<Option<LowRankIds>, Error> {
        let Some(options) = self.adapter else {
            return Ok(None);
        };
        let last = name.rsplit('.').next().unwrap_or(name);
        if !options.targets.iter().any(|target| target == last) {
            return Ok(None);
        }
        let (rank, inputs, outputs) = (options.rank, linear.inputs(), linear.outputs());
        let mut random = Pcg64::seed_from_u64(options.seed ^ hash(name));
        let bound = 1.0 / (inputs as f64).sqrt();
        let a = self
            .arena
            .add(format!("{name}.lora_A.weight"), &[rank, inputs], |to| {
                for value in to {
                    let unit = (random.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
                    *value = ((2.0 * unit - 1.0) * bound) as f32;
                }
                Ok(())
            })?;
        let b = format!("{name}.lora_B.weight");
        let b = self.arena.add(b, &[outputs, rank], |_| Ok(()))?;
        let of =
            |id, shape: [usize; 2]| Linear::new(&Tensor::f32(self.arena.value(id), &shape), None);
        let (lora_a, lora_b) = (of(a, [rank, inputs])?, of(b, [outputs, rank])?);
        *linear = linear.clone().with_low_rank(lora_a, lora_b)?;
        Ok(Some(LowRankIds {
            a,
            b,
            factor: (options.alpha / rank as f64) as f32,
        }))
    }
}

/// Buckets of parameters, by where each ends.
pub(super) fn buckets(ends: &[usize]) -> Vec<Range<usize>> {
    let begins = std::iter::once(0).chain(ends.iter().copied());
    let both = begins.zip(ends.iter().copied());
    both.map(|(begin, end)| begin..end).collect()
}

/// Puts what moved of a layer back into the model.
pub(crate) fn put_back_layer(
    layer: &mut DecoderLayer,
    ids: &LayerIds,
    arena: &Arena,
) -> Result<(), Error> {
    put_attention(&mut layer.attention, &ids.attention, arena)?;
    for (linear, ids) in [
        (&mut layer.gate, ids.gate),
        (&mut layer.up, ids.up),
        (&mut layer.down, ids.down),
    ] {
        repack(linear, ids, arena)?;
    }
    if let Activation::PolyNorm { weight, bias } = &mut layer.act {
        let to = [&mut weight[..], std::slice::from_mut(bias)];
        for (to, id) in to.into_iter().zip(ids.poly_norm) {
            if let Some(id) = id {
                to.copy_from_slice(arena.value(id));
            }
        }
    }
    for (weight, id) in [
        (&mut layer.input_norm, ids.input_norm),
        (&mut layer.post_norm, ids.post_norm),
    ] {
        if let Some(id) = id {
            weight.copy_from_slice(arena.value(id));
        }
    }
    Ok(())
}

/// Puts what moved of the embeddings, the last norm and the head back into the model.
pub(crate) fn put_back_ends(
    model: &mut DiffLlama,
    ids: &ModelIds,
    arena: &Arena,
) -> Result<(), Error> {
    if let Some(id) = ids.table {
        model.embedding.set(arena.value(id))?;
    }
    if let Some(id) = ids.norm {
        model.norm.copy_from_slice(arena.value(id));
    }
    repack(&mut model.head, ids.head, arena)
}

/// Puts what moved of attention back into its layer.
pub(super) fn put_attention(
    attention: &mut DiffAttnLayer,
    ids: &AttentionIds,
    arena: &Arena,
) -> Result<(), Error> {
    for (linear, ids) in [
        (&mut attention.q, ids.q),
        (&mut attention.k, ids.k),
        (&mut attention.v, ids.v),
        (&mut attention.out, ids.out),
    ] {
        repack(linear, ids, arena)?;
    }
    if let (Some(id), Some(norm)) = (ids.norm, &mut attention.norm) {
        norm.weight = Some(arena.value(id).to_vec());
    }
    put_lambda(attention, ids, arena)
}

/// λ of what moved.
fn put_lambda(
    attention: &mut DiffAttnLayer,
    ids: &AttentionIds,
    arena: &Arena,
) -> Result<(), Error> {
    if let (LambdaParameters::Dex([weight, lambda]), Some(dex)) = (ids.lambda, &mut attention.dex) {
        let lambda = lambda.and_then(|id| arena.value(id).first().copied());
        let weight = weight.map(|id| arena.value(id));
        return dex.set(weight, lambda.map(f64::from));
    }
    match (ids.lambda, &mut attention.lambda) {
        (LambdaParameters::Projected(ids), LambdaSource::Projected(of)) => {
            return repack(&mut of.linear, ids, arena);
        }
        (LambdaParameters::Frozen, _) => return Ok(()),
        _ => {}
    }
    let Some(parts) = &mut attention.lambda_parts else {
        return Ok(());
    };
    match (ids.lambda, &mut parts.weights) {
        (LambdaParameters::Vectors(ids), LambdaWeights::Vectors(of)) => {
            for (id, to) in ids.into_iter().zip(of) {
                to.copy_from_slice(arena.value(id));
            }
        }
        (LambdaParameters::Scalars(ids), LambdaWeights::Scalars(of)) => {
            for (id, to) in ids.into_iter().zip(of) {
                *to = arena.value(id).first().copied().map_or(0.0, f64::from);
            }
        }
        _ => return Ok(()),
    }
    attention.lambda = LambdaSource::Value(parts.value()? as f32);
    Ok(())
}
