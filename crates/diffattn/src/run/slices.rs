//! Work in resumable slices, so that a caller can cancel and report progress between them. Knows
//! nothing of time.

use crate::error::Error;

/// A started operator. Its outputs are complete once `done() == total()`.
pub trait Slices {
    /// How many units of work there are; units are of similar size, never longer than a few
    /// milliseconds for ordinary shapes.
    fn total(&self) -> usize;

    /// How many units are finished.
    fn done(&self) -> usize;

    /// Works on at most `count` further units (one at least), in parallel where the call asked for
    /// threads.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] when scratch is refused; [`Error::Internal`] for a bug of ours.
    fn step(&mut self, count: usize) -> Result<(), Error>;

    /// Works until nothing is left.
    ///
    /// # Errors
    /// As [`Slices::step`].
    fn finish(&mut self) -> Result<(), Error> {
        while self.done() < self.total() {
            self.step(usize::MAX)?;
        }
        Ok(())
    }
}
