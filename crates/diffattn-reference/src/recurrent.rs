//! What recurrent layers do along a sequence, as their formulas read: a causal convolution and the
//! selective scan of Mamba (arXiv 2312.00752), and the functions around them. Row by row from the
//! first; states are given and returned, so that a sequence can be cut.

use crate::Real;

/// `x / (1 + e^−x)`.
pub fn silu<R: Real>(x: R) -> R {
    let one = R::from_f64(1.0);
    x / (one + (R::from_f64(0.0) - x).exp())
}

/// `ln(1 + e^x)` in float64, which keeps its digits at both ends.
pub fn softplus(x: f64) -> f64 {
    x.max(0.0) + libm::log1p(libm::exp(-x.abs()))
}

/// `y[t] = silu(bias + Σ_k weight[k] · x[t − taps + 1 + k])` in each channel. x is `[L, channels]`,
/// `weight` `[channels, taps]`, the oldest tap first, `bias` `[channels]`; `before` are the last
/// `taps − 1` rows before x. Gives y and the rows before what comes next.
pub fn causal_convolution<R: Real>(
    x: &[R],
    weight: &[R],
    bias: &[R],
    before: &[R],
) -> (Vec<R>, Vec<R>) {
    let channels = bias.len();
    let taps = weight.len() / channels;
    assert_eq!(before.len(), (taps - 1) * channels, "rows before the first");
    let all: Vec<R> = before.iter().chain(x).copied().collect();
    let mut y = Vec::with_capacity(x.len());
    for row in 0..x.len() / channels {
        for channel in 0..channels {
            let mut sum = bias[channel];
            for tap in 0..taps {
                sum += weight[channel * taps + tap] * all[(row + tap) * channels + channel];
            }
            y.push(silu(sum));
        }
    }
    let kept = all[all.len() - before.len()..].to_vec();
    (y, kept)
}

/// What a selective scan is given.
#[derive(Clone, Debug)]
pub struct Scan<R> {
    /// `[L, channels]`.
    pub u: Vec<R>,
    /// Step sizes, `[L, channels]`.
    pub delta: Vec<R>,
    /// A is −e^`a_log`, `[channels, states]`.
    pub a_log: Vec<R>,
    /// `[L, states]`.
    pub b: Vec<R>,
    /// `[L, states]`.
    pub c: Vec<R>,
    /// `[channels]`.
    pub d: Vec<R>,
    /// h before the first row, `[channels, states]`.
    pub state: Vec<R>,
}

impl<R: Real> Scan<R> {
    /// y `[L, channels]`, and h behind the last row: `h = exp(Δ · A) ⊙ h + Δ · u · B`, `y = h · C +
    /// D · u`.
    pub fn run(&self) -> (Vec<R>, Vec<R>) {
        let channels = self.d.len();
        let states = self.a_log.len() / channels;
        let (mut h, mut y) = (self.state.clone(), Vec::with_capacity(self.u.len()));
        for row in 0..self.u.len() / channels {
            for channel in 0..channels {
                let at = row * channels + channel;
                let (u, delta) = (self.u[at], self.delta[at]);
                let mut sum = R::from_f64(0.0);
                for state in 0..states {
                    let rate = R::from_f64(0.0) - self.a_log[channel * states + state].exp();
                    let h = &mut h[channel * states + state];
                    *h = (delta * rate).exp() * *h + delta * u * self.b[row * states + state];
                    sum += *h * self.c[row * states + state];
                }
                y.push(sum + self.d[channel] * u);
            }
        }
        (y, h)
    }
}

/// The values in another arithmetic.
pub fn cast<R: Real>(values: &[f32]) -> Vec<R> {
    values.iter().map(|&x| R::from_f64(f64::from(x))).collect()
}
