//! How much to do in one slice, so that a caller gets to look at its messages often enough. Has no clock of its own.

/// Milliseconds that a slice is meant to take: half of the 16 ms within which an abort takes effect.
const TARGET: f64 = 8.0;
/// A slice is at most this many times the one before: early units may be cheap by chance (causal rows are).
const GROWTH: f64 = 4.0;

/// Adapts the units per slice to the time that slices take.
#[derive(Debug, Clone)]
pub struct Pacer {
    units: usize,
    threads: usize,
}

impl Pacer {
    /// For work on `threads` threads: the first slice gives each of them one unit.
    #[must_use]
    pub fn new(threads: usize) -> Self {
        Self {
            units: 0,
            threads: threads.max(1),
        }
    }

    /// Units of the next slice, given how many `milliseconds` the last one took (ignored at first).
    pub fn next_slice(&mut self, milliseconds: f64) -> usize {
        if self.units == 0 {
            self.units = self.threads;
            return self.units;
        }
        let wanted =
            (TARGET / milliseconds.max(TARGET / GROWTH / GROWTH)).min(GROWTH) * self.units as f64;
        // Whole rounds of all threads, so that none idles at the end of a slice. (Casting saturates.)
        self.units = match wanted as usize {
            few if few < self.threads => few.max(1),
            many => many - many % self.threads,
        };
        self.units
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Slices until `units` are done at `milliseconds` per unit; the longest slice after the first.
    fn longest_slice(units: usize, threads: usize, milliseconds: impl Fn(usize) -> f64) -> f64 {
        let mut pacer = Pacer::new(threads);
        let (mut done, mut last, mut longest) = (0, 0.0, 0.0f64);
        while done < units {
            let slice = pacer.next_slice(last);
            assert!(slice >= 1);
            last = (done..done + slice).map(&milliseconds).sum::<f64>() / threads as f64;
            if done > 0 {
                longest = longest.max(last);
            }
            done += slice;
        }
        longest
    }

    #[test]
    fn slices_stay_under_sixteen_milliseconds() {
        assert!(longest_slice(100_000, 1, |_| 0.01) <= 8.1);
        assert!(longest_slice(100_000, 1, |unit| 0.001 + unit as f64 * 1e-5) <= 16.0);
        assert!(longest_slice(1_000, 16, |_| 3.0) <= 16.0);
        assert_eq!(longest_slice(10, 1, |_| 20.0), 20.0);
    }

    #[test]
    fn slices_grow_to_the_target() {
        let mut pacer = Pacer::new(2);
        assert_eq!(pacer.next_slice(0.0), 2);
        assert_eq!(pacer.next_slice(0.0), 8);
        assert_eq!(pacer.next_slice(4.0), 16);
        assert_eq!(pacer.next_slice(8.0), 16);
        assert_eq!(pacer.next_slice(60.0), 2);
        assert_eq!(pacer.next_slice(f64::NAN), 8);
    }
}
