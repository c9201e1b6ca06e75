//! What the elements of an operand or an output are. Holds none.

use diffattn::DType;

/// An element type of `PROTOCOL.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Numbers that operators compute with.
    Float(DType),
    /// Masks, pixels, texts, bytes of files.
    U8,
    /// Token ids, classes.
    I32,
}

impl From<DType> for Kind {
    fn from(dtype: DType) -> Self {
        Self::Float(dtype)
    }
}

impl Kind {
    /// Bytes of an element.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            Self::Float(dtype) => dtype.bytes(),
            Self::U8 => 1,
            Self::I32 => 4,
        }
    }

    /// What errors call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Float(dtype) => dtype.name(),
            Self::U8 => "uint8",
            Self::I32 => "int32",
        }
    }

    /// The number that stands for it.
    #[must_use]
    pub fn number(self) -> u32 {
        match self {
            Self::Float(DType::F32) => 1,
            Self::Float(DType::F16) => 2,
            Self::Float(DType::Bf16) => 3,
            Self::U8 => 4,
            Self::I32 => 5,
        }
    }
}
