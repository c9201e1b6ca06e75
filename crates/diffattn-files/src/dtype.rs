//! The element types of checkpoints' files, by the names that they have there: those of
//! safetensors, and the quantised blocks of GGUF. Knows nothing else of files.

use serde::{Deserialize, Serialize};
use std::fmt;

/// An element type of a file. (What operators and layers compute with is [`diffattn::DType`].)
///
/// In order of width, as the `safetensors` crate has them: files are written in that order, widest
/// first.
#[expect(
    non_camel_case_types,
    reason = "the names that files have for them, letter by letter"
)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Dtype {
    /// A boolean in a byte.
    BOOL,
    /// MXFP4: a float of 4 bits.
    F4,
    /// A float of 6 bits: 2 of exponent, 3 of mantissa.
    F6_E2M3,
    /// A float of 6 bits: 3 of exponent, 2 of mantissa.
    F6_E3M2,
    /// An unsigned byte.
    U8,
    /// A signed byte.
    I8,
    /// A float of 8 bits: 5 of exponent, 2 of mantissa.
    F8_E5M2,
    /// A float of 8 bits: 4 of exponent, 3 of mantissa.
    F8_E4M3,
    /// A power of two in 8 bits.
    F8_E8M0,
    /// F8_E4M3 of finite numbers, with one zero.
    F8_E4M3FNUZ,
    /// F8_E5M2 of finite numbers, with one zero.
    F8_E5M2FNUZ,
    /// A signed integer of 16 bits.
    I16,
    /// An unsigned integer of 16 bits.
    U16,
    /// float16.
    F16,
    /// bfloat16.
    BF16,
    /// A signed integer of 32 bits.
    I32,
    /// An unsigned integer of 32 bits.
    U32,
    /// float32.
    F32,
    /// A complex number of two float32.
    C64,
    /// float64.
    F64,
    /// A signed integer of 64 bits.
    I64,
    /// An unsigned integer of 64 bits.
    U64,
    /// Of GGUF alone: 32 signed codes of 8 bits and their scale.
    Q8_0,
    /// Of GGUF alone: 32 codes of 4 bits, 8 more than they stand for, and their scale.
    Q4_0,
    /// Of GGUF alone: 32 codes of 4 bits, their scale, and what is added to each.
    Q4_1,
}

/// Elements that share a scale, in every type that has one.
pub(crate) const BLOCK: usize = 32;

impl Dtype {
    /// Every element type of safetensors files, its name and the bits of an element, in the order
    /// in which errors list them.
    pub(crate) const ALL: [(Self, &'static str, usize); 22] = [
        (Self::BOOL, "BOOL", 8),
        (Self::U8, "U8", 8),
        (Self::I8, "I8", 8),
        (Self::U16, "U16", 16),
        (Self::I16, "I16", 16),
        (Self::U32, "U32", 32),
        (Self::I32, "I32", 32),
        (Self::U64, "U64", 64),
        (Self::I64, "I64", 64),
        (Self::F16, "F16", 16),
        (Self::BF16, "BF16", 16),
        (Self::F32, "F32", 32),
        (Self::F64, "F64", 64),
        (Self::F8_E4M3, "F8_E4M3", 8),
        (Self::F8_E5M2, "F8_E5M2", 8),
        (Self::F8_E8M0, "F8_E8M0", 8),
        (Self::F8_E4M3FNUZ, "F8_E4M3FNUZ", 8),
        (Self::F8_E5M2FNUZ, "F8_E5M2FNUZ", 8),
        (Self::F4, "F4", 4),
        (Self::F6_E2M3, "F6_E2M3", 6),
        (Self::F6_E3M2, "F6_E3M2", 6),
        (Self::C64, "C64", 64),
    ];

    /// The types that lie in blocks of 32 elements, their names and the bytes of a block.
    const BLOCKS: [(Self, &'static str, usize); 3] = [
        (Self::Q8_0, "Q8_0", 34),
        (Self::Q4_0, "Q4_0", 18),
        (Self::Q4_1, "Q4_1", 20),
    ];

    /// The element type of that name in safetensors files.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let known = Self::ALL.into_iter().find(|(_, known, _)| *known == name);
        known.map(|(dtype, ..)| dtype)
    }

    fn row(self) -> (&'static str, usize) {
        let row = Self::ALL.into_iter().find(|(dtype, ..)| *dtype == self);
        let block = Self::BLOCKS.into_iter().find(|(dtype, ..)| *dtype == self);
        let block = block.map(|(_, name, bytes)| (name, (8 * bytes).div_ceil(BLOCK)));
        // (Every variant is in a table, which a test says.)
        row.map(|(_, name, bits)| (name, bits))
            .or(block)
            .unwrap_or(("", 8))
    }

    /// Bytes of a block of 32 elements, where they lie in blocks: the quantised types of GGUF.
    #[must_use]
    pub fn block_bytes(self) -> Option<usize> {
        let block = Self::BLOCKS.into_iter().find(|(dtype, ..)| *dtype == self);
        block.map(|(.., bytes)| bytes)
    }

    /// The bits of so many elements, in whole blocks; none where the number overflows.
    pub(crate) fn bits(self, elements: u64) -> Option<u64> {
        match self.block_bytes() {
            None => elements.checked_mul(self.bitsize() as u64),
            Some(bytes) => elements
                .div_ceil(BLOCK as u64)
                .checked_mul(8 * bytes as u64),
        }
    }

    /// The name that files have for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.row().0
    }

    /// Whether layers compute with elements of it as they are: F32, F16, BF16.
    #[must_use]
    pub fn is_float(self) -> bool {
        matches!(self, Self::F32 | Self::F16 | Self::BF16)
    }

    /// Bits of an element; of one in a block with its share of the scale, rounded up.
    #[must_use]
    pub fn bitsize(self) -> usize {
        self.row().1
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
