//! Working memory that outlives a call: page faults of fresh allocations took about a quarter of a call of 512 tokens. Spare
//! buffers are kept for the whole process, up to [`SPARE_BYTES`]. What a buffer holds is arbitrary, but initialised.

use crate::error::Error;
use crate::shape::try_zeroed;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, TryLockError};

/// Bytes that are kept between calls: the wave and two threads' scores of 8192 keys.
const SPARE_BYTES: usize = 32 << 20;

/// Spare buffers at most, so that a search stays short.
const SPARES: usize = 64;

/// The least recently used first.
static SPARE: Mutex<Vec<Vec<f32>>> = Mutex::new(Vec::new());

/// Bytes of a cache line, to which a buffer is aligned: an AVX-512 load that straddles two counts as two.
const LINE: usize = 64;

/// Float32 values of arbitrary content, from the start of a cache line.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    /// Longer than `len` by a line.
    memory: Vec<f32>,
    start: usize,
    len: usize,
}

impl Buffer {
    /// `len` values: the smallest spare that has them, or new ones.
    pub(crate) fn new(len: usize) -> Result<Self, Error> {
        let padded = len.saturating_add(LINE / size_of::<f32>());
        let spare = spares(|spares| {
            let fits = (0..spares.len()).filter(|&index| spares[index].len() >= padded);
            let best = fits.min_by_key(|&index| spares[index].len())?;
            Some(spares.remove(best))
        });
        let memory = match spare.flatten() {
            Some(memory) => memory,
            None => try_zeroed(padded)?,
        };
        // An offset that is not to be had costs speed, nothing else.
        let start = memory.as_ptr().align_offset(LINE).min(padded - len);
        Ok(Self { memory, start, len })
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let memory = std::mem::take(&mut self.memory);
        let bytes = |memory: &Vec<f32>| memory.len() * size_of::<f32>();
        if memory.is_empty() || bytes(&memory) > SPARE_BYTES {
            return;
        }
        spares(|spares| {
            spares.push(memory);
            let mut total: usize = spares.iter().map(bytes).sum();
            while total > SPARE_BYTES || spares.len() > SPARES {
                total -= bytes(&spares.remove(0));
            }
        });
    }
}

/// Never waits: a browser's main thread must not, and memory is to be had elsewhere.
fn spares<R>(work: impl FnOnce(&mut Vec<Vec<f32>>) -> R) -> Option<R> {
    match SPARE.try_lock() {
        Ok(mut spares) => Some(work(&mut spares)),
        Err(TryLockError::Poisoned(spares)) => Some(work(&mut spares.into_inner())),
        Err(TryLockError::WouldBlock) => None,
    }
}

impl Deref for Buffer {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        &self.memory[self.start..][..self.len]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.memory[self.start..][..self.len]
    }
}
