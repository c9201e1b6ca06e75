//! The rule by which float32 becomes codes of a byte: the largest magnitude of those that share a
//! scale is ±127, ties go to even. Knows nothing of who shares one.

/// 1.5 · 2²³: adding it leaves the nearest integer in the low bits of the significand.
const ROUND: f32 = 12_582_912.0;

/// A magnitude as an integer: these have the order of the numbers, and NaN comes last.
#[inline(always)]
pub(crate) fn magnitude(x: f32) -> u32 {
    x.to_bits() & 0x7fff_ffff
}

/// Of the largest [`magnitude`] the scale and its reciprocal. A scale of zero, or so small that
/// float32 has no reciprocal of it, has codes of zero. That of NaN or infinity is no number.
#[inline(always)]
pub(crate) fn scale_of(largest: u32) -> [f32; 2] {
    let scale = f32::from_bits(largest) / 127.0;
    let inverse = 1.0 / scale;
    let inverse = if inverse.is_finite() { inverse } else { 0.0 };
    // A sum times an infinite scale must not be a number.
    let scale = if scale.is_finite() { scale } else { f32::NAN };
    [scale, inverse]
}

/// The code of a number beside others whose scale has this reciprocal.
#[inline(always)]
pub(crate) fn code(x: f32, inverse: f32) -> i8 {
    (x * inverse + ROUND).to_bits() as u8 as i8
}
