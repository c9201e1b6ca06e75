//! T2 of attention: every kind of plan, mask, norm, λ and sink, and all at once.

use diffattn_reference::gradients::{
    AttentionGradients, attention_backward, sequence_fused_attention_backward,
};
use diffattn_reference::{
    AttentionSpec, Head, Norm, Pairing, SequenceFusion, Tensor, attention, plan,
    sequence_fused_attention,
};

use super::{Check, noise};

const HIDDEN: f64 = f64::NEG_INFINITY;

fn with_plan(
    heads: Vec<Head>,
    counts: [usize; 3],
    [b, lq, lk]: [usize; 3],
    lambda: Option<Tensor<f64>>,
) -> AttentionSpec {
    let [n_q, n_k, n_v] = counts;
    let q = noise(&[b, n_q, lq, 3], 1);
    let (k, v) = (noise(&[b, n_k, lk, 3], 2), noise(&[b, n_v, lk, 4], 3));
    AttentionSpec {
        lambda,
        scale: Some(1.3),
        ..AttentionSpec::new(q, k, v, heads)
    }
}

fn paired(pairing: Pairing, counts: [usize; 3], lengths: [usize; 3]) -> AttentionSpec {
    let heads = plan(pairing, counts, &[1.0, -1.0]);
    with_plan(heads, counts, lengths, Some(Tensor::scalar(0.4)))
}

/// B = 2, two output heads of two terms.
fn usual(lq: usize, lk: usize) -> AttentionSpec {
    paired(Pairing::default(), [4, 4, 2], [2, lq, lk])
}

fn head(q: &[usize], k: &[usize], v: &[usize], coefficients: &[f64]) -> Head {
    Head {
        q: q.to_vec(),
        k: k.to_vec(),
        v: v.to_vec(),
        coefficients: coefficients.to_vec(),
    }
}

fn positive(shape: &[usize], seed: u64) -> Tensor<f64> {
    let mut x = noise(shape, seed);
    x.data.iter_mut().for_each(|x| *x = x.abs() + 0.1);
    x
}

fn norm(weight: Option<Vec<f64>>, eps: f64, scale: f64) -> Option<Norm> {
    Some(Norm { eps, weight, scale })
}

fn bools(shape: &[usize], seed: u64) -> Tensor<bool> {
    let x = noise(shape, seed);
    Tensor::new(shape, x.data.iter().map(|&x| x < 0.3).collect())
}

fn check(name: &str, spec: &AttentionSpec) {
    let f = |spec: &AttentionSpec| attention::<f64>(spec).out;
    check_inputs(name, spec, f, attention_backward);
}

fn check_fused(name: &str, spec: &AttentionSpec, fusion: &SequenceFusion) {
    let f = |spec: &AttentionSpec| sequence_fused_attention(spec, fusion);
    check_inputs(name, spec, f, |spec, dy| {
        sequence_fused_attention_backward(spec, fusion, dy)
    });
}

/// The inputs of a spec that have gradients, of a function of it.
fn check_inputs(
    name: &str,
    spec: &AttentionSpec,
    f: impl Fn(&AttentionSpec) -> Tensor<f64>,
    backward: impl Fn(&AttentionSpec, &Tensor<f64>) -> AttentionGradients<f64>,
) {
    let mut check = Check::new(name, &f(spec), 11);
    let d = backward(spec, &check.dy);
    let mut input = |input: &str, x: Option<&Tensor<f64>>, d: Option<&Tensor<f64>>, set: Set| {
        assert_eq!(x.is_some(), d.is_some(), "{name} d{input}");
        if let (Some(x), Some(d)) = (x, d) {
            check.input(input, x, d, |x| {
                let mut spec = spec.clone();
                set(&mut spec, x.clone());
                f(&spec)
            });
        }
    };
    input("q", Some(&spec.q), Some(&d.dq), |spec, x| spec.q = x);
    input("k", Some(&spec.k), Some(&d.dk), |spec, x| spec.k = x);
    input("v", Some(&spec.v), Some(&d.dv), |spec, x| spec.v = x);
    let (x, d_own) = (spec.lambda.as_ref(), d.dlambda.as_ref());
    input("lambda", x, d_own, |spec, x| spec.lambda = Some(x));
    let (x, d_own) = (spec.bias.as_ref(), d.dbias.as_ref());
    input("bias", x, d_own, |spec, x| spec.bias = Some(x));
    let (x, d_own) = (spec.sinks.as_ref(), d.dsinks.as_ref());
    input("sinks", x, d_own, |spec, x| spec.sinks = Some(x));
    // What is added to each head's coefficients.
    let x = spec
        .lambda
        .is_none()
        .then(|| Tensor::full(&[spec.terms()], 0.0));
    input(
        "coefficients",
        x.as_ref(),
        d.dcoefficients.as_ref(),
        |spec, x| {
            for head in &mut spec.heads {
                for (c, x) in head.coefficients.iter_mut().zip(&x.data) {
                    *c += x;
                }
            }
        },
    );
    let weight = spec.norm.as_ref().and_then(|norm| norm.weight.clone());
    let x = weight.map(|weight| Tensor::new(&[weight.len()], weight));
    input(
        "norm_weight",
        x.as_ref(),
        d.dnorm_weight.as_ref(),
        |spec, x| {
            if let Some(norm) = &mut spec.norm {
                norm.weight = Some(x.data);
            }
        },
    );
    check.done();
}

/// Puts an input into a spec.
type Set = fn(&mut AttentionSpec, Tensor<f64>);

#[test]
fn plans() {
    let lengths = [2, 5, 5];
    let kinds = [
        ("interleaved", Pairing::default(), [4, 4, 2]),
        ("interleaved, groups", Pairing::default(), [12, 4, 2]),
        ("flat", Pairing::Interleaved { flat: true }, [12, 4, 2]),
        ("halves", Pairing::Halves, [8, 4, 4]),
        ("halves, odd", Pairing::Halves, [6, 3, 3]),
        ("halves, one", Pairing::Halves, [4, 1, 1]),
        ("grouped", Pairing::Grouped { ratio: 3 }, [8, 4, 2]),
        ("shared", Pairing::Shared { ratio: 3 }, [8, 2, 2]),
    ];
    for (name, pairing, counts) in kinds {
        check(name, &paired(pairing, counts, lengths));
    }
    let terms = |coefficients: &[f64], counts| {
        let heads = plan(Pairing::default(), counts, coefficients);
        with_plan(heads, counts, lengths, None)
    };
    check("one term", &terms(&[1.0], [4, 2, 2]));
    check("two terms without λ", &terms(&[0.9, -0.4], [4, 4, 2]));
    check("three terms", &terms(&[1.0, -0.6, 0.2], [6, 6, 2]));
    // Heads of one, two and three terms, two of which share a query and a key.
    let mixed = vec![
        head(&[0], &[0], &[0], &[1.0]),
        head(&[1, 2], &[1, 1], &[1], &[1.0, -0.7]),
        head(&[3, 3, 0], &[0, 1, 1], &[0], &[0.8, -0.5, 0.3]),
    ];
    let counts = [4, 2, 2];
    check("mixed", &with_plan(mixed.clone(), counts, lengths, None));
    let lambda = Some(positive(&[3], 5));
    check("mixed with λ", &with_plan(mixed, counts, lengths, lambda));
    let wide = vec![head(&[0, 1], &[0, 1], &[1, 0], &[1.0, -1.0])];
    check("v twice", &with_plan(wide, counts, lengths, None));
}

#[test]
fn lambdas() {
    for shape in [
        &[][..],
        &[1],
        &[2],
        &[5, 2],
        &[2, 5, 2],
        &[2, 1, 2],
        &[2, 5, 1],
    ] {
        let lambda = Some(positive(shape, 4));
        let spec = AttentionSpec {
            lambda,
            ..usual(5, 6)
        };
        check(&format!("λ {shape:?}"), &spec);
    }
    let lambda = Some(Tensor::scalar(0.0));
    check(
        "λ 0",
        &AttentionSpec {
            lambda,
            ..usual(5, 6)
        },
    );
}

#[test]
fn masks() {
    let causal = |lq, lk| AttentionSpec {
        causal: true,
        ..usual(lq, lk)
    };
    check("causal", &causal(6, 6));
    check("causal, more keys", &causal(4, 7));
    check("causal, more queries", &causal(7, 4));
    check("one query", &causal(1, 6));
    for window in [
        [Some(2), Some(1)],
        [None, Some(1)],
        [Some(1), None],
        [Some(0), Some(0)],
    ] {
        check(
            &format!("window {window:?}"),
            &AttentionSpec {
                window,
                ..usual(6, 6)
            },
        );
        check(
            &format!("causal window {window:?}"),
            &AttentionSpec {
                window,
                ..causal(6, 6)
            },
        );
    }
    let mut mask = bools(&[2, 2, 5, 6], 6);
    mask.data[..6].fill(false);
    check(
        "mask",
        &AttentionSpec {
            mask: Some(mask),
            ..usual(5, 6)
        },
    );
    let mask = Some(bools(&[1, 5, 6], 6));
    check(
        "mask, broadcast",
        &AttentionSpec {
            mask,
            ..usual(5, 6)
        },
    );
    let block_mask = Some(Tensor::new(&[1, 2, 2], vec![true, false, false, true]));
    let blocks = AttentionSpec {
        block_mask,
        ..causal(70, 80)
    };
    check("block mask", &blocks);
    let key_lengths = Some(vec![6, 0]);
    check(
        "key lengths",
        &AttentionSpec {
            key_lengths,
            ..usual(5, 6)
        },
    );
    let (key_lengths, query_offset) = (Some(vec![6, 3]), Some(vec![1, -2]));
    let offsets = AttentionSpec {
        key_lengths,
        query_offset,
        ..causal(5, 6)
    };
    check("offsets", &offsets);
}

#[test]
fn packed() {
    let cu_seqlens = Some([vec![0, 3, 3, 5, 9], vec![0, 2, 4, 8, 12]]);
    let spec = AttentionSpec {
        cu_seqlens,
        lambda: Some(positive(&[1, 9, 2], 4)),
        ..paired(Pairing::default(), [4, 4, 2], [1, 9, 12])
    };
    check("packed", &spec);
    let (causal, window) = (true, [Some(1), None]);
    check(
        "packed, window",
        &AttentionSpec {
            causal,
            window,
            ..spec.clone()
        },
    );
    let key_lengths = Some(vec![1, 0, 4, 2]);
    check(
        "packed, key lengths",
        &AttentionSpec {
            key_lengths,
            ..spec
        },
    );
}

#[test]
fn scores() {
    for cap in [0.5, 3.0] {
        let softcap = Some(cap);
        check(
            &format!("softcap {cap}"),
            &AttentionSpec {
                softcap,
                ..usual(5, 6)
            },
        );
    }
    check(
        "scale 1/√d",
        &AttentionSpec {
            scale: None,
            ..usual(5, 6)
        },
    );
    // Without a sink, a bias that all keys share changes nothing.
    let sinks = Some(noise(&[2], 10));
    for shape in [
        &[2, 2, 5, 6][..],
        &[5, 6],
        &[2, 1, 1, 6],
        &[2, 1, 1],
        &[5, 1],
        &[1],
    ] {
        let bias = Some(noise(shape, 8));
        check(
            &format!("bias {shape:?}"),
            &AttentionSpec {
                bias,
                sinks: sinks.clone(),
                ..usual(5, 6)
            },
        );
    }
    let mut bias = noise(&[1, 2, 5, 6], 8);
    bias.data.iter_mut().step_by(3).for_each(|x| *x = HIDDEN);
    bias.data[6..12].fill(HIDDEN);
    let (bias, softcap) = (Some(bias), Some(2.0));
    check(
        "bias that hides",
        &AttentionSpec {
            bias,
            softcap,
            ..usual(5, 6)
        },
    );
}

#[test]
fn norms() {
    let weight = positive(&[4], 9).data;
    for (name, norm) in [
        ("norm", norm(Some(weight.clone()), 1e-5, 0.8)),
        ("norm, large eps", norm(Some(weight.clone()), 0.1, 0.6)),
        ("norm, eps 0", norm(Some(weight.clone()), 0.0, 1.0)),
        ("norm without weight", norm(None, 1e-5, 1.0)),
    ] {
        check(
            name,
            &AttentionSpec {
                norm: norm.clone(),
                ..usual(5, 6)
            },
        );
        // Three rows see nothing.
        let causal = true;
        check(
            name,
            &AttentionSpec {
                norm,
                causal,
                ..usual(7, 4)
            },
        );
    }
}

#[test]
fn sinks() {
    let hidden = Tensor::new(&[2, 2], vec![0.5, HIDDEN, HIDDEN, 1.0]);
    for (name, sinks) in [
        ("a sink per head", noise(&[2], 10)),
        ("a sink per term", noise(&[2, 2], 10)),
        ("sinks that are none", hidden),
    ] {
        let sinks = Some(sinks);
        check(
            name,
            &AttentionSpec {
                sinks: sinks.clone(),
                ..usual(5, 6)
            },
        );
        let causal = true;
        check(
            name,
            &AttentionSpec {
                sinks,
                causal,
                ..usual(7, 4)
            },
        );
    }
}

fn everything() -> AttentionSpec {
    let mut bias = noise(&[2, 1, 5, 6], 8);
    bias.data[3] = HIDDEN;
    AttentionSpec {
        lambda: Some(positive(&[2, 5, 2], 4)),
        causal: true,
        window: [Some(4), None],
        softcap: Some(2.0),
        mask: Some(bools(&[2, 2, 5, 6], 6)),
        bias: Some(bias),
        sinks: Some(noise(&[2, 2], 10)),
        key_lengths: Some(vec![6, 4]),
        query_offset: Some(vec![1, 0]),
        norm: norm(Some(positive(&[4], 9).data), 1e-3, 0.8),
        ..usual(5, 6)
    }
}

#[test]
fn all_options_at_once() {
    check("everything", &everything());
}

#[test]
fn mixtures_along_the_sequence() {
    let fusion = |order, share| SequenceFusion {
        order,
        share,
        fusion: 0.3,
    };
    let spec = AttentionSpec {
        causal: true,
        ..usual(6, 6)
    };
    check_fused("order 1, half", &spec, &fusion(1, 0.5));
    check_fused("order 2, all", &spec, &fusion(2, 1.0));
    check_fused("order 1, none", &spec, &fusion(1, 0.0));
    let spec = AttentionSpec {
        bias: Some(noise(&[6, 6], 8)),
        sinks: Some(noise(&[2], 10)),
        norm: norm(Some(positive(&[4], 9).data), 1e-5, 0.8),
        ..spec
    };
    check_fused("order 3, half, norm, bias, sinks", &spec, &fusion(3, 0.5));
}
