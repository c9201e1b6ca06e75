//! What a strip adds to sums of rows: P, or the gradient of scores, times packed rows of the
//! strip's keys. NaN and infinities reach only rows that see them. Knows nothing of what P is.

use super::geometry::Geometry;
use super::row_block::RowBlock;
use super::sink::AddSink;
use crate::attention::groups::{Block, HeadStep};
use crate::attention::live::LiveStrip;
use crate::attention::packed::ValuePanels;
use crate::blocks::PANEL;
use crate::simd::{Depth, Gapped, Operands, Tile, Vector};

/// Which sums a product is added to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sums {
    /// outᵀ.
    Out,
    /// dqᵀ.
    Queries,
}

/// One strip of the packed rows of a head, and where their product with P goes.
pub(super) struct StripProduct<'s> {
    pub(super) values: ValuePanels<'s>,
    pub(super) strip: LiveStrip,
    pub(super) to: Sums,
    /// Which of the sums: of one head of packed rows each.
    pub(super) index: usize,
}

impl RowBlock<'_, '_> {
    /// Adds P, which `Scratch::strip` holds, times the packed rows.
    #[inline(always)]
    pub(super) fn add_product<V: Vector>(
        &mut self,
        geometry: &Geometry<'_>,
        step: &HeadStep,
        product: &StripProduct<'_>,
    ) {
        if product.values.is_special(product.strip.number) {
            self.add_special::<V>(geometry, step, product);
            return;
        }
        // How much of P and the rows a product takes: two runs at most.
        let depth = Gapped::of(product.strip.runs());
        match depth.whole() {
            Some(depth) => self.add_panels::<V, _>(geometry, product, depth),
            None => self.add_panels::<V, _>(geometry, product, depth),
        }
    }

    /// P times all panels, which are finite.
    #[inline(always)]
    fn add_panels<V: Vector, D: Depth>(
        &mut self,
        geometry: &Geometry<'_>,
        product: &StripProduct<'_>,
        depth: D,
    ) {
        let strip = &product.strip;
        for panel in (0..product.values.shape.width).step_by(PANEL) {
            let (first, keys) = (strip.start(), strip.end() - strip.start());
            let finite = &mut self.scratch.finite;
            let a = product.values.near::<V>(first, keys, panel, finite);
            self.add_panel::<V, D>(geometry, product, depth, (panel, a));
        }
    }

    /// P times the panel from channel `panel` on, which `a` points to. A chunk's P and the panel
    /// stay in L1 for all of the panel's tiles. (Asking for the panels that come next gains
    /// nothing, and its loop takes 2 %.) All vectors of a chunk go to where the keys of its last
    /// end, over zeros: with all of them to the strip's end 512 tokens took 1.03 times the time
    /// (AVX2); cut where each vector's keys end, they have fewer products and take as long.
    /// (Halves of a strip, whose sums go on where those of the first left off: in an L1 of 32 KB,
    /// simulated, 0.56 of the misses; with one of 48 KB 1.03 times the time at 512, 1.00 at 2048.)
    #[inline(always)]
    fn add_panel<V: Vector, D: Depth>(
        &mut self,
        geometry: &Geometry<'_>,
        product: &StripProduct<'_>,
        depth: D,
        (panel, a): (usize, *const f32),
    ) {
        let Geometry {
            stride, p_column, ..
        } = *geometry;
        let shape = product.values.shape;
        let strip = &product.strip;
        let scratch = &mut *self.scratch;
        let sums = match product.to {
            Sums::Out => &mut scratch.out,
            Sums::Queries => &mut scratch.gradient.d_queries,
        };
        let sums = &mut sums[product.index * shape.padded() * stride..];
        let mut chunk = 0;
        while chunk < geometry.vectors {
            let chunk_end = geometry.chunk_end::<V>(chunk);
            let (first, last, _) = geometry.active((chunk, chunk_end), strip.start(), strip.end());
            chunk = chunk_end;
            if first >= last {
                continue;
            }
            let p = scratch.strip[first * p_column..].as_ptr();
            let end = geometry.spans[last - 1].end;
            let depth = depth.until(end.max(strip.start()) - strip.start());
            for channel in (panel..shape.width.min(panel + PANEL)).step_by(V::Tile::ROWS) {
                let operands = Operands {
                    a: a.wrapping_add(channel - panel),
                    a_stride: PANEL,
                    b: p,
                    b_stride: V::LANES,
                    b_vector: p_column,
                    depth,
                };
                let sink = AddSink {
                    to: sums[channel * stride + first * V::LANES..].as_mut_ptr(),
                    stride,
                };
                // SAFETY: a panel holds the strip's keys from its first live one on, PANEL wide,
                // and ROWS divides PANEL; a column of P holds as many rows; the sums have `padded`
                // rows per head.
                unsafe { V::Tile::product::<V, _, _>(last - first, operands, sink) };
            }
        }
    }

    /// A strip where the packed rows have NaN or infinities: the product takes them as zeros, the
    /// rows that see them add them.
    #[cold]
    fn add_special<V: Vector>(
        &mut self,
        geometry: &Geometry<'_>,
        step: &HeadStep,
        product: &StripProduct<'_>,
    ) {
        let StripProduct { values, strip, .. } = product;
        let depth = Gapped::of(strip.runs());
        let keys = strip.end() - strip.start();
        for panel in (0..values.shape.width).step_by(PANEL) {
            let finite = &mut self.scratch.finite;
            values.finite_copy::<V>(strip.start(), keys, panel, finite);
            let a = finite.as_ptr();
            self.add_panel::<V, _>(geometry, product, depth, (panel, a));
        }
        let Block {
            sequence,
            first,
            rows,
            ..
        } = self.block;
        let at_sums = product.index * values.shape.padded();
        let scratch = &mut *self.scratch;
        let sums = match product.to {
            Sums::Out => &mut *scratch.out,
            Sums::Queries => &mut *scratch.gradient.d_queries,
        };
        let row_keys = (&*scratch.row_low, &*scratch.row_high);
        for &(from, to) in strip.runs() {
            values.each_special(from, to - from, |key, channel, value| {
                for row in 0..rows {
                    let (low, high) = (row_keys.0[row] as usize, row_keys.1[row] as usize);
                    let query = sequence.row(step.head, first + row);
                    // A row whose scores are all −∞ counts as one that sees nothing.
                    let row_sum = |slot: &usize| scratch.row_sum[slot * geometry.stride + row];
                    let is_empty = step.slots.iter().all(|slot| row_sum(slot) == 0.0);
                    let seen = (low..high).contains(&key) && self.call.elements.sees(query, key);
                    if seen && !is_empty {
                        let (n, lane) = (row / V::LANES, row % V::LANES);
                        let at = (key - strip.start()) * V::LANES + lane;
                        let p = scratch.strip[n * geometry.p_column + at];
                        sums[(at_sums + channel) * geometry.stride + row] += p * value;
                    }
                }
            });
        }
    }
}
