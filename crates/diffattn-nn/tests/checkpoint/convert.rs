//! Converted layers compute what the layers they came from compute: the same bits where heads alone
//! moved.

use crate::common::{fixtures, models, ok, refusal, values};
use diffattn::{Isa, KvRepeat, Pairing, RopeFrequencies, Run, Tensor};
use diffattn_nn::checkpoint::{
    Converted, Dtype, HeadLayout, Layer, LayerForm, LayerTarget, LayerVersion, NormWeight,
    RawTensor, RawWeights, Shards, borrow_weights, convert_layer, float_weights, fold_norm,
    inspect,
};
use diffattn_nn::{DiffAttnLayer, ForwardOptions, LambdaForm, RopeConfig};
use diffattn_reference::fixture::read_all;
use half::{bf16, f16};
use std::collections::BTreeMap;

const EMBED: usize = 20;
const DIM: usize = 6;

/// A random V1 layer of those heads.
fn random(
    heads: HeadLayout,
    rope: Option<bool>,
    norm: bool,
    dtype: Dtype,
) -> (Layer, RawWeights<'static>) {
    let [q, k, v] = ok(heads.head_counts());
    let (d, width) = (heads.head_dim, heads.head_width);
    let values_per_head = if heads.pairing == Pairing::Halves {
        width / 2
    } else {
        width
    };
    let mut weights = RawWeights::new();
    let mut seed = 1;
    let mut add = |name: &str, shape: &[usize], scale: f32| {
        seed += 1;
        let x = values(seed, shape.iter().product(), scale);
        let tensor = ok(RawTensor::of(name, &Tensor::f32(&x, shape)));
        let tensor = ok(ok(tensor.cast(name, dtype)).tensor.into_owned());
        weights.insert(name.to_owned(), tensor);
    };
    for (name, rows) in [
        ("q_proj", q * d),
        ("k_proj", k * d),
        ("v_proj", v * values_per_head),
    ] {
        add(&format!("{name}.weight"), &[rows, EMBED], 0.5);
        add(&format!("{name}.bias"), &[rows], 0.5);
    }
    add("out_proj.weight", &[EMBED, heads.heads * width], 0.3);
    add("out_proj.bias", &[EMBED], 0.3);
    for name in ["lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2"] {
        add(name, &[d], 0.3);
    }
    if norm {
        add("subln.weight", &[width], 1.5);
    }
    let layer = Layer {
        prefix: String::new(),
        depth: Some(2),
        lambda_init: None,
        version: LayerVersion::V1(LambdaForm::Vectors),
        embed_dim: EMBED,
        heads,
        rope: rope.map(|interleaved| RopeConfig {
            interleaved,
            frequencies: RopeFrequencies::default(),
        }),
        is_causal: true,
        eps: 1e-5,
        norm_weight: norm,
        pieces: BTreeMap::new(),
    };
    (layer, weights)
}

fn layout(
    pairing: Pairing,
    kv_repeat: Option<KvRepeat>,
    heads: usize,
    groups: usize,
) -> HeadLayout {
    HeadLayout {
        pairing,
        kv_repeat,
        ratio: None,
        heads,
        groups: Some(groups),
        head_dim: DIM,
        head_width: 2 * DIM,
    }
}

fn build(layer: &Layer, weights: &RawWeights<'_>) -> DiffAttnLayer {
    let floats = ok(float_weights(weights));
    ok(DiffAttnLayer::of_checkpoint(
        layer,
        &borrow_weights(&floats),
    ))
}

/// Results on every instruction set, fused and not, as bits.
fn run(layer: &DiffAttnLayer) -> Vec<Vec<u32>> {
    let (batch, length) = (2, 37);
    let x = values(9, batch * length * EMBED, 1.0);
    let mut all = Vec::new();
    for isa in Isa::available() {
        for deterministic in [false, true] {
            let options = ForwardOptions {
                run: Run::default()
                    .with_isa(isa)
                    .with_deterministic(deterministic),
                ..ForwardOptions::default()
            };
            let y = ok(layer.forward(Tensor::f32(&x, &[batch, length, EMBED]), None, &options));
            assert!(y.iter().all(|y| y.is_finite()) && y.iter().any(|&y| y != 0.0));
            all.push(y.iter().map(|y| y.to_bits()).collect());
        }
    }
    all
}

/// The largest difference, as a share of the largest magnitude.
fn difference(a: &[Vec<u32>], b: &[Vec<u32>]) -> f32 {
    assert_eq!(a.len(), b.len());
    let pairs = a.iter().flatten().zip(b.iter().flatten());
    let (mut worst, mut scale) = (0.0f32, 0.0f32);
    for (&a, &b) in pairs {
        let (a, b) = (f32::from_bits(a), f32::from_bits(b));
        worst = worst.max((a - b).abs());
        scale = scale.max(a.abs());
    }
    worst / scale
}

fn convert(layer: &Layer, weights: &RawWeights<'_>, target: &LayerTarget) -> (Layer, Converted) {
    let converted = ok(convert_layer(weights, &layer.form(), target));
    (layer.with_form(&converted.form), converted)
}

fn target(pairing: Pairing, kv_repeat: Option<KvRepeat>) -> LayerTarget {
    LayerTarget {
        pairing,
        kv_repeat,
        ratio: None,
        rope_interleaved: None,
        norm_weight: NormWeight::Keep,
        output: None,
        dtype: None,
    }
}

const INTERLEAVED: Pairing = Pairing::Interleaved;
const FLAT: Option<KvRepeat> = Some(KvRepeat::Flat);

/// Every pairing to every other: the same bits, and as few k heads as can be.
#[test]
fn pairings() {
    let cases = [
        // From, to, and the groups that it then has.
        (layout(INTERLEAVED, None, 4, 4), Pairing::Halves, None, 8),
        (layout(INTERLEAVED, None, 4, 2), Pairing::Halves, None, 4),
        (layout(INTERLEAVED, None, 6, 1), Pairing::Halves, None, 2),
        (layout(INTERLEAVED, None, 4, 2), INTERLEAVED, FLAT, 4),
        (layout(INTERLEAVED, None, 4, 4), INTERLEAVED, FLAT, 4),
        (layout(INTERLEAVED, FLAT, 4, 4), INTERLEAVED, None, 4),
        (layout(INTERLEAVED, FLAT, 4, 2), INTERLEAVED, None, 4),
        (layout(INTERLEAVED, FLAT, 6, 2), INTERLEAVED, None, 6),
        (layout(INTERLEAVED, FLAT, 6, 3), Pairing::Halves, None, 12),
        (layout(INTERLEAVED, FLAT, 4, 2), INTERLEAVED, FLAT, 2),
        (layout(Pairing::Halves, None, 4, 8), INTERLEAVED, None, 4),
        (layout(Pairing::Halves, None, 4, 4), INTERLEAVED, None, 2),
        (layout(Pairing::Halves, None, 4, 2), INTERLEAVED, None, 1),
        // Odd: heads share k across the halves, so pairs of them are repeated.
        (layout(Pairing::Halves, None, 3, 3), INTERLEAVED, None, 3),
        (layout(Pairing::Halves, None, 3, 1), INTERLEAVED, None, 1),
        (layout(Pairing::Halves, None, 6, 3), INTERLEAVED, None, 3),
        (
            layout(Pairing::Halves, None, 3, 3),
            Pairing::Halves,
            None,
            3,
        ),
        (layout(Pairing::Halves, None, 3, 3), INTERLEAVED, FLAT, 3),
        // One noise head for two signal heads, q heads repeated.
        (
            HeadLayout {
                ratio: Some(2),
                ..layout(Pairing::Grouped, None, 4, 1)
            },
            INTERLEAVED,
            None,
            1,
        ),
        (
            HeadLayout {
                ratio: Some(2),
                ..layout(Pairing::Grouped, None, 4, 2)
            },
            Pairing::Halves,
            None,
            4,
        ),
        (layout(Pairing::Shared, None, 4, 2), INTERLEAVED, None, 2),
        (
            HeadLayout {
                ratio: Some(4),
                ..layout(Pairing::Shared, None, 4, 1)
            },
            Pairing::Halves,
            None,
            2,
        ),
        (
            layout(Pairing::Shared, None, 4, 2),
            Pairing::Grouped,
            None,
            2,
        ),
    ];
    for dtype in [Dtype::F32, Dtype::BF16, Dtype::F16] {
        for (from, pairing, kv_repeat, groups) in &cases {
            for rope in [None, Some(true), Some(false)] {
                let (layer, weights) = random(*from, rope, true, dtype);
                let (to, converted) = convert(&layer, &weights, &target(*pairing, *kv_repeat));
                assert_eq!(to.heads.groups, Some(*groups), "{from:?} to {pairing:?}");
                assert_eq!(
                    run(&build(&to, &converted.weights)),
                    run(&build(&layer, &weights)),
                    "{from:?} to {pairing:?}"
                );
                let grew = converted
                    .weights
                    .iter()
                    .any(|(name, tensor)| tensor.shape() != weights[name].shape());
                assert_eq!(!converted.notes.is_empty(), grew, "{:?}", converted.notes);
            }
        }
    }
}

/// There and back is the same file, bit for bit, whatever the element type: also one that no layer
/// runs on.
#[test]
fn back() {
    for dtype in [Dtype::F32, Dtype::BF16] {
        let (layer, mut weights) = random(layout(INTERLEAVED, None, 4, 2), Some(true), true, dtype);
        if dtype == Dtype::BF16 {
            for name in ["q_proj.weight", "k_proj.weight", "v_proj.weight"] {
                let shape = weights[name].shape().to_vec();
                let bytes: Vec<u8> = (0..shape.iter().product::<usize>())
                    .map(|at| (at * 7 % 251) as u8)
                    .collect();
                weights.insert(
                    name.to_owned(),
                    ok(RawTensor::new(name, Dtype::F8_E4M3, &shape, bytes)),
                );
            }
        }
        let there = LayerTarget {
            rope_interleaved: Some(false),
            ..target(Pairing::Halves, None)
        };
        let converted = ok(convert_layer(&weights, &layer.form(), &there));
        assert_ne!(converted.weights["q_proj.weight"], weights["q_proj.weight"]);
        assert_eq!(converted.weights["lambda_q1"], weights["lambda_q1"]);
        let again = LayerTarget {
            rope_interleaved: Some(true),
            ..target(INTERLEAVED, None)
        };
        let again = ok(convert_layer(&converted.weights, &converted.form, &again));
        assert_eq!(again.form, layer.form());
        assert_eq!(again.weights, weights);
    }
}

/// Rope pairs, by hand: (2i, 2i + 1) and (i, i + 3) of a head of six rows.
#[test]
fn rope_rows() {
    let heads = layout(INTERLEAVED, None, 1, 1);
    let rows: Vec<f32> = (0..12).map(|row| row as f32).collect();
    let (layer, mut weights) = random(heads, Some(true), false, Dtype::F32);
    for name in ["q_proj.bias", "k_proj.bias", "v_proj.bias"] {
        weights.insert(
            name.to_owned(),
            ok(RawTensor::of(name, &Tensor::f32(&rows, &[12]))),
        );
    }
    let to = LayerTarget {
        rope_interleaved: Some(false),
        ..LayerTarget::keep(&heads)
    };
    let converted = ok(convert_layer(&weights, &layer.form(), &to));
    let half_split = [0.0, 2.0, 4.0, 1.0, 3.0, 5.0, 6.0, 8.0, 10.0, 7.0, 9.0, 11.0];
    for name in ["q_proj.bias", "k_proj.bias"] {
        assert_eq!(ok(converted.weights[name].to_f32(name)), half_split);
    }
    assert_eq!(ok(converted.weights["v_proj.bias"].to_f32("v")), rows);
    assert_eq!(converted.form.rope_interleaved, Some(false));
}

/// Another rope convention adds the channels of q·k in another order: near, not the same bits.
#[test]
fn ropes() {
    for from in [
        layout(INTERLEAVED, None, 4, 2),
        layout(Pairing::Halves, None, 3, 3),
    ] {
        for rope in [true, false] {
            let (layer, weights) = random(from, Some(rope), true, Dtype::F32);
            let to = LayerTarget {
                rope_interleaved: Some(!rope),
                ..LayerTarget::keep(&from)
            };
            let (to, converted) = convert(&layer, &weights, &to);
            assert_eq!(converted.weights["v_proj.weight"], weights["v_proj.weight"]);
            let off = difference(
                &run(&build(&layer, &weights)),
                &run(&build(&to, &converted.weights)),
            );
            assert!(off > 0.0 && off < 2e-6, "{off:e}");
            // Left unconverted, the same weights are another layer: the comparison can fail.
            let wrong = difference(&run(&build(&layer, &weights)), &run(&build(&to, &weights)));
            assert!(wrong > 1e-2, "{wrong:e}");
        }
    }
}

/// unilm to diffllama and back: names, rope, pairing and the folded norm together.
#[test]
fn diffllama() {
    for (from, groups) in [
        (layout(INTERLEAVED, None, 4, 2), 4),
        (layout(INTERLEAVED, FLAT, 4, 2), 8),
    ] {
        let (layer, weights) = random(from, Some(true), true, Dtype::F32);
        let (to, converted) = convert(&layer, &weights, &LayerTarget::diffllama());
        assert_eq!(
            to.heads,
            HeadLayout {
                groups: Some(groups),
                ..layout(Pairing::Halves, None, 4, 0)
            }
        );
        let names: Vec<&str> = converted.weights.keys().map(String::as_str).collect();
        assert!(
            names.contains(&"o_proj.bias")
                && !names.contains(&"subln.weight")
                && !names.contains(&"out_proj.weight")
        );
        let folded = "subln.weight is part of o_proj.weight now, rounded once";
        assert!(
            converted.notes.iter().any(|note| note == folded),
            "{:?}",
            converted.notes
        );
        let off = difference(
            &run(&build(&layer, &weights)),
            &run(&build(&to, &converted.weights)),
        );
        assert!(off < 2e-6, "{off:e}");
        let (back, again) = convert(&to, &converted.weights, &LayerTarget::unilm());
        assert_eq!(
            ok(again.weights["subln.weight"].to_f32("subln")),
            [1.0; 2 * DIM]
        );
        let off = difference(
            &run(&build(&layer, &weights)),
            &run(&build(&back, &again.weights)),
        );
        assert!(off < 2e-6, "{off:e}");
    }
}

/// The reference's own layers, converted, against its own results.
#[test]
fn reference_cases() {
    let mut seen = 0;
    for fixture in read_all("modules") {
        let Some(expected) = fixture.expected("y") else {
            panic!("{}: no y", fixture.name);
        };
        let shards = ok(Shards::open(
            fixtures().join(format!("{}.safetensors", fixture.name)),
        ));
        let found = ok(inspect(shards.entries(), None));
        let mut layer = found.layers[0].clone();
        layer.depth = fixture.count("depth");
        if fixture.text("kv_repeat") == Some("flat") {
            layer.heads.kv_repeat = Some(KvRepeat::Flat);
        }
        let weights = ok(layer.read(&shards));
        let x = fixture.f32("x");
        let mut targets = vec![LayerTarget::keep(&layer.heads)];
        if let LayerVersion::V1(_) = layer.version {
            targets.extend([
                LayerTarget::diffllama(),
                LayerTarget::unilm(),
                target(INTERLEAVED, FLAT),
            ]);
        } else {
            targets.push(LayerTarget {
                rope_interleaved: Some(false),
                ..LayerTarget::keep(&layer.heads)
            });
        }
        let scale = expected.data.iter().fold(0.0f64, |max, y| max.max(y.abs()));
        let naive = fixture
            .text("softmax_precision")
            .is_some_and(|text| text.starts_with("f32"));
        let tolerance = if naive { 1e-5 } else { 2e-6 * scale };
        for to in targets {
            let (to, converted) = convert(&layer, &weights, &to);
            let y = ok(build(&to, &converted.weights).forward(
                Tensor::f32(&x.data, &x.shape),
                None,
                &ForwardOptions::default(),
            ));
            let off = y
                .iter()
                .zip(&expected.data)
                .map(|(&y, e)| (f64::from(y) - e).abs())
                .fold(0.0, f64::max);
            assert!(
                off <= tolerance,
                "{} as {:?}: {off:e}, at most {tolerance:e}",
                fixture.name,
                to.heads
            );
            seen += 1;
        }
    }
    assert_eq!(seen, 5 * 4 + 2 * 2);
}

/// timm's q, k and v of one tensor, taken apart and moved.
#[test]
fn timm() {
    let shards = ok(Shards::open(models().join("diff_vit")));
    let found = ok(inspect(shards.entries(), None));
    let x = values(3, 17 * 64, 1.0);
    for layer in &found.layers {
        let weights = ok(layer.read(&shards));
        let y = |layer: &Layer, weights: &RawWeights<'_>| {
            ok(build(layer, weights).forward(
                Tensor::f32(&x, &[1, 17, 64]),
                None,
                &ForwardOptions::default(),
            ))
        };
        let (to, converted) = convert(layer, &weights, &target(Pairing::Halves, None));
        assert_eq!(to.heads.groups, Some(4));
        assert_eq!(y(&to, &converted.weights), y(layer, &weights));
    }
}

/// The folded weight is the product, rounded once: within half a step of the weight's type.
#[test]
fn folds() {
    let width = 12;
    for (dtype, digits, smallest) in [
        (Dtype::F32, 24, -149),
        (Dtype::F16, 11, -24),
        (Dtype::BF16, 8, -133),
    ] {
        for norm_dtype in [Dtype::F32, Dtype::F16, Dtype::BF16] {
            let make = |seed, len: usize, shape: &[usize], dtype| {
                let x: Vec<f32> = values(seed, len, 1.0)
                    .iter()
                    .enumerate()
                    // Down to where floats of 16 bits lose digits.
                    .map(|(at, x)| x * [1.0, 1e-3, 3e-5, 1.7][at % 4])
                    .collect();
                let x = ok(RawTensor::of("x", &Tensor::f32(&x, shape)));
                ok(ok(x.cast("x", dtype)).tensor.into_owned())
            };
            let projection = make(1, 7 * 3 * width, &[7, 3 * width], dtype);
            let norm = make(2, width, &[width], norm_dtype);
            let folded = ok(fold_norm("o", &projection, &norm));
            assert_eq!(
                (folded.dtype(), folded.shape()),
                (dtype, projection.shape())
            );
            let [folded, projection, norm] =
                [&folded, &projection, &norm].map(|x| ok(x.to_f32("x")));
            for (at, (&got, &weight)) in folded.iter().zip(&projection).enumerate() {
                let exact = f64::from(weight) * f64::from(norm[at % width]);
                let exponent = if exact == 0.0 {
                    -1000
                } else {
                    exact.abs().log2().floor() as i32
                };
                let step = 2f64.powi((exponent - digits + 1).max(smallest));
                let off = (f64::from(got) - exact).abs();
                assert!(
                    off <= step / 2.0,
                    "{dtype} · {norm_dtype} at {at}: {exact} became {got}"
                );
            }
        }
    }
    // Products beside the middle of two float16s, so near that float32 has the middle itself:
    // rounding twice would go wrong.
    let mut through_f32 = 0;
    for seed in 0..4000u16 {
        let middle = 1.0 + f64::from(2 * (seed % 1023) + 1) * 2f64.powi(-11);
        let near = f16::from_bits(0x3c01 + seed % 1000);
        let x = values(u64::from(seed), 2, 2.0);
        let cases = [
            (near, (middle / near.to_f64()) as f32),
            (f16::from_f32(x[0]), x[1]),
        ];
        for (weight, gain) in cases {
            let exact = f64::from(weight.to_f32()) * f64::from(gain);
            let tensor = ok(RawTensor::new(
                "o",
                Dtype::F16,
                &[1, 1],
                weight.to_le_bytes().to_vec(),
            ));
            let norm = ok(RawTensor::of("n", &Tensor::f32(&[gain], &[1])));
            let folded = ok(fold_norm("o", &tensor, &norm));
            let got = f16::from_le_bytes([folded.bytes()[0], folded.bytes()[1]]);
            // The nearest of the neighbours, found by distance.
            let best = (-1..=1)
                .map(|step| f16::from_bits(got.to_bits().wrapping_add_signed(step)))
                .filter(|near| near.is_sign_negative() == got.is_sign_negative())
                .map(|near| (near.to_f64() - exact).abs())
                .fold(f64::INFINITY, f64::min);
            assert!((got.to_f64() - exact).abs() <= best, "{weight} · {gain}");
            through_f32 += u32::from(f16::from_f32(exact as f32) != got);
        }
    }
    // It does, on a good part of these: the comparison can fail.
    assert!(through_f32 > 1000, "{through_f32}");
    let infinite = ok(RawTensor::new(
        "o",
        Dtype::BF16,
        &[1, 1],
        bf16::MAX.to_le_bytes().to_vec(),
    ));
    let norm = ok(RawTensor::of("n", &Tensor::f32(&[f32::MAX], &[1])));
    assert_eq!(
        ok(ok(fold_norm("o", &infinite, &norm)).to_f32("o")),
        [f32::INFINITY]
    );
}

/// What becomes of values in another type is said.
#[test]
fn types() {
    let (layer, mut weights) = random(
        layout(INTERLEAVED, None, 2, 2),
        Some(true),
        true,
        Dtype::F32,
    );
    let large = [1e6, 1e-9, 1.0, 1.0, 1.0, -1e6];
    weights.insert(
        "lambda_q1".to_owned(),
        ok(RawTensor::of("x", &Tensor::f32(&large, &[6]))),
    );
    let to = LayerTarget {
        dtype: Some(Dtype::F16),
        ..LayerTarget::keep(&layer.heads)
    };
    let converted = ok(convert_layer(&weights, &layer.form(), &to));
    assert!(
        converted
            .weights
            .values()
            .all(|tensor| tensor.dtype() == Dtype::F16)
    );
    assert_eq!(
        converted.notes,
        [
            "lambda_q1 as F16: 2 values are too large for it and infinite now",
            "lambda_q1 as F16: 1 values are too small for it and 0 now",
        ]
    );
}

/// What has no place is refused with the reason.
#[test]
fn refused() {
    let from = layout(INTERLEAVED, None, 4, 2);
    let (layer, weights) = random(from, Some(true), true, Dtype::F32);
    let form = layer.form();
    let shared = target(Pairing::Shared, None);
    assert_eq!(
        refusal(convert_layer(&weights, &form, &shared)),
        ("OPTION", "pairing: expected one in which interleaved heads have a place, got \"shared\": its k head 0 would be k head 0 and, for output head 0, 1".to_owned())
    );
    let grouped = LayerTarget {
        ratio: Some(2),
        ..target(Pairing::Grouped, None)
    };
    assert_eq!(
        refusal(convert_layer(&weights, &form, &grouped)),
        ("OPTION", "pairing: expected one in which interleaved heads have a place, got \"grouped\": its q head 2 would be q head 1 and, for output head 1, 3".to_owned())
    );
    let without = |name: &str| {
        let mut weights = weights.clone();
        weights.remove(name);
        weights
    };
    let keep = LayerTarget::keep(&from);
    for (weights, sentence) in [
        (
            without("k_proj.weight"),
            "weights.k_proj.weight: expected a tensor, got none",
        ),
        (
            without("out_proj.weight"),
            "weights: expected one of out_proj.weight and o_proj.weight, got neither",
        ),
    ] {
        assert_eq!(
            refusal(convert_layer(&weights, &form, &keep)),
            ("OPTION", sentence.to_owned())
        );
    }
    let mut unknown = weights.clone();
    unknown.insert("x".to_owned(), weights["lambda_q1"].clone());
    assert_eq!(
        refusal(convert_layer(&unknown, &form, &keep)).1,
        "weights: expected the names of a layer, got \"x\""
    );
    let wrong = LayerForm {
        heads: layout(INTERLEAVED, None, 4, 4),
        ..form
    };
    assert_eq!(
        refusal(convert_layer(&weights, &wrong, &keep)),
        (
            "SHAPE",
            "weights.k_proj.weight: expected 8 heads of 6 rows, got shape [24, 20]".to_owned()
        )
    );
    let output = LayerTarget {
        output: Some("proj"),
        ..keep.clone()
    };
    assert_eq!(
        refusal(convert_layer(&weights, &form, &output)).1,
        "output: expected out_proj or o_proj, got proj"
    );
    let double = LayerTarget {
        dtype: Some(Dtype::F64),
        ..keep
    };
    assert_eq!(refusal(convert_layer(&weights, &form, &double)).0, "DTYPE");
    let odd = HeadLayout {
        head_dim: 5,
        head_width: 10,
        ..layout(INTERLEAVED, None, 2, 2)
    };
    let (layer, weights) = random(odd, None, false, Dtype::F32);
    let form = LayerForm {
        rope_interleaved: Some(true),
        ..layer.form()
    };
    assert_eq!(
        refusal(convert_layer(&weights, &form, &LayerTarget::diffllama())),
        (
            "SHAPE",
            "head_dim: expected an even number, as rope turns channels in pairs, got 5".to_owned()
        )
    );
}
