//! Work in slices, written straight on: an `async` function that asks for its next units between
//! loops; what a slice leaves behind, the compiler keeps. No executor: [`Work::step`] polls, and
//! nothing ever wakes. Knows nothing of time.

use std::fmt;
use std::future::{Future, poll_fn};
use std::ops::Range;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};

use crate::error::Error;

/// What work and its caller share: the units that may be worked on, and those that are done. Only
/// one thread at a time touches it, so relaxed order is enough.
#[derive(Debug, Default)]
pub struct Pace {
    granted: AtomicUsize,
    done: AtomicUsize,
}

impl Pace {
    /// Units that may be worked on now, one at least. Gives the caller its turn where none are
    /// left.
    pub async fn granted(&self) -> usize {
        poll_fn(|_| match self.granted.load(Relaxed) {
            0 => Poll::Pending,
            units => Poll::Ready(units),
        })
        .await
    }

    /// Counts `units` as done.
    pub fn worked(&self, units: usize) {
        self.done.fetch_add(units, Relaxed);
        self.spent(units);
    }

    /// Takes `units` from those that may be worked on.
    fn spent(&self, units: usize) {
        let granted = self.granted.load(Relaxed);
        self.granted.store(granted.saturating_sub(units), Relaxed);
    }

    /// Calls `work` on stretches of `rows`, whole units of `unit` rows but for the last.
    ///
    /// # Errors
    /// The first error of `work`.
    pub async fn rows(
        &self,
        mut rows: Range<usize>,
        unit: usize,
        mut work: impl FnMut(Range<usize>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        poll_fn(|_| self.poll_rows(&mut rows, unit, &mut work)).await
    }

    /// [`Pace::rows`] from those on that are left. (Compiled once, as the next is.)
    fn poll_rows(
        &self,
        rows: &mut Range<usize>,
        unit: usize,
        work: &mut dyn FnMut(Range<usize>) -> Result<(), Error>,
    ) -> Poll<Result<(), Error>> {
        while rows.start < rows.end {
            let units = self.granted.load(Relaxed);
            if units == 0 {
                return Poll::Pending;
            }
            let end = rows.start.saturating_add(units.saturating_mul(unit));
            let some = rows.start..end.min(rows.end);
            work(some.clone())?;
            self.worked(some.len().div_ceil(unit));
            rows.start = some.end;
        }
        Poll::Ready(Ok(()))
    }

    /// Works off `inner`, which counts as `units` here, whatever it counts itself.
    ///
    /// # Errors
    /// Those of `inner`.
    pub async fn within(&self, inner: &mut Work<'_>, units: usize) -> Result<(), Error> {
        let mut told = 0;
        poll_fn(|_| self.poll_within(inner, units, &mut told)).await
    }

    /// [`Pace::within`] from where `told` units are counted.
    fn poll_within(
        &self,
        inner: &mut Work<'_>,
        units: usize,
        told: &mut usize,
    ) -> Poll<Result<(), Error>> {
        let total = inner.total().max(1);
        while inner.done() < inner.total() {
            let count = self.granted.load(Relaxed);
            if count == 0 {
                return Poll::Pending;
            }
            inner.step(count.saturating_mul(total).div_ceil(units.max(1)))?;
            // (In 128 bits: units times units can pass 64.)
            let done = (inner.done() as u128 * units as u128 / total as u128) as usize;
            self.worked(done - *told);
            if done == *told {
                // A step that adds nothing to the count still takes its turn, or it would go on
                // without end.
                self.spent(1);
            }
            *told = done;
        }
        Poll::Ready(Ok(()))
    }
}

type Steps<'a> = Pin<Box<dyn Future<Output = Result<(), Error>> + Send + 'a>>;

enum State<'a> {
    Working(Steps<'a>),
    Done,
    Failed,
}

/// Started work over what it borrows for `'a`. What it writes is complete once `done() == total()`.
/// Dropping it at any step drops what it holds; an error ends it.
pub struct Work<'a> {
    pace: Arc<Pace>,
    total: usize,
    state: State<'a>,
}

impl fmt::Debug for Work<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Work")
            .field("total", &self.total)
            .field("done", &self.done())
            .finish_non_exhaustive()
    }
}

impl<'a> Work<'a> {
    /// Work of `total` units, counted by the [`Pace`] that `work` is given. Nothing of it runs
    /// before the first step, and nothing at all where `total` is 0.
    pub fn new<F: Future<Output = Result<(), Error>> + Send + 'a>(
        total: usize,
        work: impl FnOnce(Arc<Pace>) -> F,
    ) -> Self {
        let pace = Arc::<Pace>::default();
        let state = if total == 0 {
            State::Done
        } else {
            State::Working(Box::pin(work(pace.clone())))
        };
        Self { pace, total, state }
    }

    /// How many units of work there are; units are of similar size, never longer than a few
    /// milliseconds for ordinary shapes.
    #[must_use]
    pub fn total(&self) -> usize {
        self.total
    }

    /// How many units are finished.
    #[must_use]
    pub fn done(&self) -> usize {
        match self.state {
            State::Done => self.total,
            State::Working(_) | State::Failed => self
                .pace
                .done
                .load(Relaxed)
                .min(self.total.saturating_sub(1)),
        }
    }

    /// Works on at most `count` further units (one at least), in parallel where the call asked for
    /// threads. Nothing happens to work that is complete.
    ///
    /// # Errors
    /// [`Error::out_of_memory`] when scratch is refused; [`Error::internal`] for a bug of ours, and
    /// for a step after one that failed.
    pub fn step(&mut self, count: usize) -> Result<(), Error> {
        let future = match &mut self.state {
            State::Working(future) => future,
            State::Done => return Ok(()),
            State::Failed => {
                return Err(Error::internal("work was stepped after a step that failed"));
            }
        };
        self.pace.granted.store(count.max(1), Relaxed);
        match future
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
        {
            Poll::Pending => Ok(()),
            Poll::Ready(result) => {
                self.state = if result.is_ok() {
                    State::Done
                } else {
                    State::Failed
                };
                result
            }
        }
    }

    /// Works until nothing is left.
    ///
    /// # Errors
    /// As [`Work::step`].
    pub fn finish(mut self) -> Result<(), Error> {
        while self.done() < self.total {
            self.step(usize::MAX)?;
        }
        Ok(())
    }
}

/// Works off what [`Work::new`] would do in slices, at once: without memory for what a slice leaves
/// behind, which a small call would notice.
///
/// # Errors
/// Those of `work`.
pub(crate) fn at_once(work: impl AsyncFnOnce(&Pace) -> Result<(), Error>) -> Result<(), Error> {
    let pace = Pace::default();
    pace.granted.store(usize::MAX, Relaxed);
    match pin!(work(&pace)).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => Err(Error::internal("work at once gave its caller a turn")),
    }
}
