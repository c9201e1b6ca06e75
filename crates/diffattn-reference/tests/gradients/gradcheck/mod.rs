//! T2: every gradient against central differences in float64, h = 1e-6, relative to the largest
//! gradient of the input.

mod attention;
mod losses;
mod operators;

use diffattn_reference::Tensor;
use diffattn_reference::testing::values;

const STEP: f64 = 1e-6;
const TOLERANCE: f64 = 1e-7;
/// Elements that are tried of each input, beside the one of the largest gradient.
const ELEMENTS: usize = 12;

/// Repeatable values in [−1, 1).
fn noise(shape: &[usize], seed: u64) -> Tensor<f64> {
    let data = values(seed, shape.iter().product(), 1.0);
    Tensor::from_f32(shape, &data)
}

/// Repeatable indices below `len`, all of them where they are few.
fn elements(len: usize, seed: u64) -> Vec<usize> {
    if len <= ELEMENTS {
        return (0..len).collect();
    }
    let index = |x: f32| ((f64::from(x) + 1.0) / 2.0 * len as f64) as usize;
    let chosen = values(seed, ELEMENTS, 1.0).into_iter().map(index);
    chosen.map(|at| at.min(len - 1)).collect()
}

/// The checks of one operator.
struct Check {
    name: String,
    dy: Tensor<f64>,
    worst: f64,
    tried: usize,
}

impl Check {
    /// With a gradient of the result, whose values are noise.
    fn new(name: &str, y: &Tensor<f64>, seed: u64) -> Self {
        Self {
            name: name.to_owned(),
            dy: noise(&y.shape, seed),
            worst: 0.0,
            tried: 0,
        }
    }

    /// The gradient of Σ dy·f(x) against its differences. An input of −Inf has none.
    fn input(
        &mut self,
        input: &str,
        x: &Tensor<f64>,
        gradient: &Tensor<f64>,
        f: impl Fn(&Tensor<f64>) -> Tensor<f64>,
    ) {
        assert_eq!(x.shape, gradient.shape, "{} d{input}", self.name);
        let magnitude = |at: &usize| gradient.data[*at].abs();
        let Some(steepest) = (0..x.data.len()).max_by(|a, b| magnitude(a).total_cmp(&magnitude(b)))
        else {
            return;
        };
        let largest = magnitude(&steepest);
        let mut indices = elements(x.data.len(), 7 + x.data.len() as u64);
        indices.push(steepest);
        for at in indices {
            if x.data[at] == f64::NEG_INFINITY {
                assert_eq!(gradient.data[at], 0.0, "{} d{input}[{at}]", self.name);
                continue;
            }
            let moved = |step: f64| {
                let mut moved = x.clone();
                moved.data[at] += step;
                (moved.data[at], f(&moved))
            };
            let ((above, up), (below, down)) = (moved(STEP), moved(-STEP));
            let differences = up.data.iter().zip(&down.data).zip(&self.dy.data);
            let slope: f64 = differences.map(|((u, d), dy)| (u - d) * dy).sum();
            let slope = slope / (above - below);
            let error = (slope - gradient.data[at]).abs() / largest.max(f64::MIN_POSITIVE);
            let found = gradient.data[at];
            assert!(
                error <= TOLERANCE || slope == found,
                "{} d{input}[{at}]: {found:e}, by differences {slope:e}: {error:e} of the largest",
                self.name
            );
            self.tried += 1;
            self.worst = self.worst.max(error);
        }
    }

    /// Tells what was measured.
    #[expect(
        clippy::print_stdout,
        reason = "shows what was measured, with --nocapture"
    )]
    fn done(self) {
        assert!(self.tried > 0, "{}: nothing was tried", self.name);
        println!(
            "{}: {:.1e} ({} elements)",
            self.name, self.worst, self.tried
        );
    }
}
