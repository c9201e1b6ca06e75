//! Requests of key-value caches, and the one that drops any object. Computes nothing.

use diffattn::{
    CacheDType, CacheRows, DType, DataMut, Error, KvCache, KvCacheOptions, Layout, Work, try_zeroed,
};

use crate::encoding::{Id, Object, Or, Size, Tensor, choice, request};
use crate::job::{OutputSpec, Prepared};
use crate::kind::Kind;
use crate::objects::{Held, Use};
use crate::operation::{Asked, Inputs, Operation, Query};
use crate::reader::TensorAt;

impl Held for KvCache {
    const NAME: &'static str = "a KvCache";
    const ARGUMENT: &'static str = "cache";
}

choice! { CacheDType { "float32" = F32, "float16" = F16, "bfloat16" = Bf16, "int8" = Int8 } }

/// Bytes of a row's scale, behind its codes, where a row of int8 travels as one.
const SCALE: usize = size_of::<f32>();

request! {
    /// Makes a cache; its id.
    40 createKvCache CreateCacheRequest {} options {
        groups: Size,
        head_dim: Size,
        value_dim: Size,
        capacity: Option<Size>,
        terms: Option<Size>,
        dtype: Or<CacheDType>,
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
    /// Appends keys and values; the new length. Both as uint8: what `exportCache` gives of int8, in
    /// the layout bhsd.
    41 append AppendRequest {
        cache: Object<KvCache>,
        k: Tensor,
        v: Tensor,
    } options {
        layout: Or<Layout>,
    }
}

/// Rows of codes, each with its scale, out of `[B, heads, L, width + SCALE]` bytes.
fn coded(at: &TensorAt, operands: &[&[u8]]) -> Result<CacheRows, Error> {
    let bytes = at.u8(operands)?;
    let width = at.shape.last().copied().unwrap_or(0);
    let (codes, tokens) = match width.checked_sub(SCALE) {
        Some(codes) if codes > 0 => (codes, bytes.len() / width),
        _ => {
            return Err(Error::shape(
                at.argument,
                "rows of codes and a scale",
                width,
            ));
        }
    };
    let mut rows = (try_zeroed(tokens * codes)?, try_zeroed(tokens)?);
    let to = rows.0.chunks_exact_mut(codes).zip(&mut rows.1);
    for (row, (to, scale)) in bytes.chunks_exact(width).zip(to) {
        for (to, &code) in to.iter_mut().zip(row) {
            *to = code.cast_signed();
        }
        if let Some(bytes) = row.last_chunk() {
            *scale = f32::from_le_bytes(*bytes);
        }
    }
    let (codes, scales) = rows;
    Ok(CacheRows::Int8 { codes, scales })
}

impl Query for AppendRequest {
    fn answer(self, asked: Asked<'_>) -> Result<f64, Error> {
        if self.k.kind == Kind::U8 && self.v.kind == Kind::U8 {
            let (k, v) = (
                coded(&self.k, asked.operands)?,
                coded(&self.v, asked.operands)?,
            );
            return self.cache.change(|cache| {
                cache.import(&k, &v)?;
                Ok(cache.len() as f64)
            });
        }
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
        let spec = |name, heads, width| {
            let (kind, width) = match options.dtype {
                CacheDType::F32 => (DType::F32.into(), width),
                CacheDType::F16 => (DType::F16.into(), width),
                CacheDType::Bf16 => (DType::Bf16.into(), width),
                CacheDType::Int8 => (Kind::U8, width + SCALE),
            };
            OutputSpec::new(name, kind, &[options.batch, heads, cache.len(), width])
        };
        let specs = vec![
            spec("k", options.terms * options.groups, options.head_dim)?,
            spec("v", options.groups, options.value_dim)?,
        ];
        Ok(Prepared::new(specs, move |outputs| {
            let mut to = Vec::with_capacity(2);
            for width in [options.head_dim, options.value_dim] {
                to.push(match options.dtype {
                    CacheDType::Int8 => Place::Coded(outputs.u8()?, width),
                    _ => Place::Floats(outputs.data()?),
                });
            }
            Ok(Work::new(1, |pace| async move {
                pace.granted().await;
                let (k, v) = cache.export()?;
                for (to, rows) in to.into_iter().zip([k, v]) {
                    to.take(&rows);
                }
                pace.worked(1);
                Ok(())
            }))
        }))
    }
}

/// Where exported rows go.
enum Place<'m> {
    Floats(DataMut<'m>),
    /// Bytes, and codes of a row.
    Coded(&'m mut [u8], usize),
}

impl Place<'_> {
    /// Takes rows of the type that the place was made for.
    fn take(self, rows: &CacheRows) {
        match (self, rows) {
            (Self::Floats(DataMut::F32(to)), CacheRows::F32(values)) => to.copy_from_slice(values),
            (Self::Floats(DataMut::F16(to)), CacheRows::F16(bits))
            | (Self::Floats(DataMut::Bf16(to)), CacheRows::Bf16(bits)) => to.copy_from_slice(bits),
            (Self::Coded(to, width), CacheRows::Int8 { codes, scales }) => {
                let rows = codes.chunks_exact(width).zip(scales);
                for (to, (codes, scale)) in to.chunks_exact_mut(width + SCALE).zip(rows) {
                    for (to, &code) in to.iter_mut().zip(codes) {
                        *to = code.cast_unsigned();
                    }
                    to[width..].copy_from_slice(&scale.to_le_bytes());
                }
            }
            _ => {}
        }
    }
}
