//! Packed weights of every format, where their strips lie, and the one dispatch over formats,
//! `with_format!`. A further format is its `impl` of [`Format`] and a line in each of the lists
//! below.

use std::ops::Range;

use half::{bf16, f16};

use super::coded::Coded;
use super::format::{Format, Plain};
use super::pack::{pack, pack_transposed, repack, repack_transposed};
use super::pack_coded::PanelRows;
use super::quantised::CodedRows;
use super::rows::Rows;
use crate::blocks::linear::{AHEAD, CHANNELS, PANEL};
use crate::error::Error;
use crate::run::buffer::Lines;
use crate::simd::Vector;
use crate::tensor::shape::checked_len;
use crate::tensor::{DType, Data};

/// A packed weight of any format.
#[derive(Debug, Clone)]
pub(super) enum Panels {
    F32(Packed<Plain<f32>>),
    F16(Packed<Plain<f16>>),
    Bf16(Packed<Plain<bf16>>),
    Q4(Packed<Coded<4>>),
    Q8(Packed<Coded<8>>),
}

/// `$body` with `$packed` the [`Packed`] weight of whichever format `$panels` are.
macro_rules! with_format {
    ($panels:expr, $packed:ident => $body:expr) => {
        match $panels {
            $crate::linear::panels::Panels::F32($packed) => $body,
            $crate::linear::panels::Panels::F16($packed) => $body,
            $crate::linear::panels::Panels::Bf16($packed) => $body,
            $crate::linear::panels::Panels::Q4($packed) => $body,
            $crate::linear::panels::Panels::Q8($packed) => $body,
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

    /// As [`Panels::new`], of the transpose of `weight`, `[inputs, outputs]`.
    pub(super) fn transposed(weight: Data<'_>, shape: [usize; 2]) -> Result<Self, Error> {
        Ok(match weight {
            Data::F32(weight) => Self::F32(Packed::of_transposed(weight, shape)?),
            Data::F16(weight) => Self::F16(Packed::of_transposed(weight, shape)?),
            Data::Bf16(weight) => Self::Bf16(Packed::of_transposed(weight, shape)?),
        })
    }

    /// Packs `weight` over what was packed in the same format and shape; `is_transposed` says how
    /// it lies. False, and nothing done, where the format is another.
    pub(super) fn repack(
        &mut self,
        weight: Data<'_>,
        shape: [usize; 2],
        is_transposed: bool,
    ) -> bool {
        fn over<T: Copy>(weight: &[T], to: &mut [T], shape: [usize; 2], is_transposed: bool) {
            if is_transposed {
                repack_transposed(weight, shape, to);
            } else {
                repack(weight, shape, to);
            }
        }
        match (self, weight) {
            (Self::F32(packed), Data::F32(weight)) => {
                over(weight, &mut packed.stored, shape, is_transposed);
            }
            (Self::F16(packed), Data::F16(weight)) => {
                over(weight, &mut packed.stored, shape, is_transposed);
            }
            (Self::Bf16(packed), Data::Bf16(weight)) => {
                over(weight, &mut packed.stored, shape, is_transposed);
            }
            _ => return false,
        }
        true
    }

    /// What an element is called.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::F32(_) => DType::F32.name(),
            Self::F16(_) => DType::F16.name(),
            Self::Bf16(_) => DType::Bf16.name(),
            Self::Q4(_) => "codes of four bits",
            Self::Q8(_) => "codes of eight bits",
        }
    }

    /// Packs the rows of `codes`, which are `[outputs, inputs]`.
    pub(super) fn of_codes(mut codes: impl CodedRows, shape: [usize; 2]) -> Result<Self, Error> {
        Ok(match codes.bits() {
            4 => Self::Q4(Packed::of_codes(&mut codes, shape)?),
            _ => Self::Q8(Packed::of_codes(&mut codes, shape)?),
        })
    }
}

/// A packed weight, `[panel][strip of CHANNELS inputs]`, each as its format has it, zeros past the
/// last output. (So that some panels, a thread's share, are one stream of memory. Two threads of
/// Zen 4, SmolLM2 in four bits: 0.79 of the time of `[strip][panel]` for prompts of 512 tokens, 0.9
/// for 64, 0.8 for steps of eight texts; one thread 0.93 to 1.04.)
#[derive(Debug, Clone)]
pub(super) struct Packed<F: Format> {
    format: F,
    stored: Lines<F::Stored>,
    inputs: usize,
}

impl<E> Packed<Plain<E>>
where
    Plain<E>: Format + Default,
{
    /// Packs `weight`, `[outputs, inputs]`, whose elements a strip has as they are.
    pub(super) fn of_elements(
        weight: &[<Plain<E> as Format>::Stored],
        shape: [usize; 2],
    ) -> Result<Self, Error> {
        let [_, inputs] = shape;
        Ok(Self {
            format: Plain::default(),
            stored: pack(weight, shape)?,
            inputs,
        })
    }

    /// As [`Packed::of_elements`], of the transpose of `weight`, `[inputs, outputs]`.
    pub(super) fn of_transposed(
        weight: &[<Plain<E> as Format>::Stored],
        shape: [usize; 2],
    ) -> Result<Self, Error> {
        let [_, inputs] = shape;
        Ok(Self {
            format: Plain::default(),
            stored: pack_transposed(weight, shape)?,
            inputs,
        })
    }
}

impl<const BITS: usize> Packed<Coded<BITS>>
where
    Coded<BITS>: Format<Stored = u8>,
{
    /// Packs the rows of `codes`, `[outputs, inputs]`: without biases, where all of them only say
    /// that codes count from their middle. (Most say so, or not, from the first panel on: it is
    /// asked before there is memory for all.)
    pub(super) fn of_codes(codes: &mut impl CodedRows, shape: [usize; 2]) -> Result<Self, Error> {
        let [outputs, inputs] = shape;
        let bf16 = codes.bf16();
        let mut rows = PanelRows::new(inputs)?;
        rows.read(codes, 0, PANEL.min(outputs))?;
        if rows.count_from(Coded::<BITS>::ZERO) {
            let format = Coded {
                biases: false,
                bf16,
            };
            if let Some(packed) = Self::in_format(format, codes, &mut rows, shape)? {
                return Ok(packed);
            }
        }
        let format = Coded { biases: true, bf16 };
        match Self::in_format(format, codes, &mut rows, shape)? {
            Some(packed) => Ok(packed),
            None => Err(Error::internal("biases are not packed")),
        }
    }

    /// `None` where `format` has no biases and they say more than that codes count from their
    /// middle.
    fn in_format(
        format: Coded<BITS>,
        codes: &mut impl CodedRows,
        rows: &mut PanelRows,
        [outputs, inputs]: [usize; 2],
    ) -> Result<Option<Self>, Error> {
        let panels = outputs.div_ceil(PANEL);
        checked_len("weight", &[panels, PANEL, inputs])?;
        let mut packed = Self {
            format,
            stored: Lines::zeroed(checked_len("weight", &[panels, panel_len(format, inputs)])?)?,
            inputs,
        };
        for panel in 0..panels {
            rows.read(codes, panel * PANEL, ((panel + 1) * PANEL).min(outputs))?;
            if !format.biases && !rows.count_from(Coded::<BITS>::ZERO) {
                return Ok(None);
            }
            for from in (0..inputs).step_by(CHANNELS) {
                let place = packed.place(from, panel);
                rows.pack(format, from, &mut packed.stored[place]);
            }
        }
        Ok(Some(packed))
    }
}

/// How many elements a panel has.
#[inline(always)]
fn panel_len<F: Format>(format: F, inputs: usize) -> usize {
    let strips = inputs / CHANNELS * format.strip_len(CHANNELS);
    strips + format.strip_len(inputs % CHANNELS)
}

impl<F: Format> Packed<F> {
    /// How its strips meet rows of x.
    pub(super) fn format(&self) -> F {
        self.format
    }

    /// Bits per weight.
    pub(super) fn bits(&self) -> usize {
        self.format.bits()
    }

    /// As what rows of x are wanted.
    #[inline(always)]
    pub(super) fn rows(&self) -> Rows {
        self.format.rows()
    }

    /// How many float32 values [`Format::widen`] needs for a strip.
    pub(super) fn widened_len(&self) -> usize {
        self.format.widened_len(PANEL * self.inputs.min(CHANNELS))
    }

    /// The strip of panel `panel` whose input channels begin with `from`.
    #[inline(always)]
    pub(super) fn strip(&self, from: usize, panel: usize) -> &[F::Stored] {
        &self.stored[self.place(from, panel)]
    }

    /// [`Packed::strip`] as float32, in `to` where it is not that already; as [`Format::widen`]
    /// says, if at all.
    #[inline(always)]
    pub(super) fn widened<'w, V: Vector>(
        &'w self,
        from: usize,
        panel: usize,
        to: &'w mut [f32],
    ) -> Option<&'w [f32]> {
        self.format.widen::<V>(self.strip(from, panel), to)
    }

    /// [`Packed::strip`] as float32, `[channel][PANEL outputs]`, in `to` where it is not that.
    #[inline(always)]
    pub(super) fn floats<'w, V: Vector>(
        &'w self,
        from: usize,
        panel: usize,
        to: &'w mut [f32],
    ) -> &'w [f32] {
        let channels = 0..CHANNELS.min(self.inputs - from);
        self.format
            .floats::<V>(self.strip(from, panel), channels, 0..PANEL, to)
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
        let len = self.format.strip_len(CHANNELS.min(self.inputs - from));
        let strip = self.format.strip_len(CHANNELS);
        let start = panel * panel_len(self.format, self.inputs) + from / CHANNELS * strip;
        start..start + len
    }

    /// Row `index` of the weight as float32.
    pub(super) fn read_row(&self, index: usize, row: &mut [f32]) {
        for (strip, to) in row.chunks_mut(CHANNELS).enumerate() {
            let strip = self.strip(strip * CHANNELS, index / PANEL);
            self.format.read(strip, index % PANEL, to);
        }
    }
}
