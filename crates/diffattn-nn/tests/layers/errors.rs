//! What layers refuse: the code, and a sentence that names argument, expectation and gift.

use crate::common::{Stored, borrowed, ok, refusal};
use diffattn::{
    CacheDType, Data, DataMut, KvCache, KvCacheOptions, KvRepeat, Mask, Pairing, RopeFrequencies,
    RopeScaling, RopeType, Tensor,
};
use diffattn_nn::{
    ForwardOptions, LambdaForm, MultiheadDiffAttn, MultiheadDiffAttnOptions, MultiheadDiffAttnV2,
    MultiheadDiffAttnV2Options, NormConfig, RopeConfig, SequenceFusion,
};

fn tensors(list: &[(&str, &[usize])]) -> Stored {
    list.iter()
        .map(|&(name, shape)| {
            (
                name.to_owned(),
                (shape.to_vec(), vec![0.25; shape.iter().product()]),
            )
        })
        .collect()
}

/// E 16, H 2, d 4.
fn v1_weights() -> Stored {
    tensors(&[
        ("q_proj.weight", &[16, 16]),
        ("k_proj.weight", &[16, 16]),
        ("v_proj.weight", &[16, 16]),
        ("out_proj.weight", &[16, 16]),
        ("lambda_q1", &[4]),
        ("lambda_k1", &[4]),
        ("lambda_q2", &[4]),
        ("lambda_k2", &[4]),
    ])
}

fn v1() -> MultiheadDiffAttnOptions {
    MultiheadDiffAttnOptions::new(16, 0, 2)
}

fn says(options: &MultiheadDiffAttnOptions, weights: &Stored) -> (&'static str, String) {
    refusal(MultiheadDiffAttn::new(options, &borrowed(weights)))
}

#[test]
fn options() {
    let base = v1();
    let sequence = |order, share, fusion| {
        Some(SequenceFusion {
            order,
            share,
            fusion,
        })
    };
    let rope = |frequencies| {
        Some(RopeConfig {
            frequencies,
            ..RopeConfig::default()
        })
    };
    let linear = RopeScaling {
        rope_type: RopeType::Linear,
        ..RopeScaling::default()
    };
    let given = |argument: &str, says: &str| format!("{argument}: expected {says}");
    for (options, code, says_what) in [
        (
            MultiheadDiffAttnOptions {
                embed_dim: 0,
                ..base.clone()
            },
            "SHAPE",
            given(
                "num_heads",
                "a number of which twice divides embed_dim 0, got 2",
            ),
        ),
        (
            MultiheadDiffAttnOptions {
                num_heads: 3,
                ..base.clone()
            },
            "SHAPE",
            given(
                "num_heads",
                "a number of which twice divides embed_dim 16, got 3",
            ),
        ),
        (
            MultiheadDiffAttnOptions {
                num_heads: 0,
                head_dim: Some(4),
                ..base.clone()
            },
            "SHAPE",
            given("num_heads", "1 or more, got 0"),
        ),
        (
            MultiheadDiffAttnOptions {
                head_dim: Some(0),
                ..base.clone()
            },
            "SHAPE",
            given("head_dim", "1 or more, got 0"),
        ),
        (
            MultiheadDiffAttnOptions {
                num_kv_heads: Some(3),
                ..base.clone()
            },
            "SHAPE",
            given(
                "num_kv_heads",
                "a number of output heads that 3 key/value groups divide, got 2 output heads",
            ),
        ),
        (
            MultiheadDiffAttnOptions {
                num_kv_heads: Some(0),
                ..base.clone()
            },
            "SHAPE",
            given(
                "num_kv_heads",
                "a number of k heads that 2 terms divide, got 0 k heads",
            ),
        ),
        (
            MultiheadDiffAttnOptions {
                num_kv_heads: Some(3),
                pairing: Pairing::Halves,
                ..base.clone()
            },
            "SHAPE",
            given(
                "num_kv_heads",
                "a number of q heads that 3 k heads divide, got 4 q heads",
            ),
        ),
        (
            MultiheadDiffAttnOptions {
                kv_repeat: Some(KvRepeat::Flat),
                pairing: Pairing::Halves,
                ..base.clone()
            },
            "OPTION",
            given(
                "kv_repeat",
                "none unless the pairing is interleaved, got one",
            ),
        ),
        (
            MultiheadDiffAttnOptions {
                ratio: Some(2),
                ..base.clone()
            },
            "OPTION",
            given(
                "ratio",
                "none unless the pairing is grouped or shared, got one",
            ),
        ),
        (
            MultiheadDiffAttnOptions {
                ratio: Some(0),
                pairing: Pairing::Grouped,
                ..base.clone()
            },
            "OPTION",
            given("ratio", "1 or more, got 0"),
        ),
        (
            MultiheadDiffAttnOptions {
                ratio: Some(3),
                pairing: Pairing::Grouped,
                ..base.clone()
            },
            "SHAPE",
            given("num_heads", "a number that ratio 3 divides, got 2"),
        ),
        (
            MultiheadDiffAttnOptions {
                norm: Some(NormConfig {
                    eps: -1.0,
                    affine: None,
                }),
                ..base.clone()
            },
            "OPTION",
            given("norm.eps", "0 or a positive number, got -1"),
        ),
        (
            MultiheadDiffAttnOptions {
                norm: Some(NormConfig {
                    affine: Some(true),
                    ..NormConfig::default()
                }),
                ..base.clone()
            },
            "OPTION",
            given("weights.subln.weight", "a tensor of shape [8], got none"),
        ),
        (
            MultiheadDiffAttnOptions {
                sequence: sequence(0, 0.5, 0.5),
                ..base.clone()
            },
            "OPTION",
            given("sequence.order", "1 to 64, got 0"),
        ),
        (
            MultiheadDiffAttnOptions {
                sequence: sequence(65, 0.5, 0.5),
                ..base.clone()
            },
            "OPTION",
            given("sequence.order", "1 to 64, got 65"),
        ),
        (
            MultiheadDiffAttnOptions {
                sequence: sequence(1, 1.5, 0.5),
                ..base.clone()
            },
            "OPTION",
            given("sequence.share", "a number from 0 to 1, got 1.5"),
        ),
        (
            MultiheadDiffAttnOptions {
                sequence: sequence(1, 0.5, f64::NAN),
                ..base.clone()
            },
            "OPTION",
            given("sequence.fusion", "a number from 0 to 1, got NaN"),
        ),
        (
            MultiheadDiffAttnOptions {
                rope: Some(RopeConfig::default()),
                head_dim: Some(3),
                ..base.clone()
            },
            "SHAPE",
            given(
                "head_dim",
                "an even number, as rope turns channels in pairs, got 3",
            ),
        ),
        (
            MultiheadDiffAttnOptions {
                rope: rope(RopeFrequencies {
                    theta: Some(-1.0),
                    ..RopeFrequencies::default()
                }),
                ..base.clone()
            },
            "OPTION",
            given("rope.theta", "a finite number above 0, got -1"),
        ),
        (
            MultiheadDiffAttnOptions {
                rope: rope(RopeFrequencies {
                    scaling: Some(linear),
                    ..RopeFrequencies::default()
                }),
                ..base.clone()
            },
            "OPTION",
            given(
                "rope.scaling.factor",
                "a number for rope_type linear, got none",
            ),
        ),
        // A size that no weight backs is not believed.
        (
            MultiheadDiffAttnOptions {
                num_heads: 1 << 40,
                head_dim: Some(4),
                ..base.clone()
            },
            "SHAPE",
            given(
                "weights.q_proj.weight",
                "shape [8796093022208, 16], got [16, 16]",
            ),
        ),
        (
            MultiheadDiffAttnOptions {
                head_dim: Some(1 << 40),
                rope: Some(RopeConfig::default()),
                ..base.clone()
            },
            "SHAPE",
            given(
                "weights.q_proj.weight",
                "shape [4398046511104, 16], got [16, 16]",
            ),
        ),
        (
            MultiheadDiffAttnOptions {
                num_heads: usize::MAX / 2,
                head_dim: Some(4),
                ..base.clone()
            },
            "SHAPE",
            given(
                "head_dim",
                "a shape whose element count fits this machine, got [18446744073709551614, 8, 16]",
            ),
        ),
    ] {
        assert_eq!(says(&options, &v1_weights()), (code, says_what));
    }
}

#[test]
fn weights() {
    let with = |name: &str, shape: &[usize]| {
        let mut weights = v1_weights();
        weights.extend(tensors(&[(name, shape)]));
        weights
    };
    let without = |name: &str| {
        let mut weights = v1_weights();
        weights.remove(name);
        weights
    };
    for (weights, code, sentence) in [
        (
            with("q_proj.weight", &[16, 15]),
            "SHAPE",
            "weights.q_proj.weight: expected shape [16, 16], got [16, 15]",
        ),
        (
            with("k_proj.bias", &[15]),
            "SHAPE",
            "weights.k_proj.bias: expected shape [16], got [15]",
        ),
        (
            without("v_proj.weight"),
            "OPTION",
            "weights.v_proj.weight: expected a tensor of shape [16, 16], got none",
        ),
        (
            without("out_proj.weight"),
            "OPTION",
            "weights.out_proj.weight: expected a tensor of shape [16, 16], got none",
        ),
        (
            with("o_proj.weight", &[16, 16]),
            "OPTION",
            "weights: expected one of out_proj and o_proj, got both",
        ),
        (
            with("o_proj.bias", &[16]),
            "OPTION",
            "weights: expected one of out_proj and o_proj, got both",
        ),
        (
            without("lambda_k2"),
            "OPTION",
            "weights.lambda_k2: expected a tensor of shape [4], got none",
        ),
        (
            with("lambda_a", &[]),
            "OPTION",
            "weights.lambda_a: expected none unless lambda_form is scalars, got one",
        ),
        (
            with("subln.weight", &[4]),
            "SHAPE",
            "weights.subln.weight: expected shape [8], got [4]",
        ),
        (
            with("gate_proj.weight", &[16, 16]),
            "OPTION",
            "weights: expected names among q_proj.weight|bias, k_proj.weight|bias, v_proj.weight|bias, out_proj.weight|bias, \
             o_proj.weight|bias, lambda_q1, lambda_k1, lambda_q2, lambda_k2, lambda_a, lambda_b, subln.weight, got \"gate_proj.weight\"",
        ),
    ] {
        assert_eq!(says(&v1(), &weights), (code, sentence.to_owned()));
    }
    let scalars = MultiheadDiffAttnOptions {
        lambda_form: LambdaForm::Scalars,
        ..v1()
    };
    assert_eq!(
        says(&scalars, &v1_weights()).1,
        "weights.lambda_q1: expected none unless lambda_form is vectors, got one"
    );
    let mut weights = v1_weights();
    weights.retain(|name, _| !name.starts_with("lambda"));
    weights.extend(tensors(&[("lambda_a", &[]), ("lambda_b", &[2])]));
    assert_eq!(
        says(&scalars, &weights).1,
        "weights.lambda_b: expected shape [], got [2]"
    );
    let plain = MultiheadDiffAttnOptions {
        norm: Some(NormConfig {
            affine: Some(false),
            ..NormConfig::default()
        }),
        ..v1()
    };
    assert_eq!(
        says(&plain, &with("subln.weight", &[8])).1,
        "weights.subln.weight: expected none where norm.affine is false, got one"
    );
    // Elements that are not those of the shape.
    let mut weights = v1_weights();
    weights.insert("q_proj.weight".to_owned(), (vec![16, 16], vec![0.0; 3]));
    assert_eq!(
        says(&v1(), &weights),
        (
            "SHAPE",
            "weights.q_proj.weight: expected 256 elements for shape [16, 16], got 3".to_owned()
        )
    );
}

#[test]
fn the_second_version() {
    let base = MultiheadDiffAttnV2Options::new(12, 4, 4);
    let weights = || {
        tensors(&[
            ("q_proj.weight", &[32, 12]),
            ("k_proj.weight", &[16, 12]),
            ("v_proj.weight", &[16, 12]),
            ("lambda_proj.weight", &[4, 12]),
            ("o_proj.weight", &[12, 16]),
        ])
    };
    ok(MultiheadDiffAttnV2::new(&base, &borrowed(&weights())));
    let refused = |options: &MultiheadDiffAttnV2Options, weights: &Stored| {
        refusal(MultiheadDiffAttnV2::new(options, &borrowed(weights)))
    };
    for (options, sentence) in [
        (
            MultiheadDiffAttnV2Options {
                ratio: Some(3),
                ..base.clone()
            },
            "num_heads: expected a number that ratio 3 divides, got 4",
        ),
        (
            MultiheadDiffAttnV2Options {
                num_kv_heads: Some(3),
                ..base.clone()
            },
            "num_kv_heads: expected a number of noise groups that 3 key/value groups divide, got 4 noise groups",
        ),
        (
            MultiheadDiffAttnV2Options {
                embed_dim: 0,
                ..base.clone()
            },
            "embed_dim: expected 1 or more, got 0",
        ),
        (
            MultiheadDiffAttnV2Options {
                num_kv_heads: Some(2),
                ..base.clone()
            },
            "weights.k_proj.weight: expected shape [8, 12], got [16, 12]",
        ),
    ] {
        assert_eq!(refused(&options, &weights()).1, sentence);
    }
    let mut no_lambda = weights();
    no_lambda.remove("lambda_proj.weight");
    assert_eq!(
        refused(&base, &no_lambda).1,
        "weights.lambda_proj.weight: expected a tensor of shape [4, 12], got none"
    );
    let mut of_v1 = weights();
    of_v1.extend(tensors(&[("lambda_q1", &[4])]));
    assert!(
        refused(&base, &of_v1)
            .1
            .ends_with("lambda_proj.weight|bias, got \"lambda_q1\"")
    );
}

#[test]
fn calls() {
    let layer = ok(MultiheadDiffAttn::new(&v1(), &borrowed(&v1_weights())));
    let (x, halves, visible) = ([0.5; 96], [0; 96], [1; 9]);
    let good = || Tensor::f32(&x, &[2, 3, 16]);
    let options = ForwardOptions::default();
    let call = |x: Tensor<'_>, options: &ForwardOptions<'_>| {
        let maps = refusal(layer.maps(x.clone(), options));
        let forward = refusal(layer.forward(x, None, options));
        assert_eq!(maps, forward);
        forward
    };
    assert_eq!(
        call(Tensor::f32(&x, &[6, 16]), &options),
        (
            "SHAPE",
            "x: expected shape [B, L, 16], got [6, 16]".to_owned()
        )
    );
    assert_eq!(
        call(Tensor::f32(&x, &[2, 6, 8]), &options).1,
        "x: expected shape [B, L, 16], got [2, 6, 8]"
    );
    assert_eq!(
        call(Tensor::f32(&x, &[2, 4, 16]), &options).1,
        "x: expected 128 elements for shape [2, 4, 16], got 96"
    );
    let half = Tensor {
        data: Data::F16(&halves),
        shape: vec![2, 3, 16],
    };
    assert_eq!(
        call(half, &options),
        ("DTYPE", "x: expected float32, got float16".to_owned())
    );
    let mask = |shape: &[usize]| ForwardOptions {
        attn_mask: Some(Mask {
            data: &visible,
            shape: shape.to_vec(),
        }),
        ..ForwardOptions::default()
    };
    assert_eq!(
        call(good(), &mask(&[3, 3])).1,
        "attn_mask: expected shape [2|1, 2|1, 3|1, 3], got [3, 3]"
    );
    assert_eq!(
        call(good(), &mask(&[1, 1, 9, 1])).1,
        "attn_mask: expected shape [2|1, 2|1, 3|1, 3], got [1, 1, 9, 1]"
    );
    assert_eq!(
        call(good(), &mask(&[1, 2, 3, 3])).1,
        "attn_mask: expected 18 elements for shape [1, 2, 3, 3], got 9"
    );
    assert!(layer.forward(good(), None, &mask(&[1, 1, 3, 3])).is_ok());

    let fitting = layer.cache_options(2, 0);
    assert_eq!(
        fitting,
        KvCacheOptions {
            batch: 2,
            groups: 2,
            terms: 2,
            head_dim: 4,
            value_dim: 8,
            capacity: 0,
            dtype: CacheDType::F32
        }
    );
    let wanted = "cache: expected batch 2, groups 2, terms 2, head_dim 4, value_dim 8, got ";
    for (cache, got) in [
        (
            KvCacheOptions {
                batch: 1,
                ..fitting
            },
            "batch 1, groups 2, terms 2, head_dim 4, value_dim 8",
        ),
        (
            KvCacheOptions {
                groups: 1,
                terms: 4,
                ..fitting
            },
            "batch 2, groups 1, terms 4, head_dim 4, value_dim 8",
        ),
    ] {
        let mut cache = ok(KvCache::new(cache));
        let refused = refusal(layer.forward(good(), Some(&mut cache), &options));
        assert_eq!(refused, ("SHAPE", format!("{wanted}{got}")));
    }
    // What it holds is its own affair.
    let mut halves = ok(KvCache::new(KvCacheOptions {
        dtype: CacheDType::Bf16,
        ..fitting
    }));
    ok(layer.forward(good(), Some(&mut halves), &options));
    // A mask must speak of the cached keys too; and the next call works.
    let mut cache = ok(KvCache::new(KvCacheOptions {
        capacity: 9,
        ..fitting
    }));
    ok(layer.forward(good(), Some(&mut cache), &options));
    let refused = refusal(layer.forward(good(), Some(&mut cache), &mask(&[1, 1, 3, 3])));
    assert_eq!(
        refused.1,
        "attn_mask: expected shape [2|1, 2|1, 3|1, 6], got [1, 1, 3, 3]"
    );
    assert_eq!(cache.len(), 3);
    ok(layer.forward(good(), Some(&mut cache), &options));
    assert_eq!(cache.len(), 6);

    let (mut short, mut half) = ([0.0; 95], [0u16; 96]);
    let job = || ok(layer.forward_job(good(), None, &options));
    assert_eq!(
        refusal(job().into_work(DataMut::F32(&mut short))).1,
        "out: expected 96 elements for shape [2, 3, 16], got 95"
    );
    assert_eq!(
        refusal(job().into_work(DataMut::F16(&mut half))),
        ("DTYPE", "out: expected float32, got float16".to_owned())
    );
}

#[test]
fn half_precision_weights_are_widened() {
    let stored = v1_weights();
    let full = borrowed(&stored);
    // 0.25, exactly, in both halves.
    for (bits, is_bf16) in [(0x3400u16, false), (0x3e80, true)] {
        let data: Vec<Vec<u16>> = stored
            .values()
            .map(|(_, data)| vec![bits; data.len()])
            .collect();
        let weights = stored.iter().zip(&data).map(|((name, (shape, _)), data)| {
            let data = if is_bf16 {
                Data::Bf16(data)
            } else {
                Data::F16(data)
            };
            (
                name.clone(),
                Tensor {
                    data,
                    shape: shape.clone(),
                },
            )
        });
        let x: Vec<f32> = (0..64).map(|i| (i as f32).sin()).collect();
        let run = |weights| {
            let layer = ok(MultiheadDiffAttn::new(&v1(), weights));
            ok(layer.forward(
                Tensor::f32(&x, &[1, 4, 16]),
                None,
                &ForwardOptions::default(),
            ))
        };
        assert_eq!(run(&weights.collect()), run(&full));
    }
}
