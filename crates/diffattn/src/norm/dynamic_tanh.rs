//! Dynamic tanh over the last axis, which some models have where others have a norm. Takes no
//! statistics. Whole rows at once, float32 only; callers that need slices hand it fewer rows.

use std::marker::PhantomData;

use super::write::{Results, is_backward, write};
use crate::blocks::norm::UNIT;
use crate::error::Error;
use crate::run::Run;
use crate::run::threads::Disjoint;
use crate::run::units::Units;
use crate::simd::math::{MAX_LANES, tanh};
use crate::simd::{Kernel, Vector};
use crate::tensor::shape::{check_len, format_shape};
use crate::tensor::{Data, Tensor};

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

/// Some rows of a call.
struct Rows<'u> {
    x: &'u [f32],
    y: &'u mut [f32],
    width: usize,
    alpha: f32,
    weight: Option<&'u [f32]>,
    bias: Option<&'u [f32]>,
}

impl Kernel for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self {
            x,
            y,
            width,
            alpha,
            weight,
            bias,
        } = self;
        for (x, y) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)) {
            let row = TanhRow::<V> {
                x,
                alpha,
                weight,
                bias,
                vector: PhantomData,
            };
            debug_assert!([weight, bias].iter().flatten().all(|w| w.len() == x.len()));
            // SAFETY: x, weight and bias are as long as y.
            unsafe { write::<V, false>(y, is_backward(x, y), x.as_ptr(), row) };
        }
    }
}

/// `tanh(alpha · x) · weight + bias` of a row.
struct TanhRow<'u, V> {
    x: &'u [f32],
    alpha: f32,
    weight: Option<&'u [f32]>,
    bias: Option<&'u [f32]>,
    /// What single values are computed in, too.
    vector: PhantomData<V>,
}

impl<V: Vector> Results for TanhRow<'_, V> {
    #[inline(always)]
    unsafe fn vector<W: Vector>(&self, at: usize) -> W {
        // SAFETY: (all three) the caller's promise.
        let x = unsafe { W::load(self.x.as_ptr().add(at)) };
        let mut y = tanh(x.mul(W::splat(self.alpha)));
        if let Some(weight) = self.weight {
            // SAFETY: as above.
            y = y.mul(unsafe { W::load(weight.as_ptr().add(at)) });
        }
        if let Some(bias) = self.bias {
            // SAFETY: as above.
            y = y.add(unsafe { W::load(bias.as_ptr().add(at)) });
        }
        y
    }

    #[inline(always)]
    unsafe fn one(&self, at: usize) -> f32 {
        let mut lanes = [0.0; MAX_LANES];
        // SAFETY: (all of this function) the caller's promise, and MAX_LANES is at least LANES.
        unsafe {
            let x = V::splat(self.alpha * self.x.get_unchecked(at));
            tanh(x).store(lanes.as_mut_ptr());
            let mut y = lanes[0];
            if let Some(weight) = self.weight {
                y *= weight.get_unchecked(at);
            }
            if let Some(bias) = self.bias {
                y += bias.get_unchecked(at);
            }
            y
        }
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
    let len = check_len("x", &x.shape, x.data.len())?;
    let Some(&width) = x.shape.last() else {
        return Err(Error::shape("x", "1 axis or more", format_shape(&x.shape)));
    };
    let Data::F32(values) = x.data else {
        return Err(Error::dtype("x", "float32", x.data.dtype().name()));
    };
    let &DynamicTanhOptions {
        alpha,
        weight,
        bias,
        run,
    } = options;
    for (name, values) in [("weight", weight), ("bias", bias)] {
        if let Some(values) = values {
            check_len(name, &[width], values.len())?;
        }
    }
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
            alpha,
            weight,
            bias,
        });
    })
}
