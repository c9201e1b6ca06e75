//! One thread's working memory for row blocks: one buffer, got before any work, that every block
//! cuts anew.

use super::gradient_scratch::GradientScratch;
use super::live::LiveStrip;
use super::scratch_size::ScratchSize;
use super::span::Span;
use crate::blocks::{PANEL, STRIP};
use crate::error::Error;
use crate::run::buffer::Buffer;
use crate::run::carve::Carver;
use crate::run::few::Few;
use std::sync::Mutex;

/// Of each thread what [`Scratch::memory`] gives.
pub(super) type ThreadsMemory = Few<Mutex<Buffer>, 1>;

/// Buffers of arbitrary content, each `[..][query]` with `stride` queries unless it says otherwise.
#[derive(Debug)]
pub(super) struct Scratch<'m> {
    /// Queries per block.
    pub(super) stride: usize,
    /// First and end key of each query, as [`Ends`](super::mask::Ends) has them.
    pub(super) row_low: &'m mut [i32],
    pub(super) row_high: &'m mut [i32],
    /// First and end key of each query, relative to the key of score row 0.
    pub(super) low: &'m mut [f32],
    pub(super) high: &'m mut [f32],
    /// What each vector of queries sees.
    pub(super) spans: &'m mut [Span],
    /// The strips that the block visits, in order; "strip" below is a place in this list.
    pub(super) live: &'m mut [LiveStrip],
    /// `[term][channel][query]`, scaled.
    pub(super) queries: &'m mut [f32],
    /// `[slot][vector of queries][key][lane]`; a slot is `slot_len` long.
    pub(super) scores: &'m mut [f32],
    pub(super) slot_len: usize,
    /// `[slot][strip][query]`.
    pub(super) strip_max: &'m mut [f32],
    pub(super) strip_sum: &'m mut [f32],
    pub(super) footing: &'m mut [f64],
    /// `[slot][query]`.
    pub(super) row_max: &'m mut [f32],
    pub(super) row_sum: &'m mut [f64],
    /// `[query]`: coefficient ÷ denominator of one term.
    pub(super) shares: &'m mut [f64],
    /// `[strip][term][high, low][query]`.
    pub(super) weights: &'m mut [f32],
    /// P of one strip, `[vector of queries][key][lane]`.
    pub(super) strip: &'m mut [f32],
    /// Mask and bias of one strip, `[key][query]`.
    pub(super) bias: &'m mut [f32],
    /// outᵀ, `[channel][query]`.
    pub(super) out: &'m mut [f32],
    /// One panel of one strip of v without NaN and infinities or as float32, `[key][channel]`.
    pub(super) finite: &'m mut [f32],
    /// One panel of keys as float32, where they are not held as that.
    pub(super) near: &'m mut [f32],
    /// As many rows of q or of the result as a vector has lanes, at most.
    pub(super) rows: &'m mut [f32],
    pub(super) gradient: GradientScratch<'m>,
}

impl<'m> Scratch<'m> {
    /// Memory for blocks of that size.
    ///
    /// # Errors
    /// [`Error::out_of_memory`].
    fn memory(size: &ScratchSize) -> Result<Buffer, Error> {
        let mut counted = Carver::counting();
        Scratch::carve(size, &mut counted);
        Buffer::new(counted.taken())
    }

    /// Gets such memory for each of `threads` threads that has none.
    ///
    /// # Errors
    /// [`Error::out_of_memory`].
    pub(super) fn grow(
        memory: &mut ThreadsMemory,
        threads: usize,
        size: &ScratchSize,
    ) -> Result<(), Error> {
        while memory.len() < threads {
            memory.push(Mutex::new(Scratch::memory(size)?));
        }
        Ok(())
    }

    /// Cuts what [`Scratch::memory`] got for that size.
    pub(super) fn of(size: &ScratchSize, memory: &'m mut Buffer) -> Self {
        Self::carve(size, &mut Carver::of(memory))
    }

    /// First and end key of a row.
    #[inline(always)]
    pub(super) fn row_keys(&self, row: usize) -> (usize, usize) {
        (self.row_low[row] as usize, self.row_high[row] as usize)
    }

    fn carve(size: &ScratchSize, from: &mut Carver<'m>) -> Self {
        let ScratchSize {
            stride,
            keys,
            slots,
            terms,
            width,
            channels,
            elements,
            widens,
            has_gradients,
            ..
        } = *size;
        // A block's first key is rounded down to a panel, its last tile reaches to a panel's end.
        let slot_len = (keys + 2 * PANEL) * stride;
        // They may begin and end anywhere in a strip.
        let strips = keys.div_ceil(STRIP) + 1;
        let beyond = if has_gradients { PANEL } else { 0 };
        Self {
            stride,
            row_low: from.take(stride),
            row_high: from.take(stride),
            low: from.take(stride),
            high: from.take(stride),
            spans: from.take(stride),
            live: from.take(strips),
            queries: from.take(terms * width * stride),
            scores: from.take(slots * slot_len),
            slot_len,
            strip_max: from.take(slots * strips * stride),
            strip_sum: from.take(slots * strips * stride),
            footing: from.take(slots * strips * stride),
            row_max: from.take(slots * stride),
            row_sum: from.take(slots * stride),
            shares: from.take(stride),
            weights: from.take(2 * strips * terms * stride),
            // (Gradients turn it round in whole panels.)
            strip: from.take((STRIP.min(keys + PANEL) + beyond) * stride),
            bias: from.take(if elements { STRIP * stride } else { 0 }),
            out: from.take(channels * stride),
            finite: from.take(STRIP.min(keys + PANEL) * PANEL),
            near: from.take(if widens { PANEL * width } else { 0 }),
            rows: from.take(PANEL * channels.max(width)),
            gradient: GradientScratch::carve(size, from),
        }
    }
}
