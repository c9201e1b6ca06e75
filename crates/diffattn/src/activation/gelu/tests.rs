//! The units against their definitions in float64, on every instruction set.

#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::simd::Isa;

/// x · Φ(x) by the complementary error function, which keeps the tail's digits.
fn exact(x: f32) -> f64 {
    let x = f64::from(x);
    0.5 * x * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2)
}

/// By tanh, as x · σ(2u): the sum 1 + tanh u would lose the tail's digits.
fn exact_by_tanh(x: f32) -> f64 {
    let x = f64::from(x);
    let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x);
    x / (1.0 + libm::exp(-2.0 * u))
}

fn ulp(x: f64) -> f64 {
    let exponent = ((x.abs().to_bits() >> 52) as i32 - 1023).max(-126);
    libm::ldexp(1.0, exponent - 23)
}

type Form = fn(&mut [f32], Run);

#[test]
fn within_an_ulp_on_every_instruction_set() {
    within_an_ulp(gelu, exact);
}

#[test]
fn by_tanh_within_an_ulp_on_every_instruction_set() {
    within_an_ulp(gelu_tanh, exact_by_tanh);
}

fn on(isa: Isa, threads: usize) -> Run {
    Run::new(Some(isa), Some(threads), false).unwrap()
}

fn within_an_ulp(gelu: Form, exact: fn(f32) -> f64) {
    // A prime stride over all bit patterns meets every exponent and both signs.
    let inputs: Vec<f32> = (0..=u32::MAX)
        .step_by(1021)
        .map(f32::from_bits)
        .filter(|x| x.is_finite())
        .collect();
    let mut first: Option<Vec<f32>> = None;
    for isa in Isa::available() {
        let mut values = inputs.clone();
        gelu(&mut values, on(isa, 1));
        match &first {
            None => first = Some(values),
            Some(first) => assert!(
                first
                    .iter()
                    .zip(&values)
                    .all(|(a, b)| a.to_bits() == b.to_bits()),
                "{}",
                isa.name()
            ),
        }
    }
    let mut worst = (0.0, 0.0);
    for (&x, y) in inputs.iter().zip(first.unwrap()) {
        let expected = exact(x);
        let error = (f64::from(y) - expected).abs() / ulp(expected);
        if error > worst.0 || error.is_nan() {
            worst = (error, x);
        }
    }
    assert!(worst.0 <= 0.6, "{} ulp at {}", worst.0, worst.1);
}

#[test]
fn limits() {
    for gelu in [gelu, gelu_tanh] as [Form; 2] {
        let mut values = [
            f32::NEG_INFINITY,
            f32::MIN,
            -20.0,
            -0.0,
            f32::MAX,
            f32::INFINITY,
            f32::NAN,
        ];
        gelu(&mut values, on(Isa::detect(), 1));
        for value in &values[..4] {
            assert_eq!(value.to_bits(), (-0.0f32).to_bits());
        }
        assert_eq!(values[4..6], [f32::MAX, f32::INFINITY]);
        assert!(values[6].is_nan());
    }
}

#[test]
fn threads_change_no_bit() {
    let values: Vec<f32> = (0..100_003).map(|i| (i as f32) * 1e-4 - 6.0).collect();
    let (mut one, mut two) = (values.clone(), values);
    gelu(&mut one, on(Isa::detect(), 1));
    gelu(&mut two, on(Isa::detect(), 2));
    assert!(
        one.iter()
            .zip(&two)
            .all(|(a, b)| a.to_bits() == b.to_bits())
    );
    let refused = Run::default().with_threads(0).unwrap_err();
    assert_eq!(refused.to_string(), "threads: expected 1 or more, got 0");
}
