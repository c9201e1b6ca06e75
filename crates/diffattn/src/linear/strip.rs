//! The product itself: blocks of rows by stretches of panels, strip by strip. Knows nothing of
//! threads, and of formats what [`Format`] says.

use std::ops::Range;

use super::format::{Format, Plain};
use super::panels::{Packed, with_format};
use super::product::{Met, Product, Way};
use super::rows::{Rows, pack_floats, pack_int8};
use crate::blocks::linear::{CHANNELS, FEW_ROWS, MAX_ROWS, PANEL, ROW_VECTORS};
use crate::run::threads::Disjoint;
use crate::simd::{Kernel, Operands, PackedRows, RowsSink, Sink, Tile, Vector, Whole};

/// Some rows of x by some panels of the weight.
pub(super) struct Block<'c, W> {
    pub(super) product: Product<'c, W>,
    /// The rows, of `inputs` values.
    pub(super) x: &'c [f32],
    /// All results, of which no other block writes these rows' channels of `panels`.
    pub(super) y: &'c Disjoint<'c, f32>,
    /// Where the rows lie in `y`.
    pub(super) rows: Range<usize>,
    pub(super) panels: Range<usize>,
    pub(super) packed: PackedBlock<'c>,
    /// The strip of a panel as float32, where it is not that already: of halves for more than
    /// [`FEW_ROWS`] rows, and of whatever is not met [`Way::Forward`].
    pub(super) widened: &'c mut [f32],
}

/// Memory for packed rows: in it strips lie one after the other, each as [`Rows`] says, in groups
/// of Tile::ROWS.
#[derive(Default)]
pub(super) struct PackedBlock<'c> {
    pub(super) memory: &'c mut [f32],
    /// Values of a strip.
    pub(super) strip: usize,
    /// Whether all strips have a place: panels are then met one after the other, as weights lie.
    /// Else strips are, each packed where the one before it was.
    pub(super) holds_all: bool,
    /// Whether all strips of these rows are in it already.
    pub(super) is_packed: bool,
}

impl<W: Met> Kernel for Block<'_, W> {
    type Output = ();

    /// 1. y = b, or 0, unless the product is added to what y is.
    /// 2. For each strip of input channels: pack the rows; then for each panel, whose strip now
    ///    stays in L1, and each group of rows: y += the strip's product, from zero in registers. Of
    ///    few rows all strips are packed first, and panels come one after the other.
    #[inline(always)]
    fn run<V: Vector>(mut self) {
        const {
            assert!(
                PANEL.is_multiple_of(V::Tile::VECTORS * V::LANES)
                    && MAX_ROWS.is_multiple_of(V::Tile::ROWS)
                    && PANEL.is_multiple_of(3 * V::LANES)
                    && (ROW_VECTORS * V::LANES > PANEL
                        || PANEL.is_multiple_of(ROW_VECTORS * V::LANES))
            );
        }
        if !self.product.adds {
            self.begin();
        }
        let strips = self.product.shape[1].div_ceil(CHANNELS);
        let PackedBlock {
            memory,
            strip: len,
            holds_all,
            is_packed,
        } = std::mem::take(&mut self.packed);
        let panels = self.panels.clone();
        // (One loop for both orders: each product is inlined once for each format.)
        let [outer, inner] = if holds_all {
            [panels.len(), strips]
        } else {
            [strips, panels.len()]
        };
        for first in 0..outer {
            for second in 0..inner {
                let (strip, panel) = if holds_all {
                    (second, first)
                } else {
                    (first, second)
                };
                let place = if holds_all { strip * len } else { 0 };
                let packed = &mut memory[place..place + len];
                if panel == 0 && !is_packed {
                    self.pack::<V>(strip * CHANNELS, packed);
                }
                self.add::<V>(strip * CHANNELS, panels.start + panel, packed);
            }
        }
    }
}

impl<W: Met> Block<'_, W> {
    /// y = b, or 0.
    #[inline(always)]
    fn begin(&self) {
        let [outputs, _] = self.product.shape;
        let channels = self.panels.start * PANEL..(self.panels.end * PANEL).min(outputs);
        for row in self.rows.clone() {
            let of = row * outputs + channels.start..row * outputs + channels.end;
            // SAFETY: these channels of these rows are this block's; a panic says that `y` has
            // them.
            let y = unsafe { self.y.part(of) };
            match self.product.bias {
                Some(bias) => y.copy_from_slice(&bias[channels.clone()]),
                None => y.fill(0.0),
            }
        }
    }

    /// Packs the rows' strip from input channel `from`; of one row of floats nothing.
    #[inline(always)]
    fn pack<V: Vector>(&self, from: usize, packed: &mut [f32]) {
        let [_, inputs] = self.product.shape;
        let channels = from..(from + CHANNELS).min(inputs);
        match self.product.rows() {
            Rows::Float if self.rows.len() == 1 => {}
            Rows::Float => pack_floats(self.x, inputs, channels, V::Tile::ROWS, packed),
            Rows::Int8(offset) => pack_int8(self.x, inputs, channels, offset, packed),
        }
    }

    /// Adds the product of a strip, which is packed, with that of a panel.
    #[inline(always)]
    fn add<V: Vector>(&mut self, from: usize, panel: usize, packed: &[f32]) {
        let [outputs, inputs] = self.product.shape;
        let depth = CHANNELS.min(inputs - from);
        let weight = self.product.weight;
        let rows_as = self.product.rows();
        let (packed, group) = match rows_as {
            Rows::Float if self.rows.len() == 1 => (&self.x[from..from + depth], 1),
            Rows::Float => (packed, V::Tile::ROWS),
            Rows::Int8(_) => (packed, 1),
        };
        let strip = Strip {
            packed,
            group,
            depth,
            width: rows_as.width(depth),
            y: self.y.start().wrapping_add(self.rows.start * outputs),
            rows: self.rows.len(),
            outputs,
            channels: panel * PANEL..((panel + 1) * PANEL).min(outputs),
            ahead: match self.product.way.which() {
                Way::Forward => with_format!(weight, weight => weight.ahead(from, panel)),
                Way::Float | Way::Turned => 0,
            },
        };
        let widened = &mut *self.widened;
        let weights = match self.product.way.which() {
            Way::Forward if self.rows.len() <= FEW_ROWS => None,
            Way::Forward => with_format!(weight, weight => {
                weight.widened::<V>(from, panel, widened)
            }),
            Way::Float => with_format!(weight, weight => {
                Some(weight.floats::<V>(from, panel, widened))
            }),
            Way::Turned => {
                let (of, channels) = (from..from + depth, strip.channels.clone());
                with_format!(weight, weight => {
                    Some(weight.turned::<V>(of, channels, widened))
                })
            }
        };
        match weights {
            Some(weights) => strip.product::<V>(weights),
            None => with_format!(weight, weight => {
                strip.few_rows::<V, _>(weight, from, panel);
            }),
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
    fn sink(&self, row: usize, channel: usize) -> RowsSink {
        RowsSink {
            to: self.y.wrapping_add(row * self.outputs + channel),
            stride: self.outputs,
            rows: self.rows - row,
            width: self.outputs - channel,
        }
    }
}
