//! What a step on its way has gathered. Computes nothing.

/// Numbers that are told of a unit: its loss, of which cross entropy, of which divergence.
pub(super) const TOLD: usize = 3;

/// A step on its way: what its micro-batches gave so far.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct OpenStep {
    /// Micro-batches.
    pub(super) added: usize,
    pub(super) tokens: usize,
    pub(super) sums: [f64; TOLD],
}

impl OpenStep {
    pub(super) fn add(&mut self, tokens: usize, told: &[f64]) {
        self.added += 1;
        self.tokens += tokens;
        for (sum, of) in self.sums.iter_mut().zip(told) {
            *sum += of;
        }
    }
}
