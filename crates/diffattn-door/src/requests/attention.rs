//! Requests of attention and its maps: from the stream to the operator. Checks no shapes; the
//! operator does.

use diffattn::{
    AttentionOptions, BlockMask, DType, DiffAttention, DiffAttentionMaps, Error, HeadPlan,
    KeysOnly, KeysValues, KvCache, KvRepeat, Lambda, Layout, Mask, NormOptions, Pairing, Run,
};

use super::maps::{map_outputs, take_map_outputs};
use crate::encoding::{
    Count, Encoded, Flag, Float, Int32, Integer, List, Mask as MaskAt, Object, OneOrMore, Or, Size,
    Tensor, Vector, choice, pair, record, request, variant,
};
use crate::job::{OutputSpec, Prepared};
use crate::objects::{Door, Use};
use crate::operation::{Inputs, Operation};
use crate::reader::{Reader, TensorAt, vector_or_none};
use crate::schema::Encoding;

choice! {
    Pairing { "interleaved" = Interleaved, "halves" = Halves, "grouped" = Grouped, "shared" = Shared }
}
choice! { KvRepeat { "paired" = Paired, "flat" = Flat } }

pair! { Window [left, right]: Option<Count> }
pair! { Rows [first, end]: Size }

/// λ: 0 absent, 1 a number, 2 a tensor.
#[derive(Debug)]
pub(crate) enum LambdaAt {
    Absent,
    Value(f32),
    Tensor(TensorAt),
}

impl Encoded for LambdaAt {
    type Value = Self;
    const ENCODING: &'static Encoding = &Encoding::Atom("numberOrVector");

    fn read(_door: &Door, r: &mut Reader<'_>, argument: &'static str) -> Self {
        match r.index(argument, 3) {
            0 => Self::Absent,
            1 => Self::Value(r.f32(argument)),
            _ => Self::Tensor(r.tensor(argument)),
        }
    }
}

impl LambdaAt {
    fn with<'m>(&self, operands: &[&'m [u8]]) -> Result<Option<Lambda<'m>>, Error> {
        Ok(match self {
            Self::Absent => None,
            Self::Value(value) => Some(Lambda::Value(*value)),
            Self::Tensor(at) if at.shape.len() == 1 => Some(Lambda::PerHead(at.f32(operands)?)),
            Self::Tensor(at) => Some(Lambda::PerToken {
                data: at.f32(operands)?,
                shape: at.shape.clone(),
            }),
        })
    }
}

record! {
    /// An output head of a plan.
    record HeadAt in "heads." {
        q: List<Size>,
        k: List<Size>,
        v: List<Size>,
        coefficients: Option<List<Float>>,
    }
}

record! {
    /// The norm of each head.
    record NormAt in "norm." {
        eps: Option<Float>,
        weight: Option<Vector>,
        scale: Option<Float>,
    }
}

record! {
    /// [`AttentionOptions`] with tensors as places among the operands.
    record "attention" OptionsAt {
        lambda: LambdaAt,
        coefficients: Option<List<Float>>,
        pairing: Option<Pairing>,
        heads: Option<List<HeadAt>>,
        ratio: Option<Count>,
        kv_repeat: Option<KvRepeat>,
        layout: Or<Layout>,
        scale: Option<Float>,
        is_causal: Or<Flag>,
        softcap: Option<Float>,
        window: Option<Window>,
        attn_mask: Option<MaskAt>,
        attn_bias: Option<Vector>,
        key_lengths: Option<List<Int32>>,
        query_offset: Option<OneOrMore<Integer>>,
        cu_seqlens_q: Option<List<Int32>>,
        cu_seqlens_k: Option<List<Int32>>,
        norm: Option<NormAt>,
        return_lse: Or<Flag>,
        deterministic: Or<Flag>,
        sinks: Option<Vector>,
        block_mask: Option<MaskAt>,
    }
}

/// A mask that may be absent.
pub(super) fn mask_or_none<'m>(
    at: &Option<TensorAt>,
    operands: &[&'m [u8]],
) -> Result<Option<Mask<'m>>, Error> {
    let Some(at) = at else { return Ok(None) };
    Ok(Some(Mask {
        data: at.u8(operands)?,
        shape: at.shape.clone(),
    }))
}

/// A tensor of float32 that may be absent.
fn f32_or_none<'m>(
    at: &Option<TensorAt>,
    operands: &[&'m [u8]],
) -> Result<Option<diffattn::Tensor<'m>>, Error> {
    let Some(at) = at else { return Ok(None) };
    at.f32(operands)?; // its dtype is checked here
    at.tensor(operands).map(Some)
}

impl OptionsAt {
    pub(super) fn check(&self) -> Result<(), Error> {
        match (&self.heads, self.pairing) {
            (Some(_), Some(pairing)) => Err(Error::option(
                "pairing",
                "none beside heads, which are the plan themselves",
                pairing.name(),
            )),
            _ => Ok(()),
        }
    }

    pub(super) fn with<'m>(
        &'m self,
        operands: &[&'m [u8]],
        run: Run,
    ) -> Result<AttentionOptions<'m>, Error> {
        let lambda = self.lambda.with(operands)?;
        let attn_mask = mask_or_none(&self.attn_mask, operands)?;
        let attn_bias = f32_or_none(&self.attn_bias, operands)?;
        let sinks = f32_or_none(&self.sinks, operands)?;
        let block_mask = match &self.block_mask {
            None => None,
            Some(at) => Some(BlockMask {
                data: at.u8(operands)?,
                shape: at.shape.clone(),
            }),
        };
        let norm = self.norm.as_ref();
        let norm = norm.map(|norm| norm.with(operands)).transpose()?;
        let heads = self.heads.as_ref();
        let heads = heads.map(|heads| heads.iter().map(HeadAt::plan).collect());
        Ok(AttentionOptions {
            lambda,
            coefficients: self.coefficients.as_deref(),
            pairing: self.pairing.unwrap_or_default(),
            heads,
            ratio: self.ratio,
            kv_repeat: self.kv_repeat,
            layout: self.layout,
            scale: self.scale,
            is_causal: self.is_causal,
            softcap: self.softcap,
            window: self.window,
            attn_mask,
            attn_bias,
            block_mask,
            sinks,
            key_lengths: self.key_lengths.as_deref(),
            query_offset: self.query_offset.clone(),
            cu_seqlens_q: self.cu_seqlens_q.as_deref(),
            cu_seqlens_k: self.cu_seqlens_k.as_deref(),
            norm,
            return_lse: self.return_lse,
            run: run.with_deterministic(self.deterministic),
        })
    }
}

impl HeadAt {
    fn plan(&self) -> HeadPlan {
        HeadPlan {
            q: self.q.clone(),
            k: self.k.clone(),
            v: self.v.clone(),
            coefficients: self.coefficients.clone(),
        }
    }
}

impl NormAt {
    fn with<'m>(&self, operands: &[&'m [u8]]) -> Result<NormOptions<'m>, Error> {
        let default = NormOptions::default();
        Ok(NormOptions {
            eps: self.eps.unwrap_or(default.eps),
            weight: vector_or_none(&self.weight, operands)?,
            scale: self.scale.unwrap_or(default.scale),
        })
    }
}

record! {
    /// Keys and values that come with the request.
    fields KeysValuesAt {
        k: Tensor,
        v: Tensor,
    }
}

record! {
    /// Keys that come with the request.
    fields KeysAt {
        k: Tensor,
    }
}

variant! {
    /// Where keys and values come from.
    Source ("k") {
        "tensors" Tensors("k": KeysValuesAt),
        "cache" Cache("cache": Object<KvCache>),
    }
}

variant! {
    /// Where keys come from.
    KeysSource ("k") {
        "tensors" Tensors("k": KeysAt),
        "cache" Cache("cache": Object<KvCache>),
    }
}

request! {
    /// A request of `diffAttention`.
    1 diffAttention AttentionRequest {
        q: Tensor,
        source: Source,
    } options {
        attention: OptionsAt,
        return_pre_norm: Or<Flag>,
    }
}

impl Operation for AttentionRequest {
    fn check(&self) -> Result<(), Error> {
        self.attention.check()
    }

    fn uses(&self) -> Vec<Use> {
        match &self.source {
            Source::Tensors(_) => Vec::new(),
            Source::Cache(cache) => vec![cache.to_use(false)],
        }
    }

    fn prepare<'m>(&'m self, inputs: Inputs<'_, 'm>) -> Result<Prepared<'m>, Error> {
        let operands = inputs.operands;
        let kv = match &self.source {
            Source::Tensors(KeysValuesAt { k, v }) => KeysValues::Tensors {
                k: k.tensor(operands)?,
                v: v.tensor(operands)?,
            },
            Source::Cache(cache) => KeysValues::Cache(inputs.objects.look(cache)?),
        };
        let options = self.attention.with(operands, inputs.run)?;
        let attention = DiffAttention::new(self.q.tensor(operands)?, kv, &options)?;
        let returns_lse = options.return_lse;
        let keeps = self.return_pre_norm;
        if keeps && options.norm.is_none() {
            return Err(Error::option(
                "return_pre_norm",
                "false without a norm",
                true,
            ));
        }
        let (dtype, shape) = (attention.output_dtype(), attention.output_shape());
        let mut specs = vec![OutputSpec::new("out", dtype, &shape)?];
        if returns_lse {
            specs.push(OutputSpec::new("lse", DType::F32, &attention.lse_shape())?);
        }
        if keeps {
            specs.push(OutputSpec::new("pre_norm", DType::F32, &shape)?);
        }
        Ok(Prepared::new(specs, move |outputs| {
            let out = outputs.data()?;
            let lse = returns_lse.then(|| outputs.f32()).transpose()?;
            let kept = keeps.then(|| outputs.f32()).transpose()?;
            attention.into_work_keeping(out, lse, kept)
        }))
    }
}

request! {
    /// A request of `diffAttentionMaps`. (With the options of `diffAttention`, of which `norm` is
    /// absent and `returnLse` 0.)
    2 diffAttentionMaps MapsRequest {
        q: Tensor,
        source: KeysSource,
    } options {
        attention: OptionsAt,
        num_kv_heads: Option<Size>,
        rows: Option<Rows>,
    }
}

impl Operation for MapsRequest {
    fn check(&self) -> Result<(), Error> {
        self.attention.check()
    }

    fn uses(&self) -> Vec<Use> {
        match &self.source {
            KeysSource::Tensors(_) => Vec::new(),
            KeysSource::Cache(cache) => vec![cache.to_use(false)],
        }
    }

    fn prepare<'m>(&'m self, inputs: Inputs<'_, 'm>) -> Result<Prepared<'m>, Error> {
        let operands = inputs.operands;
        let k = match &self.source {
            KeysSource::Tensors(KeysAt { k }) => KeysOnly::Tensor(k.tensor(operands)?),
            KeysSource::Cache(cache) => KeysOnly::Cache(inputs.objects.look(cache)?),
        };
        let options = self.attention.with(operands, inputs.run)?;
        let q = self.q.tensor(operands)?;
        let maps = DiffAttentionMaps::new(q, k, &options, self.num_kv_heads, self.rows)?;
        let terms = maps.terms();
        let specs = map_outputs(terms, &maps.map_shape())?;
        Ok(Prepared::new(specs, move |outputs| {
            maps.into_work(take_map_outputs(terms, outputs)?)
        }))
    }
}
