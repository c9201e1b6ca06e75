//! The rotary tables of a pass: each range of positions is computed once for all texts and layers
//! that turn alike.

use crate::layers::attention::RopeConfig;
use crate::layers::attention::Turn;
use diffattn::{Error, RopeFrequencies, RopeTable, Run};
use std::ops::Range;

/// Positions per table: some tenths of a millisecond of work.
const POSITIONS: usize = 512;

/// Rows of one text, by their positions.
#[derive(Debug, Clone)]
pub(crate) struct Positioned {
    /// Counted from the first row that is projected.
    pub(crate) rows: Range<usize>,
    /// The position of the first.
    pub(crate) position: usize,
    /// All positions of the text in this pass.
    pub(crate) text: Range<usize>,
}

#[derive(Debug)]
struct Entry {
    frequencies: RopeFrequencies,
    width: usize,
    positions: Range<usize>,
    table: RopeTable,
}

/// Tables that were made so far.
#[derive(Debug, Default)]
pub(crate) struct Tables(Vec<Entry>);

impl Tables {
    /// Forgets all of them.
    #[cfg(feature = "models")]
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// Makes what is missing for rows of heads of which `width` channels turn.
    pub(crate) fn cover(
        &mut self,
        rope: &RopeConfig,
        width: usize,
        rows: &[Positioned],
        run: Run,
    ) -> Result<(), Error> {
        for part in rows.iter().flat_map(parts) {
            let positions = part.position..part.position + part.rows.len();
            if self.find(rope, width, &positions).is_some() {
                continue;
            }
            // As much as texts that begin together share.
            let first = positions.start / POSITIONS * POSITIONS;
            let wanted = first.max(part.text.start)..(first + POSITIONS).min(part.text.end);
            let range = wanted.start as i64..wanted.end as i64;
            self.0.push(Entry {
                frequencies: rope.frequencies,
                width,
                positions: wanted,
                table: RopeTable::new(range, width, &rope.frequencies, run)?,
            });
        }
        Ok(())
    }

    /// The rows, cut where tables end, each part with its table.
    pub(crate) fn turns(
        &self,
        rope: &RopeConfig,
        width: usize,
        rows: &[Positioned],
    ) -> Vec<Turn<'_>> {
        let parts = rows.iter().flat_map(parts);
        let turns = parts.filter_map(|part| {
            let positions = part.position..part.position + part.rows.len();
            let entry = self.find(rope, width, &positions)?;
            Some(Turn {
                rows: part.rows,
                position: part.position,
                table: &entry.table,
            })
        });
        turns.collect()
    }

    fn find(&self, rope: &RopeConfig, width: usize, positions: &Range<usize>) -> Option<&Entry> {
        self.0.iter().find(|entry| {
            entry.width == width
                && entry.positions.start <= positions.start
                && positions.end <= entry.positions.end
                && entry.frequencies == rope.frequencies
        })
    }
}

/// Cut at multiples of [`POSITIONS`].
fn parts(rows: &Positioned) -> impl Iterator<Item = Positioned> {
    let rows = rows.clone();
    let mut at = 0;
    std::iter::from_fn(move || {
        let left = rows.rows.len() - at;
        if left == 0 {
            return None;
        }
        let position = rows.position + at;
        let count = left.min(POSITIONS - position % POSITIONS);
        let first = rows.rows.start + at;
        at += count;
        Some(Positioned {
            rows: first..first + count,
            position,
            text: rows.text.clone(),
        })
    })
}
