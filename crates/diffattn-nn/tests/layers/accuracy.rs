//! Layers against the reference cases (unilm's own modules, the V2 formula, a layer of a trained
//! model) and against the float64 oracle, on every instruction set.

use crate::common::{
    self, Case, Oracle, assert_near, bits, borrowed, magnitude, ok, on, values, zoo,
};
use diffattn::{Isa, Mask, Tensor};
use diffattn_nn::{
    ForwardOptions, LambdaForm, MultiheadDiffAttn, MultiheadDiffAttnOptions, SequenceFusion,
};
use diffattn_reference as reference;
use proptest::prelude::*;
use reference::fixture::{Fixture, folder, read_all};

/// Runs the layer on every instruction set and number of threads; all must be near, and threads
/// must not matter.
fn check(case: &Case, x: &reference::Tensor<f64>, expected: &[f64], tolerance: f64) {
    for isa in Isa::available() {
        for deterministic in [false, true] {
            let y = case.run(x, &on(isa, 1, deterministic));
            assert_near(
                &format!("{} on {}", case.name, isa.name()),
                expected,
                &y,
                tolerance,
            );
            for threads in [2, 3, 7] {
                let more = case.run(x, &on(isa, threads, deterministic));
                assert_eq!(
                    bits(&more),
                    bits(&y),
                    "{} on {}, {threads} threads",
                    case.name,
                    isa.name()
                );
            }
        }
    }
}

fn of_fixture(fixture: &Fixture) -> Case {
    let count = |name: &str| fixture.count(name);
    let heads = count("num_heads").unwrap_or_else(|| panic!("{}: no num_heads", fixture.name));
    match fixture.text("op") {
        Some("MultiheadDiffAttn") => Case::v1(
            &fixture.name,
            heads,
            count("num_kv_heads"),
            fixture.layer_v1(),
        ),
        Some("MultiheadDiffAttnV2") => Case::v2(
            &fixture.name,
            heads,
            count("num_kv_heads"),
            fixture.layer_v2(),
        ),
        other => panic!("{}: op {other:?}", fixture.name),
    }
}

#[test]
fn modules() {
    let fixtures = read_all("modules");
    assert_eq!(fixtures.len(), 7);
    for fixture in fixtures {
        let expected = fixture
            .expected("y")
            .unwrap_or_else(|| panic!("{}: no y", fixture.name))
            .data;
        // The naive module takes its softmax in float32.
        let is_naive = fixture
            .text("softmax_precision")
            .is_some_and(|text| text.starts_with("f32"));
        let tolerance = if is_naive {
            1e-5
        } else {
            2e-6 * magnitude(&expected)
        };
        check(
            &of_fixture(&fixture),
            &fixture.f64("x"),
            &expected,
            tolerance,
        );
    }
}

/// Motif's: more signal heads than noise heads, λ_init of the index before the layer's.
#[test]
fn grouped_modules() {
    let fixtures = read_all("grouped");
    assert_eq!(fixtures.len(), 3);
    for fixture in fixtures {
        let count = |name: &str| fixture.count(name).unwrap_or_else(|| panic!("no {name}"));
        let heads = count("num_attention_heads") - count("num_noise_heads");
        let groups = Some(count("num_key_value_heads") / 2);
        let case = Case::v1(&fixture.name, heads, groups, fixture.layer_grouped());
        let expected = fixture.expected("y").unwrap_or_else(|| panic!("no y")).data;
        let tolerance = 2e-6 * magnitude(&expected);
        check(&case, &fixture.f64("x"), &expected, tolerance);
    }
}

#[test]
fn a_layer_of_a_trained_model() {
    let path = folder().join("../../examples/data/sample_layer.safetensors");
    let fixture = Fixture::read(&path);
    let case = of_fixture(&fixture);
    let x = fixture.f64("x");
    let expected = fixture.expected("y").unwrap_or_else(|| panic!("no y")).data;
    check(&case, &x, &expected, 2e-5);
    let x: Vec<f32> = fixture.f32("x").data;
    for isa in Isa::available() {
        let maps = ok(case
            .layer
            .maps(Tensor::f32(&x, &[1, 214, 256]), &on(isa, 2, false)));
        assert_eq!(maps.shape, [1, 4, 214, 214]);
        for (name, got) in [
            ("map1", &maps.terms[0]),
            ("map2", &maps.terms[1]),
            ("diff_map", &maps.diff),
        ] {
            let expected = fixture
                .expected(name)
                .unwrap_or_else(|| panic!("no {name}"))
                .data;
            assert_near(name, &expected, got, 2e-6);
        }
    }
}

/// The operator's cases as layers: projections that pick q, k and v out of x, and an output that is
/// the heads'.
#[test]
fn attention_over_differences() {
    let fixtures: Vec<_> = read_all("sequence")
        .into_iter()
        .filter(|fixture| fixture.text("op") == Some("sequence_diff_attention"))
        .collect();
    assert_eq!(fixtures.len(), 2);
    for fixture in fixtures {
        let tensors = ["q", "k", "v"].map(|name| fixture.f32(name));
        let [heads, length] = [tensors[2].shape[1], tensors[2].shape[2]];
        let head_dim = tensors[0].shape[3];
        let widths = [0, 1, 2].map(|i| tensors[i].shape[1] * tensors[i].shape[3]);
        let embed_dim: usize = widths.iter().sum();
        let mut x = Vec::new();
        for t in 0..length {
            for tensor in &tensors {
                for head in 0..tensor.shape[1] {
                    x.extend_from_slice(tensor.row(&[0, head, t]));
                }
            }
        }
        let mut stored = common::Stored::new();
        let mut first = 0;
        for (name, width) in ["q_proj.weight", "k_proj.weight", "v_proj.weight"]
            .into_iter()
            .zip(widths)
        {
            let mut pick = vec![0.0; width * embed_dim];
            (0..width).for_each(|row| pick[row * embed_dim + first + row] = 1.0);
            stored.insert(name.to_owned(), (vec![width, embed_dim], pick));
            first += width;
        }
        let width = widths[2];
        let mut out = vec![0.0; embed_dim * width];
        (0..width).for_each(|row| out[row * width + row] = 1.0);
        stored.insert("out_proj.weight".to_owned(), (vec![embed_dim, width], out));
        // λ = e^a − 1 + 0.2 in layer 0.
        let lambda = fixture.number("lambda").unwrap_or_else(|| panic!("no λ"));
        stored.insert(
            "lambda_a".to_owned(),
            (vec![], vec![(lambda + 0.8).ln() as f32]),
        );
        stored.insert("lambda_b".to_owned(), (vec![1], vec![0.0]));
        let fusion = fixture
            .sequence_fusion()
            .unwrap_or_else(|| panic!("no order"));
        let options = MultiheadDiffAttnOptions {
            head_dim: Some(head_dim),
            is_causal: fixture.flag("causal"),
            lambda_form: LambdaForm::Scalars,
            sequence: Some(SequenceFusion {
                order: fusion.order,
                share: fusion.share,
                fusion: fusion.fusion,
            }),
            ..MultiheadDiffAttnOptions::new(embed_dim, 0, heads)
        };
        let layer = ok(MultiheadDiffAttn::new(&options, &borrowed(&stored)));
        let expected = fixture.expected("out").unwrap_or_else(|| panic!("no out"));
        let norm = reference::Norm {
            eps: 1e-5,
            weight: None,
            scale: 0.8,
        };
        let expected = reference::rms_norm(&expected, &norm)
            .swap_middle_axes()
            .data;
        for isa in Isa::available() {
            let y = ok(layer.forward(
                Tensor::f32(&x, &[1, length, embed_dim]),
                None,
                &on(isa, 2, false),
            ));
            let heads: Vec<f32> = y
                .chunks(embed_dim)
                .flat_map(|row| row[..width].iter().copied())
                .collect();
            assert_near(&fixture.name, &expected, &heads, 2e-5);
            assert!(
                y.chunks(embed_dim)
                    .all(|row| row[width..].iter().all(|&y| y == 0.0))
            );
        }
    }
}

/// How far float32 may be from the oracle in the layers of the zoo, in units of max|y|.
const ZOO: f64 = 4e-6;

#[test]
fn every_kind_of_layer() {
    for (seed, case) in zoo().iter().enumerate() {
        for (batch, length) in [(2, 37), (1, 1), (3, 16), (1, 130)] {
            let x = case.input(seed as u64 + 500, batch, length);
            let expected = case.expected(&x, None);
            check(case, &x, &expected, ZOO * magnitude(&expected));
            // And with a cache, whose rows have the same bits.
            let stretches = [length - length / 2, length / 2];
            let stretches = &stretches[..if length > 1 { 2 } else { 1 }];
            if matches!(&case.oracle, Oracle::V1(oracle) if !oracle.causal)
                || matches!(&case.oracle, Oracle::V2(oracle) if !oracle.causal)
            {
                continue; // a row sees what is not there yet
            }
            let y = case.run_cached(&x, stretches, &on(Isa::detect(), 2, false));
            assert_near(
                &format!("{} with a cache", case.name),
                &expected,
                &y,
                ZOO * magnitude(&expected),
            );
        }
    }
}

#[test]
fn maps_of_every_kind_of_layer() {
    for (seed, case) in zoo().iter().enumerate() {
        let x = case.input(seed as u64 + 900, 2, 19);
        let expected = case.expected_maps(&x);
        let data: Vec<f32> = x.data.iter().map(|&x| x as f32).collect();
        for isa in Isa::available() {
            let maps = ok(case
                .layer
                .maps(Tensor::f32(&data, &x.shape), &on(isa, 2, false)));
            assert_eq!(maps.shape, [2, case.layer.num_heads(), 19, 19]);
            let got = maps.terms.iter().chain([&maps.diff]);
            for (expected, got) in expected.maps.iter().chain([&expected.diff]).zip(got) {
                assert_near(&case.name, &expected.data, got, 4e-6);
            }
        }
    }
}

#[test]
fn masks() {
    for (seed, case) in zoo().iter().enumerate() {
        let (batch, length, heads) = (2, 23, case.layer.num_heads());
        let x = case.input(seed as u64 + 700, batch, length);
        for shape in [
            [batch, heads, length, length],
            [1, 1, length, length],
            [1, heads, 1, length],
            [batch, 1, 1, length],
        ] {
            let random = values(seed as u64, shape.iter().product(), 1.0);
            // Any non-zero byte takes part.
            let data: Vec<u8> = random
                .iter()
                .map(|&x| {
                    if x < 0.4 {
                        (x.to_bits() >> 3) as u8 | 1
                    } else {
                        0
                    }
                })
                .collect();
            let mask = reference::Tensor::new(&shape, data.iter().map(|&byte| byte != 0).collect());
            let expected = case.expected(&x, Some(&mask));
            for isa in Isa::available() {
                let attn_mask = Some(Mask {
                    data: &data,
                    shape: shape.to_vec(),
                });
                let y = case.run(
                    &x,
                    &ForwardOptions {
                        attn_mask,
                        ..on(isa, 2, false)
                    },
                );
                assert_near(
                    &format!("{} masked by {shape:?}", case.name),
                    &expected,
                    &y,
                    ZOO * magnitude(&expected),
                );
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn any_size(seed in 0u64..1 << 32, heads in 1usize..5, half_dim in 1usize..12, groups_in in 0usize..4, batch in 1usize..4,
                length in 1usize..50, more in 0usize..20, bias: bool, causal: bool, flat: bool, differences in 0usize..3) {
        let divisors: Vec<usize> = (1..=heads).filter(|groups| heads.is_multiple_of(*groups)).collect();
        let (groups, head_dim) = (divisors[groups_in % divisors.len()], 2 * half_dim);
        let embed_dim = 2 * heads * head_dim + more;
        let shape = common::Projections {
            embed_dim, head_dim, counts: [2 * heads, 2 * groups, groups], value_dim: 2 * head_dim, out_width: 2 * heads * head_dim, bias,
            out: "out_proj",
        };
        let weights = common::Random::new(seed).projections(&shape).lambda_vectors(head_dim).weights;
        let oracle = reference::MultiheadDiffAttn {
            pairing: reference::Pairing::Interleaved { flat },
            rope: common::rope(bias != causal),
            causal,
            sequence: (differences > 0).then_some(reference::SequenceFusion { order: differences, share: 0.5, fusion: 0.5 }),
            ..reference::MultiheadDiffAttn::new(3, head_dim, weights)
        };
        let case = Case::v1("any size", heads, Some(groups), oracle);
        let x = case.input(seed + 1, batch, length);
        let expected = case.expected(&x, None);
        let tolerance = 2.0 * ZOO * magnitude(&expected);
        for isa in Isa::available() {
            assert_near(isa.name(), &expected, &case.run(&x, &on(isa, 2, false)), tolerance);
        }
    }
}
