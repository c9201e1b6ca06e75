//! Requests of the caches of language models.

use std::sync::Arc;

use diffattn::{DType, Error, Work, try_zeroed};
use diffattn_nn::{ModelCache, ModelCacheOptions, ModelCacheState};
use serde_json::json;

use super::model::Model;
use super::ready::json_bytes;
use crate::encoding::{Count, Encoded, Ints, List, Object, Size, Tensor, record, request};
use crate::job::{OutputSpec, Prepared};
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
    }
}

impl Query for CreateModelCacheRequest {
    fn answer(self, asked: Asked<'_>) -> Result<f64, Error> {
        let options = ModelCacheOptions {
            capacity: self.capacity.unwrap_or(0),
            window: self.window,
        };
        let cache = self
            .model
            .look(|model| ModelCache::new(&model.text()?.decoder(), &options))??;
        asked.door.insert(cache).map(f64::from)
    }
}

record! {
    /// What a cache held, as it was exported.
    record StateAt in "state." {
        ids: Ints,
        discarded: Size,
        window: Option<Count>,
        keys: List<Tensor>,
        values: List<Tensor>,
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
        if self.keys.len() != self.values.len() {
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
        let copy = |at: &TensorAt| {
            let given = at.f32(operands)?;
            let mut values = try_zeroed(given.len())?;
            values.copy_from_slice(given);
            Ok(values)
        };
        let layers = self.keys.iter().zip(&self.values);
        let layers = layers.map(|(k, v)| Ok((copy(k)?, copy(v)?)));
        Ok(ModelCacheState {
            ids,
            discarded: self.discarded,
            window: self.window,
            layers: layers.collect::<Result<_, Error>>()?,
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
        let state = json_bytes(&json!({
            "discarded": cache.len() - cache.held(),
            "window": cache.window(),
        }))?;
        let mut specs = vec![
            OutputSpec::new("ids", Kind::I32, &[cache.len()])?,
            OutputSpec::new("state", Kind::U8, &[state.len()])?,
        ];
        for layer in 0..cache.layers() {
            let [k, v] = cache.layer_shapes(layer);
            specs.push(OutputSpec::new("k", DType::F32, &k)?);
            specs.push(OutputSpec::new("v", DType::F32, &v)?);
        }
        Ok(Prepared::new(specs, move |outputs| {
            // (Ids are below 2³¹: they came as int32, or from a vocabulary of weights that fit in
            // memory.)
            for (to, &id) in outputs.i32()?.iter_mut().zip(cache.ids()) {
                *to = id as i32;
            }
            outputs.u8()?.copy_from_slice(&state);
            let layers = (0..cache.layers()).map(|_| Ok([outputs.f32()?, outputs.f32()?]));
            let mut layers = layers.collect::<Result<Vec<_>, Error>>()?;
            Ok(Work::new(layers.len(), |pace| async move {
                pace.rows(0..layers.len(), 1, |range| {
                    for layer in range {
                        let (k, v) = cache.export_layer(layer)?;
                        let [to_k, to_v] = &mut layers[layer];
                        to_k.copy_from_slice(&k);
                        to_v.copy_from_slice(&v);
                    }
                    Ok(())
                })
                .await
            }))
        }))
    }
}
