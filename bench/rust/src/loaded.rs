//! A case with its inputs in memory: one call of the bare crate on it. Only the call itself is ever
//! timed.

use crate::case::{Case, Heads, Work};
use crate::inputs::{EPS, LAMBDA, made};
use diffattn::{
    AttentionOptions, BlockMask, DataMut, DiffAttention, Error, GroupNorm, GroupNormOptions, Isa,
    KeysValues, KvCache, KvCacheOptions, Lambda, Layout, Pairing, RmsNorm, RmsNormOptions, Run,
    Tensor,
};

/// A case that is ready to run.
#[derive(Debug)]
pub struct Loaded {
    case: Case,
    isa: Isa,
    threads: usize,
    /// q, k, v; or x, weight, bias. Decode has only q.
    tensors: Vec<Vec<f32>>,
    caches: Vec<KvCache>,
    /// λ of every token and head; only where λ is given so.
    lambdas: Vec<f32>,
    /// The block mask; only where the case has one.
    blocks: Vec<u8>,
    out: Vec<f32>,
}

impl Loaded {
    /// Makes the inputs of `case`.
    ///
    /// # Errors
    /// When memory is refused.
    pub fn new(case: &Case, isa: Isa, threads: usize) -> Result<Self, Error> {
        let mut loaded = Self {
            case: case.clone(),
            isa,
            threads,
            tensors: Vec::new(),
            caches: Vec::new(),
            lambdas: Vec::new(),
            blocks: Vec::new(),
            out: vec![0.0; case.out.iter().product()],
        };
        match &case.work {
            Work::Attention(heads) => {
                let shapes = [heads.q, heads.k, heads.v];
                loaded.tensors = shapes.iter().zip(0..).map(|(s, t)| made(s, t)).collect();
                loaded.blocks = heads.blocks().unwrap_or_default();
                if heads.pairing == Pairing::Shared {
                    loaded.lambdas = vec![LAMBDA; heads.q[0] * heads.q[2] * case.out[1]];
                }
            }
            Work::Decode(heads) => {
                loaded.tensors = vec![made(&heads.q, 0)];
                loaded.caches = caches(heads)?;
            }
            Work::GroupNorm { x, .. } => {
                loaded.tensors = vec![made(x, 0), made(&x[1..2], 1), made(&x[1..2], 2)];
            }
            Work::RmsNorm { x } => {
                loaded.tensors = vec![made(x, 0), made(&x[x.len() - 1..], 1)];
            }
        }
        Ok(loaded)
    }

    /// Bytes of inputs and result.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let mut floats = self.out.len() + self.lambdas.len();
        floats += self.tensors.iter().map(Vec::len).sum::<usize>();
        let caches: usize = self.caches.iter().map(KvCache::bytes).sum();
        floats * size_of::<f32>() + caches
    }

    /// What the last call gave.
    #[must_use]
    pub fn out(&self) -> &[f32] {
        &self.out
    }

    /// One call; of decode, one step on every cache.
    ///
    /// # Errors
    /// Those of the crate.
    pub fn call(&mut self) -> Result<(), Error> {
        match &self.case.work {
            Work::Attention(heads) => {
                let lambda = if self.lambdas.is_empty() {
                    Lambda::Value(LAMBDA)
                } else {
                    Lambda::PerToken {
                        data: &self.lambdas,
                        shape: vec![heads.q[0], heads.q[2], self.case.out[1]],
                    }
                };
                let [rows, columns] = heads.blocks_shape();
                let block_mask = (!self.blocks.is_empty()).then(|| BlockMask {
                    data: &self.blocks,
                    shape: vec![1, 1, rows, columns],
                });
                let options = AttentionOptions {
                    block_mask,
                    ..options(heads, lambda, self.isa, self.threads)
                };
                let kv = KeysValues::Tensors {
                    k: Tensor::f32(&self.tensors[1], &heads.k),
                    v: Tensor::f32(&self.tensors[2], &heads.v),
                };
                let q = Tensor::f32(&self.tensors[0], &heads.q);
                let call = DiffAttention::new(q, kv, &options)?;
                call.into_work(DataMut::F32(&mut self.out), None)?.finish()
            }
            Work::Decode(heads) => {
                let options = options(heads, Lambda::Value(LAMBDA), self.isa, self.threads);
                for cache in &self.caches {
                    let q = Tensor::f32(&self.tensors[0], &heads.q);
                    let call = DiffAttention::new(q, KeysValues::Cache(cache), &options)?;
                    call.into_work(DataMut::F32(&mut self.out), None)?
                        .finish()?;
                }
                Ok(())
            }
            Work::GroupNorm { x, groups } => {
                let options = GroupNormOptions {
                    num_groups: *groups,
                    weight: Some(&self.tensors[1]),
                    bias: Some(&self.tensors[2]),
                    eps: EPS,
                    run: on(self.isa, self.threads),
                    ..GroupNormOptions::default()
                };
                let call = GroupNorm::new(Tensor::f32(&self.tensors[0], x), &options)?;
                call.into_work(DataMut::F32(&mut self.out))?.finish()
            }
            Work::RmsNorm { x } => {
                let options = RmsNormOptions {
                    eps: EPS,
                    weight: Some(&self.tensors[1]),
                    run: on(self.isa, self.threads),
                    ..RmsNormOptions::default()
                };
                let call = RmsNorm::new(Tensor::f32(&self.tensors[0], x), &options)?;
                call.into_work(DataMut::F32(&mut self.out))?.finish()
            }
        }
    }
}

fn options<'a>(
    heads: &Heads,
    lambda: Lambda<'a>,
    isa: Isa,
    threads: usize,
) -> AttentionOptions<'a> {
    AttentionOptions {
        lambda: Some(lambda),
        pairing: heads.pairing,
        ratio: heads.ratio,
        is_causal: heads.causal,
        window: heads.window,
        run: on(isa, threads),
        ..AttentionOptions::default()
    }
}

/// Caches that all hold the same k and v, each in memory of its own.
fn caches(heads: &Heads) -> Result<Vec<KvCache>, Error> {
    let (k, v) = (made(&heads.k, 1), made(&heads.v, 2));
    (0..heads.caches.unwrap_or(1))
        .map(|_| {
            let mut cache = KvCache::new(KvCacheOptions {
                batch: heads.k[0],
                groups: heads.v[1],
                terms: heads.k[1] / heads.v[1],
                head_dim: heads.k[3],
                value_dim: heads.v[3],
                capacity: heads.k[2],
                dtype: heads.held(),
            })?;
            cache.append(
                Tensor::f32(&k, &heads.k),
                Tensor::f32(&v, &heads.v),
                Layout::Bhsd,
            )?;
            Ok(cache)
        })
        .collect()
}

fn on(isa: Isa, threads: usize) -> Run {
    Run::new(Some(isa), Some(threads), false).unwrap_or_else(|error| panic!("{error}"))
}
