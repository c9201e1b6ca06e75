//! Few queries against many keys: lanes are keys (then channels), so that K and V are read once for
//! all the heads and queries that share them. The same sums in the same order as `prefill/`, hence
//! the same bits. Runs units in phases over (unit, strip) items, so that few heads still fill many
//! threads.
//!
//! 1. per strip: scores, masked, their maxima, exponentials and sums (`scores.rs`);
//! 2. between the phases, per unit: row maxima, row sums, weights (`unit.rs`);
//! 3. per strip: terms combined and multiplied with v, from zero (`values.rs`);
//! 4. per unit: strips added in order, norm, store (`finish.rs`).

mod finish;
mod scores;
mod strip;
mod unit;
mod values;

pub(super) use unit::DecodeUnit;

use super::call::Call;
use super::held::CacheDType;
use super::outputs::RowsOut;
use super::panels::Panels;
use crate::error::Error;
use crate::run::buffer::try_zeroed;
use crate::run::threads::for_each;
use crate::simd::{Kernel, Vector};
use finish::DecodeFinish;
use std::sync::{Mutex, PoisonError};
use strip::{DecodeStrip, Phase, StripScratch};

/// Works units off, each with the panels that it reads, and writes their rows.
///
/// # Errors
/// [`Error::out_of_memory`] when scratch is refused.
pub(super) fn run_units(
    call: &Call<'_>,
    outputs: &RowsOut<'_>,
    mut units: Vec<(Panels<'_>, DecodeUnit<'_>)>,
    threads: usize,
) -> Result<(), Error> {
    let rows = units.iter().map(|(_, unit)| unit.rows.value_rows()).max();
    let widened = (call.source.dtype() != CacheDType::F32).then_some(call.width);
    let mut scratch = Vec::with_capacity(threads);
    for _ in 0..threads {
        scratch.push(Mutex::new(StripScratch::new(rows.unwrap_or(0), widened)?));
    }
    for phase in [Phase::Exponentials, Phase::Values] {
        let mut strips = Vec::new();
        for (panels, unit) in &mut units {
            let (rows, memory) = unit.strips();
            strips.extend(memory.map(|memory| (*panels, rows, Mutex::new(memory))));
        }
        for_each(threads, strips.len(), |slot, item| {
            let (panels, rows, memory) = &strips[item];
            let kernel = DecodeStrip {
                call,
                rows,
                panels: *panels,
                memory: &mut memory.lock().unwrap_or_else(PoisonError::into_inner),
                scratch: &mut scratch[slot].lock().unwrap_or_else(PoisonError::into_inner),
                phase,
            };
            call.run.kernel(kernel);
        });
        if phase == Phase::Exponentials {
            for (_, unit) in &mut units {
                unit.reduce(call);
            }
        }
    }
    let mut row = try_zeroed(call.plan.values * call.value_shape.width)?;
    for (_, unit) in &units {
        let kernel = DecodeFinish {
            call,
            unit,
            outputs,
            row: &mut row,
        };
        call.run.kernel(kernel);
    }
    Ok(())
}

impl Kernel for DecodeStrip<'_, '_, '_> {
    type Output = ();
    #[inline(always)]
    fn run<V: Vector>(mut self) {
        let live = self.rows.live(self.call, self.memory.strip);
        match (self.phase, live) {
            (Phase::Exponentials, Some(live)) => {
                self.scores::<V>(&live);
                self.exponentials::<V>();
            }
            (Phase::Exponentials, None) => {
                self.memory.max.fill(f32::NEG_INFINITY);
                self.memory.sum.fill(0.0);
            }
            (Phase::Values, Some(live)) => self.values::<V>(&live),
            (Phase::Values, None) => self.memory.partial.fill(0.0),
        }
    }
}
