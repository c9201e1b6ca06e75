//! Memory that operands are copied into and results are computed in, kept for the next call: fresh
//! pages cost more than the copy itself. Aligned to cache lines. Knows nothing of tensors.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::slice;
use std::sync::{Mutex, PoisonError};

use diffattn::Error;

/// Bytes: a cache line, and the widest vector.
const ALIGNMENT: usize = 64;
/// Bytes of idle memory that are kept: a handful of ordinary calls, little beside a Node process.
const KEPT_BYTES: usize = 64 << 20;
/// Blocks that are kept, so that looking for one stays cheap.
const KEPT_BLOCKS: usize = 64;

static IDLE: Mutex<Vec<Block>> = Mutex::new(Vec::new());

/// Bytes that are always initialised, aligned to 64. Goes back to the kept ones when dropped.
#[derive(Debug)]
pub struct Block {
    start: NonNull<u8>,
    capacity: usize,
    len: usize,
}

// SAFETY: a block owns its memory, as a Vec does.
unsafe impl Send for Block {}
// SAFETY: a shared block only gives out shared slices.
unsafe impl Sync for Block {}

impl Block {
    /// `bytes` of memory with unspecified (but initialised) content.
    ///
    /// # Errors
    /// OUT_OF_MEMORY with the bytes wanted.
    pub fn new(bytes: usize) -> Result<Self, Error> {
        if let Some(mut block) = take_idle(bytes) {
            block.len = bytes;
            return Ok(block);
        }
        let refused = || Error::out_of_memory(bytes as u64);
        let capacity = bytes
            .max(1)
            .checked_next_multiple_of(ALIGNMENT)
            .ok_or_else(refused)?;
        let layout = Layout::from_size_align(capacity, ALIGNMENT).map_err(|_| refused())?;
        // SAFETY: the capacity is not zero.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or_else(refused)?;
        Ok(Self {
            start,
            capacity,
            len: bytes,
        })
    }

    /// `bytes` of zeros.
    ///
    /// # Errors
    /// OUT_OF_MEMORY with the bytes wanted.
    pub fn zeroed(bytes: usize) -> Result<Self, Error> {
        let mut block = Self::new(bytes)?;
        block.fill(0);
        Ok(block)
    }

    /// A copy of `bytes`.
    ///
    /// # Errors
    /// OUT_OF_MEMORY with the bytes wanted.
    pub fn copy_of(bytes: &[u8]) -> Result<Self, Error> {
        let mut block = Self::new(bytes.len())?;
        block.copy_from_slice(bytes);
        Ok(block)
    }

    fn free(&mut self) {
        // SAFETY: the memory came from `alloc_zeroed` with this very layout, and no one uses it
        // after this.
        unsafe {
            dealloc(
                self.start.as_ptr(),
                Layout::from_size_align_unchecked(self.capacity, ALIGNMENT),
            )
        };
    }
}

impl Deref for Block {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `len ≤ capacity` bytes from `start` are ours and were initialised by
        // `alloc_zeroed`.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for Block {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `self` is borrowed mutably.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let mut idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner);
        let kept: usize = idle.iter().map(|block| block.capacity).sum();
        if idle.len() < KEPT_BLOCKS && kept.saturating_add(self.capacity) <= KEPT_BYTES {
            idle.push(Self {
                start: self.start,
                capacity: self.capacity,
                len: 0,
            });
        } else {
            drop(idle);
            self.free();
        }
    }
}

/// The smallest kept block that fits `bytes` without wasting more than half of itself.
fn take_idle(bytes: usize) -> Option<Block> {
    let mut idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner);
    let fits = |capacity: usize| capacity >= bytes && capacity / 2 <= bytes.max(ALIGNMENT);
    let (index, _) = idle
        .iter()
        .enumerate()
        .filter(|(_, block)| fits(block.capacity))
        .min_by_key(|(_, block)| block.capacity)?;
    Some(idle.swap_remove(index))
}

/// Gives the kept memory back to the system.
pub fn release_idle_memory() {
    let mut idle = std::mem::take(&mut *IDLE.lock().unwrap_or_else(PoisonError::into_inner));
    for block in idle.drain(..) {
        let mut block = std::mem::ManuallyDrop::new(block);
        block.free();
    }
}

#[cfg(test)]
mod tests;
