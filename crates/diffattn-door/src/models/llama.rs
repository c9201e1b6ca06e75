//! Requests of a DIFF Llama: forward passes and caches.

use std::sync::Arc;

use diffattn::{DType, Error, Slices, try_zeroed};
use diffattn_nn::{
    DiffLlamaOptions, DiffLlamaOutputs, Logits, ModelCache, ModelCacheOptions, ModelCacheState,
    TokenIds,
};
use serde_json::json;

use super::model::Model;
use super::{Operation, json_bytes};
use crate::attention::{Prepared, map_outputs, take_map_outputs};
use crate::job::{Later, OutputSpec, Outputs, Work};
use crate::kind::Kind;
use crate::objects::{Door, Lender, Object, Slot, Use};
use crate::reader::{Reader, TensorAt};
use crate::settings::Settings;

/// The caches of a list of ids, no two of them the same.
pub(super) fn caches(door: &Door, r: &mut Reader<'_>) -> Result<Vec<Arc<Slot<ModelCache>>>, Error> {
    let ids = r.list("caches", Reader::object)?;
    for (index, id) in ids.iter().enumerate() {
        if ids[..index].contains(id) {
            return Err(Error::option(
                "caches",
                "a cache for each text",
                "one of them twice",
            ));
        }
    }
    ids.into_iter()
        .map(|id| door.model_cache("cache", id))
        .collect()
}

/// A request of `llamaForward`.
#[derive(Debug)]
pub(super) struct ForwardRequest {
    model: Arc<Slot<Model>>,
    ids: TensorAt,
    caches: Vec<Arc<Slot<ModelCache>>>,
    options: DiffLlamaOptions,
}

impl ForwardRequest {
    pub(super) fn read(door: &Door, r: &mut Reader<'_>) -> Result<Self, Error> {
        let id = r.object("model")?;
        let model = door.model("model", id)?;
        let ids = r.tensor("ids")?;
        let caches = caches(door, r)?;
        let settings = Settings::now();
        let options = DiffLlamaOptions {
            logits: r.choice("logits", &[Logits::None, Logits::Last, Logits::All])?,
            hidden_states: r.flag("hidden_states")?,
            map_layers: r.list("layer", Reader::count)?,
            window: r.optional("window", Reader::count)?,
            run: settings.run().with_deterministic(r.flag("deterministic")?),
        };
        Ok(Self {
            model,
            ids,
            caches,
            options,
        })
    }
}

impl Operation for ForwardRequest {
    fn uses(&self) -> Vec<Use> {
        let caches = self.caches.iter().map(|slot| slot.to_use(true));
        [self.model.to_use(false)]
            .into_iter()
            .chain(caches)
            .collect()
    }

    fn prepare<'m>(
        &'m self,
        operands: &[&'m [u8]],
        lender: &mut Lender<'m>,
    ) -> Result<Prepared<'m>, Error> {
        let model = lender.look(&self.model)?.llama()?;
        let ids = TokenIds::i32(self.ids.i32(operands)?, &self.ids.shape);
        let mut caches = None;
        if !self.caches.is_empty() {
            let taken = self.caches.iter().map(|slot| lender.take(slot));
            caches = Some(taken.collect::<Result<Vec<_>, _>>()?);
        }
        let job = model.forward_job(ids, caches, &self.options)?;
        let mut outputs = Vec::new();
        if self.options.logits != Logits::None {
            outputs.push(OutputSpec::new("logits", DType::F32, &job.logits_shape())?);
        }
        if self.options.hidden_states {
            let shape = job.hidden_states_shape();
            outputs.push(OutputSpec::new("hidden_states", DType::F32, &shape)?);
        }
        for _ in &self.options.map_layers {
            outputs.extend(map_outputs(2, &job.map_shape())?);
        }
        let options = &self.options;
        let work = Later::new(move |outputs| {
            let mut to = DiffLlamaOutputs::default();
            if options.logits != Logits::None {
                to.logits = outputs.f32()?;
            }
            if options.hidden_states {
                to.hidden_states = outputs.f32()?;
            }
            for _ in &options.map_layers {
                to.maps.push(take_map_outputs(2, outputs)?);
            }
            job.into_work(to)
        });
        Ok((work, outputs))
    }
}

/// A request of `createModelCache`.
#[derive(Debug)]
pub(super) struct CreateCacheRequest {
    model: Arc<Slot<Model>>,
    options: ModelCacheOptions,
}

impl CreateCacheRequest {
    pub(super) fn read(door: &Door, r: &mut Reader<'_>) -> Result<Self, Error> {
        let id = r.object("model")?;
        Ok(Self {
            model: door.model("model", id)?,
            options: ModelCacheOptions {
                capacity: r.optional("capacity", Reader::size)?.unwrap_or(0),
                window: r.optional("window", Reader::count)?,
            },
        })
    }

    pub(super) fn create(&self) -> Result<Object, Error> {
        let cache = self
            .model
            .look(|model| model.llama()?.cache(&self.options))??;
        Ok(Object::ModelCache(Slot::new("cache", cache)))
    }
}

/// A request of `importModelCache`.
#[derive(Debug)]
pub(super) struct ImportRequest {
    model: Arc<Slot<Model>>,
    ids: TensorAt,
    discarded: usize,
    window: Option<usize>,
    keys: Vec<TensorAt>,
    values: Vec<TensorAt>,
}

impl ImportRequest {
    pub(super) fn read(door: &Door, r: &mut Reader<'_>) -> Result<Self, Error> {
        let id = r.object("model")?;
        Ok(Self {
            model: door.model("model", id)?,
            ids: r.tensor("state.ids")?,
            discarded: r.size("state.discarded")?,
            window: r.optional("state.window", Reader::count)?,
            keys: r.list("state.keys", Reader::tensor)?,
            values: r.list("state.values", Reader::tensor)?,
        })
    }

    pub(super) fn create(&self, operands: &[&[u8]]) -> Result<Object, Error> {
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
        let state = ModelCacheState {
            ids,
            discarded: self.discarded,
            window: self.window,
            layers: layers.collect::<Result<_, Error>>()?,
        };
        let cache = self
            .model
            .look(|model| model.llama()?.import_cache(&state))??;
        Ok(Object::ModelCache(Slot::new("cache", cache)))
    }
}

/// A request of `exportModelCache`.
#[derive(Debug)]
pub(super) struct ExportRequest {
    cache: Arc<Slot<ModelCache>>,
}

impl ExportRequest {
    pub(super) fn read(door: &Door, r: &mut Reader<'_>) -> Result<Self, Error> {
        let id = r.object("cache")?;
        Ok(Self {
            cache: door.model_cache("cache", id)?,
        })
    }
}

impl Operation for ExportRequest {
    fn uses(&self) -> Vec<Use> {
        vec![self.cache.to_use(false)]
    }

    fn prepare<'m>(
        &'m self,
        _operands: &[&'m [u8]],
        lender: &mut Lender<'m>,
    ) -> Result<Prepared<'m>, Error> {
        let cache = lender.look(&self.cache)?;
        let state = json_bytes(&json!({
            "discarded": cache.len() - cache.held(),
            "window": cache.window(),
        }))?;
        let mut outputs = vec![
            OutputSpec::new("ids", Kind::I32, &[cache.len()])?,
            OutputSpec::new("state", Kind::U8, &[state.len()])?,
        ];
        let shape = cache.layer_shape();
        for _ in 0..cache.layers() {
            outputs.push(OutputSpec::new("k", DType::F32, &shape)?);
            outputs.push(OutputSpec::new("v", DType::F32, &shape)?);
        }
        let work = Export {
            cache,
            state,
            layers: Vec::new(),
            done: 0,
        };
        Ok((Box::new(work), outputs))
    }
}

/// Copies what a cache holds, a layer per unit of work.
struct Export<'m> {
    cache: &'m ModelCache,
    state: Vec<u8>,
    layers: Vec<[&'m mut [f32]; 2]>,
    done: usize,
}

impl<'m> Work<'m> for Export<'m> {
    fn bind(&mut self, outputs: &mut Outputs<'m>) -> Result<(), Error> {
        // (Ids are below 2³¹: they came as int32, or from a vocabulary of weights that fit in memory.)
        for (to, &id) in outputs.i32()?.iter_mut().zip(self.cache.ids()) {
            *to = id as i32;
        }
        outputs.u8()?.copy_from_slice(&self.state);
        self.layers = (0..self.cache.layers())
            .map(|_| Ok([outputs.f32()?, outputs.f32()?]))
            .collect::<Result<_, Error>>()?;
        Ok(())
    }
}

impl Slices for Export<'_> {
    fn total(&self) -> usize {
        self.cache.layers()
    }

    fn done(&self) -> usize {
        self.done
    }

    fn step(&mut self, count: usize) -> Result<(), Error> {
        for _ in 0..count.min(self.total() - self.done) {
            let (k, v) = self.cache.export_layer(self.done)?;
            let Some([to_k, to_v]) = self.layers.get_mut(self.done) else {
                return Err(Error::Internal("outputs that are not bound".into()));
            };
            to_k.copy_from_slice(&k);
            to_v.copy_from_slice(&v);
            self.done += 1;
        }
        Ok(())
    }
}
