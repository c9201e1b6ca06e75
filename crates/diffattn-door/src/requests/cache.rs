//! Requests of key-value caches, and the one that drops any object. Computes nothing.

use diffattn::{DType, Error, KvCache, KvCacheOptions, Layout, Work};

use crate::encoding::{Id, Object, Or, Size, Tensor, choice, request};
use crate::job::{OutputSpec, Prepared};
use crate::objects::{Held, Use};
use crate::operation::{Asked, Inputs, Operation, Query};

impl Held for KvCache {
    const NAME: &'static str = "a KvCache";
    const ARGUMENT: &'static str = "cache";
}

choice! { DType { "float32" = F32, "float16" = F16, "bfloat16" = Bf16 } }

request! {
    /// Makes a cache; its id.
    40 createKvCache CreateCacheRequest {} options {
        groups: Size,
        head_dim: Size,
        value_dim: Size,
        capacity: Option<Size>,
        terms: Option<Size>,
        dtype: Or<DType>,
        batch: Option<Size>,
    }
}

impl Query for CreateCacheRequest {
    fn answer(self, asked: Asked<'_>) -> Result<f64, Error> {
        let options = KvCacheOptions {
            groups: self.groups,
            head_dim: self.head_dim,
            value_dim: self.value_dim,
            capacity: self.capacity.unwrap_or(0),
            terms: self.terms.unwrap_or(2),
            dtype: self.dtype,
            batch: self.batch.unwrap_or(1),
        };
        asked.door.insert(KvCache::new(options)?).map(f64::from)
    }
}

request! {
    /// Appends keys and values; the new length.
    41 append AppendRequest {
        cache: Object<KvCache>,
        k: Tensor,
        v: Tensor,
    } options {
        layout: Or<Layout>,
    }
}

impl Query for AppendRequest {
    fn answer(self, asked: Asked<'_>) -> Result<f64, Error> {
        let (k, v) = (
            self.k.tensor(asked.operands)?,
            self.v.tensor(asked.operands)?,
        );
        self.cache.change(|cache| {
            cache.append(k, v, self.layout)?;
            Ok(cache.len() as f64)
        })
    }
}

request! {
    /// Forgets all but the first tokens; the new length.
    42 rewind RewindRequest {
        cache: Object<KvCache>,
        length: Size,
    }
}

impl Query for RewindRequest {
    fn answer(self, _asked: Asked<'_>) -> Result<f64, Error> {
        self.cache.change(|cache| {
            cache.rewind(self.length)?;
            Ok(cache.len() as f64)
        })
    }
}

request! {
    /// How many tokens a cache holds.
    43 length LengthRequest {
        cache: Object<KvCache>,
    }
}

impl Query for LengthRequest {
    fn answer(self, _asked: Asked<'_>) -> Result<f64, Error> {
        self.cache.look(|cache| cache.len() as f64)
    }
}

request! {
    /// Drops an object of any kind; one that is gone is fine.
    46 drop DropRequest {
        id: Id,
    }
}

impl Query for DropRequest {
    fn answer(self, asked: Asked<'_>) -> Result<f64, Error> {
        asked.door.remove(self.id);
        Ok(0.0)
    }
}

request! {
    /// What a cache holds.
    7 exportCache ExportCacheRequest {
        cache: Object<KvCache>,
    }
}

impl Operation for ExportCacheRequest {
    fn uses(&self) -> Vec<Use> {
        vec![self.cache.to_use(false)]
    }

    fn prepare<'m>(&'m self, inputs: Inputs<'_, 'm>) -> Result<Prepared<'m>, Error> {
        let cache = inputs.objects.look(&self.cache)?;
        let options = cache.options();
        let k = [
            options.batch,
            options.terms * options.groups,
            cache.len(),
            options.head_dim,
        ];
        let v = [
            options.batch,
            options.groups,
            cache.len(),
            options.value_dim,
        ];
        let specs = vec![
            OutputSpec::new("k", options.dtype, &k)?,
            OutputSpec::new("v", options.dtype, &v)?,
        ];
        Ok(Prepared::new(specs, move |outputs| {
            let to = [outputs.data()?, outputs.data()?];
            Ok(Work::new(1, |pace| async move {
                pace.granted().await;
                let (k, v) = cache.export()?;
                for (to, values) in to.into_iter().zip([k, v]) {
                    to.narrow(&values)?; // exact: they came from elements of this type
                }
                pace.worked(1);
                Ok(())
            }))
        }))
    }
}
