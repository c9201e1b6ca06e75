//! The product itself: blocks of rows by stretches of panels, strip by strip. Knows nothing of
//! threads, and of formats what [`Format`] says.

use std::ops::Range;

use super::format::{Format, Plain};
use super::panels::{Packed, Panels, with_format};
use super::rows::{Rows, pack_floats, pack_int8};
use crate::blocks::linear::{CHANNELS, FEW_ROWS, MAX_ROWS, PANEL, ROW_VECTORS};
use crate::run::threads::Disjoint;
use crate::simd::{Kernel, Operands, PackedRows, Sink, Tile, Vector, Whole};

/// Some rows of x by some panels of the weight.
pub(super) struct Block<'c> {
    /// The packed weight, and its `[outputs, inputs]`.
    pub(super) weight: &'c Panels,
    pub(super) shape: [usize; 2],
    pub(super) bias: Option<&'c [f32]>,
    /// The rows, of `inputs` values.
    pub(super) x: &'c [f32],
    /// All results, of which no other block writes these rows' channels of `panels`.
    pub(super) y: &'c Disjoint<'c, f32>,
    /// Where the rows lie in `y`.
    pub(super) rows: Range<usize>,
    pub(super) panels: Range<usize>,
    /// One strip of the rows as [`Rows`] says, in groups of Tile::ROWS.
    pub(super) packed: &'c mut [f32],
    /// The strip of a panel as float32, where the weight is of halves and there are more than
    /// [`FEW_ROWS`] rows.
    pub(super) widened: &'c mut [f32],
}

impl Kernel for Block<'_> {
    type Output = ();

    /// 1. y = b, or 0.
    /// 2. For each strip of input channels: pack the rows; then for each panel, whose strip now
    ///    stays in L1, and each group of rows: y += the strip's product, from zero in registers.
    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self {
            weight,
            shape: [outputs, inputs],
            bias,
            x,
            y,
            rows,
            panels,
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
        let channels = panels.start * PANEL..(panels.end * PANEL).min(outputs);
        for row in rows.clone() {
            // SAFETY: these channels of these rows are this block's; a panic says that `y` has
            // them.
            let y = unsafe { y.part(row * outputs + channels.start..row * outputs + channels.end) };
            match bias {
                Some(bias) => y.copy_from_slice(&bias[channels.clone()]),
                None => y.fill(0.0),
            }
        }
        let rows_as = with_format!(weight, weight => weight.rows());
        for from in (0..inputs).step_by(CHANNELS) {
            let depth = CHANNELS.min(inputs - from);
            let (packed, group) = match rows_as {
                Rows::Float if rows.len() == 1 => (&x[from..from + depth], 1),
                Rows::Float => {
                    pack_floats(x, inputs, from..from + depth, V::Tile::ROWS, packed);
                    (&*packed, V::Tile::ROWS)
                }
                Rows::Int8(offset) => {
                    pack_int8(x, inputs, from..from + depth, offset, packed);
                    (&*packed, 1)
                }
            };
            for panel in panels.clone() {
                let strip = Strip {
                    packed,
                    group,
                    depth,
                    width: rows_as.width(depth),
                    y: y.start().wrapping_add(rows.start * outputs),
                    rows: rows.len(),
                    outputs,
                    channels: panel * PANEL..((panel + 1) * PANEL).min(outputs),
                    ahead: with_format!(weight, weight => weight.ahead(from, panel)),
                };
                let weights = if rows.len() > FEW_ROWS {
                    with_format!(weight, weight => weight.widened::<V>(from, panel, widened))
                } else {
                    None
                };
                match weights {
                    Some(weights) => strip.product::<V>(weights),
                    None => with_format!(weight, weight => {
                        strip.few_rows::<V, _>(weight, from, panel);
                    }),
                }
            }
        }
    }
}

/// One strip of input channels of a panel, and what it is multiplied with.
struct Strip<'c> {
    /// The rows, as [`Block::packed`] has them.
    packed: &'c [f32],
    /// Rows of a group.
    group: usize,
    depth: usize,
    /// Values of a row of [`Strip::packed`].
    width: usize,
    /// The first of `rows` rows of `outputs` values, whose `channels` are this block's.
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
                let operands = Operands {
                    a: self.row(row),
                    a_stride: group,
                    b: weights[channel - self.channels.start..].as_ptr(),
                    b_stride: PANEL,
                    b_vector: V::LANES,
                    depth: Whole(self.depth),
                };
                // SAFETY: `row` begins a full group, and the vectors begin below `outputs`, in the
                // panel: a full tile's width divides it.
                unsafe { V::Tile::product::<V, _, _>(vectors, operands, self.sink(row, channel)) };
            }
            channel += vectors * V::LANES;
        }
        self.last_rows::<V, Plain<f32>, 4>(Plain::default(), weights, full);
    }

    /// Adds the product to y; the weights are panel `panel` of the strip from input channel
    /// `from`. Of floats, [`FEW_ROWS`] rows at most.
    #[inline(always)]
    fn few_rows<V: Vector, F: Format>(&self, weight: &Packed<F>, from: usize, panel: usize) {
        let strip = weight.strip(from, panel);
        if F::INTEGER {
            self.integer_rows::<V, F>(weight.format(), strip);
        } else {
            self.last_rows::<V, F, FEW_ROWS>(weight.format(), strip, 0);
        }
    }

    /// Adds the product of the rows from `row` on, which begins a group; `MOST` of them at a time
    /// at most.
    #[inline(always)]
    fn last_rows<V: Vector, F: Format, const MOST: usize>(
        &self,
        format: F,
        weights: &[F::Stored],
        mut row: usize,
    ) {
        while row < self.rows {
            // As many vectors as make enough sums to hide the latency of a multiply-add.
            // SAFETY: (all four) as many rows are left, and they divide what is left of the group.
            unsafe {
                row += match self.rows - row {
                    4.. if MOST >= 4 => self.some_rows::<V, F, 4, 3>(format, weights, row),
                    2.. if MOST >= 2 => self.some_rows::<V, F, 2, 3>(format, weights, row),
                    _ if ROW_VECTORS * V::LANES > PANEL => {
                        self.some_rows::<V, F, 1, 3>(format, weights, row)
                    }
                    _ => self.some_rows::<V, F, 1, ROW_VECTORS>(format, weights, row),
                };
            }
        }
    }

    /// Adds the product of all rows, which lie one by one, to y.
    #[inline(always)]
    fn integer_rows<V: Vector, F: Format>(&self, format: F, weights: &[F::Stored]) {
        let mut row = 0;
        while row < self.rows {
            // With 32 registers as many sums as keep a load for three products. (Zen 4, 128 rows of
            // four bits, 10^9 multiply-adds per second: 120; eight rows of one vector 95.)
            let is_wide = V::LANES == 16;
            // SAFETY: (all five) as many rows are left.
            unsafe {
                row += match self.rows - row {
                    4.. if is_wide => self.some_rows::<V, F, 4, 3>(format, weights, row),
                    2.. if is_wide => self.some_rows::<V, F, 2, 3>(format, weights, row),
                    4.. => self.some_rows::<V, F, 4, 1>(format, weights, row),
                    2.. => self.some_rows::<V, F, 2, 1>(format, weights, row),
                    _ => self.some_rows::<V, F, 1, 3>(format, weights, row),
                };
            }
        }
    }

    /// M rows, `N` vectors at a time. Returns M.
    ///
    /// # Safety
    /// The M rows from `row` on lie in one group.
    #[inline(always)]
    unsafe fn some_rows<V: Vector, F: Format, const M: usize, const N: usize>(
        &self,
        format: F,
        weights: &[F::Stored],
        row: usize,
    ) -> usize {
        let rows = PackedRows {
            first: self.row(row),
            stride: self.group,
            depth: self.depth,
        };
        let mut channel = self.channels.start;
        while channel < self.channels.end {
            let lane = channel - self.channels.start;
            // SAFETY: the rows lie packed in one group; panels are whole, and a tile's width
            // divides them.
            unsafe {
                let sums = format.product::<V, M, N>(weights, lane, rows, self.ahead);
                self.sink(row, channel).take(0, sums);
            }
            channel += N * V::LANES;
        }
        M
    }

    /// Row `row` of the packed rows: of floats, the next channel lies `group` further, the next
    /// rows of its group beside it.
    #[inline(always)]
    fn row(&self, row: usize) -> *const f32 {
        let group = self.group;
        self.packed[row / group * group * self.width + row % group..].as_ptr()
    }

    /// Where the results from row `row` and channel `channel` on go.
    #[inline(always)]
    fn sink(&self, row: usize, channel: usize) -> RowSink {
        RowSink {
            to: self.y.wrapping_add(row * self.outputs + channel),
            stride: self.outputs,
            width: self.outputs - channel,
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
