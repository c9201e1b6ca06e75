//! Packs the K and V heads of a wave, strip by strip, in parallel. The same memory serves wave
//! after wave.

use super::call::Call;
use super::inputs::Source;
use super::mask::Sequence;
use super::packed::{PackKeys, PackValues};
use super::panels::{PackedUnit, Panels};
use super::waves::Wave;
use crate::blocks::{PANEL, STRIP};
use crate::error::Error;
use crate::run::buffer::Buffer;
use crate::run::threads::{Disjoint, for_each, thread_count};
use crate::tensor::axis::HeadAxis;
use crate::tensor::{DType, Data};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// Packed K and V of a wave.
#[derive(Debug, Default)]
pub(super) struct Packed {
    k: Buffer,
    v: Buffer,
    /// Per strip of each head of V: whether a value is NaN or infinite.
    special: Vec<AtomicBool>,
}

/// One strip of one head of a unit.
#[derive(Clone, Copy)]
struct Task {
    unit: usize,
    is_key: bool,
    /// Which of the unit's packed heads.
    entry: usize,
    strip: usize,
}

impl Packed {
    /// Panels of a unit of the wave that was packed last.
    pub(super) fn panels<'c>(&'c self, call: &Call<'c>, wave: &'c Wave, unit: usize) -> Panels<'c> {
        match call.source {
            Source::Tensors { .. } => Panels::Packed {
                k: &self.k,
                v: &self.v,
                special: &self.special,
                unit: &wave.packed[unit],
                width: call.width,
                shape: call.value_shape,
            },
            Source::Cache(cache) => Panels::Cache {
                cache,
                batch: call.sequences[wave.units[unit].0].batch,
            },
        }
    }

    /// Packs what the units of `wave` want; nothing of a cache.
    pub(super) fn pack(&mut self, call: &Call<'_>, wave: &Wave) -> Result<(), Error> {
        let Source::Tensors { k, v } = call.source else {
            return Ok(());
        };
        self.resize(wave)?;
        if wave.size.k + wave.size.v == 0 {
            return Ok(());
        }
        let tasks = tasks(call, wave);
        let threads = thread_count(call.run.threads(), wave.size.k + wave.size.v);
        let rows_len = PANEL * call.width.max(call.value_shape.width);
        let mut buffers = Vec::with_capacity(threads);
        for _ in 0..threads {
            // (Float32 rows are read where they lie.)
            buffers.push(Mutex::new(match call.dtype() {
                DType::F32 => Buffer::default(),
                DType::F16 | DType::Bf16 => Buffer::new(rows_len)?,
            }));
        }
        let (k_to, v_to) = (Disjoint::new(&mut self.k), Disjoint::new(&mut self.v));
        let special = &self.special;
        for_each(threads, tasks.len(), |slot, index| {
            let task = tasks[index];
            let strip = Strip {
                call,
                unit: &wave.packed[task.unit],
                sequence: &call.sequences[wave.units[task.unit].0],
                task,
            };
            let mut buffer = buffers[slot].lock().unwrap_or_else(PoisonError::into_inner);
            if task.is_key {
                strip.pack_keys(k, &k_to, &mut buffer);
            } else if let Some(v) = v {
                strip.pack_values(v, &v_to, special, &mut buffer);
            }
        });
        Ok(())
    }

    /// Makes the memory large enough for what the units of `wave` want.
    fn resize(&mut self, wave: &Wave) -> Result<(), Error> {
        grow(&mut self.k, wave.size.k)?;
        grow(&mut self.v, wave.size.v)?;
        let flags = wave.size.flags;
        self.special.clear();
        self.special
            .try_reserve(flags)
            .map_err(|_| Error::out_of_memory(flags as u64))?;
        self.special.resize_with(flags, AtomicBool::default);
        Ok(())
    }
}

/// One task per head and strip.
fn tasks(call: &Call<'_>, wave: &Wave) -> Vec<Task> {
    let strips_of = |unit: usize| {
        let (sequence, _) = wave.units[unit];
        call.sequences[sequence].keys.div_ceil(STRIP)
    };
    let units = wave.packed.iter().enumerate();
    let count = units.map(|(unit, packed)| strips_of(unit) * (packed.k.len() + packed.v.len()));
    let mut tasks = Vec::with_capacity(count.sum());
    for (unit, packed) in wave.packed.iter().enumerate() {
        for strip in 0..strips_of(unit) {
            let task = |is_key, entry| Task {
                unit,
                is_key,
                entry,
                strip,
            };
            tasks.extend((0..packed.k.len()).map(|entry| task(true, entry)));
            tasks.extend((0..packed.v.len()).map(|entry| task(false, entry)));
        }
    }
    tasks
}

/// Makes `buffer` at least `len` long. What it held does not matter.
fn grow(buffer: &mut Buffer, len: usize) -> Result<(), Error> {
    if buffer.len() < len {
        *buffer = Buffer::default();
        *buffer = Buffer::new(len)?;
    }
    Ok(())
}

/// What a task needs to know.
struct Strip<'c, 'a> {
    call: &'c Call<'a>,
    unit: &'c PackedUnit,
    sequence: &'c Sequence,
    task: Task,
}

impl Strip<'_, '_> {
    /// The strip's keys.
    fn keys(&self) -> (usize, usize) {
        let from = self.task.strip * STRIP;
        (from, (from + STRIP).min(self.sequence.keys))
    }

    fn pack_keys(
        &self,
        (data, axis): (Data<'_>, HeadAxis),
        to: &Disjoint<'_, f32>,
        buffer: &mut [f32],
    ) {
        let (from, end) = self.keys();
        let (head, start) = self.unit.k[self.task.entry];
        let start = start + from * self.call.width;
        let len = (end - from).next_multiple_of(PANEL) * self.call.width;
        // SAFETY: the panels of this strip of this head; no other task has them.
        let panels = unsafe { to.part(start..start + len) };
        let first_row = self.sequence.first_key + from;
        let kernel = PackKeys {
            rows: axis.rows(data, self.sequence.batch, head, first_row),
            from_row: 0,
            first: 0,
            end: end - from,
            panels,
            buffer,
        };
        self.call.run.isa().run(false, kernel);
    }

    fn pack_values(
        &self,
        (data, axis): (Data<'_>, HeadAxis),
        to: &Disjoint<'_, f32>,
        special: &[AtomicBool],
        buffer: &mut [f32],
    ) {
        let (from, end) = self.keys();
        let shape = self.call.value_shape;
        let (head, start, flag) = self.unit.v[self.task.entry];
        let start = start + self.task.strip * shape.strip_len();
        // SAFETY: this strip of this head; no other task has it.
        let panels = unsafe { to.part(start..start + shape.strip_len()) };
        let first_row = self.sequence.first_key + from;
        let kernel = PackValues {
            rows: axis.rows(data, self.sequence.batch, head, first_row),
            from_row: 0,
            first: from,
            end,
            shape,
            strip: panels,
            buffer,
        };
        let found = self.call.run.isa().run(false, kernel);
        special[flag + self.task.strip].store(found, Ordering::Relaxed);
    }
}
