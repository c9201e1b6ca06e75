//! The inverse of a spread, so that neither it nor what is multiplied by it over- or underflows.
//! Knows nothing of how spreads are found.

/// A spread (standard deviation or root mean square) as two float32 factors whose product is its
/// inverse: a power of two that brings values near 1, and the rest, so that neither over- nor
/// underflows.
#[derive(Debug, Clone, Copy)]
pub(super) struct InverseSpread {
    pub(super) power: f32,
    pub(super) rest: f64,
}

impl InverseSpread {
    /// A spread of zero gives zeros: so a row or group without any spread stays finite when eps is
    /// 0.
    #[inline(always)]
    pub(super) fn of(spread: f64) -> Self {
        if spread == 0.0 {
            return Self {
                power: 1.0,
                rest: 0.0,
            };
        }
        // 2^−e for a spread of m · 2^e, 1 ≤ m < 2, as far as float32 holds it. NaN and infinity
        // have e = 1024.
        let exponent = ((spread.to_bits() >> 52) & 0x7ff) as i32 - 1023;
        let power = f32::from_bits((((-exponent).clamp(-126, 127) + 127) as u32) << 23);
        Self {
            power,
            rest: 1.0 / spread / f64::from(power),
        }
    }

    /// The inverse itself, which float64 holds.
    #[inline(always)]
    pub(super) fn value(self) -> f64 {
        f64::from(self.power) * self.rest
    }
}
