//! Cosines and sines of a rotary embedding, computed once for a range of positions. Does not
//! rotate.

use std::ops::Range;

use super::frequencies::{Angles, RopeFrequencies};
use crate::error::Error;
use crate::run::Run;
use crate::run::buffer::try_zeroed;
use crate::run::threads::Disjoint;
use crate::run::units::Units;
use crate::tensor::shape::checked_len;

/// Angles per unit of work: about a tenth of a millisecond.
const UNIT_ANGLES: usize = 1 << 12;

/// Time of one cosine and sine, in elements that a rotation works off meanwhile.
const ANGLE_ELEMENTS: usize = 32;

/// Cosines and sines of a rotary embedding for a range of positions: computed once, then used by
/// any number of [`Rope`](super::Rope) calls (see
/// [`RopeOptions::table`](super::RopeOptions::table)). A call with a table gives the bits of one
/// without.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeTable {
    positions: Range<i64>,
    rotary_dim: usize,
    values: Vec<f32>,
}

impl RopeTable {
    /// The table of `positions` for `rotary_dim` channels (even).
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) or
    /// [`ErrorKind::Option`](crate::ErrorKind::Option), naming the argument;
    /// [`Error::out_of_memory`].
    pub fn new(
        positions: Range<i64>,
        rotary_dim: usize,
        frequencies: &RopeFrequencies,
        run: Run,
    ) -> Result<Self, Error> {
        let rows =
            usize::try_from(positions.end.saturating_sub(positions.start)).map_err(|_| {
                Error::shape(
                    "positions",
                    "a range that does not end before it starts",
                    format_args!("{positions:?}"),
                )
            })?;
        // Without positions no angle is made, however many channels there are; what is wrong with
        // them is said all the same.
        let turning = if rows == 0 && rotary_dim.is_multiple_of(2) {
            0
        } else {
            rotary_dim
        };
        let angles = Angles::new(turning, frequencies)?;
        frequencies.check_end(positions.end)?;
        let mut values = try_zeroed(checked_len("positions", &[rows, rotary_dim])?)?;
        let unit_rows = unit_rows(rotary_dim);
        let mut units = Units::new(run, unit_elements(unit_rows, rotary_dim), || Ok(()));
        let first = positions.start;
        let filling = Filling::new(&angles, &mut values);
        units.run(0..rows.div_ceil(unit_rows), &|(), unit| {
            // SAFETY: each unit is worked on once.
            unsafe { filling.unit(unit, |row| first + row as i64) };
        })?;
        Ok(Self {
            positions,
            rotary_dim,
            values,
        })
    }

    /// The positions that it covers.
    #[must_use]
    pub fn positions(&self) -> Range<i64> {
        self.positions.clone()
    }

    /// The channels that turn.
    #[must_use]
    pub fn rotary_dim(&self) -> usize {
        self.rotary_dim
    }

    /// Row after row, as [`Filling`] has them.
    pub(super) fn values(&self) -> &[f32] {
        &self.values
    }
}

/// Rows per unit of work.
pub(super) fn unit_rows(rotary_dim: usize) -> usize {
    (UNIT_ANGLES * 2)
        .checked_div(rotary_dim)
        .unwrap_or(1)
        .max(1)
}

/// How many elements a unit counts for.
pub(super) fn unit_elements(unit_rows: usize, rotary_dim: usize) -> usize {
    // (Of no positions, there may be any number of channels.)
    unit_rows
        .saturating_mul(rotary_dim / 2)
        .saturating_mul(ANGLE_ELEMENTS)
}

/// A table while it is filled, unit by unit: each row has `rotary_dim/2` cosines, then as many
/// sines.
pub(super) struct Filling<'t> {
    angles: &'t Angles,
    values: Disjoint<'t, f32>,
}

impl<'t> Filling<'t> {
    pub(super) fn new(angles: &'t Angles, values: &'t mut [f32]) -> Self {
        Self {
            angles,
            values: Disjoint::new(values),
        }
    }

    /// Fills the rows of unit `unit` with the turns of `position(row)`. Angles are float64, rounded
    /// once to float32, by `libm`: no platform's library has a say.
    ///
    /// # Safety
    /// No other thread has this unit.
    pub(super) unsafe fn unit(&self, unit: usize, position: impl Fn(usize) -> i64) {
        let Angles {
            per_position,
            factor,
        } = self.angles;
        let pairs = per_position.len();
        if pairs == 0 {
            return;
        }
        let first = unit * unit_rows(2 * pairs);
        let end = first + unit_rows(2 * pairs);
        let end = (end * 2 * pairs).min(self.values.len());
        // SAFETY: the rows are this unit's, which is the caller's.
        let part = unsafe { self.values.part(first * 2 * pairs..end) };
        for (row, values) in part.chunks_exact_mut(2 * pairs).enumerate() {
            let position = position(first + row) as f64;
            let (cosines, sines) = values.split_at_mut(pairs);
            for ((cosine, sine), angle) in cosines.iter_mut().zip(sines).zip(per_position) {
                let (s, c) = libm::sincos(position * angle);
                (*cosine, *sine) = ((c * factor) as f32, (s * factor) as f32);
            }
        }
    }
}
