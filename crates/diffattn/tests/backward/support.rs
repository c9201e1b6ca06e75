//! What the tests of backward operators share: ways to run, reference cases, halves, comparisons.

use diffattn::{DType, Data, Error, Isa, Run, Tensor, Work};
use diffattn_reference::fixture::{self, Fixture};
use half::{bf16, f16};

/// The bound on each gradient, per largest expected value.
const BOUND: f64 = 2e-6;

pub(crate) fn on(isa: Isa, threads: usize, deterministic: bool) -> Run {
    Run::new(Some(isa), Some(threads), deterministic).unwrap()
}

/// Every instruction set of this machine, fused and not, on one thread, two and four.
pub(crate) fn every_run() -> Vec<Run> {
    let mut runs = Vec::new();
    for isa in Isa::available() {
        for (threads, deterministic) in [(1, false), (2, false), (4, true)] {
            runs.push(on(isa, threads, deterministic));
        }
    }
    runs
}

/// The cases of an operator, of which there are `least` at least.
pub(crate) fn cases(operator: &str, least: usize) -> Vec<Fixture> {
    let cases = fixture::read_all(&format!("training/operators/{operator}"));
    assert!(cases.len() >= least, "{operator}: {} cases", cases.len());
    cases
}

/// Panics where a gradient is further from what is expected than the bound allows.
#[track_caller]
pub(crate) fn near(name: &str, expected: &[f64], got: &[f32]) {
    let largest = expected.iter().fold(0.0f64, |max, x| max.max(x.abs()));
    diffattn_reference::testing::assert_near(name, expected, got, BOUND * largest);
}

/// Values as a half type has them: their bits, and what they are.
pub(crate) struct Halves {
    dtype: DType,
    bits: Vec<u16>,
    pub(crate) values: Vec<f32>,
}

impl Halves {
    pub(crate) fn of(dtype: DType, values: &[f32]) -> Self {
        let narrow = |&x: &f32| match dtype {
            DType::F16 => f16::from_f32(x).to_bits(),
            _ => bf16::from_f32(x).to_bits(),
        };
        let widen = |&bits: &u16| match dtype {
            DType::F16 => f16::from_bits(bits).to_f32(),
            _ => bf16::from_bits(bits).to_f32(),
        };
        let bits: Vec<u16> = values.iter().map(narrow).collect();
        let values = bits.iter().map(widen).collect();
        Self {
            dtype,
            bits,
            values,
        }
    }

    pub(crate) fn tensor(&self, shape: &[usize]) -> Tensor<'_> {
        let data = match self.dtype {
            DType::F16 => Data::F16(&self.bits),
            _ => Data::Bf16(&self.bits),
        };
        Tensor {
            data,
            shape: shape.to_vec(),
        }
    }
}

/// Runs a job one unit at a time, and counts.
pub(crate) fn step_by_step(mut job: Work<'_>) -> usize {
    let mut steps = 0;
    while job.done() < job.total() {
        let before = job.done();
        job.step(1).unwrap();
        assert_eq!(job.done(), before + 1);
        steps += 1;
    }
    steps
}

/// The code and sentence of what must fail.
#[track_caller]
pub(crate) fn refusal<T>(result: Result<T, Error>) -> (&'static str, String) {
    diffattn_reference::testing::refusal(result, |error| (error.code(), error.to_string()))
}

/// As [`refusal`] gives it.
pub(crate) fn said(code: &'static str, sentence: &str) -> (&'static str, String) {
    (code, sentence.to_owned())
}
