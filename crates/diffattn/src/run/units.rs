//! What norms and sequence operators share: units of work counted, spread over threads, each thread with its
//! own scratch. Knows nothing of the work.

use std::sync::{Mutex, PoisonError};

use super::threads::{for_each, thread_count};
use crate::error::Error;

/// Elements per unit: a tenth of a millisecond or so, long enough that handing out units costs nothing.
pub(crate) const UNIT: usize = 1 << 17;

/// Multiply-adds that one element of a norm or of a rotation costs in time, memory included.
const ELEMENT_WORK: usize = 8;

/// Units done and to do, and the scratch `S` of each thread.
#[derive(Debug)]
pub(crate) struct Units<S> {
    threads: usize,
    done: usize,
    total: usize,
    unit_elements: usize,
    scratch: Vec<Mutex<S>>,
}

impl<S: Send> Units<S> {
    /// `total` units of about `unit_elements` elements; on `threads` threads at most.
    pub(crate) fn new(threads: usize, total: usize, unit_elements: usize) -> Result<Self, Error> {
        Ok(Self {
            threads,
            done: 0,
            total,
            unit_elements,
            scratch: Vec::new(),
        })
    }

    pub(crate) fn total(&self) -> usize {
        self.total
    }

    pub(crate) fn done(&self) -> usize {
        self.done
    }

    /// Runs `work(scratch, unit)` for the next `count` units, but none at or past `barrier`.
    pub(crate) fn step(
        &mut self,
        count: usize,
        barrier: usize,
        make_scratch: impl Fn() -> Result<S, Error>,
        work: impl Fn(&mut S, usize) + Sync,
    ) -> Result<(), Error> {
        let first = self.done;
        let end = first
            .saturating_add(count.max(1))
            .min(barrier)
            .min(self.total);
        let elements = (end - first).saturating_mul(self.unit_elements);
        let threads = thread_count(self.threads, elements.saturating_mul(ELEMENT_WORK));
        while self.scratch.len() < threads {
            self.scratch.push(Mutex::new(make_scratch()?));
        }
        for_each(threads, end - first, |slot, unit| {
            // A slot is held by one thread at a time, so this never waits.
            let mut scratch = self.scratch[slot]
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            work(&mut scratch, first + unit);
        });
        self.done = end;
        Ok(())
    }
}
