//! Requests that are answered at once with a number: objects, caches, λ.

use diffattn::{DType, Error, KvCache, KvCacheOptions, lambda_full, lambda_init};

use crate::attention::LAYOUTS;
use crate::failure::contain;
use crate::layer;
use crate::objects::{Door, Object, Slot};
use crate::reader::Reader;

const DTYPES: [DType; 3] = [DType::F32, DType::F16, DType::Bf16];

impl Door {
    /// Answers the query `op` of `PROTOCOL.md`. One that changes a cache waits for the open calls that use it.
    ///
    /// # Errors
    /// SHAPE, DTYPE, OPTION, DISPOSED or OUT_OF_MEMORY; INTERNAL for a request that `PROTOCOL.md` does not know.
    pub fn query(&self, op: u32, params: &[f64], operands: &[&[u8]]) -> Result<f64, Error> {
        contain(|| {
            let mut reader = Reader::new(params);
            let r = &mut reader;
            match op {
                32 => {
                    let layer = r.number("layer")?;
                    finish(reader, operands)?;
                    Ok(lambda_init(layer))
                }
                33 => {
                    let vectors = [
                        r.tensor("q1")?,
                        r.tensor("k1")?,
                        r.tensor("q2")?,
                        r.tensor("k2")?,
                    ];
                    let init = r.number("init")?;
                    finish(reader, operands)?;
                    let [q1, k1, q2, k2] = vectors.map(|at| at.f32_vector(operands));
                    lambda_full(q1?, k1?, q2?, k2?, init)
                }
                40 => {
                    let options = KvCacheOptions {
                        groups: r.size("groups")?,
                        head_dim: r.size("head_dim")?,
                        value_dim: r.size("value_dim")?,
                        capacity: r.optional("capacity", Reader::size)?.unwrap_or(0),
                        terms: r.optional("terms", Reader::size)?.unwrap_or(2),
                        dtype: r.choice("dtype", &DTYPES)?,
                        batch: r.optional("batch", Reader::size)?.unwrap_or(1),
                    };
                    finish(reader, operands)?;
                    self.create(Object::Cache(Slot::new("cache", KvCache::new(options)?)))
                }
                41 => {
                    let id = r.object("cache")?;
                    let (k, v) = (r.tensor("k")?, r.tensor("v")?);
                    let layout = r.choice("layout", &LAYOUTS)?;
                    finish(reader, operands)?;
                    let (k, v) = (k.tensor(operands)?, v.tensor(operands)?);
                    self.cache("cache", id)?.change(|cache| {
                        cache.append(k, v, layout)?;
                        Ok(cache.len() as f64)
                    })
                }
                42 => {
                    let id = r.object("cache")?;
                    let length = r.size("length")?;
                    finish(reader, operands)?;
                    self.cache("cache", id)?.change(|cache| {
                        cache.rewind(length)?;
                        Ok(cache.len() as f64)
                    })
                }
                43 => {
                    let id = r.object("cache")?;
                    finish(reader, operands)?;
                    self.cache("cache", id)?.look(|cache| cache.len() as f64)
                }
                44 | 45 => {
                    let layer = if op == 44 {
                        layer::read_v1(r, operands)?
                    } else {
                        layer::read_v2(r, operands)?
                    };
                    finish(reader, operands)?;
                    self.create(Object::Layer(layer.into()))
                }
                46 => {
                    let id = r.object("id")?;
                    finish(reader, operands)?;
                    self.remove(id);
                    Ok(0.0)
                }
                242 => panic!("a panic in a query, for tests"),
                #[cfg(feature = "models")]
                96..=101 => crate::models::query(self, op, reader, operands),
                _ => Err(Error::Internal(format!("there is no query number {op}"))),
            }
        })
    }

    pub(crate) fn create(&self, object: Object) -> Result<f64, Error> {
        self.insert(object).map(f64::from)
    }
}

/// The request must be read to its end before anything is done.
pub(crate) fn finish(reader: Reader<'_>, operands: &[&[u8]]) -> Result<(), Error> {
    let named = reader.finish()?;
    if named == operands.len() {
        Ok(())
    } else {
        Err(Error::Internal(format!(
            "{} operands came with a request that names {named}",
            operands.len()
        )))
    }
}
