//! dO and q of a block as the products read them: dO by channels and by rows, q by rows. What is
//! not finite is zero by rows: `special.rs` adds what it gives. Knows no scores.

use super::{Gradients, HeadAt};
use crate::attention::gradients::GradientCall;
use crate::attention::lanes::transpose;
use crate::attention::prefill::row_block::RowBlock;
use crate::blocks::PANEL;
use crate::norm::rms_norm_row_backward;
use crate::simd::Vector;

impl Gradients<'_, '_, '_> {
    /// dO of the block's rows. Gives whether a value of it is NaN or infinite.
    #[inline(always)]
    pub(super) fn outputs<V: Vector>(
        &self,
        rows: &mut RowBlock<'_, '_>,
        head: &HeadAt<'_>,
    ) -> bool {
        let (shape, stride) = (rows.call.value_shape, head.geometry.stride);
        let (padded, values) = (shape.padded(), head.step.v.len());
        let width = values * shape.width;
        let count = rows.block.rows;
        let mut is_special = false;
        for first in (0..count).step_by(V::LANES) {
            let queries = V::LANES.min(count - first);
            self.results::<V>(rows, head, first);
            for query in 0..queries {
                self.row_of_outputs::<V>(rows, head, first + query);
                let gradient = &mut rows.scratch.gradient;
                for (index, row) in gradient.row[..width].chunks_exact(shape.width).enumerate() {
                    let at = (index * stride + first + query) * padded;
                    is_special |= copy_padded(row, &mut gradient.d_out_rows[at..][..padded]);
                }
            }
        }
        let gradient = &mut rows.scratch.gradient;
        for index in 0..values {
            let from = &gradient.d_out_rows[index * stride * padded..];
            let to = &mut gradient.d_out[index * padded * stride..][..padded * stride];
            transpose::<V>((from, padded), (to, stride), count, shape.width);
            for channel in to.chunks_exact_mut(stride).take(shape.width) {
                channel[count..].fill(0.0);
            }
        }
        if is_special {
            self.finite_outputs(rows, head);
        }
        is_special
    }

    /// Rows of the result before its norm, of the queries that one vector holds from `first` on, as
    /// rows of `Scratch::rows`.
    #[inline(always)]
    fn results<V: Vector>(&self, rows: &mut RowBlock<'_, '_>, head: &HeadAt<'_>, first: usize) {
        let (shape, stride) = (rows.call.value_shape, head.geometry.stride);
        let width = head.step.v.len() * shape.width;
        let queries = V::LANES.min(rows.block.rows - first);
        let scratch = &mut *rows.scratch;
        if self.of.recomputes() {
            for index in 0..head.step.v.len() {
                let from = &scratch.out[index * shape.padded() * stride + first..];
                let to = &mut scratch.rows[index * shape.width..];
                transpose::<V>((from, stride), (to, width), shape.width, queries);
            }
        } else if let Some(kept) = self.of.pre_norm {
            let at = rows
                .block
                .sequence
                .row(head.step.head, rows.block.first + first);
            let kept = GradientCall::rows(kept, at);
            for (query, to) in scratch
                .rows
                .chunks_exact_mut(width)
                .take(queries)
                .enumerate()
            {
                to.copy_from_slice(kept.read(query, 1, scratch.gradient.wide).0);
            }
        }
    }

    /// dO of one row, into `GradientScratch::row`: dy, or what the norm's derivative makes of it
    /// and of the row of `Scratch::rows`.
    #[inline(always)]
    fn row_of_outputs<V: Vector>(
        &self,
        rows: &mut RowBlock<'_, '_>,
        head: &HeadAt<'_>,
        query: usize,
    ) {
        let width = head.step.v.len() * rows.call.value_shape.width;
        let at = rows
            .block
            .sequence
            .row(head.step.head, rows.block.first + query);
        let dy = GradientCall::rows(self.of.dy, at);
        let scratch = &mut *rows.scratch;
        let (dy, _) = dy.read(0, 1, scratch.gradient.wide);
        let d_out = &mut scratch.gradient.row[..width];
        let Some(norm) = rows.call.norm() else {
            d_out.copy_from_slice(dy);
            return;
        };
        let x = &scratch.rows[query % V::LANES * width..][..width];
        let heads = rows.call.axis.heads;
        let at = (self.row_block * heads + head.step.head) * width;
        // SAFETY: no other block has these sums.
        let sums = self
            .out
            .norm_weight
            .as_ref()
            .map(|sums| unsafe { sums.part(at..at + width) });
        let factors = (norm.weight, norm.eps, norm.scale);
        rms_norm_row_backward::<V>([dy, x], factors, d_out, sums);
    }

    /// q of the block's rows, term by term. Gives whether a value of it is NaN or infinite.
    #[inline(always)]
    pub(super) fn queries<V: Vector>(
        &self,
        rows: &mut RowBlock<'_, '_>,
        head: &HeadAt<'_>,
    ) -> bool {
        let width = rows.call.width;
        let padded = width.next_multiple_of(PANEL);
        let stride = head.geometry.stride;
        let mut is_special = false;
        for (t, &(q, _)) in rows.call.plan.heads[head.step.head]
            .terms
            .iter()
            .enumerate()
        {
            let from = rows.call.query_rows(rows.block.sequence, q);
            let gradient = &mut rows.scratch.gradient;
            let to = &mut gradient.query_rows[t * stride * padded..];
            for (query, to) in to
                .chunks_exact_mut(padded)
                .take(rows.block.rows)
                .enumerate()
            {
                let (row, _) = from.read(rows.block.first + query, 1, gradient.wide);
                is_special |= copy_padded(row, to);
            }
        }
        if is_special {
            self.finite_queries(rows, head);
        }
        is_special
    }
}

/// Copies a row, with zeros after it. Gives whether a value of it is NaN or infinite.
#[inline(always)]
fn copy_padded(from: &[f32], to: &mut [f32]) -> bool {
    let (row, padding) = to.split_at_mut(from.len());
    let mut probe = [0.0_f32; PANEL];
    let (panels, tail) = from.as_chunks::<PANEL>();
    for panel in panels {
        for (probe, value) in probe.iter_mut().zip(panel) {
            *probe += value * 0.0;
        }
    }
    for (probe, value) in probe.iter_mut().zip(tail) {
        *probe += value * 0.0;
    }
    row.copy_from_slice(from);
    padding.fill(0.0);
    probe.iter().any(|sum| sum.is_nan())
}
