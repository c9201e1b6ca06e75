//! dk and dv of a strip: its P or dS by keys, times the rows of dO or q. A key's sum runs over the
//! block's queries in order, from zero, and is added to what the blocks before have left.

use super::strips::ByKey;
use super::{Gradients, HeadAt};
use crate::attention::live::LiveStrip;
use crate::attention::prefill::row_block::RowBlock;
use crate::blocks::PANEL;
use crate::simd::{Operands, RowsSink, Tile, Vector, Whole};

/// Where rows of gradients go, and the rows that they are sums of.
#[derive(Clone, Copy)]
struct Target<'s> {
    /// The row of key 0 of the sequence.
    to: *mut f32,
    stride: usize,
    /// `[query][padded channel]`.
    rows: &'s [f32],
    padded: usize,
    width: usize,
}

impl Gradients<'_, '_, '_> {
    /// Adds the strip that `GradientScratch::by_key` holds.
    #[inline(always)]
    pub(super) fn add_by_key<V: Vector>(
        &self,
        rows: &mut RowBlock<'_, '_>,
        head: &HeadAt<'_>,
        strip: &LiveStrip,
        of: ByKey,
    ) {
        let stride = head.geometry.stride;
        match of {
            ByKey::Term(t) => {
                let Some((to, to_stride)) = self.key_rows(rows, head, t) else {
                    return;
                };
                let width = rows.call.width;
                let padded = width.next_multiple_of(PANEL);
                let target = Target {
                    to,
                    stride: to_stride,
                    rows: &rows.scratch.gradient.query_rows[t * stride * padded..],
                    padded,
                    width,
                };
                add::<V>(rows, head, strip, &target);
            }
            ByKey::Values => {
                for index in 0..head.step.v.len() {
                    let Some((to, to_stride)) = self.value_rows(rows, head, index) else {
                        return;
                    };
                    let shape = rows.call.value_shape;
                    let padded = shape.padded();
                    let target = Target {
                        to,
                        stride: to_stride,
                        rows: &rows.scratch.gradient.d_out_rows[index * stride * padded..],
                        padded,
                        width: shape.width,
                    };
                    add::<V>(rows, head, strip, &target);
                }
            }
        }
        if head.is_special {
            self.add_special(rows, head, strip, (of, V::LANES));
        }
    }

    /// The row of dk of the sequence's first key, of a term's k head, and how far apart rows are.
    pub(super) fn key_rows(
        &self,
        rows: &RowBlock<'_, '_>,
        head: &HeadAt<'_>,
        t: usize,
    ) -> Option<(*mut f32, usize)> {
        let (_, k) = rows.call.plan.heads[head.step.head].terms[t];
        let (sequence, axis) = (rows.block.sequence, &self.of.k.1);
        let row = |key| axis.row(sequence.batch, k, key);
        let to = self.out.dk.as_ref()?.start();
        Some((to.wrapping_add(row(sequence.first_key)), row(1) - row(0)))
    }

    /// As [`Gradients::key_rows`], of dv and one of the head's v heads.
    pub(super) fn value_rows(
        &self,
        rows: &RowBlock<'_, '_>,
        head: &HeadAt<'_>,
        index: usize,
    ) -> Option<(*mut f32, usize)> {
        let (sequence, axis) = (rows.block.sequence, &self.of.v.1);
        let row = |key| axis.row(sequence.batch, head.step.v[index], key);
        let to = self.out.dv.as_ref()?.start();
        Some((to.wrapping_add(row(sequence.first_key)), row(1) - row(0)))
    }
}

/// The product of one strip by keys with rows, into a target.
#[inline(always)]
fn add<V: Vector>(
    rows: &RowBlock<'_, '_>,
    head: &HeadAt<'_>,
    strip: &LiveStrip,
    target: &Target<'_>,
) {
    let geometry = head.geometry;
    let by_key = &rows.scratch.gradient.by_key;
    let mut panels = by_key.chunks_exact(PANEL * geometry.stride);
    for &(from, to) in strip.runs() {
        for key in (from..to).step_by(PANEL) {
            let Some(panel) = panels.next() else {
                return;
            };
            // Queries that see none of the panel's keys have zeros there.
            let (first, last, _) = geometry.active((0, geometry.vectors), key, key + PANEL);
            let (first, last) = (first * V::LANES, (last * V::LANES).min(rows.block.rows));
            if first < last {
                let keys = PANEL.min(to - key);
                add_panel::<V>(target, (key, keys), panel, first..last);
            }
        }
    }
}

/// The product of one panel of keys.
#[inline(always)]
fn add_panel<V: Vector>(
    target: &Target<'_>,
    (key, keys): (usize, usize),
    panel: &[f32],
    queries: std::ops::Range<usize>,
) {
    let vectors = target.width.div_ceil(V::LANES);
    let mut chunk = 0;
    while chunk < vectors {
        let count = (vectors - chunk).min(V::Tile::VECTORS);
        let channel = chunk * V::LANES;
        for first in (0..keys).step_by(V::Tile::ROWS) {
            let operands = Operands {
                a: panel[queries.start * PANEL + first..].as_ptr(),
                a_stride: PANEL,
                b: target.rows[queries.start * target.padded + channel..].as_ptr(),
                b_stride: target.padded,
                b_vector: V::LANES,
                depth: Whole(queries.len()),
            };
            let to = target
                .to
                .wrapping_add((key + first) * target.stride + channel);
            let sink = RowsSink {
                to,
                stride: target.stride,
                rows: keys - first,
                width: target.width - channel,
            };
            // SAFETY: a panel has PANEL keys of every query, ROWS divides PANEL; rows are padded to
            // whole vectors; the target has rows of `width` channels for all keys of the sequence,
            // which no other block has before this one's turn is over.
            unsafe { V::Tile::product::<V, _, _>(count, operands, sink) };
        }
        chunk += count;
    }
}
