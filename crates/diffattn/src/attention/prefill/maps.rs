//! Maps: each term's softmax and their combination, row by row, where it would be multiplied with v.

use super::geometry::Geometry;
use super::{Consumer, RowBlock};
use crate::attention::groups::{Block, HeadStep};
use crate::attention::outputs::MapsOut;
use crate::attention::softmax;
use crate::tile::STRIP;
use crate::vector::Vector;

/// The maps of a call.
pub(super) struct Maps<'c, 'o> {
    pub(super) out: &'c MapsOut<'o>,
}

impl Consumer for Maps<'_, '_> {
    #[inline(always)]
    fn head<V: Vector>(&self, rows: &mut RowBlock<'_, '_>, geometry: &Geometry, step: &HeadStep) {
        rows.reduce(geometry, step);
        rows.write_maps::<V>(geometry, step, self.out);
    }
}

impl RowBlock<'_, '_> {
    #[inline(always)]
    fn write_maps<V: Vector>(&mut self, geometry: &Geometry, step: &HeadStep, out: &MapsOut<'_>) {
        let Block {
            sequence,
            first,
            rows,
            ..
        } = self.block;
        let scratch = &*self.scratch;
        let first_strip = scratch.live.first().map_or(0, |strip| strip.number);
        for row in 0..rows {
            let ranges = std::iter::once(scratch.row_ranges[row]);
            let at = (sequence, step.head, first + row);
            out.write_row(self.call, at, ranges, |t, key| {
                let slot = *step.slots.get(t)?;
                let share = softmax::share(1.0, scratch.row_sum[slot * geometry.stride + row]);
                let place = key / STRIP - first_strip;
                let footing = scratch.footing[geometry.strip_at(slot, place) + row];
                let at = slot * scratch.slot_len
                    + row / V::LANES * geometry.score_column
                    + (key - geometry.base) * V::LANES
                    + row % V::LANES;
                (share != 0.0).then(|| (f64::from(scratch.scores[at]) * (share * footing)) as f32)
            });
        }
    }
}
