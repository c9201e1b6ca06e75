//! Dynamic tanh over the last axis, which some models have where others have a norm. Takes no
//! statistics. Whole rows at once, float32 only; callers that need slices hand it fewer rows.

use std::marker::PhantomData;

use super::rows::{Affine, RowMap, map_rows};
use super::write::{Place, Results};
use crate::error::Error;
use crate::run::Run;
use crate::simd::Vector;
use crate::simd::math::{MAX_LANES, tanh};
use crate::tensor::Tensor;

/// Options of [`dynamic_tanh`].
#[derive(Debug, Clone)]
pub struct DynamicTanhOptions<'a> {
    /// The factor on x, α; 1 by default.
    pub alpha: f32,
    /// One factor on the result per element of the last axis, γ.
    pub weight: Option<&'a [f32]>,
    /// Added per element of the last axis, β.
    pub bias: Option<&'a [f32]>,
    /// How the call runs: instruction set, threads, fused or not.
    pub run: Run,
}

impl Default for DynamicTanhOptions<'_> {
    fn default() -> Self {
        Self {
            alpha: 1.0,
            weight: None,
            bias: None,
            run: Run::default(),
        }
    }
}

/// The factor on x.
#[derive(Debug, Clone, Copy)]
struct Scaled {
    alpha: f32,
}

impl RowMap for Scaled {
    type Row<'u, V: Vector> = TanhRow<'u, V>;

    #[inline(always)]
    fn row<V: Vector>(self, x: &[f32]) -> TanhRow<'_, V> {
        TanhRow {
            x,
            alpha: self.alpha,
            vector: PhantomData,
        }
    }
}

/// `tanh(alpha · x)` of a row.
struct TanhRow<'u, V> {
    x: &'u [f32],
    alpha: f32,
    /// What single values are computed in, too.
    vector: PhantomData<V>,
}

impl<V: Vector> Results for TanhRow<'_, V> {
    #[inline(always)]
    unsafe fn vector<W: Vector>(&self, at: Place) -> W {
        // SAFETY: the caller's promise.
        let x = unsafe { W::load(at.of(self.x)) };
        tanh(x.mul(W::splat(self.alpha)))
    }

    #[inline(always)]
    unsafe fn one(&self, at: usize) -> f32 {
        let mut lanes = [0.0; MAX_LANES];
        // SAFETY: (all of this function) the caller's promise, and MAX_LANES is at least LANES.
        unsafe {
            let x = V::splat(self.alpha * self.x.get_unchecked(at));
            tanh(x).store(lanes.as_mut_ptr());
        }
        lanes[0]
    }
}

/// Dynamic tanh (DyT) of a float32 tensor over its last axis, into `out` of x's shape: `tanh(alpha
/// · x) · weight + bias` (arXiv 2503.10622). NaN for NaN; an infinite x has its limit. Every
/// instruction set gives the same bits, and a value's bits depend on it and its channel alone.
///
/// ```
/// use diffattn::{DynamicTanhOptions, Tensor, dynamic_tanh};
///
/// let mut y = [0.0; 2];
/// let options = DynamicTanhOptions { bias: Some(&[0.5, 1.0]), ..DynamicTanhOptions::default() };
/// dynamic_tanh(Tensor::f32(&[0.0, f32::INFINITY], &[1, 2]), &mut y, &options)?;
/// assert_eq!(y, [0.5, 2.0]);
/// # Ok::<(), diffattn::Error>(())
/// ```
///
/// # Errors
/// [`ErrorKind::Shape`](crate::ErrorKind::Shape) or [`ErrorKind::Dtype`](crate::ErrorKind::Dtype)
/// for arguments that do not fit.
pub fn dynamic_tanh(
    x: Tensor<'_>,
    out: &mut [f32],
    options: &DynamicTanhOptions<'_>,
) -> Result<(), Error> {
    let &DynamicTanhOptions {
        alpha,
        weight,
        bias,
        run,
    } = options;
    map_rows(&x, out, Affine { weight, bias }, Scaled { alpha }, run)
}
