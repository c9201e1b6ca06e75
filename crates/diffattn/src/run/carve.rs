//! One buffer cut into slices, each from the start of a cache line: what a unit of work writes is
//! got in one piece, and a small call gets it once. Knows nothing of what the slices are for.

use super::buffer::LINE;
use std::mem::{align_of, size_of};

/// Numbers of which any bits are one, with no byte between them that is none's.
///
/// # Safety
/// That first sentence, and an alignment of a cache line at most.
pub(crate) unsafe trait Plain: Copy {}

// SAFETY: (all of them) as the trait says.
unsafe impl Plain for f32 {}
// SAFETY: as above.
unsafe impl Plain for f64 {}
// SAFETY: as above.
unsafe impl Plain for i32 {}
// SAFETY: as above.
unsafe impl Plain for usize {}

/// What is left of a buffer; or nothing but a count of what slices would take.
#[derive(Debug)]
pub(crate) struct Carver<'m> {
    rest: Option<&'m mut [f32]>,
    taken: usize,
}

impl<'m> Carver<'m> {
    /// Counts: every slice is empty.
    pub(crate) fn counting() -> Self {
        Self {
            rest: None,
            taken: 0,
        }
    }

    /// Cuts `memory`, which begins with a cache line (or this panics) and has what the same slices
    /// counted.
    pub(crate) fn of(memory: &'m mut [f32]) -> Self {
        assert!(memory.as_ptr().addr().is_multiple_of(LINE));
        Self {
            rest: Some(memory),
            taken: 0,
        }
    }

    /// Float32 values that the slices so far took where they were counted; more than memory has,
    /// where that overflows.
    pub(crate) fn taken(&self) -> usize {
        self.taken
    }

    /// The next `len` values, of arbitrary content.
    pub(crate) fn take<T: Plain>(&mut self, len: usize) -> &'m mut [T] {
        const { assert!(align_of::<T>() <= LINE && LINE.is_multiple_of(size_of::<f32>())) };
        let Some(rest) = self.rest.take() else {
            let lines = len.saturating_mul(size_of::<T>()).div_ceil(LINE);
            let words = lines.saturating_mul(LINE / size_of::<f32>());
            self.taken = self.taken.saturating_add(words);
            return &mut [];
        };
        // (What was counted and got does not overflow.)
        let words = (len * size_of::<T>()).div_ceil(LINE) * (LINE / size_of::<f32>());
        let (part, rest) = rest.split_at_mut(words);
        self.rest = Some(rest);
        // SAFETY: `len` values lie within the part, which is borrowed for 'm alone; it begins with
        // a cache line, as all parts before it are whole lines; any bits are a `T`.
        unsafe { std::slice::from_raw_parts_mut(part.as_mut_ptr().cast(), len) }
    }
}
