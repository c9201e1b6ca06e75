//! Consumers of a range of keys: the statistics that it gives, and the strips that it adds to what
//! the ranges before it hand on. Knows nothing of other ranges.

use super::consumer::Consumer;
use super::geometry::Geometry;
use super::row_block::RowBlock;
use crate::attention::groups::{Block, HeadStep};
use crate::attention::lanes::transpose;
use crate::attention::softmax;
use crate::run::threads::Disjoint;
use crate::simd::Vector;
use std::ops::Range;

/// What a range of keys gives or adds. One kernel for both, so that pass 1 is compiled once.
pub(in crate::attention) enum Partial<'s> {
    /// Maxima and sums of its strips, `[strip][B, H, T, Lq]`.
    Statistics {
        max: Disjoint<'s, f32>,
        sum: Disjoint<'s, f32>,
    },
    /// Strips, weighted with the maxima and sums of whole rows, `[B, H, T, Lq]`, added to `[B, H,
    /// Lq, channels]`.
    Strips {
        row_max: &'s [f32],
        row_sum: &'s [f64],
        accumulator: Disjoint<'s, f32>,
    },
}

impl Consumer for Partial<'_> {
    #[inline(always)]
    fn head<V: Vector>(
        &self,
        rows: &mut RowBlock<'_, '_>,
        geometry: &Geometry<'_>,
        step: &HeadStep,
    ) {
        match self {
            Self::Statistics { max, sum } => rows.write_statistics(geometry, step, [max, sum]),
            Self::Strips {
                row_max,
                row_sum,
                accumulator,
            } => {
                rows.read_statistics(geometry, step, row_max, row_sum);
                rows.weigh(geometry, step);
                rows.read_out::<V>(geometry, step, accumulator);
                rows.add_values::<V>(geometry, step);
                rows.write_out::<V>(geometry, step, accumulator);
            }
        }
    }
}

impl RowBlock<'_, '_> {
    /// Where `[B, H, T, Lq]` buffers hold the block's rows of a term.
    #[inline(always)]
    pub(super) fn statistics_at(&self, head: usize, t: usize) -> Range<usize> {
        let Block {
            sequence,
            first,
            rows,
            ..
        } = self.block;
        let [_, heads, terms, queries] = self.call.lse_shape();
        let (batch, _, query) = sequence.row(head, first);
        let at = ((batch * heads + head) * terms + t) * queries + query;
        at..at + rows
    }

    /// Maxima and sums of the strips of each term.
    #[inline(always)]
    fn write_statistics(
        &self,
        geometry: &Geometry<'_>,
        step: &HeadStep,
        [max, sum]: [&Disjoint<'_, f32>; 2],
    ) {
        let all: usize = self.call.lse_shape().iter().product();
        let scratch = &*self.scratch;
        for (t, &slot) in step.slots.iter().enumerate() {
            let rows = self.statistics_at(step.head, t);
            for (place, strip) in scratch.live.iter().enumerate() {
                let from = geometry.strip_at(slot, place);
                let first = strip.number * all + rows.start;
                for (to, from) in [
                    (max, &scratch.strip_max[from..][..rows.len()]),
                    (sum, &scratch.strip_sum[from..][..rows.len()]),
                ] {
                    // SAFETY: no other block has these rows.
                    let to = unsafe { to.part(first..first + rows.len()) };
                    to.copy_from_slice(from);
                }
            }
        }
    }

    /// Row maxima and sums of whole rows, and the footings of the range's strips on them.
    #[inline(always)]
    pub(super) fn read_statistics(
        &mut self,
        geometry: &Geometry<'_>,
        step: &HeadStep,
        row_max: &[f32],
        row_sum: &[f64],
    ) {
        let stride = geometry.stride;
        for (t, &slot) in step.slots.iter().enumerate() {
            let from = self.statistics_at(step.head, t);
            let scratch = &mut *self.scratch;
            let max = &mut scratch.row_max[slot * stride..][..stride];
            let sum = &mut scratch.row_sum[slot * stride..][..stride];
            max.fill(f32::NEG_INFINITY);
            sum.fill(0.0);
            max[..from.len()].copy_from_slice(&row_max[from.clone()]);
            sum[..from.len()].copy_from_slice(&row_sum[from]);
            let strips = geometry.strips_of(slot);
            let strip_max = scratch.strip_max[strips.clone()].chunks_exact(stride);
            let footing = scratch.footing[strips].chunks_exact_mut(stride);
            for (strip_max, footing) in strip_max.zip(footing) {
                softmax::footings(self.call.scores.exponent.exact, strip_max, max, footing);
            }
        }
    }

    /// Where `[B, H, Lq, channels]` buffers hold the block's rows.
    #[inline(always)]
    fn accumulator_at(&self, head: usize) -> Range<usize> {
        let Block {
            sequence,
            first,
            rows,
            ..
        } = self.block;
        let axis = &self.call.axis;
        let (batch, _, query) = sequence.row(head, first);
        let at = ((batch * axis.heads + head) * axis.length + query) * axis.width;
        at..at + rows * axis.width
    }

    /// outᵀ out of rows.
    #[inline(always)]
    fn read_out<V: Vector>(
        &mut self,
        geometry: &Geometry<'_>,
        step: &HeadStep,
        accumulator: &Disjoint<'_, f32>,
    ) {
        // SAFETY: no other block has these rows.
        let rows = unsafe { accumulator.part(self.accumulator_at(step.head)) };
        let (shape, stride) = (self.call.value_shape, geometry.stride);
        let count = self.block.rows;
        let channels = self.call.axis.width;
        let out = &mut self.scratch.out[..step.v.len() * shape.padded() * stride];
        out.fill(0.0);
        let heads = out.chunks_exact_mut(shape.padded() * stride).enumerate();
        for (index, out) in heads.filter(|_| shape.width > 0) {
            let from = &rows[index * shape.width..];
            transpose::<V>((from, channels), (out, stride), count, shape.width);
        }
    }

    /// Rows out of outᵀ.
    #[inline(always)]
    fn write_out<V: Vector>(
        &mut self,
        geometry: &Geometry<'_>,
        step: &HeadStep,
        accumulator: &Disjoint<'_, f32>,
    ) {
        // SAFETY: no other block has these rows.
        let rows = unsafe { accumulator.part(self.accumulator_at(step.head)) };
        let (shape, stride) = (self.call.value_shape, geometry.stride);
        let count = self.block.rows;
        let channels = self.call.axis.width;
        let out = &self.scratch.out[..step.v.len() * shape.padded() * stride];
        let heads = out.chunks_exact(shape.padded() * stride).enumerate();
        for (index, out) in heads.filter(|_| shape.width > 0) {
            let to = &mut rows[index * shape.width..];
            transpose::<V>((out, stride), (to, channels), shape.width, count);
        }
    }
}
