//! How weights are held: what a strip of a panel is made of, and how it meets rows of x. Knows
//! neither which formats a call has nor where strips lie. Here are the formats of floats.

use std::fmt::Debug;
use std::marker::PhantomData;
use std::ops::Range;

use half::slice::HalfBitsSliceExt;
use half::{bf16, f16};

use super::pack::gather;
use super::rows::Rows;
use crate::blocks::linear::{CHANNELS, PANEL};
use crate::run::buffer::LINE;
use crate::simd::{Element, PackedRows, Unscaled, Use, Vector, columns, product_of, widen};
use crate::tensor::Data;

/// A way to hold weights. Whichever way it is asked, a row of x gets the same bits, whatever stands
/// beside it.
pub(super) trait Format: Copy + Debug + Send + Sync + 'static {
    /// What a strip, [`CHANNELS`](crate::blocks::linear::CHANNELS) input channels of a panel, is a
    /// slice of.
    type Stored: Copy + Default + Debug + Send + Sync;

    /// Whether x is met as [`Rows::Int8`].
    const INTEGER: bool;

    /// Bits per weight.
    fn bits(self) -> usize;

    /// As what it meets rows of x.
    fn rows(self) -> Rows;

    /// How many float32 values [`Format::widen`] needs for `weights` weights.
    fn widened_len(self, weights: usize) -> usize;

    /// Elements of a strip of `depth` input channels.
    fn strip_len(self, depth: usize) -> usize;

    /// `Σ_k rows[k][m] · strip[k][lane + n]`, k in order from zero, n in vectors. Each step asks
    /// for what lies `ahead` bytes on.
    ///
    /// # Safety
    /// `rows` are M, and of `strip`, which has their channels, N vectors from `lane` on lie in the
    /// panel.
    unsafe fn product<V: Vector, const M: usize, const N: usize>(
        self,
        strip: &[Self::Stored],
        lane: usize,
        rows: PackedRows,
        ahead: usize,
    ) -> [[V; N]; M];

    /// The strip as `[channel][PANEL outputs]` of float32, in `to` or where it lies; `None` where
    /// many rows are better off by [`Format::product`].
    fn widen<'w, V: Vector>(
        self,
        strip: &'w [Self::Stored],
        to: &'w mut [f32],
    ) -> Option<&'w [f32]>;

    /// Channels `channels` of outputs `lanes` of a strip as float32, `[channel][output]`, channels
    /// [`PANEL`] apart: where they lie, or in `to`, which has a row for each channel. Both begin
    /// and, but for a weight's last ones, end with a multiple of 16.
    fn floats<'w, V: Vector>(
        self,
        strip: &'w [Self::Stored],
        channels: Range<usize>,
        lanes: Range<usize>,
        to: &'w mut [f32],
    ) -> &'w [f32];

    /// Output channel `lane` of a strip as float32.
    fn read(self, strip: &[Self::Stored], lane: usize, to: &mut [f32]);
}

/// Elements of a float type, a strip `[channel][PANEL outputs]`.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Plain<E>(PhantomData<E>);

/// [`Format::product`] of elements that a vector loads.
///
/// # Safety
/// That of [`Format::product`].
#[inline(always)]
unsafe fn product<V: Vector, E: Element, const M: usize, const N: usize>(
    strip: &[E],
    lane: usize,
    rows: PackedRows,
    ahead: usize,
) -> [[V; N]; M] {
    let ask = |vectors: &[*const E; N]| {
        for (n, vector) in vectors.iter().enumerate() {
            if (n * V::LANES % PANEL * size_of::<E>()).is_multiple_of(LINE) {
                V::prefetch(vector.wrapping_byte_add(ahead).cast(), Use::Read);
            }
        }
    };
    let vectors = columns(strip[lane..].as_ptr(), V::LANES);
    // SAFETY: the caller's promise.
    unsafe { product_of(rows, vectors, PANEL, Unscaled, ask) }
}

impl Format for Plain<f32> {
    type Stored = f32;
    const INTEGER: bool = false;

    fn bits(self) -> usize {
        32
    }

    fn rows(self) -> Rows {
        Rows::Float
    }

    fn widened_len(self, _: usize) -> usize {
        0
    }

    fn strip_len(self, depth: usize) -> usize {
        depth * PANEL
    }

    #[inline(always)]
    unsafe fn product<V: Vector, const M: usize, const N: usize>(
        self,
        strip: &[f32],
        lane: usize,
        rows: PackedRows,
        ahead: usize,
    ) -> [[V; N]; M] {
        // SAFETY: the caller's promise.
        unsafe { product(strip, lane, rows, ahead) }
    }

    #[inline(always)]
    fn widen<'w, V: Vector>(self, strip: &'w [f32], _: &'w mut [f32]) -> Option<&'w [f32]> {
        Some(strip)
    }

    #[inline(always)]
    fn floats<'w, V: Vector>(
        self,
        strip: &'w [f32],
        channels: Range<usize>,
        lanes: Range<usize>,
        _: &'w mut [f32],
    ) -> &'w [f32] {
        &strip[channels.start * PANEL + lanes.start..]
    }

    fn read(self, strip: &[f32], lane: usize, to: &mut [f32]) {
        gather(&strip[lane..], to);
    }
}

/// The format of each kind of halves: bits, so that both are packed by one function.
macro_rules! halves {
    ($($half:ident: $data:ident),*) => {$(
        impl Format for Plain<$half> {
            type Stored = u16;
            const INTEGER: bool = false;

            fn bits(self) -> usize {
                16
            }

            fn rows(self) -> Rows {
                Rows::Float
            }

            fn widened_len(self, weights: usize) -> usize {
                weights
            }

            fn strip_len(self, depth: usize) -> usize {
                depth * PANEL
            }

            #[inline(always)]
            unsafe fn product<V: Vector, const M: usize, const N: usize>(
                self,
                strip: &[u16],
                lane: usize,
                rows: PackedRows,
                ahead: usize,
            ) -> [[V; N]; M] {
                // SAFETY: the caller's promise.
                unsafe { product(strip.reinterpret_cast::<$half>(), lane, rows, ahead) }
            }

            #[inline(always)]
            fn widen<'w, V: Vector>(
                self,
                strip: &'w [u16],
                to: &'w mut [f32],
            ) -> Option<&'w [f32]> {
                Some(widen::<V, $half>(strip.reinterpret_cast(), to))
            }

            #[inline(always)]
            fn floats<'w, V: Vector>(
                self,
                strip: &'w [u16],
                channels: Range<usize>,
                lanes: Range<usize>,
                to: &'w mut [f32],
            ) -> &'w [f32] {
                let vectors = lanes.start..lanes.end.next_multiple_of(V::LANES);
                let rows = strip[channels.start * PANEL..channels.end * PANEL].chunks_exact(PANEL);
                for (from, to) in rows.zip(to.chunks_exact_mut(PANEL)) {
                    let from = from[vectors.clone()].reinterpret_cast::<$half>();
                    widen::<V, $half>(from, to);
                }
                to
            }

            fn read(self, strip: &[u16], lane: usize, to: &mut [f32]) {
                let mut bits = [0; CHANNELS];
                let bits = &mut bits[..to.len()];
                gather(&strip[lane..], bits);
                Data::$data(bits).widen(0, to);
            }
        }
    )*};
}

halves!(f16: F16, bf16: Bf16);
