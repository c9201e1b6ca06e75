//! How much to do in one slice, so that a caller gets to look at its messages often enough. Has no clock of its own.

/// Milliseconds that a slice is meant to take: half of the 16 ms within which an abort takes effect.
const TARGET: f64 = 8.0;
/// A slice is at most this many times the one before: the first units may be cheap by chance.
const GROWTH: f64 = 2.0;
/// What remains of a unit's cost from slice to slice. Units differ (packing is cheap, rows are not) and come in turns:
/// the dear ones are remembered for a while.
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

    /// Units of the next slice, given how many are `done` in all and how many `milliseconds` the last slice took.
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
mod tests {
    use super::*;

    /// The longest slice after the first, and how many there are, when `units` take `milliseconds` each.
    fn slices(units: usize, threads: usize, milliseconds: impl Fn(usize) -> f64) -> (f64, usize) {
        let mut pacer = Pacer::new(threads);
        let (mut done, mut last, mut longest, mut count) = (0, 0.0, 0.0f64, 0);
        while done < units {
            let slice = pacer.next_slice(done, last).min(units - done);
            assert!(slice >= 1);
            last = (done..done + slice).map(&milliseconds).sum::<f64>() / threads as f64;
            if done > 0 {
                longest = longest.max(last);
            }
            done += slice;
            count += 1;
        }
        (longest, count)
    }

    #[test]
    fn slices_stay_under_sixteen_milliseconds() {
        for (units, threads, milliseconds) in [
            (100_000, 1, (|_| 0.01) as fn(usize) -> f64),
            (100_000, 1, |unit| 0.001 + unit as f64 * 1e-5),
            (1_000, 16, |_| 3.0),
            // A cheap unit of packing, then seven of rows.
            (1_000, 1, |unit| if unit % 8 == 0 { 0.1 } else { 2.0 }),
            (1_000, 2, |unit| if unit % 16 < 4 { 0.1 } else { 1.0 }),
        ] {
            let (longest, _) = slices(units, threads, milliseconds);
            assert!(longest <= 16.0, "{longest} ms on {threads} threads");
        }
        // A unit is never cut.
        assert_eq!(slices(10, 1, |_| 20.0), (20.0, 10));
    }

    #[test]
    fn slices_grow_to_the_target() {
        let (longest, count) = slices(100_000, 1, |_| 0.01);
        assert!(
            longest > 7.9 && count < 150,
            "{count} slices of {longest} ms"
        );
        let mut pacer = Pacer::new(2);
        assert_eq!(pacer.next_slice(0, 0.0), 2);
        assert_eq!(pacer.next_slice(2, 0.0), 4);
        assert_eq!(pacer.next_slice(6, 2.0), 8);
        assert_eq!(pacer.next_slice(14, 4.0), 16);
        // The last one did less than it was asked to.
        assert_eq!(pacer.next_slice(16, 8.0), 2);
        assert_eq!(pacer.next_slice(18, f64::NAN), 2);
    }
}
