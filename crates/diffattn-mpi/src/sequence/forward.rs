//! The forward pass of blocks: statistics of whole rows, then the rows, by chains over the ranks
//! that a block asks.

use super::blocks::{Block, Kind};
use super::side::{Given, Side, as_floats, hear, of_floats, put};
use super::types::SequenceForward;
use diffattn::{DataMut, Error, PartialStatistics, RowStatistics, try_zeroed};
use diffattn_nn::training::Ranks;

impl Side<'_, '_> {
    /// Maxima and sums of the rows of all blocks that ask this rank, of all ranks' keys.
    pub(super) fn statistics(
        &self,
        ranks: &mut dyn Ranks,
        blocks: &[Block],
        given: &mut [Given],
    ) -> Result<(), Error> {
        let rank = self.rank;
        let mut parts: Vec<Option<PartialStatistics>> = vec![None; blocks.len()];
        for block in self.asking(blocks) {
            let given = &mut given[block.place];
            let (part, rows) = self.range(block, given, |range| {
                let part = range.statistics()?;
                let mut rows = range.no_rows()?;
                range.add_max(&part, &mut rows.row_max)?;
                Ok((part, rows))
            })?;
            if block.owner != rank {
                let message = block.message(Kind::Max, rank, block.owner);
                ranks.send(message, &rows.row_max)?;
            }
            parts[block.place] = Some(part);
            given.rows = Some(rows);
        }
        self.whole_maxima(ranks, blocks, given)?;
        self.whole_sums(ranks, blocks, given, &mut parts)
    }

    /// Raises the maxima of this rank's own blocks to those of all ranks, and tells these.
    fn whole_maxima(
        &self,
        ranks: &mut dyn Ranks,
        blocks: &[Block],
        given: &mut [Given],
    ) -> Result<(), Error> {
        let rank = self.rank;
        for block in self.own(blocks) {
            let Some(rows) = &mut given[block.place].rows else {
                return Err(Error::internal("a block that does not ask its own rank"));
            };
            for from in block.others() {
                let max = hear(
                    ranks,
                    block.message(Kind::Max, from, rank),
                    rows.row_max.len(),
                )?;
                for (row_max, of) in rows.row_max.iter_mut().zip(max) {
                    *row_max = if of > *row_max { of } else { *row_max };
                }
            }
            for to in block.others() {
                ranks.send(block.message(Kind::WholeMax, rank, to), &rows.row_max)?;
            }
        }
        Ok(())
    }

    /// The chain of sums: each rank in turn adds its strips; the last tells all.
    fn whole_sums(
        &self,
        ranks: &mut dyn Ranks,
        blocks: &[Block],
        given: &mut [Given],
        parts: &mut [Option<PartialStatistics>],
    ) -> Result<(), Error> {
        let rank = self.rank;
        for block in self.asking(blocks) {
            let mut rows = given[block.place].rows.take().unwrap_or(RowStatistics {
                row_max: Vec::new(),
                row_sum: Vec::new(),
            });
            let len = rows.row_max.len();
            if block.owner != rank {
                let message = block.message(Kind::WholeMax, block.owner, rank);
                rows.row_max = hear(ranks, message, len)?;
            }
            let last = block.last();
            if rank > block.asked.start {
                let message = block.message(Kind::Sum, rank - 1, rank);
                rows.row_sum = of_floats(&hear(ranks, message, 2 * len)?);
            }
            if let Some(part) = parts[block.place].take() {
                let of = &given[block.place];
                self.range(block, of, |range| range.add_sum(&part, &mut rows))?;
            }
            let sums = as_floats(&rows.row_sum);
            if rank < last {
                ranks.send(block.message(Kind::Sum, rank, rank + 1), &sums)?;
            } else {
                for to in block.asked.clone().filter(|&to| to != rank) {
                    ranks.send(block.message(Kind::WholeSum, rank, to), &sums)?;
                }
            }
            ranks.progress()?;
            given[block.place].rows = Some(rows);
        }
        for block in self.asking(blocks) {
            let last = block.last();
            if rank != last
                && let Some(rows) = &mut given[block.place].rows
            {
                let message = block.message(Kind::WholeSum, last, rank);
                rows.row_sum = of_floats(&hear(ranks, message, 2 * rows.row_max.len())?);
            }
        }
        Ok(())
    }

    /// The rows of all blocks, by a chain over the ranks that they ask.
    pub(super) fn rows(
        &self,
        ranks: &mut dyn Ranks,
        blocks: &[Block],
        given: &mut [Given],
        kept: &mut SequenceForward,
    ) -> Result<(), Error> {
        let rank = self.rank;
        for block in self.asking(blocks) {
            let of = &given[block.place];
            let accumulator = self.range(block, of, |range| {
                let len = self.result_shape(block).iter().product();
                let mut accumulator = match rank > block.asked.start {
                    true => hear(ranks, block.message(Kind::Rows, rank - 1, rank), len)?,
                    false => try_zeroed(len)?,
                };
                let rows = of.rows.as_ref();
                let rows = rows.ok_or_else(|| Error::internal("a block without statistics"))?;
                range.accumulate(rows, &mut accumulator)?;
                Ok(accumulator)
            })?;
            let last = block.last();
            if rank < last {
                ranks.send(block.message(Kind::Rows, rank, rank + 1), &accumulator)?;
            } else if rank == block.owner {
                self.finish(block, &mut given[block.place], accumulator, kept)?;
            } else {
                let message = block.message(Kind::Result, rank, block.owner);
                ranks.send(message, &accumulator)?;
            }
            ranks.progress()?;
        }
        for block in self.own(blocks) {
            let last = block.last();
            if last != rank {
                let len = self.result_shape(block).iter().product();
                let accumulator = hear(ranks, block.message(Kind::Result, last, rank), len)?;
                self.finish(block, &mut given[block.place], accumulator, kept)?;
            }
        }
        Ok(())
    }

    /// The result of a block of this rank's own.
    pub(super) fn finish(
        &self,
        block: &Block,
        given: &mut Given,
        mut accumulator: Vec<f32>,
        kept: &mut SequenceForward,
    ) -> Result<(), Error> {
        let rows = given.rows.take();
        let rows = rows.ok_or_else(|| Error::internal("a block without statistics"))?;
        let len = self.of.batch * self.heads * self.tokens() * self.channels;
        let place = [self.tokens(), self.channels];
        if kept.y.is_empty() {
            kept.y = try_zeroed(len)?;
        }
        if let Some(pre_norm) = &mut kept.pre_norm {
            if pre_norm.is_empty() {
                *pre_norm = try_zeroed(len)?;
            }
            put(pre_norm, place, &block.rows, &accumulator);
        }
        let mut y = try_zeroed(accumulator.len())?;
        self.range(block, given, |range| {
            range.finish(&rows, &mut accumulator, DataMut::F32(&mut y), None)
        })?;
        put(&mut kept.y, place, &block.rows, &y);
        kept.statistics.push(rows);
        Ok(())
    }
}
