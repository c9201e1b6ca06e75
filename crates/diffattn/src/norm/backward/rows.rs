//! Backward passes of norms of rows: units, strips of rows whose sums for the weights start from
//! zero, and the walks over a block of rows that stays in L1. What distinguishes a norm is its
//! `RowNorm`; knows no formula itself.

use std::marker::PhantomData;
use std::ops::Range;

use super::call::{Factors, NormOperator, NormOutputs};
use crate::blocks::norm::{BLOCK_ROWS, GRADIENTS_BLOCK, UNIT, WEIGHT_ELEMENTS, WEIGHT_ROWS};
use crate::error::Error;
use crate::norm::products::{RowTerms, add_rows};
use crate::norm::write::{LINE, Place, Results, is_backward, is_streamed, write};
use crate::run::Run;
use crate::run::buffer::try_zeroed;
use crate::run::threads::Disjoint;
use crate::run::units::Units;
use crate::run::work::Pace;
use crate::simd::{Kernel, Use, Vector, Wide};
use crate::tensor::gradients::check_gradient;
use crate::tensor::shape::format_shape;
use crate::tensor::{Data, Tensor};

/// A row as it was given.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row<'u> {
    pub(super) x: &'u [f32],
    pub(super) dy: &'u [f32],
    pub(super) weight: Option<&'u [f32]>,
}

/// What makes x̂ of a row's x, in float64: `(x − mean) · inverse`.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct RowScale {
    pub(super) mean: f64,
    pub(super) inverse: f64,
}

/// Rows whose sums for the weights start from zero: it depends on their width alone.
pub(super) fn strip_rows(width: usize) -> usize {
    (WEIGHT_ELEMENTS / width.max(1)).clamp(1, WEIGHT_ROWS)
}

/// A norm of rows. The gradient of x̂ is g = dy times the weight, where there is one.
pub(super) trait RowNorm: Copy + Send + Sync {
    /// Whether a mean is taken away.
    const CENTRES: bool;
    /// What the values of a row are summed to.
    type Sums: Copy + Default;

    fn sums<V: Vector>(self, row: Row<'_>) -> Self::Sums;

    /// Of a row of `width` values with these sums.
    fn factors(self, sums: Self::Sums, width: usize) -> (Factors, RowScale);
}

/// What a backward call of a norm of rows is made on.
#[derive(Debug, Clone, Copy)]
pub struct RowsBackward<'a, N> {
    dy: Data<'a>,
    x: Data<'a>,
    rows: usize,
    width: usize,
    weight: Option<&'a [f32]>,
    /// A factor on the gradient of the weight.
    scale: f32,
    norm: N,
    run: Run,
}

impl<'a, N> RowsBackward<'a, N> {
    /// Checks dy and x. The weight comes with the factor on its gradient; its length is checked by
    /// who knows its options.
    pub(super) fn new(
        dy: &Tensor<'a>,
        x: &Tensor<'a>,
        (weight, scale): (Option<&'a [f32]>, f32),
        norm: N,
        run: Run,
    ) -> Result<Self, Error> {
        let Some(&width) = x.shape.last() else {
            return Err(Error::shape("x", "1 axis or more", format_shape(&x.shape)));
        };
        let len = check_gradient(dy, ("x", x))?;
        Ok(Self {
            dy: dy.data,
            x: x.data,
            // Without elements there are no rows, whatever the width.
            rows: len.checked_div(width).unwrap_or(0),
            width,
            weight,
            scale,
            norm,
            run,
        })
    }

    pub(super) fn width(&self) -> usize {
        self.width
    }

    fn strip_rows(&self) -> usize {
        strip_rows(self.width)
    }

    fn strips(&self) -> usize {
        self.rows.div_ceil(self.strip_rows())
    }

    /// Strips of a unit of work.
    fn unit_strips(&self) -> usize {
        (UNIT / (self.strip_rows() * self.width.max(1))).max(1)
    }

    /// Rows that stay in L1.
    fn block_rows(&self) -> usize {
        (GRADIENTS_BLOCK / self.width.max(1)).clamp(1, BLOCK_ROWS)
    }
}

impl<N: RowNorm> NormOperator for RowsBackward<'_, N> {
    fn units(&self) -> usize {
        // (One where there are no rows: the weights' gradients are zeros, which somebody writes.)
        self.strips().div_ceil(self.unit_strips()).max(1)
    }

    async fn work(&self, pace: &Pace, outputs: &NormOutputs<'_>) -> Result<(), Error> {
        let NormOutputs { dx, dweight, dbias } = outputs;
        let (strips, unit_strips) = (self.strips(), self.unit_strips());
        let wanted = Wanted {
            products: dweight.is_some() || dbias.is_some(),
            sums: dbias.is_some(),
        };
        let per_strip = wanted.count() * self.width;
        let mut partial = try_zeroed(strips.saturating_mul(per_strip))?;
        let places = Disjoint::new(&mut partial);
        let is_streamed = is_streamed(dx, self.width);
        let elements = unit_strips * self.strip_rows() * self.width;
        let make_scratch = || self.x.wide(self.block_rows() * self.width);
        let mut units = Units::new(self.run, elements, make_scratch);
        let work = |scratch: &mut [Vec<f32>; 2], unit: usize| {
            let strips = unit * unit_strips..((unit + 1) * unit_strips).min(strips);
            // SAFETY: each strip is one unit's.
            let partial = unsafe { places.part(strips.start * per_strip..strips.end * per_strip) };
            self.run.unfused_kernel(Strips {
                call: self,
                strips,
                wanted,
                partial,
                is_streamed,
                outputs,
                scratch,
            });
        };
        units.paced(pace, 0..self.units(), &work).await?;
        let width = self.width;
        let products = partial
            .chunks_exact(per_strip.max(1))
            .map(|strip| &strip[..width]);
        if let Some(dweight) = dweight {
            // SAFETY: (both) nobody else has them.
            add_strips(products, self.scale, unsafe { dweight.part(0..width) })?;
        }
        let sums = partial
            .chunks_exact(per_strip.max(1))
            .map(|strip| &strip[per_strip - width..]);
        if let Some(dbias) = dbias {
            // SAFETY: as above.
            add_strips(sums, 1.0, unsafe { dbias.part(0..width) })?;
        }
        Ok(())
    }
}

/// The strips' sums by channel, added in order, times `scale`, rounded once.
fn add_strips<'p>(
    strips: impl Iterator<Item = &'p [f64]>,
    scale: f32,
    to: &mut [f32],
) -> Result<(), Error> {
    let mut totals: Vec<f64> = try_zeroed(to.len())?;
    for strip in strips {
        for (total, sum) in totals.iter_mut().zip(strip) {
            *total += sum;
        }
    }
    for (to, total) in to.iter_mut().zip(totals) {
        *to = (total * f64::from(scale)) as f32;
    }
    Ok(())
}

/// Which sums for the weights are taken.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    /// Σ dy ∘ x̂.
    products: bool,
    /// Σ dy, beside the products.
    sums: bool,
}

impl Wanted {
    /// Values per channel.
    fn count(self) -> usize {
        usize::from(self.products) + usize::from(self.sums)
    }
}

/// Some strips of a call.
struct Strips<'u, 'a, N> {
    call: &'u RowsBackward<'a, N>,
    strips: Range<usize>,
    wanted: Wanted,
    /// Of each strip, by channel: the products, then the sums.
    partial: &'u mut [f64],
    is_streamed: bool,
    /// Have all rows, of which no other thread writes these.
    outputs: &'u NormOutputs<'u>,
    scratch: &'u mut [Vec<f32>; 2],
}

impl<N: RowNorm> Kernel for Strips<'_, '_, N> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self {
            call,
            strips,
            wanted,
            partial,
            is_streamed,
            outputs,
            scratch,
        } = self;
        let (strip_rows, width) = (call.strip_rows(), call.width);
        for (index, strip) in strips.enumerate() {
            let per_strip = wanted.count() * width;
            let (products, sums) =
                partial[index * per_strip..][..per_strip].split_at_mut(per_strip.min(width));
            let rows = strip * strip_rows..((strip + 1) * strip_rows).min(call.rows);
            for row in rows.clone().step_by(call.block_rows()) {
                let rows = row..(row + call.block_rows()).min(rows.end);
                let block = Block {
                    call,
                    rows,
                    products: &mut *products,
                    sums: wanted.sums.then_some(&mut *sums),
                    outputs,
                    scratch: &mut *scratch,
                };
                if is_streamed && V::STREAMS {
                    block.run::<V, true>();
                } else {
                    block.run::<V, false>();
                }
            }
        }
        if is_streamed {
            V::fence();
        }
    }
}

/// Rows that stay in L1.
struct Block<'u, 'a, N> {
    call: &'u RowsBackward<'a, N>,
    rows: Range<usize>,
    /// Of each channel, where gradients of a weight or a bias are wanted.
    products: &'u mut [f64],
    sums: Option<&'u mut [f64]>,
    outputs: &'u NormOutputs<'u>,
    scratch: &'u mut [Vec<f32>; 2],
}

impl<N: RowNorm> Block<'_, '_, N> {
    /// All sums of the rows, all factors, what they add to the weights' gradients, all of dx: so
    /// the roots and divisions, which each row alone would wait for, overlap.
    #[inline(always)]
    fn run<V: Vector, const STREAM: bool>(self) {
        let Self {
            call,
            rows,
            products,
            sums,
            outputs,
            scratch: [wide_x, wide_dy],
        } = self;
        let &RowsBackward {
            width,
            weight,
            norm,
            ..
        } = call;
        let elements = rows.start * width..rows.end * width;
        let x = call.x.values(elements.clone(), wide_x);
        let dy = call.dy.values(elements.clone(), wide_dy);
        let mut row_sums = [N::Sums::default(); BLOCK_ROWS];
        for (row, sums) in row_sums[..rows.len()].iter_mut().enumerate() {
            let range = row * width..(row + 1) * width;
            if STREAM {
                // The next block is asked for while this one is summed, and not beside the stores.
                ask_for::<V>(&[x, dy].map(|all| &all[range.clone()]), elements.len());
            }
            let (x, dy) = (&x[range.clone()], &dy[range]);
            *sums = norm.sums::<V>(Row { x, dy, weight });
        }
        let mut by_row = [Factors::default(); BLOCK_ROWS];
        let mut scales = [RowScale::default(); BLOCK_ROWS];
        for (row, sums) in row_sums.into_iter().enumerate() {
            (by_row[row], scales[row]) = norm.factors(sums, width);
        }
        if !products.is_empty() {
            let terms = NormalisedRows::<N> {
                x,
                dy,
                width,
                scales,
                norm: PhantomData,
            };
            // SAFETY: x and dy have so many rows, with a channel for each sum.
            unsafe {
                match sums {
                    None => add_rows::<V::Wide, 1>(rows.len(), &terms, [products]),
                    Some(sums) => add_rows::<V::Wide, 2>(rows.len(), &terms, [products, sums]),
                }
            }
        }
        // SAFETY: each row is one unit's; dx is float32, so that nothing is widened.
        let dx = unsafe { outputs.dx.values(elements.clone(), &mut []) };
        let (is_backward, rows) = (is_backward(x, dx), rows.len());
        for i in 0..rows {
            let row = if is_backward { rows - 1 - i } else { i };
            let range = row * width..(row + 1) * width;
            let (x, dy, dx) = (&x[range.clone()], &dy[range.clone()], &mut dx[range]);
            let gradient = GradientRow::<N> {
                x,
                dy,
                weight,
                factors: by_row[row],
                norm: PhantomData,
            };
            debug_assert!(weight.is_none_or(|weight| weight.len() == width));
            // SAFETY: x, dy and the weights are as long as dx.
            unsafe { write::<V, STREAM, 0>(dx, is_backward, [], gradient) };
        }
    }
}

/// dx of a row that is part of something else, and its dy ∘ x̂, added to `products` where there are
/// any: those of a weight's gradient before its factor.
#[inline(always)]
pub(super) fn row_backward<V: Vector, N: RowNorm>(
    norm: N,
    row: Row<'_>,
    dx: &mut [f32],
    products: Option<&mut [f64]>,
) {
    let Row { x, dy, weight } = row;
    let width = dx.len();
    assert!(x.len() == width && dy.len() == width);
    assert!(weight.is_none_or(|weight| weight.len() == width));
    let (factors, scale) = norm.factors(norm.sums::<V>(row), width);
    if let Some(products) = products {
        assert!(products.len() == width);
        let terms = NormalisedRows::<N> {
            x,
            dy,
            width,
            scales: [scale; BLOCK_ROWS],
            norm: PhantomData,
        };
        // SAFETY: x and dy have one row, with a channel for each sum.
        unsafe { add_rows::<V::Wide, 1>(1, &terms, [products]) };
    }
    let gradient = GradientRow::<N> {
        x,
        dy,
        weight,
        factors,
        norm: PhantomData,
    };
    // SAFETY: x, dy and the weights are as long as dx.
    unsafe { write::<V, false, 0>(dx, false, [], gradient) };
}

/// Asks for what lies `ahead` elements behind these rows.
#[inline(always)]
fn ask_for<V: Vector>(rows: &[&[f32]], ahead: usize) {
    for row in rows {
        for line in (0..row.len()).step_by(LINE) {
            V::prefetch(row.as_ptr().wrapping_add(ahead + line), Use::Read);
        }
    }
}

/// dy · x̂ of the rows of a block, and dy.
struct NormalisedRows<'u, N> {
    x: &'u [f32],
    dy: &'u [f32],
    width: usize,
    scales: [RowScale; BLOCK_ROWS],
    norm: PhantomData<N>,
}

impl<N: RowNorm, const T: usize> RowTerms<T> for NormalisedRows<'_, N> {
    #[inline(always)]
    unsafe fn vector<W: Wide>(&self, row: usize, at: usize) -> [W; T] {
        let first = row * self.width + at;
        // SAFETY: (all of it) the caller's promise.
        let (mut x, dy, &RowScale { mean, inverse }) = unsafe {
            (
                W::widen(self.x.as_ptr().add(first)),
                W::widen(self.dy.as_ptr().add(first)),
                self.scales.get_unchecked(row),
            )
        };
        if N::CENTRES {
            x = x.sub(W::splat(mean));
        }
        let mut terms = [dy; T];
        terms[0] = dy.mul(x.mul(W::splat(inverse)));
        terms
    }

    #[inline(always)]
    unsafe fn one(&self, row: usize, at: usize) -> [f64; T] {
        let first = row * self.width + at;
        let RowScale { mean, inverse } = self.scales[row];
        let x = f64::from(self.x[first]) - if N::CENTRES { mean } else { 0.0 };
        let mut terms = [f64::from(self.dy[first]); T];
        terms[0] *= x * inverse;
        terms
    }
}

/// dx of a row, as [`Factors`] say.
struct GradientRow<'u, N> {
    x: &'u [f32],
    dy: &'u [f32],
    weight: Option<&'u [f32]>,
    factors: Factors,
    norm: PhantomData<N>,
}

impl<N: RowNorm> Results for GradientRow<'_, N> {
    #[inline(always)]
    unsafe fn vector<V: Vector>(&self, at: Place) -> V {
        // SAFETY: (all of them) the caller's promise.
        let load = |values: &[f32]| unsafe { V::load(at.of(values)) };
        let factors = self.factors;
        let (mut x, mut g) = (load(self.x), load(self.dy));
        if let Some(weight) = self.weight {
            g = g.mul(load(weight));
        }
        if N::CENTRES {
            g = g.sub(V::splat(factors.mean_gradient));
            x = x.sub(V::splat(factors.mean));
        }
        let x = x
            .mul(V::splat(factors.power))
            .mul(V::splat(factors.deviation));
        g.sub(x)
            .mul(V::splat(factors.rest))
            .mul(V::splat(factors.power))
    }

    #[inline(always)]
    unsafe fn one(&self, at: usize) -> f32 {
        let load = |values: &[f32]| values[at];
        let factors = self.factors;
        let (mut x, mut g) = (load(self.x), load(self.dy));
        if let Some(weight) = self.weight {
            g *= load(weight);
        }
        if N::CENTRES {
            g -= factors.mean_gradient;
            x -= factors.mean;
        }
        (g - x * factors.power * factors.deviation) * factors.rest * factors.power
    }
}
