//! The Gaussian error linear unit over a slice, exact (by erf) and in its form by tanh. In float64,
//! without a branch, so that the loop becomes vectors; nothing fuses, so every instruction set
//! gives the same bits.

use crate::run::Run;
use crate::run::threads::{for_each_chunk, thread_count};
use crate::simd::{Kernel, Vector};

/// Values of one item of work: some tens of microseconds.
const ITEM: usize = 1 << 13;

/// Multiply-adds that one value costs.
const VALUE_WORK: usize = 64;

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

/// 2^r on [−½, ½], fitted as [`TAIL`]; 2⁻²⁹ off.
const EXP2: [f64; 7] = [
    1.000_000_000_554_213_8,
    0.693_147_205_737_112,
    0.240_226_468_902_894_4,
    0.055_503_287_772_172_92,
    0.009_618_488_994_425_356,
    0.001_339_993_113_830_12,
    0.000_153_458_019_654_160_66,
];

/// c₀ + c₁x + … by Horner.
#[inline(always)]
fn polynomial<const N: usize>(coefficients: &[f64; N], x: f64) -> f64 {
    let mut p = coefficients[N - 1];
    for coefficient in coefficients[..N - 1].iter().rev() {
        p = p * x + coefficient;
    }
    p
}

/// 2^power, where that is no subnormal and no infinity.
#[inline(always)]
fn exp2(power: f64) -> f64 {
    // 1.5 · 2⁵²: adding it leaves the nearest integer in the low bits of the significand.
    const ROUND: f64 = 6_755_399_441_055_744.0;
    let shifted = power + ROUND;
    polynomial(&EXP2, power - (shifted - ROUND))
        * f64::from_bits((shifted.to_bits() << 52).wrapping_add(1.0_f64.to_bits()))
}

/// x · Φ(x).
#[inline(always)]
fn of(x: f64) -> f64 {
    let x = if x < -FAR { -FAR } else { x };
    let z = x.abs();
    let z = if z > FAR { FAR } else { z };
    let u = (2.0 * CENTRE) / (CENTRE + z);
    let mills = u * polynomial(&TAIL, u - 1.0);
    let tail = mills * exp2(z * z * (-0.5 * std::f64::consts::LOG2_E));
    x * if x < 0.0 { tail } else { 1.0 - tail }
}

/// x · σ(2u), u = √(2/π) (x + 0.044715 x³): what ½ x (1 + tanh u) is.
#[inline(always)]
fn by_tanh(x: f64) -> f64 {
    const SLOPE: f64 = -2.0 * std::f64::consts::LOG2_E * 0.797_884_560_802_865_4;
    // Powers beyond have long made 0 or x of it, and stay in the range of `exp2`.
    const LARGEST: f64 = 1000.0;
    // (Where the result is zero; −∞ would make NaN of it.)
    let x = if x < -FAR { -FAR } else { x };
    let power = SLOPE * (x + 0.044_715 * (x * x * x));
    let power = if power < -LARGEST { -LARGEST } else { power };
    x / (1.0 + exp2(power))
}

struct Gelu<'c, const TANH: bool>(&'c mut [f32]);

impl<const TANH: bool> Kernel for Gelu<'_, TANH> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        for value in self.0 {
            let x = f64::from(*value);
            *value = if TANH { by_tanh(x) } else { of(x) } as f32;
        }
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
    each::<false>(values, run)
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
    each::<true>(values, run)
}

fn each<const TANH: bool>(values: &mut [f32], run: Run) {
    let threads = thread_count(run.threads(), values.len().saturating_mul(VALUE_WORK));
    if threads == 1 {
        run.unfused_kernel(Gelu::<TANH>(values));
    } else {
        for_each_chunk(threads, values, ITEM, |_, _, values| {
            run.unfused_kernel(Gelu::<TANH>(values));
        });
    }
}

#[cfg(test)]
mod tests;
