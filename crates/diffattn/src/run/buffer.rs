//! Working memory that outlives a call: page faults of fresh allocations took about a quarter of a
//! call of 512 tokens. Spare buffers are kept for the whole process, up to [`SPARE_BYTES`]. What a
//! buffer holds is arbitrary, but initialised. And what both these and packed weights are: values
//! from the start of a cache line.

use crate::error::Error;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, TryLockError};

/// Bytes that are kept between calls: the wave and two threads' scores of 8192 keys.
const SPARE_BYTES: usize = 32 << 20;

/// Spare buffers at most, so that a search stays short.
const SPARES: usize = 64;

/// The least recently used first.
static SPARE: Mutex<Vec<Vec<f32>>> = Mutex::new(Vec::new());

/// Bytes of a cache line, to which a buffer is aligned: an AVX-512 load that straddles two counts
/// as two.
pub(crate) const LINE: usize = 64;

/// A zeroed buffer, or [`Error::out_of_memory`] with the bytes wanted.
pub fn try_zeroed<T: Default + Clone>(len: usize) -> Result<Vec<T>, Error> {
    let mut buffer = Vec::new();
    buffer
        .try_reserve_exact(len)
        .map_err(|_| Error::out_of_memory((len as u64).saturating_mul(size_of::<T>() as u64)))?;
    buffer.resize(len, T::default());
    Ok(buffer)
}

/// A copy of `values`, or [`Error::out_of_memory`] with the bytes wanted.
pub fn try_copied<T: Default + Copy>(values: &[T]) -> Result<Vec<T>, Error> {
    let mut copy = try_zeroed(values.len())?;
    copy.copy_from_slice(values);
    Ok(copy)
}

/// Values from the start of a cache line. (A clone's may lie elsewhere, which costs speed, nothing
/// else.)
#[derive(Debug, Clone, Default)]
pub(crate) struct Lines<T> {
    /// Longer than `len` by a line.
    memory: Vec<T>,
    start: usize,
    len: usize,
}

impl<T: Copy + Default> Lines<T> {
    /// The memory that `len` values want.
    fn padded(len: usize) -> usize {
        len.saturating_add(LINE / size_of::<T>())
    }

    /// `len` zeros.
    pub(crate) fn zeroed(len: usize) -> Result<Self, Error> {
        Ok(Self::within(try_zeroed(Self::padded(len))?, len))
    }

    /// `len` of the values of `memory`, which has as many as [`Lines::padded`] says.
    fn within(memory: Vec<T>, len: usize) -> Self {
        // An offset that is not to be had costs speed, nothing else.
        let start = memory.as_ptr().align_offset(LINE).min(memory.len() - len);
        Self { memory, start, len }
    }
}

impl<T> Deref for Lines<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.memory[self.start..][..self.len]
    }
}

impl<T> DerefMut for Lines<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.memory[self.start..][..self.len]
    }
}

/// Float32 values of arbitrary content.
#[derive(Debug, Default)]
pub(crate) struct Buffer(Lines<f32>);

impl Buffer {
    /// `len` values: the smallest spare that has them, or new ones.
    pub(crate) fn new(len: usize) -> Result<Self, Error> {
        let padded = Lines::<f32>::padded(len);
        let spare = spares(|spares| {
            let fits = (0..spares.len()).filter(|&index| spares[index].len() >= padded);
            let best = fits.min_by_key(|&index| spares[index].len())?;
            Some(spares.remove(best))
        });
        let memory = match spare.flatten() {
            Some(memory) => memory,
            None => try_zeroed(padded)?,
        };
        Ok(Self(Lines::within(memory, len)))
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let memory = std::mem::take(&mut self.0.memory);
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
        &self.0
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.0
    }
}
