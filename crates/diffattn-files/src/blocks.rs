//! Quantised elements as GGUF files hold them: blocks of 32 codes with a scale. Knows no tensor.

use crate::dtype::{BLOCK, Dtype};
use diffattn::Error;
use half::f16;

/// A block of 32 elements: each is its code times `scale`, plus `bias`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Block {
    /// The step from one code to the next; float16 in the file.
    pub scale: f32,
    /// What code 0 stands for; float16 in the file, and 0 in Q8_0 and Q4_0, which have none.
    pub bias: f32,
    /// The codes: of Q8_0 from −128, of Q4_0 −8 to 7 (the file has 8 more), of Q4_1 0 to 15.
    pub codes: [i8; BLOCK],
}

impl Block {
    /// The block of these bytes, as many as the type has.
    pub(crate) fn read(dtype: Dtype, bytes: &[u8]) -> Self {
        let half = |at: usize| match bytes.get(at..at + 2) {
            Some(&[low, high]) => f16::from_le_bytes([low, high]).to_f32(),
            _ => 0.0,
        };
        let (codes_at, bias) = match dtype {
            Dtype::Q4_1 => (4, half(2)),
            _ => (2, 0.0),
        };
        let stored = bytes.get(codes_at..).unwrap_or_default();
        let mut codes = [0; BLOCK];
        if dtype == Dtype::Q8_0 {
            for (code, &byte) in codes.iter_mut().zip(stored) {
                *code = byte.cast_signed();
            }
        } else {
            let less = if dtype == Dtype::Q4_0 { 8 } else { 0 };
            // The first half lies in the low bits, the second in the high ones.
            let (low, high) = codes.split_at_mut(BLOCK / 2);
            for ((low, high), &byte) in low.iter_mut().zip(high).zip(stored) {
                *low = (byte & 15).cast_signed() - less;
                *high = (byte >> 4).cast_signed() - less;
            }
        }
        Self {
            scale: half(0),
            bias,
            codes,
        }
    }

    /// What the elements stand for. (A code times a float16 is exact in float32.)
    fn values(&self) -> [f32; BLOCK] {
        self.codes
            .map(|code| f32::from(code) * self.scale + self.bias)
    }
}

/// The elements of whole blocks as float32.
pub(crate) fn widen(dtype: Dtype, bytes: &[u8]) -> Result<Vec<f32>, Error> {
    let width = dtype.block_bytes().unwrap_or(1);
    let len = (bytes.len() / width).saturating_mul(BLOCK);
    let mut values = Vec::new();
    values
        .try_reserve_exact(len)
        .map_err(|_| Error::out_of_memory((len as u64).saturating_mul(size_of::<f32>() as u64)))?;
    for block in bytes.chunks_exact(width) {
        values.extend_from_slice(&Block::read(dtype, block).values());
    }
    Ok(values)
}
