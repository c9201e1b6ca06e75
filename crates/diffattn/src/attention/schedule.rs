//! Runs a planned call: wave after wave, its heads packed, then its row blocks and decode phases,
//! in parallel. Knows nothing of numbers: no result depends on what is decided here.

use super::decode::{DecodeUnit, run_units};
use super::groups::Block;
use super::outputs::{Outputs, RowsOut};
use super::packing::Packed;
use super::prefill::{Asked, Consumer, Prefill, RowBlock};
use super::scratch::{Scratch, ThreadsMemory};
use super::scratch_size::ScratchSize;
use super::waves::{Item, Planned, Wave};
use crate::error::Error;
use crate::run::threads::{for_each, thread_count};
use crate::run::work::{Pace, Work};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Float32 values of decode scratch at which no further unit joins a batch: 16 MiB.
const DECODE_SCRATCH: usize = 4 << 20;

/// Multiply-adds that a unit of decoding costs beside its keys. (Eight texts of SmolLM2 with 80
/// keys each: 120 µs a layer, of which keys are 30. With it a step of theirs on two threads took
/// 0.98 and 0.80 of the time.)
const UNIT_WORK: usize = 1 << 18;

/// What one wave after the other uses.
#[derive(Debug, Default)]
struct Memory {
    packed: Packed,
    scratch: ThreadsMemory,
}

impl<'a> Planned<'a> {
    /// The work of the call into `outputs`.
    pub(super) fn into_work(self, outputs: Outputs<'a>) -> Work<'a> {
        let total = self.total();
        Work::new(total, |pace| async move {
            let decoded = match &outputs {
                Outputs::Rows(rows) => Some(rows),
                Outputs::Maps(_) => None,
            };
            let asked = Asked { outputs: &outputs };
            self.run(&asked, decoded, &pace).await
        })
    }

    /// Runs row blocks for `consumer`, and units that decode, if there are any, into `decoded`.
    pub(super) async fn run<C: Consumer>(
        &self,
        consumer: &C,
        decoded: Option<&RowsOut<'_>>,
        pace: &Pace,
    ) -> Result<(), Error> {
        let mut memory = Memory::default();
        let mut next_unit = 0;
        while let Some(wave) = self.next_wave(&mut next_unit)? {
            pace.granted().await;
            memory.packed.pack(&self.call, &wave)?;
            let mut decode = wave.decode.as_slice();
            while let Some(rows) = decoded
                && !decode.is_empty()
            {
                let units = &decode[..decode.len().min(pace.granted().await)];
                let worked = self.decode_batch(&wave, &memory.packed, units, rows)?;
                pace.worked(worked);
                decode = &decode[worked..];
            }
            self.run_blocks(&wave, &mut memory, consumer, pace).await?;
        }
        Ok(())
    }

    /// The row blocks of a wave.
    async fn run_blocks<C: Consumer>(
        &self,
        wave: &Wave,
        memory: &mut Memory,
        consumer: &C,
        pace: &Pace,
    ) -> Result<(), Error> {
        let size = ScratchSize::of(&self.call, &self.sharing, self.block, false);
        let mut items = wave.items.as_slice();
        while !items.is_empty() {
            let (now, later) = items.split_at(items.len().min(pace.granted().await));
            let threads = self.threads_for(wave, now);
            Scratch::grow(&mut memory.scratch, threads, &size)?;
            for_each(threads, now.len(), |slot, index| {
                let mut scratch = lock(&memory.scratch[slot]);
                let kernel = Prefill {
                    rows: RowBlock {
                        call: &self.call,
                        block: self.block_of(wave, &memory.packed, now[index]),
                        scratch: &mut Scratch::of(&size, &mut scratch),
                    },
                    consumer,
                };
                self.call.run.kernel(kernel);
            });
            pace.worked(now.len());
            items = later;
        }
        Ok(())
    }

    fn block_of<'c>(&'c self, wave: &'c Wave, packed: &'c Packed, item: Item) -> Block<'c> {
        Block {
            sequence: &self.call.sequences[wave.units[item.unit].0],
            group: &self.sharing.groups[item.group],
            panels: packed.panels(&self.call, wave, item.unit),
            first: item.first,
            rows: item.rows,
        }
    }

    /// Multiply-adds of one query row of a group, per key it sees.
    fn macs_per_score(&self, group: usize) -> usize {
        let steps = &self.sharing.groups[group].steps;
        let maps: usize = steps.iter().map(|step| step.compute.len()).sum();
        maps * self.call.width + steps.len() * self.call.plan.values * self.call.value_shape.width
    }

    /// How many threads row blocks are worth.
    fn threads_for(&self, wave: &Wave, items: &[Item]) -> usize {
        let work = |item: &Item| {
            let sequence = &self.call.sequences[wave.units[item.unit].0];
            let last = item.first + item.rows - 1;
            let (low, high) = self.call.band.keys(sequence, last);
            let head = self.sharing.groups[item.group].steps[0].head;
            let visible = self.call.visible(sequence.row(head, last));
            let seen: usize = visible.ranges(low, high).map(|(from, to)| to - from).sum();
            item.rows
                .saturating_mul(seen)
                .saturating_mul(self.macs_per_score(item.group))
        };
        let work = items.iter().map(work).fold(0, usize::saturating_add);
        thread_count(self.call.run.threads(), work).min(items.len())
    }

    /// Runs as many of `units` as [`DECODE_SCRATCH`] allows, one at least, phase by phase. Gives
    /// how many.
    fn decode_batch(
        &self,
        wave: &Wave,
        packed: &Packed,
        units: &[usize],
        outputs: &RowsOut<'_>,
    ) -> Result<usize, Error> {
        let units = self.decode_units(wave, units)?;
        let work = units.iter().map(|(_, _, work)| *work);
        let threads = thread_count(self.call.run.threads(), work.fold(0, usize::saturating_add));
        let panels = |unit| packed.panels(&self.call, wave, unit);
        let units: Vec<_> = units
            .into_iter()
            .map(|(index, unit, _)| (panels(index), unit))
            .collect();
        let worked = units.len();
        run_units(&self.call, outputs, units, threads)?;
        Ok(worked)
    }

    /// The first of `units` that fit [`DECODE_SCRATCH`] together, each with its number in the wave
    /// and its work.
    fn decode_units(
        &self,
        wave: &Wave,
        units: &[usize],
    ) -> Result<Vec<(usize, DecodeUnit<'_>, usize)>, Error> {
        let call = &self.call;
        let mut made = Vec::new();
        let mut scratch_len = 0;
        for &unit in units {
            let (sequence, cluster) = wave.units[unit];
            let sequence = &call.sequences[sequence];
            let plan = &self.sharing.decode(&call.plan)[cluster];
            let cluster = &self.sharing.clusters[cluster];
            scratch_len += DecodeUnit::scratch_len(call, sequence, plan);
            if !made.is_empty() && scratch_len > DECODE_SCRATCH {
                break;
            }
            let macs = cluster
                .groups
                .iter()
                .map(|&group| self.macs_per_score(group));
            let macs = macs.sum::<usize>() * sequence.queries;
            // Bound by bytes, not by multiply-adds: a key costs what its K and V cost to read.
            let bytes = cluster.k.len() * call.width + cluster.v.len() * call.value_shape.width;
            let bytes = bytes * call.source.dtype().bytes();
            let work = sequence
                .keys
                .saturating_mul(macs + 2 * bytes)
                .saturating_add(UNIT_WORK);
            made.push((unit, DecodeUnit::new(call, sequence, plan)?, work));
        }
        Ok(made)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
