//! `y = x Wᵀ + b`, the projection of layers, on the register tile of attention. The crate's own product, so
//! that a row of a layer keeps its bits whatever stands beside it: a row's sums run over the input channels in
//! one fixed order, in strips of [`CHANNELS`] from zero, added in order. Halves stay halves, so that one row, which
//! is bound by reading them, takes half the time. Knows nothing of layers.
//!
//! Measured against the `gemm` crate 0.19 with its AVX-512 kernels, one thread of a Zen 5 (inputs × outputs × rows,
//! GFLOP/s ours : gemm): 256×256×214 220 : 228, 1024×1024×512 244 : 187, ×8 rows 239 : 10, ×1 row 49 : 53; and half
//! the error at 1024 inputs.

use crate::buffer::{LINE, Lines};
use crate::error::Error;
use crate::isa::Kernel;
use crate::run::Run;
use crate::shape::{Data, Tensor, check_len, checked_len, format_shape, try_zeroed};
use crate::threads::{for_each, thread_count};
use crate::tile::{Operands, Sink, Tile, product_of};
use crate::vector::{Element, Use, Vector};
use half::slice::HalfBitsSliceExt;
use half::{bf16, f16};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// Input channels per strip. Part of the numeric contract, as the strips of keys are. A chain of n products has an
/// error that grows with √n, so strips of 128 halve that of 512 channels, and a strip of a panel (24 KiB) fits L1.
const CHANNELS: usize = 128;

/// Output channels per packed panel: the widest register tile (three vectors of 16), a multiple of every other's.
const PANEL: usize = 48;

/// Rows of a block: one strip of them, packed, is 64 KiB, which leaves room in L2 for their results.
const BLOCK: usize = 128;

/// Multiply-adds that reading one byte of a weight from memory costs: what few rows are bound by.
const READ_COST: usize = 2;

/// Rows that are packed side by side: divides [`PANEL`].
const PACKED_ROWS: usize = 8;

/// Channels of them, whole strips.
const PACKED_CHANNELS: usize = 8 * CHANNELS;

/// A linear map `y = x Wᵀ + b`, its weight packed in panels of its own element type. Made once, used for any number of rows.
#[derive(Debug, Clone)]
pub struct Linear {
    inputs: usize,
    outputs: usize,
    panels: Panels,
    bias: Option<Vec<f32>>,
}

/// A packed weight, `[strip of CHANNELS inputs][panel][input][PANEL outputs]`, zeros past the last output.
#[derive(Debug, Clone)]
enum Panels {
    F32(Lines<f32>),
    /// float16 bits.
    F16(Lines<u16>),
    /// bfloat16 bits.
    Bf16(Lines<u16>),
}

impl Panels {
    /// Bytes per weight.
    fn bytes(&self) -> usize {
        match self {
            Self::F32(_) => 4,
            Self::F16(_) | Self::Bf16(_) => 2,
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::F32(weights) => weights.len(),
            Self::F16(weights) | Self::Bf16(weights) => weights.len(),
        }
    }
}

/// `weight` `[outputs, inputs]` in panels. Rows are read [`PACKED_ROWS`] at a time, so that the hardware sees as many streams; what is
/// written meanwhile, [`PACKED_CHANNELS`] of a panel, stays in L2.
fn pack<T: Copy + Default>(weight: &[T], [outputs, inputs]: [usize; 2]) -> Result<Lines<T>, Error> {
    let panels = outputs.div_ceil(PANEL);
    let len = checked_len("weight", &[panels, PANEL, inputs])?;
    let mut packed = Lines::zeroed(len)?;
    for panel in 0..panels {
        for channels in (0..inputs).step_by(PACKED_CHANNELS) {
            let end = (channels + PACKED_CHANNELS).min(inputs);
            for lane in (0..PANEL).step_by(PACKED_ROWS) {
                let first = panel * PANEL + lane;
                for from in (channels..end).step_by(CHANNELS) {
                    let depth = CHANNELS.min(end - from);
                    let to =
                        &mut packed[(from * panels + panel * depth) * PANEL..][..depth * PANEL];
                    let row = |row: usize| &weight[(first + row) * inputs + from..][..depth];
                    if first + PACKED_ROWS <= outputs {
                        let rows: [&[T]; PACKED_ROWS] = std::array::from_fn(row);
                        for (k, to) in to.chunks_exact_mut(PANEL).enumerate() {
                            for (to, row) in to[lane..lane + PACKED_ROWS].iter_mut().zip(rows) {
                                *to = row[k];
                            }
                        }
                    } else {
                        for index in 0..outputs.saturating_sub(first) {
                            for (to, &value) in to.chunks_exact_mut(PANEL).zip(row(index)) {
                                to[lane + index] = value;
                            }
                        }
                    }
                }
            }
        }
    }
    Ok(packed)
}

impl Linear {
    /// Packs `weight` `[outputs, inputs]`, each value in as many bytes as it has there, and `bias` `[outputs]`. Products are those
    /// of the float32 values: a weight of halves gives the bits of the same weight in float32.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) naming `weight` or `bias`, [`Error::OutOfMemory`].
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
        let shape = [outputs, inputs];
        Ok(Self {
            inputs,
            outputs,
            panels: match weight.data {
                Data::F32(weight) => Panels::F32(pack(weight, shape)?),
                Data::F16(weight) => Panels::F16(pack(weight, shape)?),
                Data::Bf16(weight) => Panels::Bf16(pack(weight, shape)?),
            },
            bias: bias.map(|bias| bias.data.to_f32()).transpose()?,
        })
    }

    /// Row `index` of the weight, as float32: the `inputs` weights of output channel `index`. So a matrix that is both the embedding
    /// and the output head of a language model is held once.
    ///
    /// # Errors
    /// [`ErrorKind::Option`](crate::ErrorKind::Option) for an `index` that is no output channel, [`ErrorKind::Shape`](crate::ErrorKind::Shape) when `row` has not `inputs` values.
    pub fn weight_row(&self, index: usize, row: &mut [f32]) -> Result<(), Error> {
        if index >= self.outputs {
            return Err(Error::option(
                "index",
                format_args!("an output channel below {}", self.outputs),
                index,
            ));
        }
        check_len("row", &[self.inputs], row.len())?;
        let panels = self.outputs.div_ceil(PANEL);
        let (panel, lane) = (index / PANEL, index % PANEL);
        let mut bits = [0; CHANNELS];
        for (strip, to) in row.chunks_mut(CHANNELS).enumerate() {
            let depth = to.len();
            let start = (strip * CHANNELS * panels + panel * depth) * PANEL + lane;
            let bits = &mut bits[..depth];
            match &self.panels {
                Panels::F32(weights) => gather(&weights[start..], to),
                Panels::F16(weights) => {
                    gather(&weights[start..], bits);
                    Data::F16(bits).widen(0, to);
                }
                Panels::Bf16(weights) => {
                    gather(&weights[start..], bits);
                    Data::Bf16(bits).widen(0, to);
                }
            }
        }
        Ok(())
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
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) when `x` is not whole rows or `y` not as many;
    /// [`Error::OutOfMemory`].
    pub fn forward(&self, x: &[f32], y: &mut [f32], run: Run) -> Result<(), Error> {
        let rows = x
            .len()
            .checked_div(self.inputs)
            .unwrap_or(y.len() / self.outputs.max(1));
        check_len("x", &[rows, self.inputs], x.len())?;
        check_len("y", &[rows, self.outputs], y.len())?;
        if rows == 0 || self.outputs == 0 {
            return Ok(());
        }
        let weights = self.outputs.saturating_mul(self.inputs);
        let threads = thread_count(
            run.threads(),
            weights.saturating_mul(rows.saturating_add(READ_COST * self.panels.bytes())),
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
        let depth = self.inputs.min(CHANNELS);
        let widened = match self.panels {
            Panels::F32(_) => 0,
            Panels::F16(_) | Panels::Bf16(_) if block <= FEW_ROWS => 0,
            Panels::F16(_) | Panels::Bf16(_) => PANEL * depth,
        };
        let packed = match block {
            1 => 0,
            _ => block.next_multiple_of(MAX_ROWS) * depth,
        };
        let scratch_len = widened + packed;
        let mut scratch = Vec::with_capacity(threads);
        for _ in 0..threads {
            scratch.push(Mutex::new(try_zeroed(scratch_len)?));
        }
        let to = Shared(y.as_mut_ptr());
        for_each(threads, blocks * stretches, |slot, item| {
            let first_row = item / stretches * block;
            let first_panel = item % stretches * stretch;
            if first_row >= rows {
                return;
            }
            let mut scratch = scratch[slot].lock().unwrap_or_else(PoisonError::into_inner);
            let (widened, packed) = scratch.split_at_mut(widened);
            let kernel = Block {
                linear: self,
                x: &x[first_row * self.inputs..(first_row + block).min(rows) * self.inputs],
                // SAFETY: `y` has `rows` rows of `outputs`, checked above.
                y: unsafe { to.at(first_row * self.outputs) },
                rows: block.min(rows - first_row),
                panels: [first_panel, (first_panel + stretch).min(panels)],
                packed,
                widened,
            };
            run.kernel(kernel);
        });
        Ok(())
    }
}

/// Rows of a register tile at most.
const MAX_ROWS: usize = 16;

/// Vectors of a tile of one row, where a panel has them: as many sums hide the latency of a multiply-add. (With AVX-512 a panel is three,
/// which is enough for what is read. Six of two panels are two streams: on Zen 5, bfloat16 from memory 1.4 times the time.)
const ROW_VECTORS: usize = 6;

/// Rows up to which weights are asked for ahead of time, and halves widened in registers, tile by tile, not once per panel. (AVX2, weights
/// from memory: 1 row of halves takes 0.53 times as long, 4 rows 0.63, 8 rows 0.82, 16 rows 0.94; from L2 16 rows take as long. Zen 5, 8 rows
/// of float32 from memory: AVX-512 0.88, AVX2 0.85.) In WebAssembly the tiles of more rows would be 2 KB, gzipped.
const FEW_ROWS: usize = if cfg!(target_arch = "wasm32") { 1 } else { 8 };

/// How many bytes ahead few rows ask for weights: the hardware stops at a page's end, and one row of halves is not in time for what
/// it fetches. (Zen 1, from memory, 1 row: bfloat16 0.72 of the time, float16 0.70, float32 0.84 to 0.93; halves by a half or twice that as much.)
const AHEAD: usize = 8 << 10;

/// `to[i] = from[i · PANEL]`.
fn gather<T: Copy>(from: &[T], to: &mut [T]) {
    for (to, &value) in to.iter_mut().zip(from.iter().step_by(PANEL)) {
        *to = value;
    }
}

/// Some rows of x by some panels of the weight.
struct Block<'c> {
    linear: &'c Linear,
    x: &'c [f32],
    /// The first of `rows` rows of `outputs` values, of which no other block writes the channels of `panels`.
    y: *mut f32,
    rows: usize,
    panels: [usize; 2],
    /// One strip of the rows as `[group of Tile::ROWS rows][channel][row]`. One row is read where it lies.
    packed: &'c mut [f32],
    /// The strip of a panel as float32, where the weight is not and there are more than [`FEW_ROWS`] rows.
    widened: &'c mut [f32],
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
            widened,
        } = self;
        const {
            assert!(
                PANEL.is_multiple_of(V::Tile::VECTORS * V::LANES)
                    && MAX_ROWS.is_multiple_of(V::Tile::ROWS)
                    && PANEL.is_multiple_of(3 * V::LANES)
                    && (ROW_VECTORS * V::LANES > PANEL
                        || PANEL.is_multiple_of(ROW_VECTORS * V::LANES))
            );
        }
        let (inputs, outputs) = (linear.inputs, linear.outputs);
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
            let (packed, group) = if rows == 1 {
                (&x[from..from + depth], 1)
            } else {
                pack_rows(x, inputs, from..from + depth, V::Tile::ROWS, packed);
                (&*packed, V::Tile::ROWS)
            };
            for panel in first..end {
                let start = from * outputs.div_ceil(PANEL);
                let place = (start + panel * depth) * PANEL..(start + (panel + 1) * depth) * PANEL;
                // Past the end may lie pages that are not there, which the machine searches for each time.
                let is_far = place.end + AHEAD / linear.panels.bytes() <= linear.panels.len();
                let strip = Strip {
                    packed,
                    group,
                    depth,
                    y,
                    rows,
                    outputs,
                    channels: panel * PANEL..((panel + 1) * PANEL).min(outputs),
                    ahead: if is_far { AHEAD } else { 0 },
                };
                if rows <= FEW_ROWS {
                    strip.few_rows::<V>(&linear.panels, place);
                    continue;
                }
                let weights = match &linear.panels {
                    Panels::F32(weights) => &weights[place],
                    Panels::F16(weights) => {
                        widen::<V, f16>(weights[place].reinterpret_cast(), widened)
                    }
                    Panels::Bf16(weights) => {
                        widen::<V, bf16>(weights[place].reinterpret_cast(), widened)
                    }
                };
                strip.product::<V>(weights);
            }
        }
    }
}

/// Packs channels `channels` of the rows of x as [`Block::packed`].
#[inline(always)]
fn pack_rows(x: &[f32], inputs: usize, channels: Range<usize>, group: usize, packed: &mut [f32]) {
    let groups = packed.chunks_exact_mut(channels.len() * group);
    for (to, x) in groups.zip(x.chunks(group * inputs)) {
        for (row, x) in x.chunks_exact(inputs).enumerate() {
            let from = &x[channels.clone()];
            for (to, &value) in to[row..].iter_mut().step_by(group).zip(from) {
                *to = value;
            }
        }
    }
}

/// As many of `widened` as there are weights, now these. Both are whole vectors.
#[inline(always)]
fn widen<'w, V: Vector, E: Element>(weights: &[E], widened: &'w mut [f32]) -> &'w [f32] {
    let widened = &mut widened[..weights.len()];
    for (from, to) in weights
        .chunks_exact(V::LANES)
        .zip(widened.chunks_exact_mut(V::LANES))
    {
        // SAFETY: LANES values on both sides.
        unsafe { E::load::<V>(from.as_ptr()).store(to.as_mut_ptr()) };
    }
    widened
}

/// One strip of input channels of a panel, and what it is multiplied with.
struct Strip<'c> {
    /// As [`Block::packed`].
    packed: &'c [f32],
    /// Rows of a group.
    group: usize,
    depth: usize,
    y: *mut f32,
    rows: usize,
    outputs: usize,
    /// The panel's output channels.
    channels: Range<usize>,
    /// How many bytes ahead few rows ask for weights.
    ahead: usize,
}

impl Strip<'_> {
    /// Adds the product to y; `weights` is `[channel][PANEL outputs]`.
    #[inline(always)]
    fn product<V: Vector>(&self, weights: &[f32]) {
        let group = V::Tile::ROWS;
        let full = self.rows / group * group;
        let mut channel = self.channels.start;
        while full > 0 && channel < self.channels.end {
            let vectors = (self.channels.end - channel)
                .div_ceil(V::LANES)
                .min(V::Tile::VECTORS);
            for row in (0..full).step_by(group) {
                // SAFETY: `row` begins a full group, and the vectors begin below `outputs`, in the panel: a full tile's width divides it.
                unsafe {
                    let operands = Operands {
                        a: self.row(row),
                        a_stride: group,
                        b: self.weight(weights, channel),
                        b_stride: PANEL,
                        b_vector: V::LANES,
                        depth: self.depth,
                    };
                    V::Tile::product::<V, _>(vectors, operands, self.sink(row, channel));
                }
            }
            channel += vectors * V::LANES;
        }
        self.last_rows::<V, f32, 4>(weights, full);
    }

    /// As [`Strip::product`], of [`FEW_ROWS`] rows at most; the weights lie at `place`.
    #[inline(always)]
    fn few_rows<V: Vector>(&self, panels: &Panels, place: Range<usize>) {
        match panels {
            Panels::F32(weights) => self.last_rows::<V, f32, FEW_ROWS>(&weights[place], 0),
            Panels::F16(weights) => {
                self.last_rows::<V, f16, FEW_ROWS>(weights[place].reinterpret_cast(), 0);
            }
            Panels::Bf16(weights) => {
                self.last_rows::<V, bf16, FEW_ROWS>(weights[place].reinterpret_cast(), 0);
            }
        }
    }

    /// As [`Strip::product`], for the rows from `row` on, which begins a group; `MOST` of them at a time at most.
    #[inline(always)]
    fn last_rows<V: Vector, E: Element, const MOST: usize>(&self, weights: &[E], mut row: usize) {
        while row < self.rows {
            // As many vectors as make enough sums to hide the latency of a multiply-add.
            // SAFETY: (all three) as many rows are left, and they divide what is left of the group.
            unsafe {
                row += match self.rows - row {
                    4.. if MOST >= 4 => self.some_rows::<V, E, 4, 3>(weights, row),
                    2.. if MOST >= 2 => self.some_rows::<V, E, 2, 3>(weights, row),
                    _ if ROW_VECTORS * V::LANES > PANEL => {
                        self.some_rows::<V, E, 1, 3>(weights, row)
                    }
                    _ => self.some_rows::<V, E, 1, ROW_VECTORS>(weights, row),
                };
            }
        }
    }

    /// Row `row` of the packed rows: the next channel lies `group` further, the next rows of its group beside it.
    #[inline(always)]
    fn row(&self, row: usize) -> *const f32 {
        let group = self.group;
        self.packed[row / group * group * self.depth + row % group..].as_ptr()
    }

    /// Output channel `channel`: the next input channel lies `PANEL` further, the next outputs of the panel beside it.
    #[inline(always)]
    fn weight<E>(&self, weights: &[E], channel: usize) -> *const E {
        weights[channel - self.channels.start..].as_ptr()
    }

    /// The result at row `row` and channel `channel`.
    ///
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

    /// M rows, `N` vectors at a time. Returns M.
    ///
    /// # Safety
    /// The M rows from `row` on lie in one group.
    #[inline(always)]
    unsafe fn some_rows<V: Vector, E: Element, const M: usize, const N: usize>(
        &self,
        weights: &[E],
        row: usize,
    ) -> usize {
        let mut channel = self.channels.start;
        while channel < self.channels.end {
            // SAFETY: the rows lie packed in one group; panels are whole, and a tile's width divides them.
            unsafe { self.tile::<V, E, M, N>(weights, row, channel) };
            channel += N * V::LANES;
        }
        M
    }

    /// # Safety
    /// As [`Strip::some_rows`], for N vectors from `channel`.
    #[inline(always)]
    unsafe fn tile<V: Vector, E: Element, const M: usize, const N: usize>(
        &self,
        weights: &[E],
        row: usize,
        channel: usize,
    ) {
        let mut vectors = [weights.as_ptr(); N];
        for (n, vector) in vectors.iter_mut().enumerate() {
            *vector = self.weight(weights, channel + n * V::LANES);
        }
        let ask = |vectors: &[*const E; N]| {
            for (n, vector) in vectors.iter().enumerate() {
                if (n * V::LANES % PANEL * size_of::<E>()).is_multiple_of(LINE) {
                    V::prefetch(vector.wrapping_byte_add(self.ahead).cast(), Use::Read);
                }
            }
        };
        // SAFETY: the caller's promise.
        unsafe {
            let sums = product_of::<V, E, M, N>(
                self.row(row),
                self.group,
                vectors,
                PANEL,
                self.depth,
                ask,
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
                    let mut ends = [0.0f32; PANEL];
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
    use crate::isa::Isa;
    use crate::shape::DType;
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

    fn on(isa: Isa, threads: usize, deterministic: bool) -> Run {
        Run::new(Some(isa), Some(threads), deterministic).unwrap_or_else(|error| panic!("{error}"))
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
            self.linear
                .forward(x, &mut y, on(isa, threads, deterministic))
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
        for inputs in [1, 127, 128, 129, 300, 1100] {
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
                .forward(&x, &mut y, Run::default())
                .unwrap_or_else(|error| panic!("{error}"));
            for (y, expected) in y.iter().zip(expected) {
                assert!(
                    (y - expected).abs() <= 1e-6 * expected.abs(),
                    "{y} against {expected}"
                );
            }
        }
    }

    /// Bits, of which all NaN are one.
    fn bits_of(y: &[f32]) -> Vec<u32> {
        let one = |y: &f32| if y.is_nan() { f32::NAN } else { *y };
        y.iter().map(|y| one(y).to_bits()).collect()
    }

    /// A weight of halves, and the same numbers as float32.
    struct Halves {
        linear: Linear,
        widened: Linear,
        /// `[outputs, inputs]` as float32.
        values: Vec<f32>,
    }

    impl Halves {
        /// Any finite numbers, zeros and subnormals of both signs among them; in every seventh output also what is not finite.
        fn new(dtype: DType, seed: u64, outputs: usize, inputs: usize) -> Self {
            let special: &[u16] = match dtype {
                // ±0, the smallest and the largest subnormal, the smallest and the largest number; infinities and NaN.
                DType::F16 => &[
                    0, 0x8000, 1, 0x8001, 0x3ff, 0x83ff, 0x400, 0x7bff, 0x7c00, 0xfc00, 0x7e00,
                    0xfd01,
                ],
                _ => &[
                    0, 0x8000, 1, 0x8001, 0x7f, 0x807f, 0x80, 0x7f7f, 0x7f80, 0xff80, 0x7fc0,
                    0xff81,
                ],
            };
            let stored: Vec<u16> = values(seed, outputs * inputs)
                .into_iter()
                .enumerate()
                .map(|(at, value)| match (at % 11, at / inputs % 7) {
                    (0, 3) => special[at / 11 % special.len()],
                    // Finite, and not so large that sums overflow.
                    (0, _) => special[at / 11 % 7],
                    _ if dtype == DType::F16 => f16::from_f32(value).to_bits(),
                    _ => bf16::from_f32(value).to_bits(),
                })
                .collect();
            let data = match dtype {
                DType::F16 => Data::F16(&stored),
                _ => Data::Bf16(&stored),
            };
            let shape = [outputs, inputs];
            let values = data.to_f32().unwrap_or_else(|error| panic!("{error}"));
            let bias = self::values(outputs as u64 + 5, outputs);
            let bias = Tensor::f32(&bias, &shape[..1]);
            let made = |weight: Tensor<'_>| {
                Linear::new(&weight, Some(&bias)).unwrap_or_else(|error| panic!("{error}"))
            };
            Self {
                linear: made(Tensor {
                    data,
                    shape: shape.to_vec(),
                }),
                widened: made(Tensor::f32(&values, &shape)),
                values,
            }
        }

        /// Both give the same bits, on every instruction set, fused or not, and with threads.
        fn check(&self, rows: usize) {
            let x = values(rows as u64, rows * self.linear.inputs);
            for isa in Isa::available() {
                for (deterministic, threads) in [(false, 1), (true, 1), (false, 3)] {
                    let of = |linear: &Linear| {
                        let mut y = vec![0.0; rows * linear.outputs];
                        linear
                            .forward(&x, &mut y, on(isa, threads, deterministic))
                            .unwrap_or_else(|error| panic!("{error}"));
                        bits_of(&y)
                    };
                    assert_eq!(
                        of(&self.linear),
                        of(&self.widened),
                        "{}, {rows} rows, {deterministic}, {threads} threads",
                        isa.name()
                    );
                }
            }
        }
    }

    /// The bits of float32 for every number of rows, around every edge of panels and strips.
    #[test]
    fn halves_give_the_bits_of_float32() {
        for dtype in [DType::F16, DType::Bf16] {
            for (outputs, inputs) in [(1, 1), (47, 127), (50, 300), (97, 128), (150, 129)] {
                let halves = Halves::new(dtype, 3, outputs, inputs);
                assert_eq!(halves.linear.panels.bytes(), 2);
                for rows in (1..=20).chain([127, 128, 129, 257]) {
                    halves.check(rows);
                }
            }
            // Enough work for threads, of one row and of many.
            for rows in [1, 2, 9] {
                Halves::new(dtype, 4, 1000, 1100).check(rows);
            }
        }
    }

    #[test]
    fn rows_of_the_weight_are_read_back() {
        for (outputs, inputs) in [(1, 1), (48, 128), (50, 300), (97, 1025), (9, 2100)] {
            for dtype in [DType::F32, DType::F16, DType::Bf16] {
                let halves = Halves::new(dtype, 5, outputs, inputs);
                let linear = match dtype {
                    DType::F32 => &halves.widened,
                    DType::F16 | DType::Bf16 => &halves.linear,
                };
                for (index, expected) in halves.values.chunks(inputs).enumerate() {
                    let mut row = vec![1.0; inputs];
                    assert_eq!(linear.weight_row(index, &mut row), Ok(()));
                    assert_eq!(bits_of(&row), bits_of(expected), "{dtype:?}, row {index}");
                }
            }
        }
    }

    #[test]
    fn a_row_that_is_not_there_is_an_error() {
        let w = [0.0; 6];
        let linear =
            Linear::new(&Tensor::f32(&w, &[2, 3]), None).unwrap_or_else(|error| panic!("{error}"));
        let says = |index, len| {
            linear
                .weight_row(index, &mut vec![0.0; len])
                .map_err(|error| error.to_string())
        };
        assert_eq!(says(1, 3), Ok(()));
        assert_eq!(
            says(2, 3),
            Err("index: expected an output channel below 2, got 2".to_owned())
        );
        assert_eq!(
            says(0, 2),
            Err("row: expected 3 elements for shape [3], got 2".to_owned())
        );
        let none =
            Linear::new(&Tensor::f32(&[], &[2, 0]), None).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(none.weight_row(1, &mut []), Ok(()));
    }

    #[test]
    fn empty_extents() {
        let none =
            Linear::new(&Tensor::f32(&[], &[0, 3]), None).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(none.forward(&[1.0; 6], &mut [], Run::default()), Ok(()));
        let bias = [1.0, 2.0];
        let constant = Linear::new(&Tensor::f32(&[], &[2, 0]), Some(&Tensor::f32(&bias, &[2])));
        let mut y = [0.0; 4];
        let done = constant.and_then(|linear| linear.forward(&[], &mut y, Run::default()));
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
        for (x, y, expected) in [
            (
                &[0.0; 4][..],
                &mut [0.0; 2][..],
                "x: expected 3 elements for shape [1, 3], got 4",
            ),
            (
                &[0.0; 3],
                &mut [0.0; 4],
                "y: expected 2 elements for shape [1, 2], got 4",
            ),
        ] {
            let result = linear
                .forward(x, y, Run::default())
                .map_err(|error| error.to_string());
            assert_eq!(result, Err(expected.to_owned()));
        }
    }
}
