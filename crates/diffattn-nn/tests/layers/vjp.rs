//! The backward pass of every kind of layer against slopes of the float64 oracle, differences along
//! the sequence and masks among them.

use crate::common::{Case, Oracle, bits, ok, values, zoo};
use diffattn::{Mask, Run, Tensor};
use diffattn_nn::ForwardOptions;
use diffattn_nn::training::LayerGradients;
use diffattn_reference as reference;

const BATCH: usize = 2;
const TOKENS: usize = 7;
/// What a value is moved by.
const STEP: f64 = 1e-5;

fn weights(case: &mut Case) -> &mut std::collections::BTreeMap<String, reference::Tensor<f64>> {
    match &mut case.oracle {
        Oracle::V1(oracle) => &mut oracle.weights,
        Oracle::V2(oracle) => &mut oracle.weights,
    }
}

/// Σ dy · y.
fn product(
    case: &Case,
    x: &reference::Tensor<f64>,
    mask: &reference::Tensor<bool>,
    dy: &[f32],
) -> f64 {
    let y = case.expected(x, Some(mask));
    y.iter().zip(dy).map(|(y, &dy)| y * f64::from(dy)).sum()
}

/// The gradients of a case.
fn gradients(
    case: &Case,
    x: &[f32],
    mask: &Mask<'_>,
    dy: &[f32],
    threads: usize,
) -> LayerGradients {
    let options = ForwardOptions {
        attn_mask: Some(mask.clone()),
        run: ok(Run::default().with_threads(threads)),
    };
    let x = Tensor::f32(x, &[BATCH, TOKENS, case.embed_dim]);
    let (_, vjp) = ok(case.layer.vjp(x, &options));
    ok(vjp.backward(dy))
}

/// Whether a gradient is the slope between two products.
fn check(name: &str, [more, less]: [f64; 2], got: f32, largest: f32) {
    let slope = (more - less) / (2.0 * STEP);
    let off = (slope - f64::from(got)).abs();
    let allowed = 2e-5 * f64::from(largest) + 1e-7;
    assert!(off <= allowed, "{name}: {slope} {got}");
}

fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |max: f32, x| max.max(x.abs()))
}

#[test]
fn gradients_are_slopes() {
    let mut with_differences = 0;
    for mut case in zoo() {
        let len = BATCH * TOKENS * case.embed_dim;
        let (x, dy) = (values(5, len, 1.0), values(6, len, 1.0));
        let heads = case.layer.num_heads();
        // Each token sees itself.
        let seen: Vec<bool> = (0..BATCH * heads * TOKENS * TOKENS)
            .map(|at| at % TOKENS == at / TOKENS % TOKENS || at * 5 % 7 != 3)
            .collect();
        let data: Vec<u8> = seen.iter().map(|&seen| u8::from(seen)).collect();
        let shape = vec![BATCH, heads, TOKENS, TOKENS];
        let exact_mask = reference::Tensor::new(&shape, seen);
        let mask = Mask { data: &data, shape };
        let got = gradients(&case, &x, &mask, &dy, 1);
        let on_threads = gradients(&case, &x, &mask, &dy, 3);
        assert!(bits(&got.dx) == bits(&on_threads.dx), "{}", case.name);
        let shape = [BATCH, TOKENS, case.embed_dim];
        let mut exact = reference::Tensor::from_f32(&shape, &x);
        for place in (3..len).step_by(29) {
            let at = exact.data[place];
            let both = [STEP, -STEP].map(|step| {
                exact.data[place] = at + step;
                product(&case, &exact, &exact_mask, &dy)
            });
            exact.data[place] = at;
            let name = format!("{} x[{place}]", case.name);
            check(&name, both, got.dx[place], largest(&got.dx));
        }
        let names: Vec<String> = weights(&mut case).keys().cloned().collect();
        assert_eq!(names.len(), got.weights.parameters().len(), "{}", case.name);
        for (index, name) in names.into_iter().enumerate() {
            let Some(of) = got.weights.gradients(&name.replace("o_proj", "out_proj")) else {
                panic!("{}: no {name}", case.name);
            };
            for draw in 0..3 {
                let place = (index * 31 + draw * 7919) % of.len();
                let mut at = |step: f64| {
                    if let Some(weight) = weights(&mut case).get_mut(&name) {
                        weight.data[place] += step;
                    }
                    let product = product(&case, &exact, &exact_mask, &dy);
                    if let Some(weight) = weights(&mut case).get_mut(&name) {
                        weight.data[place] -= step;
                    }
                    product
                };
                let both = [at(STEP), at(-STEP)];
                let name = format!("{} {name}[{place}]", case.name);
                check(&name, both, of[place], largest(of));
            }
        }
        if let Oracle::V1(oracle) = &case.oracle {
            with_differences += usize::from(oracle.sequence.is_some());
        }
    }
    assert!(with_differences >= 2, "{with_differences}");
}
