//! The Gaussian error linear unit over a slice, exact (by erf) and in its form by tanh. In float64;
//! nothing fuses, so every instruction set gives the same bits.

use super::wide::{Function, each, exp2, polynomial};
use crate::run::Run;
use crate::simd::Wide;

/// Below its negative x · Φ(x) is less than half of the smallest float32; so far [`TAIL`] is
/// fitted.
const FAR: f64 = 15.0;

/// Where the variable of [`TAIL`] is zero, which spreads its error evenly.
const CENTRE: f64 = 3.5;

/// Φ(−z) e^(z²/2) = (1 + s)·(c₀ + … + c₁₁s¹¹), s = (3.5 − z)/(3.5 + z), for 0 ≤ z ≤ 15. Minimax in
/// relative error (Lawson's reweighted least squares); 2⁻³³ off.
const TAIL: [f64; 12] = [
    0.106_345_153_629_077_32,
    0.080_794_545_001_450_97,
    0.045_060_710_529_149_325,
    0.016_578_710_835_240_654,
    0.002_486_820_519_891_646,
    -0.000_925_256_700_891_099_7,
    -0.000_455_455_305_855_010_16,
    6.397_350_832_959_84e-5,
    6.742_107_427_022_389e-5,
    -1.033_730_633_360_955e-5,
    -9.124_758_742_668_957e-6,
    2.838_950_980_459_706e-6,
];

/// Φ(−z) and e^(−z²/2) of z = |x|, [`FAR`] at most.
#[inline(always)]
fn tails<W: Wide, const N: usize>(x: [W; N]) -> [[W; N]; 2] {
    let (mut u, mut rest, mut power) = (x, x, x);
    for i in 0..N {
        let z = W::splat(FAR).min(x[i].abs());
        u[i] = W::splat(2.0 * CENTRE).div(W::splat(CENTRE).add(z));
        rest[i] = u[i].sub(W::splat(1.0));
        power[i] = z.mul(z).mul(W::splat(-0.5 * std::f64::consts::LOG2_E));
    }
    let (mills, power) = (polynomial(&TAIL, rest), exp2(power));
    for i in 0..N {
        u[i] = u[i].mul(mills[i]).mul(power[i]);
    }
    [u, power]
}

/// x · Φ(x).
#[inline(always)]
fn of<W: Wide, const N: usize>(mut x: [W; N]) -> [W; N] {
    for x in &mut x {
        *x = W::splat(-FAR).max(*x);
    }
    let [tails, _] = tails(x);
    for (x, tail) in x.iter_mut().zip(tails) {
        *x = x.mul(x.by_sign(tail, W::splat(1.0).sub(tail)));
    }
    x
}

/// Φ(x) + x · φ(x), the slope of x · Φ(x).
#[inline(always)]
pub(super) fn slope<W: Wide, const N: usize>(mut x: [W; N]) -> [W; N] {
    /// 1/√(2π).
    const DENSITY: f64 = 0.398_942_280_401_432_7;
    let [tails, powers] = tails(x);
    for i in 0..N {
        // z · φ(z), of which the negative belongs to a negative x.
        let z = W::splat(FAR).min(x[i].abs());
        let slope = tails[i].sub(z.mul(W::splat(DENSITY)).mul(powers[i]));
        x[i] = x[i].by_sign(slope, W::splat(1.0).sub(slope));
    }
    x
}

/// √(2/π).
const ROOT: f64 = 0.797_884_560_802_865_4;
/// What the cube is multiplied with in [`gelu_tanh`].
const CUBE: f64 = 0.044_715;

/// e^(−2u), u = √(2/π) (x + 0.044715 x³).
#[inline(always)]
fn powers<W: Wide, const N: usize>(mut x: [W; N]) -> [W; N] {
    const SLOPE: f64 = -2.0 * std::f64::consts::LOG2_E * ROOT;
    // Powers beyond have long made 0 or x of it, and stay in the range of `exp2`.
    const LARGEST: f64 = 1000.0;
    for x in &mut x {
        let cube = W::splat(CUBE).mul(x.mul(*x).mul(*x));
        *x = W::splat(-LARGEST).max(W::splat(SLOPE).mul(x.add(cube)));
    }
    exp2(x)
}

/// x · σ(2u): what ½ x (1 + tanh u) is.
#[inline(always)]
fn by_tanh<W: Wide, const N: usize>(mut x: [W; N]) -> [W; N] {
    for x in &mut x {
        // (Where the result is zero; −∞ would make NaN of it.)
        *x = W::splat(-FAR).max(*x);
    }
    let power = powers(x);
    for i in 0..N {
        x[i] = x[i].div(W::splat(1.0).add(power[i]));
    }
    x
}

/// The slope of x · σ(2u): σ · (1 + 2 x u′ · (1 − σ)), u′ = √(2/π) (1 + 3 · 0.044715 x²).
#[inline(always)]
pub(super) fn slope_by_tanh<W: Wide, const N: usize>(mut x: [W; N]) -> [W; N] {
    for x in &mut x {
        // (Beyond, it is 0 or 1 to the last bit.)
        *x = W::splat(FAR).min(W::splat(-FAR).max(*x));
    }
    let power = powers(x);
    for i in 0..N {
        let sigma = W::splat(1.0).div(W::splat(1.0).add(power[i]));
        let square = W::splat(3.0 * CUBE).mul(x[i].mul(x[i]));
        let steep = W::splat(2.0 * ROOT).mul(W::splat(1.0).add(square));
        let rest = x[i].mul(steep).mul(power[i].mul(sigma));
        x[i] = sigma.mul(W::splat(1.0).add(rest));
    }
    x
}

/// [`gelu`].
struct Exact;

impl Function for Exact {
    #[inline(always)]
    fn of<W: Wide, const N: usize>(x: [W; N]) -> [W; N] {
        of(x)
    }
}

/// [`gelu_tanh`].
struct ByTanh;

impl Function for ByTanh {
    #[inline(always)]
    fn of<W: Wide, const N: usize>(x: [W; N]) -> [W; N] {
        by_tanh(x)
    }
}

/// Replaces each value x by `x · Φ(x)`, Φ the normal distribution's (arXiv 1606.08415), within 1
/// ulp: −0, its limit, at −∞, ∞ at ∞, NaN for NaN. Every instruction set gives the same bits.
///
/// ```
/// let mut values = [0.0, 1.0, f32::INFINITY];
/// diffattn::gelu(&mut values, diffattn::Run::default());
/// assert_eq!(values, [0.0, 0.841_344_77, f32::INFINITY]);
/// ```
pub fn gelu(values: &mut [f32], run: Run) {
    each::<Exact>(values, run)
}

/// Replaces each value x by `x / 2 · (1 + tanh(√(2/π) · (x + 0.044715 · x³)))`, the form of
/// [`gelu`] by tanh (arXiv 1606.08415, section 2), within 1 ulp: −0, its limit, at −∞, ∞ at ∞, NaN
/// for NaN. Every instruction set gives the same bits.
///
/// ```
/// let mut values = [0.0, 1.0, f32::INFINITY];
/// diffattn::gelu_tanh(&mut values, diffattn::Run::default());
/// assert_eq!(values, [0.0, 0.841_192, f32::INFINITY]);
/// ```
pub fn gelu_tanh(values: &mut [f32], run: Run) {
    each::<ByTanh>(values, run)
}

#[cfg(test)]
mod tests;
