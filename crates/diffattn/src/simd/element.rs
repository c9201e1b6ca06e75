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

    /// [`Element::load`] beside `M` by `N` sums in registers.
    ///
    /// # Safety
    /// As [`Element::load`].
    unsafe fn load_beside<V: Vector, const M: usize, const N: usize>(from: *const Self) -> V;
}

/// `Element` for types that a vector loads by methods of its own.
macro_rules! elements {
    ($($element:ty: $load:ident, $beside:ident $(::<$m:ident, $n:ident>)?;)*) => {$(
        impl Element for $element {
            #[inline(always)]
            unsafe fn load<V: Vector>(from: *const Self) -> V {
                // SAFETY: the caller's promise.
                unsafe { V::$load(from) }
            }

            #[inline(always)]
            unsafe fn load_beside<V: Vector, const M: usize, const N: usize>(
                from: *const Self,
            ) -> V {
                // SAFETY: the caller's promise.
                unsafe { V::$beside$(::<$m, $n>)?(from) }
            }
        }
    )*};
}

elements! {
    f32: load, load;
    f16: load_f16, load_f16;
    bf16: load_bf16, load_bf16_beside::<M, N>;
}
