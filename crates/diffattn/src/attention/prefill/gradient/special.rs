//! Blocks that meet NaN or infinities: what a row does not see must not reach it, nor it the
//! gradients of keys that it does not see. Slow, and right. Knows no tiles.

use super::strips::ByKey;
use super::{Gradients, HeadAt};
use crate::attention::live::LiveStrip;
use crate::attention::prefill::row_block::RowBlock;
use crate::simd::Vector;

impl Gradients<'_, '_, '_> {
    /// Zeros for NaN and infinities in the rows of dO.
    #[cold]
    pub(super) fn finite_outputs(&self, rows: &mut RowBlock<'_, '_>, head: &HeadAt<'_>) {
        let values = head.step.v.len() * rows.call.value_shape.padded() * head.geometry.stride;
        finite(&mut rows.scratch.gradient.d_out_rows[..values]);
    }

    /// Zeros for NaN and infinities in the rows of q.
    #[cold]
    pub(super) fn finite_queries(&self, rows: &mut RowBlock<'_, '_>, _head: &HeadAt<'_>) {
        finite(rows.scratch.gradient.query_rows);
    }

    /// Zeros in dP where a row does not see a key.
    #[cold]
    pub(super) fn hide_values<V: Vector>(&self, rows: &mut RowBlock<'_, '_>, head: &HeadAt<'_>) {
        let geometry = head.geometry;
        for place in 0..geometry.strips {
            let strip = rows.scratch.live[place];
            each_hidden(rows, head, &strip, |rows, row, key| {
                let column = row / V::LANES * geometry.score_column;
                let at = column + (key - geometry.base) * V::LANES + row % V::LANES;
                rows.scratch.gradient.d_p[at] = 0.0;
            });
        }
    }

    /// Zeros in the strip that `Scratch::strip` holds where a row does not see a key.
    #[cold]
    pub(super) fn hide<V: Vector>(
        &self,
        rows: &mut RowBlock<'_, '_>,
        head: &HeadAt<'_>,
        strip: &LiveStrip,
    ) {
        let p_column = head.geometry.p_column;
        each_hidden(rows, head, strip, |rows, row, key| {
            let column = row / V::LANES * p_column;
            let at = column + (key - strip.start()) * V::LANES + row % V::LANES;
            rows.scratch.strip[at] = 0.0;
        });
    }

    /// What NaN and infinities of dO or q, which the products took as zeros, add to the keys that
    /// their rows see.
    #[cold]
    pub(super) fn add_special(
        &self,
        rows: &RowBlock<'_, '_>,
        head: &HeadAt<'_>,
        strip: &LiveStrip,
        (of, lanes): (ByKey, usize),
    ) {
        let (sequence, first) = (rows.block.sequence, rows.block.first);
        let width = rows.call.value_shape.width;
        for row in 0..rows.block.rows {
            match of {
                ByKey::Term(t) => {
                    let (q, _) = rows.call.plan.heads[head.step.head].terms[t];
                    let mut wide = vec![0.0; rows.call.width];
                    let from = rows.call.query_rows(sequence, q);
                    let values = from.read(first + row, 1, &mut wide).0;
                    if let Some(target) = self.key_rows(rows, head, t) {
                        add_row(rows, head, (strip, row, lanes), (values, target));
                    }
                }
                ByKey::Values => {
                    // dO as the block's products by channels have it.
                    let gradient = &rows.scratch.gradient;
                    let stride = head.geometry.stride;
                    let padded = rows.call.value_shape.padded();
                    for index in 0..head.step.v.len() {
                        let of_head = &gradient.d_out[index * padded * stride..];
                        let column = of_head.chunks_exact(stride).take(width);
                        let values: Vec<f32> = column.map(|channel| channel[row]).collect();
                        if let Some(target) = self.value_rows(rows, head, index) {
                            add_row(rows, head, (strip, row, lanes), (&values, target));
                        }
                    }
                }
            }
        }
    }
}

/// Adds a row's NaN and infinities, times its place in the strip, to the keys that it sees.
fn add_row(
    rows: &RowBlock<'_, '_>,
    head: &HeadAt<'_>,
    (strip, row, lanes): (&LiveStrip, usize, usize),
    (values, (to, stride)): (&[f32], (*mut f32, usize)),
) {
    for (channel, &value) in values.iter().enumerate() {
        if value.is_finite() {
            continue;
        }
        for &(from, end) in strip.runs() {
            for key in from..end {
                if sees(rows, head, row, key) {
                    let column = row / lanes * head.geometry.p_column;
                    let at = column + (key - strip.start()) * lanes + row % lanes;
                    let to = to.wrapping_add(key * stride + channel);
                    // SAFETY: a channel of a key of the sequence, whose turn this block has.
                    unsafe { *to += rows.scratch.strip[at] * value };
                }
            }
        }
    }
}

fn finite(values: &mut [f32]) {
    for value in values {
        if !value.is_finite() {
            *value = 0.0;
        }
    }
}

/// Whether a row sees a key. One whose scores are all −∞ sees none.
fn sees(rows: &RowBlock<'_, '_>, head: &HeadAt<'_>, row: usize, key: usize) -> bool {
    let scratch = &*rows.scratch;
    let (low, high) = scratch.row_keys(row);
    let query = rows
        .block
        .sequence
        .row(head.step.head, rows.block.first + row);
    let row_sum = |slot: &usize| scratch.row_sum[slot * head.geometry.stride + row];
    (low..high).contains(&key)
        && rows.call.elements.sees(query, key)
        && !head.step.slots.iter().all(|slot| row_sum(slot) == 0.0)
}

/// Calls `hide` for each row and key of a strip of which the row does not see the key.
fn each_hidden<'c, 'a>(
    rows: &mut RowBlock<'c, 'a>,
    head: &HeadAt<'_>,
    strip: &LiveStrip,
    mut hide: impl FnMut(&mut RowBlock<'c, 'a>, usize, usize),
) {
    for &(from, to) in strip.runs() {
        for key in from..to {
            for row in 0..rows.block.rows {
                if !sees(rows, head, row, key) {
                    hide(rows, row, key);
                }
            }
        }
    }
}
