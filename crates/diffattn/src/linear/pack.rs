//! Weights in the order in which the kernel reads them. Knows nothing of what their elements mean.

use crate::blocks::linear::{CHANNELS, PACKED_CHANNELS, PACKED_ROWS, PANEL};
use crate::error::Error;
use crate::run::buffer::Lines;
use crate::tensor::shape::checked_len;

/// `weight` `[outputs, inputs]` in panels. Rows are read [`PACKED_ROWS`] at a time, so that the
/// hardware sees as many streams; what is written meanwhile, [`PACKED_CHANNELS`] of a panel, stays
/// in L2.
pub(super) fn pack<T: Copy + Default>(weight: &[T], shape: [usize; 2]) -> Result<Lines<T>, Error> {
    let mut packed = zeroed(shape)?;
    repack(weight, shape, &mut packed);
    Ok(packed)
}

/// As [`pack`], of the transpose of `weight`, which is `[inputs, outputs]`.
pub(super) fn pack_transposed<T: Copy + Default>(
    weight: &[T],
    shape: [usize; 2],
) -> Result<Lines<T>, Error> {
    let mut packed = zeroed(shape)?;
    repack_transposed(weight, shape, &mut packed);
    Ok(packed)
}

/// Memory for a packed weight.
fn zeroed<T: Copy + Default>([outputs, inputs]: [usize; 2]) -> Result<Lines<T>, Error> {
    let panels = outputs.div_ceil(PANEL);
    Lines::zeroed(checked_len("weight", &[panels, PANEL, inputs])?)
}

/// [`pack_transposed`] over what was packed in that shape.
pub(super) fn repack_transposed<T: Copy>(
    weight: &[T],
    [outputs, inputs]: [usize; 2],
    packed: &mut [T],
) {
    // (Rows of a weight lie as its panels want them, but for their width.)
    for first in (0..outputs).step_by(PANEL) {
        let width = PANEL.min(outputs - first);
        let panel = &mut packed[first * inputs..(first + PANEL) * inputs];
        let rows = weight.chunks_exact(outputs);
        for (to, row) in panel.chunks_exact_mut(PANEL).zip(rows) {
            to[..width].copy_from_slice(&row[first..first + width]);
        }
    }
}

/// [`pack`] over what was packed in that shape.
pub(super) fn repack<T: Copy>(weight: &[T], [outputs, inputs]: [usize; 2], packed: &mut [T]) {
    let panels = outputs.div_ceil(PANEL);
    for panel in 0..panels {
        for channels in (0..inputs).step_by(PACKED_CHANNELS) {
            let end = (channels + PACKED_CHANNELS).min(inputs);
            for lane in (0..PANEL).step_by(PACKED_ROWS) {
                let first = panel * PANEL + lane;
                for from in (channels..end).step_by(CHANNELS) {
                    let depth = CHANNELS.min(end - from);
                    let to = &mut packed[(panel * inputs + from) * PANEL..][..depth * PANEL];
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
}

/// `to[i] = from[i · PANEL]`.
pub(super) fn gather<T: Copy>(from: &[T], to: &mut [T]) {
    for (to, &value) in to.iter_mut().zip(from.iter().step_by(PANEL)) {
        *to = value;
    }
}
