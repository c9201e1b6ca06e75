//! Maps of whole rows with a factor and a summand per channel behind them: checks, units and the
//! one walk of what is such. Float32 only; knows nothing of what a row becomes before these two.

use super::check_channels;
use super::write::{Place, Results, is_backward, write};
use crate::blocks::norm::UNIT;
use crate::error::Error;
use crate::run::Run;
use crate::run::threads::Disjoint;
use crate::run::units::Units;
use crate::simd::{Kernel, Vector};
use crate::tensor::shape::{check_len, format_shape};
use crate::tensor::{Data, Tensor};

/// What rows become before factors and summands.
pub(super) trait RowMap: Copy + Sync {
    /// The results of a row.
    type Row<'u, V: Vector>: Results;

    /// Refuses options that make no sense.
    fn check(self) -> Result<(), Error> {
        Ok(())
    }

    fn row<V: Vector>(self, x: &[f32]) -> Self::Row<'_, V>;
}

/// A factor and a summand for each channel, where there are any.
#[derive(Debug, Clone, Copy)]
pub(super) struct Affine<'a> {
    pub(super) weight: Option<&'a [f32]>,
    pub(super) bias: Option<&'a [f32]>,
}

/// A row's results, times the factors and with the summands.
struct Affined<'u, R> {
    row: R,
    affine: Affine<'u>,
}

impl<R: Results> Results for Affined<'_, R> {
    #[inline(always)]
    unsafe fn vector<V: Vector>(&self, at: Place) -> V {
        let Affine { weight, bias } = self.affine;
        // SAFETY: (all of this function) the caller's promise.
        unsafe {
            let mut y: V = self.row.vector(at);
            if let Some(weight) = weight {
                y = y.mul(V::load(at.of(weight)));
            }
            if let Some(bias) = bias {
                y = y.add(V::load(at.of(bias)));
            }
            y
        }
    }

    #[inline(always)]
    unsafe fn one(&self, at: usize) -> f32 {
        let Affine { weight, bias } = self.affine;
        // SAFETY: (all of this function) the caller's promise.
        unsafe {
            let mut y = self.row.one(at);
            if let Some(weight) = weight {
                y *= weight.get_unchecked(at);
            }
            if let Some(bias) = bias {
                y += bias.get_unchecked(at);
            }
            y
        }
    }
}

/// Some rows of a call.
struct Rows<'u, M> {
    x: &'u [f32],
    y: &'u mut [f32],
    width: usize,
    map: M,
    affine: Affine<'u>,
}

impl<M: RowMap> Kernel for Rows<'_, M> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self {
            x,
            y,
            width,
            map,
            affine,
        } = self;
        let Affine { weight, bias } = affine;
        for (x, y) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)) {
            let row = Affined {
                row: map.row::<V>(x),
                affine,
            };
            debug_assert!([weight, bias].iter().flatten().all(|w| w.len() == x.len()));
            // SAFETY: x, weight and bias are as long as y.
            unsafe { write::<V, false, 0>(y, is_backward(x, y), [], row) };
        }
    }
}

/// Maps the rows of a tensor into `out` of its shape.
pub(super) fn map_rows(
    x: &Tensor<'_>,
    out: &mut [f32],
    affine: Affine<'_>,
    map: impl RowMap,
    run: Run,
) -> Result<(), Error> {
    let len = check_len("x", &x.shape, x.data.len())?;
    let Some(&width) = x.shape.last() else {
        return Err(Error::shape("x", "1 axis or more", format_shape(&x.shape)));
    };
    let Data::F32(values) = x.data else {
        return Err(Error::dtype("x", "float32", x.data.dtype().name()));
    };
    map.check()?;
    check_channels(width, [("weight", affine.weight), ("bias", affine.bias)])?;
    // Without elements there are no rows, whatever the width.
    let rows = len.checked_div(width).unwrap_or(0);
    let unit_rows = UNIT.checked_div(width).unwrap_or(1).max(1);
    check_len("out", &x.shape, out.len())?;
    if rows == 0 {
        return Ok(());
    }
    let out = Disjoint::new(out);
    let mut units = Units::new(run, unit_rows * width, || Ok(()));
    units.run(0..rows.div_ceil(unit_rows), &|(), unit| {
        let elements = unit * unit_rows * width..((unit + 1) * unit_rows).min(rows) * width;
        // SAFETY: each row is one unit's.
        let y = unsafe { out.part(elements.clone()) };
        run.unfused_kernel(Rows {
            x: &values[elements],
            y,
            width,
            map,
            affine,
        });
    })
}
