//! Runs an oracle's specification through the crate: the bridge between `diffattn-reference` and
//! `diffattn`. Judges nothing.

use diffattn::{
    AttentionOptions, BlockMask, Data, DataMut, DiffAttention, DiffAttentionMaps, Error, HeadPlan,
    Isa, KeysOnly, KeysValues, KvCache, Lambda, Layout, MapOutputs, Mask, NormOptions, Run, Tensor,
    Work,
};
use diffattn_reference::{AttentionSpec, Tensor as Reference};

pub(crate) use diffattn_reference::testing::bits_with_one_nan as bits;

/// How a specification is run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct How {
    pub(crate) isa: Isa,
    pub(crate) deterministic: bool,
    pub(crate) threads: usize,
    pub(crate) layout: Layout,
    /// Units per step.
    pub(crate) slice: usize,
}

impl How {
    pub(crate) fn new(isa: Isa) -> Self {
        Self {
            isa,
            deterministic: false,
            threads: 1,
            layout: Layout::Bhsd,
            slice: usize::MAX,
        }
    }
}

/// Every instruction set of this machine, fused and deterministic.
pub(crate) fn every_way() -> Vec<How> {
    let both = |isa| {
        [
            How::new(isa),
            How {
                deterministic: true,
                ..How::new(isa)
            },
        ]
    };
    Isa::available().into_iter().flat_map(both).collect()
}

pub(crate) fn to_f32(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&x| x as f32).collect()
}

/// A specification in the types of the crate.
pub(crate) struct Owned {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    shapes: [Vec<usize>; 3],
    lambda: Option<(Vec<f32>, Vec<usize>)>,
    bias: Option<(Vec<f32>, Vec<usize>)>,
    mask: Option<(Vec<u8>, Vec<usize>)>,
    block_mask: Option<(Vec<u8>, Vec<usize>)>,
    sinks: Option<(Vec<f32>, Vec<usize>)>,
    key_lengths: Option<Vec<i32>>,
    cu: Option<[Vec<i32>; 2]>,
    weight: Option<Vec<f32>>,
    layout: Layout,
}

fn broadcast_shape(shape: &[usize], axes: usize) -> Vec<usize> {
    let mut full = vec![1; axes.saturating_sub(shape.len())];
    full.extend(shape);
    full
}

impl Owned {
    pub(crate) fn new(spec: &AttentionSpec, layout: Layout) -> Self {
        let place = |tensor: &Reference<f64>| match layout {
            Layout::Bhsd => tensor.clone(),
            Layout::Bshd => tensor.swap_middle_axes(),
        };
        let [q, k, v] = [&spec.q, &spec.k, &spec.v].map(place);
        let counts = |list: &[usize]| list.iter().map(|&n| n as i32).collect::<Vec<i32>>();
        Self {
            shapes: [q.shape.clone(), k.shape.clone(), v.shape.clone()],
            q: to_f32(&q.data),
            k: to_f32(&k.data),
            v: to_f32(&v.data),
            lambda: spec
                .lambda
                .as_ref()
                .map(|x| (to_f32(&x.data), broadcast_shape(&x.shape, 3))),
            bias: spec
                .bias
                .as_ref()
                .map(|x| (to_f32(&x.data), broadcast_shape(&x.shape, 4))),
            mask: spec.mask.as_ref().map(|x| {
                (
                    x.data.iter().map(|&b| u8::from(b) * 7).collect(),
                    broadcast_shape(&x.shape, 4),
                )
            }),
            block_mask: spec.block_mask.as_ref().map(|x| {
                (
                    x.data.iter().map(|&b| u8::from(b) * 9).collect(),
                    broadcast_shape(&x.shape, 4),
                )
            }),
            sinks: spec
                .sinks
                .as_ref()
                .map(|x| (to_f32(&x.data), x.shape.clone())),
            key_lengths: spec.key_lengths.as_deref().map(counts),
            cu: spec
                .cu_seqlens
                .as_ref()
                .map(|[q, k]| [counts(q), counts(k)]),
            weight: spec
                .norm
                .as_ref()
                .and_then(|norm| norm.weight.as_deref().map(to_f32)),
            layout,
        }
    }

    pub(crate) fn options<'a>(&'a self, spec: &AttentionSpec, how: &How) -> AttentionOptions<'a> {
        let one_term = |head: &diffattn_reference::Head| HeadPlan {
            q: head.q.clone(),
            k: head.k.clone(),
            v: head.v.clone(),
            coefficients: Some(to_f32(&head.coefficients)),
        };
        AttentionOptions {
            heads: Some(spec.heads.iter().map(one_term).collect()),
            lambda: self.lambda.as_ref().map(|(data, shape)| {
                if data.len() == 1 && spec.heads.len() != 1 {
                    Lambda::Value(data[0])
                } else {
                    Lambda::PerToken {
                        data,
                        shape: shape.clone(),
                    }
                }
            }),
            layout: self.layout,
            scale: spec.scale.map(|x| x as f32),
            is_causal: spec.causal,
            softcap: spec.softcap.map(|x| x as f32),
            window: Some(spec.window),
            attn_mask: self.mask.as_ref().map(|(data, shape)| Mask {
                data,
                shape: shape.clone(),
            }),
            attn_bias: self
                .bias
                .as_ref()
                .map(|(data, shape)| Tensor::f32(data, shape)),
            block_mask: self.block_mask.as_ref().map(|(data, shape)| BlockMask {
                data,
                shape: shape.clone(),
            }),
            sinks: self
                .sinks
                .as_ref()
                .map(|(data, shape)| Tensor::f32(data, shape)),
            key_lengths: self.key_lengths.as_deref(),
            query_offset: spec.query_offset.clone(),
            cu_seqlens_q: self.cu.as_ref().map(|cu| cu[0].as_slice()),
            cu_seqlens_k: self.cu.as_ref().map(|cu| cu[1].as_slice()),
            norm: spec.norm.as_ref().map(|norm| NormOptions {
                eps: norm.eps as f32,
                weight: self.weight.as_deref(),
                scale: norm.scale as f32,
            }),
            return_lse: true,
            run: on(how.isa, how.threads).with_deterministic(how.deterministic),
            ..AttentionOptions::default()
        }
    }

    pub(crate) fn q(&self) -> Tensor<'_> {
        Tensor {
            data: Data::F32(&self.q),
            shape: self.shapes[0].clone(),
        }
    }

    pub(crate) fn k(&self) -> Tensor<'_> {
        Tensor {
            data: Data::F32(&self.k),
            shape: self.shapes[1].clone(),
        }
    }

    pub(crate) fn v(&self) -> Tensor<'_> {
        Tensor {
            data: Data::F32(&self.v),
            shape: self.shapes[2].clone(),
        }
    }
}

/// Drives the work of a call to its end, `how.slice` units at a time.
pub(crate) fn drive(call: &mut Work<'_>, how: &How) -> Result<(), Error> {
    while call.done() < call.total() {
        let before = call.done();
        call.step(how.slice)?;
        assert!(call.done() > before, "a step makes progress");
    }
    Ok(())
}

/// The result (in Bhsd, whatever the layout) and the log-sum-exps.
pub(crate) fn run(spec: &AttentionSpec, how: &How) -> Result<(Vec<f32>, Vec<f32>), Error> {
    let owned = Owned::new(spec, how.layout);
    let options = owned.options(spec, how);
    run_with(
        &owned,
        KeysValues::Tensors {
            k: owned.k(),
            v: owned.v(),
        },
        &options,
        how,
    )
}

/// The same on a cache's keys and values.
pub(crate) fn run_cached(
    spec: &AttentionSpec,
    cache: &KvCache,
    how: &How,
) -> Result<(Vec<f32>, Vec<f32>), Error> {
    let owned = Owned::new(spec, how.layout);
    let options = owned.options(spec, how);
    run_with(&owned, KeysValues::Cache(cache), &options, how)
}

fn run_with<'a>(
    owned: &'a Owned,
    kv: KeysValues<'a>,
    options: &AttentionOptions<'a>,
    how: &How,
) -> Result<(Vec<f32>, Vec<f32>), Error> {
    let call = DiffAttention::new(owned.q(), kv, options)?;
    let shape = call.output_shape();
    let mut out = vec![f32::NAN; shape.iter().product()];
    let mut lse = vec![f32::NAN; call.lse_shape().iter().product()];
    drive(
        &mut call.into_work(DataMut::F32(&mut out), Some(&mut lse))?,
        how,
    )?;
    if how.layout == Layout::Bshd {
        let wide = Reference::new(&shape, out.iter().map(|&x| f64::from(x)).collect());
        // Through float64 and back loses nothing but a NaN's payload.
        out = to_f32(&wide.swap_middle_axes().data);
    }
    Ok((out, lse))
}

/// Maps of rows `rows`: one per term, then the difference.
pub(crate) fn run_maps(
    spec: &AttentionSpec,
    how: &How,
    rows: [usize; 2],
) -> Result<Vec<Vec<f32>>, Error> {
    maps_of(spec, None, how, rows)
}

/// The same over a cache's keys, where there is one.
pub(crate) fn maps_of(
    spec: &AttentionSpec,
    cache: Option<&KvCache>,
    how: &How,
    rows: [usize; 2],
) -> Result<Vec<Vec<f32>>, Error> {
    let owned = Owned::new(spec, how.layout);
    let options = AttentionOptions {
        norm: None,
        return_lse: false,
        ..owned.options(spec, how)
    };
    let call = DiffAttentionMaps::new(
        owned.q(),
        cache.map_or_else(|| KeysOnly::Tensor(owned.k()), KeysOnly::Cache),
        &options,
        None,
        Some(rows),
    )?;
    let len = call.map_shape().iter().product();
    let mut maps = vec![vec![f32::NAN; len]; call.terms() + 1];
    let mut terms: Vec<&mut [f32]> = maps.iter_mut().map(Vec::as_mut_slice).collect();
    if let Some(diff) = terms.pop() {
        drive(&mut call.into_work(MapOutputs { terms, diff })?, how)?;
    }
    Ok(maps)
}

/// A small deterministic generator for values: the tests' sizes come from proptest, their values
/// from here.
pub(crate) struct Values(pub u64);

impl Values {
    pub(crate) fn next(&mut self) -> u64 {
        // splitmix64.
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    pub(crate) fn chance(&mut self, one_in: usize) -> bool {
        self.below(one_in) == 0
    }

    /// About normal, rounded to float32.
    pub(crate) fn normal(&mut self) -> f64 {
        let sum: f64 = (0..6)
            .map(|_| (self.next() >> 11) as f64 / (1u64 << 53) as f64)
            .sum();
        f64::from(((sum - 3.0) * 1.414) as f32)
    }

    pub(crate) fn tensor(&mut self, shape: &[usize]) -> Reference<f64> {
        let len = shape.iter().product();
        Reference::new(shape, (0..len).map(|_| self.normal()).collect())
    }
}

fn on(isa: Isa, threads: usize) -> Run {
    Run::new(Some(isa), Some(threads), false).unwrap_or_else(|error| panic!("{error}"))
}

/// The spec with other values of the same kind: q, k and v rotated along their tokens.
pub(crate) fn rotated(spec: &AttentionSpec, by: usize) -> AttentionSpec {
    let turn = |tensor: &Reference<f64>| {
        let mut turned = tensor.clone();
        let row = tensor.shape[3];
        for head in turned.data.chunks_mut((tensor.shape[2] * row).max(1)) {
            let len = head.len();
            head.rotate_left((by * row) % len.max(1));
        }
        turned
    };
    AttentionSpec {
        q: turn(&spec.q),
        k: turn(&spec.k),
        v: turn(&spec.v),
        ..spec.clone()
    }
}

/// Draws of a case's values by which its largest error is judged: its own and rotations. That of
/// one draw, a few hundred values, is luck.
pub(crate) const DRAWS: usize = 25;
