//! Layer norm: accuracy against float64 by the rule of the contract, bits, refusals.

#![expect(clippy::unwrap_used, reason = "tests")]

use diffattn::{Error, Isa, LayerNormOptions, Run, Tensor, layer_norm};
use diffattn_reference::testing::{bits, noise};

/// The bound of the contract, per |weight|·max(1, |x̂|) + |bias|.
const BOUND: f64 = 5e-7;

fn run(x: &[f32], width: usize, options: &LayerNormOptions<'_>) -> Vec<f32> {
    let mut y = vec![f32::NAN; x.len()];
    layer_norm(Tensor::f32(x, &[x.len() / width, width]), &mut y, options).unwrap();
    y
}

#[test]
fn as_accurate_as_the_contract_says() {
    for (seed, width) in [1, 3, 16, 31, 256, 320, 1025, 9000].into_iter().enumerate() {
        for (scale, offset) in [
            (1.0, 0.0),
            (1.0, 1e4),
            (1e-20, 0.0),
            (1e29, 1e30),
            (3.0, -7.0),
        ] {
            let x: Vec<f32> = noise(5 * width, seed as u64)
                .iter()
                .map(|x| x * scale + offset)
                .collect();
            let (weight, bias) = (noise(width, 77), noise(width, 78));
            let eps = 1e-6f32;
            let base = LayerNormOptions {
                weight: Some(&weight),
                bias: Some(&bias),
                eps,
                ..LayerNormOptions::default()
            };
            let y = run(&x, width, &base);
            for (row, (x, y)) in x.chunks(width).zip(y.chunks(width)).enumerate() {
                let n = width as f64;
                let mean = x.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
                let variance = x
                    .iter()
                    .map(|&x| (f64::from(x) - mean).powi(2))
                    .sum::<f64>()
                    / n;
                for (c, (&x, &y)) in x.iter().zip(y).enumerate() {
                    let normed = (f64::from(x) - mean) / (variance + f64::from(eps)).sqrt();
                    let (weight, bias) = (f64::from(weight[c]), f64::from(bias[c]));
                    let expected = normed * weight + bias;
                    let bound = BOUND * (weight.abs() * normed.abs().max(1.0) + bias.abs());
                    assert!(
                        (f64::from(y) - expected).abs() <= bound,
                        "width {width}, scale {scale}, offset {offset}, row {row}, {c}: {y} instead of {expected}"
                    );
                }
            }
            for isa in Isa::available() {
                for threads in [1, 2] {
                    let options = LayerNormOptions {
                        run: on(isa, threads),
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
fn threads_change_no_bit() {
    let x = noise(3000 * 256, 5);
    let on = |threads| LayerNormOptions {
        run: on(Isa::detect(), threads),
        ..LayerNormOptions::default()
    };
    assert_eq!(bits(&run(&x, 256, &on(2))), bits(&run(&x, 256, &on(1))));
}

#[test]
fn rows_without_spread_and_rows_that_are_not_numbers() {
    let options = LayerNormOptions {
        eps: 0.0,
        bias: Some(&[1.0, 2.0, 3.0]),
        ..LayerNormOptions::default()
    };
    let x = [
        7.0,
        7.0,
        7.0,
        f32::NAN,
        1.0,
        2.0,
        f32::INFINITY,
        1.0,
        2.0,
        1.0,
        2.0,
        3.0,
    ];
    let y = run(&x, 3, &options);
    assert_eq!(y[..3], [1.0, 2.0, 3.0]);
    assert!(y[3..9].iter().all(|y| y.is_nan()));
    assert!(y[9..].iter().all(|y| y.is_finite()));
    assert!(run(&[], 3, &options).is_empty());
}

#[test]
fn refusals_name_the_argument() {
    let refusal = |shape: &[usize], len: usize, options: &LayerNormOptions<'_>| -> Error {
        let x = vec![0.0; 6];
        layer_norm(Tensor::f32(&x, shape), &mut vec![0.0; len], options).unwrap_err()
    };
    let plain = LayerNormOptions::default();
    let sentences = [
        (
            refusal(&[2, 4], 8, &plain),
            "SHAPE",
            "x: expected 8 elements for shape [2, 4], got 6",
        ),
        (
            refusal(&[2, 3], 5, &plain),
            "SHAPE",
            "out: expected 6 elements for shape [2, 3], got 5",
        ),
        (
            refusal(
                &[2, 3],
                6,
                &LayerNormOptions {
                    weight: Some(&[1.0]),
                    ..plain.clone()
                },
            ),
            "SHAPE",
            "weight: expected 3 elements for shape [3], got 1",
        ),
        (
            refusal(
                &[2, 3],
                6,
                &LayerNormOptions {
                    bias: Some(&[1.0]),
                    ..plain.clone()
                },
            ),
            "SHAPE",
            "bias: expected 3 elements for shape [3], got 1",
        ),
        (
            refusal(
                &[2, 3],
                6,
                &LayerNormOptions {
                    eps: -1.0,
                    ..plain.clone()
                },
            ),
            "OPTION",
            "eps: expected a number of at least 0, got -1",
        ),
    ];
    for (error, code, sentence) in sentences {
        assert_eq!((error.code(), error.to_string().as_str()), (code, sentence));
    }
    let one = [0.0; 1];
    let error = layer_norm(Tensor::f32(&one, &[]), &mut [0.0], &plain).unwrap_err();
    assert_eq!(error.to_string(), "x: expected 1 axis or more, got []");
}

fn on(isa: Isa, threads: usize) -> Run {
    Run::new(Some(isa), Some(threads), false).unwrap_or_else(|error| panic!("{error}"))
}
