//! Convolution, scan and the functions around them against float64, and their bits: on every
//! instruction set, on any number of threads, however the rows are cut.

use diffattn::{
    CausalConvolution, ErrorKind, Isa, Run, ScanRows, SelectiveScan, silu_gate, softplus,
};
use diffattn_reference::recurrent::{self as reference, Scan, cast};
use diffattn_reference::testing::{assert_near, bits, bits_with_one_nan, noise, ok, values};
use diffattn_reference::{Accuracy, Real};

fn on(isa: Isa, threads: usize, deterministic: bool) -> Run {
    ok(Run::new(Some(isa), Some(threads), deterministic))
}

/// Rows of each shape: fewer channels than a vector, whole panels, one more; odd counts of states.
const SHAPES: [[usize; 3]; 9] = [
    [1, 1, 1],
    [3, 1, 7],
    [5, 4, 3],
    [16, 16, 9],
    [17, 5, 12],
    [31, 2, 4],
    [64, 16, 33],
    [96, 8, 19],
    [200, 3, 5],
];

// ------------------------------------------------------------------------------------ convolution

struct Convolution {
    layer: CausalConvolution,
    channels: usize,
    weight: Vec<f32>,
    bias: Vec<f32>,
    x: Vec<f32>,
    before: Vec<f32>,
}

impl Convolution {
    fn new(seed: u64, [channels, taps, rows]: [usize; 3]) -> Self {
        let weight = values(seed, channels * taps, 0.8);
        let bias = values(seed + 1, channels, 0.3);
        Self {
            layer: ok(CausalConvolution::new([channels, taps], &weight, &bias)),
            channels,
            weight,
            bias,
            x: values(seed + 2, rows * channels, 3.0),
            before: values(seed + 3, (taps - 1) * channels, 3.0),
        }
    }

    fn reference<R: Real>(&self) -> (Vec<R>, Vec<R>) {
        reference::causal_convolution(
            &cast(&self.x),
            &cast(&self.weight),
            &cast(&self.bias),
            &cast(&self.before),
        )
    }

    /// y and the state behind it, the rows cut into parts of `part`.
    fn run(&self, part: usize, run: Run) -> (Vec<f32>, Vec<f32>) {
        let (mut state, mut all) = (self.before.clone(), Vec::new());
        for x in self.x.chunks(part * self.channels) {
            let mut y = vec![f32::NAN; x.len()];
            ok(self.layer.forward(x, &mut state, &mut y, run));
            all.extend(y);
        }
        (all, state)
    }
}

#[test]
fn the_convolution_is_that_of_float64() {
    let mut accuracy = Accuracy::new();
    for (seed, [channels, taps, rows]) in SHAPES.into_iter().enumerate() {
        let case = Convolution::new(seed as u64, [channels, taps, rows]);
        let (expected, kept) = case.reference::<f64>();
        let (plain, _) = case.reference::<f32>();
        for isa in Isa::available() {
            let (y, state) = case.run(rows, on(isa, 1, false));
            let name = format!("{channels} channels, {taps} taps on {}", isa.name());
            // (Two roundings of the SiLU's quotient more than libm's are allowed.)
            assert_near(&name, &expected, &y, 2e-6);
            assert_near(&name, &kept, &state, 0.0);
            let _ = accuracy.case(&name, &expected, &plain, &y);
        }
    }
    ok(accuracy.pooled());
}

#[test]
fn the_bits_of_the_convolution_do_not_depend_on_threads_instructions_or_cuts() {
    for (seed, shape) in SHAPES.into_iter().chain([[700, 4, 150]]).enumerate() {
        let case = Convolution::new(seed as u64, shape);
        same_bits(shape[2], |part, run| case.run(part, run));
    }
}

// ------------------------------------------------------------------------------------------- scan

struct ScanCase {
    layer: SelectiveScan,
    sizes: [usize; 2],
    given: Scan<f32>,
}

impl ScanCase {
    fn new(seed: u64, [channels, states, rows]: [usize; 3]) -> Self {
        let positive = |seed: u64, len: usize, scale: f32| -> Vec<f32> {
            let values = values(seed, len, scale);
            values.into_iter().map(f32::abs).collect()
        };
        let given = Scan {
            u: values(seed, rows * channels, 2.0),
            delta: positive(seed + 1, rows * channels, 1.5),
            a_log: values(seed + 2, channels * states, 2.0),
            b: values(seed + 3, rows * states, 2.0),
            c: values(seed + 4, rows * states, 2.0),
            d: values(seed + 5, channels, 1.0),
            state: values(seed + 6, channels * states, 2.0),
        };
        Self {
            layer: ok(SelectiveScan::new(
                [channels, states],
                &given.a_log,
                &given.d,
            )),
            sizes: [channels, states],
            given,
        }
    }

    fn reference<R: Real>(&self) -> (Vec<R>, Vec<R>) {
        let Scan {
            u,
            delta,
            a_log,
            b,
            c,
            d,
            state,
        } = &self.given;
        let scan = Scan {
            u: cast::<R>(u),
            delta: cast(delta),
            a_log: cast(a_log),
            b: cast(b),
            c: cast(c),
            d: cast(d),
            state: cast(state),
        };
        scan.run()
    }

    fn run(&self, part: usize, run: Run) -> (Vec<f32>, Vec<f32>) {
        let [channels, states] = self.sizes;
        let rows = self.given.u.len() / channels;
        let b_c: Vec<f32> = (0..rows)
            .flat_map(|row| {
                let range = row * states..(row + 1) * states;
                [&self.given.b[range.clone()], &self.given.c[range]].concat()
            })
            .collect();
        let mut state = vec![f32::NAN; self.layer.state_len()];
        ok(self.layer.import(&self.given.state, &mut state));
        let mut y = vec![f32::NAN; rows * channels];
        for first in (0..rows).step_by(part) {
            let end = (first + part).min(rows);
            let inputs = first * channels..end * channels;
            let rows = ScanRows {
                u: &self.given.u[inputs.clone()],
                delta: &self.given.delta[inputs.clone()],
                b_c: &b_c[first * 2 * states..end * 2 * states],
            };
            ok(self.layer.forward(&rows, &mut state, &mut y[inputs], run));
        }
        (y, ok(self.layer.export(&state)))
    }
}

#[test]
fn the_scan_is_as_near_to_float64_as_plain_float32() {
    for deterministic in [false, true] {
        let mut accuracy = Accuracy::new();
        for (seed, shape) in SHAPES.into_iter().enumerate() {
            let case = ScanCase::new(seed as u64, shape);
            let (expected, expected_state) = case.reference::<f64>();
            let (plain, _) = case.reference::<f32>();
            for isa in Isa::available() {
                let (y, state) = case.run(shape[2], on(isa, 1, deterministic));
                let scale = expected.iter().fold(1.0, |max: f64, x| max.max(x.abs()));
                assert_near(&format!("{shape:?}"), &expected, &y, 1e-6 * scale);
                let _ = accuracy.case("y", &expected, &plain, &y);
                let scale = expected_state
                    .iter()
                    .fold(1.0, |max: f64, x| max.max(x.abs()));
                assert_near(
                    &format!("{shape:?} h"),
                    &expected_state,
                    &state,
                    1e-6 * scale,
                );
            }
        }
        ok(accuracy.pooled());
    }
}

#[test]
fn the_bits_of_the_scan_do_not_depend_on_threads_instructions_or_cuts() {
    for (seed, shape) in SHAPES.into_iter().chain([[600, 16, 40]]).enumerate() {
        let case = ScanCase::new(seed as u64, shape);
        same_bits(shape[2], |part, run| case.run(part, run));
    }
}

#[test]
fn a_scan_keeps_what_is_not_a_number_to_its_channel() {
    let [channels, states, rows] = [37, 5, 6];
    let mut case = ScanCase::new(5, [channels, states, rows]);
    let run = on(Isa::detect(), 1, false);
    let (clean, _) = case.run(rows, run);
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        case.given.u[2 * channels + 36] = value;
        let (y, _) = case.run(rows, run);
        for (index, (y, clean)) in y.iter().zip(&clean).enumerate() {
            if index % channels == 36 && index / channels >= 2 {
                assert!(!y.is_finite(), "{value} at {index}: {y}");
            } else {
                assert_eq!(y.to_bits(), clean.to_bits(), "{value} at {index}");
            }
        }
    }
}

#[test]
fn a_scan_of_huge_steps_forgets_and_of_none_keeps() {
    let layer = ok(SelectiveScan::new([1, 2], &[0.0, 80.0], &[0.5]));
    for isa in Isa::available() {
        let (mut state, mut y) = (vec![0.0; layer.state_len()], [f32::NAN; 2]);
        ok(layer.import(&[3.0, 4.0], &mut state));
        // A step of 0 keeps both; one of 1000 leaves Δ · u · B alone.
        let rows = ScanRows {
            u: &[2.0, 2.0],
            delta: &[0.0, 1000.0],
            b_c: &[1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 1.0, 1.0],
        };
        ok(layer.forward(&rows, &mut state, &mut y, on(isa, 1, false)));
        assert_eq!(y, [8.0, 2001.0], "{}", isa.name());
        assert_eq!(ok(layer.export(&state)), [2000.0, 0.0]);
    }
}

// --------------------------------------------------------------------------------------- functions

#[test]
fn softplus_is_within_an_ulp_and_has_one_set_of_bits() {
    let inputs: Vec<f32> = (0..=u32::MAX)
        .step_by(4093)
        .map(f32::from_bits)
        .filter(|x| x.is_finite())
        .collect();
    let mut first: Option<Vec<u32>> = None;
    for (index, isa) in Isa::available().into_iter().enumerate() {
        let mut got = inputs.clone();
        softplus(&mut got, on(isa, index % 2 + 1, false));
        let first = first.get_or_insert_with(|| bits(&got));
        assert_eq!(*first, bits(&got), "{}", isa.name());
        for (&x, &y) in inputs.iter().zip(&got) {
            let expected = reference::softplus(f64::from(x));
            let exponent = ((expected.to_bits() >> 52) as i32 - 1023).max(-126);
            let ulp = libm::ldexp(1.0, exponent - 23);
            let error = (f64::from(y) - expected).abs() / ulp;
            assert!(error <= 0.6, "{error} ulp at {x}: {y}");
        }
    }
    let mut limits = [f32::NEG_INFINITY, f32::INFINITY, f32::NAN];
    softplus(&mut limits, Run::default());
    assert_eq!(limits[..2], [0.0, f32::INFINITY]);
    assert!(limits[2].is_nan());
}

#[test]
fn gates_are_silu_times_what_passes() {
    for len in [0, 1, 5, 16, 33, 70_001] {
        let (gates, carried) = (values(len as u64, len, 9.0), noise(len, 3));
        let pairs = gates.iter().zip(&carried);
        let expected: Vec<f64> = pairs
            .map(|(&gate, &carried)| reference::silu(f64::from(gate)) * f64::from(carried))
            .collect();
        let mut seen: [Option<Vec<u32>>; 2] = [None, None];
        for isa in Isa::available() {
            for threads in [1, 3] {
                for deterministic in [false, true] {
                    let mut got = gates.clone();
                    ok(silu_gate(
                        &mut got,
                        &carried,
                        on(isa, threads, deterministic),
                    ));
                    assert_near("gates", &expected, &got, 2e-6);
                    let class = usize::from(deterministic || isa.name() == "scalar");
                    let seen = seen[class].get_or_insert_with(|| bits(&got));
                    assert_eq!(*seen, bits(&got), "{} {threads}", isa.name());
                }
            }
        }
    }
}

// ---------------------------------------------------------------------------------------- refusals

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let kind = |error: diffattn::Error| (error.kind(), error.to_string());
    let (shape, run) = (Some(ErrorKind::Shape), Run::default());
    let refused = |result: Result<(), diffattn::Error>, sentence: &str| {
        let said = result.map_err(kind);
        assert_eq!(said, Err((shape, sentence.to_owned())));
    };
    let none = "weight: expected 1 channel and 1 tap or more, got 0 channels of 4 taps";
    refused(CausalConvolution::new([0, 4], &[], &[]).map(drop), none);
    let none = "a_log: expected 1 channel and 1 state or more, got 2 channels of 0 states";
    refused(SelectiveScan::new([2, 0], &[], &[0.0; 2]).map(drop), none);
    let huge = SelectiveScan::new([usize::MAX, 2], &[0.0], &[0.0]).map(drop);
    assert_eq!(huge.map_err(|error| error.kind()), Err(shape));
    let huge = CausalConvolution::new([usize::MAX, 2], &[0.0], &[0.0]).map(drop);
    assert_eq!(huge.map_err(|error| error.kind()), Err(shape));
    let weight = "weight: expected 4 elements for shape [2, 2], got 3";
    refused(
        CausalConvolution::new([2, 2], &[0.0; 3], &[0.0; 2]).map(drop),
        weight,
    );
    let convolution = ok(CausalConvolution::new([2, 2], &[0.0; 4], &[0.0; 2]));
    refused(
        convolution.forward(&[0.0; 3], &mut [0.0; 2], &mut [0.0; 2], run),
        "x: expected 2 elements for shape [1, 2], got 3",
    );
    refused(
        convolution.forward(&[0.0; 2], &mut [0.0; 3], &mut [0.0; 2], run),
        "state: expected 2 elements for shape [1, 2], got 3",
    );
    let scan = ok(SelectiveScan::new([1, 1], &[0.0], &[0.0]));
    let rows = ScanRows {
        u: &[0.0],
        delta: &[0.0],
        b_c: &[0.0],
    };
    refused(
        scan.forward(&rows, &mut [0.0; 16], &mut [0.0], run),
        "b_c: expected 2 elements for shape [1, 2, 1], got 1",
    );
    refused(
        silu_gate(&mut [0.0], &[], run),
        "carried: expected 1 elements for shape [1], got 0",
    );
    // No rows are no error, and change nothing.
    let rows = ScanRows {
        u: &[],
        delta: &[],
        b_c: &[],
    };
    let mut state = [1.0; 16];
    ok(scan.forward(&rows, &mut state, &mut [], run));
    ok(convolution.forward(&[], &mut state[..2], &mut [], run));
    assert_eq!(state, [1.0; 16]);
}

// ------------------------------------------------------------------------------------------ shared

/// Runs every way: results and states must have the same bits where they fuse alike.
fn same_bits(rows: usize, run: impl Fn(usize, Run) -> (Vec<f32>, Vec<f32>)) {
    let mut classes: [Option<[Vec<u32>; 2]>; 2] = [None, None];
    for isa in Isa::available() {
        for deterministic in [false, true] {
            for (threads, part) in [(1, rows), (1, 1), (2, rows), (3, 4), (7, rows)] {
                let (y, state) = run(part, on(isa, threads, deterministic));
                let got = [bits_with_one_nan(&y), bits_with_one_nan(&state)];
                let class = usize::from(deterministic || isa.name() == "scalar");
                let first = classes[class].get_or_insert_with(|| got.clone());
                assert!(
                    *first == got,
                    "{} deterministic {deterministic}: {threads} threads, parts of {part}",
                    isa.name()
                );
            }
        }
    }
}
