//! The smooth form of the larger of zero and x, over a slice: the step sizes of recurrent layers.
//! In float64; nothing fuses, so every instruction set gives the same bits.

use super::wide::{Function, each, exp2, polynomial};
use crate::run::Run;
use crate::simd::Wide;

/// ln(1 + t) = 2s·(1 + s²/3 + s⁴/5 + …), s = t / (2 + t): the series of the inverse hyperbolic
/// tangent, 2⁻³⁶ off for t ≤ 1 where it ends.
const SERIES: [f64; 10] = [
    1.0,
    1.0 / 3.0,
    1.0 / 5.0,
    1.0 / 7.0,
    1.0 / 9.0,
    1.0 / 11.0,
    1.0 / 13.0,
    1.0 / 15.0,
    1.0 / 17.0,
    1.0 / 19.0,
];

/// [`softplus`].
struct Softplus;

impl Function for Softplus {
    /// max(x, 0) + ln(1 + e^−|x|), which loses no digit at either end.
    #[inline(always)]
    fn of<W: Wide, const N: usize>(x: [W; N]) -> [W; N] {
        // Powers beyond have long made 0 or x of it, and stay in the range of `exp2`.
        const LOWEST: f64 = -1000.0;
        let mut power = x;
        for i in 0..N {
            let scaled = x[i].abs().mul(W::splat(-std::f64::consts::LOG2_E));
            power[i] = W::splat(LOWEST).max(scaled);
        }
        let (mut ratio, mut square) = (exp2(power), x);
        for i in 0..N {
            ratio[i] = ratio[i].div(W::splat(2.0).add(ratio[i]));
            square[i] = ratio[i].mul(ratio[i]);
        }
        let mut y = polynomial(&SERIES, square);
        for i in 0..N {
            let log = W::splat(2.0).mul(ratio[i]).mul(y[i]);
            y[i] = W::splat(0.0).max(x[i]).add(log);
        }
        y
    }
}

/// Replaces each value x by `ln(1 + e^x)`, within 1 ulp: 0 at −∞, ∞ at ∞, NaN for NaN. Every
/// instruction set gives the same bits.
///
/// ```
/// let mut values = [0.0, 100.0, f32::NEG_INFINITY];
/// diffattn::softplus(&mut values, diffattn::Run::default());
/// assert_eq!(values, [std::f32::consts::LN_2, 100.0, 0.0]);
/// ```
pub fn softplus(values: &mut [f32], run: Run) {
    each::<Softplus>(values, run);
}
