//! What the comparisons share: each expected tensor of a case against float64 and against the plain
//! float32 computation.

use std::collections::BTreeSet;

use diffattn_reference::fixture::{Fixture, read_all};
use diffattn_reference::{Real, Tensor};

/// Two ways to sum the same float64 values, relative to the largest.
const FLOAT64: f64 = 1e-11;
/// What the plain float32 computation may lose; it is what others are measured by, not measured.
const FLOAT32: f64 = 1e-4;

/// The comparisons of one case.
pub(crate) struct Case<'a> {
    pub(crate) fixture: &'a Fixture,
    compared: BTreeSet<String>,
    failures: Vec<String>,
    /// Largest differences met, relative to the largest expected value: float64, float32.
    worst: [f64; 2],
}

impl Case<'_> {
    /// `expected.{name}` against a result in float64 or float32.
    pub(crate) fn compare<R: Real>(&mut self, name: &str, got: &Tensor<R>) {
        let Some(expected) = self.fixture.expected(name) else {
            panic!("{}: no expected.{name}", self.fixture.name)
        };
        self.compared.insert(format!("expected.{name}"));
        let (kind, tolerance) = match size_of::<R>() {
            8 => (0, FLOAT64),
            _ => (1, FLOAT32),
        };
        let got = got.widen();
        let label = format!("{} {name} float{}", self.fixture.name, [64, 32][kind]);
        if expected.shape != got.shape {
            let (got, expected) = (&got.shape, &expected.shape);
            self.failures
                .push(format!("{label}: shape {got:?}, expected {expected:?}"));
            return;
        }
        let difference = difference(&expected.data, &got.data);
        self.worst[kind] = self.worst[kind].max(difference);
        if difference.is_nan() || difference > tolerance {
            self.failures
                .push(format!("{label}: differs by {difference:e} of the largest"));
        }
    }

    /// What the case expects must have been compared since the last call.
    fn all_was_compared(&mut self) {
        let compared = std::mem::take(&mut self.compared);
        let expected = self.fixture.tensors.keys();
        for name in expected.filter(|name| name.starts_with("expected.")) {
            if !compared.contains(name) {
                let case = &self.fixture.name;
                self.failures
                    .push(format!("{case}: {name} was not compared"));
            }
        }
    }

    /// As [`Self::compare`], where the case expects it.
    pub(crate) fn compare_some<R: Real>(&mut self, name: &str, got: Option<&Tensor<R>>) {
        if let Some(got) = got {
            self.compare(name, got);
        }
    }
}

/// The largest difference over the largest expected value, or over 1 where all expected are zero.
pub(crate) fn difference(expected: &[f64], got: &[f64]) -> f64 {
    let largest = expected.iter().fold(0.0, |max: f64, x| max.max(x.abs()));
    let unit = if largest > 0.0 { largest } else { 1.0 };
    let differences = expected.iter().zip(got).map(|(x, y)| (x - y).abs() / unit);
    differences.fold(
        0.0,
        |max: f64, x| {
            if x > max || x.is_nan() { x } else { max }
        },
    )
}

/// The cases of a folder and what compares one in float64 and in float32.
pub(crate) struct Folder {
    pub(crate) name: &'static str,
    pub(crate) cases: usize,
    float64: fn(&mut Case),
    float32: fn(&mut Case),
}

impl Folder {
    pub(crate) const fn new(
        name: &'static str,
        cases: usize,
        float64: fn(&mut Case),
        float32: fn(&mut Case),
    ) -> Self {
        Self {
            name,
            cases,
            float64,
            float32,
        }
    }

    /// Adds to `failures` what differs, and what a case expects that was not compared.
    #[expect(
        clippy::print_stdout,
        reason = "shows what was measured, with --nocapture"
    )]
    pub(crate) fn compare(&self, failures: &mut Vec<String>) {
        let fixtures = read_all(self.name);
        if fixtures.len() != self.cases {
            let (name, found, cases) = (self.name, fixtures.len(), self.cases);
            failures.push(format!("{name}: {found} cases, expected {cases}"));
        }
        let mut worst = [(0.0, ""); 2];
        for fixture in &fixtures {
            let mut case = Case {
                fixture,
                compared: BTreeSet::new(),
                failures: Vec::new(),
                worst: [0.0; 2],
            };
            for compare in [self.float64, self.float32] {
                compare(&mut case);
                case.all_was_compared();
            }
            failures.append(&mut case.failures);
            for (worst, own) in worst.iter_mut().zip(case.worst) {
                if own > worst.0 {
                    *worst = (own, &fixture.name);
                }
            }
        }
        let (name, [(float64, at64), (float32, at32)]) = (self.name, worst);
        println!("{name}: float64 {float64:.1e} ({at64}), plain float32 {float32:.1e} ({at32})");
    }
}
