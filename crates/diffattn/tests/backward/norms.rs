//! What holds for the backward pass of every norm, whichever it is: written once, over [`Case`].

use diffattn::{
    Activation, ChannelLayout, DType, Error, GroupNormBackward, GroupNormOptions, Isa,
    LayerNormBackward, LayerNormOptions, NormGradients, RmsNormBackward, RmsNormOptions, Run,
    Tensor, Work, group_norm_backward, layer_norm_backward, rms_norm_backward,
};
use diffattn_reference::Accuracy;
use diffattn_reference::fixture::Fixture;
use diffattn_reference::testing::{bits, bits_with_one_nan, hash, noise};

use crate::formulas;
use crate::support::{Halves, every_run, near, on, step_by_step};

/// Which norm, with the options that it has of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Rms {
        scale: f32,
    },
    Layer,
    Group {
        num_groups: usize,
        layout: ChannelLayout,
        silu: bool,
    },
}

impl Kind {
    /// Channels of a tensor of this shape.
    pub(crate) fn channels(self, shape: &[usize]) -> usize {
        match self {
            Self::Group {
                layout: ChannelLayout::Nchw,
                ..
            } => shape[1],
            _ => shape[shape.len() - 1],
        }
    }
}

/// A call of a norm's backward pass.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) kind: Kind,
    pub(crate) shape: Vec<usize>,
    pub(crate) dy: Vec<f32>,
    pub(crate) x: Vec<f32>,
    pub(crate) weight: Option<Vec<f32>>,
    pub(crate) bias: Option<Vec<f32>>,
    pub(crate) eps: f32,
}

impl Case {
    /// A call over noise.
    pub(crate) fn noise(kind: Kind, shape: &[usize], seed: u64) -> Self {
        let (len, channels) = (shape.iter().product(), kind.channels(shape));
        Self {
            kind,
            shape: shape.to_vec(),
            dy: noise(len, seed),
            x: noise(len, seed + 1).iter().map(|x| 3.0 * x + 0.7).collect(),
            weight: Some(noise(channels, seed + 2)),
            bias: match kind {
                Kind::Rms { .. } => None,
                Kind::Layer | Kind::Group { .. } => Some(noise(channels, seed + 3)),
            },
            eps: 1e-5,
        }
    }

    fn rms(&self, scale: f32, run: Run) -> RmsNormOptions<'_> {
        RmsNormOptions {
            eps: self.eps,
            weight: self.weight.as_deref(),
            scale,
            run,
        }
    }

    fn layer(&self, run: Run) -> LayerNormOptions<'_> {
        LayerNormOptions {
            weight: self.weight.as_deref(),
            bias: self.bias.as_deref(),
            eps: self.eps,
            run,
        }
    }

    fn group(
        &self,
        (num_groups, layout, silu): (usize, ChannelLayout, bool),
        run: Run,
    ) -> GroupNormOptions<'_> {
        GroupNormOptions {
            num_groups,
            weight: self.weight.as_deref(),
            bias: self.bias.as_deref(),
            eps: self.eps,
            layout,
            activation: silu.then_some(Activation::Silu),
            run,
        }
    }

    fn call(&self, dy: Tensor<'_>, x: Tensor<'_>, run: Run) -> Result<NormGradients, Error> {
        match self.kind {
            Kind::Rms { scale } => rms_norm_backward(dy, x, &self.rms(scale, run)),
            Kind::Layer => layer_norm_backward(dy, x, &self.layer(run)),
            Kind::Group {
                num_groups,
                layout,
                silu,
            } => group_norm_backward(dy, x, &self.group((num_groups, layout, silu), run)),
        }
    }

    fn work<'o>(
        &'o self,
        run: Run,
        gradients: NormGradients<&'o mut [f32]>,
    ) -> Result<Work<'o>, Error> {
        let dy = Tensor::f32(&self.dy, &self.shape);
        let x = Tensor::f32(&self.x, &self.shape);
        match self.kind {
            Kind::Rms { scale } => {
                RmsNormBackward::new(dy, x, &self.rms(scale, run))?.into_work(gradients)
            }
            Kind::Layer => LayerNormBackward::new(dy, x, &self.layer(run))?.into_work(gradients),
            Kind::Group {
                num_groups,
                layout,
                silu,
            } => GroupNormBackward::new(dy, x, &self.group((num_groups, layout, silu), run))?
                .into_work(gradients),
        }
    }

    pub(crate) fn run(&self, run: Run) -> NormGradients {
        let dy = Tensor::f32(&self.dy, &self.shape);
        let x = Tensor::f32(&self.x, &self.shape);
        self.call(dy, x, run).unwrap()
    }

    fn formula(&self) -> formulas::Norm<'_> {
        let width = self.shape[self.shape.len() - 1];
        let rows = formulas::Norm {
            bias: self.bias.as_deref(),
            eps: self.eps,
            ..formulas::Norm::of_rows(self.x.len(), width, self.weight.as_deref())
        };
        match self.kind {
            Kind::Rms { scale } => formulas::Norm { scale, ..rows },
            Kind::Layer => formulas::Norm {
                centres: true,
                ..rows
            },
            Kind::Group {
                num_groups,
                layout,
                silu,
            } => {
                let channels = self.kind.channels(&self.shape);
                let entry = self.x.len() / self.shape[0];
                let channel = |i: usize| match layout {
                    ChannelLayout::Nchw => i % entry / (entry / channels),
                    ChannelLayout::Nhwc => i % channels,
                };
                let mut groups = vec![Vec::new(); self.shape[0] * num_groups];
                for i in 0..self.x.len() {
                    let group = channel(i) / (channels / num_groups);
                    groups[i / entry * num_groups + group].push(i);
                }
                formulas::Norm {
                    groups,
                    channels: (0..self.x.len()).map(channel).collect(),
                    centres: true,
                    silu,
                    ..rows
                }
            }
        }
    }

    /// The gradients, which are the same on every instruction set and any threads, fused or not.
    pub(crate) fn everywhere(&self, name: &str) -> NormGradients {
        let first = self.run(on(Isa::available()[0], 1, false));
        for run in every_run() {
            assert_same(&format!("{name}: {run:?}"), &first, &self.run(run));
        }
        first
    }

    /// A reference case: against float64, and on every run what autograd gave, no more and no less.
    pub(crate) fn check_reference(&self, fixture: &Fixture, accuracy: &mut Accuracy) {
        self.check(&fixture.name, accuracy);
        let NormGradients { dx, dweight, dbias } = self.everywhere(&fixture.name);
        for (name, got) in [("dx", Some(dx)), ("dweight", dweight), ("dbias", dbias)] {
            let expected = fixture.expected(name);
            assert_eq!(got.is_some(), expected.is_some(), "{}", fixture.name);
            if let (Some(expected), Some(got)) = (expected, got) {
                near(&fixture.name, &expected.data, &got);
            }
        }
    }

    /// Checks the gradients against float64, by the bound and by the rule.
    pub(crate) fn check(&self, name: &str, accuracy: &mut Accuracy) {
        let got = self.everywhere(name);
        let [dx, dweight, dbias] = self.formula().backward::<f64>(&self.dy, &self.x);
        let plain = self.formula().backward::<f32>(&self.dy, &self.x);
        let mut check = |which, expected: &[f64], plain: &[f32], got: &[f32]| {
            let name = format!("{name}: {which}");
            near(&name, expected, got);
            accuracy.case(&name, expected, plain, got).unwrap();
        };
        check("dx", &dx, &plain[0], &got.dx);
        if let Some(got) = &got.dweight {
            check("dweight", &dweight, &plain[1], got);
        }
        if let Some(got) = &got.dbias {
            check("dbias", &dbias, &plain[2], got);
        }
        assert_eq!(got.dweight.is_some(), self.weight.is_some(), "{name}");
        assert_eq!(got.dbias.is_some(), self.bias.is_some(), "{name}");
    }
}

/// Panics unless all gradients have the same bits.
#[track_caller]
pub(crate) fn assert_same(name: &str, a: &NormGradients, b: &NormGradients) {
    let all = |gradients: &NormGradients| {
        let NormGradients { dx, dweight, dbias } = gradients;
        let bits_of = |x: &Vec<f32>| bits_with_one_nan(x);
        (
            bits_of(dx),
            dweight.as_ref().map(bits_of),
            dbias.as_ref().map(bits_of),
        )
    };
    assert!(all(a) == all(b), "{name}");
}

/// Groups of one chunk and of several, of one channel and of several, in both layouts.
fn groups() -> Vec<Case> {
    let mut cases = Vec::new();
    for (seed, (channels, num_groups, positions)) in [
        (6, 3, vec![5, 7]),
        (6, 6, vec![33]),
        (24, 1, vec![4, 4]),
        (8, 2, vec![]),
        (20, 4, vec![1700]),
        (2, 2, vec![5000]),
        (5000, 50, vec![3]),
    ]
    .into_iter()
    .enumerate()
    {
        for layout in [ChannelLayout::Nchw, ChannelLayout::Nhwc] {
            let shape = match layout {
                ChannelLayout::Nchw => [&[2, channels], &positions[..]].concat(),
                ChannelLayout::Nhwc => [&[2], &positions[..], &[channels]].concat(),
            };
            for silu in [false, true] {
                let kind = Kind::Group {
                    num_groups,
                    layout,
                    silu,
                };
                let case = Case::noise(kind, &shape, 200 + 10 * seed as u64);
                cases.push(Case {
                    weight: None,
                    bias: None,
                    ..case.clone()
                });
                cases.push(Case {
                    bias: None,
                    ..case.clone()
                });
                cases.push(case);
            }
        }
    }
    cases
}

/// Rows of several widths: below a vector, beside it, more than a block and more than a chunk.
fn rows() -> Vec<Case> {
    let mut cases = Vec::new();
    for (seed, [rows, width]) in [
        [1, 5],
        [300, 3],
        [130, 17],
        [129, 64],
        [70, 128],
        [9, 333],
        [3, 5000],
    ]
    .into_iter()
    .enumerate()
    {
        for kind in [
            Kind::Rms { scale: 1.0 },
            Kind::Rms { scale: -0.7 },
            Kind::Layer,
        ] {
            let case = Case::noise(kind, &[rows, width], 10 * seed as u64);
            cases.push(Case {
                weight: None,
                bias: None,
                ..case.clone()
            });
            cases.push(Case {
                weight: None,
                ..case.clone()
            });
            cases.push(case);
        }
    }
    cases
}

#[test]
fn gradients_of_rows() {
    let mut accuracy = Accuracy::new();
    for case in rows() {
        case.check(&format!("{:?} {:?}", case.kind, case.shape), &mut accuracy);
    }
    accuracy.pooled().unwrap();
}

#[test]
fn gradients_of_groups() {
    let mut accuracy = Accuracy::new();
    for case in groups() {
        case.check(&format!("{:?} {:?}", case.kind, case.shape), &mut accuracy);
    }
    accuracy.pooled().unwrap();
}

/// One kind of group norm for each way through it.
fn group_kinds(num_groups: usize) -> [Kind; 4] {
    [ChannelLayout::Nchw, ChannelLayout::Nhwc]
        .map(|layout| {
            [false, true].map(|silu| Kind::Group {
                num_groups,
                layout,
                silu,
            })
        })
        .concat()
        .try_into()
        .unwrap()
}

/// Large enough for several units; of groups, so that threads share one.
fn large() -> Vec<Case> {
    let rows = [Kind::Rms { scale: 0.8 }, Kind::Layer];
    let mut cases = rows.map(|kind| Case::noise(kind, &[5001, 96], 40)).to_vec();
    for kind in group_kinds(2) {
        let shape = match kind.channels(&[0, 1, 2]) {
            1 => [1, 12, 30_001],
            _ => [1, 30_001, 12],
        };
        cases.push(Case::noise(kind, &shape, 41));
    }
    cases
}

#[test]
fn threads_change_no_bit() {
    for case in large() {
        case.everywhere(&format!("{:?}", case.kind));
    }
}

/// One machine has no two architectures, so the bits they share are written down.
#[test]
fn bits_are_those_of_every_machine() {
    let rows = [Kind::Rms { scale: 0.8 }, Kind::Layer].map(|kind| (kind, vec![140, 333]));
    let groups = group_kinds(3).map(|kind| (kind, vec![2, 48, 33, 48]));
    let cases: Vec<_> = rows.into_iter().chain(groups).collect();
    let hashes: [u64; 6] = [
        0xcc87_8cf8_ef9a_a235,
        0xee39_0cb8_be63_b369,
        0x5f0a_8b68_4de7_f5f6,
        0xca4d_1fb8_0c25_f891,
        0xe674_b404_e0e9_9b4e,
        0xd966_34bc_12ce_9c1e,
    ];
    for ((kind, shape), expected) in cases.into_iter().zip(hashes) {
        let NormGradients { dx, dweight, dbias } =
            Case::noise(kind, &shape, 30).everywhere("written down");
        let all = [dx, dweight.unwrap_or_default(), dbias.unwrap_or_default()].concat();
        assert_eq!(hash(&all), expected, "{kind:?}: {:#x}", hash(&all));
    }
}

#[test]
fn slices_change_no_bit() {
    for case in large() {
        let whole = case.run(Run::default());
        for threads in [1, 3] {
            let mut got = NormGradients {
                dx: vec![f32::NAN; whole.dx.len()],
                dweight: whole
                    .dweight
                    .clone()
                    .map(|values| vec![f32::NAN; values.len()]),
                dbias: whole
                    .dbias
                    .clone()
                    .map(|values| vec![f32::NAN; values.len()]),
            };
            let outputs = NormGradients {
                dx: &mut got.dx[..],
                dweight: got.dweight.as_deref_mut(),
                dbias: got.dbias.as_deref_mut(),
            };
            let run = on(Isa::detect(), threads, false);
            let steps = step_by_step(case.work(run, outputs).unwrap());
            // (On one thread a group is one unit.)
            assert!(steps > 2 || threads == 1);
            assert_same(&format!("{:?}, {threads} threads", case.kind), &got, &whole);
        }
    }
}

#[test]
fn a_row_has_the_bits_that_it_has_alone() {
    for kind in [Kind::Rms { scale: 0.8 }, Kind::Layer] {
        let case = Case::noise(kind, &[150, 37], 50);
        let together = case.run(Run::default());
        for row in [0, 1, 100, 149] {
            let range = row * 37..(row + 1) * 37;
            let alone = Case {
                shape: vec![37],
                x: case.x[range.clone()].to_vec(),
                dy: case.dy[range.clone()].to_vec(),
                ..case.clone()
            };
            let alone = alone.run(on(Isa::available()[0], 1, true));
            assert_eq!(bits(&alone.dx), bits(&together.dx[range]), "{kind:?}");
        }
    }
}

#[test]
fn halves_give_what_their_values_give() {
    let rows = [Kind::Rms { scale: 0.8 }, Kind::Layer].map(|kind| (kind, vec![140, 37]));
    let groups = group_kinds(2).map(|kind| (kind, vec![2, 6, 7, 131, 6]));
    for (kind, shape) in rows.into_iter().chain(groups) {
        let case = Case::noise(kind, &shape, 60);
        for dtype in [DType::F16, DType::Bf16] {
            let (dy, x) = (Halves::of(dtype, &case.dy), Halves::of(dtype, &case.x));
            let widened = Case {
                dy: dy.values.clone(),
                x: x.values.clone(),
                ..case.clone()
            };
            for run in every_run() {
                let got = case.call(dy.tensor(&case.shape), x.tensor(&case.shape), run);
                assert_same(
                    &format!("{kind:?}, {dtype:?}"),
                    &widened.run(run),
                    &got.unwrap(),
                );
            }
        }
    }
}

#[test]
fn rows_without_spread_contribute_zero() {
    for (kind, value) in [
        (Kind::Rms { scale: 1.0 }, 0.0),
        (Kind::Layer, 0.1),
        (Kind::Layer, 1e30),
    ] {
        let mut case = Case::noise(kind, &[3, 40], 70);
        case.eps = 0.0;
        case.x[40..80].fill(value);
        let got = case.everywhere("without spread");
        assert!(got.dx[40..80].iter().all(|&dx| dx == 0.0), "{kind:?}");
        // The weight has what the other rows give it.
        let others = |values: &[f32]| [&values[..40], &values[80..]].concat();
        let rest = Case {
            shape: vec![2, 40],
            x: others(&case.x),
            dy: others(&case.dy),
            ..case.clone()
        };
        let rest = rest.run(Run::default());
        assert_eq!(got.dweight, rest.dweight, "{kind:?}");
        assert_eq!(bits(&others(&got.dx)), bits(&rest.dx));
    }
}

#[test]
fn not_a_number_stays_within_its_row() {
    for kind in [Kind::Rms { scale: 1.0 }, Kind::Layer] {
        for poison in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for in_dy in [false, true] {
                let mut case = Case::noise(kind, &[150, 37], 80);
                let clean = case.run(Run::default());
                let place = 130 * 37 + 5;
                *(if in_dy { &mut case.dy } else { &mut case.x })
                    .get_mut(place)
                    .unwrap() = poison;
                let got = case.everywhere("poisoned");
                for (i, (got, clean)) in got.dx.iter().zip(&clean.dx).enumerate() {
                    if i / 37 == 130 {
                        assert!(
                            got.is_nan() || in_dy && got.is_infinite(),
                            "{kind:?}: [{i}] {got}"
                        );
                    } else {
                        assert_eq!(got.to_bits(), clean.to_bits(), "{kind:?}: [{i}]");
                    }
                }
                let dweight = got.dweight.unwrap();
                assert!(!dweight[5].is_finite(), "{kind:?}: {}", dweight[5]);
            }
        }
    }
}

#[test]
fn a_batch_entry_has_the_bits_that_it_has_alone() {
    for kind in group_kinds(3) {
        let case = Case::noise(kind, &[3, 6, 50, 6], 51);
        let together = case.run(Run::default());
        for entry in 0..3 {
            let range = entry * 1800..(entry + 1) * 1800;
            let alone = Case {
                shape: vec![1, 6, 50, 6],
                x: case.x[range.clone()].to_vec(),
                dy: case.dy[range.clone()].to_vec(),
                ..case.clone()
            };
            let alone = alone.run(on(Isa::available()[0], 1, true));
            assert_eq!(bits(&alone.dx), bits(&together.dx[range]), "{kind:?}");
        }
    }
}

#[test]
fn groups_without_spread_contribute_zero() {
    for kind in group_kinds(2) {
        for value in [0.0, 0.1, -3e30, 1e-42] {
            let mut case = Case::noise(kind, &[2, 4, 9, 4], 71);
            case.eps = 0.0;
            case.x[..144].fill(value);
            let got = case.everywhere("without spread");
            assert!(
                got.dx[..144].iter().all(|&dx| dx == 0.0),
                "{kind:?}, {value}"
            );
            // The weight has what the other batch entry gives it.
            let rest = Case {
                shape: vec![1, 4, 9, 4],
                x: case.x[144..].to_vec(),
                dy: case.dy[144..].to_vec(),
                ..case.clone()
            };
            assert_eq!(
                got.dweight,
                rest.run(Run::default()).dweight,
                "{kind:?}, {value}"
            );
        }
    }
}

#[test]
fn not_a_number_stays_within_its_group() {
    for kind in group_kinds(2) {
        for poison in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut case = Case::noise(kind, &[2, 4, 40, 4], 81);
            let clean = case.run(Run::default());
            case.x[100] = poison;
            // Element 100 lies in batch entry 0, channel 0 either way: group 0.
            let is_last = kind.channels(&[0, 1, 0, 3]) == 3;
            let poisoned = |i: usize| i < 640 && (if is_last { i % 4 } else { i / 160 }) < 2;
            let got = case.everywhere("poisoned");
            for (i, (got, clean)) in got.dx.iter().zip(&clean.dx).enumerate() {
                if poisoned(i) {
                    assert!(got.is_nan(), "{kind:?}, {poison}: [{i}] {got}");
                } else {
                    assert_eq!(got.to_bits(), clean.to_bits(), "{kind:?}, {poison}: [{i}]");
                }
            }
            let (got, clean) = (got.dweight.unwrap(), clean.dweight.unwrap());
            assert!(got[0].is_nan() && got[1].is_nan(), "{kind:?}");
            assert_eq!(got[2..], clean[2..], "{kind:?}");
        }
    }
}

/// Values at the ends of float32, where a spread or its inverse is none of its normal numbers.
#[test]
fn spreads_at_the_ends_of_float32() {
    for kind in [Kind::Rms { scale: 1.0 }, Kind::Layer] {
        for (x_size, dy_size) in [(1e-40, 1e-20), (1e-30, 1e-10), (1e30, 1e10), (1e37, 1e30)] {
            let mut case = Case::noise(kind, &[4, 40], 90);
            (case.weight, case.bias, case.eps) = (None, None, 0.0);
            case.x.iter_mut().for_each(|x| *x *= x_size);
            case.dy.iter_mut().for_each(|dy| *dy *= dy_size);
            let [dx, ..] = case.formula().backward::<f64>(&case.dy, &case.x);
            let got = case.everywhere("ends");
            let dx: Vec<f64> = dx.iter().map(|dx| dx * 1e10).collect();
            let largest = dx.iter().fold(0.0f64, |max, x| max.max(x.abs()));
            for (i, (&expected, &got)) in dx.iter().zip(&got.dx).enumerate() {
                let got = f64::from(got) * 1e10;
                // Below the normal numbers float32 has fewer digits.
                let bound = 2e-6 * largest + 1.5e-35;
                assert!(
                    (got - expected).abs() <= bound,
                    "{kind:?}, {x_size}: [{i}] {got} {expected}"
                );
            }
        }
    }
}

#[test]
fn empty_tensors_give_empty_gradients() {
    let rows = [Kind::Rms { scale: 1.0 }, Kind::Layer];
    let shapes = [vec![0, 4], vec![2, 0, 3], vec![2, 0], vec![0]];
    let rows = rows
        .map(|kind| shapes.clone().map(|shape| (kind, shape)))
        .concat();
    let shapes = [vec![0, 4, 4], vec![2, 4, 0, 4], vec![2, 0], vec![0, 0]];
    let groups = group_kinds(2)
        .map(|kind| shapes.clone().map(|shape| (kind, shape)))
        .concat();
    for (kind, shape) in [rows, groups].concat() {
        {
            let channels = kind.channels(&shape);
            let case = Case::noise(kind, &shape, 1);
            let got = case.run(Run::default());
            assert!(got.dx.is_empty());
            assert_eq!(got.dweight, Some(vec![0.0; channels]), "{kind:?} {shape:?}");
            // In slices, too, whatever was there before.
            let (mut dweight, mut dbias) = (vec![f32::NAN; channels], vec![f32::NAN; channels]);
            let outputs = NormGradients {
                dx: &mut [][..],
                dweight: Some(&mut dweight[..]),
                dbias: case.bias.is_some().then_some(&mut dbias[..]),
            };
            step_by_step(case.work(Run::default(), outputs).unwrap());
            assert_eq!(dweight, vec![0.0; channels]);
        }
    }
}
