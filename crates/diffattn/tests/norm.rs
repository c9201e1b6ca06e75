//! Group norm and RMS norm: accuracy against the oracle by the rule of the contract, bits, values,
//! refusals.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

use diffattn::{
    Activation, ChannelLayout, DType, Data, DataMut, Error, GroupNorm, GroupNormOptions, Isa,
    RmsNorm, RmsNormOptions, Run, Tensor, Work, group_norm, rms_norm,
};
use diffattn_reference::testing::{bits, hash, noise};
use diffattn_reference::{self as reference, fixture};
use half::{bf16, f16};
use proptest::prelude::*;

/// The bound of the contract, per |weight|·max(1, |x̂|) + |bias|.
const BOUND: f64 = 5e-7;

/// Two units of the last place, relative: what SiLU may add.
const SILU_BOUND: f64 = 2.0 * f32::EPSILON as f64;

/// The steepest slope of SiLU, by which an error before it grows.
const SILU_SLOPE: f64 = 1.1;

/// Numbers below 2⁻¹⁴⁹ are none of float32's.
const SMALLEST: f64 = 1.4e-45;

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&x| f64::from(x)).collect()
}

/// The rule: the largest error, and where, over the bound of each element.
fn check(name: &str, y: &[f32], expected: &[f64], bounds: impl Fn(usize) -> f64) {
    assert_eq!(y.len(), expected.len(), "{name}");
    let mut worst = (0.0, 0);
    for (i, (&y, &expected)) in y.iter().zip(expected).enumerate() {
        if expected.is_nan() {
            assert!(y.is_nan(), "{name}: [{i}] {y} instead of NaN");
            continue;
        }
        let error = (f64::from(y) - expected).abs() / (bounds(i) + SMALLEST);
        // A NaN counts as the worst.
        if error > worst.0 || error.is_nan() {
            worst = (error, i);
        }
    }
    let (error, i) = worst;
    assert!(
        error <= 1.0,
        "{name}: [{i}] {} instead of {}, {error} of the bound",
        y[i],
        expected[i]
    );
}

/// A group norm as this crate and as the oracle take it.
#[derive(Clone, Debug)]
struct GroupCase {
    shape: Vec<usize>,
    x: Vec<f32>,
    num_groups: usize,
    weight: Option<Vec<f32>>,
    bias: Option<Vec<f32>>,
    eps: f32,
    layout: ChannelLayout,
    silu: bool,
}

impl GroupCase {
    fn options(&self, isa: Isa, threads: usize) -> GroupNormOptions<'_> {
        GroupNormOptions {
            num_groups: self.num_groups,
            weight: self.weight.as_deref(),
            bias: self.bias.as_deref(),
            eps: self.eps,
            layout: self.layout,
            activation: self.silu.then_some(Activation::Silu),
            run: on(isa, threads),
        }
    }

    fn run(&self, isa: Isa, threads: usize) -> Vec<f32> {
        group_norm(
            Tensor::f32(&self.x, &self.shape),
            &self.options(isa, threads),
        )
        .unwrap()
    }

    fn channels(&self) -> usize {
        self.shape[match self.layout {
            ChannelLayout::Nchw => 1,
            ChannelLayout::Nhwc => self.shape.len() - 1,
        }]
    }

    fn reference(&self) -> reference::GroupNorm {
        reference::GroupNorm {
            weight: self.weight.as_deref().map(wide),
            bias: self.bias.as_deref().map(wide),
            eps: f64::from(self.eps),
            channels_last: self.layout == ChannelLayout::Nhwc,
            silu: self.silu,
            ..reference::GroupNorm::new(self.num_groups)
        }
    }

    /// Checks `y` against `expected`, or else the oracle.
    fn check(&self, name: &str, y: &[f32], expected: Option<&[f64]>) {
        let x = reference::Tensor::new(&self.shape, wide(&self.x));
        let plain = reference::GroupNorm {
            weight: None,
            bias: None,
            silu: false,
            ..self.reference()
        };
        let normalised = reference::group_norm(&x, &plain).data;
        let own = reference::group_norm(&x, &self.reference()).data;
        let expected = expected.unwrap_or(&own);
        let stretch = match self.layout {
            ChannelLayout::Nchw => self.shape[2..].iter().product(),
            ChannelLayout::Nhwc => 1,
        };
        check(name, y, expected, |i| {
            let channel = i / stretch % self.channels();
            let weight = self
                .weight
                .as_ref()
                .map_or(1.0, |w| f64::from(w[channel].abs()));
            let bias = self
                .bias
                .as_ref()
                .map_or(0.0, |b| f64::from(b[channel].abs()));
            let bound = BOUND * (weight * normalised[i].abs().max(1.0) + bias);
            if self.silu {
                bound * SILU_SLOPE + SILU_BOUND * expected[i].abs()
            } else {
                bound
            }
        });
    }

    /// Every instruction set and several thread counts: one set of bits, which is right.
    fn check_every_way(&self, name: &str, threads: &[usize], expected: Option<&[f64]>) {
        let first = self.run(Isa::available()[0], 1);
        self.check(name, &first, expected);
        for isa in Isa::available() {
            for &threads in threads {
                let y = self.run(isa, threads);
                assert!(
                    bits(&y) == bits(&first),
                    "{name}: {isa:?}, {threads} threads"
                );
            }
        }
    }
}

#[test]
fn group_norm_fixtures() {
    let cases = fixture::read_all("group_norm");
    assert!(cases.len() >= 13, "{} cases", cases.len());
    for case in cases {
        let spec = case.group_norm();
        let x = case.f32("x");
        let affine = |name| case.flag("affine").then(|| case.f32(name).data);
        let ours = GroupCase {
            shape: x.shape.clone(),
            x: x.data,
            num_groups: spec.num_groups,
            weight: affine("weight"),
            bias: affine("bias"),
            eps: spec.eps as f32,
            layout: if spec.channels_last {
                ChannelLayout::Nhwc
            } else {
                ChannelLayout::Nchw
            },
            silu: spec.silu,
        };
        let expected = case.expected("y").unwrap();
        ours.check_every_way(&case.name, &[1, 2, 3, 7], Some(&expected.data));
    }
}

#[test]
fn rms_norm_fixtures() {
    let cases = fixture::read_all("rms_norm");
    assert!(cases.len() >= 5, "{} cases", cases.len());
    for case in cases {
        let spec = case.rms_norm();
        let x = case.f32("x");
        let weight = spec.weight.map(|_| case.f32("weight").data);
        let expected = case.expected("y").unwrap();
        check_rms_every_way(
            &case.name,
            &x.data,
            &x.shape,
            (spec.eps as f32, weight.as_deref(), 1.0),
            Some(&expected.data),
        );
    }
}

/// As [`GroupCase::check_every_way`], for an RMS norm with (eps, weight, scale).
fn check_rms_every_way(
    name: &str,
    x: &[f32],
    shape: &[usize],
    (eps, weight, scale): (f32, Option<&[f32]>, f32),
    expected: Option<&[f64]>,
) {
    let run = |isa, threads| {
        let options = RmsNormOptions {
            eps,
            weight,
            scale,
            run: on(isa, threads),
        };
        rms_norm(Tensor::f32(x, shape), &options).unwrap()
    };
    let spec = reference::Norm {
        eps: f64::from(eps),
        weight: weight.map(wide),
        scale: f64::from(scale),
    };
    let plain = reference::Norm {
        weight: None,
        scale: 1.0,
        ..spec.clone()
    };
    let wide_x = reference::Tensor::new(shape, wide(x));
    let own = reference::rms_norm(&wide_x, &spec).data;
    let normalised = reference::rms_norm(&wide_x, &plain).data;
    let width = *shape.last().unwrap();
    let first = run(Isa::available()[0], 1);
    check(name, &first, expected.unwrap_or(&own), |i| {
        let weight = weight.map_or(1.0, |w| f64::from(w[i % width].abs())) * f64::from(scale.abs());
        BOUND * weight * normalised[i].abs().max(1.0)
    });
    for isa in Isa::available() {
        for threads in [1, 2, 3, 7] {
            let y = run(isa, threads);
            assert!(
                bits(&y) == bits(&first),
                "{name}: {isa:?}, {threads} threads"
            );
        }
    }
}

prop_compose! {
    /// Any rank, any group size, means up to 10⁴ standard deviations, values up to 10³⁰.
    fn group_case()(
        batch in 0..3usize,
        groups in 1..5usize,
        width in 1..20usize,
        positions in prop::collection::vec(prop_oneof![1..4usize, 1..40usize], 0..3),
        nhwc in any::<bool>(),
    )(
        mean in prop_oneof![Just(0.0), -1e4..1e4f64],
        magnitude in prop_oneof![Just(1.0), (-26.0..26.0f64).prop_map(|e| 10f64.powf(e))],
        eps in prop_oneof![Just(0.0f32), Just(1e-5), Just(0.1)],
        has_weight in any::<bool>(),
        has_bias in any::<bool>(),
        silu in any::<bool>(),
        seed in any::<u64>(),
        batch in Just(batch), groups in Just(groups), width in Just(width), positions in Just(positions), nhwc in Just(nhwc),
    ) -> GroupCase {
        let channels = groups * width;
        let shape = if nhwc { [&[batch], &positions[..], &[channels]].concat() } else { [&[batch, channels], &positions[..]].concat() };
        let x = noise(shape.iter().product(), seed);
        GroupCase {
            // Noise of −1…1 has a standard deviation of 0.58.
            x: x.iter().map(|&x| ((f64::from(x) + 0.57 * mean) * magnitude) as f32).collect(),
            shape,
            num_groups: groups,
            weight: has_weight.then(|| noise(channels, seed ^ 1).iter().map(|w| w * 3.0).collect()),
            bias: has_bias.then(|| noise(channels, seed ^ 2)),
            eps,
            layout: if nhwc { ChannelLayout::Nhwc } else { ChannelLayout::Nchw },
            silu,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn group_norm_equals_the_oracle(case in group_case()) {
        case.check_every_way("random case", &[1, 3], None);
    }

    #[test]
    fn rms_norm_equals_the_oracle(
        rows in 0..6usize,
        width in 1..300usize,
        magnitude in prop_oneof![Just(1.0), (-30.0..30.0f64).prop_map(|e| 10f64.powf(e))],
        eps in prop_oneof![Just(0.0f32), Just(1e-5)],
        scale in prop_oneof![Just(1.0f32), -3.0..3.0f32],
        has_weight in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let x: Vec<f32> = noise(rows * width, seed).iter().map(|&x| (f64::from(x) * magnitude) as f32).collect();
        let weight = has_weight.then(|| noise(width, seed ^ 1));
        check_rms_every_way("random case", &x, &[rows, width], (eps, weight.as_deref(), scale), None);
    }
}

/// Large enough that threads share one run, with a chunk left over.
fn large(layout: ChannelLayout) -> GroupCase {
    let (channels, positions) = (12, 130_001);
    let shape = match layout {
        ChannelLayout::Nchw => vec![1, channels, positions],
        ChannelLayout::Nhwc => vec![1, positions, channels],
    };
    GroupCase {
        x: noise(channels * positions, 5)
            .iter()
            .map(|x| x + 300.0)
            .collect(),
        shape,
        num_groups: 2,
        weight: Some(noise(channels, 6)),
        bias: Some(noise(channels, 7)),
        eps: 1e-5,
        layout,
        silu: false,
    }
}

#[test]
fn threads_within_a_group_change_no_bit() {
    for layout in [ChannelLayout::Nchw, ChannelLayout::Nhwc] {
        large(layout).check_every_way(&format!("{layout:?}"), &[1, 2, 3, 7, 16], None);
    }
}

#[test]
fn more_channels_than_a_chunk_has_elements() {
    for num_groups in [1, 50, 5000] {
        let case = GroupCase {
            shape: vec![1, 70, 5000],
            x: noise(70 * 5000, 23),
            num_groups,
            weight: Some(noise(5000, 24)),
            bias: None,
            eps: 1e-5,
            layout: ChannelLayout::Nhwc,
            silu: false,
        };
        case.check_every_way(&format!("{num_groups} groups"), &[1, 2, 7], None);
    }
}

#[test]
fn threads_over_many_groups_change_no_bit() {
    let shape = vec![3, 64, 90, 61];
    let case = GroupCase {
        x: noise(shape.iter().product(), 8),
        shape,
        num_groups: 16,
        weight: None,
        bias: Some(noise(64, 9)),
        eps: 1e-5,
        layout: ChannelLayout::Nchw,
        silu: true,
    };
    case.check_every_way("many groups", &[1, 2, 3, 7], None);
    let rows = noise(4000 * 257, 10);
    check_rms_every_way("many rows", &rows, &[4000, 257], (1e-5, None, 1.0), None);
}

/// One machine has no two architectures, so the bits they share are written down.
#[test]
fn bits_are_those_of_every_machine() {
    for isa in Isa::available() {
        for (layout, expected) in [
            (ChannelLayout::Nchw, 0x7a08_1907_e425_aa73),
            (ChannelLayout::Nhwc, 0x3f76_8c5d_2db9_d75c),
        ] {
            let case = GroupCase {
                shape: vec![2, 48, 33, 48],
                x: noise(2 * 48 * 33 * 48, 18)
                    .iter()
                    .map(|x| x + 3.0)
                    .collect(),
                num_groups: 3,
                weight: Some(noise(48, 19)),
                bias: Some(noise(48, 20)),
                eps: 1e-5,
                layout,
                silu: true,
            };
            assert_eq!(hash(&case.run(isa, 2)), expected, "{layout:?}, {isa:?}");
        }
        let (x, weight) = (noise(70 * 333, 21), noise(333, 22));
        let options = RmsNormOptions {
            weight: Some(&weight),
            scale: 0.8,
            run: Run::default().with_isa(isa),
            ..RmsNormOptions::default()
        };
        let y = rms_norm(Tensor::f32(&x, &[70, 333]), &options).unwrap();
        assert_eq!(hash(&y), 0xfdc5_83ce_d5a5_2e7a, "{isa:?}");
    }
}

#[test]
fn a_batch_entry_has_the_bits_that_it_has_alone() {
    for layout in [ChannelLayout::Nchw, ChannelLayout::Nhwc] {
        let case = GroupCase {
            shape: vec![3, 6, 50, 6],
            x: noise(3 * 1800, 11),
            num_groups: 3,
            weight: None,
            bias: None,
            eps: 1e-5,
            layout,
            silu: true,
        };
        let isa = Isa::detect();
        let together = case.run(isa, 2);
        for (x, y) in case.x.chunks(1800).zip(together.chunks(1800)) {
            let alone = GroupCase {
                shape: vec![1, 6, 50, 6],
                x: x.to_vec(),
                ..case.clone()
            };
            assert_eq!(bits(&alone.run(isa, 1)), bits(y), "{layout:?}");
        }
    }
}

/// Runs a job one unit at a time, and counts.
fn step_by_step(job: &mut Work<'_>) -> usize {
    let mut steps = 0;
    while job.done() < job.total() {
        let before = job.done();
        job.step(1).unwrap();
        assert_eq!(job.done(), before + 1);
        steps += 1;
    }
    steps
}

#[test]
fn slices_change_no_bit() {
    for layout in [ChannelLayout::Nchw, ChannelLayout::Nhwc] {
        let case = large(layout);
        for threads in [1, 3] {
            let whole = case.run(Isa::detect(), threads);
            let mut y = vec![f32::NAN; whole.len()];
            let job = GroupNorm::new(
                Tensor::f32(&case.x, &case.shape),
                &case.options(Isa::detect(), threads),
            )
            .unwrap();
            assert_eq!(job.output_shape(), case.shape);
            let mut job = job.into_work(DataMut::F32(&mut y)).unwrap();
            assert!(step_by_step(&mut job) >= if threads == 1 { 1 } else { 20 });
            drop(job);
            assert_eq!(bits(&y), bits(&whole), "{layout:?}, {threads} threads");
        }
    }
    let x = noise(4000 * 257, 12);
    let shape = [4000, 257];
    let mut y = vec![f32::NAN; x.len()];
    let options = RmsNormOptions::default();
    let job = RmsNorm::new(Tensor::f32(&x, &shape), &options).unwrap();
    let mut job = job.into_work(DataMut::F32(&mut y)).unwrap();
    assert!(step_by_step(&mut job) > 2);
    drop(job);
    assert_eq!(
        bits(&y),
        bits(&rms_norm(Tensor::f32(&x, &shape), &options).unwrap())
    );
}

/// Halves give the float32 result of the same numbers, rounded once.
#[test]
fn halves_are_rounded_once() {
    let shape = [2, 6, 7, 131];
    let values = noise(shape.iter().product(), 13);
    let f16_bits: Vec<u16> = values.iter().map(|&x| f16::from_f32(x).to_bits()).collect();
    let bf16_bits: Vec<u16> = values
        .iter()
        .map(|&x| bf16::from_f32(x).to_bits())
        .collect();
    let weight = noise(6, 14);
    for (dtype, stored) in [(DType::F16, &f16_bits), (DType::Bf16, &bf16_bits)] {
        let widen = |bits: u16| match dtype {
            DType::F16 => f16::from_bits(bits).to_f32(),
            _ => bf16::from_bits(bits).to_f32(),
        };
        let narrow = |x: &f32| match dtype {
            DType::F16 => f16::from_f32(*x).to_bits(),
            _ => bf16::from_f32(*x).to_bits(),
        };
        let x: Vec<f32> = stored.iter().map(|&bits| widen(bits)).collect();
        let tensor = Tensor {
            data: match dtype {
                DType::F16 => Data::F16(stored),
                _ => Data::Bf16(stored),
            },
            shape: shape.to_vec(),
        };
        fn out(dtype: DType, y: &mut [u16]) -> DataMut<'_> {
            match dtype {
                DType::F16 => DataMut::F16(y),
                _ => DataMut::Bf16(y),
            }
        }
        for isa in Isa::available() {
            for layout in [ChannelLayout::Nchw, ChannelLayout::Nhwc] {
                let options = GroupNormOptions {
                    num_groups: if layout == ChannelLayout::Nchw { 3 } else { 1 },
                    weight: (layout == ChannelLayout::Nchw).then_some(&weight),
                    activation: Some(Activation::Silu),
                    layout,
                    run: Run::default().with_isa(isa),
                    ..GroupNormOptions::default()
                };
                let expected = group_norm(Tensor::f32(&x, &shape), &options).unwrap();
                let expected: Vec<u16> = expected.iter().map(narrow).collect();
                let mut y = vec![0; x.len()];
                let job = GroupNorm::new(tensor.clone(), &options).unwrap();
                assert_eq!(job.output_dtype(), dtype);
                job.into_work(out(dtype, &mut y)).unwrap().finish().unwrap();
                assert_eq!(y, expected, "{dtype:?}, {isa:?}, {layout:?}");
            }
            let options = RmsNormOptions {
                run: Run::default().with_isa(isa),
                scale: 0.7,
                ..RmsNormOptions::default()
            };
            let expected = rms_norm(Tensor::f32(&x, &shape), &options).unwrap();
            let expected: Vec<u16> = expected.iter().map(narrow).collect();
            let mut y = vec![0; x.len()];
            let job = RmsNorm::new(tensor.clone(), &options).unwrap();
            job.into_work(out(dtype, &mut y)).unwrap().finish().unwrap();
            assert_eq!(y, expected, "{dtype:?}, {isa:?}");
        }
    }
}

#[test]
fn not_a_number_stays_within_its_group() {
    for poison in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for layout in [ChannelLayout::Nchw, ChannelLayout::Nhwc] {
            let mut case = GroupCase {
                shape: vec![2, 4, 40, 4],
                x: noise(1280, 15),
                num_groups: 2,
                weight: None,
                bias: None,
                eps: 1e-5,
                layout,
                silu: false,
            };
            let clean = case.run(Isa::detect(), 1);
            case.x[100] = poison;
            // Element 100 lies in batch entry 0, channel 0 either way: group 0.
            let poisoned = |i: usize| {
                let channel = match layout {
                    ChannelLayout::Nchw => i / 160 % 4,
                    ChannelLayout::Nhwc => i % 4,
                };
                i < 640 && channel < 2
            };
            for isa in Isa::available() {
                for (i, y) in case.run(isa, 2).into_iter().enumerate() {
                    if poisoned(i) {
                        assert!(y.is_nan(), "{layout:?}, {poison}: [{i}] {y}");
                    } else {
                        assert_eq!(
                            y.to_bits(),
                            clean[i].to_bits(),
                            "{layout:?}, {poison}: [{i}]"
                        );
                    }
                }
            }
        }
        let mut x = noise(3 * 37, 16);
        let clean = rms_norm(Tensor::f32(&x, &[3, 37]), &RmsNormOptions::default()).unwrap();
        x[40] = poison;
        let y = rms_norm(Tensor::f32(&x, &[3, 37]), &RmsNormOptions::default()).unwrap();
        for (i, y) in y.into_iter().enumerate() {
            if i / 37 == 1 {
                assert!(y.is_nan(), "{poison}: [{i}] {y}");
            } else {
                assert_eq!(y.to_bits(), clean[i].to_bits());
            }
        }
    }
}

#[test]
fn no_spread_without_eps_gives_zeros() {
    for isa in Isa::available() {
        for value in [0.0, -0.0, 0.1, -3e30, 1e-42] {
            for (positions, layout) in [
                (3000, ChannelLayout::Nchw),
                (1, ChannelLayout::Nchw),
                (3000, ChannelLayout::Nhwc),
            ] {
                let shape = match layout {
                    ChannelLayout::Nchw => vec![1, 4, positions],
                    ChannelLayout::Nhwc => vec![1, positions, 4],
                };
                let case = GroupCase {
                    x: vec![value; 4 * positions],
                    shape,
                    num_groups: 2,
                    weight: None,
                    bias: None,
                    eps: 0.0,
                    layout,
                    silu: false,
                };
                let y = case.run(isa, 1);
                assert!(y.iter().all(|&y| y == 0.0), "{value}: {:?}", y.first());
            }
        }
        let options = RmsNormOptions {
            eps: 0.0,
            run: Run::default().with_isa(isa),
            ..RmsNormOptions::default()
        };
        let y = rms_norm(Tensor::f32(&[0.0; 40], &[2, 20]), &options).unwrap();
        assert!(y.iter().all(|&y| y == 0.0));
    }
}

#[test]
fn spreads_at_the_ends_of_float32() {
    for isa in Isa::available() {
        // Denormal, and as large as the contract goes: nothing over- or underflows on the way.
        for magnitude in [3e-45, 1e-40, 1e-38, 1e30, 1e37] {
            let x: Vec<f32> = [1.0, -1.0, 1.0, -1.0].map(|x: f32| x * magnitude).to_vec();
            let case = GroupCase {
                shape: vec![1, 1, 4],
                x: x.clone(),
                num_groups: 1,
                weight: None,
                bias: None,
                eps: 0.0,
                layout: ChannelLayout::Nchw,
                silu: false,
            };
            case.check(&format!("{magnitude}"), &case.run(isa, 1), None);
            let options = RmsNormOptions {
                eps: 0.0,
                run: Run::default().with_isa(isa),
                ..RmsNormOptions::default()
            };
            let y = rms_norm(Tensor::f32(&x, &[1, 4]), &options).unwrap();
            for (y, expected) in y.into_iter().zip([1.0, -1.0, 1.0, -1.0]) {
                assert!((f64::from(y) - expected).abs() <= BOUND, "{magnitude}: {y}");
            }
        }
    }
}

#[test]
fn empty_tensors_give_empty_results() {
    for shape in [vec![0, 4, 3], vec![2, 4, 0], vec![2, 0, 3], vec![0, 0]] {
        let options = GroupNormOptions {
            num_groups: 2,
            ..GroupNormOptions::default()
        };
        assert_eq!(
            group_norm(Tensor::f32(&[], &shape), &options),
            Ok(vec![]),
            "{shape:?}"
        );
        assert_eq!(
            rms_norm(Tensor::f32(&[], &shape), &RmsNormOptions::default()),
            Ok(vec![]),
            "{shape:?}"
        );
    }
}

#[test]
fn refusals_name_the_argument() {
    let x = [0.0; 24];
    let group = |shape: &[usize], options: &GroupNormOptions<'_>| {
        let error = group_norm(Tensor::f32(&x, shape), options).unwrap_err();
        (error.code(), error.to_string())
    };
    let rms = |shape: &[usize], options: &RmsNormOptions<'_>| {
        let error = rms_norm(Tensor::f32(&x, shape), options).unwrap_err();
        (error.code(), error.to_string())
    };
    let options = GroupNormOptions::default;
    let case = |code, sentence: &str| (code, sentence.to_owned());
    assert_eq!(
        group(&[24], &options()),
        case("SHAPE", "x: expected 2 axes or more, got [24]")
    );
    assert_eq!(
        group(&[2, 6, 3], &options()),
        case(
            "SHAPE",
            "x: expected 36 elements for shape [2, 6, 3], got 24"
        )
    );
    for num_groups in [0, 4] {
        assert_eq!(
            group(
                &[2, 6, 2],
                &GroupNormOptions {
                    num_groups,
                    ..options()
                }
            ),
            case(
                "SHAPE",
                &format!("num_groups: expected a divisor of 6 channels, got {num_groups}")
            )
        );
    }
    assert_eq!(
        group(
            &[2, 3, 4],
            &GroupNormOptions {
                num_groups: 3,
                layout: ChannelLayout::Nhwc,
                ..options()
            }
        ),
        case(
            "SHAPE",
            "num_groups: expected a divisor of 4 channels, got 3"
        )
    );
    assert_eq!(
        group(
            &[2, 6, 2],
            &GroupNormOptions {
                weight: Some(&x[..5]),
                ..options()
            }
        ),
        case("SHAPE", "weight: expected 6 elements for shape [6], got 5")
    );
    assert_eq!(
        group(
            &[2, 6, 2],
            &GroupNormOptions {
                bias: Some(&x[..7]),
                ..options()
            }
        ),
        case("SHAPE", "bias: expected 6 elements for shape [6], got 7")
    );
    for (eps, got) in [(-1.0, "-1"), (f32::NAN, "NaN")] {
        let sentence = format!("eps: expected a number of at least 0, got {got}");
        assert_eq!(
            group(&[2, 12], &GroupNormOptions { eps, ..options() }),
            case("OPTION", &sentence)
        );
        assert_eq!(
            rms(
                &[2, 12],
                &RmsNormOptions {
                    eps,
                    ..RmsNormOptions::default()
                }
            ),
            case("OPTION", &sentence)
        );
    }
    assert_eq!(rms(&[], &RmsNormOptions::default()).0, "SHAPE");
    assert_eq!(
        rms(
            &[2, 12],
            &RmsNormOptions {
                weight: Some(&x[..2]),
                ..RmsNormOptions::default()
            }
        ),
        case(
            "SHAPE",
            "weight: expected 12 elements for shape [12], got 2"
        )
    );
    let huge = [usize::MAX, 2];
    assert_eq!(group(&huge, &options()).0, "SHAPE");
    assert_eq!(rms(&huge, &RmsNormOptions::default()).0, "SHAPE");
}

#[test]
fn an_output_must_fit() {
    let x = [0.0; 24];
    let (mut short, mut other) = ([0.0; 23], [0; 24]);
    let job = || GroupNorm::new(Tensor::f32(&x, &[2, 12]), &GroupNormOptions::default()).unwrap();
    let sentence = |result: Result<Work<'_>, Error>| result.unwrap_err().to_string();
    assert_eq!(
        sentence(job().into_work(DataMut::F32(&mut short))),
        "out: expected 24 elements for shape [2, 12], got 23"
    );
    assert_eq!(
        sentence(job().into_work(DataMut::F16(&mut other))),
        "out: expected float32 as the input, got float16"
    );
}

/// A group of 10⁸ elements with |mean| = 10⁴ standard deviations. Run once: largest error 0.15 of
/// the bound.
#[test]
#[ignore = "1.2 GB, a minute"]
fn a_group_of_1e8_elements() {
    let len = 100_000_000;
    let x: Vec<f32> = noise(len, 17).iter().map(|x| x + 5770.0).collect();
    // Two walks in float64 with compensated sums (Neumaier).
    let sum = |term: &dyn Fn(f64) -> f64| {
        let (mut sum, mut rest) = (0.0f64, 0.0f64);
        for &x in &x {
            let value = term(f64::from(x));
            let total = sum + value;
            rest += if sum.abs() >= value.abs() {
                (sum - total) + value
            } else {
                (value - total) + sum
            };
            sum = total;
        }
        sum + rest
    };
    let mean = sum(&|x| x) / len as f64;
    let std = (sum(&|x| (x - mean) * (x - mean)) / len as f64).sqrt();
    for layout in [ChannelLayout::Nchw, ChannelLayout::Nhwc] {
        let shape = match layout {
            ChannelLayout::Nchw => [1, 4, len / 4],
            ChannelLayout::Nhwc => [1, len / 4, 4],
        };
        let options = GroupNormOptions {
            eps: 0.0,
            layout,
            ..GroupNormOptions::default()
        };
        let y = group_norm(Tensor::f32(&x, &shape), &options).unwrap();
        let errors = x.iter().zip(&y).map(|(&x, &y)| {
            let expected = (f64::from(x) - mean) / std;
            (f64::from(y) - expected).abs() / expected.abs().max(1.0)
        });
        let worst = errors.fold(0.0, f64::max);
        println!(
            "{layout:?}: mean {mean}, std {std}, {} of the bound",
            worst / BOUND
        );
        assert!(worst <= BOUND);
    }
}

fn on(isa: Isa, threads: usize) -> Run {
    Run::new(Some(isa), Some(threads), false).unwrap_or_else(|error| panic!("{error}"))
}
