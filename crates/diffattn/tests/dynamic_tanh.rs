//! Dynamic tanh: accuracy against float64 by the rule of the contract for norms, bits, refusals.

#![expect(clippy::unwrap_used, reason = "tests")]

use diffattn::{Data, DynamicTanhOptions, Error, Isa, Run, Tensor, dynamic_tanh};
use diffattn_reference as reference;
use diffattn_reference::testing::{bits, noise};

/// The bound of the contract, per |weight|·max(1, |x̂|) + |bias|.
const BOUND: f64 = 5e-7;

fn on(isa: Isa, threads: usize, deterministic: bool) -> Run {
    Run::new(Some(isa), Some(threads), deterministic).unwrap_or_else(|error| panic!("{error}"))
}

fn run(x: &[f32], width: usize, options: &DynamicTanhOptions<'_>) -> Vec<f32> {
    let mut y = vec![f32::NAN; x.len()];
    dynamic_tanh(Tensor::f32(x, &[x.len() / width, width]), &mut y, options).unwrap();
    y
}

/// The same in float64.
fn expected(x: &[f32], options: &DynamicTanhOptions<'_>) -> Vec<f64> {
    let wide = |values: Option<&[f32]>| -> Option<Vec<f64>> {
        Some(values?.iter().map(|&value| f64::from(value)).collect())
    };
    let x: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
    let (weight, bias) = (wide(options.weight), wide(options.bias));
    reference::dynamic_tanh(
        &x,
        f64::from(options.alpha),
        weight.as_deref(),
        bias.as_deref(),
    )
}

#[test]
fn as_accurate_as_the_contract_says_and_one_set_of_bits() {
    for (seed, width) in [1, 3, 8, 16, 31, 64, 257, 768].into_iter().enumerate() {
        for (scale, alpha) in [
            (1.0, 0.8),
            (5.0, 1.3),
            (1e-20, 3.0),
            (1e30, -2.0),
            (8.0, 0.0),
        ] {
            let x: Vec<f32> = noise(5 * width, seed as u64)
                .iter()
                .map(|x| x * scale)
                .collect();
            let (weight, bias) = (noise(width, 77), noise(width, 78));
            let base = DynamicTanhOptions {
                alpha,
                weight: Some(&weight),
                bias: Some(&bias),
                ..DynamicTanhOptions::default()
            };
            let y = run(&x, width, &base);
            for (at, (expected, &y)) in expected(&x, &base).into_iter().zip(&y).enumerate() {
                let (weight, bias) = (weight[at % width], bias[at % width]);
                let bound = BOUND * f64::from(weight.abs() + bias.abs());
                assert!(
                    (f64::from(y) - expected).abs() <= bound,
                    "width {width}, scale {scale}, alpha {alpha}, {at}: {y} instead of {expected}"
                );
            }
            for isa in Isa::available() {
                for (threads, deterministic) in [(1, false), (2, true)] {
                    let options = DynamicTanhOptions {
                        run: on(isa, threads, deterministic),
                        ..base.clone()
                    };
                    assert_eq!(bits(&run(&x, width, &options)), bits(&y), "{}", isa.name());
                }
            }
            let alone = run(&x[3 * width..4 * width], width, &base);
            assert_eq!(bits(&alone), bits(&y[3 * width..4 * width]));
        }
    }
}

#[test]
fn without_weights_it_is_tanh() {
    let x = noise(1000, 3);
    let options = DynamicTanhOptions::default();
    for (expected, y) in expected(&x, &options)
        .into_iter()
        .zip(run(&x, 20, &options))
    {
        assert!(
            (f64::from(y) - expected).abs() <= BOUND,
            "{y} instead of {expected}"
        );
    }
}

#[test]
fn threads_change_no_bit() {
    let x = noise(3000 * 256, 5);
    let on = |threads| DynamicTanhOptions {
        run: on(Isa::detect(), threads, false),
        ..DynamicTanhOptions::default()
    };
    assert_eq!(bits(&run(&x, 256, &on(2))), bits(&run(&x, 256, &on(1))));
}

#[test]
fn values_that_are_not_numbers_stay_where_they_are() {
    let options = DynamicTanhOptions {
        alpha: 0.5,
        bias: Some(&[1.0, 2.0, 3.0]),
        ..DynamicTanhOptions::default()
    };
    let x = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, 0.0];
    let y = run(&x, 3, &options);
    assert!(y[0].is_nan());
    assert_eq!(y[1..], [3.0, 2.0, 1.0, 2.0, 3.0]);
    assert!(run(&[], 3, &options).is_empty());
}

#[test]
fn refusals_name_the_argument() {
    let refusal = |shape: &[usize], len: usize, options: &DynamicTanhOptions<'_>| -> Error {
        let x = vec![0.0; 6];
        dynamic_tanh(Tensor::f32(&x, shape), &mut vec![0.0; len], options).unwrap_err()
    };
    let plain = DynamicTanhOptions::default();
    let weight = DynamicTanhOptions {
        weight: Some(&[1.0]),
        ..plain.clone()
    };
    let bias = DynamicTanhOptions {
        bias: Some(&[1.0]),
        ..plain.clone()
    };
    let sentences = [
        (
            refusal(&[2, 4], 8, &plain),
            "x: expected 8 elements for shape [2, 4], got 6",
        ),
        (
            refusal(&[2, 3], 5, &plain),
            "out: expected 6 elements for shape [2, 3], got 5",
        ),
        (
            refusal(&[2, 3], 6, &weight),
            "weight: expected 3 elements for shape [3], got 1",
        ),
        (
            refusal(&[2, 3], 6, &bias),
            "bias: expected 3 elements for shape [3], got 1",
        ),
    ];
    for (error, sentence) in sentences {
        assert_eq!(
            (error.code(), error.to_string().as_str()),
            ("SHAPE", sentence)
        );
    }
    let error = dynamic_tanh(Tensor::f32(&[0.0], &[]), &mut [0.0], &plain).unwrap_err();
    assert_eq!(error.to_string(), "x: expected 1 axis or more, got []");
    let half = Tensor {
        data: Data::F16(&[0]),
        shape: vec![1],
    };
    let error = dynamic_tanh(half, &mut [0.0], &plain).unwrap_err();
    assert_eq!(error.to_string(), "x: expected float32, got float16");
}
