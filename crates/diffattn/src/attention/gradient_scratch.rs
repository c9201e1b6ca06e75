//! What row blocks of gradients need beside [`Scratch`](super::scratch::Scratch). Nothing where a
//! call computes none.

use super::scratch_size::ScratchSize;
use crate::blocks::{PANEL, STRIP};
use crate::error::Error;
use crate::run::buffer::{Buffer, try_zeroed};

/// Buffers of arbitrary content, each `[..][query]` with `stride` queries unless it says otherwise.
#[derive(Debug, Default)]
pub(in crate::attention) struct GradientScratch {
    /// dOᵀ, `[channel][query]`, each v head's channels padded.
    pub(in crate::attention) d_out: Buffer,
    /// dO, `[v head][query][padded channel]`.
    pub(in crate::attention) d_out_rows: Buffer,
    /// q, `[term][query][padded channel]`, not scaled.
    pub(in crate::attention) query_rows: Buffer,
    /// dP, `[vector of queries][key][lane]`, as a slot of scores.
    pub(in crate::attention) d_p: Buffer,
    /// What a softcap's derivative multiplies the scores' gradients of one strip with, laid out as
    /// `Scratch::strip`.
    pub(in crate::attention) caps: Buffer,
    /// q of one vector of queries, `[channel][lane]`, where scores are capped.
    pub(in crate::attention) by_channel: Buffer,
    /// One strip of a run by keys: `[panel of keys][query][key]`.
    pub(in crate::attention) by_key: Buffer,
    /// dqᵀ, `[term][padded channel][query]`.
    pub(in crate::attention) d_queries: Buffer,
    /// Σ E·dP, `[strip]`, of one term.
    pub(in crate::attention) dots: Vec<f32>,
    /// δ, `[term]`.
    pub(in crate::attention) delta: Vec<f64>,
    /// coefficient ÷ denominator, `[term]`.
    pub(in crate::attention) shares: Vec<f64>,
    /// Of one strip of one term: what makes dS of E (dP − δ), and δ in two parts.
    pub(in crate::attention) factors: Vec<f32>,
    /// One row of dO, `[channel]`.
    pub(in crate::attention) row: Vec<f32>,
    /// One row of dy or of q as float32, `[channel]`.
    pub(in crate::attention) wide: Vec<f32>,
}

impl GradientScratch {
    pub(in crate::attention) fn new(size: &ScratchSize) -> Result<Self, Error> {
        let ScratchSize {
            stride,
            keys,
            terms,
            width,
            channels,
            has_softcap,
            ..
        } = *size;
        let padded = width.next_multiple_of(PANEL);
        let strips = keys.div_ceil(STRIP) + 1;
        // A strip's last panel reaches past its keys.
        let strip = (STRIP.min(keys + PANEL) + PANEL) * stride;
        Ok(Self {
            d_out: Buffer::new(channels * stride)?,
            d_out_rows: Buffer::new(channels * stride)?,
            query_rows: Buffer::new(terms * padded * stride)?,
            d_p: Buffer::new((keys + 2 * PANEL) * stride)?,
            caps: Buffer::new(if has_softcap { strip } else { 0 })?,
            by_channel: Buffer::new(if has_softcap { width * stride } else { 0 })?,
            // (Two runs, each with a panel of its own at the end.)
            by_key: Buffer::new(strip + PANEL * stride)?,
            d_queries: Buffer::new(terms * padded * stride)?,
            dots: try_zeroed(strips * stride)?,
            delta: try_zeroed(terms * stride)?,
            shares: try_zeroed(terms * stride)?,
            factors: try_zeroed(3 * stride)?,
            row: try_zeroed(channels)?,
            wide: try_zeroed(channels.max(width))?,
        })
    }
}
