//! Requests of the layers: from the stream to diffattn-nn. Checks no sizes; the layers do.

use diffattn::{Error, KvCache};
use diffattn_nn::{
    DiffAttnLayer, ForwardOptions, LambdaForm, MultiheadDiffAttn, MultiheadDiffAttnOptions,
    MultiheadDiffAttnV2, MultiheadDiffAttnV2Options, NormConfig, RopeConfig, SequenceFusion,
    Weights,
};

use diffattn::{KvRepeat, Pairing};

use super::attention::mask_or_none;
use super::maps::{map_outputs, take_map_outputs};
use super::sequence::RopeAt;
use crate::encoding::{
    Count, Encoded, Flag, Float, Mask, Now, Number, Object, Or, OrNone, Size, Tensor, choice,
    record, request,
};
use crate::job::Prepared;
use crate::objects::{Door, Held, Use};
use crate::operation::{Asked, Inputs, Operation, Query};
use crate::reader::{Reader, TensorAt};
use crate::schema::Encoding;

impl Held for DiffAttnLayer {
    const NAME: &'static str = "a layer";
    const ARGUMENT: &'static str = "layer";
}

/// The weights of a layer, each a tensor or absent.
#[derive(Debug)]
pub(crate) struct WeightsAt(Vec<(String, TensorAt)>);

impl WeightsAt {
    fn read(r: &mut Reader<'_>, names: Vec<String>) -> Self {
        let names = names.into_iter();
        Self(
            names
                .filter_map(|name| Some((name, r.tensor_or_none("weights")?)))
                .collect(),
        )
    }

    fn with<'m>(&self, operands: &[&'m [u8]]) -> Result<Weights<'m>, Error> {
        let weights = self.0.iter().map(|(name, at)| {
            let tensor = at.tensor(operands).map_err(|error| match error.kind() {
                Some(kind) => error.renamed(kind, |_| name.clone()),
                None => error,
            });
            Ok((name.clone(), tensor?))
        });
        weights.collect()
    }
}

/// Weights by their layer's list.
macro_rules! weights {
    ($(#[$meta:meta])* $weights:ident of $names:path) => {
        $(#[$meta])*
        pub(crate) enum $weights {}

        impl Encoded for $weights {
            type Value = WeightsAt;
            const ENCODING: &'static Encoding = &Encoding::Weights($names);

            fn read(_door: &Door, r: &mut Reader<'_>, _argument: &'static str) -> WeightsAt {
                WeightsAt::read(r, $names())
            }
        }
    };
}

weights! {
    /// Those of `MultiheadDiffAttn`.
    V1Weights of MultiheadDiffAttn::weight_names
}

weights! {
    /// Those of `MultiheadDiffAttnV2`.
    V2Weights of MultiheadDiffAttnV2::weight_names
}

/// Those of layers of both versions.
pub(super) fn weight_names() -> Vec<String> {
    let mut names = MultiheadDiffAttn::weight_names();
    for name in MultiheadDiffAttnV2::weight_names() {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

weights! {
    /// Those of a layer of either version, as many as are given.
    SomeWeights of weight_names
}

choice! { LambdaForm { "vectors" = Vectors, "scalars" = Scalars } }

record! {
    /// The norm of each head.
    record NormAt in "norm." {
        eps: Option<Float>,
        affine: Option<Flag>,
    }
}

record! {
    /// Fusion with differences along the sequence.
    record FusionAt in "sequence." {
        order: Or<Count, 1>,
        share: Number,
        fusion: Number,
    }
}

fn rope_config(at: &RopeAt) -> RopeConfig {
    let default = RopeConfig::default();
    RopeConfig {
        interleaved: at.interleaved.unwrap_or(default.interleaved),
        frequencies: at.frequencies(),
    }
}

request! {
    /// Makes a `MultiheadDiffAttn`; its id.
    44 createMultiheadDiffAttn CreateLayerRequest {} options {
        embed_dim: Size,
        depth: Count,
        lambda_init: Option<Number>,
        num_heads: Size,
        num_kv_heads: Option<Size>,
        head_dim: Option<Size>,
        rope: Option<RopeAt>,
        pairing: Option<Pairing>,
        ratio: Option<Count>,
        kv_repeat: Option<KvRepeat>,
        is_causal: Option<Flag>,
        value_dim: Option<Size>,
        norm: OrNone<NormAt>,
        lambda_form: Option<LambdaForm>,
        sequence: Option<FusionAt>,
        weights: V1Weights,
    }
}

impl Query for CreateLayerRequest {
    fn answer(self, asked: Asked<'_>) -> Result<f64, Error> {
        let mut options = MultiheadDiffAttnOptions::new(self.embed_dim, self.depth, self.num_heads);
        options.lambda_init = self.lambda_init;
        options.num_kv_heads = self.num_kv_heads;
        options.head_dim = self.head_dim;
        options.rope = self.rope.as_ref().map(rope_config);
        options.pairing = self.pairing.unwrap_or(options.pairing);
        options.ratio = self.ratio;
        options.kv_repeat = self.kv_repeat;
        options.is_causal = self.is_causal.unwrap_or(options.is_causal);
        options.value_dim = self.value_dim;
        if let Some(norm) = self.norm {
            options.norm = norm.map(|norm| NormConfig {
                eps: norm.eps.unwrap_or(NormConfig::default().eps),
                affine: norm.affine,
            });
        }
        options.lambda_form = self.lambda_form.unwrap_or(options.lambda_form);
        options.sequence = self.sequence.map(|at| SequenceFusion {
            order: at.order,
            share: at.share,
            fusion: at.fusion,
        });
        let weights = self.weights.with(asked.operands)?;
        let layer = MultiheadDiffAttn::new(&options, &weights)?;
        asked.door.insert(DiffAttnLayer::from(layer)).map(f64::from)
    }
}

request! {
    /// Makes a `MultiheadDiffAttnV2`; its id.
    45 createMultiheadDiffAttnV2 CreateLayerV2Request {} options {
        embed_dim: Size,
        num_heads: Size,
        num_kv_heads: Option<Size>,
        head_dim: Size,
        ratio: Option<Count>,
        rope: Option<RopeAt>,
        is_causal: Option<Flag>,
        weights: V2Weights,
    }
}

impl Query for CreateLayerV2Request {
    fn answer(self, asked: Asked<'_>) -> Result<f64, Error> {
        let mut options =
            MultiheadDiffAttnV2Options::new(self.embed_dim, self.num_heads, self.head_dim);
        options.num_kv_heads = self.num_kv_heads;
        options.ratio = self.ratio;
        options.rope = self.rope.as_ref().map(rope_config);
        options.is_causal = self.is_causal.unwrap_or(options.is_causal);
        let weights = self.weights.with(asked.operands)?;
        let layer = MultiheadDiffAttnV2::new(&options, &weights)?;
        asked.door.insert(DiffAttnLayer::from(layer)).map(f64::from)
    }
}

request! {
    /// Puts weights in the place of those that a layer has of these names; 0.
    47 setWeights SetWeightsRequest {
        layer: Object<DiffAttnLayer>,
    } options {
        weights: SomeWeights,
    }
}

impl Query for SetWeightsRequest {
    fn answer(self, asked: Asked<'_>) -> Result<f64, Error> {
        let weights = self.weights.with(asked.operands)?;
        self.layer.renew(|layer| layer.set_weights(&weights))?;
        Ok(0.0)
    }
}

request! {
    /// Runs a layer; a cache grows by the tokens of `x` when the job finishes.
    8 forward LayerForwardRequest {
        layer: Now<DiffAttnLayer>,
        x: Tensor,
        cache: Option<Object<KvCache>>,
    } options {
        attn_mask: Option<Mask>,
    }
}

impl Operation for LayerForwardRequest {
    fn uses(&self) -> Vec<Use> {
        self.cache.iter().map(|cache| cache.to_use(true)).collect()
    }

    fn prepare<'m>(&'m self, inputs: Inputs<'_, 'm>) -> Result<Prepared<'m>, Error> {
        let layer = inputs.objects.look(&self.layer)?;
        let cache = self.cache.as_ref();
        let cache = cache.map(|slot| inputs.objects.take(slot)).transpose()?;
        let x = self.x.tensor(inputs.operands)?;
        let options = ForwardOptions {
            attn_mask: mask_or_none(&self.attn_mask, inputs.operands)?,
            run: inputs.run,
        };
        let (dtype, shape) = (x.data.dtype(), x.shape.clone());
        let forward = layer.forward_job(x, cache, &options)?;
        Prepared::of_one(dtype, &shape, |out| forward.into_work(out))
    }
}

request! {
    /// The attention maps of a layer.
    9 layerMaps LayerMapsRequest {
        layer: Now<DiffAttnLayer>,
        x: Tensor,
    } options {}
}

impl Operation for LayerMapsRequest {
    fn prepare<'m>(&'m self, inputs: Inputs<'_, 'm>) -> Result<Prepared<'m>, Error> {
        let layer = inputs.objects.look(&self.layer)?;
        let options = ForwardOptions {
            run: inputs.run,
            ..ForwardOptions::default()
        };
        let maps = layer.maps_job(self.x.tensor(inputs.operands)?, &options)?;
        let terms = maps.terms();
        let specs = map_outputs(terms, &maps.map_shape())?;
        Ok(Prepared::new(specs, move |outputs| {
            maps.into_work(take_map_outputs(terms, outputs)?)
        }))
    }
}
