//! λ's gradients: against differences of the forward functions, refusals.

use diffattn::{lambda_full, lambda_full_backward, lambda_scalars, lambda_scalars_backward};
use diffattn_reference::testing::noise;

use crate::support::{refusal, said};

#[test]
fn they_are_the_slopes_of_the_forward_functions() {
    let vectors = [1, 2, 3, 4].map(|seed| noise(16, seed));
    let [q1, k1, q2, k2] = vectors.each_ref().map(Vec::as_slice);
    let got = lambda_full_backward(0.7, q1, k1, q2, k2).unwrap();
    for (which, gradient) in [&got.dq1, &got.dk1, &got.dq2, &got.dk2]
        .into_iter()
        .enumerate()
    {
        assert_eq!(gradient.len(), 16);
        for i in 0..16 {
            let at = |step: f32| {
                let mut moved = vectors.clone();
                moved[which][i] += step;
                lambda_full(&moved[0], &moved[1], &moved[2], &moved[3], 0.8).unwrap()
            };
            // (A step that float32 holds at these values but for rounding.)
            let slope = 0.7 * (at(1e-3) - at(-1e-3)) / 2e-3;
            assert!(
                (f64::from(gradient[i]) - slope).abs() < 1e-3,
                "{which} {i}: {slope}"
            );
        }
    }
    let [da, db] = lambda_scalars_backward(0.7, 0.3, -0.4);
    let slope = |a: f64, b: f64| {
        let at = |step: f64| lambda_scalars(0.3 + a * step, -0.4 + b * step, 0.2);
        0.7 * (at(1e-6) - at(-1e-6)) / 2e-6
    };
    assert!((da - slope(1.0, 0.0)).abs() < 1e-9 && (db - slope(0.0, 1.0)).abs() < 1e-9);
}

/// λ is exp(q1·k1) − …, so that each gradient is exact up to one rounding.
#[test]
fn they_are_rounded_once() {
    let [q1, k1, q2, k2] = [5, 6, 7, 8].map(|seed| noise(33, seed));
    let got = lambda_full_backward(-1.3, &q1, &k1, &q2, &k2).unwrap();
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter()
            .zip(b)
            .map(|(&a, &b)| f64::from(a) * f64::from(b))
            .sum()
    };
    for (got, values, factor) in [
        (&got.dq1, &k1, -1.3 * dot(&q1, &k1).exp()),
        (&got.dk1, &q1, -1.3 * dot(&q1, &k1).exp()),
        (&got.dq2, &k2, 1.3 * dot(&q2, &k2).exp()),
        (&got.dk2, &q2, 1.3 * dot(&q2, &k2).exp()),
    ] {
        for (&got, &value) in got.iter().zip(values) {
            let expected = factor * f64::from(value);
            assert!(
                (f64::from(got) - expected).abs() <= 6e-8 * expected.abs(),
                "{got} {expected}"
            );
        }
    }
    let empty = lambda_full_backward(1.0, &[], &[], &[], &[]).unwrap();
    assert!(empty.dq1.is_empty());
}

#[test]
fn refusals_name_the_argument() {
    let [a, b] = [[0.0; 4], [0.0; 4]];
    let call = |k1, q2, k2| refusal(lambda_full_backward(1.0, &a, k1, q2, k2));
    assert_eq!(
        call(&b[..3], &b, &b),
        said("SHAPE", "k1: expected length 4 as q1, got 3")
    );
    assert_eq!(
        call(&b, &b[..3], &b),
        said("SHAPE", "q2: expected length 4 as q1, got 3")
    );
    assert_eq!(
        call(&b, &b, &b[..3]),
        said("SHAPE", "k2: expected length 4 as q1, got 3")
    );
}
