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

/// Values and shapes by names.
type Named = Vec<(String, Vec<f32>, Vec<usize>)>;

/// The weights of a case, times `factor`.
fn weights_of(case: &Fixture, factor: f32) -> Named {
    let names = case.tensors.keys();
    names
        .filter_map(|name| {
            let own = name.strip_prefix("weights.")?.to_owned();
            let tensor = case.f32(name);
            let values = tensor.data.iter().map(|x| x * factor).collect();
            Some((own, values, tensor.shape.clone()))
        })
        .collect()
}

fn tensors(named: &Named) -> Weights<'_> {
    let named = named.iter();
    named
        .map(|(name, values, shape)| (name.clone(), Tensor::f32(values, shape)))
        .collect()
}

/// The layer of a case.
fn layer(case: &Fixture) -> DiffAttnLayer {
    layer_with(case, &tensors(&weights_of(case, 1.0)))
}

/// The same with other weights.
fn layer_with(case: &Fixture, weights: &Weights<'_>) -> DiffAttnLayer {
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
        return MultiheadDiffAttnV2::new(&options, weights).unwrap().into();
    }
    let mut options = MultiheadDiffAttnOptions {
        num_kv_heads: case.count("num_kv_heads"),
        head_dim: case.count("head_dim"),
        rope: Some(rope),
        is_causal: case.flag("causal"),
        value_dim: case.count("value_dim"),
        norm: case.case["norm"].is_object().then(|| NormConfig {
            eps: case.case["norm"]["eps"].as_f64().unwrap() as f32,
            affine: case.case["norm"]["affine"].as_bool(),
        }),
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
    MultiheadDiffAttn::new(&options, weights).unwrap().into()
}

#[test]
fn reference_cases() {
    assert!(folder("layers").is_dir());
    let cases = read_all("training/layers");
    assert_eq!(cases.len(), 12);
    for case in &cases {
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

/// A layer with new weights has the bits of one that is made of them; what is refused changes none.
#[test]
fn new_weights() {
    for case in read_all("training/layers") {
        let x = case.f32("x");
        let y = |layer: &DiffAttnLayer| {
            let x = Tensor::f32(&x.data, &x.shape);
            bits(&layer.forward(x, None, &ForwardOptions::default()).unwrap())
        };
        let (old, new) = (weights_of(&case, 1.0), weights_of(&case, 0.5));
        let mut layer = layer(&case);
        let before = y(&layer);
        // One of another shape, behind those that fit.
        let mut wrong = new.clone();
        let (name, values, shape) = wrong.last_mut().unwrap();
        values.push(1.0);
        *shape = vec![values.len()];
        let name = name.clone();
        let error = layer.set_weights(&tensors(&wrong)).unwrap_err().to_string();
        assert!(error.contains(&format!("weights.{name}")), "{error}");
        assert_eq!(y(&layer), before, "{}", case.name);
        layer.set_weights(&tensors(&new)).unwrap();
        let expected = layer_with(&case, &tensors(&new));
        assert_eq!(y(&layer), y(&expected), "{}", case.name);
        assert_ne!(y(&layer), before, "{}", case.name);
        // Some of them, in halves.
        let is_map = |name: &str| name.starts_with("k_proj");
        let some: Named = old.iter().filter(|of| is_map(&of.0)).cloned().collect();
        let halves: Vec<Vec<u16>> = some
            .iter()
            .map(|(_, values, _)| {
                let halves = values.iter().map(|&x| half::f16::from_f32(x).to_bits());
                halves.collect()
            })
            .collect();
        let given = some.iter().zip(&halves).map(|((name, _, shape), halves)| {
            let data = diffattn::Data::F16(halves);
            let shape = shape.clone();
            (name.clone(), Tensor { data, shape })
        });
        layer.set_weights(&given.collect()).unwrap();
        let mixed: Named = new
            .iter()
            .zip(&old)
            .map(|(new, old)| {
                let mut of = if is_map(&new.0) { old } else { new }.clone();
                if is_map(&of.0) {
                    for x in &mut of.1 {
                        *x = half::f16::from_f32(*x).to_f32();
                    }
                }
                of
            })
            .collect();
        assert_eq!(
            y(&layer),
            y(&layer_with(&case, &tensors(&mixed))),
            "{}",
            case.name
        );
        let none = layer.set_weights(&Weights::new());
        assert!(none.is_ok());
        let other = vec![("w".to_owned(), vec![1.0], vec![1])];
        let error = layer.set_weights(&tensors(&other)).unwrap_err().to_string();
        assert!(
            error.starts_with("OPTION: weights: ") || error.contains("names among"),
            "{error}"
        );
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
