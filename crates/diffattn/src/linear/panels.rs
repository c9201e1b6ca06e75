//! Packed weights of every format, where their strips lie, and the one dispatch over formats,
//! `with_format!`. A further format is its `impl` of [`Format`] and a line in each of the three
//! lists below.

use std::ops::Range;

use half::{bf16, f16};

use super::format::Format;
use super::pack::pack;
use crate::blocks::linear::{AHEAD, CHANNELS, PANEL};
use crate::error::Error;
use crate::run::buffer::Lines;
use crate::simd::Vector;
use crate::tensor::Data;

/// A packed weight of any format.
#[derive(Debug, Clone)]
pub(super) enum Panels {
    F32(Packed<f32>),
    F16(Packed<f16>),
    Bf16(Packed<bf16>),
}

/// `$body` with `$packed` the [`Packed`] weight of whichever format `$panels` are.
macro_rules! with_format {
    ($panels:expr, $packed:ident => $body:expr) => {
        match $panels {
            $crate::linear::panels::Panels::F32($packed) => $body,
            $crate::linear::panels::Panels::F16($packed) => $body,
            $crate::linear::panels::Panels::Bf16($packed) => $body,
        }
    };
}

pub(super) use with_format;

impl Panels {
    /// Packs `weight`, `[outputs, inputs]`, in the format that it has.
    pub(super) fn new(weight: Data<'_>, shape: [usize; 2]) -> Result<Self, Error> {
        Ok(match weight {
            Data::F32(weight) => Self::F32(Packed::of_elements(weight, shape)?),
            Data::F16(weight) => Self::F16(Packed::of_elements(weight, shape)?),
            Data::Bf16(weight) => Self::Bf16(Packed::of_elements(weight, shape)?),
        })
    }
}

/// A packed weight, `[strip of CHANNELS inputs][panel]`, each as its format has it; of elements
/// `[input][PANEL outputs]`, zeros past the last output.
#[derive(Debug, Clone)]
pub(super) struct Packed<F: Format> {
    stored: Lines<F::Stored>,
    panels: usize,
    inputs: usize,
}

impl<F: Format> Packed<F> {
    /// Packs `weight`, `[outputs, inputs]`, whose elements a strip has as they are.
    pub(super) fn of_elements(weight: &[F::Stored], shape: [usize; 2]) -> Result<Self, Error> {
        let [outputs, inputs] = shape;
        Ok(Self {
            stored: pack(weight, shape)?,
            panels: outputs.div_ceil(PANEL),
            inputs,
        })
    }

    /// Bits per weight.
    pub(super) fn bits(&self) -> usize {
        F::BITS
    }

    /// How many float32 values [`Format::widen`] needs for a strip.
    pub(super) fn widened_len(&self) -> usize {
        F::widened_len(PANEL * self.inputs.min(CHANNELS))
    }

    /// The strip of panel `panel` whose input channels begin with `from`.
    #[inline(always)]
    pub(super) fn strip(&self, from: usize, panel: usize) -> &[F::Stored] {
        &self.stored[self.place(from, panel)]
    }

    /// [`Packed::strip`] as float32, in `to` where it is not that already.
    #[inline(always)]
    pub(super) fn widened<'w, V: Vector>(
        &'w self,
        from: usize,
        panel: usize,
        to: &'w mut [f32],
    ) -> &'w [f32] {
        F::widen::<V>(self.strip(from, panel), to)
    }

    /// How many bytes ahead of [`Packed::strip`] weights may be asked for.
    #[inline(always)]
    pub(super) fn ahead(&self, from: usize, panel: usize) -> usize {
        // Past the end may lie pages that are not there, which the machine searches for each time.
        let end = self.place(from, panel).end + AHEAD / size_of::<F::Stored>();
        if end <= self.stored.len() { AHEAD } else { 0 }
    }

    #[inline(always)]
    fn place(&self, from: usize, panel: usize) -> Range<usize> {
        let len = F::strip_len(CHANNELS.min(self.inputs - from));
        let start = from / CHANNELS * self.panels * F::strip_len(CHANNELS) + panel * len;
        start..start + len
    }

    /// Row `index` of the weight as float32.
    pub(super) fn read_row(&self, index: usize, row: &mut [f32]) {
        for (strip, to) in row.chunks_mut(CHANNELS).enumerate() {
            F::read(
                self.strip(strip * CHANNELS, index / PANEL),
                index % PANEL,
                to,
            );
        }
    }
}
