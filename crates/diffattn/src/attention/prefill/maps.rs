//! Maps: each term's softmax and their combination, row by row, where it would be multiplied with v.

use super::geometry::Geometry;
use super::{Consumer, RowBlock};
use crate::attention::call::{Block, HeadStep};
use crate::attention::softmax;
use crate::tile::STRIP;
use crate::vector::Vector;

/// The maps of a call.
pub(in crate::attention) struct Maps;

impl Consumer for Maps {
    #[inline(always)]
    fn head<V: Vector>(
        &mut self,
        rows: &mut RowBlock<'_, '_>,
        geometry: &Geometry,
        step: &HeadStep,
    ) {
        rows.reduce(geometry, step);
        rows.write_maps::<V>(geometry, step);
    }
}

impl RowBlock<'_, '_> {
    #[inline(always)]
    fn write_maps<V: Vector>(&mut self, geometry: &Geometry, step: &HeadStep) {
        let Block {
            sequence,
            first,
            rows,
            ..
        } = self.block;
        let scratch = &*self.scratch;
        let first_strip = scratch.live.first().map_or(0, |strip| strip.number);
        for row in 0..rows {
            let range = scratch.row_ranges[row];
            self.call
                .write_map_row(sequence, step.head, first + row, range, |t, key| {
                    let slot = *step.slots.get(t)?;
                    let share = softmax::share(1.0, scratch.row_sum[slot * geometry.stride + row]);
                    let place = key / STRIP - first_strip;
                    let footing = scratch.footing[geometry.strip_at(slot, place) + row];
                    let at = slot * scratch.slot_len
                        + row / V::LANES * geometry.score_column
                        + (key - geometry.base) * V::LANES
                        + row % V::LANES;
                    (share != 0.0)
                        .then(|| (f64::from(scratch.scores[at]) * (share * footing)) as f32)
                });
        }
    }
}
