//! `dW += dYᵀ X` and `db += Σ dY` over rows (tokens) in strips of 256 counted from the first, each
//! from zero, added in order: rows that come in several calls, all but the last of whole strips,
//! give the bits of one call. Threads have parts of dW, never of a sum. Knows no weight, and checks
//! nothing.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use crate::blocks::linear::{
    GRADIENT_BLOCK, LEAST_GRADIENT_BLOCK, PANEL, PANEL_BYTES, TOKENS, TOKENS_TOGETHER,
};
use crate::error::Error;
use crate::run::Run;
use crate::run::buffer::Buffer;
use crate::run::threads::{Disjoint, for_each, thread_count};
use crate::simd::{Kernel, Operands, RowsSink, Tile, Vector, Whole};

/// Some strips of rows of x, packed: `[strip][panel][token][a tile's width]`, zeros past the last
/// channel. Made once, used for many calls.
#[derive(Debug)]
pub(super) struct Strips<'c> {
    x: &'c [f32],
    inputs: usize,
    /// Which rows of x are packed.
    rows: Range<usize>,
    packed: Buffer,
    run: Run,
}

/// Where the gradients of a weight `[outputs, inputs]` and of its bias are added.
#[derive(Debug)]
pub(super) struct Sums<'g> {
    pub(super) weight: Option<&'g mut [f32]>,
    pub(super) bias: Option<&'g mut [f32]>,
}

/// Values that a strip takes, packed.
fn strip_len(inputs: usize) -> usize {
    TOKENS * inputs.next_multiple_of(PANEL)
}

impl<'c> Strips<'c> {
    /// For rows of x, of `inputs` channels, none packed yet.
    pub(super) fn new(x: &'c [f32], inputs: usize, run: Run) -> Result<Self, Error> {
        let strips = x
            .len()
            .div_ceil(TOKENS * inputs.max(1))
            .min(Self::at_once(inputs));
        Ok(Self {
            x,
            inputs,
            rows: 0..0,
            packed: Buffer::new(strips * strip_len(inputs))?,
            run,
        })
    }

    /// Strips that are packed together at most.
    pub(super) fn at_once(inputs: usize) -> usize {
        (PANEL_BYTES / size_of::<f32>() / strip_len(inputs).max(1)).max(1)
    }

    /// Packs rows `rows`, as many strips as fit at most, from the beginning of one on.
    pub(super) fn pack(&mut self, rows: Range<usize>) {
        let (inputs, run) = (self.inputs, self.run);
        let x = &self.x[rows.start * inputs..rows.end * inputs];
        self.rows = rows;
        if inputs == 0 {
            return;
        }
        let threads = thread_count(run.threads(), x.len().saturating_mul(PACK_WORK));
        let groups = x.len().div_ceil(TOKENS_TOGETHER * inputs);
        let packed = &Disjoint::new(&mut self.packed);
        for_each(threads, groups, |_, group| {
            let first = group * TOKENS_TOGETHER;
            let rows = &x[first * inputs..];
            run.kernel(PackX {
                x: &rows[..rows.len().min(TOKENS_TOGETHER * inputs)],
                inputs,
                first: first % TOKENS,
                depth: TOKENS.min(x.len() / inputs - first / TOKENS * TOKENS),
                packed,
                strip: first / TOKENS * strip_len(inputs),
            });
        });
    }

    /// Adds the products of what is packed with those rows of `dy`, `[rows, outputs]`, for the
    /// output channels `channels`.
    pub(super) fn add(
        &self,
        dy: &[f32],
        outputs: usize,
        channels: Range<usize>,
        sums: &mut Sums<'_>,
    ) -> Result<(), Error> {
        let panels = self.inputs.div_ceil(PANEL);
        let work = self.rows.len().saturating_mul(channels.len());
        let threads = thread_count(self.run.threads(), work.saturating_mul(self.inputs + 1));
        // (Four parts a thread: one that is interrupted keeps the others waiting for less.)
        let shared = if threads == 1 { 1 } else { 4 * threads };
        let blocks = channels.len().div_ceil(GRADIENT_BLOCK);
        let most = channels.len().div_ceil(LEAST_GRADIENT_BLOCK);
        let block = channels.len().div_ceil(blocks.max(shared.min(most)));
        let block = block.next_multiple_of(LEAST_GRADIENT_BLOCK);
        let blocks = channels.len().div_ceil(block);
        let stretches = shared.div_ceil(blocks).clamp(1, panels.max(1));
        let stretch = panels.div_ceil(stretches);
        let mut scratch = Vec::with_capacity(threads);
        for _ in 0..threads {
            scratch.push(Mutex::new(Buffer::new(TOKENS * block)?));
        }
        let weight = sums.weight.as_deref_mut().map(Disjoint::new);
        let bias = sums.bias.as_deref_mut().map(Disjoint::new);
        for_each(threads, blocks * stretches, |slot, item| {
            let first = channels.start + item / stretches * block;
            let panels = item % stretches * stretch..(item % stretches + 1) * stretch;
            let mut scratch = scratch[slot].lock().unwrap_or_else(PoisonError::into_inner);
            self.run.kernel(Part {
                strips: self,
                dy: &dy[self.rows.start * outputs..self.rows.end * outputs],
                outputs,
                channels: first..(first + block).min(channels.end),
                inputs: panels.start * PANEL..(panels.end * PANEL).min(self.inputs),
                weight: weight.as_ref(),
                // One of those who share the channels.
                bias: bias.as_ref().filter(|_| panels.start == 0),
                packed: &mut scratch,
            });
        });
        Ok(())
    }
}

/// Multiply-adds that packing a value costs in time.
const PACK_WORK: usize = 8;

/// Some rows of x on their way into panels.
struct PackX<'c> {
    x: &'c [f32],
    inputs: usize,
    /// Where in its strip the first row lies, and how many rows the strip has.
    first: usize,
    depth: usize,
    packed: &'c Disjoint<'c, f32>,
    /// Where the strip begins.
    strip: usize,
}

/// Channels of a tile.
const fn width<V: Vector>() -> usize {
    V::Tile::VECTORS * V::LANES
}

impl Kernel for PackX<'_> {
    type Output = ();

    /// Panel by panel, a few rows of each, so that what is read and what is written are few
    /// streams.
    #[inline(always)]
    fn run<V: Vector>(self) {
        let width = width::<V>();
        let panels = self.inputs.div_ceil(width);
        for panel in 0..panels {
            let channels = panel * width..((panel + 1) * width).min(self.inputs);
            let to = self.strip + (panel * self.depth + self.first) * width;
            let rows = self.x.len() / self.inputs;
            // SAFETY: these rows of the strip's panels are this call's.
            let to = unsafe { self.packed.part(to..to + rows * width) };
            let rows = self.x.chunks_exact(self.inputs);
            for (to, row) in to.chunks_exact_mut(width).zip(rows) {
                let from = &row[channels.clone()];
                if from.len() == width {
                    to.copy_from_slice(from);
                } else {
                    to[..from.len()].copy_from_slice(from);
                    to[from.len()..].fill(0.0);
                }
            }
        }
    }
}

/// Some output channels by some input channels, over all strips that are packed.
struct Part<'c> {
    strips: &'c Strips<'c>,
    /// Those rows, of `outputs` channels.
    dy: &'c [f32],
    outputs: usize,
    channels: Range<usize>,
    /// Whole panels, but for the last.
    inputs: Range<usize>,
    weight: Option<&'c Disjoint<'c, f32>>,
    bias: Option<&'c Disjoint<'c, f32>>,
    /// Memory for the channels of a strip of dy.
    packed: &'c mut [f32],
}

impl Kernel for Part<'_> {
    type Output = ();

    /// For each strip: the channels of dy are packed as `[group of a tile's rows][token][row]`;
    /// then for each panel of x, which stays in L1 where it fits, each group: the product of the
    /// strip, from zero in registers, is added to dW.
    #[inline(always)]
    fn run<V: Vector>(mut self) {
        const {
            assert!(
                PANEL.is_multiple_of(V::Tile::VECTORS * V::LANES)
                    && LEAST_GRADIENT_BLOCK.is_multiple_of(V::Tile::ROWS)
            );
        }
        let inputs = self.strips.inputs;
        for (strip, dy) in self.dy.chunks(TOKENS * self.outputs).enumerate() {
            let depth = dy.len() / self.outputs;
            if let Some(bias) = self.bias {
                // SAFETY: these channels of the bias are this part's.
                add_rows(dy, self.outputs, &self.channels, unsafe {
                    bias.part(self.channels.clone())
                });
            }
            let Some(weight) = self.weight else { continue };
            self.pack::<V>(dy);
            let x = &self.strips.packed[strip * strip_len(inputs)..][..strip_len(inputs)];
            for input in self.inputs.clone().step_by(width::<V>()) {
                let panel = &x[input * depth..(input + width::<V>()) * depth];
                for channel in (0..self.channels.len()).step_by(V::Tile::ROWS) {
                    let row = self.channels.start + channel;
                    let sink = RowsSink {
                        to: weight.start().wrapping_add(row * inputs + input),
                        stride: inputs,
                        rows: self.channels.end - row,
                        width: self.inputs.end - input,
                    };
                    let vectors = sink.width.div_ceil(V::LANES).min(V::Tile::VECTORS);
                    let operands = Operands {
                        a: self.packed[channel * depth..(channel + V::Tile::ROWS) * depth].as_ptr(),
                        a_stride: V::Tile::ROWS,
                        b: panel.as_ptr(),
                        b_stride: width::<V>(),
                        b_vector: V::LANES,
                        depth: Whole(depth),
                    };
                    // SAFETY: both slices have `depth` rows of a whole tile's; the sink's rows and
                    // channels are dW's, checked by who made the call, and this part's alone.
                    unsafe { V::Tile::product::<V, _, _>(vectors, operands, sink) };
                }
            }
        }
    }
}

impl Part<'_> {
    /// Packs this part's channels of the rows of a strip, zeros past the last.
    #[inline(always)]
    fn pack<V: Vector>(&mut self, dy: &[f32]) {
        let depth = dy.len() / self.outputs;
        let rows = V::Tile::ROWS;
        for (first, dy) in dy.chunks(TOKENS_TOGETHER * self.outputs).enumerate() {
            for group in 0..self.channels.len().div_ceil(rows) {
                let channel = self.channels.start + group * rows;
                let count = rows.min(self.channels.end - channel);
                let to = &mut self.packed[(group * depth + first * TOKENS_TOGETHER) * rows..];
                let dy = dy.chunks_exact(self.outputs);
                for (to, dy) in to.chunks_exact_mut(rows).zip(dy) {
                    let from = &dy[channel..channel + count];
                    if count == rows {
                        to.copy_from_slice(from);
                    } else {
                        to[..count].copy_from_slice(from);
                        to[count..].fill(0.0);
                    }
                }
            }
        }
    }
}

/// Adds the sums of rows, in float64 and rounded once, to `sums`, of whose channels `channels`
/// says.
#[inline(always)]
fn add_rows(rows: &[f32], width: usize, channels: &Range<usize>, sums: &mut [f32]) {
    /// Channels at once: eight vectors of AVX2.
    const TOGETHER: usize = 32;
    for (block, sums) in sums.chunks_mut(TOGETHER).enumerate() {
        let first = channels.start + block * TOGETHER;
        let mut totals = [0.0_f64; TOGETHER];
        for row in rows.chunks_exact(width) {
            for (total, &value) in totals.iter_mut().zip(&row[first..first + sums.len()]) {
                *total += f64::from(value);
            }
        }
        for (sum, total) in sums.iter_mut().zip(totals) {
            *sum += total as f32;
        }
    }
}
