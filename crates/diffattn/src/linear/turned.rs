//! Blocks of packed weights the other way round, as float32: what the product with W, not with its
//! transpose, is made of. So a weight is packed once for both. Knows no format.

use std::ops::Range;

use super::format::Format;
use super::panels::Packed;
use crate::blocks::linear::{CHANNELS, PANEL};
use crate::simd::Vector;
use crate::simd::lanes::transpose;

/// Float32 values that a block takes, and what is widened on the way to it, of a weight with
/// `outputs` outputs.
pub(super) fn turned_len(outputs: usize) -> usize {
    PANEL * (outputs.min(CHANNELS) + PANEL)
}

impl<F: Format> Packed<F> {
    /// Input channels `inputs`, a panel of the other way's, of the weight's outputs `outputs`, as
    /// `[output][PANEL inputs]`. `memory` is [`turned_len`] long.
    #[inline(always)]
    pub(super) fn turned<'m, V: Vector>(
        &self,
        outputs: Range<usize>,
        inputs: Range<usize>,
        memory: &'m mut [f32],
    ) -> &'m [f32] {
        let (to, spare) = memory.split_at_mut(outputs.len() * PANEL);
        let mut output = outputs.start;
        while output < outputs.end {
            let panel = output / PANEL;
            let end = ((panel + 1) * PANEL).min(outputs.end);
            let lanes = output - panel * PANEL..end - panel * PANEL;
            let mut input = inputs.start;
            while input < inputs.end {
                let strip = input / CHANNELS * CHANNELS;
                let end = (strip + CHANNELS).min(inputs.end);
                let channels = input - strip..end - strip;
                let count = channels.len();
                let stored = self.strip(strip, panel);
                let from = self
                    .format()
                    .floats::<V>(stored, channels, lanes.clone(), spare);
                let at = (output - outputs.start) * PANEL + input - inputs.start;
                transpose::<V>((from, PANEL), (&mut to[at..], PANEL), count, lanes.len());
                input = end;
            }
            output = end;
        }
        to
    }
}
