//! One strip of one phase of one unit: what its computations share. The computations are in
//! `scores.rs` and `values.rs`, each an `impl` of [`DecodeStrip`].

use super::unit::{StripMemory, UnitRows};
use crate::attention::call::Call;
use crate::attention::held::Held;
use crate::attention::packed::KEY_ROUND;
use crate::attention::panels::Panels;
use crate::blocks::{PANEL, STRIP};
use crate::error::Error;
use crate::run::buffer::{Buffer, LINE, try_zeroed};
use crate::simd::{Use, Vector};

/// Vectors of a decode tile: four streams of panels keep the loads coming.
pub(super) const VECTORS: usize = 4;

/// Whether keys and values that are held as less than float32 always become that in memory, a few
/// panels at a time: in WebAssembly, where loops for each type would be too much to download.
/// Elsewhere one row, which is bound by reading them, widens them in registers; for several, which
/// share what becomes of them, memory serves as well.
pub(super) const WIDENS: bool = cfg!(target_arch = "wasm32");

/// Keys that become float32 in memory at a time: as many as any tile has.
pub(super) const NEAR_KEYS: usize = if WIDENS { PANEL } else { KEY_ROUND };

/// Panels of values that do: as many as any tile has.
const NEAR_PANELS: usize = NEAR_KEYS / PANEL;

/// Query rows of a decode tile at most: 4 × 4 accumulators fit the registers of every set but the
/// sixteen-register ones, which seldom see more than one row.
pub(super) const ROWS: usize = 4;

/// Rows that the next tile takes of those that are left: exact tails, every row is computed once.
#[inline(always)]
pub(super) fn tile_rows(left: usize) -> usize {
    match left {
        ROWS.. => ROWS,
        2.. => 2,
        _ => 1,
    }
}

/// Asks, line by line, for what lies `bytes` past what one row of int8 reads, the next tile:
/// vectors of sixteen bytes out of several panels are no streams that the hardware follows. (Zen 4,
/// 8192 keys from memory: 0.80 of the time; into the first cache 0.91. Halves are bound by memory.)
#[inline(always)]
pub(super) fn ahead<V: Vector, E: Held, const M: usize, const N: usize>(
    bytes: usize,
) -> impl Fn(&[*const E; N]) {
    move |vectors| {
        if M > 1 || size_of::<E>() > 1 {
            return;
        }
        for vector in vectors {
            if vector.addr().is_multiple_of(LINE) {
                V::prefetch(vector.wrapping_byte_add(bytes).cast(), Use::Soon);
            }
        }
    }
}

/// What happens to a strip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Scores, their exponentials, strip maxima and sums.
    Exponentials,
    /// Combination and product with v, each strip from zero.
    Values,
}

/// One thread's small buffers. Those of arbitrary content are written before they are read: zeros
/// took a tenth of a decoded step over 80 keys.
#[derive(Debug)]
pub(super) struct StripScratch {
    /// P as [key][row]; of arbitrary content at first, as `finite` and `near`.
    pub(super) p: Buffer,
    /// P of one row.
    pub(super) p_row: Vec<f32>,
    pub(super) bias: Vec<f32>,
    pub(super) finite: Buffer,
    /// Some keys, or panels of values, as float32, where they are not held as that.
    pub(super) near: Buffer,
}

impl StripScratch {
    /// For `rows` rows of P; `widened`: channels of a key, where keys are held as less than
    /// float32.
    pub(super) fn new(rows: usize, widened: Option<usize>) -> Result<Self, Error> {
        let near = widened.map_or(0, |width| {
            (NEAR_KEYS * width).max(NEAR_PANELS * STRIP * PANEL)
        });
        Ok(Self {
            p: Buffer::new(rows * STRIP)?,
            p_row: try_zeroed(STRIP)?,
            bias: try_zeroed(STRIP)?,
            finite: Buffer::new(STRIP * PANEL)?,
            near: Buffer::new(near)?,
        })
    }
}

/// One strip of one phase of one unit.
pub(super) struct DecodeStrip<'c, 'a, 'u> {
    pub(super) call: &'c Call<'a>,
    pub(super) rows: &'c UnitRows<'u>,
    pub(super) panels: Panels<'c>,
    pub(super) memory: &'c mut StripMemory<'u>,
    pub(super) scratch: &'c mut StripScratch,
    pub(super) phase: Phase,
}
