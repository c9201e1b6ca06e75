//! A case with its inputs in memory: one call of the bare crate on it. Only the call itself is ever
//! timed.

use crate::case::{Case, Channels, Heads, Work};
use crate::inputs::{ADAMW, ADAMW_STEP, EPS, LAMBDA, made, second_moment};
use diffattn::{
    AttentionGradients, AttentionNeeds, AttentionOptions, BlockMask, DataMut, DiffAttention,
    DiffAttentionBackward, Error, GradientOptions, GroupNorm, GroupNormBackward, GroupNormOptions,
    Isa, KeysValues, KvCache, KvCacheOptions, Lambda, Layout, NormGradients, Pairing, Parameters,
    RmsNorm, RmsNormBackward, RmsNormOptions, Run, Tensor,
};

/// The gradients that are asked of attention: λ is a constant.
const NEEDS: AttentionNeeds = AttentionNeeds {
    q: true,
    k: true,
    v: true,
    lambda: false,
    coefficients: false,
    norm_weight: false,
    attn_bias: false,
    sinks: false,
};

/// A case that is ready to run.
#[derive(Debug)]
pub struct Loaded {
    case: Case,
    isa: Isa,
    threads: usize,
    /// q, k, v; or x, weight, bias. Decode has only q, and AdamW the gradients. Behind them, for
    /// gradients, that of the result.
    tensors: Vec<Vec<f32>>,
    caches: Vec<KvCache>,
    /// λ of every token and head; only where λ is given so.
    lambdas: Vec<f32>,
    /// The block mask; only where the case has one.
    blocks: Vec<u8>,
    /// By name. One alone has none.
    results: Vec<(&'static str, Vec<f32>)>,
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
            results: Vec::new(),
        };
        match &case.work {
            Work::Attention(heads) | Work::AttentionBackward(heads) => {
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
            Work::GroupNorm(channels) | Work::GroupNormBackward(channels) => {
                let each = [channels.count()];
                loaded.tensors = vec![made(&channels.x, 0), made(&each, 1), made(&each, 2)];
            }
            Work::RmsNorm { x } | Work::RmsNormBackward { x } => {
                loaded.tensors = vec![made(x, 0), made(&x[x.len() - 1..], 1)];
            }
            Work::AdamW { count } => loaded.tensors = vec![made(&[*count], 1)],
            Work::LayerBackward(_) => {
                return Err(Error::option("op", "an operator's", "that of a layer"));
            }
        }
        let names: &[&str] = match &case.work {
            Work::AttentionBackward(_) => &["dq", "dk", "dv"],
            Work::GroupNormBackward(_) => &["dx", "dweight", "dbias"],
            Work::RmsNormBackward { .. } => &["dx", "dweight"],
            _ => &[],
        };
        let of = |(name, input): (&&'static str, &Vec<f32>)| (*name, vec![0.0; input.len()]);
        loaded.results = names.iter().zip(&loaded.tensors).map(of).collect();
        if names.is_empty() {
            loaded.results = vec![("", vec![0.0; case.out.iter().product()])];
        } else {
            loaded.tensors.push(made(&case.out, 3));
        }
        loaded.begin();
        Ok(loaded)
    }

    /// Puts what a call moves where it is before the first: an optimizer's arrays.
    fn begin(&mut self) {
        if let Work::AdamW { count } = self.case.work {
            self.results = vec![
                ("parameters", made(&[count], 0)),
                ("first_moments", made(&[count], 2)),
                ("second_moments", (0..count).map(second_moment).collect()),
            ];
        }
    }

    /// Bytes of inputs and result.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let mut floats = self.lambdas.len();
        floats += self.tensors.iter().map(Vec::len).sum::<usize>();
        floats += self.results.iter().map(|(_, out)| out.len()).sum::<usize>();
        let caches: usize = self.caches.iter().map(KvCache::bytes).sum();
        floats * size_of::<f32>() + caches
    }

    /// What a call gives, by its name where it gives several: the last one, or where each moves
    /// what it is given, the first.
    ///
    /// # Errors
    /// Those of the crate, and one for a result that there is not.
    pub fn answer(&mut self, of: Option<&str>) -> Result<&[f32], Error> {
        if matches!(self.case.work, Work::AdamW { .. }) {
            self.begin();
            self.call()?;
        }
        let meant = of.unwrap_or_default();
        let mut there = self.results.iter();
        let found = there.find_map(|(name, out)| (*name == meant).then_some(out.as_slice()));
        found.ok_or_else(|| Error::option("of", "the name of a result", meant))
    }

    /// One call; of decode, one step on every cache.
    ///
    /// # Errors
    /// Those of the crate.
    pub fn call(&mut self) -> Result<(), Error> {
        let run = on(self.isa, self.threads);
        let tensor = |t: usize| self.tensors[t].as_slice();
        let mut results = self.results.iter_mut().map(|(_, out)| out.as_mut_slice());
        let mut next = || results.next().unwrap_or_default();
        match &self.case.work {
            Work::Attention(heads) => {
                let lambda = lambda_of(&self.lambdas, [heads.q[0], heads.q[2], self.case.out[1]]);
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
                    k: Tensor::f32(tensor(1), &heads.k),
                    v: Tensor::f32(tensor(2), &heads.v),
                };
                let q = Tensor::f32(tensor(0), &heads.q);
                let call = DiffAttention::new(q, kv, &options)?;
                call.into_work(DataMut::F32(next()), None)?.finish()
            }
            Work::Decode(heads) => {
                let options = options(heads, Lambda::Value(LAMBDA), self.isa, self.threads);
                let out = next();
                for cache in &self.caches {
                    let q = Tensor::f32(tensor(0), &heads.q);
                    let call = DiffAttention::new(q, KeysValues::Cache(cache), &options)?;
                    call.into_work(DataMut::F32(out), None)?.finish()?;
                }
                Ok(())
            }
            Work::AttentionBackward(heads) => {
                let options = options(heads, Lambda::Value(LAMBDA), self.isa, self.threads);
                let outs = [next(), next(), next()];
                attention_backward(heads, &self.tensors, &self.case.out, &options, outs)
            }
            Work::GroupNorm(channels) => {
                let options = group_options(channels, [tensor(1), tensor(2)], run);
                let call = GroupNorm::new(Tensor::f32(tensor(0), &channels.x), &options)?;
                call.into_work(DataMut::F32(next()))?.finish()
            }
            Work::GroupNormBackward(channels) => {
                let options = group_options(channels, [tensor(1), tensor(2)], run);
                let [dy, x] = [tensor(3), tensor(0)].map(|data| Tensor::f32(data, &channels.x));
                let call = GroupNormBackward::new(dy, x, &options)?;
                let gradients = NormGradients {
                    dx: next(),
                    dweight: Some(next()),
                    dbias: Some(next()),
                };
                call.into_work(gradients)?.finish()
            }
            Work::RmsNorm { x } => {
                let call = RmsNorm::new(Tensor::f32(tensor(0), x), &rms_options(tensor(1), run))?;
                call.into_work(DataMut::F32(next()))?.finish()
            }
            Work::RmsNormBackward { x } => {
                let [dy, given] = [tensor(2), tensor(0)].map(|data| Tensor::f32(data, x));
                let call = RmsNormBackward::new(dy, given, &rms_options(tensor(1), run))?;
                let gradients = NormGradients {
                    dx: next(),
                    dweight: Some(next()),
                    dbias: None,
                };
                call.into_work(gradients)?.finish()
            }
            Work::LayerBackward(_) => Ok(()),
            Work::AdamW { .. } => {
                let of = Parameters {
                    parameters: next(),
                    gradients: tensor(0),
                    first_moments: next(),
                    second_moments: next(),
                };
                ADAMW.step(ADAMW_STEP.into(), of, 1.0, run)
            }
        }
    }
}

/// λ of every token and head where it is given so.
fn lambda_of(lambdas: &[f32], shape: [usize; 3]) -> Lambda<'_> {
    if lambdas.is_empty() {
        return Lambda::Value(LAMBDA);
    }
    Lambda::PerToken {
        data: lambdas,
        shape: shape.to_vec(),
    }
}

/// `tensors` are q, k, v and the gradient of the result, of shape `out`; the last are where the
/// gradients of q, k and v go.
fn attention_backward(
    heads: &Heads,
    tensors: &[Vec<f32>],
    out: &[usize],
    options: &AttentionOptions<'_>,
    [dq, dk, dv]: [&mut [f32]; 3],
) -> Result<(), Error> {
    let inputs = [(0, &heads.q), (1, &heads.k), (2, &heads.v)];
    let call = DiffAttentionBackward::new(
        Tensor::f32(&tensors[3], out),
        inputs.map(|(t, shape)| Tensor::f32(&tensors[t], shape)),
        options,
        &GradientOptions {
            needs: Some(NEEDS),
            ..GradientOptions::default()
        },
    )?;
    let gradients = AttentionGradients {
        dq: Some(dq),
        dk: Some(dk),
        dv: Some(dv),
        ..AttentionGradients::default()
    };
    call.into_work(gradients)?.finish()
}

fn group_options<'a>(
    channels: &Channels,
    [weight, bias]: [&'a [f32]; 2],
    run: Run,
) -> GroupNormOptions<'a> {
    GroupNormOptions {
        num_groups: channels.groups,
        weight: Some(weight),
        bias: Some(bias),
        eps: EPS,
        layout: channels.layout,
        activation: channels.activation,
        run,
    }
}

fn rms_options(weight: &[f32], run: Run) -> RmsNormOptions<'_> {
    RmsNormOptions {
        eps: EPS,
        weight: Some(weight),
        run,
        ..RmsNormOptions::default()
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
