//! One thread's working memory for row blocks, got before any work and reused by every block.

use super::gradient_scratch::GradientScratch;
use super::live::LiveStrip;
use super::scratch_size::ScratchSize;
use crate::blocks::{PANEL, STRIP};
use crate::error::Error;
use crate::run::buffer::Buffer;
use crate::run::buffer::try_zeroed;

/// Buffers of arbitrary content, each `[..][query]` with `stride` queries unless it says otherwise.
#[derive(Debug)]
pub(super) struct Scratch {
    /// Queries per block.
    pub(super) stride: usize,
    pub(super) row_ranges: Vec<(usize, usize)>,
    pub(super) low: Vec<f32>,
    pub(super) high: Vec<f32>,
    /// The strips that the block visits, in order; "strip" below is a place in this list.
    pub(super) live: Vec<LiveStrip>,
    /// `[term][channel][query]`, scaled.
    pub(super) queries: Buffer,
    /// `[slot][vector of queries][key][lane]`; a slot is `slot_len` long.
    pub(super) scores: Buffer,
    pub(super) slot_len: usize,
    /// `[slot][strip][query]`.
    pub(super) strip_max: Vec<f32>,
    pub(super) strip_sum: Vec<f32>,
    pub(super) footing: Vec<f64>,
    /// `[slot][query]`.
    pub(super) row_max: Vec<f32>,
    pub(super) row_sum: Vec<f64>,
    /// `[query]`: coefficient ÷ denominator of one term.
    pub(super) shares: Vec<f64>,
    /// `[strip][term][high, low][query]`.
    pub(super) weights: Vec<f32>,
    /// P of one strip, `[vector of queries][key][lane]`.
    pub(super) strip: Buffer,
    /// Mask and bias of one strip, `[key][query]`.
    pub(super) bias: Vec<f32>,
    /// outᵀ, `[channel][query]`.
    pub(super) out: Buffer,
    /// One panel of one strip of v without NaN and infinities or as float32, `[key][channel]`.
    pub(super) finite: Vec<f32>,
    /// One panel of keys as float32, where they are not held as that.
    pub(super) near: Vec<f32>,
    /// As many rows of q or of the result as a vector has lanes, at most.
    pub(super) rows: Buffer,
    pub(super) gradient: GradientScratch,
}

impl Scratch {
    pub(super) fn new(size: &ScratchSize) -> Result<Self, Error> {
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
        let mut live = Vec::new();
        live.try_reserve_exact(strips).map_err(|_| {
            Error::out_of_memory((strips as u64).saturating_mul(size_of::<LiveStrip>() as u64))
        })?;
        Ok(Self {
            stride,
            row_ranges: try_zeroed(stride)?,
            low: try_zeroed(stride)?,
            high: try_zeroed(stride)?,
            live,
            queries: Buffer::new(terms * width * stride)?,
            scores: Buffer::new(slots * slot_len)?,
            slot_len,
            strip_max: try_zeroed(slots * strips * stride)?,
            strip_sum: try_zeroed(slots * strips * stride)?,
            footing: try_zeroed(slots * strips * stride)?,
            row_max: try_zeroed(slots * stride)?,
            row_sum: try_zeroed(slots * stride)?,
            shares: try_zeroed(stride)?,
            weights: try_zeroed(2 * strips * terms * stride)?,
            // (Gradients turn it round in whole panels.)
            strip: Buffer::new((STRIP.min(keys + PANEL) + beyond) * stride)?,
            bias: try_zeroed(if elements { STRIP * stride } else { 0 })?,
            out: Buffer::new(channels * stride)?,
            finite: try_zeroed(STRIP.min(keys + PANEL) * PANEL)?,
            near: try_zeroed(if widens { PANEL * width } else { 0 })?,
            rows: Buffer::new(PANEL * channels.max(width))?,
            gradient: if has_gradients {
                GradientScratch::new(size)?
            } else {
                GradientScratch::default()
            },
        })
    }
}
