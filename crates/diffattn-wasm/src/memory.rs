//! The module's memory as JavaScript names it: addresses and lengths. Nothing is checked that only
//! the caller can know.

use std::alloc::{Layout, alloc, alloc_zeroed, dealloc};
use std::slice;

use diffattn_door::Error;

/// Bytes: a cache line.
const ALIGNMENT: usize = 64;

fn layout(bytes: usize) -> Result<Layout, Error> {
    Layout::from_size_align(bytes.max(1), ALIGNMENT).map_err(|_| Error::out_of_memory(bytes as u64))
}

/// The address of new memory.
pub(crate) fn allocate(bytes: usize, zeroed: bool) -> Result<usize, Error> {
    let layout = layout(bytes)?;
    // SAFETY: the size is not zero. JavaScript writes what is read (and linear memory always has a
    // content).
    let start = unsafe {
        if zeroed {
            alloc_zeroed(layout)
        } else {
            alloc(layout)
        }
    };
    if start.is_null() {
        Err(Error::out_of_memory(bytes as u64))
    } else {
        Ok(start.expose_provenance())
    }
}

/// Frees memory of [`allocate`].
pub(crate) fn release(address: usize, bytes: usize) {
    if address != 0
        && let Ok(layout) = layout(bytes)
    {
        // SAFETY: the caller's promise in `PROTOCOL.md`: the memory came from `allocate` with this
        // size, and no job uses it.
        unsafe { dealloc(std::ptr::with_exposed_provenance_mut(address), layout) };
    }
}

/// An address and a length in bytes.
pub(crate) type Pair = [u32; 2];

/// # Safety
/// At `address` lie `count` elements that stay, unwritten, for `'a`; any content is a valid `T`.
unsafe fn slice_at<'a, T>(address: usize, count: usize) -> &'a [T] {
    if count == 0 {
        return &[];
    }
    // SAFETY: the caller's promise.
    unsafe { slice::from_raw_parts(std::ptr::with_exposed_provenance(address), count) }
}

/// # Safety
/// As [`slice_at`].
pub(crate) unsafe fn numbers_at<'a>(address: usize, count: usize) -> &'a [f64] {
    // SAFETY: the caller's promise.
    unsafe { slice_at(address, count) }
}

/// # Safety
/// As [`slice_at`].
pub(crate) unsafe fn pairs_at<'a>(address: usize, count: usize) -> &'a [Pair] {
    // SAFETY: the caller's promise.
    unsafe { slice_at(address, count) }
}

/// # Safety
/// As [`slice_at`], for the bytes that the pair names.
pub(crate) unsafe fn bytes_at<'a>([address, len]: Pair) -> &'a [u8] {
    // SAFETY: the caller's promise.
    unsafe { slice_at(address as usize, len as usize) }
}

/// # Safety
/// As [`slice_at`], for the bytes that the pair names; no one else uses them.
pub(crate) unsafe fn bytes_at_mut<'a>([address, len]: Pair) -> &'a mut [u8] {
    if len == 0 {
        return &mut [];
    }
    // SAFETY: the caller's promise.
    unsafe {
        slice::from_raw_parts_mut(
            std::ptr::with_exposed_provenance_mut(address as usize),
            len as usize,
        )
    }
}
