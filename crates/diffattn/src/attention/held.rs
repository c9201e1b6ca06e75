//! What a cache holds numbers as: float32, halves, or codes of a byte with a scale per row. How a
//! row becomes that, and what memory of it is. Knows no panels.

use crate::simd::Element;
use crate::tensor::{DType, DataMut, int8};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

/// What a cache holds its numbers as. What is appended is rounded to it once; attention sees what
/// is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CacheDType {
    /// As they are, or as wide.
    #[default]
    F32,
    /// float16, to the nearest, ties to even; from 65,520 on that is infinity.
    F16,
    /// bfloat16, to the nearest, ties to even.
    Bf16,
    /// A code from −127 to 127 for each number of a row (one token of one head), and for the row a
    /// scale of float32: its largest magnitude ÷ 127. Codes are to the nearest, ties to even; a
    /// number is code · scale, rounded to float32. A row with a NaN or an infinity is NaN as a
    /// whole.
    Int8,
}

impl CacheDType {
    /// The name that the JavaScript side uses.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::F16 => "float16",
            Self::Bf16 => "bfloat16",
            Self::Int8 => "int8",
        }
    }

    /// Bytes of a number, without the scales.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Int8 => 1,
        }
    }

    /// Words of memory, of four bytes, that `len` numbers take: a multiple of four of them.
    pub(super) fn words(self, len: usize) -> usize {
        len / (size_of::<f32>() / self.bytes())
    }

    /// Whether rows have scales.
    pub(super) fn is_scaled(self) -> bool {
        self == Self::Int8
    }
}

impl From<DType> for CacheDType {
    fn from(dtype: DType) -> Self {
        match dtype {
            DType::F32 => Self::F32,
            DType::F16 => Self::F16,
            DType::Bf16 => Self::Bf16,
        }
    }
}

/// A number as a cache holds it: any bits are one, and none is wider than float32.
///
/// # Safety
/// That first sentence.
pub(super) unsafe trait Held: Element + Default {
    /// Whether rows have scales.
    const SCALED: bool;

    /// As float32, before any scale.
    fn widen(self) -> f32;

    /// Whether it is NaN or infinite.
    fn is_special(self) -> bool;

    /// A row, as long as `to`; gives its scale, which is no number where the row is NaN.
    fn narrow(row: &[f32], to: &mut [Self]) -> f32;
}

// SAFETY: as the trait says.
unsafe impl Held for f32 {
    const SCALED: bool = false;

    fn widen(self) -> f32 {
        self
    }

    fn is_special(self) -> bool {
        !self.is_finite()
    }

    fn narrow(row: &[f32], to: &mut [f32]) -> f32 {
        to.copy_from_slice(row);
        1.0
    }
}

macro_rules! halves {
    ($($half:ident: $data:ident),*) => {$(
        // SAFETY: as the trait says.
        unsafe impl Held for $half {
            const SCALED: bool = false;

            fn widen(self) -> f32 {
                self.to_f32()
            }

            fn is_special(self) -> bool {
                let exponent = $half::INFINITY.to_bits();
                self.to_bits() & exponent == exponent
            }

            fn narrow(row: &[f32], to: &mut [$half]) -> f32 {
                DataMut::$data(to.reinterpret_cast_mut()).fill(row);
                1.0
            }
        }
    )*};
}

halves!(f16: F16, bf16: Bf16);

// SAFETY: as the trait says.
unsafe impl Held for i8 {
    const SCALED: bool = true;

    fn widen(self) -> f32 {
        f32::from(self)
    }

    fn is_special(self) -> bool {
        false
    }

    fn narrow(row: &[f32], to: &mut [i8]) -> f32 {
        let [scale, inverse] =
            int8::scale_of(row.iter().map(|&x| int8::magnitude(x)).fold(0, u32::max));
        for (to, &x) in to.iter_mut().zip(row) {
            *to = int8::code(x, inverse);
        }
        scale
    }
}

/// The numbers that words of four bytes are.
pub(super) fn held<E: Held>(words: &[f32]) -> &[E] {
    let len = size_of_val(words) / size_of::<E>();
    // SAFETY: those bytes, which any `E` may have, aligned for something at least as wide.
    unsafe { std::slice::from_raw_parts(words.as_ptr().cast(), len) }
}

/// As [`held`], to be written.
pub(super) fn held_mut<E: Held>(words: &mut [f32]) -> &mut [E] {
    let len = size_of_val(words) / size_of::<E>();
    // SAFETY: as above; any bits are a float32, too.
    unsafe { std::slice::from_raw_parts_mut(words.as_mut_ptr().cast(), len) }
}

/// `$body` with `$E` the type whose numbers `$dtype` says.
macro_rules! with_held {
    ($dtype:expr, $E:ident => $body:expr) => {
        match $dtype {
            $crate::attention::held::CacheDType::F32 => {
                type $E = f32;
                $body
            }
            $crate::attention::held::CacheDType::F16 => {
                type $E = ::half::f16;
                $body
            }
            $crate::attention::held::CacheDType::Bf16 => {
                type $E = ::half::bf16;
                $body
            }
            $crate::attention::held::CacheDType::Int8 => {
                type $E = i8;
                $body
            }
        }
    };
}

pub(super) use with_held;
