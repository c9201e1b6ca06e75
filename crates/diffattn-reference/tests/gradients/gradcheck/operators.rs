//! T2 of norms, λ forms, rotary embedding, differences, linear maps, SwiGLU, GELU and embeddings.

use diffattn_reference::gradients::{
    LayerNorm, NormGradients, apply_rope_backward, embedding, embedding_backward, gelu,
    gelu_backward, group_norm_backward, lambda_from_scalars_backward, lambda_full_backward,
    layer_norm, layer_norm_backward, linear_backward, poly_norm_backward, rms_norm_backward,
    sequence_difference_backward, sigmoid_backward, swiglu, swiglu_backward,
};
use diffattn_reference::{
    GroupNorm, Norm, PolyNorm, Rope, RopeScaling, Tensor, apply_rope, group_norm,
    lambda_from_scalars, lambda_full, linear, poly_norm, positions_from, rms_norm,
    sequence_difference, sigmoid,
};

use super::{Check, noise};

fn vector(x: &[f64]) -> Tensor<f64> {
    Tensor::new(&[x.len()], x.to_vec())
}

fn some(d: Option<&Tensor<f64>>) -> &Tensor<f64> {
    d.unwrap_or_else(|| panic!("a gradient is missing"))
}

#[test]
fn lambda_forms() {
    let [q1, k1, q2, k2] = [1, 2, 3, 4].map(|seed| noise(&[5], seed));
    let f = |x: [&Tensor<f64>; 4]| {
        let [q1, k1, q2, k2] = x.map(|x| x.data.as_slice());
        Tensor::scalar(lambda_full(q1, k1, q2, k2, 0.3))
    };
    let mut check = Check::new("λ of vectors", &Tensor::scalar(0.0), 5);
    let d = lambda_full_backward(check.dy.data[0], &q1.data, &k1.data, &q2.data, &k2.data);
    check.input("q1", &q1, &vector(&d.dq1), |x| f([x, &k1, &q2, &k2]));
    check.input("k1", &k1, &vector(&d.dk1), |x| f([&q1, x, &q2, &k2]));
    check.input("q2", &q2, &vector(&d.dq2), |x| f([&q1, &k1, x, &k2]));
    check.input("k2", &k2, &vector(&d.dk2), |x| f([&q1, &k1, &q2, x]));
    check.done();

    let scalars = noise(&[2], 6);
    let mut check = Check::new("λ of scalars", &Tensor::scalar(0.0), 7);
    let d = lambda_from_scalars_backward(check.dy.data[0], scalars.data[0], scalars.data[1]);
    check.input("a, b", &scalars, &vector(&d), |x| {
        Tensor::scalar(lambda_from_scalars(x.data[0], x.data[1], 0.3))
    });
    check.done();

    let logits = noise(&[9], 8);
    let f = |x: &Tensor<f64>| vector(&x.data.iter().map(|&x| sigmoid(x)).collect::<Vec<_>>());
    let mut check = Check::new("λ of a sigmoid", &f(&logits), 9);
    let d = logits.data.iter().zip(&check.dy.data);
    let d: Vec<f64> = d.map(|(&x, &dy)| sigmoid_backward(x, dy)).collect();
    check.input("logits", &logits, &vector(&d), f);
    check.done();
}

#[test]
fn rms_norms() {
    let x = noise(&[3, 2, 5], 1);
    for (eps, weight) in [(1e-5, true), (0.2, true), (0.0, true), (1e-6, false)] {
        let weight = weight.then(|| noise(&[5], 2).data);
        let norm = Norm {
            eps,
            weight,
            scale: 0.8,
        };
        let mut check = Check::new("rms norm", &x, 3);
        let d = rms_norm_backward(&x, &norm, &check.dy);
        check.input("x", &x, &d.dx, |x| rms_norm(x, &norm));
        if let Some(weight) = &norm.weight {
            check.input("weight", &vector(weight), some(d.dweight.as_ref()), |w| {
                let weight = Some(w.data.clone());
                rms_norm(
                    &x,
                    &Norm {
                        weight,
                        ..norm.clone()
                    },
                )
            });
        }
        check.done();
    }
}

#[test]
fn layer_norms() {
    let x = noise(&[4, 6], 1);
    for (with_weight, with_bias) in [(true, true), (true, false), (false, true), (false, false)] {
        let norm = LayerNorm {
            eps: 1e-5,
            weight: with_weight.then(|| noise(&[6], 2).data),
            bias: with_bias.then(|| noise(&[6], 3).data),
        };
        let mut check = Check::new("layer norm", &x, 4);
        let d = layer_norm_backward(&x, &norm, &check.dy);
        check.input("x", &x, &d.dx, |x| layer_norm(x, &norm));
        assert_eq!(
            (with_weight, with_bias),
            (d.dweight.is_some(), d.dbias.is_some())
        );
        if let Some(weight) = &norm.weight {
            check.input("weight", &vector(weight), some(d.dweight.as_ref()), |w| {
                let weight = Some(w.data.clone());
                layer_norm(
                    &x,
                    &LayerNorm {
                        weight,
                        ..norm.clone()
                    },
                )
            });
        }
        if let Some(bias) = &norm.bias {
            check.input("bias", &vector(bias), some(d.dbias.as_ref()), |b| {
                let bias = Some(b.data.clone());
                layer_norm(
                    &x,
                    &LayerNorm {
                        bias,
                        ..norm.clone()
                    },
                )
            });
        }
        check.done();
    }
}

#[test]
fn group_norms() {
    for (shape, channels_last) in [
        (&[2, 6, 3, 2][..], false),
        (&[2, 3, 2, 6], true),
        (&[3, 6], false),
    ] {
        for (num_groups, affine, silu) in [
            (2, true, false),
            (3, true, true),
            (1, false, true),
            (2, false, false),
        ] {
            let x = noise(shape, 1);
            let values = |seed| affine.then(|| noise(&[6], seed).data);
            let norm = GroupNorm {
                weight: values(2),
                bias: values(3),
                eps: 1e-3,
                channels_last,
                silu,
                ..GroupNorm::new(num_groups)
            };
            let mut check = Check::new("group norm", &x, 4);
            let d = group_norm_backward(&x, &norm, &check.dy);
            check.input("x", &x, &d.dx, |x| group_norm(x, &norm));
            check_group_affine(&mut check, &x, &norm, &d);
            check.done();
        }
    }
}

fn check_group_affine(
    check: &mut Check,
    x: &Tensor<f64>,
    norm: &GroupNorm,
    d: &NormGradients<f64>,
) {
    if let Some(weight) = &norm.weight {
        check.input("weight", &vector(weight), some(d.dweight.as_ref()), |w| {
            let weight = Some(w.data.clone());
            group_norm(
                x,
                &GroupNorm {
                    weight,
                    ..norm.clone()
                },
            )
        });
    }
    if let Some(bias) = &norm.bias {
        check.input("bias", &vector(bias), some(d.dbias.as_ref()), |b| {
            let bias = Some(b.data.clone());
            group_norm(
                x,
                &GroupNorm {
                    bias,
                    ..norm.clone()
                },
            )
        });
    }
}

#[test]
fn poly_norms() {
    let x = noise(&[3, 5], 1);
    for eps in [1e-6, 0.1] {
        let norm = PolyNorm {
            weight: [0.3, -0.2, 0.7],
            bias: 0.1,
            eps,
        };
        let mut check = Check::new("poly norm", &x, 2);
        let d = poly_norm_backward(&x, &norm, &check.dy);
        check.input("x", &x, &d.dx, |x| poly_norm(x, &norm));
        check.input("weight", &vector(&norm.weight), &d.dweight, |w| {
            let weight = [w.data[0], w.data[1], w.data[2]];
            poly_norm(
                &x,
                &PolyNorm {
                    weight,
                    ..norm.clone()
                },
            )
        });
        check.input("bias", &vector(&[norm.bias]), &d.dbias, |b| {
            poly_norm(
                &x,
                &PolyNorm {
                    bias: b.data[0],
                    ..norm.clone()
                },
            )
        });
        check.done();
    }
}

#[test]
fn rotary_embeddings() {
    let x = noise(&[2, 3, 4, 8], 1);
    let yarn = RopeScaling::Yarn {
        factor: 4.0,
        original_max_position_embeddings: 32.0,
        attention_factor: Some(1.3),
        mscale: None,
        mscale_all_dim: None,
        beta_fast: 32.0,
        beta_slow: 1.0,
        truncate: true,
    };
    let positions = Tensor::new(&[2, 4], vec![0, 1, 0, 7, 5, 6, 7, 8]);
    for (interleaved, rotary_dim, scaling) in [
        (true, None, RopeScaling::Default),
        (false, None, RopeScaling::Linear { factor: 2.0 }),
        (true, Some(4), yarn.clone()),
        (false, Some(6), yarn),
    ] {
        let rope = Rope {
            interleaved,
            rotary_dim,
            scaling,
            theta: 100.0,
        };
        for positions in [&positions, &positions_from(3, 4)] {
            let mut check = Check::new("rope", &x, 2);
            let dx = apply_rope_backward(&check.dy, &rope, positions);
            check.input("x", &x, &dx, |x| apply_rope(x, &rope, positions));
            check.done();
        }
    }
}

#[test]
fn sequence_differences() {
    for (order, l) in [(0, 4), (1, 6), (2, 6), (3, 6), (4, 2), (1, 1)] {
        let x = noise(&[2, 2, l, 3], 1);
        let mut check = Check::new("difference", &x, 2);
        let dx = sequence_difference_backward(&check.dy, order);
        check.input("x", &x, &dx, |x| sequence_difference(x, order));
        check.done();
    }
}

#[test]
fn linear_maps() {
    let (x, weight, bias) = (noise(&[2, 3, 5], 1), noise(&[4, 5], 2), noise(&[4], 3));
    let mut check = Check::new("linear", &linear(&x, &weight, Some(&bias)), 4);
    let d = linear_backward(&x, &weight, &check.dy);
    check.input("x", &x, &d.dx, |x| linear(x, &weight, Some(&bias)));
    check.input("weight", &weight, &d.dweight, |w| {
        linear(&x, w, Some(&bias))
    });
    check.input("bias", &bias, &d.dbias, |b| linear(&x, &weight, Some(b)));
    check.done();
}

#[test]
fn activations() {
    let times_three = |seed| {
        let mut x = noise(&[4, 6], seed);
        x.data.iter_mut().for_each(|x| *x *= 3.0);
        x
    };
    let (gate, up) = (times_three(1), times_three(2));
    let mut check = Check::new("swiglu", &gate, 3);
    let d = swiglu_backward(&gate, &up, &check.dy);
    check.input("gate", &gate, &d.dgate, |gate| swiglu(gate, &up));
    check.input("up", &up, &d.dup, |up| swiglu(&gate, up));
    check.done();
    let mut check = Check::new("gelu", &gate, 4);
    let dx = gelu_backward(&gate, &check.dy);
    check.input("x", &gate, &dx, gelu);
    check.done();
}

#[test]
fn embeddings() {
    let (weight, ids) = (
        noise(&[5, 3], 1),
        Tensor::new(&[2, 3], vec![4, 0, 4, 1, 4, 0]),
    );
    let mut check = Check::new("embedding", &embedding(&weight, &ids), 2);
    let d = embedding_backward(5, &ids, &check.dy);
    check.input("weight", &weight, &d, |w| embedding(w, &ids));
    check.done();
}
