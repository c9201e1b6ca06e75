//! What the machine can do at most: multiply-adds from registers, bytes read from memory, bytes
//! copied. Figures divide by these.

use crate::seconds_of;
use diffattn::{Error, Isa, fma_flops};
use std::hint::black_box;
use std::thread::scope;
use std::time::Instant;

/// A measurement of multiply-adds takes at least so many seconds: a clock that rises does so
/// earlier.
const FMA_SECONDS: f64 = 0.02;

/// Bytes that no cache of a core holds: what `read` reads where nothing else is asked.
const BEYOND_CACHES: usize = 512 << 20;

/// Independent sums of a reader: with fewer, additions would wait for each other; with more,
/// registers run out (64: 5 to 10 % slower). Tried: four stretches of memory side by side, a third
/// slower.
const SUMS: usize = 16;

/// Memory that `read` and `copy` work on, kept from one measurement to the next.
#[derive(Debug, Default)]
pub struct Limits {
    from: Vec<u64>,
    to: Vec<u64>,
}

impl Limits {
    /// FLOPs per second of `threads` threads that multiply and add at once.
    #[must_use]
    pub fn fma(isa: Isa, threads: usize) -> f64 {
        let mut rounds = 1 << 16;
        loop {
            let start = Instant::now();
            let flops = together(threads, |_| fma_flops(isa, rounds));
            let seconds = start.elapsed().as_secs_f64();
            if seconds >= FMA_SECONDS {
                return flops / seconds;
            }
            rounds *= 2;
        }
    }

    /// Bytes per second that `threads` threads read, of a working set of `bytes`.
    ///
    /// # Errors
    /// None of its own.
    pub fn read(&mut self, bytes: Option<usize>, threads: usize) -> Result<f64, Error> {
        let words = bytes.unwrap_or(BEYOND_CACHES) / size_of::<u64>();
        touch(&mut self.from, words);
        let part = words.div_ceil(threads).max(1);
        let seconds = seconds_of(|| {
            let parts: Vec<_> = self.from.chunks(part).collect();
            black_box(together(parts.len(), |index| sum(parts[index])));
            Ok(())
        })?;
        Ok((words * size_of::<u64>()) as f64 / seconds)
    }

    /// Bytes per second, read and written, of a copy of an array of `bytes / 2` to another.
    ///
    /// # Errors
    /// None of its own.
    pub fn copy(&mut self, bytes: Option<usize>, threads: usize) -> Result<f64, Error> {
        let words = bytes.unwrap_or(BEYOND_CACHES) / 2 / size_of::<u64>();
        touch(&mut self.from, words);
        touch(&mut self.to, words);
        let part = words.div_ceil(threads).max(1);
        let seconds = seconds_of(|| {
            scope(|scope| {
                let mut pairs = self.to.chunks_mut(part).zip(self.from.chunks(part));
                let own = pairs.next();
                for (to, from) in pairs {
                    scope.spawn(move || to.copy_from_slice(from));
                }
                if let Some((to, from)) = own {
                    to.copy_from_slice(from);
                }
            });
            black_box(&mut self.to);
            Ok(())
        })?;
        Ok((2 * words * size_of::<u64>()) as f64 / seconds)
    }
}

/// The sum of `work(index)` of so many threads at once. One of them is this thread: a core that
/// slept meanwhile would begin its next call at a lower clock.
fn together(threads: usize, work: impl Fn(usize) -> f64 + Sync) -> f64 {
    let work = &work;
    scope(|scope| {
        let others: Vec<_> = (1..threads)
            .map(|index| scope.spawn(move || work(index)))
            .collect();
        let own = work(0);
        let joined = others.into_iter().map(|one| one.join().unwrap_or(0.0));
        own + joined.sum::<f64>()
    })
}

/// Gives `memory` that length; new pages are written, so that none is the system's page of zeros.
fn touch(memory: &mut Vec<u64>, words: usize) {
    if memory.len() != words {
        *memory = vec![1; words];
    }
}

fn sum(words: &[u64]) -> f64 {
    let mut sums = [0_u64; SUMS];
    for chunk in words.as_chunks::<SUMS>().0 {
        for (sum, word) in sums.iter_mut().zip(chunk) {
            *sum = sum.wrapping_add(*word);
        }
    }
    sums.iter().fold(0_u64, |a, b| a.wrapping_add(*b)) as f64
}
