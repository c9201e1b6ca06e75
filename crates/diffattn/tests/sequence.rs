//! The rotary embedding and backward differences: accuracy against the oracle, bits, refusals.

#![expect(clippy::unwrap_used, reason = "tests")]

use diffattn::{
    Data, DataMut, Isa, Layout, Positions, Rope, RopeFrequencies, RopeOptions, RopeScaling,
    RopeTable, RopeType, Run, SequenceDifference, SequenceDifferenceOptions, Tensor, apply_rope,
    sequence_difference,
};
use diffattn_reference::testing::{bits, hash, noise};
use diffattn_reference::{self as reference, Tensor as Reference, fixture};
use half::{bf16, f16};
use proptest::prelude::*;

/// Error of one turned channel, per |a| + |b| of its pair: four roundings of half a unit, cosine
/// and sine included.
const TURN_BOUND: f64 = 2.0 * f32::EPSILON as f64;

/// Numbers below 2⁻¹⁴⁹ are none of float32's.
const SMALLEST: f64 = 1.4e-45;

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&x| f64::from(x)).collect()
}

/// A bhsd tensor as bshd, and the other way round.
fn swap(x: &[f32], shape: [usize; 4]) -> (Vec<f32>, [usize; 4]) {
    let swapped = Reference::new(&shape, x.to_vec()).swap_middle_axes();
    let [b, n, l, d] = shape;
    (swapped.data, [b, l, n, d])
}

/// What an oracle's rope is here.
fn frequencies(rope: &reference::Rope) -> RopeFrequencies {
    let scaling = match rope.scaling {
        reference::RopeScaling::Default => None,
        reference::RopeScaling::Linear { factor } => Some(RopeScaling {
            rope_type: RopeType::Linear,
            factor: Some(factor),
            ..RopeScaling::default()
        }),
        reference::RopeScaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_max_position_embeddings,
        } => Some(RopeScaling {
            rope_type: RopeType::Llama3,
            factor: Some(factor),
            low_freq_factor: Some(low_freq_factor),
            high_freq_factor: Some(high_freq_factor),
            original_max_position_embeddings: Some(original_max_position_embeddings),
            ..RopeScaling::default()
        }),
        reference::RopeScaling::Yarn {
            factor,
            original_max_position_embeddings,
            attention_factor,
            mscale,
            mscale_all_dim,
            beta_fast,
            beta_slow,
            truncate,
        } => Some(RopeScaling {
            rope_type: RopeType::Yarn,
            factor: Some(factor),
            original_max_position_embeddings: Some(original_max_position_embeddings),
            attention_factor,
            mscale,
            mscale_all_dim,
            beta_fast: Some(beta_fast),
            beta_slow: Some(beta_slow),
            truncate: Some(truncate),
            ..RopeScaling::default()
        }),
    };
    RopeFrequencies {
        theta: Some(rope.theta),
        scaling,
        max_position_embeddings: None,
    }
}

/// Checks `y` bhsd against the oracle at `positions`, which broadcast to [B, L].
fn check_rope(
    name: &str,
    x: &Reference<f64>,
    rope: &reference::Rope,
    positions: &Reference<i64>,
    y: &[f32],
) {
    let expected = reference::apply_rope(x, rope, positions);
    let d = x.shape[3];
    let rotary_dim = rope.rotary_dim.unwrap_or(d);
    let (_, factor) = rope.frequencies(rotary_dim);
    for (i, (&y, &expected)) in y.iter().zip(&expected.data).enumerate() {
        let (row, c) = (i / d * d, i % d);
        let bound = if c >= rotary_dim {
            0.0
        } else {
            let partner = match (rope.interleaved, c < rotary_dim / 2) {
                (true, _) => c ^ 1,
                (false, true) => c + rotary_dim / 2,
                (false, false) => c - rotary_dim / 2,
            };
            TURN_BOUND * factor * (x.data[row + c].abs() + x.data[row + partner].abs()) + SMALLEST
        };
        let error = (f64::from(y) - expected).abs();
        assert!(
            error <= bound,
            "{name}: [{i}] {y} instead of {expected}, bound {bound:e}"
        );
    }
}

#[test]
fn rope_fixtures() {
    let cases = fixture::read_all("rope");
    assert!(cases.len() >= 6, "{} cases", cases.len());
    for case in cases {
        let rope = case.rope();
        let x = case.f32("x");
        let first = case.count("first_position").unwrap() as i64;
        let expected = case.expected("y").unwrap();
        // Where transformers made the frequencies, they are float32.
        let (relative, absolute) = match case.name.contains("scaling") {
            true => (3e-5, 1e-4),
            false => (2e-7, 2e-7),
        };
        for isa in Isa::available() {
            for threads in [1, 2, 3, 7] {
                let options = RopeOptions {
                    interleaved: rope.interleaved,
                    frequencies: frequencies(&rope),
                    rotary_dim: rope.rotary_dim,
                    first_position: Some(vec![first]),
                    run: on(isa, threads),
                    ..RopeOptions::default()
                };
                let y = apply_rope(Tensor::f32(&x.data, &x.shape), &options).unwrap();
                for (i, (&y, &expected)) in y.iter().zip(&expected.data).enumerate() {
                    let error = (f64::from(y) - expected).abs();
                    assert!(
                        error <= relative * expected.abs() + absolute,
                        "{}: [{i}] {y} instead of {expected}",
                        case.name
                    );
                }
                let positions = reference::positions_from(first, x.shape[2]);
                check_rope(&case.name, &case.f64("x"), &rope, &positions, &y);
            }
        }
    }
}

fn scaling() -> impl Strategy<Value = reference::RopeScaling> {
    use reference::RopeScaling::{Default, Linear, Llama3, Yarn};
    let original = prop_oneof![Just(64.0), Just(4096.0)];
    let optional = prop::option::of(0.1..2.0f64);
    prop_oneof![
        Just(Default),
        (1.0..16.0f64).prop_map(|factor| Linear { factor }),
        (1.0..16.0f64, 0.5..2.0f64, 2.5..8.0f64, original.clone()).prop_map(
            |(factor, low, high, original)| Llama3 {
                factor,
                low_freq_factor: low,
                high_freq_factor: high,
                original_max_position_embeddings: original,
            }
        ),
        (
            0.5..16.0f64,
            original,
            optional.clone(),
            optional.clone(),
            optional,
            8.0..64.0f64,
            0.5..4.0f64,
            any::<bool>()
        )
            .prop_map(
                |(
                    factor,
                    original,
                    attention_factor,
                    mscale,
                    mscale_all_dim,
                    beta_fast,
                    beta_slow,
                    truncate,
                )| Yarn {
                    factor,
                    original_max_position_embeddings: original,
                    attention_factor,
                    mscale,
                    mscale_all_dim,
                    beta_fast,
                    beta_slow,
                    truncate,
                }
            ),
    ]
}

/// How the positions of a random case are given.
#[derive(Clone, Copy, Debug)]
enum Given {
    Nothing,
    First,
    FirstByBatch,
    List,
    ListByBatch,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn rope_equals_the_oracle(
        [b, n, l] in [0..3usize, 1..4, 0..20],
        d in 1..70usize,
        rotary in prop::option::of(0..35usize),
        interleaved in any::<bool>(),
        theta in prop_oneof![Just(10_000.0), Just(500_000.0), 2.0..1e6f64],
        scaling in scaling(),
        given in prop::sample::select(vec![Given::Nothing, Given::First, Given::FirstByBatch, Given::List, Given::ListByBatch]),
        far in prop_oneof![Just(100i64), Just(1_000_000)],
        seed in any::<u64>(),
    ) {
        // Without a rotary_dim every channel turns, so their number is even.
        let d = if rotary.is_some() { d } else { d + d % 2 };
        let rotary_dim = rotary.map(|pairs| (2 * pairs).min(d / 2 * 2));
        let rope = reference::Rope { interleaved, theta, rotary_dim, scaling };
        let shape = [b, n, l, d];
        let x = noise(shape.iter().product(), seed);
        let random: Vec<i64> = noise(b * l + l + b + 1, seed ^ 1).iter().map(|&x| (f64::from(x) * far as f64) as i64).collect();
        let from = |first: i64| (first..).take(l);
        let mut options = RopeOptions { interleaved, frequencies: frequencies(&rope), rotary_dim, ..RopeOptions::default() };
        let positions = match given {
            Given::Nothing => reference::positions_from(0, l),
            Given::First => {
                options.first_position = Some(vec![random[0]]);
                reference::positions_from(random[0], l)
            }
            Given::FirstByBatch => {
                options.first_position = Some(random[..b].to_vec());
                Reference::new(&[b, l], random[..b].iter().flat_map(|&first| from(first)).collect())
            }
            Given::List => {
                options.positions = Some(Positions { data: &random[..l], shape: vec![l] });
                Reference::new(&[1, l], random[..l].to_vec())
            }
            Given::ListByBatch => {
                options.positions = Some(Positions { data: &random[..b * l], shape: vec![b, l] });
                Reference::new(&[b, l], random[..b * l].to_vec())
            }
        };
        let (swapped, swapped_shape) = swap(&x, shape);
        let mut first: Option<Vec<f32>> = None;
        for isa in Isa::available() {
            options.run = Run::default().with_isa(isa);
            options.layout = Layout::Bhsd;
            let y = apply_rope(Tensor::f32(&x, &shape), &options).unwrap();
            options.layout = Layout::Bshd;
            let y_swapped = apply_rope(Tensor::f32(&swapped, &swapped_shape), &options).unwrap();
            prop_assert_eq!(bits(&swap(&y, shape).0), bits(&y_swapped));
            let first = first.get_or_insert_with(|| y.clone());
            prop_assert_eq!(bits(&y), bits(first));
        }
        if let Some(y) = first && !y.is_empty() {
            check_rope("random case", &Reference::new(&shape, wide(&x)), &rope, &positions, &y);
            // A table of all its positions changes no bit.
            let (low, high) = (positions.data.iter().min().unwrap(), positions.data.iter().max().unwrap());
            if high - low < 1000 {
                let table = RopeTable::new(low - 1..high + 1, rotary_dim.unwrap_or(d), &options.frequencies, Run::default()).unwrap();
                options.layout = Layout::Bhsd;
                options.table = Some(&table);
                let with_table = apply_rope(Tensor::f32(&x, &shape), &options).unwrap();
                prop_assert_eq!(bits(&with_table), bits(&y));
            }
        }
    }

    #[test]
    fn difference_equals_the_oracle(
        [b, n, l] in [0..3usize, 1..4, 0..40],
        d in 1..40usize,
        order in 0..7usize,
        seed in any::<u64>(),
    ) {
        let shape = [b, n, l, d];
        let x = noise(shape.iter().product(), seed);
        let expected = reference::sequence_difference(&Reference::new(&shape, wide(&x)), order);
        let (swapped, swapped_shape) = swap(&x, shape);
        for isa in Isa::available() {
            let mut options = SequenceDifferenceOptions { order, run: Run::default().with_isa(isa), ..SequenceDifferenceOptions::default() };
            let y = sequence_difference(Tensor::f32(&x, &shape), &options).unwrap();
            // |x| ≤ 1: the k-th difference is below 2^k, and each of them is rounded once and grows
            // on.
            let bound = (order as f64) * f64::from(1u32 << order) * f64::from(f32::EPSILON) / 2.0;
            for (i, (&y, &expected)) in y.iter().zip(&expected.data).enumerate() {
                prop_assert!((f64::from(y) - expected).abs() <= bound, "[{i}] {y} instead of {expected}");
            }
            options.layout = Layout::Bshd;
            let y_swapped = sequence_difference(Tensor::f32(&swapped, &swapped_shape), &options).unwrap();
            prop_assert_eq!(bits(&swap(&y, shape).0), bits(&y_swapped));
        }
    }
}

#[test]
fn difference_fixtures() {
    let cases: Vec<_> = fixture::read_all("sequence")
        .into_iter()
        .filter(|case| case.text("op") == Some("sequence_difference"))
        .collect();
    assert!(cases.len() >= 3, "{} cases", cases.len());
    for case in cases {
        let order = case.count("order").unwrap();
        let x = case.f32("x");
        let expected = case.expected("y").unwrap();
        let largest = x.data.iter().fold(0.0, |m: f32, x| m.max(x.abs()));
        let bound =
            f64::from(largest) * order as f64 * f64::from(1u32 << order) * f64::from(f32::EPSILON)
                / 2.0;
        for isa in Isa::available() {
            for threads in [1, 2, 3, 7] {
                let options = SequenceDifferenceOptions {
                    order,
                    run: on(isa, threads),
                    ..SequenceDifferenceOptions::default()
                };
                let y = sequence_difference(Tensor::f32(&x.data, &x.shape), &options).unwrap();
                for (i, (&y, &expected)) in y.iter().zip(&expected.data).enumerate() {
                    assert!(
                        (f64::from(y) - expected).abs() <= bound,
                        "{}: [{i}] {y} instead of {expected}",
                        case.name
                    );
                }
            }
        }
    }
}

/// Large enough for many units and several threads.
const LARGE: [usize; 4] = [2, 3, 3001, 66];

#[test]
fn threads_and_slices_change_no_bit() {
    let x = noise(LARGE.iter().product(), 3);
    for (layout, shape) in [
        (Layout::Bhsd, LARGE),
        (Layout::Bshd, [LARGE[0], LARGE[2], LARGE[1], LARGE[3]]),
    ] {
        for interleaved in [false, true] {
            let rope = |isa, threads| RopeOptions {
                layout,
                interleaved,
                first_position: Some(vec![7, -50_000]),
                run: on(isa, threads),
                ..RopeOptions::default()
            };
            let expected = apply_rope(Tensor::f32(&x, &shape), &rope(Isa::detect(), 1)).unwrap();
            for isa in Isa::available() {
                for threads in [1, 2, 3, 7, 16] {
                    let y = apply_rope(Tensor::f32(&x, &shape), &rope(isa, threads)).unwrap();
                    assert!(
                        bits(&y) == bits(&expected),
                        "{layout:?}, {isa:?}, {threads} threads"
                    );
                }
            }
            let mut y = vec![f32::NAN; x.len()];
            let job = Rope::new(Tensor::f32(&x, &shape), &rope(Isa::detect(), 2)).unwrap();
            let mut job = job.into_work(DataMut::F32(&mut y)).unwrap();
            assert!(job.total() > 20, "{} units", job.total());
            while job.done() < job.total() {
                let before = job.done();
                job.step(1).unwrap();
                assert_eq!(job.done(), before + 1);
            }
            drop(job);
            assert!(bits(&y) == bits(&expected), "{layout:?} by slices");
        }
        for order in [0, 1, 3, 20] {
            let options = |isa, threads| SequenceDifferenceOptions {
                order,
                layout,
                run: on(isa, threads),
            };
            let expected =
                sequence_difference(Tensor::f32(&x, &shape), &options(Isa::detect(), 1)).unwrap();
            for isa in Isa::available() {
                for threads in [2, 3, 7, 16] {
                    let y = sequence_difference(Tensor::f32(&x, &shape), &options(isa, threads))
                        .unwrap();
                    assert!(
                        bits(&y) == bits(&expected),
                        "{layout:?}, {isa:?}, {threads} threads"
                    );
                }
            }
        }
    }
}

/// One machine has no two architectures, so the bits they share are written down.
#[test]
fn bits_are_those_of_every_machine() {
    let shape = [2, 3, 201, 34];
    let x = noise(shape.iter().product(), 7);
    for isa in Isa::available() {
        for (interleaved, expected) in [
            (false, 0xa94d_0bfd_128d_171b),
            (true, 0x1452_e565_5dcc_bd79),
        ] {
            let options = RopeOptions {
                interleaved,
                rotary_dim: Some(30),
                first_position: Some(vec![100_000]),
                run: Run::default().with_isa(isa),
                ..RopeOptions::default()
            };
            let y = apply_rope(Tensor::f32(&x, &shape), &options).unwrap();
            assert_eq!(hash(&y), expected, "interleaved {interleaved}, {isa:?}");
        }
        let options = SequenceDifferenceOptions {
            order: 5,
            run: Run::default().with_isa(isa),
            ..SequenceDifferenceOptions::default()
        };
        let y = sequence_difference(Tensor::f32(&x, &shape), &options).unwrap();
        assert_eq!(hash(&y), 0x976c_0206_9a17_7a3c, "{isa:?}");
    }
}

/// A token's difference needs no other unit than its own: what follows a NaN by more than the order
/// is clean, and what lies far into a sequence equals the differences of its end alone.
#[test]
fn differences_see_as_many_tokens_back_as_their_order() {
    let (l, d, order) = (5000, 64, 3);
    let mut x = noise(l * d, 4);
    let options = SequenceDifferenceOptions {
        order,
        ..SequenceDifferenceOptions::default()
    };
    let clean = sequence_difference(Tensor::f32(&x, &[1, 1, l, d]), &options).unwrap();
    let tail_from = 4000;
    let tail = sequence_difference(
        Tensor::f32(&x[tail_from * d..], &[1, 1, l - tail_from, d]),
        &options,
    )
    .unwrap();
    assert_eq!(
        bits(&tail[order * d..]),
        bits(&clean[(tail_from + order) * d..])
    );
    for token in [0, 2046, 2047, 2048, 4999] {
        let kept = std::mem::replace(&mut x[token * d], f32::NAN);
        let y = sequence_difference(Tensor::f32(&x, &[1, 1, l, d]), &options).unwrap();
        for (i, (y, clean)) in y.iter().zip(&clean).enumerate() {
            if i % d == 0 && (token..=token + order).contains(&(i / d)) {
                assert!(y.is_nan(), "[{i}]");
            } else {
                assert_eq!(y.to_bits(), clean.to_bits(), "[{i}]");
            }
        }
        x[token * d] = kept;
    }
}

#[test]
fn halves_are_rounded_once() {
    let shape = [2, 3, 11, 10];
    let values = noise(shape.iter().product(), 5);
    let stored: Vec<u16> = values.iter().map(|&x| f16::from_f32(x).to_bits()).collect();
    let brain: Vec<u16> = values
        .iter()
        .map(|&x| bf16::from_f32(x).to_bits())
        .collect();
    let rope = RopeOptions {
        rotary_dim: Some(6),
        ..RopeOptions::default()
    };
    let difference = SequenceDifferenceOptions {
        order: 2,
        ..SequenceDifferenceOptions::default()
    };
    let widened: Vec<f32> = stored.iter().map(|&x| f16::from_bits(x).to_f32()).collect();
    let narrow =
        |y: Vec<f32>| -> Vec<u16> { y.iter().map(|&y| f16::from_f32(y).to_bits()).collect() };
    let half = || Tensor {
        data: Data::F16(&stored),
        shape: shape.to_vec(),
    };
    let mut y = vec![0; stored.len()];
    let job = Rope::new(half(), &rope).unwrap();
    job.into_work(DataMut::F16(&mut y))
        .unwrap()
        .finish()
        .unwrap();
    assert_eq!(
        y,
        narrow(apply_rope(Tensor::f32(&widened, &shape), &rope).unwrap())
    );
    let mut y = vec![0; stored.len()];
    let job = SequenceDifference::new(half(), &difference).unwrap();
    job.into_work(DataMut::F16(&mut y))
        .unwrap()
        .finish()
        .unwrap();
    assert_eq!(
        y,
        narrow(sequence_difference(Tensor::f32(&widened, &shape), &difference).unwrap())
    );

    let widened: Vec<f32> = brain.iter().map(|&x| bf16::from_bits(x).to_f32()).collect();
    let narrow =
        |y: Vec<f32>| -> Vec<u16> { y.iter().map(|&y| bf16::from_f32(y).to_bits()).collect() };
    let half = || Tensor {
        data: Data::Bf16(&brain),
        shape: shape.to_vec(),
    };
    let mut y = vec![0; brain.len()];
    let job = Rope::new(half(), &rope).unwrap();
    job.into_work(DataMut::Bf16(&mut y))
        .unwrap()
        .finish()
        .unwrap();
    assert_eq!(
        y,
        narrow(apply_rope(Tensor::f32(&widened, &shape), &rope).unwrap())
    );
    let mut y = vec![0; brain.len()];
    let job = SequenceDifference::new(half(), &difference).unwrap();
    job.into_work(DataMut::Bf16(&mut y))
        .unwrap()
        .finish()
        .unwrap();
    assert_eq!(
        y,
        narrow(sequence_difference(Tensor::f32(&widened, &shape), &difference).unwrap())
    );
}

/// `theta`, where given, wins over `scaling.rope_theta`; lengths fall back to the model's.
#[test]
fn options_have_their_order() {
    let x = noise(2 * 300 * 16, 6);
    let turn = |frequencies| {
        let options = RopeOptions {
            frequencies,
            ..RopeOptions::default()
        };
        bits(&apply_rope(Tensor::f32(&x, &[1, 2, 300, 16]), &options).unwrap())
    };
    let scaled = |scaling: RopeScaling| RopeFrequencies {
        scaling: Some(scaling),
        ..RopeFrequencies::default()
    };
    let by_theta = |theta| RopeFrequencies {
        theta: Some(theta),
        ..RopeFrequencies::default()
    };
    let default = RopeScaling::default();
    let theta_inside = RopeScaling {
        rope_theta: Some(500.0),
        ..default
    };
    assert_eq!(turn(RopeFrequencies::default()), turn(by_theta(10_000.0)));
    assert_eq!(turn(scaled(theta_inside)), turn(by_theta(500.0)));
    assert_ne!(turn(by_theta(500.0)), turn(by_theta(10_000.0)));
    let both = RopeFrequencies {
        theta: Some(77.0),
        ..scaled(theta_inside)
    };
    assert_eq!(turn(both), turn(by_theta(77.0)));

    let yarn = RopeScaling {
        rope_type: RopeType::Yarn,
        factor: Some(4.0),
        original_max_position_embeddings: Some(64.0),
        ..default
    };
    let spelled_out = RopeScaling {
        beta_fast: Some(32.0),
        beta_slow: Some(1.0),
        truncate: Some(true),
        // ln 4, exactly as `libm` has it.
        attention_factor: Some(0.1 * (2.0 * std::f64::consts::LN_2) + 1.0),
        ..yarn
    };
    assert_eq!(turn(scaled(yarn)), turn(scaled(spelled_out)));
    let by_length = RopeFrequencies {
        max_position_embeddings: Some(256.0),
        ..scaled(RopeScaling {
            factor: None,
            ..yarn
        })
    };
    assert_eq!(turn(by_length), turn(scaled(yarn)));
    let trained_length = RopeFrequencies {
        max_position_embeddings: Some(64.0),
        ..scaled(RopeScaling {
            original_max_position_embeddings: None,
            ..yarn
        })
    };
    assert_eq!(turn(trained_length), turn(scaled(yarn)));
    for other in [
        RopeScaling {
            truncate: Some(false),
            ..yarn
        },
        RopeScaling {
            beta_fast: Some(2.0),
            ..yarn
        },
        RopeScaling {
            attention_factor: Some(1.0),
            ..yarn
        },
        RopeScaling {
            mscale: Some(2.0),
            mscale_all_dim: Some(1.0),
            ..yarn
        },
    ] {
        assert_ne!(turn(scaled(other)), turn(scaled(yarn)), "{other:?}");
    }
}

#[test]
fn refusals_name_the_argument() {
    let x = [0.0; 48];
    let shape = [2, 2, 3, 4];
    let sentence = |options: &RopeOptions<'_>| {
        let error = apply_rope(Tensor::f32(&x, &shape), options).unwrap_err();
        format!("{} {error}", error.code())
    };
    let options = RopeOptions::default;
    let scaled = |rope_type| RopeScaling {
        rope_type,
        ..RopeScaling::default()
    };
    let by = |scaling| RopeOptions {
        frequencies: RopeFrequencies {
            scaling: Some(scaling),
            ..RopeFrequencies::default()
        },
        ..options()
    };
    for rotary_dim in [3, 6] {
        assert_eq!(
            sentence(&RopeOptions {
                rotary_dim: Some(rotary_dim),
                ..options()
            }),
            format!(
                "SHAPE rotary_dim: expected an even number of at most 4 channels, got {rotary_dim}"
            )
        );
    }
    assert_eq!(
        sentence(&RopeOptions {
            first_position: Some(vec![1, 2, 3]),
            ..options()
        }),
        "SHAPE first_position: expected 1 or 2 values (one per batch entry), got 3"
    );
    assert_eq!(
        sentence(&RopeOptions {
            first_position: Some(vec![i64::MAX]),
            ..options()
        }),
        format!(
            "OPTION first_position: expected positions that fit 64 bits, got {}",
            i64::MAX
        )
    );
    let positions = |data, shape: &[usize]| Positions {
        data,
        shape: shape.to_vec(),
    };
    for wrong in [&[4][..], &[1, 3], &[2, 4], &[2, 3, 1]] {
        assert_eq!(
            sentence(&RopeOptions {
                positions: Some(positions(&[0; 8], wrong)),
                ..options()
            }),
            format!("SHAPE positions: expected shape [3] or [2, 3], got {wrong:?}")
        );
    }
    assert_eq!(
        sentence(&RopeOptions {
            positions: Some(positions(&[0; 5], &[2, 3])),
            ..options()
        }),
        "SHAPE positions: expected 6 elements for shape [2, 3], got 5"
    );
    assert_eq!(
        sentence(&RopeOptions {
            positions: Some(positions(&[0; 3], &[3])),
            first_position: Some(vec![0]),
            ..options()
        }),
        "OPTION first_position: expected nothing beside positions, got both"
    );
    let table = RopeTable::new(0..2, 4, &RopeFrequencies::default(), Run::default()).unwrap();
    assert_eq!((table.positions(), table.rotary_dim()), (0..2, 4));
    assert_eq!(
        sentence(&RopeOptions {
            table: Some(&table),
            ..options()
        }),
        "SHAPE table: expected one with every position of the call, such as 2, got 0..2"
    );
    assert_eq!(
        sentence(&RopeOptions {
            table: Some(&table),
            rotary_dim: Some(2),
            ..options()
        }),
        "SHAPE table: expected one for 2 channels, got 4"
    );
    assert_eq!(
        sentence(&by(scaled(RopeType::Linear))),
        "OPTION scaling.factor: expected a number for rope_type linear, got none"
    );
    assert_eq!(
        sentence(&by(scaled(RopeType::Yarn))),
        "OPTION scaling.original_max_position_embeddings: expected a number for rope_type yarn, got none"
    );
    let llama3 = RopeScaling {
        factor: Some(8.0),
        low_freq_factor: Some(1.0),
        high_freq_factor: Some(4.0),
        original_max_position_embeddings: Some(64.0),
        ..scaled(RopeType::Llama3)
    };
    assert_eq!(
        sentence(&by(RopeScaling {
            high_freq_factor: None,
            ..llama3
        })),
        "OPTION scaling.high_freq_factor: expected a number for rope_type llama3, got none"
    );
    assert_eq!(
        sentence(&by(RopeScaling {
            high_freq_factor: Some(1.0),
            ..llama3
        })),
        "OPTION scaling.high_freq_factor: expected more than low_freq_factor 1, got 1"
    );
    assert_eq!(
        sentence(&by(RopeScaling {
            factor: Some(-2.0),
            ..llama3
        })),
        "OPTION scaling.factor: expected a finite number above 0, got -2"
    );
    assert_eq!(
        sentence(&RopeOptions {
            frequencies: RopeFrequencies {
                theta: Some(0.0),
                ..RopeFrequencies::default()
            },
            ..options()
        }),
        "OPTION theta: expected a finite number above 0, got 0"
    );
    let rank = apply_rope(Tensor::f32(&x, &[2, 6, 4]), &options()).unwrap_err();
    assert_eq!(
        (rank.code(), rank.to_string()),
        ("SHAPE", "x: expected 4 axes, got [2, 6, 4]".to_owned())
    );
    let backwards = RopeTable::new(
        std::ops::Range { start: 4, end: 2 },
        4,
        &RopeFrequencies::default(),
        Run::default(),
    )
    .unwrap_err();
    assert_eq!(backwards.code(), "SHAPE");
    let odd = RopeTable::new(0..2, 3, &RopeFrequencies::default(), Run::default()).unwrap_err();
    assert_eq!(
        odd.to_string(),
        "rotary_dim: expected an even number of channels, got 3"
    );
    let endless = RopeTable::new(
        i64::MIN..i64::MAX,
        4,
        &RopeFrequencies::default(),
        Run::default(),
    );
    assert_eq!(endless.unwrap_err().code(), "SHAPE");

    let difference = |options: &SequenceDifferenceOptions| {
        let error = sequence_difference(Tensor::f32(&x, &shape), options).unwrap_err();
        format!("{} {error}", error.code())
    };
    let default = SequenceDifferenceOptions::default();
    assert_eq!(
        difference(&SequenceDifferenceOptions {
            order: 65,
            ..default
        }),
        "OPTION order: expected 0 to 64, got 65"
    );
    let rank = sequence_difference(Tensor::f32(&x, &[12, 4]), &default).unwrap_err();
    assert_eq!(rank.to_string(), "x: expected 4 axes, got [12, 4]");
}

fn on(isa: Isa, threads: usize) -> Run {
    Run::new(Some(isa), Some(threads), false).unwrap_or_else(|error| panic!("{error}"))
}
