//! What memory holds where a vector has float32: float32 itself, or halves that are widened as they
//! are loaded.

use half::{bf16, f16};

use super::vector::Vector;

/// What memory holds where a vector has float32.
pub(crate) trait Element: Copy + Send + Sync + 'static {
    /// `LANES` values as float32.
    ///
    /// # Safety
    /// They are readable at `from`.
    unsafe fn load<V: Vector>(from: *const Self) -> V;
}

/// `Element` for types that a vector loads by a method of its own.
macro_rules! elements {
    ($($element:ty: $load:ident),*) => {$(
        impl Element for $element {
            #[inline(always)]
            unsafe fn load<V: Vector>(from: *const Self) -> V {
                // SAFETY: the caller's promise.
                unsafe { V::$load(from) }
            }
        }
    )*};
}

elements!(f32: load, f16: load_f16, bf16: load_bf16);
