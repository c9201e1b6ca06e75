//! What row blocks of gradients need beside [`Scratch`](super::scratch::Scratch). Nothing where a
//! call computes none.

use super::scratch_size::ScratchSize;
use crate::blocks::{PANEL, STRIP};
use crate::run::carve::Carver;

/// Buffers of arbitrary content, each `[..][query]` with `stride` queries unless it says otherwise.
#[derive(Debug, Default)]
pub(in crate::attention) struct GradientScratch<'m> {
    /// dOᵀ, `[channel][query]`, each v head's channels padded.
    pub(in crate::attention) d_out: &'m mut [f32],
    /// dO, `[v head][query][padded channel]`.
    pub(in crate::attention) d_out_rows: &'m mut [f32],
    /// q, `[term][query][padded channel]`, not scaled.
    pub(in crate::attention) query_rows: &'m mut [f32],
    /// dP, `[vector of queries][key][lane]`, as a slot of scores.
    pub(in crate::attention) d_p: &'m mut [f32],
    /// What a softcap's derivative multiplies the scores' gradients of one strip with, laid out as
    /// `Scratch::strip`.
    pub(in crate::attention) caps: &'m mut [f32],
    /// q of one vector of queries, `[channel][lane]`, where scores are capped.
    pub(in crate::attention) by_channel: &'m mut [f32],
    /// One strip of a run by keys: `[panel of keys][query][key]`.
    pub(in crate::attention) by_key: &'m mut [f32],
    /// dqᵀ, `[term][padded channel][query]`.
    pub(in crate::attention) d_queries: &'m mut [f32],
    /// Σ E·dP, `[strip]`, of one term.
    pub(in crate::attention) dots: &'m mut [f32],
    /// δ, `[term]`.
    pub(in crate::attention) delta: &'m mut [f64],
    /// coefficient ÷ denominator, `[term]`.
    pub(in crate::attention) shares: &'m mut [f64],
    /// Of one strip of one term: what makes dS of E (dP − δ), and δ in two parts.
    pub(in crate::attention) factors: &'m mut [f32],
    /// One row of dO, `[channel]`.
    pub(in crate::attention) row: &'m mut [f32],
    /// One row of dy or of q as float32, `[channel]`.
    pub(in crate::attention) wide: &'m mut [f32],
}

impl<'m> GradientScratch<'m> {
    pub(in crate::attention) fn carve(size: &ScratchSize, from: &mut Carver<'m>) -> Self {
        let ScratchSize {
            stride,
            keys,
            terms,
            width,
            channels,
            has_softcap,
            has_gradients,
            ..
        } = *size;
        if !has_gradients {
            return Self::default();
        }
        let padded = width.next_multiple_of(PANEL);
        let strips = keys.div_ceil(STRIP) + 1;
        // A strip's last panel reaches past its keys.
        let strip = (STRIP.min(keys + PANEL) + PANEL) * stride;
        Self {
            d_out: from.take(channels * stride),
            d_out_rows: from.take(channels * stride),
            query_rows: from.take(terms * padded * stride),
            d_p: from.take((keys + 2 * PANEL) * stride),
            caps: from.take(if has_softcap { strip } else { 0 }),
            by_channel: from.take(if has_softcap { width * stride } else { 0 }),
            // (Two runs, each with a panel of its own at the end.)
            by_key: from.take(strip + PANEL * stride),
            d_queries: from.take(terms * padded * stride),
            dots: from.take(strips * stride),
            delta: from.take(terms * stride),
            shares: from.take(terms * stride),
            factors: from.take(3 * stride),
            row: from.take(channels),
            wide: from.take(channels.max(width)),
        }
    }
}
