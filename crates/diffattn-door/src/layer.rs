//! Requests of the layers: from the stream to diffattn-nn. Checks no sizes; the layers do.

use std::sync::Arc;

use diffattn::{Error, KvCache, Mask};
use diffattn_nn::{
    DiffAttnLayer, ForwardOptions, LambdaForm, MultiheadDiffAttn, MultiheadDiffAttnOptions,
    MultiheadDiffAttnV2, MultiheadDiffAttnV2Options, NormConfig, RopeConfig, SequenceFusion,
    Weights,
};

use crate::attention::{KV_REPEATS, PAIRINGS, Prepared, map_outputs, take_map_outputs};
use crate::job::{Later, OutputSpec};
use crate::objects::{Door, Lender, Slot};
use crate::reader::{Reader, TensorAt};
use crate::sequence::RopeAt;
use crate::settings::Settings;

/// The names that weights go by in `PROTOCOL.md`, in its order.
const V1_WEIGHTS: [&str; 16] = [
    "q_proj.weight",
    "q_proj.bias",
    "k_proj.weight",
    "k_proj.bias",
    "v_proj.weight",
    "v_proj.bias",
    "out_proj.weight",
    "out_proj.bias",
    "lambda_q1",
    "lambda_k1",
    "lambda_q2",
    "lambda_k2",
    "lambda_a",
    "lambda_b",
    "subln.weight",
    "subln.bias",
];
const V2_WEIGHTS: [&str; 10] = [
    "q_proj.weight",
    "q_proj.bias",
    "k_proj.weight",
    "k_proj.bias",
    "v_proj.weight",
    "v_proj.bias",
    "out_proj.weight",
    "out_proj.bias",
    "lambda_proj.weight",
    "lambda_proj.bias",
];

fn weights<'m>(
    reader: &mut Reader<'_>,
    names: &[&'static str],
    operands: &[&'m [u8]],
) -> Result<Weights<'m>, Error> {
    let mut weights = Weights::new();
    for name in names {
        if let Some(at) = reader.tensor_or_none(name)? {
            weights.insert((*name).to_owned(), at.tensor(operands)?);
        }
    }
    Ok(weights)
}

fn rope(reader: &mut Reader<'_>) -> Result<Option<RopeConfig>, Error> {
    let rope = reader.optional("rope", |r, _| RopeAt::read(r))?;
    Ok(rope.map(
        |RopeAt {
             interleaved,
             frequencies,
         }| RopeConfig {
            interleaved: interleaved.unwrap_or(RopeConfig::default().interleaved),
            frequencies,
        },
    ))
}

/// A `MultiheadDiffAttn` of a create request.
pub(crate) fn read_v1(r: &mut Reader<'_>, operands: &[&[u8]]) -> Result<DiffAttnLayer, Error> {
    let mut options = MultiheadDiffAttnOptions::new(
        r.size("embed_dim")?,
        r.count("depth")?,
        r.size("num_heads")?,
    );
    options.num_kv_heads = r.optional("num_kv_heads", Reader::size)?;
    options.head_dim = r.optional("head_dim", Reader::size)?;
    options.rope = rope(r)?;
    options.pairing = r
        .optional("pairing", |r, name| r.choice(name, &PAIRINGS))?
        .unwrap_or(options.pairing);
    options.kv_repeat = r.optional("kv_repeat", |r, name| r.choice(name, &KV_REPEATS))?;
    options.is_causal = r
        .optional("is_causal", Reader::flag)?
        .unwrap_or(options.is_causal);
    let norm = r.optional("norm", |r, _| {
        let eps = r
            .optional("norm.eps", Reader::f32)?
            .unwrap_or(NormConfig::default().eps);
        Ok(NormConfig {
            eps,
            affine: r.optional("norm.affine", Reader::flag)?,
        })
    })?;
    options.norm = norm.unwrap_or(options.norm);
    let form = r.optional("lambda_form", |r, name| {
        r.choice(name, &[LambdaForm::Vectors, LambdaForm::Scalars])
    })?;
    options.lambda_form = form.unwrap_or(options.lambda_form);
    options.sequence = r.optional("sequence", |r, _| {
        Ok(SequenceFusion {
            order: r.count("sequence.order")?,
            share: r.number("sequence.share")?,
            fusion: r.number("sequence.fusion")?,
        })
    })?;
    let weights = weights(r, &V1_WEIGHTS, operands)?;
    Ok(MultiheadDiffAttn::new(&options, &weights)?.into())
}

/// A `MultiheadDiffAttnV2` of a create request.
pub(crate) fn read_v2(r: &mut Reader<'_>, operands: &[&[u8]]) -> Result<DiffAttnLayer, Error> {
    let (embed_dim, num_heads, num_kv_heads) = (
        r.size("embed_dim")?,
        r.size("num_heads")?,
        r.optional("num_kv_heads", Reader::size)?,
    );
    let mut options = MultiheadDiffAttnV2Options::new(embed_dim, num_heads, r.size("head_dim")?);
    options.num_kv_heads = num_kv_heads;
    options.ratio = r.optional("ratio", Reader::count)?;
    options.rope = rope(r)?;
    options.is_causal = r
        .optional("is_causal", Reader::flag)?
        .unwrap_or(options.is_causal);
    let weights = weights(r, &V2_WEIGHTS, operands)?;
    Ok(MultiheadDiffAttnV2::new(&options, &weights)?.into())
}

/// A request of `forward`.
#[derive(Debug)]
pub(crate) struct ForwardRequest {
    layer: Arc<DiffAttnLayer>,
    x: TensorAt,
    cache: Option<Arc<Slot<KvCache>>>,
    attn_mask: Option<TensorAt>,
    settings: Settings,
}

impl ForwardRequest {
    pub(crate) fn read(door: &Door, reader: &mut Reader<'_>) -> Result<Self, Error> {
        let layer = reader.object("layer")?;
        let layer = door.layer("layer", layer)?;
        let x = reader.tensor("x")?;
        let cache = reader
            .optional("cache", Reader::object)?
            .map(|id| door.cache("cache", id))
            .transpose()?;
        Ok(Self {
            layer,
            x,
            cache,
            attn_mask: reader.tensor_or_none("attn_mask")?,
            settings: Settings::now(),
        })
    }

    pub(crate) fn cache(&self) -> Option<&Arc<Slot<KvCache>>> {
        self.cache.as_ref()
    }

    pub(crate) fn prepare<'m>(
        &'m self,
        operands: &[&'m [u8]],
        lender: &mut Lender<'m>,
    ) -> Result<Prepared<'m>, Error> {
        let cache = self.cache.as_ref();
        let cache = cache.map(|slot| lender.take(slot)).transpose()?;
        let x = self.x.tensor(operands)?;
        let attn_mask = match &self.attn_mask {
            None => None,
            Some(at) => Some(Mask {
                data: at.u8(operands)?,
                shape: at.shape.clone(),
            }),
        };
        let outputs = vec![OutputSpec::new("out", x.data.dtype(), &x.shape)?];
        let options = ForwardOptions {
            attn_mask,
            ..options(self.settings)
        };
        let job = self.layer.forward_job(x, cache, &options)?;
        Ok((Later::new(|to| job.into_work(to.data()?)), outputs))
    }
}

fn options<'m>(settings: Settings) -> ForwardOptions<'m> {
    ForwardOptions {
        run: settings.run(),
        ..ForwardOptions::default()
    }
}

/// A request of `maps` of a layer.
#[derive(Debug)]
pub(crate) struct LayerMapsRequest {
    layer: Arc<DiffAttnLayer>,
    x: TensorAt,
    settings: Settings,
}

impl LayerMapsRequest {
    pub(crate) fn read(door: &Door, reader: &mut Reader<'_>) -> Result<Self, Error> {
        let layer = reader.object("layer")?;
        Ok(Self {
            layer: door.layer("layer", layer)?,
            x: reader.tensor("x")?,
            settings: Settings::now(),
        })
    }

    pub(crate) fn prepare<'m>(&'m self, operands: &[&'m [u8]]) -> Result<Prepared<'m>, Error> {
        let maps = self
            .layer
            .maps_job(self.x.tensor(operands)?, &options(self.settings))?;
        let (outputs, terms) = (map_outputs(maps.terms(), &maps.map_shape())?, maps.terms());
        let work = Later::new(move |to| maps.into_work(take_map_outputs(terms, to)?));
        Ok((work, outputs))
    }
}
