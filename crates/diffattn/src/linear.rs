//! `y = x Wᵀ + b`, the projection of layers, on the register tile of attention. The crate's own product, so
//! that a row of a layer keeps its bits whatever stands beside it: a row's sums run over the input channels in
//! one fixed order, in strips of [`CHANNELS`] from zero, added in order. Knows nothing of layers.
//!
//! Measured against the `gemm` crate 0.19 with its AVX-512 kernels, one thread of a Zen 5 (inputs × outputs × rows,
//! GFLOP/s ours : gemm): 256×256×214 220 : 228, 1024×1024×512 244 : 187, ×8 rows 239 : 10, ×1 row 49 : 53; and half
//! the error at 1024 inputs.

use crate::error::Error;
use crate::isa::{Isa, Kernel};
use crate::shape::{Tensor, check_len, checked_len, format_shape, try_zeroed};
use crate::threads::{available_threads, for_each, thread_count};
use crate::tile::{Operands, Sink, Tile, product};
use crate::vector::Vector;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// Input channels per strip. Part of the numeric contract, as the strips of keys are. A chain of n products has an
/// error that grows with √n, so strips of 128 halve that of 512 channels, and a strip of a panel (24 KiB) fits L1.
const CHANNELS: usize = 128;

/// Output channels per packed panel: the widest register tile (three vectors of 16), a multiple of every other's.
const PANEL: usize = 48;

/// Rows of a block: one strip of them, packed, is 64 KiB, which leaves room in L2 for their results.
const BLOCK: usize = 128;

/// Multiply-adds that reading one weight from memory costs: what few rows are bound by.
const READ_COST: usize = 8;

/// How a [`Linear`] is run.
#[derive(Debug, Clone, Copy, Default)]
pub struct LinearOptions {
    /// Unfused multiply-adds: the same bits on every backend.
    pub deterministic: bool,
    /// The instruction set; the fastest by default.
    pub isa: Option<Isa>,
    /// Threads to use; what the machine allows by default.
    pub threads: Option<usize>,
}

/// A linear map `y = x Wᵀ + b`, its weight packed in panels. Made once, used for any number of rows.
#[derive(Debug, Clone)]
pub struct Linear {
    inputs: usize,
    outputs: usize,
    /// `[strip of CHANNELS inputs][panel][input][PANEL outputs]`, zeros past the last output.
    panels: Vec<f32>,
    bias: Option<Vec<f32>>,
}

impl Linear {
    /// Packs `weight` `[outputs, inputs]` and `bias` `[outputs]`; halves are widened, exactly.
    ///
    /// # Errors
    /// [`Error::Shape`] naming `weight` or `bias`, [`Error::OutOfMemory`].
    pub fn new(weight: &Tensor<'_>, bias: Option<&Tensor<'_>>) -> Result<Self, Error> {
        let &[outputs, inputs] = weight.shape.as_slice() else {
            return Err(Error::shape(
                "weight",
                "2 axes, [outputs, inputs]",
                format_shape(&weight.shape),
            ));
        };
        check_len("weight", &weight.shape, weight.data.len())?;
        if let Some(bias) = bias {
            if bias.shape != [outputs] {
                return Err(Error::shape(
                    "bias",
                    format_args!("shape [{outputs}]"),
                    format_shape(&bias.shape),
                ));
            }
            check_len("bias", &bias.shape, bias.data.len())?;
        }
        let panels = outputs.div_ceil(PANEL);
        let mut packed = try_zeroed(checked_len("weight", &[panels, PANEL, inputs])?)?;
        let mut row = try_zeroed(inputs)?;
        for output in 0..outputs {
            weight.data.widen(output * inputs, &mut row);
            let (panel, lane) = (output / PANEL, output % PANEL);
            for (strip, channels) in row.chunks(CHANNELS).enumerate() {
                let start = (strip * CHANNELS * panels + panel * channels.len()) * PANEL + lane;
                for (to, &value) in packed[start..].iter_mut().step_by(PANEL).zip(channels) {
                    *to = value;
                }
            }
        }
        let bias = bias.map(|bias| bias.data.to_f32()).transpose()?;
        Ok(Self {
            inputs,
            outputs,
            panels: packed,
            bias,
        })
    }

    /// Channels of a row of x.
    #[must_use]
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Channels of a row of y.
    #[must_use]
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Maps every row of x `[rows, inputs]` to one of y `[rows, outputs]`. A row's bits depend on that row alone.
    ///
    /// # Errors
    /// [`Error::Shape`] when `x` is not whole rows or `y` not as many; [`Error::Option`] for no threads;
    /// [`Error::OutOfMemory`].
    pub fn forward(&self, x: &[f32], y: &mut [f32], options: &LinearOptions) -> Result<(), Error> {
        let rows = x
            .len()
            .checked_div(self.inputs)
            .unwrap_or(y.len() / self.outputs.max(1));
        check_len("x", &[rows, self.inputs], x.len())?;
        check_len("y", &[rows, self.outputs], y.len())?;
        let threads = match options.threads {
            Some(0) => return Err(Error::option("threads", "1 or more", 0)),
            Some(threads) => threads,
            None => available_threads(),
        };
        if rows == 0 || self.outputs == 0 {
            return Ok(());
        }
        let weights = self.outputs.saturating_mul(self.inputs);
        let threads = thread_count(
            threads,
            weights.saturating_mul(rows.saturating_add(READ_COST)),
        );
        // Blocks of rows of one size; and where they are fewer than the threads, stretches of panels.
        let blocks = rows.div_ceil(BLOCK);
        let block = rows.div_ceil(blocks);
        let panels = self.outputs.div_ceil(PANEL);
        let stretches = if threads == 1 {
            1
        } else {
            (2 * threads).div_ceil(blocks).min(panels)
        };
        let stretch = panels.div_ceil(stretches);
        let stretches = panels.div_ceil(stretch);
        let scratch_len = block.next_multiple_of(MAX_ROWS) * self.inputs.min(CHANNELS);
        let mut scratch = Vec::with_capacity(threads);
        for _ in 0..threads {
            scratch.push(Mutex::new(try_zeroed(scratch_len)?));
        }
        let isa = options.isa.unwrap_or_else(Isa::detect);
        let to = Shared(y.as_mut_ptr());
        for_each(threads, blocks * stretches, |slot, item| {
            let first_row = item / stretches * block;
            let first_panel = item % stretches * stretch;
            if first_row >= rows {
                return;
            }
            let mut scratch = scratch[slot].lock().unwrap_or_else(PoisonError::into_inner);
            let kernel = Block {
                linear: self,
                x: &x[first_row * self.inputs..(first_row + block).min(rows) * self.inputs],
                // SAFETY: `y` has `rows` rows of `outputs`, checked above.
                y: unsafe { to.at(first_row * self.outputs) },
                rows: block.min(rows - first_row),
                panels: [first_panel, (first_panel + stretch).min(panels)],
                packed: &mut scratch,
            };
            isa.run(options.deterministic, kernel);
        });
        Ok(())
    }
}

/// Rows of a register tile at most.
const MAX_ROWS: usize = 16;

/// Some rows of x by some panels of the weight.
struct Block<'c> {
    linear: &'c Linear,
    x: &'c [f32],
    /// The first of `rows` rows of `outputs` values, of which no other block writes the channels of `panels`.
    y: *mut f32,
    rows: usize,
    panels: [usize; 2],
    /// One strip of the rows as `[group of Tile::ROWS rows][channel][row]`.
    packed: &'c mut [f32],
}

impl Kernel for Block<'_> {
    type Output = ();

    /// 1. y = b, or 0.
    /// 2. For each strip of input channels: pack the rows; then for each panel, whose strip now stays in L1, and
    ///    each group of rows: y += the strip's product, from zero in registers.
    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self {
            linear,
            x,
            y,
            rows,
            panels: [first, end],
            packed,
        } = self;
        const {
            assert!(
                PANEL.is_multiple_of(V::Tile::VECTORS * V::LANES)
                    && MAX_ROWS.is_multiple_of(V::Tile::ROWS)
            );
        }
        let (inputs, outputs) = (linear.inputs, linear.outputs);
        let group = V::Tile::ROWS;
        let channels = first * PANEL..(end * PANEL).min(outputs);
        for row in 0..rows {
            // SAFETY: `y` has `rows` rows, and these channels are this block's.
            let y = unsafe {
                std::slice::from_raw_parts_mut(
                    y.add(row * outputs + channels.start),
                    channels.len(),
                )
            };
            match &linear.bias {
                Some(bias) => y.copy_from_slice(&bias[channels.clone()]),
                None => y.fill(0.0),
            }
        }
        for from in (0..inputs).step_by(CHANNELS) {
            let depth = CHANNELS.min(inputs - from);
            for (index, to) in packed
                .chunks_exact_mut(depth * group)
                .enumerate()
                .take(rows.div_ceil(group))
            {
                let first_row = index * group;
                for row in first_row..(first_row + group).min(rows) {
                    let from = &x[row * inputs + from..][..depth];
                    for (to, &value) in to[row - first_row..].iter_mut().step_by(group).zip(from) {
                        *to = value;
                    }
                }
            }
            let strip = Strip {
                rows: packed,
                weight: &linear.panels[from * outputs.div_ceil(PANEL) * PANEL..],
                depth,
                y,
                outputs,
            };
            let full = rows / group * group;
            // Panels in pairs: what a single row wants beside each other, see `last_rows`.
            for pair in (first..end).step_by(2) {
                let pair_end = ((pair + 2).min(end) * PANEL).min(outputs);
                let mut channel = pair * PANEL;
                while channel < pair_end {
                    let vectors = (pair_end - channel)
                        .div_ceil(V::LANES)
                        .min(V::Tile::VECTORS);
                    for row in (0..full).step_by(group) {
                        // SAFETY: `row` begins a full group, and the vectors begin below `outputs`, in one panel:
                        // a full tile's width divides PANEL.
                        unsafe {
                            let operands = Operands {
                                a: strip.row::<V>(row),
                                a_stride: group,
                                b: strip.weight(channel),
                                b_stride: PANEL,
                                b_vector: V::LANES,
                                depth,
                            };
                            V::Tile::product::<V, _>(vectors, operands, strip.sink(row, channel));
                        }
                    }
                    channel += vectors * V::LANES;
                }
                let mut row = full;
                while row < rows {
                    let channels = pair * PANEL..pair_end;
                    // SAFETY: (all three) as many rows are left, and the channels are this block's.
                    unsafe {
                        row += match rows - row {
                            4.. => strip.last_rows::<V, 4, 3>(row, channels),
                            2.. => strip.last_rows::<V, 2, 3>(row, channels),
                            _ => strip.last_rows::<V, 1, 6>(row, channels),
                        };
                    }
                }
            }
        }
    }
}

/// One strip of input channels of a block.
struct Strip<'c> {
    /// As [`Block::packed`].
    rows: &'c [f32],
    /// `[panel][channel][PANEL outputs]`.
    weight: &'c [f32],
    depth: usize,
    y: *mut f32,
    outputs: usize,
}

impl Strip<'_> {
    /// Row `row` of the packed rows: the next channel lies `Tile::ROWS` further, the next rows of its group beside it.
    #[inline(always)]
    fn row<V: Vector>(&self, row: usize) -> *const f32 {
        self.rows[row / V::Tile::ROWS * V::Tile::ROWS * self.depth + row % V::Tile::ROWS..].as_ptr()
    }

    /// Output channel `channel`: the next input channel lies `PANEL` further, the next outputs of the panel beside it.
    #[inline(always)]
    fn weight(&self, channel: usize) -> *const f32 {
        self.weight[channel / PANEL * PANEL * self.depth + channel % PANEL..].as_ptr()
    }

    /// # Safety
    /// `y` has that row and that channel.
    #[inline(always)]
    unsafe fn sink(&self, row: usize, channel: usize) -> RowSink {
        // SAFETY: the caller's promise.
        let to = unsafe { self.y.add(row * self.outputs + channel) };
        RowSink {
            to,
            stride: self.outputs,
            width: self.outputs - channel,
        }
    }

    /// M rows that fill no group, `N` vectors at a time: enough accumulators to hide the latency of a multiply-add, from
    /// both panels where M is 1. Returns M.
    ///
    /// # Safety
    /// `y` has rows `row..row + M`, and `channels` of them are the caller's.
    #[inline(always)]
    unsafe fn last_rows<V: Vector, const M: usize, const N: usize>(
        &self,
        row: usize,
        channels: Range<usize>,
    ) -> usize {
        let mut channel = channels.start;
        while channel < channels.end {
            // SAFETY: (both) the rows lie packed in one group, a vector within one panel (LANES divides PANEL), and
            // panels are whole; the sink by the caller's promise.
            unsafe {
                if channels.end - channel > (N - 1) * V::LANES {
                    self.tile::<V, M, N>(row, channel);
                    channel += N * V::LANES;
                } else {
                    self.tile::<V, M, 1>(row, channel);
                    channel += V::LANES;
                }
            }
        }
        M
    }

    /// # Safety
    /// As [`Strip::last_rows`], for N vectors from `channel`.
    #[inline(always)]
    unsafe fn tile<V: Vector, const M: usize, const N: usize>(&self, row: usize, channel: usize) {
        let mut vectors = [self.weight(channel); N];
        for (n, vector) in vectors.iter_mut().enumerate() {
            *vector = self.weight(channel + n * V::LANES);
        }
        // SAFETY: the caller's promise.
        unsafe {
            let sums = product::<V, M, N>(
                self.row::<V>(row),
                V::Tile::ROWS,
                vectors,
                PANEL,
                self.depth,
            );
            self.sink(row, channel).take(0, sums);
        }
    }
}

/// Adds a finished tile to rows of the result, `width` channels of each at most.
struct RowSink {
    to: *mut f32,
    stride: usize,
    width: usize,
}

impl<V: Vector> Sink<V> for RowSink {
    /// # Safety
    /// `to` has M rows, `stride` apart, of N vectors or `width` values, whichever is less.
    #[inline(always)]
    unsafe fn take<const M: usize, const N: usize>(&self, first: usize, sums: [[V; N]; M]) {
        for (m, sums) in sums.into_iter().enumerate() {
            // SAFETY: (all of this loop) see above; `ends` holds any tile's width.
            unsafe {
                let to = self.to.add((first + m) * self.stride);
                if N * V::LANES <= self.width {
                    for (n, sum) in sums.into_iter().enumerate() {
                        let at = to.add(n * V::LANES);
                        V::load(at).add(sum).store(at);
                    }
                } else {
                    let mut ends = [0.0f32; 2 * PANEL];
                    for (n, sum) in sums.into_iter().enumerate() {
                        sum.store(ends.as_mut_ptr().add(n * V::LANES));
                    }
                    for (channel, sum) in ends[..self.width].iter().enumerate() {
                        *to.add(channel) += sum;
                    }
                }
            }
        }
    }
}

/// The result, of which blocks write disjoint parts.
#[derive(Clone, Copy)]
struct Shared(*mut f32);
// SAFETY: see `Block::y`.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    /// # Safety
    /// `index` lies inside the buffer.
    unsafe fn at(&self, index: usize) -> *mut f32 {
        // SAFETY: the caller's promise.
        unsafe { self.0.add(index) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::Data;
    use proptest::prelude::*;

    fn values(seed: u64, len: usize) -> Vec<f32> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        };
        std::iter::repeat_with(next).take(len).collect()
    }

    fn bits(y: &[f32]) -> Vec<u32> {
        y.iter().map(|y| y.to_bits()).collect()
    }

    struct Case {
        linear: Linear,
        x: Vec<f32>,
        rows: usize,
        /// float64.
        expected: Vec<f64>,
        /// Σ |x w| + |b| of each.
        scale: Vec<f64>,
    }

    impl Case {
        fn new(seed: u64, [inputs, outputs, rows]: [usize; 3], with_bias: bool) -> Self {
            let (w, x, b) = (
                values(seed, inputs * outputs),
                values(seed + 1, inputs * rows),
                values(seed + 2, outputs),
            );
            let bias = Tensor::f32(&b, &[outputs]);
            let linear = Linear::new(
                &Tensor::f32(&w, &[outputs, inputs]),
                with_bias.then_some(&bias),
            );
            let (mut expected, mut scale) = (Vec::new(), Vec::new());
            for x in x.chunks(inputs) {
                for (w, &b) in w.chunks(inputs).zip(&b) {
                    let b = if with_bias { f64::from(b) } else { 0.0 };
                    let products = x.iter().zip(w).map(|(&x, &w)| f64::from(x) * f64::from(w));
                    expected.push(products.clone().sum::<f64>() + b);
                    scale.push(products.map(f64::abs).sum::<f64>() + b.abs());
                }
            }
            Self {
                linear: linear.unwrap_or_else(|error| panic!("{error}")),
                x,
                rows,
                expected,
                scale,
            }
        }

        fn run(&self, x: &[f32], isa: Isa, threads: usize, deterministic: bool) -> Vec<f32> {
            let rows = x.len() / self.linear.inputs;
            let mut y = vec![f32::NAN; rows * self.linear.outputs];
            let options = LinearOptions {
                deterministic,
                isa: Some(isa),
                threads: Some(threads),
            };
            self.linear
                .forward(x, &mut y, &options)
                .unwrap_or_else(|error| panic!("{error}"));
            y
        }

        fn check(&self) {
            let all: Vec<_> = Isa::available()
                .into_iter()
                .map(|isa| (isa, self.run(&self.x, isa, 1, false)))
                .collect();
            let scalar = bits(&all[0].1);
            for (isa, y) in &all {
                for (index, (&y, (&expected, &scale))) in y
                    .iter()
                    .zip(self.expected.iter().zip(&self.scale))
                    .enumerate()
                {
                    // A chain of 128, then a few strips: far under 16 roundings of the whole in practice.
                    let error = (f64::from(y) - expected).abs();
                    assert!(
                        error <= 16.0 * scale * f64::from(f32::EPSILON) / 2.0,
                        "{}: {error:e} at {index}",
                        isa.name()
                    );
                }
                // Unfused everywhere: the bits of scalar.
                assert_eq!(
                    bits(&self.run(&self.x, *isa, 1, true)),
                    scalar,
                    "{} deterministic",
                    isa.name()
                );
                for threads in [2, 3, 7] {
                    assert_eq!(
                        bits(&self.run(&self.x, *isa, threads, false)),
                        bits(y),
                        "{threads} threads"
                    );
                }
                // Every row alone, and all but the first.
                let alone: Vec<f32> = self
                    .x
                    .chunks(self.linear.inputs)
                    .flat_map(|x| self.run(x, *isa, 1, false))
                    .collect();
                assert_eq!(bits(&alone), bits(y), "{}: rows one by one", isa.name());
                let rest = self.run(&self.x[self.linear.inputs..], *isa, 2, false);
                assert_eq!(
                    bits(&rest),
                    bits(&y[self.linear.outputs..]),
                    "{}: without the first row",
                    isa.name()
                );
            }
            // Whatever fuses agrees.
            for pair in all[1..].windows(2) {
                assert_eq!(
                    bits(&pair[0].1),
                    bits(&pair[1].1),
                    "{} against {}",
                    pair[0].0.name(),
                    pair[1].0.name()
                );
            }
            assert_eq!(self.expected.len(), self.rows * self.linear.outputs);
        }
    }

    /// Around every edge of strips, panels, tiles, vectors and blocks.
    #[test]
    fn edges() {
        for inputs in [1, 127, 128, 129, 300] {
            for outputs in [1, 15, 16, 17, 47, 48, 49, 95, 96, 97, 150] {
                Case::new(7, [inputs, outputs, 7], true).check();
            }
        }
        for rows in (1..=17).chain([127, 128, 129, 257]) {
            Case::new(8, [130, 50, rows], rows % 2 == 0).check();
        }
        // Enough work for threads in every direction.
        Case::new(9, [512, 700, 40], true).check();
        Case::new(10, [64, 40, 700], false).check();
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn any_size(seed in 0u64..1 << 32, inputs in 1usize..400, outputs in 1usize..200, rows in 1usize..40, bias: bool) {
            Case::new(seed, [inputs, outputs, rows], bias).check();
        }
    }

    #[test]
    fn halves_are_widened() {
        let (w, x) = ([0x3c00u16, 0xc000, 0x3555, 0x0001], [1.0f32, 3.0]);
        for (data, expected) in [
            (
                Data::F16(&w),
                [1.0 - 6.0, 0.333_251_95 + 3.0 * 5.960_464_5e-8],
            ),
            // The same bits as bfloat16.
            (
                Data::Bf16(&w),
                [0.007_812_5 - 6.0, f32::from_bits(0x3555_0000)],
            ),
        ] {
            let linear = Linear::new(
                &Tensor {
                    data,
                    shape: vec![2, 2],
                },
                None,
            )
            .unwrap_or_else(|error| panic!("{error}"));
            let mut y = [0.0; 2];
            linear
                .forward(&x, &mut y, &LinearOptions::default())
                .unwrap_or_else(|error| panic!("{error}"));
            for (y, expected) in y.iter().zip(expected) {
                assert!(
                    (y - expected).abs() <= 1e-6 * expected.abs(),
                    "{y} against {expected}"
                );
            }
        }
    }

    #[test]
    fn empty_extents() {
        let none =
            Linear::new(&Tensor::f32(&[], &[0, 3]), None).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(
            none.forward(&[1.0; 6], &mut [], &LinearOptions::default()),
            Ok(())
        );
        let bias = [1.0, 2.0];
        let constant = Linear::new(&Tensor::f32(&[], &[2, 0]), Some(&Tensor::f32(&bias, &[2])));
        let mut y = [0.0; 4];
        let done =
            constant.and_then(|linear| linear.forward(&[], &mut y, &LinearOptions::default()));
        assert_eq!((done, y), (Ok(()), [1.0, 2.0, 1.0, 2.0]));
    }

    #[test]
    fn errors_name_the_argument() {
        let (w, b) = ([0.0; 6], [0.0; 3]);
        let says =
            |result: Result<Linear, Error>| result.map(|_| ()).map_err(|error| error.to_string());
        for (shape, expected) in [
            (
                vec![6],
                "weight: expected 2 axes, [outputs, inputs], got [6]",
            ),
            (
                vec![2, 2],
                "weight: expected 4 elements for shape [2, 2], got 6",
            ),
        ] {
            let weight = Tensor {
                data: Data::F32(&w),
                shape,
            };
            assert_eq!(says(Linear::new(&weight, None)), Err(expected.to_owned()));
        }
        let weight = Tensor::f32(&w, &[2, 3]);
        assert_eq!(
            says(Linear::new(&weight, Some(&Tensor::f32(&b, &[3])))),
            Err("bias: expected shape [2], got [3]".to_owned())
        );
        let linear = Linear::new(&weight, None).unwrap_or_else(|error| panic!("{error}"));
        for (x, y, options, expected) in [
            (
                &[0.0; 4][..],
                &mut [0.0; 2][..],
                LinearOptions::default(),
                "x: expected 3 elements for shape [1, 3], got 4",
            ),
            (
                &[0.0; 3],
                &mut [0.0; 4],
                LinearOptions::default(),
                "y: expected 2 elements for shape [1, 2], got 4",
            ),
            (
                &[0.0; 3],
                &mut [0.0; 2],
                LinearOptions {
                    threads: Some(0),
                    ..LinearOptions::default()
                },
                "threads: expected 1 or more, got 0",
            ),
        ] {
            let result = linear
                .forward(x, y, &options)
                .map_err(|error| error.to_string());
            assert_eq!(result, Err(expected.to_owned()));
        }
    }
}
