//! What the operators promise beyond their formulas: rows that see nothing, values that are not
//! finite, hidden keys, and the rules of the head plans. Expected values are worked out by hand.

use diffattn_reference::{
    AttentionSpec, GroupNorm, Head, LambdaForm, MultiheadDiffAttn, MultiheadDiffAttnV2, Norm,
    Pairing, Rope, RopeScaling, SequenceFusion, Tensor, apply_rope, attention, attention_maps,
    group_norm, lambda_from_scalars, lambda_full, lambda_init, linear, plan, positions_from,
    rms_norm, sequence_difference, sequence_fused_attention,
};

const NAN: f64 = f64::NAN;
const INF: f64 = f64::INFINITY;

/// Repeatable values between −1 and 1 (a linear congruential generator); their bits fit float32.
fn noise(shape: &[usize], seed: u64) -> Tensor<f64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = |_| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 41) as f64 / (1u64 << 22) as f64 - 1.0
    };
    Tensor::new(
        shape,
        (0..shape.iter().product::<usize>()).map(next).collect(),
    )
}

/// B = 1, two output heads of two terms, λ 0.5.
fn small(lq: usize, lk: usize) -> AttentionSpec {
    let (q, k, v) = (
        noise(&[1, 4, lq, 3], 1),
        noise(&[1, 4, lk, 3], 2),
        noise(&[1, 2, lk, 2], 3),
    );
    let heads = plan(Pairing::default(), [4, 4, 2], &[1.0, -1.0]);
    AttentionSpec {
        lambda: Some(Tensor::scalar(0.5)),
        ..AttentionSpec::new(q, k, v, heads)
    }
}

fn out(spec: &AttentionSpec) -> Vec<f64> {
    attention::<f64>(spec).out.data
}

/// Bits, so that NaN equals itself and zeros keep their sign.
fn bits(values: &[f64]) -> Vec<u64> {
    values
        .iter()
        .map(|x| if x.is_nan() { u64::MAX } else { x.to_bits() })
        .collect()
}

/// Sets row `j` of every head of a [B, n, L, d] tensor.
fn set_row(x: &mut Tensor<f64>, j: usize, value: f64) {
    let (l, d) = (x.shape[2], x.shape[3]);
    for head in x.data.chunks_mut(l * d) {
        head[j * d..(j + 1) * d].fill(value);
    }
}

#[test]
fn a_row_that_sees_no_key_is_zero_in_all_results() {
    // Queries stand at −1, 0, 1 of two keys: the first sees nothing.
    let mut spec = small(3, 2);
    (spec.causal, spec.lambda) = (true, Some(Tensor::new(&[1, 3, 1], vec![NAN, 0.5, 0.5])));
    spec.norm = Some(Norm {
        eps: 0.0,
        ..Norm::default()
    });
    let (result, maps) = (attention::<f64>(&spec), attention_maps::<f64>(&spec));
    for h in 0..2 {
        assert_eq!(result.out.row(&[0, h, 0]), [0.0; 2]);
        assert!(
            result
                .out
                .row(&[0, h, 1])
                .iter()
                .all(|y| y.is_finite() && *y != 0.0)
        );
        for map in maps.maps.iter().chain([&maps.diff]) {
            assert_eq!(map.row(&[0, h, 0]), [0.0; 2]);
        }
        for t in 0..2 {
            assert_eq!(result.lse.row(&[0, h, t])[0], -INF);
            assert!(result.lse.row(&[0, h, t])[1].is_finite());
        }
    }
    // The same by each other way to hide all keys.
    let plain = small(3, 2);
    let hidden = [
        AttentionSpec {
            key_lengths: Some(vec![0]),
            ..plain.clone()
        },
        AttentionSpec {
            mask: Some(Tensor::full(&[1, 1, 1, 2], false)),
            ..plain.clone()
        },
        AttentionSpec {
            bias: Some(Tensor::full(&[1, 1, 1, 2], -INF)),
            ..plain.clone()
        },
        AttentionSpec {
            window: [Some(0), Some(0)],
            query_offset: Some(vec![2]),
            ..plain.clone()
        },
        AttentionSpec {
            query_offset: Some(vec![i64::MIN]),
            causal: true,
            ..plain.clone()
        },
        small(3, 0),
    ];
    for spec in hidden {
        assert_eq!(bits(&out(&spec)), bits(&[0.0; 12]));
    }
}

#[test]
fn scores_that_are_all_minus_infinity_count_as_unseen() {
    let mut spec = small(2, 3);
    spec.q.data.fill(1.0);
    spec.k.data.fill(-INF);
    spec.lambda = Some(Tensor::scalar(NAN));
    assert_eq!(bits(&out(&spec)), bits(&[0.0; 8]));
    // Only the second term sees nothing: the first remains, and λ has nothing to multiply.
    for key_head in [0, 2] {
        spec.k.data[key_head * 9..(key_head + 1) * 9].fill(0.0);
    }
    let mean = |h: usize, c: usize| (0..3).map(|j| spec.v.row(&[0, h, j])[c]).sum::<f64>() / 3.0;
    for (at, y) in out(&spec).iter().enumerate() {
        assert!((y - mean(at / 4, at % 2)).abs() < 1e-15);
    }
    assert_eq!(attention::<f64>(&spec).lse.row(&[0, 0, 1]), [-INF; 2]);
}

#[test]
fn nan_and_infinite_scores_make_exactly_their_rows_nan() {
    for bad in [NAN, INF] {
        let mut spec = small(3, 3);
        spec.causal = true;
        let good = out(&spec);
        spec.q.data.fill(1.0);
        set_row(&mut spec.k, 2, bad);
        // Only the last query sees key 2; the others are those of the same q without it.
        let with = attention::<f64>(&spec);
        set_row(&mut spec.k, 2, 0.0);
        let without = attention::<f64>(&spec);
        assert_ne!(good, without.out.data);
        for h in 0..2 {
            assert!(with.out.row(&[0, h, 2]).iter().all(|y| y.is_nan()));
            assert!(with.lse.row(&[0, h, 0])[2].is_nan());
            for i in 0..2 {
                assert_eq!(
                    bits(with.out.row(&[0, h, i])),
                    bits(without.out.row(&[0, h, i]))
                );
            }
        }
    }
    // The bias of one score.
    let mut spec = small(2, 3);
    let mut bias = Tensor::full(&[1, 2, 2, 3], 0.0);
    bias.data[4] = NAN;
    spec.bias = Some(bias);
    let nan: Vec<bool> = out(&spec).iter().map(|y| y.is_nan()).collect();
    assert_eq!(nan, [false, false, true, true, false, false, false, false]);
}

#[test]
fn a_bad_v_stays_in_its_channel_until_a_norm() {
    for bad in [NAN, INF, -INF] {
        let mut spec = small(2, 2);
        spec.causal = true;
        spec.v.data[3] = bad;
        let finite =
            |spec: &AttentionSpec| out(spec).iter().map(|y| y.is_finite()).collect::<Vec<_>>();
        assert_eq!(
            finite(&spec),
            [true, true, true, false, true, true, true, true]
        );
        spec.norm = Some(Norm::default());
        assert_eq!(
            finite(&spec),
            [true, true, false, false, true, true, true, true]
        );
    }
}

#[test]
fn hidden_keys_have_no_effect_whatever_they_hold() {
    let base = small(3, 4);
    let hide_last = [
        AttentionSpec {
            key_lengths: Some(vec![3]),
            ..base.clone()
        },
        AttentionSpec {
            mask: Some(Tensor::new(&[1, 1, 1, 4], vec![true, true, true, false])),
            ..base.clone()
        },
        AttentionSpec {
            bias: Some(Tensor::new(&[4], vec![0.0, 0.0, 0.0, -INF])),
            ..base.clone()
        },
        AttentionSpec {
            causal: true,
            query_offset: Some(vec![0]),
            ..base.clone()
        },
        AttentionSpec {
            window: [None, Some(0)],
            query_offset: Some(vec![0]),
            ..base.clone()
        },
    ];
    for mut spec in hide_last {
        set_row(&mut spec.k, 3, 0.0);
        set_row(&mut spec.v, 3, 0.0);
        let (zeros, map) = (out(&spec), attention_maps::<f64>(&spec).diff.data);
        for bad in [NAN, INF, -INF] {
            set_row(&mut spec.k, 3, bad);
            set_row(&mut spec.v, 3, bad);
            assert_eq!(bits(&out(&spec)), bits(&zeros));
            assert_eq!(bits(&attention_maps::<f64>(&spec).diff.data), bits(&map));
        }
    }
}

#[test]
fn only_an_infinite_bias_masks() {
    let mut spec = small(1, 4);
    spec.bias = Some(Tensor::full(&[1, 1, 1, 4], f64::from(f32::MIN)));
    for map in attention_maps::<f64>(&spec).maps {
        assert_eq!(map.data, [0.25; 8]);
    }
    for map in attention_maps::<f32>(&spec).maps {
        assert_eq!(map.data, [0.25; 8]);
    }
}

#[test]
fn softcap_comes_before_the_bias_and_limits_the_scores() {
    let mut spec = small(1, 2);
    spec.q.data.fill(1.0);
    spec.k.data.fill(0.0);
    set_row(&mut spec.k, 1, 1e6);
    spec.softcap = Some(2.0);
    spec.bias = Some(Tensor::new(&[2], vec![3.0, 0.0]));
    // Scores 0 + 3 and 2 + 0.
    let p = 1.0 / (1.0 + (-1.0f64).exp());
    let map = &attention_maps::<f64>(&spec).maps[0].data;
    assert!(
        (map[0] - p).abs() < 1e-15 && (map[1] - (1.0 - p)).abs() < 1e-15,
        "{map:?}"
    );
}

#[test]
fn large_scores_are_exact_after_the_maximum_is_taken_off() {
    let mut spec = small(1, 2);
    spec.scale = Some(1.0);
    spec.q.data.fill(100.0);
    spec.k.data.fill(100.0);
    let result = attention::<f32>(&spec);
    assert_eq!(result.lse.data, [30000.0 + std::f32::consts::LN_2; 4]);
    assert_eq!(attention_maps::<f32>(&spec).diff.data, [0.25; 4]);
}

#[test]
fn empty_results_are_no_error() {
    assert!(out(&small(0, 3)).is_empty());
    let heads = plan(Pairing::default(), [4, 4, 2], &[1.0, -1.0]);
    let none = |n, width| Tensor::new(&[0, n, 2, width], Vec::new());
    assert!(
        out(&AttentionSpec::new(
            none(4, 3),
            none(4, 3),
            none(2, 5),
            heads
        ))
        .is_empty()
    );
}

#[test]
fn lambda_forms_agree() {
    let spec = small(3, 3);
    let number = out(&spec);
    for lambda in [
        Tensor::full(&[2], 0.5),
        Tensor::full(&[1, 1, 2], 0.5),
        Tensor::full(&[1, 3, 2], 0.5),
    ] {
        assert_eq!(
            out(&AttentionSpec {
                lambda: Some(lambda),
                ..spec.clone()
            }),
            number
        );
    }
    let coefficients = plan(Pairing::default(), [4, 4, 2], &[1.0, -0.5]);
    assert_eq!(
        out(&AttentionSpec {
            lambda: None,
            heads: coefficients,
            ..spec.clone()
        }),
        number
    );
    // [Lq, H] in this order.
    let by_head = out(&AttentionSpec {
        lambda: Some(Tensor::new(&[2], vec![0.5, 0.0])),
        ..spec.clone()
    });
    assert_eq!(by_head[..6], number[..6]);
    assert_ne!(by_head[6..], number[6..]);
}

#[test]
fn packed_sequences_equal_each_alone() {
    let mut packed = small(5, 7);
    packed.causal = true;
    packed.lambda = Some(noise(&[1, 5, 2], 9));
    packed.cu_seqlens = Some([vec![0, 2, 2, 5], vec![0, 3, 4, 7]]);
    packed.key_lengths = Some(vec![2, 1, 3]);
    packed.query_offset = Some(vec![0, 5, 1]);
    let whole = attention::<f64>(&packed);
    let map = attention_maps::<f64>(&packed).diff;
    for (n, (queries, keys)) in [(0..2, 0..3), (2..2, 3..4), (2..5, 4..7)]
        .into_iter()
        .enumerate()
    {
        let cut = |x: &Tensor<f64>, range: &std::ops::Range<usize>| {
            let (heads, width) = (x.shape[1], x.shape[3]);
            let rows = (0..heads)
                .flat_map(|h| range.clone().flat_map(move |i| x.row(&[0, h, i]).to_vec()));
            Tensor::new(&[1, heads, range.len(), width], rows.collect())
        };
        let lambda = packed.lambda.as_ref().map(|lambda| {
            Tensor::new(
                &[1, queries.len(), 2],
                lambda.data[queries.start * 2..queries.end * 2].to_vec(),
            )
        });
        let alone = AttentionSpec {
            lambda,
            causal: true,
            key_lengths: packed.key_lengths.as_ref().map(|lengths| vec![lengths[n]]),
            query_offset: packed.query_offset.as_ref().map(|offsets| vec![offsets[n]]),
            ..AttentionSpec::new(
                cut(&packed.q, &queries),
                cut(&packed.k, &keys),
                cut(&packed.v, &keys),
                packed.heads.clone(),
            )
        };
        let (alone, alone_map) = (attention::<f64>(&alone), attention_maps::<f64>(&alone).diff);
        for h in 0..2 {
            for (local, i) in queries.clone().enumerate() {
                assert_eq!(
                    bits(alone.out.row(&[0, h, local])),
                    bits(whole.out.row(&[0, h, i]))
                );
                assert_eq!(
                    alone.lse.row(&[0, h, 1])[local],
                    whole.lse.row(&[0, h, 1])[i]
                );
                let row = map.row(&[0, h, i]);
                assert_eq!(row[keys.clone()], *alone_map.row(&[0, h, local]));
                assert!(
                    row.iter()
                        .enumerate()
                        .all(|(j, p)| keys.contains(&j) || *p == 0.0)
                );
            }
        }
    }
}

#[test]
fn heads_with_fewer_terms_have_empty_maps_and_lse() {
    let (q, k, v) = (
        noise(&[1, 3, 2, 2], 1),
        noise(&[1, 3, 2, 2], 2),
        noise(&[1, 1, 2, 2], 3),
    );
    let head = |q: &[usize], coefficients: &[f64]| Head {
        q: q.to_vec(),
        k: q.to_vec(),
        v: vec![0],
        coefficients: coefficients.to_vec(),
    };
    let spec = AttentionSpec::new(
        q,
        k,
        v,
        vec![head(&[0], &[1.0]), head(&[1, 2], &[1.0, -1.0])],
    );
    let (result, maps) = (attention::<f64>(&spec), attention_maps::<f64>(&spec));
    assert_eq!(result.lse.shape, [1, 2, 2, 2]);
    assert_eq!(result.lse.row(&[0, 0, 1]), [-INF; 2]);
    assert!(result.lse.row(&[0, 1, 1]).iter().all(|lse| lse.is_finite()));
    assert_eq!(maps.maps[1].row(&[0, 0, 0]), [0.0; 2]);
    assert_eq!(maps.diff.row(&[0, 0, 1]), maps.maps[0].row(&[0, 0, 1]));
}

/// The plain float32 computation is float32: near the oracle, not on it.
#[test]
fn the_float32_computation_rounds_to_float32() {
    let spec = AttentionSpec {
        causal: true,
        norm: Some(Norm::default()),
        ..small(20, 20)
    };
    let (exact, plain) = (
        attention::<f64>(&spec).out.data,
        attention::<f32>(&spec).out.data,
    );
    let error = |(x, y): (&f64, &f32)| (x - f64::from(*y)).abs();
    let largest = exact.iter().zip(&plain).map(error).fold(0.0, f64::max);
    assert!(largest > 1e-9 && largest < 1e-5, "{largest:e}");
}

#[test]
fn plans_name_the_rule_that_is_broken() {
    let (interleaved, flat) = (Pairing::default(), Pairing::Interleaved { flat: true });
    let (grouped, shared) = (
        |ratio| Pairing::Grouped { ratio },
        |ratio| Pairing::Shared { ratio },
    );
    for (pairing, counts, terms, expected) in [
        (interleaved, [12, 4, 2], 2, Ok(6)),
        (interleaved, [16, 8, 1], 8, Ok(2)),
        (interleaved, [5, 4, 2], 2, Err("n_q = T·H")),
        (interleaved, [4, 2, 2], 2, Err("n_k = T·n_v")),
        (interleaved, [6, 4, 2], 2, Err("n_v divides H")),
        (interleaved, [4, 4, 2], 0, Err("there is at least one term")),
        (
            interleaved,
            [4, 4, 0],
            2,
            Err("there is at least one q, k and v head"),
        ),
        (flat, [12, 4, 2], 2, Ok(6)),
        (flat, [3, 3, 1], 3, Err("flat repeats need two terms")),
        (Pairing::Halves, [6, 3, 3], 2, Ok(3)),
        (Pairing::Halves, [5, 1, 1], 2, Err("n_q = 2H")),
        (Pairing::Halves, [6, 3, 1], 2, Err("n_k = n_v")),
        (Pairing::Halves, [6, 4, 4], 2, Err("n_k divides 2H")),
        (Pairing::Halves, [6, 3, 3], 3, Err("halves has two terms")),
        (grouped(4), [20, 4, 2], 2, Ok(16)),
        (grouped(0), [20, 4, 2], 2, Err("the ratio is at least 1")),
        (grouped(4), [21, 4, 2], 2, Err("n_q = (H/r)(r+1)")),
        (
            grouped(4),
            [20, 2, 2],
            2,
            Err("n_k = 2·n_v (grouped) or n_v (shared)"),
        ),
        (grouped(4), [15, 4, 2], 2, Err("n_v divides H/r")),
        (shared(3), [16, 2, 2], 2, Ok(12)),
        (
            shared(3),
            [16, 4, 2],
            2,
            Err("n_k = 2·n_v (grouped) or n_v (shared)"),
        ),
        (
            shared(3),
            [16, 2, 2],
            1,
            Err("grouped and shared have two terms"),
        ),
    ] {
        assert_eq!(
            pairing.output_heads(counts, terms),
            expected,
            "{pairing:?} {counts:?} {terms}"
        );
        if let Ok(heads) = expected {
            let coefficients = vec![1.0; terms];
            let made = plan(pairing, counts, &coefficients);
            assert_eq!(made.len(), heads);
            // Every q head takes part, and every k and v head.
            for (lists, n) in [
                (
                    made.iter().map(|head| &head.q).collect::<Vec<_>>(),
                    counts[0],
                ),
                (made.iter().map(|head| &head.k).collect(), counts[1]),
                (made.iter().map(|head| &head.v).collect(), counts[2]),
            ] {
                let mut used: Vec<usize> = lists.into_iter().flatten().copied().collect();
                used.sort();
                used.dedup();
                assert_eq!(used, (0..n).collect::<Vec<_>>(), "{pairing:?} {counts:?}");
            }
        }
    }
}

#[test]
fn norms_of_rows_that_are_zero_or_not_finite() {
    let exact = Norm {
        eps: 0.0,
        ..Norm::default()
    };
    let x = Tensor::new(&[4, 2], vec![0.0, 0.0, 3.0, -4.0, 1.0, INF, NAN, 1.0]);
    let y = rms_norm(&x, &exact).data;
    assert_eq!(y[..2], [0.0; 2]);
    assert!(
        (y[2] - 3.0 / 12.5f64.sqrt()).abs() < 1e-15 && (y[3] + 4.0 / 12.5f64.sqrt()).abs() < 1e-15
    );
    assert!(y[4..].iter().all(|y| y.is_nan()));
    let weighted = Norm {
        weight: Some(vec![2.0, 1.0]),
        scale: 0.5,
        ..exact
    };
    assert_eq!(
        rms_norm(&Tensor::new(&[2], vec![1.0, 1.0]), &weighted).data,
        [1.0, 0.5]
    );

    let constant = Tensor::full(&[1, 2, 3], 7.0);
    let spec = GroupNorm {
        eps: 0.0,
        bias: Some(vec![1.0, 2.0]),
        ..GroupNorm::new(1)
    };
    assert_eq!(
        group_norm(&constant, &spec).data,
        [1.0, 1.0, 1.0, 2.0, 2.0, 2.0]
    );
    // One NaN spoils its group and no other.
    let mut x = noise(&[1, 4, 2], 5);
    x.data[1] = NAN;
    let y = group_norm(&x, &GroupNorm::new(2)).data;
    assert!(y[..4].iter().all(|y| y.is_nan()) && y[4..].iter().all(|y| y.is_finite()));
    // An empty picture stays empty.
    assert!(
        group_norm(
            &Tensor::new(&[2, 4, 0], Vec::<f64>::new()),
            &GroupNorm::new(2)
        )
        .data
        .is_empty()
    );
}

#[test]
fn nhwc_is_nchw_with_the_axes_moved() {
    let x = noise(&[2, 6, 5, 1], 4);
    let channels_first = GroupNorm {
        weight: Some(noise(&[6], 5).data),
        silu: true,
        ..GroupNorm::new(3)
    };
    let channels_last = GroupNorm {
        channels_last: true,
        ..channels_first.clone()
    };
    // [2, 6, 5, 1] → [2, 5, 6, 1], read as [2, 5, 6].
    let moved = x.swap_middle_axes();
    let y = group_norm(&Tensor::new(&[2, 5, 6], moved.data), &channels_last);
    let expected = group_norm(&x, &channels_first).swap_middle_axes();
    for (a, b) in y.data.iter().zip(&expected.data) {
        assert!((a - b).abs() < 1e-14);
    }
}

#[test]
fn rope_turns_pairs_and_depends_on_differences_of_position_only() {
    let x = Tensor::new(&[1, 1, 1, 4], vec![1.0, 0.0, 0.0, 2.0]);
    let at = |position| Tensor::new(&[1, 1], vec![position]);
    // Pair 0 turns by the position, pair 1 by a hundredth of it.
    let (interleaved, half_split) = (
        Rope::default(),
        Rope {
            interleaved: false,
            ..Rope::default()
        },
    );
    let ((s, c), (s2, c2)) = (3.0f64.sin_cos(), 0.03f64.sin_cos());
    let check = |rope: &Rope, expected: [f64; 4]| {
        for (y, expected) in apply_rope(&x, rope, &at(3)).data.iter().zip(expected) {
            assert!((y - expected).abs() < 1e-15);
        }
    };
    check(&interleaved, [c, s, -2.0 * s2, 2.0 * c2]);
    check(&half_split, [c, -2.0 * s2, s, 2.0 * c2]);
    check(
        &Rope {
            rotary_dim: Some(2),
            ..interleaved.clone()
        },
        [c, s, 0.0, 2.0],
    );
    assert_eq!(apply_rope(&x, &interleaved, &at(0)), x);

    let (q, k) = (noise(&[1, 1, 1, 8], 6), noise(&[1, 1, 1, 8], 7));
    let dot = |i, j| {
        let (q, k) = (
            apply_rope(&q, &half_split, &at(i)),
            apply_rope(&k, &half_split, &at(j)),
        );
        q.data.iter().zip(&k.data).map(|(x, y)| x * y).sum::<f64>()
    };
    assert!((dot(5, 2) - dot(1005, 1002)).abs() < 1e-12);
    // Positions per batch entry.
    let two = Tensor::full(&[2, 1, 1, 4], 1.0);
    let y = apply_rope(&two, &interleaved, &Tensor::new(&[2, 1], vec![0, 1]));
    assert_eq!(y.data[..4], [1.0; 4]);
    assert_ne!(y.data[4..], [1.0; 4]);
    assert_eq!(positions_from(-2, 3).data, [-2, -1, 0]);
}

#[test]
fn yarn_options_change_what_they_name() {
    let scaling = |attention_factor, mscale, mscale_all_dim, truncate| RopeScaling::Yarn {
        factor: 4.0,
        original_max_position_embeddings: 64.0,
        attention_factor,
        mscale,
        mscale_all_dim,
        beta_fast: 32.0,
        beta_slow: 1.0,
        truncate,
    };
    let frequencies = |scaling| {
        Rope {
            scaling,
            ..Rope::default()
        }
        .frequencies(32)
    };
    let (plain, factor) = frequencies(scaling(None, None, None, true));
    assert!((factor - (0.1 * 4.0f64.ln() + 1.0)).abs() < 1e-15);
    assert_eq!(
        frequencies(scaling(Some(1.5), Some(2.0), Some(3.0), true)).1,
        1.5
    );
    let quotient = (0.2 * 4.0f64.ln() + 1.0) / (0.3 * 4.0f64.ln() + 1.0);
    assert!((frequencies(scaling(None, Some(2.0), Some(3.0), true)).1 - quotient).abs() < 1e-15);
    assert_ne!(frequencies(scaling(None, None, None, false)).0, plain);
    // The fastest pair is kept, the slowest divided.
    let unscaled = frequencies(RopeScaling::Default).0;
    assert_eq!(plain[0], unscaled[0]);
    assert!((plain[15] * 4.0 / unscaled[15] - 1.0).abs() < 1e-15);
}

#[test]
fn sequence_differences_and_their_share_of_heads() {
    let x = Tensor::new(&[1, 1, 4, 1], vec![1.0, 4.0, 9.0, 16.0]);
    assert_eq!(sequence_difference(&x, 0), x);
    assert_eq!(sequence_difference(&x, 1).data, [1.0, 3.0, 5.0, 7.0]);
    assert_eq!(sequence_difference(&x, 2).data, [1.0, 2.0, 2.0, 2.0]);
    let empty = Tensor::new(&[1, 2, 0, 3], Vec::<f64>::new());
    assert_eq!(sequence_difference(&empty, 2), empty);

    let (plain, difference) = (
        Tensor::full(&[2, 3, 1, 1], 1.0),
        Tensor::full(&[2, 3, 1, 1], 5.0),
    );
    let mixed = |share| {
        SequenceFusion {
            order: 1,
            share,
            fusion: 0.25,
        }
        .mix(&plain, &difference)
        .data
    };
    assert_eq!(mixed(0.0), [1.0; 6]);
    assert_eq!(mixed(1.0), [2.0; 6]);
    // ⌊0.5·3 + ½⌋ = 2 heads of each batch entry.
    assert_eq!(mixed(0.5), [2.0, 2.0, 1.0, 2.0, 2.0, 1.0]);

    // A norm acts on the mixture.
    let (spec, fusion) = (
        small(4, 4),
        SequenceFusion {
            order: 1,
            share: 0.5,
            fusion: 0.25,
        },
    );
    let normed = AttentionSpec {
        norm: Some(Norm::default()),
        ..spec.clone()
    };
    let mixture = sequence_fused_attention(&spec, &fusion);
    assert_eq!(
        sequence_fused_attention(&normed, &fusion),
        rms_norm(&mixture, &Norm::default())
    );
}

#[test]
fn lambdas() {
    assert!((lambda_init(0) - 0.2).abs() < 1e-15);
    assert!((lambda_init(3) - (0.8 - 0.6 * (-0.9f64).exp())).abs() < 1e-15);
    assert_eq!(lambda_from_scalars(0.0, 0.0, 0.3), 0.3);
    let full = lambda_full(&[1.0, 2.0], &[0.5, 0.25], &[1.0, 1.0], &[0.0, 0.5], 0.2);
    assert!((full - (1.0f64.exp() - 0.5f64.exp() + 0.2)).abs() < 1e-15);
}

/// A small layer's weights; q makes 4 heads of 2, k 4 and v 2 of 4, all from 8 channels.
fn weights(names: &[(&str, &[usize])]) -> std::collections::BTreeMap<String, Tensor<f64>> {
    names
        .iter()
        .enumerate()
        .map(|(n, (name, shape))| ((*name).to_owned(), noise(shape, 20 + n as u64)))
        .collect()
}

const PROJECTIONS: [(&str, &[usize]); 4] = [
    ("q_proj.weight", &[8, 8]),
    ("k_proj.weight", &[8, 8]),
    ("v_proj.weight", &[8, 8]),
    ("out_proj.weight", &[8, 8]),
];

#[test]
fn a_decoded_row_of_a_layer_is_a_row_of_the_whole() {
    let v1 = MultiheadDiffAttn {
        lambda_form: LambdaForm::Scalars,
        rope: Some(Rope::default()),
        sequence: Some(SequenceFusion {
            order: 1,
            share: 0.5,
            fusion: 0.5,
        }),
        ..MultiheadDiffAttn::new(
            2,
            2,
            weights(&[&PROJECTIONS[..], &[("lambda_a", &[1]), ("lambda_b", &[1])]].concat()),
        )
    };
    // With one signal and one noise head per output head of 2 channels: 2 heads, joined to 4
    // channels.
    let v2_weights: [(&str, &[usize]); 6] = [
        ("q_proj.weight", &[8, 8]),
        ("k_proj.weight", &[4, 8]),
        ("v_proj.weight", &[4, 8]),
        ("o_proj.weight", &[8, 4]),
        ("lambda_proj.weight", &[2, 8]),
        ("lambda_proj.bias", &[2]),
    ];
    let v2 = MultiheadDiffAttnV2 {
        rope: Some(Rope::default()),
        ..MultiheadDiffAttnV2::new(2, weights(&v2_weights))
    };
    let x = noise(&[1, 5, 8], 40);
    let first_three = Tensor::new(&[1, 3, 8], x.data[..24].to_vec());
    for forward in [&|x: &Tensor<f64>| v1.forward(x, None, 7), &|x: &Tensor<
        f64,
    >| {
        v2.forward(x, None, 7)
    }] as [&dyn Fn(&Tensor<f64>) -> Tensor<f64>; 2]
    {
        let whole = forward(&x);
        assert_eq!(whole.shape, [1, 5, 8]);
        assert_eq!(bits(&forward(&first_three).data), bits(&whole.data[..24]));
    }
    // Rotary positions are relative: where the first token stands does not matter.
    let shifted = v1.forward(&x, None, 1000);
    assert!(
        shifted
            .data
            .iter()
            .zip(&v1.forward(&x, None, 0).data)
            .all(|(a, b)| (a - b).abs() < 1e-10)
    );
    // λ = σ(W x + b): the bias counts.
    let mut unbiased = v2.clone();
    unbiased.weights.remove("lambda_proj.bias");
    assert_ne!(
        unbiased.forward(&x, None, 0).data,
        v2.forward(&x, None, 0).data
    );
}

#[test]
fn layers_take_masks_and_biases() {
    let vectors: [(&str, &[usize]); 4] = [
        ("lambda_q1", &[2]),
        ("lambda_k1", &[2]),
        ("lambda_q2", &[2]),
        ("lambda_k2", &[2]),
    ];
    let layer = MultiheadDiffAttn {
        causal: false,
        ..MultiheadDiffAttn::new(0, 2, weights(&[&PROJECTIONS[..], &vectors].concat()))
    };
    let x = noise(&[1, 4, 8], 41);
    let causal = Tensor::new(&[1, 1, 4, 4], (0..16).map(|at| at % 4 <= at / 4).collect());
    let expected = MultiheadDiffAttn {
        causal: true,
        ..layer.clone()
    }
    .forward(&x, None, 0);
    assert_eq!(
        bits(&layer.forward(&x, Some(&causal), 0).data),
        bits(&expected.data)
    );
    assert_ne!(layer.forward(&x, None, 0).data, expected.data);
    assert!(
        layer.maps(&x, Some(&causal), 0).diff.row(&[0, 1, 0])[1..]
            .iter()
            .all(|p| *p == 0.0)
    );

    // A bias of the output projection is added last.
    let mut biased = layer.clone();
    biased
        .weights
        .insert("out_proj.bias".into(), Tensor::full(&[8], 2.0));
    let (y, plain) = (biased.forward(&x, None, 0), layer.forward(&x, None, 0));
    assert!(
        y.data
            .iter()
            .zip(&plain.data)
            .all(|(a, b)| (a - b - 2.0).abs() < 1e-14)
    );
    assert_eq!(
        linear(
            &Tensor::new(&[2], vec![1.0, 2.0]),
            &Tensor::new(&[1, 2], vec![3.0, 4.0]),
            None
        )
        .data,
        [11.0]
    );
}
