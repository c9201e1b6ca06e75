//! Maps: each term's softmax and their combination, row by row, where it would be multiplied with
//! v.

use super::consumer::Consumer;
use super::geometry::Geometry;
use super::row_block::RowBlock;
use crate::attention::groups::{Block, HeadStep};
use crate::attention::mask::RowAt;
use crate::attention::outputs::MapsOut;
use crate::attention::softmax;
use crate::simd::Vector;

/// The maps of a call.
pub(super) struct Maps<'c, 'o> {
    pub(super) out: &'c MapsOut<'o>,
}

impl Consumer for Maps<'_, '_> {
    #[inline(always)]
    fn head<V: Vector>(
        &self,
        rows: &mut RowBlock<'_, '_>,
        geometry: &Geometry<'_>,
        step: &HeadStep,
    ) {
        rows.reduce(geometry, step);
        rows.write_maps::<V>(geometry, step, self.out);
    }
}

impl RowBlock<'_, '_> {
    #[inline(always)]
    fn write_maps<V: Vector>(&self, geometry: &Geometry<'_>, step: &HeadStep, out: &MapsOut<'_>) {
        let Block {
            sequence,
            first,
            rows,
            ..
        } = self.block;
        for row in 0..rows {
            let at = sequence.row(step.head, first + row);
            out.write_row(
                self.call,
                (sequence, step.head, first + row),
                |t, map, diff| {
                    let sink = self.call.scores.sink(self.call.sink(step.head, t));
                    let slot = step.slots[t];
                    let denominator = self.denominator(slot * geometry.stride + row, sink);
                    let share = softmax::share(1.0, denominator);
                    // A row that saw nothing stays zero whatever its λ is.
                    if share != 0.0 {
                        let coefficient = self.call.coefficient(t, at);
                        let row = MapRow {
                            geometry,
                            row,
                            slot,
                            share,
                        };
                        self.map_row::<V>(&row, at, |key, p| {
                            map[key] = p;
                            diff[key] += coefficient * p;
                        });
                    }
                },
            );
        }
    }

    /// `put(key, p)` for the keys that a row sees in one term's map.
    #[inline(always)]
    fn map_row<V: Vector>(&self, of: &MapRow<'_>, at: RowAt, mut put: impl FnMut(usize, f32)) {
        let MapRow {
            geometry,
            row,
            slot,
            share,
        } = *of;
        let scratch = &*self.scratch;
        let (low, high) = scratch.row_keys(row);
        let column = slot * scratch.slot_len + row / V::LANES * geometry.score_column;
        let column = &scratch.scores[column..][..geometry.score_column];
        let elements = &self.call.elements;
        for (place, strip) in scratch.live.iter().enumerate() {
            let weight = share * scratch.footing[geometry.strip_at(slot, place) + row];
            for &(from, to) in strip.runs() {
                for key in from.max(low)..to.min(high) {
                    // A masked key of a NaN row, or under a NaN λ, is 0 all the same.
                    if elements.is_empty() || elements.sees(at, key) {
                        let e = column[(key - geometry.base) * V::LANES + row % V::LANES];
                        put(key, (f64::from(e) * weight) as f32);
                    }
                }
            }
        }
    }
}

/// One row of a block in one term's map.
struct MapRow<'s> {
    geometry: &'s Geometry<'s>,
    row: usize,
    slot: usize,
    share: f64,
}
