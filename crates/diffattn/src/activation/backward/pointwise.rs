//! Work that makes each value of its outputs of the values at the same place of its inputs: units,
//! blocks, widening, tails. Knows no function.

use std::ops::Range;

use crate::blocks::activation::{AT_ONCE, BLOCK, UNIT};
use crate::error::Error;
use crate::run::Run;
use crate::run::buffer::try_zeroed;
use crate::run::units::Units;
use crate::run::work::Pace;
use crate::simd::math::MAX_LANES;
use crate::simd::{Kernel, Vector, Wide};
use crate::tensor::output::Output;
use crate::tensor::{DType, Data};

/// A function of `I` float32 values that gives `O`, computed in float64. Nothing fuses.
pub(super) trait Pointwise<const I: usize, const O: usize>: Copy + Send + Sync {
    /// What a value costs, in values of a norm.
    const COST: usize;

    /// Of [`AT_ONCE`] vectors of values.
    ///
    /// # Safety
    /// So many values are readable at each input and writable at each output.
    unsafe fn map<W: Wide>(self, inputs: [*const f32; I], outputs: [*mut f32; O]);
}

/// [`AT_ONCE`] vectors of values.
///
/// # Safety
/// So many are readable there.
#[inline(always)]
pub(super) unsafe fn vectors<W: Wide>(from: *const f32) -> [W; AT_ONCE] {
    let mut values = [W::splat(0.0); AT_ONCE];
    for (i, value) in values.iter_mut().enumerate() {
        // SAFETY: the caller's promise.
        *value = unsafe { W::widen(from.add(i * W::LANES)) };
    }
    values
}

/// Writes them, each rounded once.
///
/// # Safety
/// So many are writable there.
#[inline(always)]
pub(super) unsafe fn store<W: Wide>(values: [W; AT_ONCE], to: *mut f32) {
    for (i, value) in values.into_iter().enumerate() {
        // SAFETY: the caller's promise.
        unsafe { value.store_narrow(to.add(i * W::LANES)) };
    }
}

/// How many units of work `len` values are.
pub(super) fn units(len: usize) -> usize {
    len.div_ceil(UNIT)
}

/// All of the work on `inputs`, whose element type and length are the same. Outputs are float32.
pub(super) async fn work<P: Pointwise<I, O>, const I: usize, const O: usize>(
    function: P,
    run: Run,
    pace: &Pace,
    inputs: [Data<'_>; I],
    outputs: [&Output<'_>; O],
) -> Result<(), Error> {
    let len = inputs[0].len();
    let is_wide = inputs[0].dtype() == DType::F32;
    let make_scratch = || try_zeroed(if is_wide { 0 } else { I * BLOCK });
    let mut units_of = Units::new(run, UNIT * P::COST, make_scratch);
    let unit = |scratch: &mut Vec<f32>, unit: usize| {
        let part = Part {
            function,
            inputs,
            outputs,
            range: unit * UNIT..((unit + 1) * UNIT).min(len),
            scratch,
        };
        run.unfused_kernel(part);
    };
    units_of.paced(pace, 0..units(len), &unit).await
}

/// Some values of a call.
struct Part<'u, P, const I: usize, const O: usize> {
    function: P,
    inputs: [Data<'u>; I],
    /// Have all values, of which no other thread writes these.
    outputs: [&'u Output<'u>; O],
    range: Range<usize>,
    /// A block of each input that is not float32.
    scratch: &'u mut [f32],
}

impl<P: Pointwise<I, O>, const I: usize, const O: usize> Kernel for Part<'_, P, I, O> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self {
            function,
            inputs,
            outputs,
            range,
            scratch,
        } = self;
        for first in range.clone().step_by(BLOCK) {
            let block = first..(first + BLOCK).min(range.end);
            let mut values: [&[f32]; I] = [&[]; I];
            let mut buffers = scratch.chunks_exact_mut(BLOCK);
            for (values, input) in values.iter_mut().zip(&inputs) {
                let buffer = buffers.next().unwrap_or(&mut []);
                *values = input.values(block.clone(), buffer);
            }
            // SAFETY: each value is one unit's; outputs are float32, so that nothing is widened.
            let results = outputs.map(|output| unsafe { output.values(block.clone(), &mut []) });
            map_block::<V::Wide, P, I, O>(function, values, results);
        }
    }
}

/// The function of values side by side, all slices of one length.
#[inline(always)]
fn map_block<W: Wide, P: Pointwise<I, O>, const I: usize, const O: usize>(
    function: P,
    inputs: [&[f32]; I],
    mut outputs: [&mut [f32]; O],
) {
    let (len, step) = (inputs[0].len(), AT_ONCE * W::LANES);
    let whole = len / step * step;
    for at in (0..whole).step_by(step) {
        let from = inputs.map(|values| values[at..][..step].as_ptr());
        let to = outputs
            .each_mut()
            .map(|values| values[at..][..step].as_mut_ptr());
        // SAFETY: so many values lie at each.
        unsafe { function.map::<W>(from, to) };
    }
    if whole < len {
        // The tail passes through vectors of its own.
        let mut from = [[0.0; AT_ONCE * MAX_LANES]; I];
        let mut to = [[0.0; AT_ONCE * MAX_LANES]; O];
        for (from, values) in from.iter_mut().zip(inputs) {
            from[..len - whole].copy_from_slice(&values[whole..]);
        }
        let from = from.each_ref().map(|values| values.as_ptr());
        // SAFETY: MAX_LANES is at least LANES.
        unsafe { function.map::<W>(from, to.each_mut().map(|values| values.as_mut_ptr())) };
        for (to, values) in to.iter().zip(&mut outputs) {
            values[whole..].copy_from_slice(&to[..len - whole]);
        }
    }
}
