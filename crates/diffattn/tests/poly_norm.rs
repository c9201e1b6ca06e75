//! PolyNorm: the reference cases, accuracy against float64 by the rule of the contract, bits,
//! refusals.

#![expect(clippy::unwrap_used, reason = "tests")]

use diffattn::{Error, Isa, PolyNormOptions, Run, poly_norm};
use diffattn_reference as reference;
use reference::Tensor;
use reference::fixture::read_all;
use reference::testing::{bits, noise};

/// The bound of the contract, per magnitude of the terms of a result and their factor.
const BOUND: f64 = 5e-7;

fn on(isa: Isa, threads: usize, deterministic: bool) -> Run {
    Run::new(Some(isa), Some(threads), deterministic).unwrap()
}

fn run(x: &[f32], width: usize, options: &PolyNormOptions<'_>) -> Vec<f32> {
    let mut y = x.to_vec();
    poly_norm(&mut y, width, options).unwrap();
    y
}

/// Panics unless every instruction set gives `y`, on any number of threads, fused or not.
fn same_everywhere(x: &[f32], width: usize, options: &PolyNormOptions<'_>, y: &[f32]) {
    for isa in Isa::available() {
        for (threads, deterministic) in [(1, false), (2, true)] {
            let options = PolyNormOptions {
                run: on(isa, threads, deterministic),
                ..options.clone()
            };
            assert_eq!(bits(&run(x, width, &options)), bits(y), "{}", isa.name());
        }
    }
}

#[test]
fn reference_cases() {
    let fixtures = read_all("polynorm");
    assert_eq!(fixtures.len(), 7);
    for fixture in fixtures {
        let (x, oracle) = (fixture.f32("x"), fixture.poly_norm());
        let options = PolyNormOptions {
            weight: oracle.weight.map(|weight| weight as f32),
            bias: oracle.bias as f32,
            eps: oracle.eps as f32,
            ..PolyNormOptions::default()
        };
        let width = x.shape[x.shape.len() - 1];
        let y = run(&x.data, width, &options);
        let expected = fixture.expected("y").unwrap().data;
        let largest = expected.iter().fold(0.0f64, |max, y| max.max(y.abs()));
        let near = 1e-6 * largest;
        reference::testing::assert_near(&fixture.name, &expected, &y, near);
        same_everywhere(&x.data, width, &options, &y);
    }
}

#[test]
fn as_accurate_as_the_contract_says() {
    for (seed, width) in [1, 3, 16, 31, 88, 257, 1025, 8192].into_iter().enumerate() {
        for scale in [1.0, 30.0, 1e-3, 1e-20, 1e-38, 1e13, 1e38] {
            let noise = |len, seed| noise(len, seed as u64);
            let x: Vec<f32> = noise(5 * width, seed).iter().map(|x| x * scale).collect();
            let factors = noise(5 * width, seed + 50);
            let options = PolyNormOptions {
                weight: [0.4, -0.7, 1.3],
                bias: 0.1,
                eps: 1e-6,
                factors: Some(&factors),
                ..PolyNormOptions::default()
            };
            let y = run(&x, width, &options);
            same_everywhere(&x, width, &options, &y);
            let wide = Tensor::new(&[5, width], x.iter().map(|&x| f64::from(x)).collect());
            let term = |at: usize| {
                let mut weight = [0.0; 3];
                weight[at] = f64::from(options.weight[at]);
                let norm = reference::PolyNorm {
                    weight,
                    bias: 0.0,
                    eps: f64::from(options.eps),
                };
                reference::poly_norm(&wide, &norm).data
            };
            let terms = [term(0), term(1), term(2)];
            for (at, (&y, &factor)) in y.iter().zip(&factors).enumerate() {
                let (bias, factor) = (f64::from(options.bias), f64::from(factor));
                let parts = [terms[0][at], terms[1][at], terms[2][at], bias];
                let expected = parts.iter().sum::<f64>() * factor;
                let magnitude = parts.iter().map(|part| part.abs()).sum::<f64>();
                // (The least float32 is as near as it comes.)
                let bound = BOUND * magnitude * factor.abs() + f64::from(f32::MIN_POSITIVE);
                assert!(
                    (f64::from(y) - expected).abs() <= bound,
                    "width {width}, scale {scale:e}, {at}: {y:e} instead of {expected:e}"
                );
            }
            let alone = PolyNormOptions {
                factors: Some(&factors[3 * width..4 * width]),
                ..options
            };
            let alone = run(&x[3 * width..4 * width], width, &alone);
            assert_eq!(bits(&alone), bits(&y[3 * width..4 * width]));
        }
    }
}

#[test]
fn threads_change_no_bit() {
    let x = noise(3000 * 256, 5);
    let on = |threads| PolyNormOptions {
        run: on(Isa::detect(), threads, false),
        ..PolyNormOptions::default()
    };
    assert_eq!(bits(&run(&x, 256, &on(2))), bits(&run(&x, 256, &on(1))));
}

#[test]
fn rows_of_zeros_and_rows_that_are_not_numbers() {
    let options = PolyNormOptions {
        bias: 0.25,
        eps: 0.0,
        ..PolyNormOptions::default()
    };
    let (nan, infinite) = (f32::NAN, f32::INFINITY);
    let x = [
        0.0, -0.0, 0.0, nan, 1.0, 2.0, infinite, 1.0, 2.0, 1e-45, 1e-45, 0.0, 1.0, 2.0, 3.0,
    ];
    let y = run(&x, 3, &options);
    assert_eq!(y[..3], [0.25; 3]);
    assert!(y[3..9].iter().all(|y| y.is_nan()));
    // (√1.5 of each power, a third of it each.)
    assert!((y[9] - (0.25 + 1.5f32.sqrt())).abs() < 1e-6);
    assert_eq!(y[11], 0.25);
    assert!(y[12..].iter().all(|y| y.is_finite()));
    assert!(run(&[], 3, &options).is_empty());
}

#[test]
fn refusals_name_the_argument() {
    let refusal = |width: usize, options: &PolyNormOptions<'_>| -> Error {
        let mut x = [1.0; 6];
        let error = poly_norm(&mut x, width, options).unwrap_err();
        assert_eq!(x, [1.0; 6]);
        error
    };
    let plain = PolyNormOptions::default();
    let short = PolyNormOptions {
        factors: Some(&[1.0; 4]),
        ..plain.clone()
    };
    let negative = PolyNormOptions {
        eps: -1.0,
        ..plain.clone()
    };
    for (error, code, sentence) in [
        (
            refusal(4, &plain),
            "SHAPE",
            "values: expected rows of 4 elements, got 6 elements",
        ),
        (
            refusal(0, &plain),
            "SHAPE",
            "values: expected rows of 0 elements, got 6 elements",
        ),
        (
            refusal(3, &short),
            "SHAPE",
            "factors: expected 6 elements for shape [6], got 4",
        ),
        (
            refusal(3, &negative),
            "OPTION",
            "eps: expected a number of at least 0, got -1",
        ),
    ] {
        assert_eq!((error.code(), error.to_string().as_str()), (code, sentence));
    }
}
