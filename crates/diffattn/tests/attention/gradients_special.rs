//! Gradients where values are NaN or infinite, rows see nothing, or nothing is there; and what is
//! refused.

use crate::gradients::{Named, run_backward};
use crate::support::{How, Values, bits};
use diffattn::{
    AttentionNeeds, AttentionOptions, ErrorKind, GradientOptions, Isa, Lambda, NormOptions, Tensor,
    diff_attention_backward,
};
use diffattn_reference::{AttentionSpec, Norm, Pairing, Tensor as Reference, plan};

/// A causal call of 70 tokens, more than a block of rows, over two heads of one group.
fn spec(values: &mut Values, length: usize) -> AttentionSpec {
    let [q, k, v] = [
        values.tensor(&[1, 4, length, 8]),
        values.tensor(&[1, 2, length, 8]),
        values.tensor(&[1, 1, length, 8]),
    ];
    AttentionSpec {
        lambda: Some(Reference::scalar(0.4)),
        causal: true,
        ..AttentionSpec::new(q, k, v, plan(Pairing::default(), [4, 2, 1], &[1.0, -1.0]))
    }
}

fn named<'n>(all: &'n Named, name: &str) -> &'n [f32] {
    &all.iter().find(|(other, _)| *other == name).unwrap().1
}

/// Rows [head][token] of a gradient that have a NaN or an infinity.
fn special(values: &[f32], width: usize) -> Vec<usize> {
    let rows = values.chunks(width).enumerate();
    rows.filter(|(_, row)| row.iter().any(|x| !x.is_finite()))
        .map(|(index, _)| index)
        .collect()
}

/// What hidden keys and values hold changes no bit, be it NaN or infinite.
#[test]
fn hidden_values_change_nothing() {
    let mut values = Values(3);
    let length = 70;
    let clean = spec(&mut values, length);
    let dy = values.tensor(&[1, 2, length, 8]);
    for how in [How::new(Isa::detect()), How::new(Isa::available()[0])] {
        let masked = AttentionSpec {
            // Keys from 50 on are padding.
            key_lengths: Some(vec![50]),
            query_offset: Some(vec![0]),
            ..clean.clone()
        };
        let mut zeroed = masked.clone();
        let mut dirty = masked.clone();
        for (tensor, heads) in [(0, 2), (1, 1)] {
            for head in 0..heads {
                for at in (head * length + 50) * 8..(head + 1) * length * 8 {
                    let junk = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY][at % 3];
                    for (spec, value) in [(&mut zeroed, 0.0), (&mut dirty, junk)] {
                        let of = if tensor == 0 {
                            &mut spec.k
                        } else {
                            &mut spec.v
                        };
                        of.data[at] = value;
                    }
                }
            }
        }
        let (one, other) = (
            run_backward(&zeroed, &dy, &how).unwrap(),
            run_backward(&dirty, &dy, &how).unwrap(),
        );
        for ((name, one), (_, other)) in one.iter().zip(&other) {
            assert_eq!(bits(one), bits(other), "{name} {how:?}");
            assert!(one.iter().all(|x| x.is_finite()), "{name} {how:?}");
        }
    }
}

/// A NaN in one row of dy or q reaches the gradients of what the row sees, and nothing else.
#[test]
fn a_row_reaches_only_what_it_sees() {
    let mut values = Values(4);
    let length = 70;
    let clean = spec(&mut values, length);
    let dy = values.tensor(&[1, 2, length, 8]);
    let token = 20;
    for how in [How::new(Isa::detect()), How::new(Isa::available()[0])] {
        let mut bad_dy = dy.clone();
        bad_dy.data[token * 8 + 3] = f64::NAN;
        let got = run_backward(&clean, &bad_dy, &how).unwrap();
        // q heads 0 and 1 are the terms of head 0.
        assert_eq!(
            special(named(&got, "dq"), 8),
            [token, length + token],
            "{how:?}"
        );
        let seen: Vec<usize> = (0..=token).collect();
        assert_eq!(special(named(&got, "dv"), 8), seen, "{how:?}");
        let of_both = special(named(&got, "dk"), 8);
        let both: Vec<_> = seen
            .iter()
            .copied()
            .chain(seen.iter().map(|x| x + length))
            .collect();
        assert_eq!(of_both, both, "{how:?}");
        let mut bad_q = clean.clone();
        bad_q.q.data[token * 8] = f64::INFINITY;
        let got = run_backward(&bad_q, &dy, &how).unwrap();
        for name in ["dq", "dk", "dv"] {
            let found = special(named(&got, name), 8);
            assert!(!found.is_empty(), "{name} {how:?}");
            assert!(
                found.iter().all(|row| row % length <= token),
                "{name} {how:?} {found:?}"
            );
        }
        // A visible key and a visible value.
        let mut bad_k = clean.clone();
        bad_k.k.data[token * 8] = f64::NAN;
        let got = run_backward(&bad_k, &dy, &how).unwrap();
        let found = special(named(&got, "dq"), 8);
        assert!(
            found.iter().all(|row| row % length >= token),
            "{how:?} {found:?}"
        );
        assert_eq!(found.len() % (length - token), 0, "{how:?} {found:?}");
        let mut bad_v = clean.clone();
        bad_v.v.data[token * 8] = f64::NAN;
        let got = run_backward(&bad_v, &dy, &how).unwrap();
        let found = special(named(&got, "dq"), 8);
        assert_eq!(found.len(), 4 * (length - token), "{how:?} {found:?}");
        assert!(found.iter().all(|row| row % length >= token), "{how:?}");
        // dv does not depend on v.
        assert!(special(named(&got, "dv"), 8).is_empty(), "{how:?}");
    }
}

/// Rows that see nothing give nothing, whatever λ is; nor do rows that are not there.
#[test]
fn rows_that_see_nothing_give_nothing() {
    let mut values = Values(5);
    let mut spec = spec(&mut values, 30);
    spec.query_offset = Some(vec![-4]);
    spec.norm = Some(Norm {
        eps: 0.0,
        ..Norm::default()
    });
    let dy = values.tensor(&[1, 2, 30, 8]);
    let mut lambda = Reference::full(&[1, 30, 2], 0.3);
    lambda.data[..8].fill(f64::NAN);
    spec.lambda = Some(lambda);
    let how = How::new(Isa::detect());
    let got = run_backward(&spec, &dy, &how).unwrap();
    for (name, values) in &got {
        assert!(values.iter().all(|x| x.is_finite()), "{name}");
    }
    assert!(named(&got, "dlambda")[..8].iter().all(|&x| x == 0.0));
    assert!(named(&got, "dq")[..4 * 8].iter().all(|&x| x == 0.0));
    for empty in [[0, 30], [30, 0]] {
        let [queries, keys] = empty;
        let spec = AttentionSpec {
            q: Reference::full(&[1, 4, queries, 8], 1.0),
            k: Reference::full(&[1, 2, keys, 8], 1.0),
            v: Reference::full(&[1, 1, keys, 8], 1.0),
            lambda: Some(Reference::scalar(0.5)),
            ..spec.clone()
        };
        let dy = Reference::full(&[1, 2, queries, 8], 1.0);
        let got = run_backward(&spec, &dy, &how).unwrap();
        for (name, values) in &got {
            assert!(values.iter().all(|&x| x == 0.0), "{name} {empty:?}");
        }
    }
}

/// What does not fit is refused by name.
#[test]
fn refusals() {
    let data = vec![0.5_f32; 4 * 6 * 8];
    let q = || Tensor::f32(&data[..2 * 6 * 8], &[1, 2, 6, 8]);
    let v = || Tensor::f32(&data[..6 * 8], &[1, 1, 6, 8]);
    let options = || AttentionOptions {
        lambda: Some(Lambda::Value(0.5)),
        ..AttentionOptions::default()
    };
    let refused = |dy: Tensor<'_>,
                   options: &AttentionOptions<'_>,
                   gradients: &GradientOptions<'_>| {
        let error = diff_attention_backward(dy, [q(), q(), v()], options, gradients).unwrap_err();
        (error.kind().unwrap(), error.to_string())
    };
    let (kind, text) = refused(q(), &options(), &GradientOptions::default());
    assert_eq!(kind, ErrorKind::Shape, "{text}");
    assert!(text.contains("dy"), "{text}");
    let kept = GradientOptions {
        pre_norm: Some(v()),
        ..GradientOptions::default()
    };
    let (kind, text) = refused(v(), &options(), &kept);
    assert!(
        kind == ErrorKind::Option && text.contains("pre_norm"),
        "{text}"
    );
    for needs in [
        AttentionNeeds {
            sinks: true,
            ..AttentionNeeds::default()
        },
        AttentionNeeds {
            attn_bias: true,
            ..AttentionNeeds::default()
        },
    ] {
        let wanted = GradientOptions {
            needs: Some(needs),
            ..GradientOptions::default()
        };
        let (kind, text) = refused(v(), &options(), &wanted);
        assert!(
            kind == ErrorKind::Option && text.contains("needs"),
            "{text}"
        );
    }
    let lse = AttentionOptions {
        return_lse: true,
        ..options()
    };
    let (kind, text) = refused(v(), &lse, &GradientOptions::default());
    assert!(
        kind == ErrorKind::Option && text.contains("return_lse"),
        "{text}"
    );
}

/// Only what is needed is computed, to the same bits; and a result that was kept spares its product.
#[test]
fn needs_and_kept_results_change_no_bit() {
    let mut values = Values(6);
    let length = 90;
    let make = |values: &mut Values, len: usize| -> Vec<f32> {
        (0..len).map(|_| values.normal() as f32).collect()
    };
    let (q, k) = (
        make(&mut values, 4 * length * 8),
        make(&mut values, 2 * length * 8),
    );
    let (v, dy) = (
        make(&mut values, length * 12),
        make(&mut values, 2 * length * 12),
    );
    let weight = make(&mut values, 12);
    let qkv = || {
        [
            Tensor::f32(&q, &[1, 4, length, 8]),
            Tensor::f32(&k, &[1, 2, length, 8]),
            Tensor::f32(&v, &[1, 1, length, 12]),
        ]
    };
    let shape = [1, 2, length, 12];
    let plain = AttentionOptions {
        lambda: Some(Lambda::Value(0.4)),
        is_causal: true,
        ..AttentionOptions::default()
    };
    let normed = AttentionOptions {
        norm: Some(NormOptions {
            weight: Some(&weight),
            ..NormOptions::default()
        }),
        ..plain.clone()
    };
    let [a, b, c] = qkv();
    let kept = diffattn::diff_attention(a, b, c, &plain).unwrap();
    let run = |gradients: &GradientOptions<'_>| {
        diff_attention_backward(Tensor::f32(&dy, &shape), qkv(), &normed, gradients).unwrap()
    };
    let all = run(&GradientOptions::default());
    let with_kept = run(&GradientOptions {
        pre_norm: Some(Tensor::f32(&kept, &shape)),
        ..GradientOptions::default()
    });
    assert_eq!(all, with_kept);
    for (index, needs) in [
        AttentionNeeds {
            q: true,
            ..AttentionNeeds::default()
        },
        AttentionNeeds {
            k: true,
            ..AttentionNeeds::default()
        },
        AttentionNeeds {
            v: true,
            norm_weight: true,
            ..AttentionNeeds::default()
        },
        AttentionNeeds {
            lambda: true,
            ..AttentionNeeds::default()
        },
    ]
    .into_iter()
    .enumerate()
    {
        let some = run(&GradientOptions {
            needs: Some(needs),
            ..GradientOptions::default()
        });
        let wanted = [
            (&some.dq, &all.dq, needs.q),
            (&some.dk, &all.dk, needs.k),
            (&some.dv, &all.dv, needs.v),
            (&some.dlambda, &all.dlambda, needs.lambda),
            (&some.dnorm_weight, &all.dnorm_weight, needs.norm_weight),
        ];
        for (got, whole, needed) in wanted {
            assert_eq!(
                got.as_ref(),
                needed.then_some(whole.as_ref()).flatten(),
                "{index}"
            );
        }
    }
}
