//! WebAssembly's conversions give the bits of the crate `half`: of every half, and of floats around
//! every rounding.

use super::*;

/// Each of 2¹⁶ upper halves, with lower halves around what rounds up, down and to even.
fn floats() -> Vec<f32> {
    let lower = [
        0, 1, 0x0fff, 0x1000, 0x1001, 0x2000, 0x3000, 0x7fff, 0x8000, 0x8001, 0xf000, 0xffff,
    ];
    let upper = (0..=u16::MAX).map(|upper| u32::from(upper) << 16);
    upper
        .flat_map(|upper| lower.map(|lower| f32::from_bits(upper | lower)))
        .collect()
}

#[test]
fn every_half_is_widened_to_the_same_bits() {
    for half in 0..=u16::MAX {
        let (got, wanted) = (f16_to_f32(half), f16::from_bits(half).to_f32());
        assert_eq!(got.to_bits(), wanted.to_bits(), "float16 {half:#x}");
        let (got, wanted) = (bf16_to_f32(half), bf16::from_bits(half).to_f32());
        assert_eq!(got.to_bits(), wanted.to_bits(), "bfloat16 {half:#x}");
    }
}

#[test]
fn floats_are_narrowed_to_the_same_bits() {
    for float in floats() {
        let bits = float.to_bits();
        let wanted = f16::from_f32(float).to_bits();
        assert_eq!(f32_to_f16(float), wanted, "float16 of {bits:#x}");
        let wanted = bf16::from_f32(float).to_bits();
        assert_eq!(f32_to_bf16(float), wanted, "bfloat16 of {bits:#x}");
    }
}

#[test]
fn blocks_and_what_is_left_over_are_converted() {
    for len in 0..=3 * BLOCK {
        let from: Vec<u16> = (0..len as u16).collect();
        let mut to = vec![0; len];
        convert(&from, &mut to, |x| 2 * x);
        assert!(to.iter().zip(&from).all(|(to, from)| *to == 2 * from));
    }
}
