//! The oracle against every reference case. A new file in one of the folders is compared without a
//! change here; the counts say that none has got lost.

use diffattn_reference::fixture::{Fixture, folder, read_all};
use diffattn_reference::{
    AttentionSpec, Tensor, apply_rope, attention, attention_maps, group_norm, poly_norm,
    positions_from, rms_norm, sequence_difference, sequence_fused_attention,
};

/// Two ways to sum the same float64 values.
const FLOAT64: f64 = 1e-12;

/// The first version's own code rounds exp(λ) and the normalised rows to float32 in an otherwise
/// float64 run (its RMSNorm computes on `x.float()`): relative errors of 2⁻²⁴ and a little before
/// the output projection.
const FLOAT32_NORM: f64 = 5e-7;

/// Runs `compare` on each case of a folder, and fails with a list of the cases that differ.
fn each(subfolder: &str, at_least: usize, compare: impl Fn(&Fixture) -> Result<(), String>) {
    let fixtures = read_all(subfolder);
    let failures: Vec<String> = fixtures
        .iter()
        .filter_map(|fixture| compare(fixture).err())
        .collect();
    assert!(
        failures.is_empty(),
        "{} of {} cases differ:\n{}",
        failures.len(),
        fixtures.len(),
        failures.join("\n")
    );
    assert!(
        fixtures.len() >= at_least,
        "{subfolder}: {} cases, expected {at_least}",
        fixtures.len()
    );
}

/// |got − expected| ≤ bound(|expected|), at every place.
fn within(
    name: &str,
    expected: &Tensor<f64>,
    got: &Tensor<f64>,
    bound: impl Fn(f64) -> f64,
) -> Result<(), String> {
    if expected.shape != got.shape {
        return Err(format!(
            "{name}: shape {:?}, expected {:?}",
            got.shape, expected.shape
        ));
    }
    let excess = |i: &usize| {
        let excess = (got.data[*i] - expected.data[*i]).abs() - bound(expected.data[*i].abs());
        if excess.is_nan() {
            f64::INFINITY
        } else {
            excess
        }
    };
    let Some(worst) = (0..got.data.len()).max_by(|a, b| excess(a).total_cmp(&excess(b))) else {
        return Ok(());
    };
    if excess(&worst) <= 0.0 {
        return Ok(());
    }
    Err(format!(
        "{name}: index {worst} expected {:e}, got {:e}",
        expected.data[worst], got.data[worst]
    ))
}

/// The largest |x|.
fn largest(x: &Tensor<f64>) -> f64 {
    x.data.iter().fold(0.0, |max: f64, x| max.max(x.abs()))
}

/// As [`within`], relative to the largest |expected|.
fn close(
    name: &str,
    expected: &Tensor<f64>,
    got: &Tensor<f64>,
    tolerance: f64,
) -> Result<(), String> {
    let bound = tolerance * largest(expected);
    within(name, expected, got, |_| bound)
}

fn required(fixture: &Fixture, name: &str) -> Tensor<f64> {
    fixture
        .expected(name)
        .unwrap_or_else(|| panic!("{}: no expected.{name}", fixture.name))
}

#[test]
fn diff_attention() {
    each("diff_attention", 68, |fixture| {
        let spec = fixture.attention_spec();
        assert_eq!(
            spec.norm.is_some(),
            fixture.has("expected.out_normed"),
            "{}",
            fixture.name
        );
        let named = |what| format!("{} {what}", fixture.name);
        let expected = required(fixture, "out");
        // Maps that nearly cancel leave a small difference of sums of v, each rounded at the size
        // of v.
        let cancelled = largest(&spec.v) / largest(&expected);
        let tolerance = FLOAT64 + 4.0 * f64::EPSILON * cancelled;
        let plain = AttentionSpec {
            norm: None,
            ..spec.clone()
        };
        close(&named("out"), &expected, &attention(&plain).out, tolerance)?;
        if let Some(expected) = fixture.expected("out_normed") {
            close(
                &named("out_normed"),
                &expected,
                &attention(&spec).out,
                tolerance,
            )?;
        }
        if let Some(expected) = fixture.expected("lse") {
            let got = attention(&spec).lse;
            // (A row that sees nothing and has no sink.)
            let finite = |x: &Tensor<f64>| Tensor {
                shape: x.shape.clone(),
                data: x.data.iter().map(|x| x.max(f64::MIN)).collect(),
            };
            within(&named("lse"), &finite(&expected), &finite(&got), |lse| {
                FLOAT64 * lse.max(1.0)
            })?;
        }
        let maps = attention_maps(&spec);
        let named_maps = ["map1", "map2"].into_iter().zip(&maps.maps);
        for (name, map) in named_maps.chain([("diff_map", &maps.diff)]) {
            if let Some(expected) = fixture.expected(name) {
                close(&named(name), &expected, map, FLOAT64)?;
            }
        }
        Ok(())
    });
}

#[test]
fn group_norms() {
    each("group_norm", 13, |fixture| {
        let got = group_norm(&fixture.f64("x"), &fixture.group_norm());
        close(&fixture.name, &required(fixture, "y"), &got, FLOAT64)
    });
}

#[test]
fn rms_norms() {
    each("rms_norm", 5, |fixture| {
        let got = rms_norm(&fixture.f64("x"), &fixture.rms_norm());
        close(&fixture.name, &required(fixture, "y"), &got, FLOAT64)
    });
}

#[test]
fn poly_norms() {
    each("polynorm", 7, |fixture| {
        let got = poly_norm(&fixture.f64("x"), &fixture.poly_norm());
        close(&fixture.name, &required(fixture, "y"), &got, FLOAT64)
    });
}

#[test]
fn rope() {
    each("rope", 6, |fixture| {
        let (x, expected) = (fixture.f64("x"), required(fixture, "y"));
        let first = fixture.count("first_position").unwrap_or(0) as i64;
        let got = apply_rope(&x, &fixture.rope(), &positions_from(first, x.shape[2]));
        if fixture.case["scaling"].is_object() {
            // Their frequencies are float32.
            return within(&fixture.name, &expected, &got, |y| 3e-5 * y + 1e-4);
        }
        close(&fixture.name, &expected, &got, FLOAT64)
    });
}

#[test]
fn sequence() {
    each("sequence", 5, |fixture| {
        if fixture.text("op") == Some("sequence_difference") {
            let Some(order) = fixture.count("order") else {
                return Err(format!("{}: no order", fixture.name));
            };
            return close(
                &fixture.name,
                &required(fixture, "y"),
                &sequence_difference(&fixture.f64("x"), order),
                0.0,
            );
        }
        let Some(fusion) = fixture.sequence_fusion() else {
            return Err(format!("{}: no order", fixture.name));
        };
        let got = sequence_fused_attention(&fixture.attention_spec(), &fusion);
        close(&fixture.name, &required(fixture, "out"), &got, FLOAT64)
    });
}

#[test]
fn modules() {
    each("modules", 7, |fixture| {
        let x = fixture.f64("x");
        let (got, tolerance) = match fixture.text("op") {
            Some("MultiheadDiffAttn") => {
                // Where the softmax is in float32 too, the file says "compare at 1e-5".
                let float64 = fixture.text("softmax_precision") == Some("f64");
                (
                    fixture.layer_v1().forward(&x, None, 0),
                    if float64 { FLOAT32_NORM } else { 1e-5 },
                )
            }
            Some("MultiheadDiffAttnV2") => (fixture.layer_v2().forward(&x, None, 0), FLOAT64),
            other => panic!("{}: op {other:?}", fixture.name),
        };
        close(&fixture.name, &required(fixture, "y"), &got, tolerance)
    });
}

#[test]
fn grouped_modules() {
    each("grouped", 3, |fixture| {
        let got = fixture.layer_grouped().forward(&fixture.f64("x"), None, 0);
        close(&fixture.name, &required(fixture, "y"), &got, FLOAT64)
    });
}

/// A trained layer on real text; its source keeps the softmax and the norm in float32.
#[test]
fn sample_layer() -> Result<(), String> {
    let fixture = Fixture::read(&folder().join("../../examples/data/sample_layer.safetensors"));
    let (layer, x) = (fixture.layer_v1(), fixture.f64("x"));
    let Some(lambda) = fixture.number("lambda") else {
        panic!("the sample has its λ")
    };
    assert!(
        (layer.lambda() - lambda).abs() < 1e-6,
        "λ {}, expected {lambda}",
        layer.lambda()
    );
    close(
        "y",
        &required(&fixture, "y"),
        &layer.forward(&x, None, 0),
        2e-5,
    )?;
    let maps = layer.maps(&x, None, 0);
    close("map1", &required(&fixture, "map1"), &maps.maps[0], 2e-5)?;
    close("map2", &required(&fixture, "map2"), &maps.maps[1], 2e-5)?;
    close(
        "diff_map",
        &required(&fixture, "diff_map"),
        &maps.diff,
        2e-5,
    )
}
