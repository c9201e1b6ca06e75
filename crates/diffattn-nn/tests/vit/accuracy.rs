//! Logits and maps against timm's in float64 and against a plain float64 forward pass.

use crate::common::{Case, Sizes, assert_near, borrowed, forward, ok, on, spread};
use diffattn::{Isa, Tensor};
use diffattn_nn::{DiffViT, DiffViTArchitecture, DiffViTConfig, DiffViTOptions, Maps};
use diffattn_reference as reference;

/// How far a logit may be off, as a part of the logits' spread.
const BOUND: f64 = 2e-5;

fn check_maps(name: &str, expected: &reference::AttentionMaps<f64>, got: &Maps) {
    assert_eq!(expected.diff.shape, got.shape, "{name}");
    for (expected, got) in expected.maps.iter().zip(&got.terms) {
        assert_near(name, &expected.data, got, 1e-5);
    }
    assert_near(name, &expected.diff.data, &got.diff, 1e-5);
}

#[test]
fn logits_are_timms() {
    let case = Case::read();
    let tolerance = BOUND * spread(&case.logits);
    for isa in Isa::available() {
        for deterministic in [false, true] {
            let logits = ok(case
                .model
                .forward(case.pixels(), &on(isa, 1, deterministic)));
            assert_near(isa.name(), &case.logits, &logits, tolerance);
        }
    }
}

#[test]
fn the_plain_forward_pass_is_timms() {
    let case = Case::read();
    let passed = forward(&case.stored, false, 2, (&[2, 3, 64, 64], &case.images));
    for (expected, got) in case.logits.iter().zip(&passed.logits) {
        assert!((expected - got).abs() < 1e-6, "{got} instead of {expected}");
    }
    for (layer, expected) in passed.maps.iter().enumerate() {
        let maps = ok(case
            .model
            .maps(case.pixels(), layer, &DiffViTOptions::default()));
        check_maps(&format!("block {layer}"), expected, &maps);
    }
}

fn check(name: &str, sizes: Sizes, batch: usize) {
    let stored = sizes.weights();
    let config = DiffViTConfig::new(sizes.architecture);
    let model = ok(DiffViT::new(&config, &borrowed(&stored)));
    assert_eq!(
        [
            model.img_size(),
            model.num_classes(),
            model.depth(),
            model.num_heads(),
            model.tokens()
        ],
        [
            sizes.img_size(),
            sizes.classes,
            sizes.depth,
            sizes.heads,
            sizes.registers + sizes.grid * sizes.grid
        ]
    );
    let (shape, images) = sizes.images(batch);
    let passed = forward(&stored, sizes.is_parallel(), sizes.heads, (&shape, &images));
    let tolerance = BOUND * spread(&passed.logits);
    for isa in Isa::available() {
        let logits = ok(model.forward(Tensor::f32(&images, &shape), &on(isa, 2, false)));
        assert_near(name, &passed.logits, &logits, tolerance);
    }
    for layer in [0, sizes.depth - 1] {
        let pixels = Tensor::f32(&images, &shape);
        let maps = ok(model.maps(pixels, layer, &DiffViTOptions::default()));
        check_maps(name, &passed.maps[layer], &maps);
    }
}

#[test]
fn every_architecture_is_what_it_is_defined_as() {
    for architecture in DiffViTArchitecture::ALL {
        let small = Sizes::small(architecture);
        check(architecture.name(), small, 3);
        let bare = Sizes {
            biases: false,
            scales: false,
            registers: 0,
            ..small
        };
        check("without biases, scales and registers", bare, 1);
        let other = Sizes {
            scalars: true,
            registers: 4,
            depth: 1,
            ..small
        };
        check("λ of two numbers, four registers", other, 2);
    }
}

/// timm's own sizes, where rows and channels are many.
#[test]
fn full_width() {
    for architecture in [DiffViTArchitecture::Wee, DiffViTArchitecture::ParallelWee] {
        let sizes = Sizes {
            depth: 2,
            grid: 6,
            ..Sizes::full(architecture)
        };
        check(architecture.name(), sizes, 1);
    }
}

#[test]
fn half_precision_weights_are_widened() {
    use half::{bf16, slice::HalfFloatSliceExt};
    let sizes = Sizes::small(DiffViTArchitecture::ParallelWee);
    let mut stored = sizes.weights();
    let mut halves = std::collections::BTreeMap::new();
    for (name, (shape, data)) in &mut stored {
        let half: Vec<bf16> = data.iter().map(|&x| bf16::from_f32(x)).collect();
        half.convert_to_f32_slice(data);
        let bits: Vec<u16> = half.iter().map(|x| x.to_bits()).collect();
        halves.insert(name.clone(), (shape.clone(), bits));
    }
    let weights = halves
        .iter()
        .map(|(name, (shape, data))| {
            let data = diffattn::Data::Bf16(data);
            let shape = shape.clone();
            (name.clone(), Tensor { data, shape })
        })
        .collect();
    let config = DiffViTConfig::new(sizes.architecture);
    let (narrow, wide) = (
        ok(DiffViT::new(&config, &weights)),
        ok(DiffViT::new(&config, &borrowed(&stored))),
    );
    let (shape, images) = sizes.images(1);
    let logits = |model: &DiffViT| {
        ok(model.forward(Tensor::f32(&images, &shape), &DiffViTOptions::default()))
    };
    assert_eq!(logits(&narrow), logits(&wide));
}

#[test]
fn classes_are_ranked_by_their_softmax() {
    let case = Case::read();
    let top = ok(case
        .model
        .classify(case.pixels(), 3, &DiffViTOptions::default()));
    assert_eq!(top.len(), 2);
    for (top, logits) in top.iter().zip(case.logits.chunks(10)) {
        let sum: f64 = logits.iter().map(|x| x.exp()).sum();
        let mut order: Vec<usize> = (0..10).collect();
        order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
        for (score, &id) in top.iter().zip(&order) {
            assert_eq!(score.id, id);
            assert!((score.probability - logits[id].exp() / sum).abs() < 1e-6);
        }
    }
    let strange = ok(diffattn_nn::top_classes(
        &[f32::NEG_INFINITY, 1.0, f32::INFINITY],
        3,
    ));
    assert_eq!(
        strange
            .iter()
            .map(|score| (score.id, score.probability))
            .collect::<Vec<_>>(),
        [(2, 1.0), (1, 0.0), (0, 0.0)]
    );
    let none = ok(diffattn_nn::top_classes(&[1.0, f32::NAN], 2));
    assert_eq!(none[0].id, 1);
    assert!(none.iter().all(|score| score.probability.is_nan()));
}
