//! Runs a planned call of gradients: wave after wave, its heads packed both ways, then its row
//! blocks, in parallel. Knows nothing of numbers: no result depends on what is decided here.

use super::waves::{GradientItem, GradientWave, PlannedGradients};
use crate::attention::gradients::{GradientsOut, Turn};
use crate::attention::groups::Block;
use crate::attention::packing::{Operands, Packed};
use crate::attention::prefill::{Gradients, Prefill, RowBlock};
use crate::attention::scratch::{Scratch, ThreadsMemory};
use crate::attention::scratch_size::ScratchSize;
use crate::error::Error;
use crate::run::threads::{for_each, thread_count};
use crate::run::work::Pace;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What one wave after the other uses.
#[derive(Debug, Default)]
struct Memory {
    forward: Packed,
    mirror: Packed,
    scratch: ThreadsMemory,
}

impl PlannedGradients<'_> {
    /// The row blocks of the call, into `out`.
    pub(super) async fn run(&self, out: &GradientsOut<'_>, pace: &Pace) -> Result<(), Error> {
        let mut memory = Memory::default();
        let mut next_unit = 0;
        while let Some(wave) = self.next_wave(&mut next_unit)? {
            pace.granted().await;
            self.pack(&mut memory, &wave)?;
            let mut items = wave.items.as_slice();
            while !items.is_empty() {
                let (now, later) = items.split_at(items.len().min(pace.granted().await));
                self.run_blocks(&wave, &mut memory, now, out)?;
                pace.worked(now.len());
                items = later;
            }
        }
        Ok(())
    }

    fn pack(&self, memory: &mut Memory, wave: &GradientWave) -> Result<(), Error> {
        let call = &self.of.call;
        let operands = Operands {
            k: self.of.k,
            v: Some(self.of.v),
            width: call.width,
            shape: call.value_shape,
            sequences: &call.sequences,
            run: call.run,
        };
        memory.forward.pack_operands(&operands, &wave.forward)?;
        let mirrored = Operands {
            k: self.of.v,
            v: Some(self.of.k),
            width: call.value_shape.width,
            shape: self.mirror_shape(),
            ..operands
        };
        memory.mirror.pack_operands(&mirrored, &wave.mirror)
    }

    fn run_blocks(
        &self,
        wave: &GradientWave,
        memory: &mut Memory,
        items: &[GradientItem],
        out: &GradientsOut<'_>,
    ) -> Result<(), Error> {
        let work = items.iter().map(|item| self.work(item));
        let work = work.fold(0, usize::saturating_add);
        let threads = thread_count(self.threads, work).min(items.len());
        let size = ScratchSize::of(&self.of.call, &self.sharing, self.stride, true);
        Scratch::grow(&mut memory.scratch, threads, &size)?;
        let memory = &*memory;
        for_each(threads, items.len(), |slot, index| {
            let mut scratch = memory.scratch[slot]
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let item = &items[index];
            let release = Release(&wave.added[item.unit]);
            let scratch = Scratch::of(&size, &mut scratch);
            self.run_block(wave, memory, item, (out, scratch));
            drop(release);
        });
        Ok(())
    }

    fn run_block(
        &self,
        wave: &GradientWave,
        memory: &Memory,
        item: &GradientItem,
        (out, mut scratch): (&GradientsOut<'_>, Scratch<'_>),
    ) {
        let call = &self.of.call;
        let (sequence, _) = wave.forward.units[item.unit];
        let group = &self.sharing.groups[item.group];
        let forward = &wave.forward.packed[item.unit];
        let mirror = &wave.mirror.packed[item.unit];
        let width = call.value_shape.width;
        let consumer = Gradients {
            of: &self.of,
            out,
            mirror: memory.mirror.of_unit(mirror, width, self.mirror_shape()),
            turn: Turn {
                added: &wave.added[item.unit],
                visits: &wave.visits[item.unit],
                heads_before: item.heads_before,
                heads: group.steps.len(),
                block: item.block,
            },
            strips: item.strips.clone(),
            row_block: self.row_block(sequence, item.block),
        };
        let kernel = Prefill {
            rows: RowBlock {
                call,
                block: Block {
                    sequence: &call.sequences[sequence],
                    group,
                    panels: memory
                        .forward
                        .of_unit(forward, call.width, call.value_shape),
                    first: item.first,
                    rows: item.rows,
                },
                scratch: &mut scratch,
            },
            consumer: &consumer,
        };
        call.run.kernel(kernel);
    }

    /// Multiply-adds of a block, about.
    fn work(&self, item: &GradientItem) -> usize {
        let call = &self.of.call;
        let steps = &self.sharing.groups[item.group].steps;
        let maps: usize = steps.iter().map(|step| step.slots.len()).sum();
        let values = steps.len() * call.plan.values * call.value_shape.width;
        let macs = 3 * maps * call.width + 2 * values;
        let keys = item.strips.len() * crate::blocks::STRIP;
        item.rows.saturating_mul(keys).saturating_mul(macs)
    }
}

/// Lets all go on that wait for a block that panics: they would wait for ever.
struct Release<'c>(&'c [AtomicUsize]);

impl Drop for Release<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for added in self.0 {
                added.store(usize::MAX / 2, Ordering::Release);
            }
        }
    }
}
