//! Layer norm over the last axis: a row's moments as group norm takes them, then one walk that
//! normalises. Whole rows at once, float32 only; callers that need slices hand it fewer rows.

use super::check_eps;
use super::group::moments::{Moments, shifted_moments};
use super::group::normalise::Standardise;
use super::rows::{Affine, RowMap, map_rows};
use super::write::{Place, Results};
use crate::blocks::norm::CHUNK;
use crate::error::Error;
use crate::run::Run;
use crate::simd::Vector;
use crate::tensor::Tensor;

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

/// Takes the mean of a row away, and divides by its spread.
#[derive(Debug, Clone, Copy)]
struct Normalise {
    eps: f32,
}

impl RowMap for Normalise {
    type Row<'u, V: Vector> = NormedRow<'u>;

    fn check(self) -> Result<(), Error> {
        check_eps(self.eps)
    }

    #[inline(always)]
    fn row<V: Vector>(self, x: &[f32]) -> NormedRow<'_> {
        NormedRow {
            x,
            standardise: Standardise::new(row_moments::<V>(x), self.eps),
        }
    }
}

/// The moments of a row.
#[inline(always)]
pub(super) fn row_moments<V: Vector>(x: &[f32]) -> Moments {
    let mut moments = Moments::default();
    for chunk in x.chunks(CHUNK) {
        moments = moments.merge(shifted_moments::<V, false>(chunk));
    }
    moments
}

/// `(x − mean) / spread` of a row.
struct NormedRow<'u> {
    x: &'u [f32],
    standardise: Standardise,
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
    unsafe fn vector<V: Vector>(&self, at: Place) -> V {
        let [mean, rest_of_mean, power, rest] = self.scalars();
        // SAFETY: the caller's promise.
        let x = unsafe { V::load(at.of(self.x)) };
        x.sub(V::splat(mean))
            .sub(V::splat(rest_of_mean))
            .mul(V::splat(power))
            .mul(V::splat(rest))
    }

    #[inline(always)]
    unsafe fn one(&self, at: usize) -> f32 {
        let [mean, rest_of_mean, power, rest] = self.scalars();
        // SAFETY: the caller's promise.
        (unsafe { self.x.get_unchecked(at) } - mean - rest_of_mean) * power * rest
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
    let &LayerNormOptions {
        weight,
        bias,
        eps,
        run,
    } = options;
    map_rows(&x, out, Affine { weight, bias }, Normalise { eps }, run)
}
