//! What memory holds where a vector has float32: float32 itself, or halves that are widened as they are loaded.

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

impl Element for f32 {
    #[inline(always)]
    unsafe fn load<V: Vector>(from: *const Self) -> V {
        // SAFETY: the caller's promise.
        unsafe { V::load(from) }
    }
}

impl Element for f16 {
    #[inline(always)]
    unsafe fn load<V: Vector>(from: *const Self) -> V {
        // SAFETY: the caller's promise.
        unsafe { V::load_f16(from) }
    }
}

impl Element for bf16 {
    #[inline(always)]
    unsafe fn load<V: Vector>(from: *const Self) -> V {
        // SAFETY: the caller's promise.
        unsafe { V::load_bf16(from) }
    }
}
