//! How much to do in one slice, so that a caller gets to look at its messages often enough. Has no
//! clock of its own.

/// Milliseconds that a slice is meant to take: half of the 16 ms within which an abort takes
/// effect.
const TARGET: f64 = 8.0;
/// A slice is at most this many times the one before: the first units may be cheap by chance.
const GROWTH: f64 = 2.0;
/// What remains of a unit's cost from slice to slice. Units differ (packing is cheap, rows are not)
/// and come in turns: the dear ones are remembered for a while.
const MEMORY: f64 = 0.95;

/// Adapts the units per slice to the time that slices take.
#[derive(Debug, Clone)]
pub struct Pacer {
    threads: usize,
    /// Units that were asked for last, and that were done in all before.
    units: usize,
    done: usize,
    /// Milliseconds of a unit, with all threads at work.
    cost: f64,
}

impl Pacer {
    /// For work on `threads` threads: the first slice gives each of them one unit.
    #[must_use]
    pub fn new(threads: usize) -> Self {
        Self {
            threads: threads.max(1),
            units: 0,
            done: 0,
            cost: 0.0,
        }
    }

    /// Units of the next slice, given how many are `done` in all and how many `milliseconds` the
    /// last slice took.
    pub fn next_slice(&mut self, done: usize, milliseconds: f64) -> usize {
        let last = done.saturating_sub(self.done);
        self.done = done;
        if self.units == 0 || last == 0 {
            self.units = self.threads;
            return self.units;
        }
        self.cost = (milliseconds / last as f64).max(self.cost * MEMORY);
        // (No cost gives infinity, and casting saturates.)
        let wanted = (TARGET / self.cost).min(GROWTH * self.units as f64) as usize;
        // Whole rounds of all threads, so that none idles at the end of a slice.
        self.units = if wanted < self.threads {
            wanted.max(1)
        } else {
            wanted - wanted % self.threads
        };
        self.units
    }
}

#[cfg(test)]
mod tests;
