//! The five-way layer against the module that Stable Audio 3 has, on every instruction set.

use crate::common::{assert_near, bits, ok, refusal, values};
use diffattn::{Error, Isa, Mask, RopeFrequencies, Run, Tensor};
use diffattn_nn::{FiveWayDiffAttn, FiveWayDiffAttnOptions, ForwardOptions, RopeConfig, Weights};
use diffattn_reference as reference;
use diffattn_reference::fixture::{Fixture, folder};

type Narrow = Vec<(String, reference::Tensor<f32>)>;

fn case(name: &str) -> (Fixture, Narrow) {
    let path = folder().join(format!("five_way/{name}.safetensors"));
    let fixture = Fixture::read(&path);
    let names = fixture.tensors.keys();
    let names = names.filter_map(|name| name.strip_prefix("weights."));
    let weight = |name: &str| (name.to_owned(), fixture.f32(&format!("weights.{name}")));
    let weights = names.map(weight).collect();
    (fixture, weights)
}

fn borrowed(weights: &Narrow) -> Weights<'_> {
    let pairs = weights.iter();
    pairs
        .map(|(name, tensor)| (name.clone(), Tensor::f32(&tensor.data, &tensor.shape)))
        .collect()
}

fn options(fixture: &Fixture) -> FiveWayDiffAttnOptions {
    let size = |name: &str| fixture.count(name).unwrap_or_else(|| panic!("no {name}"));
    let rope = &fixture.case["rope"];
    let rotary_dim = rope["rotary_dim"].as_u64().map(|dim| dim as usize);
    FiveWayDiffAttnOptions {
        rope: Some(RopeConfig {
            interleaved: rope["interleaved"] == true,
            frequencies: RopeFrequencies {
                theta: rope["theta"].as_f64(),
                ..RopeFrequencies::default()
            },
        }),
        rotary_dim,
        ..FiveWayDiffAttnOptions::new(size("dim"), size("dim_heads"))
    }
}

/// A window of so many tokens to either side, as a mask.
fn band(length: usize, window: usize) -> Vec<u8> {
    let place = |at: usize| (at / length).abs_diff(at % length) <= window;
    (0..length * length).map(|at| place(at).into()).collect()
}

fn check(name: &str) {
    let (fixture, weights) = case(name);
    let layer = ok(FiveWayDiffAttn::new(
        &options(&fixture),
        &borrowed(&weights),
    ));
    let x = fixture.f32("x");
    let expected = fixture.expected("y").unwrap_or_else(|| panic!("no y")).data;
    let magnitude = expected.iter().fold(0.0, |max: f64, y| max.max(y.abs()));
    let length = x.shape[1];
    let mask = fixture.count("window").map(|window| band(length, window));
    let run = |x: &[f32], batch: usize, run: Run| {
        let attn_mask = mask.as_ref().map(|data| Mask {
            data,
            shape: vec![1, 1, length, length],
        });
        let options = ForwardOptions { attn_mask, run };
        ok(layer.forward(
            Tensor::f32(x, &[batch, length, x.len() / batch / length]),
            None,
            &options,
        ))
    };
    for isa in Isa::available() {
        for deterministic in [false, true] {
            let on = |threads| ok(Run::new(Some(isa), Some(threads), deterministic));
            let y = run(&x.data, 2, on(1));
            let what = format!("{name} on {}", isa.name());
            assert_near(&what, &expected, &y, 2e-6 * magnitude);
            assert_eq!(bits(&run(&x.data, 2, on(3))), bits(&y), "{what}: threads");
            let second = run(&x.data[x.data.len() / 2..], 1, on(1));
            assert_eq!(bits(&second), bits(&y[y.len() / 2..]), "{what}: batch");
        }
    }
}

#[test]
fn dynamic_tanh_of_q_and_k() {
    check("five_way_self");
}

#[test]
fn rms_norm_of_q_and_k_and_a_window() {
    check("five_way_self_window");
}

#[test]
fn without_norms_and_rope_it_is_one_attention_minus_another() {
    let (width, length) = (6, 5);
    let (qkv, x) = (
        values(1, 5 * width * width, 1.0),
        values(2, length * width, 1.0),
    );
    let mut identity = vec![0.0; width * width];
    identity
        .iter_mut()
        .step_by(width + 1)
        .for_each(|x| *x = 1.0);
    let weights = Weights::from([
        (
            "to_qkv.weight".to_owned(),
            Tensor::f32(&qkv, &[5 * width, width]),
        ),
        (
            "to_out.weight".to_owned(),
            Tensor::f32(&identity, &[width, width]),
        ),
    ]);
    let options = FiveWayDiffAttnOptions::new(width, width);
    let layer = ok(FiveWayDiffAttn::new(&options, &weights));
    let y = ok(layer.forward(
        Tensor::f32(&x, &[1, length, width]),
        None,
        &ForwardOptions::default(),
    ));
    // Rows of [q1 | k1 | v | q2 | k2] of each token, in float64.
    let project = |token: usize, row: usize| -> f64 {
        let terms =
            (0..width).map(|i| f64::from(qkv[row * width + i]) * f64::from(x[token * width + i]));
        terms.sum()
    };
    let softmax = |token: usize, q: usize, k: usize| -> Vec<f64> {
        let score = |key: usize| -> f64 {
            let terms =
                (0..width).map(|i| project(token, q * width + i) * project(key, k * width + i));
            (terms.sum::<f64>() / (width as f64).sqrt()).exp()
        };
        let all: Vec<f64> = (0..length).map(score).collect();
        let sum: f64 = all.iter().sum();
        all.into_iter().map(|share| share / sum).collect()
    };
    let mut expected = Vec::new();
    for token in 0..length {
        let (first, second) = (softmax(token, 0, 1), softmax(token, 3, 4));
        for channel in 0..width {
            let terms = (0..length)
                .map(|key| (first[key] - second[key]) * project(key, 2 * width + channel));
            expected.push(terms.sum::<f64>());
        }
    }
    assert_near("one head", &expected, &y, 1e-5);
}

#[test]
fn refusals_name_the_option_or_the_weight() {
    let (fixture, weights) = case("five_way_self");
    let options = options(&fixture);
    let made = |options: &FiveWayDiffAttnOptions, change: &dyn Fn(&mut Weights<'_>)| {
        let mut weights = borrowed(&weights);
        change(&mut weights);
        let layer: Result<FiveWayDiffAttn, Error> = FiveWayDiffAttn::new(options, &weights);
        let (code, sentence) = refusal(layer);
        format!("{code} {sentence}")
    };
    let none = |_: &mut Weights<'_>| {};
    let with = |head_dim, rotary_dim| FiveWayDiffAttnOptions {
        head_dim,
        rotary_dim: Some(rotary_dim),
        ..options
    };
    assert_eq!(
        made(&with(16, 18), &none),
        "SHAPE rotary_dim: expected an even number of at most 16 channels, got 18"
    );
    assert_eq!(
        made(&with(16, 7), &none),
        "SHAPE rotary_dim: expected an even number of at most 16 channels, got 7"
    );
    assert_eq!(
        made(&options, &|weights| drop(weights.remove("k_norm.beta"))),
        "OPTION weights.k_norm.beta: expected a tensor of shape [16], got none"
    );
    assert_eq!(
        made(&options, &|weights| drop(weights.remove("to_qkv.weight"))),
        "OPTION weights.to_qkv.weight: expected a tensor of shape [240, 48], got none"
    );
    let bias = made(&options, &|weights| {
        weights.insert("to_out.bias".to_owned(), Tensor::f32(&[], &[0]));
    });
    assert_eq!(
        bias,
        "OPTION weights.to_out.bias: expected none: its projections have no bias, got one"
    );
    let other = made(&options, &|weights| {
        weights.insert("to_q.weight".to_owned(), Tensor::f32(&[], &[0]));
    });
    assert!(
        other.starts_with("OPTION weights: expected names among to_qkv.weight|bias"),
        "{other}"
    );
    let plain = |weights: &mut Weights<'_>| {
        weights.retain(|name, _| name.starts_with("to_"));
    };
    assert_eq!(
        made(&with(20, 4), &plain),
        "SHAPE head_dim: expected a number that divides embed_dim 48, got 20"
    );
    let names = FiveWayDiffAttn::weight_names();
    assert!(names.contains(&"q_norm.alpha".to_owned()), "{names:?}");
}
