//! Packs the K and V heads of a wave, strip by strip, in parallel. The same memory serves wave
//! after wave.

use super::call::Call;
use super::inputs::Source;
use super::mask::Sequence;
use super::packed::{PackKeys, PackValues, ValueShape};
use super::panels::{PackedUnit, Panels};
use super::waves::Wave;
use crate::blocks::{PANEL, STRIP};
use crate::error::Error;
use crate::run::Run;
use crate::run::buffer::Buffer;
use crate::run::few::Few;
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
    special: Few<AtomicBool, 16>,
}

/// What is packed: a tensor whose rows scores are made with, and one whose rows are summed. (Of
/// gradients the other way round as well.)
#[derive(Debug, Clone, Copy)]
pub(super) struct Operands<'c> {
    pub(super) k: (Data<'c>, HeadAxis),
    pub(super) v: Option<(Data<'c>, HeadAxis)>,
    /// Channels of `k`.
    pub(super) width: usize,
    /// The shape of packed `v`.
    pub(super) shape: ValueShape,
    pub(super) sequences: &'c [Sequence],
    pub(super) run: Run,
}

impl<'c> Operands<'c> {
    /// Those of a call; none where it reads a cache.
    fn of(call: &'c Call<'_>) -> Option<Self> {
        let Source::Tensors { k, v } = call.source else {
            return None;
        };
        Some(Self {
            k,
            v,
            width: call.width,
            shape: call.value_shape,
            sequences: &call.sequences,
            run: call.run,
        })
    }
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
            Source::Tensors { .. } => {
                self.of_unit(&wave.packed[unit], call.width, call.value_shape)
            }
            Source::Cache(cache) => Panels::Cache {
                cache,
                batch: call.sequences[wave.units[unit].0].batch,
            },
        }
    }

    /// Panels of `unit`, which was packed last, of keys of `width` channels and values of `shape`.
    pub(super) fn of_unit<'c>(
        &'c self,
        unit: &'c PackedUnit,
        width: usize,
        shape: ValueShape,
    ) -> Panels<'c> {
        Panels::Packed {
            k: &self.k,
            v: &self.v,
            special: &self.special,
            unit,
            width,
            shape,
        }
    }

    /// Packs what the units of `wave` want; nothing of a cache.
    pub(super) fn pack(&mut self, call: &Call<'_>, wave: &Wave) -> Result<(), Error> {
        match Operands::of(call) {
            Some(operands) => self.pack_operands(&operands, wave),
            None => Ok(()),
        }
    }

    /// Packs of `operands` what the units of `wave` want.
    pub(super) fn pack_operands(
        &mut self,
        operands: &Operands<'_>,
        wave: &Wave,
    ) -> Result<(), Error> {
        self.resize(wave)?;
        if wave.size.k + wave.size.v == 0 {
            return Ok(());
        }
        let (k, v) = (operands.k, operands.v);
        let tasks = tasks(operands, wave);
        let threads = thread_count(operands.run.threads(), wave.size.k + wave.size.v);
        let rows_len = PANEL * operands.width.max(operands.shape.width);
        let mut buffers = Few::<_, 1>::with_capacity(threads);
        for _ in 0..threads {
            // (Float32 rows are read where they lie.)
            buffers.push(Mutex::new(match k.0.dtype() {
                DType::F32 => Buffer::default(),
                DType::F16 | DType::Bf16 => Buffer::new(rows_len)?,
            }));
        }
        let (k_to, v_to) = (Disjoint::new(&mut self.k), Disjoint::new(&mut self.v));
        let special = &self.special;
        for_each(threads, tasks.len(), |slot, index| {
            let task = tasks[index];
            let strip = Strip {
                operands,
                unit: &wave.packed[task.unit],
                sequence: &operands.sequences[wave.units[task.unit].0],
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
fn tasks(operands: &Operands<'_>, wave: &Wave) -> Few<Task, 8> {
    let strips_of = |unit: usize| {
        let (sequence, _) = wave.units[unit];
        operands.sequences[sequence].keys.div_ceil(STRIP)
    };
    let units = wave.packed.iter().enumerate();
    let count = units.map(|(unit, packed)| strips_of(unit) * (packed.k.len() + packed.v.len()));
    let mut tasks = Few::with_capacity(count.sum());
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
struct Strip<'c> {
    operands: &'c Operands<'c>,
    unit: &'c PackedUnit,
    sequence: &'c Sequence,
    task: Task,
}

impl Strip<'_> {
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
        let start = start + from * self.operands.width;
        let len = (end - from).next_multiple_of(PANEL) * self.operands.width;
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
        self.operands.run.isa().run(false, kernel);
    }

    fn pack_values(
        &self,
        (data, axis): (Data<'_>, HeadAxis),
        to: &Disjoint<'_, f32>,
        special: &[AtomicBool],
        buffer: &mut [f32],
    ) {
        let (from, end) = self.keys();
        let shape = self.operands.shape;
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
        let found = self.operands.run.isa().run(false, kernel);
        special[flag + self.task.strip].store(found, Ordering::Relaxed);
    }
}
