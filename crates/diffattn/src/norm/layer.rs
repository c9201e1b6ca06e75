//! Layer norm over the last axis: a row's moments as group norm takes them, then one walk that
//! normalises. Whole rows at once, float32 only; callers that need slices hand it fewer rows.

use super::check_norm;
use super::group::moments::{Moments, shifted_moments};
use super::group::normalise::Standardise;
use super::write::{Results, is_backward, write};
use crate::blocks::norm::{CHUNK, UNIT};
use crate::error::Error;
use crate::run::Run;
use crate::run::threads::Disjoint;
use crate::run::units::Units;
use crate::simd::{Kernel, Vector};
use crate::tensor::shape::{check_len, format_shape};
use crate::tensor::{Data, Tensor};

/// Options of [`layer_norm`].
#[derive(Debug, Clone)]
pub struct LayerNormOptions<'a> {
    /// One factor per element of the last axis.
    pub weight: Option<&'a [f32]>,
    /// Added per element of the last axis.
    pub bias: Option<&'a [f32]>,
    /// Added to the variance; 1e-5 by default.
    pub eps: f32,
    /// How the call runs: instruction set, threads, fused or not.
    pub run: Run,
}

impl Default for LayerNormOptions<'_> {
    fn default() -> Self {
        Self {
            weight: None,
            bias: None,
            eps: 1e-5,
            run: Run::default(),
        }
    }
}

/// Some rows of a call.
struct Rows<'u> {
    x: &'u [f32],
    y: &'u mut [f32],
    width: usize,
    weight: Option<&'u [f32]>,
    bias: Option<&'u [f32]>,
    eps: f32,
}

impl Kernel for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self {
            x,
            y,
            width,
            weight,
            bias,
            eps,
        } = self;
        for (x, y) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)) {
            let mut moments = Moments::default();
            for chunk in x.chunks(CHUNK) {
                moments = moments.merge(shifted_moments::<V, false>(chunk));
            }
            let row = NormedRow {
                x,
                standardise: Standardise::new(moments, eps),
                weight,
                bias,
            };
            debug_assert!([weight, bias].iter().flatten().all(|w| w.len() == x.len()));
            // SAFETY: x, weight and bias are as long as y.
            unsafe { write::<V, false>(y, is_backward(x, y), x.as_ptr(), row) };
        }
    }
}

/// `(x − mean) / spread · weight + bias` of a row.
struct NormedRow<'u> {
    x: &'u [f32],
    standardise: Standardise,
    weight: Option<&'u [f32]>,
    bias: Option<&'u [f32]>,
}

impl NormedRow<'_> {
    /// What is subtracted, one after the other, and what the rest is multiplied with.
    #[inline(always)]
    fn scalars(&self) -> [f32; 4] {
        let Standardise {
            mean,
            rest_of_mean,
            inverse,
        } = self.standardise;
        let (rest_of_mean, rest) = (rest_of_mean as f32, inverse.rest as f32);
        [mean, rest_of_mean, inverse.power, rest]
    }
}

impl Results for NormedRow<'_> {
    #[inline(always)]
    unsafe fn vector<V: Vector>(&self, at: usize) -> V {
        let [mean, rest_of_mean, power, rest] = self.scalars();
        // SAFETY: (all three) the caller's promise.
        let x = unsafe { V::load(self.x.as_ptr().add(at)) };
        let mut y = x
            .sub(V::splat(mean))
            .sub(V::splat(rest_of_mean))
            .mul(V::splat(power))
            .mul(V::splat(rest));
        if let Some(weight) = self.weight {
            // SAFETY: as above.
            y = y.mul(unsafe { V::load(weight.as_ptr().add(at)) });
        }
        if let Some(bias) = self.bias {
            // SAFETY: as above.
            y = y.add(unsafe { V::load(bias.as_ptr().add(at)) });
        }
        y
    }

    #[inline(always)]
    unsafe fn one(&self, at: usize) -> f32 {
        let [mean, rest_of_mean, power, rest] = self.scalars();
        // SAFETY: (all three) the caller's promise.
        let mut y = (unsafe { self.x.get_unchecked(at) } - mean - rest_of_mean) * power * rest;
        if let Some(weight) = self.weight {
            // SAFETY: as above.
            y *= unsafe { weight.get_unchecked(at) };
        }
        if let Some(bias) = self.bias {
            // SAFETY: as above.
            y += unsafe { bias.get_unchecked(at) };
        }
        y
    }
}

/// Layer norm of a float32 tensor over its last axis, into `out` of x's shape: `(x − mean) /
/// √(variance + eps) · weight + bias` (arXiv 1607.06450). The variance is the biased one. A row of
/// equal values gives its bias, also when eps is 0; a row with a NaN or an infinite value becomes
/// NaN. A row's bits depend on that row alone.
///
/// ```
/// use diffattn::{LayerNormOptions, Tensor, layer_norm};
///
/// let mut y = [0.0; 2];
/// let options = LayerNormOptions { eps: 0.0, ..LayerNormOptions::default() };
/// layer_norm(Tensor::f32(&[1.0, 3.0], &[1, 2]), &mut y, &options)?;
/// assert_eq!(y, [-1.0, 1.0]);
/// # Ok::<(), diffattn::Error>(())
/// ```
///
/// # Errors
/// [`ErrorKind::Shape`](crate::ErrorKind::Shape), [`ErrorKind::Dtype`](crate::ErrorKind::Dtype) or
/// [`ErrorKind::Option`](crate::ErrorKind::Option) for arguments that do not fit.
pub fn layer_norm(
    x: Tensor<'_>,
    out: &mut [f32],
    options: &LayerNormOptions<'_>,
) -> Result<(), Error> {
    let len = check_len("x", &x.shape, x.data.len())?;
    let Some(&width) = x.shape.last() else {
        return Err(Error::shape("x", "1 axis or more", format_shape(&x.shape)));
    };
    let Data::F32(values) = x.data else {
        return Err(Error::dtype("x", "float32", x.data.dtype().name()));
    };
    let &LayerNormOptions {
        weight,
        bias,
        eps,
        run,
    } = options;
    check_norm(eps, width, [("weight", weight), ("bias", bias)])?;
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
            weight,
            bias,
            eps,
        });
    })
}
