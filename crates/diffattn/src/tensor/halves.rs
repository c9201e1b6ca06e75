//! float16 and bfloat16, held as their bits, to float32 and back. By the crate `half`, which has
//! instructions of x86 and ARM; on WebAssembly, where it has none, to the same bits without a
//! branch and in blocks of one length, which the compiler makes vectors of.

use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use half::{bf16, f16};

/// Values that are converted together.
const BLOCK: usize = 8;

/// float16 as float32, exactly; a signalling NaN becomes quiet. `to` is as long as `from`.
#[inline]
pub(super) fn widen_f16(from: &[u16], to: &mut [f32]) {
    if cfg!(target_arch = "wasm32") {
        convert(from, to, f16_to_f32);
    } else {
        from.reinterpret_cast::<f16>().convert_to_f32_slice(to);
    }
}

/// bfloat16 as float32, exactly; a signalling NaN becomes quiet. `to` is as long as `from`.
#[inline]
pub(super) fn widen_bf16(from: &[u16], to: &mut [f32]) {
    if cfg!(target_arch = "wasm32") {
        convert(from, to, bf16_to_f32);
    } else {
        from.reinterpret_cast::<bf16>().convert_to_f32_slice(to);
    }
}

/// float32 as float16, rounded once to nearest even. `to` is as long as `from`.
#[inline]
pub(super) fn narrow_f16(from: &[f32], to: &mut [u16]) {
    if cfg!(target_arch = "wasm32") {
        convert(from, to, f32_to_f16);
    } else {
        to.reinterpret_cast_mut::<f16>()
            .convert_from_f32_slice(from);
    }
}

/// float32 as bfloat16, rounded once to nearest even. `to` is as long as `from`.
#[inline]
pub(super) fn narrow_bf16(from: &[f32], to: &mut [u16]) {
    if cfg!(target_arch = "wasm32") {
        convert(from, to, f32_to_bf16);
    } else {
        to.reinterpret_cast_mut::<bf16>()
            .convert_from_f32_slice(from);
    }
}

/// `one` of each value; `to` is as long as `from`.
#[inline(always)]
fn convert<A: Copy, B>(from: &[A], to: &mut [B], one: impl Fn(A) -> B) {
    let (from, from_rest) = from.as_chunks::<BLOCK>();
    let (to, to_rest) = to.as_chunks_mut::<BLOCK>();
    for (to, from) in to.iter_mut().zip(from) {
        *to = from.map(&one);
    }
    for (to, &from) in to_rest.iter_mut().zip(from_rest) {
        *to = one(from);
    }
}

#[inline(always)]
fn f16_to_f32(bits: u16) -> f32 {
    /// The exponents of float32 and float16 are 2¹¹² apart.
    const SCALE: f32 = f32::from_bits((127 + 112) << 23);
    let bits = u32::from(bits);
    let magnitude = bits & 0x7fff;
    // Exponent and significand in their places, the exponent too small by 112: a product, exact
    // also where float16 is subnormal.
    let scaled = (f32::from_bits(magnitude << 13) * SCALE).to_bits();
    let special = if magnitude >= 0x7c00 { 0x7f80_0000 } else { 0 };
    let quiet = if magnitude > 0x7c00 { 0x0040_0000 } else { 0 };
    f32::from_bits(scaled | special | quiet | (bits & 0x8000) << 16)
}

#[inline(always)]
fn bf16_to_f32(bits: u16) -> f32 {
    let quiet = if bits & 0x7fff > 0x7f80 { 0x40 } else { 0 };
    f32::from_bits(u32::from(bits | quiet) << 16)
}

#[inline(always)]
fn f32_to_f16(value: f32) -> u16 {
    let bits = value.to_bits();
    let magnitude = bits & 0x7fff_ffff;
    // From 2⁻¹⁴ on: the exponent is less by 112, and the significand's last 13 bits are rounded
    // away; from 65,520 on that is infinity.
    let rounded = magnitude.wrapping_add(0xfff + (magnitude >> 13 & 1));
    let normal = rounded.wrapping_sub(112 << 23) >> 13;
    // Below, the last place of float16 is that of ½ in float32.
    let half = f32::from_bits(magnitude) + 0.5;
    let subnormal = half.to_bits().wrapping_sub(0.5_f32.to_bits());
    let is_subnormal = magnitude < (127 - 14) << 23;
    let finite = if is_subnormal { subnormal } else { normal };
    let is_huge = magnitude >= (127 + 16) << 23;
    let number = if is_huge { 0x7c00 } else { finite };
    let nan = 0x7e00 | magnitude >> 13 & 0x3ff;
    let made = if magnitude > 0x7f80_0000 { nan } else { number };
    (made | bits >> 16 & 0x8000) as u16
}

#[inline(always)]
fn f32_to_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
    let quiet = bits | 0x0040_0000;
    ((if value.is_nan() { quiet } else { rounded }) >> 16) as u16
}

#[cfg(test)]
mod tests;
