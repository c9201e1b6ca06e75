//! What norms and sequence operators share: units of work spread over threads, each thread with its
//! own scratch. Knows nothing of the work.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use super::Run;
use super::threads::{for_each, thread_count};
use super::work::Pace;
use crate::error::Error;

/// Multiply-adds that one element of a norm or of a rotation costs in time, memory included.
const ELEMENT_WORK: usize = 8;

/// Units of about `elements` elements, and the scratch `S` of each thread, made when first wanted.
pub(crate) struct Units<S, M> {
    threads: usize,
    elements: usize,
    make_scratch: M,
    /// Of work on one thread: a small call would notice memory for a list.
    alone: Option<S>,
    scratch: Vec<Mutex<S>>,
}

impl<S: Send, M: Fn() -> Result<S, Error>> Units<S, M> {
    pub(crate) fn new(run: Run, elements: usize, make_scratch: M) -> Self {
        Self {
            threads: run.threads(),
            elements,
            make_scratch,
            alone: None,
            scratch: Vec::new(),
        }
    }

    /// Runs `work(scratch, unit)` for every one of `units`, as many at a time as `pace` grants.
    pub(crate) async fn paced(
        &mut self,
        pace: &Pace,
        units: Range<usize>,
        work: &(dyn Fn(&mut S, usize) + Sync),
    ) -> Result<(), Error> {
        pace.rows(units, 1, |units| self.run(units, work)).await
    }

    /// Runs `work(scratch, unit)` for every one of `units` at once.
    pub(crate) fn run(
        &mut self,
        units: Range<usize>,
        work: &(dyn Fn(&mut S, usize) + Sync),
    ) -> Result<(), Error> {
        let elements = units.len().saturating_mul(self.elements);
        let threads = thread_count(self.threads, elements.saturating_mul(ELEMENT_WORK));
        if threads == 1 {
            let scratch = match &mut self.alone {
                Some(scratch) => scratch,
                none => none.insert((self.make_scratch)()?),
            };
            units.for_each(|unit| work(scratch, unit));
            return Ok(());
        }
        while self.scratch.len() < threads {
            self.scratch.push(Mutex::new((self.make_scratch)()?));
        }
        for_each(threads, units.len(), |slot, unit| {
            // A slot is held by one thread at a time, so this never waits.
            let mut scratch = self.scratch[slot]
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            work(&mut scratch, units.start + unit);
        });
        Ok(())
    }
}
