//! What memory holds where a vector has float32: float32 itself, or halves and bytes that are
//! widened as they are loaded.

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
    i8: load_i8, load_i8;
}

/// As many of `to` as there are elements, now these. Both are whole vectors.
#[inline(always)]
pub(crate) fn widen<'w, V: Vector, E: Element>(elements: &[E], to: &'w mut [f32]) -> &'w [f32] {
    let to = &mut to[..elements.len()];
    for (from, to) in elements
        .chunks_exact(V::LANES)
        .zip(to.chunks_exact_mut(V::LANES))
    {
        // SAFETY: LANES values on both sides.
        unsafe { E::load::<V>(from.as_ptr()).store(to.as_mut_ptr()) };
    }
    to
}
