//! The rules of quantisation against the cases: codes and scales equal, values and products to
//! float64.

use diffattn_reference::fixture::{Fixture, read_all};
use diffattn_reference::{
    QuantisedWeight, linear, linear_int8, quantise_int8, quantise_q4_0, quantise_q4_1,
    quantise_q8_0,
};

fn near(name: &str, expected: &[f64], got: &[f64]) {
    assert_eq!(expected.len(), got.len(), "{name}");
    for (at, (expected, got)) in expected.iter().zip(got).enumerate() {
        assert!(
            (expected - got).abs() <= 1e-12,
            "{name}: {got} at {at}, not {expected}"
        );
    }
}

fn check(fixture: &Fixture, rule: fn(&[f32]) -> QuantisedWeight, zero: i64) {
    let w = fixture.f32("w");
    let made = rule(&w.data);
    let codes: Vec<i64> = made
        .codes
        .iter()
        .map(|&code| i64::from(code) - zero)
        .collect();
    assert_eq!(codes, fixture.i64("codes").data, "{}", fixture.name);
    assert_eq!(made.scales, fixture.f64("scales").data, "{}", fixture.name);
    if fixture.has("biases") {
        assert_eq!(made.biases, fixture.f64("biases").data, "{}", fixture.name);
    }
    near("w", &fixture.f64("expected.w").data, &made.values());
}

#[test]
fn weights_become_the_codes_of_gguf() {
    let mut seen = 0;
    for fixture in read_all("quant") {
        match fixture.text("format") {
            Some("q8_0") => check(&fixture, quantise_q8_0, 128),
            Some("q4_0") => check(&fixture, quantise_q4_0, 0),
            Some("q4_1") => check(&fixture, quantise_q4_1, 0),
            _ => continue,
        }
        seen += 1;
    }
    assert_eq!(seen, 3);
}

#[test]
fn products_with_int8() {
    for fixture in read_all("quant") {
        let x = fixture.f32("x");
        let made = quantise_int8(&x.data);
        let codes: Vec<i64> = made.codes.iter().map(|&code| code.into()).collect();
        assert_eq!(codes, fixture.i64("x_codes").data, "{}", fixture.name);
        assert_eq!(
            made.scales,
            fixture.f32("x_scales").data,
            "{}",
            fixture.name
        );
        let w = fixture.f64("expected.w");
        let y = linear(&fixture.f64("x"), &w, None);
        near("y", &fixture.f64("expected.y").data, &y.data);
        let y = linear_int8(&x, &w, None);
        near("y_int8", &fixture.f64("expected.y_int8").data, &y.data);
    }
}
