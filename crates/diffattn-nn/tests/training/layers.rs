//! Whole layers: y, the gradient of x and of every weight, against the reference cases; the same
//! bits whatever the threads; what is refused.

use crate::common::{distance, folder};
use diffattn::{KvRepeat, Pairing, RopeFrequencies, Run, Tensor};
use diffattn_nn::{
    DiffAttnLayer, ForwardOptions, LambdaForm, MultiheadDiffAttn, MultiheadDiffAttnOptions,
    MultiheadDiffAttnV2, MultiheadDiffAttnV2Options, NormConfig, RopeConfig, Weights,
};
use diffattn_reference::fixture::{Fixture, read_all};
use diffattn_reference::testing::bits;

/// The layer of a case.
fn layer(case: &Fixture) -> DiffAttnLayer {
    let tensors: Vec<_> = case
        .tensors
        .keys()
        .filter_map(|name| Some((name.strip_prefix("weights.")?.to_owned(), case.f32(name))))
        .collect();
    let weights: Weights<'_> = tensors
        .iter()
        .map(|(name, tensor)| (name.clone(), Tensor::f32(&tensor.data, &tensor.shape)))
        .collect();
    let count = |name: &str| case.count(name).unwrap();
    let rope = RopeConfig {
        interleaved: case.case["rope"]["interleaved"].as_bool().unwrap(),
        frequencies: RopeFrequencies {
            theta: case.case["rope"]["theta"].as_f64(),
            ..RopeFrequencies::default()
        },
    };
    if case.text("op") == Some("MultiheadDiffAttnV2") {
        let options = MultiheadDiffAttnV2Options {
            num_kv_heads: case.count("num_kv_heads"),
            ratio: case.count("ratio"),
            rope: Some(rope),
            ..MultiheadDiffAttnV2Options::new(
                count("embed_dim"),
                count("num_heads"),
                count("head_dim"),
            )
        };
        return MultiheadDiffAttnV2::new(&options, &weights).unwrap().into();
    }
    let mut options = MultiheadDiffAttnOptions {
        num_kv_heads: case.count("num_kv_heads"),
        head_dim: case.count("head_dim"),
        rope: Some(rope),
        is_causal: case.flag("causal"),
        norm: NormConfig {
            eps: case.case["norm"]["eps"].as_f64().unwrap() as f32,
            affine: case.case["norm"]["affine"].as_bool(),
        },
        ..MultiheadDiffAttnOptions::new(count("embed_dim"), count("depth"), count("num_heads"))
    };
    if case.text("pairing") == Some("halves") {
        options.pairing = Pairing::Halves;
    } else if case.text("kv_repeat") == Some("flat") {
        options.kv_repeat = Some(KvRepeat::Flat);
    }
    if case.text("lambda_form") == Some("scalars") {
        options.lambda_form = LambdaForm::Scalars;
    }
    MultiheadDiffAttn::new(&options, &weights).unwrap().into()
}

/// Every case but the one whose layer has no norm, which no public layer is yet.
#[test]
fn reference_cases() {
    assert!(folder("layers").is_dir());
    let cases = read_all("training/layers");
    assert_eq!(cases.len(), 12);
    for case in cases
        .iter()
        .filter(|case| !case.case["norm"].is_null() || case.has("weights.lambda_proj.weight"))
    {
        let layer = layer(case);
        let (x, dy) = (case.f32("x"), case.f32("dy"));
        let of = |threads: usize| {
            let options = ForwardOptions {
                run: Run::default().with_threads(threads).unwrap(),
                ..ForwardOptions::default()
            };
            let (y, vjp) = layer.vjp(Tensor::f32(&x.data, &x.shape), &options).unwrap();
            (
                y,
                vjp.backward(&dy.data).unwrap(),
                vjp.backward(&dy.data).unwrap(),
            )
        };
        let (y, gradients, again) = of(1);
        assert!(bits(&gradients.dx) == bits(&again.dx), "{}", case.name);
        let compare = |name: &str, got: &[f32]| {
            let exact = case
                .expected(name)
                .unwrap_or_else(|| panic!("{}: {name}", case.name));
            let worst = distance(&exact.data, got);
            assert!(worst <= 2e-5, "{} {name}: {worst:e}", case.name);
        };
        compare("y", &y);
        compare("dx", &gradients.dx);
        let weights = case
            .tensors
            .keys()
            .filter_map(|name| name.strip_prefix("expected.dweights."));
        let mut seen = 0;
        for name in weights {
            let own = name.replace("o_proj", "out_proj");
            let got = gradients.weights.gradients(&own);
            compare(
                &format!("dweights.{name}"),
                got.unwrap_or_else(|| panic!("no {own}")),
            );
            seen += 1;
        }
        assert_eq!(seen, gradients.weights.parameters().len(), "{}", case.name);
        let (other, on_threads, _) = of(3);
        assert!(bits(&y) == bits(&other), "{}", case.name);
        assert!(bits(&gradients.dx) == bits(&on_threads.dx), "{}", case.name);
        // The public forward pass gives the same y.
        let plain = layer
            .forward(
                Tensor::f32(&x.data, &x.shape),
                None,
                &ForwardOptions::default(),
            )
            .unwrap();
        assert!(bits(&y) == bits(&plain), "{}: y", case.name);
    }
}

/// Wrong shapes are refused by name, and nothing comes of nothing.
#[test]
fn refusals_and_nothing() {
    let case = read_all("training/layers")
        .into_iter()
        .find(|case| case.name.ends_with("v2_mha"));
    let layer = layer(&case.unwrap());
    let options = ForwardOptions::default();
    let data = vec![0.5; 3 * 32];
    let error = layer
        .vjp(Tensor::f32(&data, &[3, 32]), &options)
        .unwrap_err();
    assert!(error.to_string().contains('x'), "{error}");
    let error = layer
        .vjp(Tensor::f32(&data, &[1, 6, 16]), &options)
        .unwrap_err();
    assert!(error.to_string().contains("32 channels"), "{error}");
    let (_, vjp) = layer
        .vjp(Tensor::f32(&data, &[1, 3, 32]), &options)
        .unwrap();
    let error = vjp.backward(&data[..32]).unwrap_err();
    assert!(error.to_string().contains("dy"), "{error}");
    let (y, vjp) = layer.vjp(Tensor::f32(&[], &[1, 0, 32]), &options).unwrap();
    let gradients = vjp.backward(&[]).unwrap();
    assert!(y.is_empty() && gradients.dx.is_empty());
    let weight = gradients.weights.gradients("q_proj.weight").unwrap();
    assert!(weight.iter().all(|&x| x == 0.0));
}
