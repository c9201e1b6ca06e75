//! Rotary embedding and sequence difference backward: reference cases, transposes of the forward
//! operators, bits, refusals.

use diffattn::{
    DType, DataMut, Isa, Layout, Positions, Rope, RopeBackward, RopeFrequencies, RopeOptions,
    RopeScaling, RopeTable, RopeType, Run, SequenceDifferenceBackward, SequenceDifferenceOptions,
    Tensor, apply_rope, apply_rope_backward, sequence_difference, sequence_difference_backward,
};
use diffattn_reference::testing::{bits, noise};

use crate::support::{Halves, cases, every_run, near, on, refusal, said, step_by_step};

/// The gradient, which is the same on every instruction set and any threads, fused or not.
fn rope_everywhere(dy: Tensor<'_>, options: &RopeOptions<'_>) -> Vec<f32> {
    let call = |run| {
        let options = RopeOptions {
            run,
            ..options.clone()
        };
        apply_rope_backward(dy.clone(), &options).unwrap()
    };
    let first = call(on(Isa::available()[0], 1, false));
    for run in every_run() {
        assert_eq!(bits(&first), bits(&call(run)), "{run:?}");
    }
    first
}

fn difference_everywhere(dy: Tensor<'_>, options: SequenceDifferenceOptions) -> Vec<f32> {
    let call = |run| {
        let options = SequenceDifferenceOptions { run, ..options };
        sequence_difference_backward(dy.clone(), &options).unwrap()
    };
    let first = call(on(Isa::available()[0], 1, false));
    for run in every_run() {
        assert_eq!(bits(&first), bits(&call(run)), "{run:?}");
    }
    first
}

#[test]
fn rope_reference_cases() {
    for fixture in cases("rope", 5) {
        let dy = fixture.f32("dy");
        let positions = fixture.has("positions").then(|| fixture.i64("positions"));
        let options = RopeOptions {
            interleaved: fixture.flag("interleaved"),
            rotary_dim: fixture.count("rotary_dim"),
            frequencies: RopeFrequencies {
                theta: fixture.number("theta"),
                ..RopeFrequencies::default()
            },
            first_position: fixture
                .count("first_position")
                .map(|position| vec![position as i64]),
            positions: positions.as_ref().map(|positions| Positions {
                data: &positions.data,
                shape: positions.shape.clone(),
            }),
            ..RopeOptions::default()
        };
        let dx = rope_everywhere(Tensor::f32(&dy.data, &dy.shape), &options);
        near(&fixture.name, &fixture.expected("dx").unwrap().data, &dx);
    }
}

#[test]
fn difference_reference_cases() {
    let mut count = 0;
    for fixture in cases("sequence", 3) {
        if !fixture.name.contains("difference_order") {
            continue;
        }
        count += 1;
        let dy = fixture.f32("dy");
        let options = SequenceDifferenceOptions {
            order: fixture.count("order").unwrap(),
            ..SequenceDifferenceOptions::default()
        };
        let dx = difference_everywhere(Tensor::f32(&dy.data, &dy.shape), options);
        near(&fixture.name, &fixture.expected("dx").unwrap().data, &dx);
    }
    assert!(count >= 3);
}

/// Σ of products in float64.
fn dot(a: &[f32], b: &[f32]) -> f64 {
    let products = a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b));
    products.sum()
}

/// ⟨dy, f(x)⟩ = ⟨fᵀ(dy), x⟩ of a linear f, in both layouts, with scaled frequencies and an
/// attention factor.
#[test]
fn they_are_the_transposes_of_the_forward_operators() {
    for layout in [Layout::Bhsd, Layout::Bshd] {
        let shape = [2, 3, 5, 10];
        let (x, dy) = (noise(300, 1), noise(300, 2));
        for interleaved in [false, true] {
            let options = RopeOptions {
                layout,
                interleaved,
                rotary_dim: Some(6),
                first_position: Some(vec![3, -4]),
                frequencies: RopeFrequencies {
                    scaling: Some(RopeScaling {
                        rope_type: RopeType::Yarn,
                        factor: Some(4.0),
                        original_max_position_embeddings: Some(32.0),
                        attention_factor: Some(1.7),
                        ..RopeScaling::default()
                    }),
                    ..RopeFrequencies::default()
                },
                ..RopeOptions::default()
            };
            let y = apply_rope(Tensor::f32(&x, &shape), &options).unwrap();
            let dx = rope_everywhere(Tensor::f32(&dy, &shape), &options);
            let (a, b) = (dot(&dy, &y), dot(&dx, &x));
            assert!((a - b).abs() < 1e-5, "{layout:?}: {a} {b}");
        }
        for order in 0..4 {
            let options = SequenceDifferenceOptions {
                order,
                layout,
                ..SequenceDifferenceOptions::default()
            };
            let y = sequence_difference(Tensor::f32(&x, &shape), &options).unwrap();
            let dx = difference_everywhere(Tensor::f32(&dy, &shape), options);
            let (a, b) = (dot(&dy, &y), dot(&dx, &x));
            assert!((a - b).abs() < 1e-4, "{layout:?}, {order}: {a} {b}");
        }
    }
}

#[test]
fn a_table_gives_the_bits_of_a_call_without() {
    let frequencies = RopeFrequencies::default();
    let table = RopeTable::new(0..20, 8, &frequencies, Run::default()).unwrap();
    let dy = noise(2 * 7 * 8, 3);
    let with = RopeOptions {
        first_position: Some(vec![9]),
        table: Some(&table),
        ..RopeOptions::default()
    };
    let without = RopeOptions {
        table: None,
        ..with.clone()
    };
    let shape = [1, 2, 7, 8];
    let [with, without] =
        [with, without].map(|options| rope_everywhere(Tensor::f32(&dy, &shape), &options));
    assert_eq!(bits(&with), bits(&without));
}

#[test]
fn slices_and_other_sequences_change_no_bit() {
    let shape = [3, 4, 700, 40];
    let dy = noise(shape.iter().product(), 4);
    let tensor = || Tensor::f32(&dy, &shape);
    let entry = 4 * 700 * 40;
    let alone = || Tensor::f32(&dy[entry..2 * entry], &[1, 4, 700, 40]);
    let mut dx = vec![f32::NAN; dy.len()];

    let options = RopeOptions::default();
    let whole = rope_everywhere(tensor(), &options);
    let call = RopeBackward::new(tensor(), &options).unwrap();
    assert_eq!(call.output_shape(), shape);
    assert!(step_by_step(call.into_work(DataMut::F32(&mut dx)).unwrap()) > 2);
    assert_eq!(bits(&dx), bits(&whole));
    let alone_dx = rope_everywhere(alone(), &options);
    assert_eq!(bits(&alone_dx), bits(&whole[entry..2 * entry]));

    let options = SequenceDifferenceOptions {
        order: 3,
        ..SequenceDifferenceOptions::default()
    };
    let whole = difference_everywhere(tensor(), options);
    let call = SequenceDifferenceBackward::new(tensor(), &options).unwrap();
    assert!(step_by_step(call.into_work(DataMut::F32(&mut dx)).unwrap()) > 2);
    assert_eq!(bits(&dx), bits(&whole));
    let alone_dx = difference_everywhere(alone(), options);
    assert_eq!(bits(&alone_dx), bits(&whole[entry..2 * entry]));
}

#[test]
fn halves_give_what_their_values_give() {
    let shape = [2, 2, 5, 20];
    for dtype in [DType::F16, DType::Bf16] {
        let dy = Halves::of(dtype, &noise(400, 5));
        let wide = || Tensor::f32(&dy.values, &shape);
        let options = RopeOptions::default();
        let expected = rope_everywhere(wide(), &options);
        assert_eq!(
            bits(&rope_everywhere(dy.tensor(&shape), &options)),
            bits(&expected)
        );
        let options = SequenceDifferenceOptions::default();
        let expected = difference_everywhere(wide(), options);
        let got = difference_everywhere(dy.tensor(&shape), options);
        assert_eq!(bits(&got), bits(&expected));
        // Gradients are float32 whatever dy is.
        let call = RopeBackward::new(dy.tensor(&shape), &RopeOptions::default()).unwrap();
        assert_eq!(call.output_dtype(), DType::F32);
        let mut out = [0; 400];
        assert_eq!(
            refusal(call.into_work(DataMut::F16(&mut out))),
            said(
                "DTYPE",
                "out: expected float32, as gradients are, got float16"
            )
        );
    }
}

#[test]
fn empty_tensors_give_empty_gradients() {
    for shape in [[0, 2, 3, 4], [2, 0, 3, 4], [2, 2, 0, 4], [2, 2, 3, 0]] {
        let empty = || Tensor::f32(&[], &shape);
        let options = RopeOptions::default();
        assert_eq!(
            apply_rope_backward(empty(), &options),
            Ok(vec![]),
            "{shape:?}"
        );
        let options = SequenceDifferenceOptions::default();
        assert_eq!(sequence_difference_backward(empty(), &options), Ok(vec![]));
    }
}

#[test]
fn refusals_name_the_argument() {
    let dy = [0.0; 24];
    let rope = |shape: &[usize], options: &RopeOptions<'_>| {
        refusal(apply_rope_backward(Tensor::f32(&dy, shape), options))
    };
    let options = RopeOptions::default;
    assert_eq!(
        rope(&[2, 12], &options()),
        said("SHAPE", "dy: expected 4 axes, got [2, 12]")
    );
    assert_eq!(
        rope(&[1, 2, 3, 5], &options()),
        said(
            "SHAPE",
            "dy: expected 30 elements for shape [1, 2, 3, 5], got 24"
        )
    );
    let rotary_dim = Some(5);
    assert_eq!(
        rope(
            &[1, 2, 3, 4],
            &RopeOptions {
                rotary_dim,
                ..options()
            }
        ),
        said(
            "SHAPE",
            "rotary_dim: expected an even number of at most 4 channels, got 5"
        )
    );
    // All else is refused as in the forward call.
    let options = RopeOptions {
        first_position: Some(vec![1, 2, 3]),
        ..options()
    };
    let forward = refusal(Rope::new(Tensor::f32(&dy, &[2, 1, 3, 4]), &options));
    assert_eq!(rope(&[2, 1, 3, 4], &options), forward);

    let difference = |shape: &[usize], order| {
        let options = SequenceDifferenceOptions {
            order,
            ..SequenceDifferenceOptions::default()
        };
        refusal(sequence_difference_backward(
            Tensor::f32(&dy, shape),
            &options,
        ))
    };
    assert_eq!(
        difference(&[24], 1),
        said("SHAPE", "dy: expected 4 axes, got [24]")
    );
    assert_eq!(
        difference(&[1, 2, 3, 4], 65),
        said("OPTION", "order: expected 0 to 64, got 65")
    );
}
