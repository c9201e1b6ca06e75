//! Requests against the operators themselves: what travels through a stream must give the bits of a
//! direct call, and whatever stands in a stream must never panic.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::atomic::{AtomicUsize, Ordering};

use diffattn::{
    Activation, AttentionOptions, BlockMask, CacheDType, ChannelLayout, DType, Data, DataMut,
    DiffAttention, DiffAttentionMaps, Error, GroupNormOptions, HeadPlan, KeysOnly, KeysValues,
    KvCache, KvCacheOptions, KvRepeat, Lambda, Layout, MapOutputs, Mask, NormOptions, Pairing,
    Positions, RmsNormOptions, RopeFrequencies, RopeOptions, RopeScaling, RopeType, Run,
    SequenceDifferenceOptions, Tensor, apply_rope, group_norm, lambda_full, lambda_init, rms_norm,
    sequence_difference,
};
use diffattn_door::{Door, Failure};
use diffattn_nn::{
    ForwardOptions, MultiheadDiffAttn, MultiheadDiffAttnOptions, MultiheadDiffAttnV2,
    MultiheadDiffAttnV2Options, Weights,
};
use diffattn_reference::testing::bits;

/// Numbers that look random, the same each time.
fn values(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            ((state >> 40) as f32 / (1 << 23) as f32) - 1.0
        })
        .collect()
}

/// Shape and bytes.
type Output = (Vec<usize>, Vec<u8>);

/// A request under construction, as the other side writes it.
#[derive(Debug, Clone, Default)]
struct Request {
    params: Vec<f64>,
    operands: Vec<Vec<u8>>,
}

impl Request {
    fn n(mut self, numbers: &[f64]) -> Self {
        self.params.extend(numbers);
        self
    }

    fn raw(mut self, kind: u32, shape: &[usize], bytes: &[u8]) -> Self {
        self.params.extend([f64::from(kind), shape.len() as f64]);
        self.params
            .extend(shape.iter().map(|&extent| extent as f64));
        self.operands.push(bytes.to_vec());
        self
    }

    fn t(self, shape: &[usize], data: &[f32]) -> Self {
        self.raw(1, shape, bytemuck::cast_slice(data))
    }

    fn operands(&self) -> Vec<&[u8]> {
        self.operands.iter().map(Vec::as_slice).collect()
    }

    fn query(&self, door: &Door, op: u32) -> Result<f64, Error> {
        door.query(op, &self.params, &self.operands())
    }

    /// Runs a job in steps of one unit; every output as its bytes, with its shape.
    fn run(&self, door: &Door, op: u32) -> Result<Vec<Output>, Error> {
        let call = door.call(op, &self.params)?;
        let operands = self.operands();
        let specs = call.prepare(&operands)?.outputs().to_vec();
        // Memory of the doors is aligned.
        let mut memory: Vec<Vec<u64>> = specs
            .iter()
            .map(|spec| vec![u64::MAX; spec.bytes.div_ceil(8)])
            .collect();
        let mut job = call.prepare(&operands)?;
        job.bind(
            memory
                .iter_mut()
                .zip(&specs)
                .map(|(words, spec)| &mut bytemuck::cast_slice_mut(words)[..spec.bytes])
                .collect::<Vec<_>>(),
        )?;
        let mut before = job.done();
        while !job.is_complete() {
            job.step(1)?;
            assert!(job.done() > before, "a step does something");
            before = job.done();
        }
        assert_eq!(job.done(), job.total());
        drop(job);
        Ok(memory
            .iter()
            .zip(&specs)
            .map(|(words, spec)| {
                (
                    spec.shape.clone(),
                    bytemuck::cast_slice(words)[..spec.bytes].to_vec(),
                )
            })
            .collect())
    }

    fn floats(&self, door: &Door, op: u32) -> Vec<Vec<f32>> {
        self.run(door, op)
            .unwrap()
            .into_iter()
            .map(|(_, bytes)| {
                bytes
                    .chunks_exact(4)
                    .map(bytemuck::pod_read_unaligned)
                    .collect()
            })
            .collect()
    }

    fn fails(&self, door: &Door, op: u32) -> String {
        Failure::from(self.run(door, op).unwrap_err()).to_string()
    }
}

fn assert_same(got: &[f32], expected: &[f32]) {
    assert_eq!(bits(got), bits(expected));
}

/// All attention options absent, but λ = 0.25: what attention and its maps have in common.
fn plain_options() -> Vec<f64> {
    [vec![1.0, 0.25], vec![0.0; 21]].concat()
}

/// The same of attention itself, returnPreNorm too.
fn attention_options() -> Vec<f64> {
    [plain_options(), vec![0.0]].concat()
}

fn attention(
    q: Tensor<'_>,
    kv: KeysValues<'_>,
    options: &AttentionOptions<'_>,
) -> (Vec<f32>, Vec<f32>) {
    let call = DiffAttention::new(q, kv, options).unwrap();
    let mut out = vec![0.0; call.output_shape().iter().product()];
    let mut lse = vec![
        0.0;
        if options.return_lse {
            call.lse_shape().iter().product()
        } else {
            0
        }
    ];
    let to = options.return_lse.then_some(&mut lse[..]);
    let work = call.into_work(DataMut::F32(&mut out), to).unwrap();
    work.finish().unwrap();
    (out, lse)
}

#[test]
fn attention_takes_every_option() {
    let door = Door::new();
    // B 2, H 2, G 1, Lq 3, Lk 5, d 4, dv 6, layout bshd.
    let (q, k, v) = (
        values(2 * 3 * 4 * 4, 1),
        values(2 * 5 * 2 * 4, 2),
        values(2 * 5 * 6, 3),
    );
    let (q_shape, k_shape, v_shape) = ([2, 3, 4, 4], [2, 5, 2, 4], [2, 5, 1, 6]);
    let lambda = values(2 * 3 * 2, 4);
    let mask: Vec<u8> = (0..2 * 3 * 5).map(|i| u8::from(i % 7 != 3)).collect();
    let bias = values(2 * 5, 5);
    let weight = values(6, 6);

    let request = Request::default()
        .t(&q_shape, &q)
        .n(&[0.0])
        .t(&k_shape, &k)
        .t(&v_shape, &v)
        .n(&[2.0])
        .t(&[2, 3, 2], &lambda)
        // coefficients, pairing, heads, ratio, kvRepeat flat, layout
        .n(&[0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0])
        .n(&[1.0, 0.3, 1.0, 1.0, 5.0]) // scale, isCausal, softcap
        .n(&[1.0, 1.0, 4.0, 0.0]) // window
        .raw(4, &[2, 1, 3, 5], &mask)
        .t(&[1, 2, 1, 5], &bias)
        .n(&[1.0, 2.0, 5.0, 4.0]) // keyLengths
        .n(&[1.0, 2.0, 1.0, 2.0]) // queryOffset
        .n(&[0.0, 0.0]) // cuSeqlens
        .n(&[1.0, 1.0, 1e-3])
        .t(&[6], &weight)
        .n(&[1.0, 0.5, 1.0, 1.0]) // norm.scale, returnLse, deterministic
        .n(&[0.0, 0.0, 1.0]); // sinks, blockMask, returnPreNorm
    let got = request.floats(&door, 1);

    let options = AttentionOptions {
        lambda: Some(Lambda::PerToken {
            data: &lambda,
            shape: vec![2, 3, 2],
        }),
        pairing: Pairing::Interleaved,
        kv_repeat: Some(KvRepeat::Flat),
        layout: Layout::Bshd,
        scale: Some(0.3),
        is_causal: true,
        softcap: Some(5.0),
        window: Some([Some(4), None]),
        attn_mask: Some(Mask {
            data: &mask,
            shape: vec![2, 1, 3, 5],
        }),
        attn_bias: Some(Tensor::f32(&bias, &[1, 2, 1, 5])),
        key_lengths: Some(&[5, 4]),
        query_offset: Some(vec![1, 2]),
        norm: Some(NormOptions {
            eps: 1e-3,
            weight: Some(&weight),
            scale: 0.5,
        }),
        return_lse: true,
        run: Run::default().with_deterministic(true),
        ..AttentionOptions::default()
    };
    let kv = KeysValues::Tensors {
        k: Tensor::f32(&k, &k_shape),
        v: Tensor::f32(&v, &v_shape),
    };
    let q = Tensor::f32(&q, &q_shape);
    let (out, lse) = attention(q.clone(), kv.clone(), &options);
    assert_same(&got[0], &out);
    assert_same(&got[1], &lse);
    assert!(out.iter().any(|&x| x != 0.0));
    let plain = AttentionOptions {
        norm: None,
        ..options
    };
    assert_same(&got[2], &attention(q, kv, &plain).0);
}

#[test]
fn attention_takes_sinks_and_block_masks() {
    let door = Door::new();
    // B 1, H 2, Lq 65, Lk 130, d 4, dv 4.
    let (q, k, v) = (
        values(4 * 65 * 4, 1),
        values(4 * 130 * 4, 2),
        values(2 * 130 * 4, 3),
    );
    let (q_shape, k_shape, v_shape) = ([1, 4, 65, 4], [1, 4, 130, 4], [1, 2, 130, 4]);
    let sinks = [0.5, -1.0, f32::NEG_INFINITY, 2.0];
    let blocks = [1, 0, 1, 0, 1, 1];
    let mut options = plain_options();
    options.truncate(options.len() - 2);
    let request = |sinks_shape: &[usize]| {
        Request::default()
            .t(&q_shape, &q)
            .n(&[0.0])
            .t(&k_shape, &k)
            .t(&v_shape, &v)
            .n(&options)
            .t(sinks_shape, &sinks)
            .raw(4, &[1, 1, 2, 3], &blocks)
            .n(&[0.0])
    };
    let kv = KeysValues::Tensors {
        k: Tensor::f32(&k, &k_shape),
        v: Tensor::f32(&v, &v_shape),
    };
    let direct = AttentionOptions {
        lambda: Some(Lambda::Value(0.25)),
        sinks: Some(Tensor::f32(&sinks, &[2, 2])),
        block_mask: Some(BlockMask {
            data: &blocks,
            shape: vec![1, 1, 2, 3],
        }),
        ..AttentionOptions::default()
    };
    let (out, _) = attention(Tensor::f32(&q, &q_shape), kv, &direct);
    assert_same(&request(&[2, 2]).floats(&door, 1)[0], &out);
    let said = request(&[4, 1]).fails(&door, 1);
    assert!(said.starts_with("SHAPE: sinks: expected"), "{said}");
}

#[test]
fn attention_takes_plans_coefficients_and_packed_sequences() {
    let door = Door::new();
    let (q, k, v) = (
        values(3 * 7 * 4, 1),
        values(3 * 7 * 4, 2),
        values(2 * 7 * 3, 3),
    );
    let request = Request::default()
        .t(&[1, 3, 7, 4], &q)
        .n(&[0.0])
        .t(&[1, 3, 7, 4], &k)
        .t(&[1, 2, 7, 3], &v)
        .n(&[0.0, 0.0, 0.0]) // λ, coefficients, pairing
        .n(&[1.0, 2.0]) // two heads
        .n(&[
            2.0, 0.0, 1.0, 2.0, 0.0, 1.0, 2.0, 0.0, 1.0, 1.0, 2.0, 1.0, -0.5,
        ])
        .n(&[1.0, 2.0, 1.0, 1.0, 1.0, 1.0, 0.0])
        .n(&[0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]) // ratio … queryOffset, causal
        .n(&[
            1.0, 3.0, 0.0, 3.0, 7.0, 1.0, 3.0, 0.0, 3.0, 7.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0,
        ]);
    // The second head has one v, the first two: the widths of a call's heads must agree.
    assert!(
        request.fails(&door, 1).contains("heads"),
        "{}",
        request.fails(&door, 1)
    );

    let plan = |v: usize| {
        [
            2.0, 0.0, 1.0, 2.0, 0.0, 1.0, 1.0, v as f64, 1.0, 2.0, 1.0, -0.5,
        ]
    };
    let request = Request::default()
        .t(&[1, 3, 7, 4], &q)
        .n(&[0.0])
        .t(&[1, 3, 7, 4], &k)
        .t(&[1, 2, 7, 3], &v)
        .n(&[0.0, 0.0, 0.0, 1.0, 2.0])
        .n(&plan(0))
        .n(&[1.0, 2.0, 1.0, 1.0, 1.0, 1.0, 0.0])
        .n(&[0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])
        .n(&[
            1.0, 3.0, 0.0, 3.0, 7.0, 1.0, 3.0, 0.0, 3.0, 7.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0,
        ]);
    let heads = vec![
        HeadPlan {
            q: vec![0, 1],
            k: vec![0, 1],
            v: vec![0],
            coefficients: Some(vec![1.0, -0.5]),
        },
        HeadPlan {
            q: vec![2],
            k: vec![1],
            v: vec![1],
            coefficients: None,
        },
    ];
    let options = AttentionOptions {
        heads: Some(heads.into()),
        is_causal: true,
        cu_seqlens_q: Some(&[0, 3, 7]),
        cu_seqlens_k: Some(&[0, 3, 7]),
        ..AttentionOptions::default()
    };
    let kv = KeysValues::Tensors {
        k: Tensor::f32(&k, &[1, 3, 7, 4]),
        v: Tensor::f32(&v, &[1, 2, 7, 3]),
    };
    assert_same(
        &request.floats(&door, 1)[0],
        &attention(Tensor::f32(&q, &[1, 3, 7, 4]), kv, &options).0,
    );

    // Three terms by coefficients; no pairing beside a plan.
    let mut coefficients = attention_options();
    coefficients.splice(0..3, [0.0, 1.0, 3.0, 1.0, -0.5, -0.25]);
    let request = Request::default()
        .t(&[1, 3, 7, 4], &q)
        .n(&[0.0])
        .t(&[1, 3, 7, 4], &k)
        .t(
            &[1, 1, 14, 3][..2]
                .iter()
                .chain(&[7, 3])
                .copied()
                .collect::<Vec<_>>(),
            &v[..21],
        );
    let options = AttentionOptions {
        coefficients: Some(&[1.0, -0.5, -0.25]),
        ..AttentionOptions::default()
    };
    let kv = KeysValues::Tensors {
        k: Tensor::f32(&k, &[1, 3, 7, 4]),
        v: Tensor::f32(&v[..21], &[1, 1, 7, 3]),
    };
    assert_same(
        &request.clone().n(&coefficients).floats(&door, 1)[0],
        &attention(Tensor::f32(&q, &[1, 3, 7, 4]), kv, &options).0,
    );
    let mut both = vec![0.0, 0.0, 1.0, 1.0, 1.0, 1.0];
    both.extend(plan(0));
    both.extend([0.0; 19]);
    assert_eq!(
        request.n(&both).fails(&door, 1),
        "OPTION: pairing: expected none beside heads, which are the plan themselves, got halves"
    );
}

#[test]
fn half_precision_goes_in_and_out() {
    let door = Door::new();
    for (kind, dtype) in [(2, DType::F16), (3, DType::Bf16)] {
        let narrow = |x: &[f32]| -> Vec<u16> {
            x.iter()
                .map(|&x| {
                    if kind == 2 {
                        half::f16::from_f32(x).to_bits()
                    } else {
                        half::bf16::from_f32(x).to_bits()
                    }
                })
                .collect()
        };
        let x = narrow(&values(2 * 4 * 6, 9));
        let request = Request::default()
            .raw(kind, &[2, 4, 6], bytemuck::cast_slice(&x))
            .n(&[2.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
        let got = request.run(&door, 3).unwrap();
        let options = GroupNormOptions {
            num_groups: 2,
            ..GroupNormOptions::default()
        };
        let data = if dtype == DType::F16 {
            Data::F16(&x)
        } else {
            Data::Bf16(&x)
        };
        let call = diffattn::GroupNorm::new(
            Tensor {
                data,
                shape: vec![2, 4, 6],
            },
            &options,
        )
        .unwrap();
        let mut out = vec![0u16; x.len()];
        let to = if dtype == DType::F16 {
            DataMut::F16(&mut out)
        } else {
            DataMut::Bf16(&mut out)
        };
        call.into_work(to).unwrap().finish().unwrap();
        assert_eq!(got[0].0, [2, 4, 6]);
        assert_eq!(got[0].1, bytemuck::cast_slice::<u16, u8>(&out));
    }
}

#[test]
fn maps_come_term_by_term() {
    let door = Door::new();
    let (q, k) = (values(4 * 5 * 3, 1), values(2 * 6 * 3, 2));
    let request = Request::default()
        .t(&[1, 4, 5, 3], &q)
        .n(&[0.0])
        .t(&[1, 2, 6, 3], &k)
        .n(&plain_options())
        .n(&[1.0, 1.0, 1.0, 1.0, 3.0]); // numKvHeads 1, rows 1..3
    let got = request.run(&door, 2).unwrap();
    assert_eq!(got.len(), 3);
    assert!(got.iter().all(|(shape, _)| shape == &[1, 2, 2, 6]));
    let options = AttentionOptions {
        lambda: Some(Lambda::Value(0.25)),
        ..AttentionOptions::default()
    };
    let maps = DiffAttentionMaps::new(
        Tensor::f32(&q, &[1, 4, 5, 3]),
        KeysOnly::Tensor(Tensor::f32(&k, &[1, 2, 6, 3])),
        &options,
        Some(1),
        Some([1, 3]),
    )
    .unwrap();
    let (mut one, mut two, mut diff) = (vec![0.0; 24], vec![0.0; 24], vec![0.0; 24]);
    let work = maps.into_work(MapOutputs {
        terms: vec![&mut one, &mut two],
        diff: &mut diff,
    });
    work.unwrap().finish().unwrap();
    let got = request.floats(&door, 2);
    assert_same(&got[0], &one);
    assert_same(&got[1], &two);
    assert_same(&got[2], &diff);
}

#[test]
fn norms_rope_and_differences_take_every_option() {
    let door = Door::new();
    let (x, weight, bias) = (values(2 * 5 * 6, 1), values(6, 2), values(6, 3));
    let got = Request::default()
        .t(&[2, 5, 6], &x)
        .n(&[3.0])
        .t(&[6], &weight)
        .t(&[6], &bias)
        .n(&[1.0, 1e-3, 1.0, 1.0, 0.0])
        .floats(&door, 3);
    let options = GroupNormOptions {
        num_groups: 3,
        weight: Some(&weight),
        bias: Some(&bias),
        eps: 1e-3,
        layout: ChannelLayout::Nhwc,
        activation: Some(Activation::Silu),
        ..GroupNormOptions::default()
    };
    assert_same(
        &got[0],
        &group_norm(Tensor::f32(&x, &[2, 5, 6]), &options).unwrap(),
    );

    let got = Request::default()
        .t(&[10, 6], &x)
        .t(&[6], &weight)
        .n(&[1.0, 1e-2, 1.0, 0.5])
        .floats(&door, 4);
    let options = RmsNormOptions {
        weight: Some(&weight),
        eps: 1e-2,
        scale: 0.5,
        ..RmsNormOptions::default()
    };
    assert_same(
        &got[0],
        &rms_norm(Tensor::f32(&x, &[10, 6]), &options).unwrap(),
    );

    let x = values(2 * 3 * 2 * 8, 4);
    let yarn = [
        1.0, 3.0, 1.0, 5e5, 1.0, 4.0, 0.0, 0.0, 1.0, 32.0, 1.0, 1.1, 1.0, 16.0, 1.0, 2.0, 1.0, 0.7,
        1.0, 0.9, 1.0, 0.0,
    ];
    let scaling = RopeScaling {
        rope_type: RopeType::Yarn,
        rope_theta: Some(5e5),
        factor: Some(4.0),
        original_max_position_embeddings: Some(32.0),
        attention_factor: Some(1.1),
        beta_fast: Some(16.0),
        beta_slow: Some(2.0),
        mscale: Some(0.7),
        mscale_all_dim: Some(0.9),
        truncate: Some(false),
        ..RopeScaling::default()
    };
    let got = Request::default()
        .t(&[2, 3, 2, 8], &x)
        .n(&[1.0, 0.0, 0.0])
        .n(&yarn)
        .n(&[1.0, 1.0, 2.0, 7.0, -2.0, 0.0, 1.0, 6.0])
        .floats(&door, 5);
    let options = RopeOptions {
        layout: Layout::Bshd,
        interleaved: false,
        frequencies: RopeFrequencies {
            scaling: Some(scaling),
            ..RopeFrequencies::default()
        },
        rotary_dim: Some(6),
        first_position: Some(vec![7, -2]),
        ..RopeOptions::default()
    };
    assert_same(
        &got[0],
        &apply_rope(Tensor::f32(&x, &[2, 3, 2, 8]), &options).unwrap(),
    );

    let llama3 = [
        1.0, 2.0, 0.0, 1.0, 8.0, 1.0, 1.0, 1.0, 4.0, 1.0, 64.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0,
    ];
    let got = Request::default()
        .t(&[2, 2, 3, 8], &x)
        .n(&[0.0, 1.0, 1e3])
        .n(&llama3)
        .n(&[0.0, 0.0, 1.0, 1.0, 3.0, 3.0, 100.0, 5.0, 9.0, 0.0])
        .floats(&door, 5);
    let scaling = RopeScaling {
        rope_type: RopeType::Llama3,
        factor: Some(8.0),
        low_freq_factor: Some(1.0),
        high_freq_factor: Some(4.0),
        original_max_position_embeddings: Some(64.0),
        ..RopeScaling::default()
    };
    let options = RopeOptions {
        frequencies: RopeFrequencies {
            theta: Some(1e3),
            scaling: Some(scaling),
            ..RopeFrequencies::default()
        },
        positions: Some(Positions {
            data: &[100, 5, 9],
            shape: vec![3],
        }),
        ..RopeOptions::default()
    };
    assert_same(
        &got[0],
        &apply_rope(Tensor::f32(&x, &[2, 2, 3, 8]), &options).unwrap(),
    );

    for (order, given) in [(1, vec![0.0]), (2, vec![1.0, 2.0])] {
        let got = Request::default()
            .t(&[2, 3, 2, 8], &x)
            .n(&given)
            .n(&[1.0])
            .floats(&door, 6);
        let options = SequenceDifferenceOptions {
            order,
            layout: Layout::Bshd,
            ..SequenceDifferenceOptions::default()
        };
        assert_same(
            &got[0],
            &sequence_difference(Tensor::f32(&x, &[2, 3, 2, 8]), &options).unwrap(),
        );
    }
}

#[test]
fn lambdas_are_answered_at_once() {
    let door = Door::new();
    assert_eq!(
        Request::default().n(&[3.0]).query(&door, 32),
        Ok(lambda_init(3.0))
    );
    let vectors: Vec<Vec<f32>> = (0..4).map(|i| values(5, i)).collect();
    let request = vectors
        .iter()
        .fold(Request::default(), |request, x| request.t(&[5], x))
        .n(&[0.2]);
    assert_eq!(
        request.query(&door, 33),
        lambda_full(&vectors[0], &vectors[1], &vectors[2], &vectors[3], 0.2)
    );
    let request = vectors
        .iter()
        .take(3)
        .fold(Request::default(), |request, x| request.t(&[5], x))
        .t(&[4], &vectors[3][..4])
        .n(&[0.2]);
    assert_eq!(
        request.query(&door, 33).map_err(|error| error.code()),
        Err("SHAPE")
    );
}

/// createKvCache with two groups of two terms, headDim 3, valueDim 5, float32, batch 2.
fn cache_request() -> Request {
    Request::default().n(&[2.0, 3.0, 5.0, 0.0, 0.0, 0.0, 1.0, 2.0])
}

fn append_request(id: f64, tokens: usize, seed: u64) -> (Request, Vec<f32>, Vec<f32>) {
    let (k, v) = (
        values(2 * 4 * tokens * 3, seed),
        values(2 * 2 * tokens * 5, seed + 1),
    );
    (
        Request::default()
            .n(&[id])
            .t(&[2, 4, tokens, 3], &k)
            .t(&[2, 2, tokens, 5], &v)
            .n(&[0.0]),
        k,
        v,
    )
}

#[test]
fn a_cache_is_made_filled_read_and_dropped() {
    let door = Door::new();
    let id = cache_request().query(&door, 40).unwrap();
    let (append, k, v) = append_request(id, 6, 1);
    assert_eq!(append.query(&door, 41), Ok(6.0));
    assert_eq!(Request::default().n(&[id, 4.0]).query(&door, 42), Ok(4.0));
    assert_eq!(Request::default().n(&[id]).query(&door, 43), Ok(4.0));
    assert_eq!(
        Request::default()
            .n(&[id, 5.0])
            .query(&door, 42)
            .map_err(|error| error.code()),
        Err("SHAPE")
    );
    assert_eq!(
        Request::default()
            .n(&[id, -1.0])
            .query(&door, 42)
            .map_err(|error| error.code()),
        Err("SHAPE")
    );

    let exported = Request::default().n(&[id]).run(&door, 7).unwrap();
    assert_eq!(exported[0].0, [2, 4, 4, 3]);
    assert_eq!(exported[1].0, [2, 2, 4, 5]);
    let kept: Vec<f32> = k
        .chunks_exact(18)
        .flat_map(|head| &head[..12])
        .copied()
        .collect();
    assert_eq!(exported[0].1, bytemuck::cast_slice::<f32, u8>(&kept));

    let q = values(2 * 4 * 3, 7);
    let read = Request::default()
        .t(&[2, 4, 1, 3], &q)
        .n(&[1.0, id])
        .n(&attention_options());
    let mut cache = KvCache::new(KvCacheOptions {
        batch: 2,
        groups: 2,
        terms: 2,
        head_dim: 3,
        value_dim: 5,
        capacity: 0,
        dtype: CacheDType::F32,
    })
    .unwrap();
    cache
        .append(
            Tensor::f32(&k, &[2, 4, 6, 3]),
            Tensor::f32(&v, &[2, 2, 6, 5]),
            Layout::Bhsd,
        )
        .unwrap();
    cache.rewind(4).unwrap();
    let options = AttentionOptions {
        lambda: Some(Lambda::Value(0.25)),
        ..AttentionOptions::default()
    };
    let expected = attention(
        Tensor::f32(&q, &[2, 4, 1, 3]),
        KeysValues::Cache(&cache),
        &options,
    )
    .0;
    assert_same(&read.floats(&door, 1)[0], &expected);
    // Its maps too.
    let maps = Request::default()
        .t(&[2, 4, 1, 3], &q)
        .n(&[1.0, id])
        .n(&plain_options())
        .n(&[0.0, 0.0]);
    assert_eq!(maps.run(&door, 2).unwrap()[2].0, [2, 2, 1, 4]);

    // A layer's id is no cache, and a cache is no layer.
    let x = Request::default().n(&[id]).t(&[1, 1, 4], &[0.0; 4]);
    assert_eq!(
        x.fails(&door, 9),
        "DTYPE: layer: expected a layer, got a KvCache"
    );
    for _ in 0..2 {
        assert_eq!(Request::default().n(&[id]).query(&door, 46), Ok(0.0));
    }
    assert!(read.fails(&door, 1).starts_with("DISPOSED: cache"));
    assert!(
        cache_request().query(&door, 40).unwrap() > id,
        "ids are not used twice"
    );
}

/// What a cache of int8 gives as bytes makes the same cache of an empty one; what does not fit is
/// refused.
#[test]
fn a_cache_of_int8_goes_out_and_in() {
    let door = Door::new();
    let made = || {
        let request = Request::default().n(&[2.0, 3.0, 5.0, 0.0, 0.0, 3.0, 1.0, 2.0]);
        request.query(&door, 40).unwrap()
    };
    let (id, twin) = (made(), made());
    let (append, k, _) = append_request(id, 6, 1);
    assert_eq!(append.query(&door, 41), Ok(6.0));
    let export = |id: f64| Request::default().n(&[id]).run(&door, 7).unwrap();
    let exported = export(id);
    assert_eq!(exported[0].0, [2, 4, 6, 7]);
    assert_eq!(exported[1].0, [2, 2, 6, 9]);
    let row = &exported[0].1[..7];
    let largest = k[..3].iter().fold(0.0f32, |most, x| most.max(x.abs()));
    assert_eq!(row[3..7], (largest / 127.0).to_le_bytes());
    let codes = k[..3]
        .iter()
        .map(|x| (x * (1.0 / (largest / 127.0))).round_ties_even() as i8);
    assert_eq!(row[..3], codes.map(|code| code as u8).collect::<Vec<_>>());
    let back = |id: f64, k: &Output, v: &Output| {
        let request = Request::default().n(&[id]);
        let request = request.raw(4, &k.0, &k.1).raw(4, &v.0, &v.1).n(&[0.0]);
        request.query(&door, 41)
    };
    assert_eq!(back(twin, &exported[0], &exported[1]), Ok(6.0));
    assert_eq!(export(twin), exported);
    for (k, v) in [(0, 0), (1, 1), (1, 0)] {
        let refused = back(twin, &exported[k], &exported[v]).map_err(|error| error.code());
        assert_eq!(refused, Err("SHAPE"));
    }
    let floats = cache_request().query(&door, 40).unwrap();
    let refused = back(floats, &exported[0], &exported[1]).map_err(|error| error.to_string());
    let sentence = "k: expected float32 as the cache, got int8";
    assert_eq!(refused, Err(sentence.to_owned()));
    // Halves go as they are.
    let halves = Request::default().n(&[2.0, 3.0, 5.0, 0.0, 0.0, 2.0, 1.0, 2.0]);
    let halves = halves.query(&door, 40).unwrap();
    append_request(halves, 6, 1).0.query(&door, 41).unwrap();
    let exported = export(halves);
    assert_eq!(exported[0].1.len(), 2 * 4 * 6 * 3 * 2);
}

#[test]
fn a_refused_append_changes_nothing() {
    let door = Door::new();
    let id = cache_request().query(&door, 40).unwrap();
    let (append, _, _) = append_request(id, 2, 1);
    append.query(&door, 41).unwrap();
    let wrong = Request::default()
        .n(&[id])
        .t(&[2, 4, 1, 3], &[0.0; 24])
        .t(&[2, 2, 2, 5], &[0.0; 40])
        .n(&[0.0]);
    assert_eq!(
        wrong.query(&door, 41).map_err(|error| error.code()),
        Err("SHAPE")
    );
    assert_eq!(Request::default().n(&[id]).query(&door, 43), Ok(2.0));
}

#[test]
fn an_open_call_keeps_its_cache() {
    let door = Door::new();
    let id = cache_request().query(&door, 40).unwrap();
    append_request(id, 3, 1).0.query(&door, 41).unwrap();
    let q = values(2 * 4 * 3, 7);
    let read = Request::default()
        .t(&[2, 4, 1, 3], &q)
        .n(&[1.0, id])
        .n(&attention_options());
    let expected = read.floats(&door, 1);

    // Without turns (one thread does one thing at a time), a change is refused while a job is open.
    let call = door.call(1, &read.params).unwrap();
    let operands = read.operands();
    let mut out = vec![0.0f32; expected[0].len()];
    let mut job = call.prepare(&operands).unwrap();
    assert_eq!(
        Request::default()
            .n(&[id, 0.0])
            .query(&door, 42)
            .map_err(|error| error.code()),
        Err("OPTION")
    );
    // Dropping is fine.
    Request::default().n(&[id]).query(&door, 46).unwrap();
    job.bind(vec![bytemuck::cast_slice_mut(&mut out)]).unwrap();
    job.finish().unwrap();
    drop(job);
    assert_same(&out, &expected[0]);

    // With turns, a change waits.
    let id = cache_request().query(&door, 40).unwrap();
    append_request(id, 3, 1).0.query(&door, 41).unwrap();
    let read = Request::default()
        .t(&[2, 4, 1, 3], &q)
        .n(&[1.0, id])
        .n(&attention_options());
    let call = door.call(1, &read.params).unwrap();
    let turn = call.take_turn();
    assert!(call.is_due());
    let order = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let change = scope.spawn(|| {
            Request::default().n(&[id, 1.0]).query(&door, 42).unwrap();
            order.fetch_add(1, Ordering::SeqCst)
        });
        std::thread::sleep(std::time::Duration::from_millis(30));
        assert_eq!(
            Request::default().n(&[id]).query(&door, 43),
            Ok(3.0),
            "reading does not wait for a reader"
        );
        assert_same(&read.floats(&door, 1)[0], &expected[0]);
        assert_eq!(order.fetch_add(1, Ordering::SeqCst), 0, "the change waits");
        drop(turn);
        assert_eq!(change.join().unwrap(), 1);
    });
    assert_eq!(Request::default().n(&[id]).query(&door, 43), Ok(1.0));
}

const V1: [(&str, [usize; 2]); 4] = [
    ("q_proj", [8, 8]),
    ("k_proj", [8, 8]),
    ("v_proj", [8, 8]),
    ("out_proj", [8, 8]),
];

#[test]
fn layers_are_made_and_run() {
    let door = Door::new();
    // embedDim 8, depth 1, two heads of d 2.
    let projections: Vec<Vec<f32>> = (0..4).map(|i| values(64, 20 + i)).collect();
    let lambdas: Vec<Vec<f32>> = (0..4).map(|i| values(2, 30 + i)).collect();
    let subln = values(4, 40);
    let mut create = Request::default()
        // embedDim, depth, lambdaInit, numHeads, …, headDim, rope half-split
        .n(&[8.0, 1.0, 0.0, 2.0, 0.0, 1.0, 2.0, 1.0, 1.0, 0.0, 0.0, 0.0])
        // pairing, ratio, kvRepeat, causal, valueDim, norm, lambdaForm, sequence
        .n(&[
            0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 2.0, 1.0, 1e-4, 1.0, 1.0, 1.0, 0.0, 0.0,
        ]);
    for weight in &projections {
        create = create.t(&[8, 8], weight).n(&[0.0]);
    }
    for lambda in &lambdas {
        create = create.t(&[2], lambda);
    }
    let create = create.n(&[0.0, 0.0]).t(&[4], &subln);
    let id = create.query(&door, 44).unwrap();

    let mut weights = Weights::new();
    for ((name, shape), data) in V1.iter().zip(&projections) {
        weights.insert(format!("{name}.weight"), Tensor::f32(data, shape));
    }
    for (name, data) in ["lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2"]
        .iter()
        .zip(&lambdas)
    {
        weights.insert((*name).to_owned(), Tensor::f32(data, &[2]));
    }
    weights.insert("subln.weight".into(), Tensor::f32(&subln, &[4]));
    let mut options = MultiheadDiffAttnOptions::new(8, 1, 2);
    options.rope = Some(diffattn_nn::RopeConfig {
        interleaved: false,
        ..Default::default()
    });
    options.norm = Some(diffattn_nn::NormConfig {
        eps: 1e-4,
        affine: None,
    });
    let layer = MultiheadDiffAttn::new(&options, &weights).unwrap();
    let x = values(5 * 8, 50);
    let expected = layer
        .forward(
            Tensor::f32(&x, &[1, 5, 8]),
            None,
            &ForwardOptions::default(),
        )
        .unwrap();
    let forward = Request::default().n(&[id]).t(&[1, 5, 8], &x).n(&[0.0, 0.0]);
    assert_same(&forward.floats(&door, 8)[0], &expected);

    let maps = layer
        .maps(Tensor::f32(&x, &[1, 5, 8]), &ForwardOptions::default())
        .unwrap();
    let got = Request::default()
        .n(&[id])
        .t(&[1, 5, 8], &x)
        .floats(&door, 9);
    assert_same(&got[0], &maps.terms[0]);
    assert_same(&got[2], &maps.diff);

    // With a cache: token by token is the whole, and an abandoned job leaves the cache as it was.
    let cache = Request::default()
        .n(&[2.0, 2.0, 4.0, 0.0, 0.0, 0.0, 0.0])
        .query(&door, 40)
        .unwrap();
    let length = || Request::default().n(&[cache]).query(&door, 43).unwrap();
    for token in 0..5 {
        let x = &x[token * 8..][..8];
        let request = Request::default()
            .n(&[id])
            .t(&[1, 1, 8], x)
            .n(&[1.0, cache, 0.0]);
        let call = door.call(8, &request.params).unwrap();
        let operands = request.operands();
        let mut out = vec![0.0f32; 8];
        let mut abandoned = call.prepare(&operands).unwrap();
        assert_eq!(
            door.query(43, &[cache], &[]).map_err(|error| error.code()),
            Err("OPTION"),
            "on loan"
        );
        abandoned
            .bind(vec![bytemuck::cast_slice_mut(&mut out)])
            .unwrap();
        abandoned.step(1).unwrap();
        let finished = abandoned.is_complete();
        drop(abandoned);
        if finished {
            door.query(42, &[cache, token as f64], &[]).unwrap();
        }
        assert_eq!(length(), token as f64);
        assert_same(&request.floats(&door, 8)[0], &expected[token * 8..][..8]);
        assert_eq!(length(), token as f64 + 1.0);
    }

    // Wrong weights are named by the reference's names.
    let refused = |place: usize, number: f64| {
        let mut wrong = create.clone();
        wrong.params[place] = number;
        Failure::from(wrong.query(&door, 44).unwrap_err())
    };
    let failure = refused(26, 4.0);
    assert_eq!(
        (failure.code, failure.message.as_str()),
        (
            "DTYPE",
            "q_proj.weight: expected float32, float16 or bfloat16, got uint8"
        )
    );
    let failure = refused(0, 16.0);
    assert_eq!(failure.code, "SHAPE");
    assert!(
        failure.message.starts_with("weights.q_proj.weight: "),
        "{}",
        failure.message
    );
}

#[test]
fn layers_of_the_second_version_are_made_and_run() {
    let door = Door::new();
    // embedDim 8, four signal heads of d 2, ratio 2, one group.
    let shapes = [[12, 8], [2, 8], [2, 8], [8, 8], [4, 8]];
    let names = ["q_proj", "k_proj", "v_proj", "out_proj", "lambda_proj"];
    let data: Vec<Vec<f32>> = shapes
        .iter()
        .zip(60..)
        .map(|(shape, seed)| values(shape[0] * shape[1], seed))
        .collect();
    let bias = values(4, 70);
    let mut create = Request::default().n(&[8.0, 4.0, 1.0, 1.0, 2.0, 1.0, 2.0, 0.0, 1.0, 0.0]);
    let mut weights = Weights::new();
    for ((name, shape), data) in names.iter().zip(&shapes).zip(&data) {
        create = create.t(shape, data);
        create = if *name == "lambda_proj" {
            create.t(&[4], &bias)
        } else {
            create.n(&[0.0])
        };
        weights.insert(format!("{name}.weight"), Tensor::f32(data, shape));
    }
    weights.insert("lambda_proj.bias".into(), Tensor::f32(&bias, &[4]));
    let options = MultiheadDiffAttnV2Options {
        num_kv_heads: Some(1),
        ratio: Some(2),
        is_causal: false,
        ..MultiheadDiffAttnV2Options::new(8, 4, 2)
    };
    let layer = MultiheadDiffAttnV2::new(&options, &weights).unwrap();
    let x = values(2 * 3 * 8, 80);
    let mask: Vec<u8> = vec![1, 0, 1, 1, 1, 0, 0, 1, 1];
    let id = create.query(&door, 45).unwrap();
    let forward =
        Request::default()
            .n(&[id])
            .t(&[2, 3, 8], &x)
            .n(&[0.0])
            .raw(4, &[1, 1, 3, 3], &mask);
    let attn_mask = Some(Mask {
        data: &mask,
        shape: vec![1, 1, 3, 3],
    });
    let expected = layer
        .forward(
            Tensor::f32(&x, &[2, 3, 8]),
            None,
            &ForwardOptions {
                attn_mask,
                ..Default::default()
            },
        )
        .unwrap();
    assert_same(&forward.floats(&door, 8)[0], &expected);
}

#[test]
fn panics_become_errors_and_the_next_call_works() {
    let panics = quiet_panics(|| {
        let door = Door::new();
        assert!(
            Request::default()
                .fails(&door, 240)
                .starts_with("INTERNAL: ")
        );
        assert!(
            Request::default()
                .fails(&door, 241)
                .starts_with("INTERNAL: ")
        );
        assert_eq!(
            Request::default()
                .query(&door, 242)
                .map_err(|error| error.code()),
            Err("INTERNAL")
        );
        assert_eq!(
            Request::default().n(&[0.0]).query(&door, 32),
            Ok(lambda_init(0.0))
        );
        let call = door.call(241, &[]).unwrap();
        let mut out = [0.0f32];
        let mut job = call.prepare(&[]).unwrap();
        job.bind(vec![bytemuck::cast_slice_mut(&mut out)]).unwrap();
        assert!(job.step(1).is_err());
        assert!(
            job.step(1).is_err() && !job.is_complete(),
            "a broken job stays broken"
        );
    });
    assert_eq!(panics, 4);
}

/// Runs `work` with panics counted instead of printed.
fn quiet_panics(work: impl FnOnce()) -> usize {
    static ONE_AT_A_TIME: std::sync::Mutex<()> = std::sync::Mutex::new(());
    static PANICS: AtomicUsize = AtomicUsize::new(0);
    let _guard = ONE_AT_A_TIME
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    PANICS.store(0, Ordering::SeqCst);
    let thread = std::thread::current().id();
    let hook = std::sync::Arc::new(std::panic::take_hook());
    let old = hook.clone();
    std::panic::set_hook(Box::new(move |info| {
        // Other tests' panics are theirs.
        if std::thread::current().id() == thread {
            PANICS.fetch_add(1, Ordering::SeqCst);
        } else {
            old(info)
        }
    }));
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
    std::panic::set_hook(Box::new(move |info| hook(info)));
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
    PANICS.load(Ordering::SeqCst)
}

/// A valid request of every job and query that takes parameters.
fn samples(door: &Door) -> Vec<(u32, bool, Request)> {
    let x = values(96, 1);
    let cache = cache_request().query(door, 40).unwrap();
    let (append, _, _) = append_request(cache, 1, 1);
    let attention = Request::default()
        .t(&[1, 4, 2, 3], &x[..24])
        .n(&[0.0])
        .t(&[1, 2, 4, 3], &x[..24])
        .t(&[1, 1, 4, 2], &x[..8]);
    let maps = Request::default()
        .t(&[1, 4, 2, 3], &x[..24])
        .n(&[0.0])
        .t(&[1, 2, 4, 3], &x[..24])
        .n(&plain_options())
        .n(&[0.0, 1.0, 0.0, 1.0]);
    let read = Request::default()
        .t(&[2, 8, 1, 3], &x[..48])
        .n(&[1.0, cache])
        .n(&attention_options());
    let mut layer = Request::default()
        .n(&[2.0, 4.0, 0.0, 1.0, 0.0, 0.0])
        .n(&[0.0, 0.0, 0.0]);
    layer.params = vec![8.0, 1.0, 1.0, 1.0, 2.0, 0.0, 0.0, 0.0];
    for shape in [[4, 8], [2, 8], [2, 8], [8, 2], [1, 8]] {
        layer = layer.t(&shape, &x[..shape[0] * shape[1]]).n(&[0.0]);
    }
    vec![
        (1, true, attention.n(&attention_options())),
        (1, true, read),
        (2, true, maps),
        (
            3,
            true,
            Request::default()
                .t(&[2, 4, 12], &x)
                .n(&[2.0, 0.0, 0.0, 1.0, 1e-5, 0.0, 0.0]),
        ),
        (
            4,
            true,
            Request::default().t(&[8, 12], &x).n(&[0.0, 0.0, 1.0, 2.0]),
        ),
        (
            5,
            true,
            Request::default()
                .t(&[2, 2, 3, 8], &x)
                .n(&[0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 4.0, 0.0, 1.0, 6.0]),
        ),
        (
            6,
            true,
            Request::default().t(&[2, 2, 3, 8], &x).n(&[1.0, 2.0, 0.0]),
        ),
        (7, true, Request::default().n(&[cache])),
        (
            33,
            false,
            Request::default()
                .t(&[2], &x[..2])
                .t(&[2], &x[..2])
                .t(&[2], &x[..2])
                .t(&[2], &x[..2])
                .n(&[0.5]),
        ),
        (40, false, cache_request()),
        (41, false, append),
        (42, false, Request::default().n(&[cache, 0.0])),
        (45, false, layer),
        #[cfg(feature = "training")]
        (128, true, gradients_of_attention(&x)),
        #[cfg(feature = "training")]
        (
            130,
            true,
            Request::default()
                .t(&[2, 4, 12], &x)
                .t(&[2, 4, 12], &x)
                .n(&[2.0])
                .t(&[4], &x[..4])
                .n(&[0.0, 1.0, 1e-5, 0.0, 1.0, 0.0]),
        ),
        #[cfg(feature = "training")]
        (
            133,
            true,
            [&x[..2]; 4]
                .iter()
                .fold(Request::default().n(&[1.0, 0.5]), |r, x| r.t(&[2], x)),
        ),
    ]
}

/// With a kept result, and dk and dsinks wanted.
#[cfg(feature = "training")]
fn gradients_of_attention(x: &[f32]) -> Request {
    let mut options = plain_options();
    options.truncate(18);
    let at = |r: Request, shape: &[usize]| r.t(shape, &x[..shape.iter().product()]);
    let request = [[1, 2, 2, 2], [1, 4, 2, 3], [1, 2, 4, 3], [1, 1, 4, 2]];
    let request = request
        .iter()
        .fold(Request::default(), |r, shape| at(r, shape));
    let request = request.n(&options).n(&[1.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
    let request = at(request, &[2]).n(&[0.0]);
    at(request, &[1, 2, 2, 2]).n(&[1.0, 2.0, 1.0, 7.0])
}

#[test]
fn nothing_in_a_stream_panics() {
    let panics = quiet_panics(|| {
        let door = Door::new();
        let mut refused = 0;
        for (op, is_job, request) in samples(&door) {
            let run = |request: &Request| {
                if is_job {
                    request.run(&door, op).map(|_| ())
                } else {
                    request.query(&door, op).map(|_| ())
                }
            };
            run(&request).unwrap_or_else(|error| panic!("the sample of {op} is right: {error}"));
            for slot in 0..request.params.len() {
                for value in [
                    f64::NAN,
                    f64::INFINITY,
                    -1.0,
                    0.0,
                    0.5,
                    1.0,
                    2.0,
                    3.0,
                    4.0,
                    5.0,
                    7.0,
                    2f64.powi(53),
                    1e300,
                ] {
                    let mut request = request.clone();
                    request.params[slot] = value;
                    refused += usize::from(run(&request).is_err());
                }
                let mut shorter = request.clone();
                shorter.params.truncate(slot);
                assert_eq!(
                    run(&shorter).map_err(|error| error.code()),
                    Err("INTERNAL"),
                    "{op} cut at {slot}"
                );
            }
            let mut longer = request.clone();
            longer.params.push(0.0);
            assert_eq!(run(&longer).map_err(|error| error.code()), Err("INTERNAL"));
            for operand in 0..request.operands.len() {
                let mut short = request.clone();
                short.operands[operand].pop();
                assert_eq!(run(&short).map_err(|error| error.code()), Err("SHAPE"));
                let mut missing = request.clone();
                missing.operands.remove(operand);
                assert!(run(&missing).is_err());
            }
            run(&request).unwrap_or_else(|error| panic!("the sample of {op} still works: {error}"));
        }
        assert!(refused > 500);
        for op in [0, 10, 31, 47, 1000] {
            assert_eq!(
                door.call(op, &[]).map(|_| ()).map_err(|error| error.code()),
                Err("INTERNAL")
            );
            assert_eq!(
                door.query(op, &[], &[]).map_err(|error| error.code()),
                Err("INTERNAL")
            );
        }
    });
    assert_eq!(panics, 0);
}

#[test]
fn sizes_that_no_memory_has_are_refused_or_empty() {
    let door = Door::new();
    // More than the address space holds; the tensors are empty, so no operand bounds it.
    let huge = 1e15;
    let q = |shape: [f64; 4]| [vec![1.0, 4.0], shape.to_vec()].concat();
    let attention = |q_shape, k_shape, v_shape| {
        [
            q(q_shape),
            vec![0.0],
            q(k_shape),
            q(v_shape),
            attention_options(),
        ]
        .concat()
    };
    let cases = [
        (
            1,
            attention(
                [huge, 2.0, 0.0, 4.0],
                [huge, 2.0, 0.0, 4.0],
                [huge, 1.0, 0.0, 4.0],
            ),
            3,
        ),
        (
            1,
            attention(
                [0.0, huge, 3.0, 4.0],
                [0.0, 2.0, 5.0, 4.0],
                [0.0, 1.0, 5.0, 4.0],
            ),
            3,
        ),
        (
            1,
            attention(
                [0.0, 2.0, huge, 4.0],
                [0.0, 2.0, 5.0, 4.0],
                [0.0, 1.0, 5.0, 4.0],
            ),
            3,
        ),
        (
            1,
            attention(
                [0.0, 2.0, 3.0, 4.0],
                [0.0, 2.0, huge, 4.0],
                [0.0, 1.0, huge, 4.0],
            ),
            3,
        ),
        (
            1,
            attention(
                [0.0, 2.0, 3.0, huge],
                [0.0, 2.0, 5.0, huge],
                [0.0, 1.0, 5.0, huge],
            ),
            3,
        ),
        (
            2,
            [
                q([0.0, 2.0, huge, 4.0]),
                vec![0.0],
                q([0.0, 2.0, 5.0, 4.0]),
                plain_options(),
                vec![0.0; 2],
            ]
            .concat(),
            2,
        ),
        (
            3,
            vec![1.0, 3.0, 0.0, huge, huge, 2.0, 0.0, 0.0, 0.0, 0.0, 0.0],
            1,
        ),
        (
            3,
            vec![1.0, 3.0, 0.0, huge, huge, 2.0, 0.0, 0.0, 0.0, 1.0, 0.0],
            1,
        ),
        (4, vec![1.0, 2.0, huge, 0.0, 0.0, 0.0, 0.0], 1),
        (4, vec![1.0, 2.0, 0.0, huge, 0.0, 0.0, 0.0], 1),
        (5, [q([0.0, 2.0, huge, huge]), vec![0.0; 7]].concat(), 1),
        (6, [q([0.0, 2.0, huge, huge]), vec![0.0; 2]].concat(), 1),
        (6, [q([huge, 0.0, 2.0, 4.0]), vec![0.0; 2]].concat(), 1),
    ];
    let panics = quiet_panics(|| {
        for (op, params, operands) in cases {
            let request = Request {
                params,
                operands: vec![Vec::new(); operands],
            };
            match request.run(&door, op) {
                Ok(outputs) => assert!(outputs.iter().all(|(_, bytes)| bytes.is_empty())),
                Err(error) => assert!(
                    ["SHAPE", "OUT_OF_MEMORY"].contains(&error.code()),
                    "{op}: {error}"
                ),
            }
        }
        for sizes in [
            [huge, 4.0, 4.0, 0.0],
            [1.0, 4.0, 4.0, huge],
            [1.0, huge, 4.0, 9.0],
        ] {
            let params = [sizes[0], sizes[1], sizes[2], 1.0, sizes[3], 0.0, 0.0, 0.0];
            let error = door.query(40, &params, &[]).unwrap_err();
            assert!(
                ["SHAPE", "OUT_OF_MEMORY"].contains(&error.code()),
                "{error}"
            );
        }
    });
    assert_eq!(panics, 0);
}
