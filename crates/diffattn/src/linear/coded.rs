//! The format of quantised weights: codes of four or eight bits, a scale for every 32 of an
//! output's channels, and perhaps a bias. Rows of x come as int8 in the same blocks, so that
//! products are integers, exact on every instruction set; of float32 is, block by block,
//! `(Σ c·x · scale) · scale of x + bias · (scale of x · Σ x)`, multiplied and added, never fused,
//! the blocks in order. So are the bits one set for all. Does not make codes.

use std::ops::Range;

use half::{bf16, f16};

use super::format::Format;
use super::rows::{NUMBERS, Offset, Rows, int8_width};
use crate::blocks::linear::PANEL;
use crate::simd::{BLOCK, Dot, Dots, PackedRows, Vector};

/// Codes of `BITS` bits, four or eight, unsigned. A strip is, block by block, the codes, the
/// scales, `[PANEL outputs]`, and the biases so: one stream, as memory is read. Codes are
/// `[four][PANEL outputs][4 channels]`, of four bits the second half of a block's in the high bits
/// of the first's. Nothing is asked for ahead of time: one stream is what the hardware fetches by
/// itself. (Zen 4, from memory, 4 and 8 bits: 24 and 18 GB/s; each line asked for 8 KiB ahead 14
/// and 12, into L2 17 and 16, and 10 and 9 where the scales of a strip lie behind its codes.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Coded<const BITS: usize> {
    /// Whether a value is `code · scale + bias`, not `(code − ZERO) · scale`.
    pub(super) biases: bool,
    /// Whether scales and biases are bfloat16, not float16.
    pub(super) bf16: bool,
}

impl<const BITS: usize> Coded<BITS> {
    /// The code of zero where there are no biases.
    pub(super) const ZERO: u8 = 1 << (BITS - 1);

    /// Fours of codes in a block that have bytes of their own.
    const FOURS: usize = BITS;

    /// Bytes of a panel's codes of one block.
    pub(super) const CODE_BYTES: usize = PANEL * BLOCK * BITS / 8;

    /// Bytes of a panel's scales, or biases, of one block.
    pub(super) const SCALES_BYTES: usize = PANEL * size_of::<u16>();

    /// Bytes of a panel's block: codes, scales and biases.
    #[inline(always)]
    pub(super) const fn block_bytes(self) -> usize {
        Self::CODE_BYTES + Self::SCALES_BYTES * (1 + self.biases as usize)
    }

    /// Which byte of a strip holds channel `channel` of output `lane`, and from which bit on.
    const fn code(self, channel: usize, lane: usize) -> (usize, usize) {
        let (block, within) = (channel / BLOCK, channel % BLOCK);
        let (four, high) = (within / 4 % Self::FOURS, within / 4 / Self::FOURS);
        let place = (four * PANEL + lane) * 4 + within % 4;
        (block * self.block_bytes() + place, high * BITS)
    }

    /// A scale or a bias as a strip has it.
    pub(super) fn stored(self, number: f32) -> [u8; 2] {
        let bits = if self.bf16 {
            bf16::from_f32(number).to_bits()
        } else {
            f16::from_f32(number).to_bits()
        };
        bits.to_ne_bytes()
    }

    /// Scale or bias at byte `at` of a strip.
    fn number(self, strip: &[u8], at: usize) -> f32 {
        let bits = u16::from_ne_bytes([strip[at], strip[at + 1]]);
        if self.bf16 {
            bf16::from_bits(bits).to_f32()
        } else {
            f16::from_bits(bits).to_f32()
        }
    }

    /// Scales or biases from `at` on.
    ///
    /// # Safety
    /// As many as there are lanes are readable there.
    #[inline(always)]
    unsafe fn numbers<V: Vector>(self, at: *const u16) -> V {
        // SAFETY: the caller's promise.
        unsafe {
            if self.bf16 {
                V::load_bf16(at.cast())
            } else {
                V::load_f16(at.cast())
            }
        }
    }

    /// The half of a block from channel `first` on, of outputs `lanes`, `[channel][output]`,
    /// channels [`PANEL`] apart: as [`Format::read`] has them, outputs side by side, so that the
    /// compiler makes vectors of them.
    #[inline(always)]
    fn half_block<V: Vector>(
        self,
        strip: &[u8],
        first: usize,
        lanes: Range<usize>,
        to: &mut [f32],
    ) {
        let at = first / BLOCK * self.block_bytes() + Self::CODE_BYTES;
        let scales = &self.panel_numbers::<V>(&strip[at..])[lanes.clone()];
        let (biases, zero) = if self.biases {
            (
                self.panel_numbers::<V>(&strip[at + Self::SCALES_BYTES..]),
                0.0,
            )
        } else {
            ([0.0; PANEL], f32::from(Self::ZERO))
        };
        let biases = &biases[lanes.clone()];
        for (four, to) in to.chunks_exact_mut(4 * PANEL).enumerate() {
            let (at, shift) = self.code(first + 4 * four, lanes.start);
            let codes = strip[at..at + 4 * lanes.len()].as_chunks::<4>().0;
            for (within, to) in to.chunks_exact_mut(PANEL).enumerate() {
                let numbers = scales.iter().zip(biases);
                for ((to, code), (&scale, &bias)) in to.iter_mut().zip(codes).zip(numbers) {
                    let code = (code[within] >> shift) & (u8::MAX >> (8 - BITS));
                    // (A code times a scale is exact; so it is rounded once, fused or not.)
                    *to = (f32::from(code) - zero) * scale + bias;
                }
            }
        }
    }

    /// The scales or biases of a panel's block, which `stored` begins with.
    #[inline(always)]
    fn panel_numbers<V: Vector>(self, stored: &[u8]) -> [f32; PANEL] {
        let stored = stored[..Self::SCALES_BYTES].as_ptr().cast::<u16>();
        let mut numbers = [0.0; PANEL];
        for (vector, to) in numbers.chunks_exact_mut(V::LANES).enumerate() {
            // SAFETY: a panel has PANEL numbers, which are whole vectors.
            unsafe {
                let vector: V = self.numbers(stored.wrapping_add(vector * V::LANES));
                vector.store(to.as_mut_ptr());
            }
        }
        numbers
    }

    /// [`Format::product`] by `P`, the products of `D` for this width.
    ///
    /// # Safety
    /// As [`Format::product`]; the machine has `D`.
    #[inline(always)]
    unsafe fn product_by<V, D, P, const M: usize, const N: usize>(
        self,
        strip: &[u8],
        lane: usize,
        rows: PackedRows,
    ) -> [[V; N]; M]
    where
        V: Vector,
        D: Dots<Ints = <V::Dots as Dots>::Ints>,
        P: Dot<Bytes = D::Bytes, Ints = D::Ints>,
    {
        let blocks = rows.depth / BLOCK;
        let width = int8_width(rows.depth);
        let mut sums = [[V::splat(0.0); N]; M];
        for block in 0..blocks {
            let stored = &strip[block * self.block_bytes()..(block + 1) * self.block_bytes()];
            let codes = stored[lane * 4..].as_ptr();
            let numbers = stored[Self::CODE_BYTES..].as_ptr().cast::<u16>();
            let x = rows.first.wrapping_add(block * BLOCK / 4);
            // SAFETY: the rows have these channels, and the panel these codes, by the contract.
            let dots = unsafe { Self::dots::<V, D, P, M, N>(codes, (x, width)) };
            for n in 0..N {
                let scales = numbers.wrapping_add(lane + n * V::LANES);
                // SAFETY: the panel has these outputs, by the contract; biases where there are any.
                let (scale, bias): (V, V) = unsafe {
                    let scale = self.numbers(scales);
                    if self.biases {
                        (scale, self.numbers(scales.wrapping_add(PANEL)))
                    } else {
                        (scale, scale)
                    }
                };
                for (m, sums) in sums.iter_mut().enumerate() {
                    let numbers = m * width + rows.depth / 4 + block * NUMBERS;
                    // SAFETY: both numbers of this block of this row are there, by the contract.
                    let [scale_of_x, offset] =
                        unsafe { rows.first.add(numbers).cast::<[f32; NUMBERS]>().read() };
                    let (scale_of_x, offset) = (V::splat(scale_of_x), V::splat(offset));
                    let dot = V::of_ints(P::ints(dots[m][n]));
                    let part = if self.biases {
                        dot.mul(scale).mul(scale_of_x).add(bias.mul(offset))
                    } else {
                        dot.sub(offset).mul(scale).mul(scale_of_x)
                    };
                    sums[n] = sums[n].add(part);
                }
            }
        }
        sums
    }

    /// The integer products of one block: N vectors of codes, and of M rows, `width` apart, the
    /// codes.
    ///
    /// # Safety
    /// They are readable; the machine has `D`.
    #[inline(always)]
    unsafe fn dots<V, D, P, const M: usize, const N: usize>(
        codes: *const u8,
        (x, width): (*const f32, usize),
    ) -> [[P::Sums; N]; M]
    where
        V: Vector,
        D: Dots<Ints = <V::Dots as Dots>::Ints>,
        P: Dot<Bytes = D::Bytes, Ints = D::Ints>,
    {
        let mut dots = [[P::zero(); N]; M];
        for four in 0..Self::FOURS {
            for n in 0..N {
                let codes = codes.wrapping_add((four * PANEL + n * V::LANES) * 4);
                // SAFETY: (all of the loop) the caller's promise.
                unsafe {
                    let bytes = D::load(codes);
                    if BITS == 8 {
                        add::<P, M, N>(&mut dots, n, bytes, (x.wrapping_add(four), width));
                    } else {
                        add::<P, M, N>(&mut dots, n, D::low(bytes), (x.wrapping_add(four), width));
                        let x = x.wrapping_add(four + Self::FOURS);
                        add::<P, M, N>(&mut dots, n, D::high(bytes), (x, width));
                    }
                }
            }
        }
        dots
    }
}

/// Adds a vector of codes times four values of each of M rows, `width` apart, to the sums of vector
/// `n`. Not a closure, which need not be inlined.
///
/// # Safety
/// The values are readable; the machine has `P`.
#[inline(always)]
unsafe fn add<P: Dot, const M: usize, const N: usize>(
    dots: &mut [[P::Sums; N]; M],
    n: usize,
    codes: P::Bytes,
    (x, width): (*const f32, usize),
) {
    for (m, dots) in dots.iter_mut().enumerate() {
        // SAFETY: the caller's promise.
        let four = unsafe { P::four(x.wrapping_add(m * width).cast()) };
        dots[n] = P::add(dots[n], codes, four);
    }
}

/// The format of each width, by its products.
macro_rules! coded {
    ($($bits:literal: $dot:ident),*) => {$(
        impl Format for Coded<$bits> {
            type Stored = u8;
            const INTEGER: bool = true;

            fn bits(self) -> usize {
                $bits + 8 * size_of::<u16>() * (1 + usize::from(self.biases)) / BLOCK
            }

            fn rows(self) -> Rows {
                Rows::Int8(if self.biases { Offset::Sum } else { Offset::Zero(Self::ZERO) })
            }

            fn widened_len(self, _: usize) -> usize {
                0
            }

            fn strip_len(self, depth: usize) -> usize {
                depth / BLOCK * self.block_bytes()
            }

            #[inline(always)]
            unsafe fn product<V: Vector, const M: usize, const N: usize>(
                self,
                strip: &[u8],
                lane: usize,
                rows: PackedRows,
                _: usize,
            ) -> [[V; N]; M] {
                // `Linear` runs what is of integers unfused, so that it is compiled once.
                if V::FUSES {
                    return [[V::splat(f32::NAN); N]; M];
                }
                // SAFETY: (both) the caller's promise; the faster products were just asked for.
                unsafe {
                    if V::has_fast_dots() {
                        self.product_by::<V, V::FastDots, <V::FastDots as Dots>::$dot, M, N>(
                            strip, lane, rows,
                        )
                    } else {
                        self.product_by::<V, V::Dots, <V::Dots as Dots>::$dot, M, N>(
                            strip, lane, rows,
                        )
                    }
                }
            }

            #[inline(always)]
            fn widen<'w, V: Vector>(self, _: &'w [u8], _: &'w mut [f32]) -> Option<&'w [f32]> {
                None
            }

            #[inline(always)]
            fn floats<'w, V: Vector>(
                self,
                strip: &'w [u8],
                channels: Range<usize>,
                lanes: Range<usize>,
                to: &'w mut [f32],
            ) -> &'w [f32] {
                let halves = to.chunks_exact_mut(BLOCK / 2 * PANEL);
                for (first, to) in channels.step_by(BLOCK / 2).zip(halves) {
                    self.half_block::<V>(strip, first, lanes.clone(), to);
                }
                to
            }

            fn read(self, strip: &[u8], lane: usize, to: &mut [f32]) {
                for (channel, to) in to.iter_mut().enumerate() {
                    let (at, shift) = self.code(channel, lane);
                    let code = (strip[at] >> shift) & (u8::MAX >> (8 - $bits));
                    let block = channel / BLOCK * self.block_bytes() + Self::CODE_BYTES;
                    let [scale, bias] = [lane, PANEL + lane].map(|at| block + at * size_of::<u16>());
                    let scale = self.number(strip, scale);
                    *to = if self.biases {
                        f32::from(code) * scale + self.number(strip, bias)
                    } else {
                        (f32::from(code) - f32::from(Self::ZERO)) * scale
                    };
                }
            }
        }
    )*};
}

coded!(4: Nibble, 8: Byte);
