//! Requests of the caches of language models.

use std::sync::Arc;

use diffattn::{CacheDType, CacheRows, DType, DataMut, Error, Work, try_copied, try_zeroed};
use diffattn_nn::{
    LayerState, ModelCache, ModelCacheOptions, ModelCacheState, PartData, StatePart,
};
use serde_json::json;

use super::model::Model;
use super::ready::json_bytes;
use crate::encoding::{
    Count, Encoded, Ints, List, Numbers, Object, Or, Size, Tensor, choice, record, request,
};
use crate::job::{OutputSpec, Outputs, Prepared};
use crate::kind::Kind;
use crate::objects::{Door, Held, Slot, Use};
use crate::operation::{Asked, Inputs, Operation, Query};
use crate::reader::{Reader, TensorAt};
use crate::schema::Encoding;

impl Held for ModelCache {
    const NAME: &'static str = "a cache of a model";
    const ARGUMENT: &'static str = "cache";
}

/// A list of caches, no two of them the same.
pub(crate) enum Caches {}

impl Encoded for Caches {
    type Value = Vec<Arc<Slot<ModelCache>>>;
    const ENCODING: &'static Encoding = &Encoding::List(&Encoding::Atom("object"));

    fn read(door: &Door, r: &mut Reader<'_>, argument: &'static str) -> Self::Value {
        let ids = r.list(argument, Reader::object);
        for (index, id) in ids.iter().enumerate() {
            if ids[..index].contains(id) {
                r.refuse(Error::option(
                    argument,
                    "a cache for each text",
                    "one of them twice",
                ));
            }
        }
        ids.into_iter()
            .map(|id| r.found(door.get("cache", id), Slot::empty))
            .collect()
    }
}

request! {
    /// Makes a cache for a model; its id.
    97 createModelCache CreateModelCacheRequest {
        model: Object<Model>,
        capacity: Option<Size>,
        window: Option<Count>,
        dtype: Or<CacheDType>,
    }
}

impl Query for CreateModelCacheRequest {
    fn answer(self, asked: Asked<'_>) -> Result<f64, Error> {
        let options = ModelCacheOptions {
            capacity: self.capacity.unwrap_or(0),
            window: self.window,
            dtype: self.dtype,
        };
        let cache = self
            .model
            .look(|model| ModelCache::new(&model.text()?.decoder(), &options))??;
        asked.door.insert(cache).map(f64::from)
    }
}

/// The kind of what a layer keeps.
#[derive(Debug, Clone, Copy)]
pub(crate) enum LayerKind {
    Kv,
    Recurrent,
    Nothing,
}

choice! { LayerKind { "kv" = Kv, "recurrent" = Recurrent, "none" = Nothing } }

record! {
    /// What a layer held, by its kind: keys and values, with scales where they are codes; window
    /// and scan of a recurrent state; or nothing.
    record "layerState" LayerAt in "state.layers." {
        kind: LayerKind,
        keys: Option<Numbers>,
        key_scales: Option<Tensor>,
        values: Option<Numbers>,
        value_scales: Option<Tensor>,
        window: Option<Tensor>,
        scan: Option<Tensor>,
    }
}

record! {
    /// What a cache held, as it was exported: its layers, or the keys and values of each.
    record StateAt in "state." {
        ids: Ints,
        discarded: Size,
        window: Option<Count>,
        keys: List<Tensor>,
        values: List<Tensor>,
        layers: Option<List<LayerAt>>,
    }
}

/// Numbers as a cache holds them: floats, or bytes as codes, which have scales.
fn rows(at: &TensorAt, scales: Option<&TensorAt>, operands: &[&[u8]]) -> Result<CacheRows, Error> {
    if at.kind != Kind::U8 {
        return Ok(match at.tensor(operands)?.data {
            diffattn::Data::F32(values) => CacheRows::F32(try_copied(values)?),
            diffattn::Data::F16(bits) => CacheRows::F16(try_copied(bits)?),
            diffattn::Data::Bf16(bits) => CacheRows::Bf16(try_copied(bits)?),
        });
    }
    let Some(scales) = scales else {
        return Err(Error::dtype(at.argument, "scales beside int8", "none"));
    };
    let codes = at.u8(operands)?;
    let mut signed = try_zeroed(codes.len())?;
    for (to, &code) in signed.iter_mut().zip(codes) {
        *to = code.cast_signed();
    }
    Ok(CacheRows::Int8 {
        codes: signed,
        scales: try_copied(scales.f32(operands)?)?,
    })
}

impl LayerAt {
    fn with(&self, operands: &[&[u8]]) -> Result<LayerState, Error> {
        fn there<'a>(at: &'a Option<TensorAt>, name: &'static str) -> Result<&'a TensorAt, Error> {
            at.as_ref()
                .ok_or_else(|| Error::dtype(name, "a tensor", "none"))
        }
        Ok(match self.kind {
            LayerKind::Kv => {
                let keys = there(&self.keys, "state.layers.keys")?;
                let values = there(&self.values, "state.layers.values")?;
                LayerState::Kv {
                    keys: rows(keys, self.key_scales.as_ref(), operands)?,
                    values: rows(values, self.value_scales.as_ref(), operands)?,
                }
            }
            LayerKind::Recurrent => LayerState::Recurrent {
                window: try_copied(there(&self.window, "state.layers.window")?.f32(operands)?)?,
                scan: try_copied(there(&self.scan, "state.layers.scan")?.f32(operands)?)?,
            },
            LayerKind::Nothing => LayerState::Nothing,
        })
    }
}

request! {
    /// Makes a cache of what another held; its id.
    98 importModelCache ImportModelCacheRequest {
        model: Object<Model>,
        state: StateAt,
    }
}

impl StateAt {
    fn with(&self, operands: &[&[u8]]) -> Result<ModelCacheState, Error> {
        if self.layers.is_none() && self.keys.len() != self.values.len() {
            return Err(Error::shape(
                "state.values",
                format_args!("{}, one beside each of state.keys", self.keys.len()),
                self.values.len(),
            ));
        }
        let given = self.ids.i32(operands)?;
        let mut ids: Vec<u32> = try_zeroed(given.len())?;
        for (to, &id) in ids.iter_mut().zip(given) {
            *to = u32::try_from(id).map_err(|_| Error::option("state.ids", "ids from 0", id))?;
        }
        let layers: Result<_, Error> = match &self.layers {
            Some(layers) => layers.iter().map(|layer| layer.with(operands)).collect(),
            None => {
                let layers = self.keys.iter().zip(&self.values);
                let layers = layers.map(|(k, v)| {
                    Ok(LayerState::Kv {
                        keys: rows(k, None, operands)?,
                        values: rows(v, None, operands)?,
                    })
                });
                layers.collect()
            }
        };
        Ok(ModelCacheState {
            ids,
            discarded: self.discarded,
            window: self.window,
            layers: layers?,
        })
    }
}

impl Query for ImportModelCacheRequest {
    fn answer(self, asked: Asked<'_>) -> Result<f64, Error> {
        let state = self.state.with(asked.operands)?;
        let cache = self
            .model
            .look(|model| ModelCache::import(&model.text()?.decoder(), &state))??;
        asked.door.insert(cache).map(f64::from)
    }
}

request! {
    /// Forgets all but the first tokens; the new length.
    99 rewindModelCache RewindModelCacheRequest {
        cache: Object<ModelCache>,
        length: Size,
    }
}

impl Query for RewindModelCacheRequest {
    fn answer(self, _asked: Asked<'_>) -> Result<f64, Error> {
        self.cache.change(|cache| {
            cache.rewind(self.length)?;
            Ok(cache.len() as f64)
        })
    }
}

request! {
    /// How many tokens a cache has seen.
    100 modelCacheLength ModelCacheLengthRequest {
        cache: Object<ModelCache>,
    }
}

impl Query for ModelCacheLengthRequest {
    fn answer(self, _asked: Asked<'_>) -> Result<f64, Error> {
        self.cache.look(|cache| cache.len() as f64)
    }
}

request! {
    /// What a cache holds.
    82 exportModelCache ExportModelCacheRequest {
        cache: Object<ModelCache>,
    }
}

impl Operation for ExportModelCacheRequest {
    fn uses(&self) -> Vec<Use> {
        vec![self.cache.to_use(false)]
    }

    fn prepare<'m>(&'m self, inputs: Inputs<'_, 'm>) -> Result<Prepared<'m>, Error> {
        let cache = inputs.objects.look(&self.cache)?;
        let of_layers = (0..cache.layers()).map(|layer| (cache.kind(layer), cache.parts(layer)));
        let of_layers: Vec<_> = of_layers.collect();
        let about = of_layers.iter().map(|(kind, parts)| {
            let names = parts.iter().map(|part| part.name);
            json!({ "kind": kind, "parts": names.collect::<Vec<_>>() })
        });
        let state = json_bytes(&json!({
            "discarded": cache.discarded(),
            "window": cache.window(),
            "layers": about.collect::<Vec<_>>(),
        }))?;
        let mut specs = vec![
            OutputSpec::new("ids", Kind::I32, &[cache.len()])?,
            OutputSpec::new("state", Kind::U8, &[state.len()])?,
        ];
        for part in of_layers.iter().flat_map(|(_, parts)| parts) {
            let kind = match part.dtype {
                CacheDType::F32 => DType::F32.into(),
                CacheDType::F16 => DType::F16.into(),
                CacheDType::Bf16 => DType::Bf16.into(),
                CacheDType::Int8 => Kind::U8,
            };
            specs.push(OutputSpec::new(part.name, kind, &part.shape)?);
        }
        Ok(Prepared::new(specs, move |outputs| {
            // (Ids are below 2³¹: they came as int32, or from a vocabulary of weights that fit in
            // memory.)
            for (to, &id) in outputs.i32()?.iter_mut().zip(cache.ids()) {
                *to = id as i32;
            }
            outputs.u8()?.copy_from_slice(&state);
            let places = |(_, parts): &(_, Vec<StatePart>)| {
                let places = parts
                    .iter()
                    .map(|part| PartPlace::next(part.dtype, outputs));
                places.collect::<Result<Vec<_>, Error>>()
            };
            let mut layers = of_layers
                .iter()
                .map(places)
                .collect::<Result<Vec<_>, _>>()?;
            Ok(Work::new(layers.len(), |pace| async move {
                pace.rows(0..layers.len(), 1, |range| {
                    for layer in range {
                        let state = cache.export_layer(layer)?;
                        for (to, from) in layers[layer].iter_mut().zip(state.data()) {
                            to.take(from);
                        }
                    }
                    Ok(())
                })
                .await
            }))
        }))
    }
}

/// Where a part of a layer's state goes.
enum PartPlace<'m> {
    Floats(DataMut<'m>),
    Bytes(&'m mut [u8]),
}

impl<'m> PartPlace<'m> {
    fn next(dtype: CacheDType, outputs: &mut Outputs<'m>) -> Result<Self, Error> {
        Ok(match dtype {
            CacheDType::Int8 => Self::Bytes(outputs.u8()?),
            _ => Self::Floats(outputs.data()?),
        })
    }

    /// Takes elements of the type that the place was made for.
    fn take(&mut self, from: PartData<'_>) {
        match (self, from) {
            (Self::Floats(DataMut::F32(to)), PartData::F32(values)) => to.copy_from_slice(values),
            (Self::Floats(DataMut::F16(to) | DataMut::Bf16(to)), PartData::Halves(bits)) => {
                to.copy_from_slice(bits);
            }
            (Self::Bytes(to), PartData::Int8(codes)) => {
                for (to, &code) in to.iter_mut().zip(codes) {
                    *to = code.cast_unsigned();
                }
            }
            _ => {}
        }
    }
}
