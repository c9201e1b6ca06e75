//! Requests of attention and its maps: from the stream to the operator. Checks no shapes; the operator does.

use std::sync::Arc;

use diffattn::{
    AttentionOptions, DType, DiffAttention, DiffAttentionMaps, Error, HeadPlan, KeysOnly,
    KeysValues, KvCache, KvRepeat, Lambda, Layout, MapOutputs, Mask, NormOptions, Pairing,
};

use crate::job::{OutputSpec, Outputs, Work};
use crate::objects::{Door, Slot};
use crate::reader::{Reader, TensorAt};
use crate::settings::Settings;

pub(crate) const PAIRINGS: [Pairing; 4] = [
    Pairing::Interleaved,
    Pairing::Halves,
    Pairing::Grouped,
    Pairing::Shared,
];
pub(crate) const KV_REPEATS: [KvRepeat; 2] = [KvRepeat::Paired, KvRepeat::Flat];
pub(crate) const LAYOUTS: [Layout; 2] = [Layout::Bhsd, Layout::Bshd];

/// [`AttentionOptions`] with tensors as places among the operands.
#[derive(Debug)]
pub(crate) struct Options {
    lambda: Option<LambdaAt>,
    coefficients: Option<Vec<f32>>,
    pairing: Option<Pairing>,
    heads: Option<Vec<HeadPlan>>,
    ratio: Option<usize>,
    kv_repeat: Option<KvRepeat>,
    layout: Layout,
    scale: Option<f32>,
    is_causal: bool,
    softcap: Option<f32>,
    window: Option<[Option<usize>; 2]>,
    attn_mask: Option<TensorAt>,
    attn_bias: Option<TensorAt>,
    key_lengths: Option<Vec<i32>>,
    query_offset: Option<Vec<i64>>,
    cu_seqlens_q: Option<Vec<i32>>,
    cu_seqlens_k: Option<Vec<i32>>,
    norm: Option<NormAt>,
    return_lse: bool,
    deterministic: bool,
    settings: Settings,
}

#[derive(Debug)]
enum LambdaAt {
    Value(f32),
    Tensor(TensorAt),
}

#[derive(Debug)]
struct NormAt {
    eps: Option<f32>,
    weight: Option<TensorAt>,
    scale: Option<f32>,
}

fn int32(reader: &mut Reader<'_>, argument: &'static str) -> Result<i32, Error> {
    let x = reader.integer(argument)?;
    i32::try_from(x).map_err(|_| Error::shape(argument, "numbers that fit int32", x))
}

fn int32s(reader: &mut Reader<'_>, argument: &'static str) -> Result<Option<Vec<i32>>, Error> {
    reader.optional(argument, |reader, argument| reader.list(argument, int32))
}

impl Options {
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, Error> {
        let lambda = match reader.choice("lambda", &[0, 1, 2])? {
            0 => None,
            1 => Some(LambdaAt::Value(reader.f32("lambda")?)),
            _ => Some(LambdaAt::Tensor(reader.tensor("lambda")?)),
        };
        let coefficients = reader.optional("coefficients", |r, name| r.list(name, Reader::f32))?;
        let pairing = reader.optional("pairing", |r, name| r.choice(name, &PAIRINGS))?;
        let heads = reader.optional("heads", |r, name| {
            r.list(name, |r, _| {
                Ok(HeadPlan {
                    q: r.list("heads.q", Reader::size)?,
                    k: r.list("heads.k", Reader::size)?,
                    v: r.list("heads.v", Reader::size)?,
                    coefficients: r
                        .optional("heads.coefficients", |r, name| r.list(name, Reader::f32))?,
                })
            })
        })?;
        if let (Some(_), Some(pairing)) = (&heads, pairing) {
            return Err(Error::option(
                "pairing",
                "none beside heads, which are the plan themselves",
                pairing.name(),
            ));
        }
        let ratio = reader.optional("ratio", Reader::count)?;
        let kv_repeat = reader.optional("kv_repeat", |r, name| r.choice(name, &KV_REPEATS))?;
        let layout = reader.choice("layout", &LAYOUTS)?;
        let scale = reader.optional("scale", Reader::f32)?;
        let is_causal = reader.flag("is_causal")?;
        let softcap = reader.optional("softcap", Reader::f32)?;
        let window = reader.optional("window", |r, name| {
            Ok([
                r.optional(name, Reader::count)?,
                r.optional(name, Reader::count)?,
            ])
        })?;
        let attn_mask = reader.tensor_or_none("attn_mask")?;
        let attn_bias = reader.tensor_or_none("attn_bias")?;
        let key_lengths = int32s(reader, "key_lengths")?;
        let query_offset =
            reader.optional("query_offset", |r, name| r.list(name, Reader::integer))?;
        let cu_seqlens_q = int32s(reader, "cu_seqlens_q")?;
        let cu_seqlens_k = int32s(reader, "cu_seqlens_k")?;
        let norm = reader.optional("norm", |r, _| {
            Ok(NormAt {
                eps: r.optional("norm.eps", Reader::f32)?,
                weight: r.tensor_or_none("norm.weight")?,
                scale: r.optional("norm.scale", Reader::f32)?,
            })
        })?;
        let return_lse = reader.flag("return_lse")?;
        let deterministic = reader.flag("deterministic")?;
        Ok(Self {
            lambda,
            coefficients,
            pairing,
            heads,
            ratio,
            kv_repeat,
            layout,
            scale,
            is_causal,
            softcap,
            window,
            attn_mask,
            attn_bias,
            key_lengths,
            query_offset,
            cu_seqlens_q,
            cu_seqlens_k,
            norm,
            return_lse,
            deterministic,
            settings: Settings::now(),
        })
    }

    fn with<'m>(&'m self, operands: &[&'m [u8]]) -> Result<AttentionOptions<'m>, Error> {
        let lambda = match &self.lambda {
            None => None,
            Some(LambdaAt::Value(value)) => Some(Lambda::Value(*value)),
            Some(LambdaAt::Tensor(at)) if at.shape.len() == 1 => {
                Some(Lambda::PerHead(at.f32(operands)?))
            }
            Some(LambdaAt::Tensor(at)) => Some(Lambda::PerToken {
                data: at.f32(operands)?,
                shape: at.shape.clone(),
            }),
        };
        let attn_mask = match &self.attn_mask {
            None => None,
            Some(at) => Some(Mask {
                data: at.u8(operands)?,
                shape: at.shape.clone(),
            }),
        };
        let attn_bias = match &self.attn_bias {
            None => None,
            Some(at) => {
                at.f32(operands)?; // its dtype is checked here
                Some(at.tensor(operands)?)
            }
        };
        let norm = match &self.norm {
            None => None,
            Some(norm) => {
                let default = NormOptions::default();
                Some(NormOptions {
                    eps: norm.eps.unwrap_or(default.eps),
                    weight: norm
                        .weight
                        .as_ref()
                        .map(|at| at.f32_vector(operands))
                        .transpose()?,
                    scale: norm.scale.unwrap_or(default.scale),
                })
            }
        };
        Ok(AttentionOptions {
            block_mask: None,
            sinks: None,
            lambda,
            coefficients: self.coefficients.as_deref(),
            pairing: self.pairing.unwrap_or_default(),
            heads: self.heads.clone(),
            ratio: self.ratio,
            kv_repeat: self.kv_repeat,
            layout: self.layout,
            scale: self.scale,
            is_causal: self.is_causal,
            softcap: self.softcap,
            window: self.window,
            attn_mask,
            attn_bias,
            key_lengths: self.key_lengths.as_deref(),
            query_offset: self.query_offset.clone(),
            cu_seqlens_q: self.cu_seqlens_q.as_deref(),
            cu_seqlens_k: self.cu_seqlens_k.as_deref(),
            norm,
            return_lse: self.return_lse,
            run: self.settings.run().with_deterministic(self.deterministic),
        })
    }
}

/// Where keys (and values) come from.
#[derive(Debug)]
enum Source<T> {
    Tensors(T),
    Cache(Arc<Slot<KvCache>>),
}

impl<T> Source<T> {
    fn read(
        door: &Door,
        reader: &mut Reader<'_>,
        tensors: impl FnOnce(&mut Reader<'_>) -> Result<T, Error>,
    ) -> Result<Self, Error> {
        if reader.flag("k")? {
            let id = reader.object("cache")?;
            Ok(Self::Cache(door.cache("cache", id)?))
        } else {
            tensors(reader).map(Self::Tensors)
        }
    }

    fn cache(&self) -> Option<&Arc<Slot<KvCache>>> {
        match self {
            Self::Tensors(_) => None,
            Self::Cache(cache) => Some(cache),
        }
    }
}

/// A request of `diffAttention`.
#[derive(Debug)]
pub(crate) struct AttentionRequest {
    q: TensorAt,
    source: Source<[TensorAt; 2]>,
    options: Options,
}

/// A prepared operator with its outputs.
pub(crate) type Prepared<'m> = (Box<dyn Work<'m> + 'm>, Vec<OutputSpec>);

impl AttentionRequest {
    pub(crate) fn read(door: &Door, reader: &mut Reader<'_>) -> Result<Self, Error> {
        let q = reader.tensor("q")?;
        let source = Source::read(door, reader, |r| Ok([r.tensor("k")?, r.tensor("v")?]))?;
        Ok(Self {
            q,
            source,
            options: Options::read(reader)?,
        })
    }

    pub(crate) fn cache(&self) -> Option<&Arc<Slot<KvCache>>> {
        self.source.cache()
    }

    /// `cache` is the one that the request names, as the call sees it.
    pub(crate) fn prepare<'m>(
        &'m self,
        operands: &[&'m [u8]],
        cache: Option<&'m KvCache>,
    ) -> Result<Prepared<'m>, Error> {
        let kv = match (&self.source, cache) {
            (Source::Tensors([k, v]), _) => KeysValues::Tensors {
                k: k.tensor(operands)?,
                v: v.tensor(operands)?,
            },
            (Source::Cache(_), Some(cache)) => KeysValues::Cache(cache),
            (Source::Cache(_), None) => {
                return Err(Error::Internal("the cache of a request is missing".into()));
            }
        };
        let attention =
            DiffAttention::new(self.q.tensor(operands)?, kv, &self.options.with(operands)?)?;
        let mut outputs = vec![OutputSpec::new(
            "out",
            attention.output_dtype(),
            &attention.output_shape(),
        )?];
        if self.options.return_lse {
            outputs.push(OutputSpec::new("lse", DType::F32, &attention.lse_shape())?);
        }
        Ok((
            Box::new(Attention {
                attention: Bound::Not(Some(attention)),
                lse: self.options.return_lse,
            }),
            outputs,
        ))
    }
}

struct Attention<'m> {
    attention: Bound<'m, DiffAttention<'m>>,
    lse: bool,
}

/// A checked call until its outputs are there, then its work.
enum Bound<'m, C> {
    Not(Option<C>),
    Work(diffattn::Work<'m>),
}

impl<'m, C> Bound<'m, C> {
    fn bind(
        &mut self,
        work: impl FnOnce(C) -> Result<diffattn::Work<'m>, Error>,
    ) -> Result<(), Error> {
        let call = match self {
            Self::Not(call) => call.take(),
            Self::Work(_) => None,
        };
        let call = call.ok_or_else(|| Error::Internal("outputs were bound twice".into()))?;
        *self = Self::Work(work(call)?);
        Ok(())
    }
}

impl<C> diffattn::Slices for Bound<'_, C> {
    fn total(&self) -> usize {
        match self {
            Self::Not(_) => 0,
            Self::Work(work) => work.total(),
        }
    }
    fn done(&self) -> usize {
        match self {
            Self::Not(_) => 0,
            Self::Work(work) => work.done(),
        }
    }
    fn step(&mut self, count: usize) -> Result<(), Error> {
        match self {
            Self::Not(_) => Err(Error::Internal("a step before outputs were bound".into())),
            Self::Work(work) => work.step(count),
        }
    }
}

impl<'m> Work<'m> for Attention<'m> {
    fn bind(&mut self, outputs: &mut Outputs<'m>) -> Result<(), Error> {
        let out = outputs.data()?;
        let lse = if self.lse { Some(outputs.f32()?) } else { None };
        self.attention.bind(|call| call.into_work(out, lse))
    }
}

crate::job::delegate_slices!(Attention<'_>, attention);

/// A request of `diffAttentionMaps`.
#[derive(Debug)]
pub(crate) struct MapsRequest {
    q: TensorAt,
    source: Source<TensorAt>,
    options: Options,
    num_kv_heads: Option<usize>,
    rows: Option<[usize; 2]>,
}

impl MapsRequest {
    pub(crate) fn read(door: &Door, reader: &mut Reader<'_>) -> Result<Self, Error> {
        let q = reader.tensor("q")?;
        let source = Source::read(door, reader, |r| r.tensor("k"))?;
        let options = Options::read(reader)?;
        let num_kv_heads = reader.optional("num_kv_heads", Reader::size)?;
        let rows = reader.optional("rows", |r, name| Ok([r.size(name)?, r.size(name)?]))?;
        Ok(Self {
            q,
            source,
            options,
            num_kv_heads,
            rows,
        })
    }

    pub(crate) fn cache(&self) -> Option<&Arc<Slot<KvCache>>> {
        self.source.cache()
    }

    /// `cache` is the one that the request names, as the call sees it.
    pub(crate) fn prepare<'m>(
        &'m self,
        operands: &[&'m [u8]],
        cache: Option<&'m KvCache>,
    ) -> Result<Prepared<'m>, Error> {
        let k = match (&self.source, cache) {
            (Source::Tensors(k), _) => KeysOnly::Tensor(k.tensor(operands)?),
            (Source::Cache(_), Some(cache)) => KeysOnly::Cache(cache),
            (Source::Cache(_), None) => {
                return Err(Error::Internal("the cache of a request is missing".into()));
            }
        };
        let options = self.options.with(operands)?;
        let maps = DiffAttentionMaps::new(
            self.q.tensor(operands)?,
            k,
            &options,
            self.num_kv_heads,
            self.rows,
        )?;
        let (outputs, terms) = (map_outputs(maps.terms(), &maps.map_shape())?, maps.terms());
        let maps = Bound::Not(Some(maps));
        Ok((Box::new(Maps { maps, terms }), outputs))
    }
}

/// The outputs of every operator that gives maps: `map1`, `map2`, …, `diff`.
pub(crate) fn map_outputs(terms: usize, shape: &[usize]) -> Result<Vec<OutputSpec>, Error> {
    let names = (1..=terms)
        .map(|term| format!("map{term}"))
        .chain(["diff".to_owned()]);
    names
        .map(|name| OutputSpec::new(name, DType::F32, shape))
        .collect()
}

/// Takes the outputs that [`map_outputs`] told.
pub(crate) fn take_map_outputs<'m>(
    terms: usize,
    outputs: &mut Outputs<'m>,
) -> Result<MapOutputs<'m>, Error> {
    let terms = (0..terms)
        .map(|_| outputs.f32())
        .collect::<Result<Vec<_>, _>>()?;
    Ok(MapOutputs {
        terms,
        diff: outputs.f32()?,
    })
}

struct Maps<'m> {
    maps: Bound<'m, DiffAttentionMaps<'m>>,
    terms: usize,
}

impl<'m> Work<'m> for Maps<'m> {
    fn bind(&mut self, outputs: &mut Outputs<'m>) -> Result<(), Error> {
        let to = take_map_outputs(self.terms, outputs)?;
        self.maps.bind(|call| call.into_work(to))
    }
}

crate::job::delegate_slices!(Maps<'_>, maps);
