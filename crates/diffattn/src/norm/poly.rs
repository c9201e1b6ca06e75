//! PolyNorm over rows, in place: a row's three sums in one walk, then one walk that writes. Whole
//! rows at once, float32 only; callers that need slices hand it fewer rows.

use super::{check_eps, lanes, spread::InverseSpread};
use crate::blocks::norm::UNIT;
use crate::error::Error;
use crate::run::Run;
use crate::run::threads::Disjoint;
use crate::run::units::Units;
use crate::simd::{Kernel, Vector};
use crate::tensor::shape::check_len;

/// Options of [`poly_norm`].
#[derive(Debug, Clone)]
pub struct PolyNormOptions<'a> {
    /// What the normalised cubes, squares and values are multiplied with, in this order; 1/3 each
    /// by default.
    pub weight: [f32; 3],
    /// Added to each result; 0 by default.
    pub bias: f32,
    /// Added to each of the three mean squares; 1e-6 by default.
    pub eps: f32,
    /// One factor per result, as the other half of a gated MLP has them; none by default.
    pub factors: Option<&'a [f32]>,
    /// How the call runs: instruction set, threads, fused or not.
    pub run: Run,
}

impl Default for PolyNormOptions<'_> {
    fn default() -> Self {
        Self {
            weight: [1.0 / 3.0; 3],
            bias: 0.0,
            eps: 1e-6,
            factors: None,
            run: Run::default(),
        }
    }
}

/// What a row's values are brought near 1 with, a power of two, and the inverse spreads of the
/// cubes, squares and values of what that makes of them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spreads {
    pub(super) power: f32,
    pub(super) inverses: [f64; 3],
}

impl Spreads {
    /// `sums` are those of z², z⁴ and z⁶ over `width` values.
    #[inline(always)]
    pub(super) fn new(sums: [f64; 3], width: usize, eps: f32) -> Self {
        let eps = f64::from(eps);
        let [second, fourth, sixth] = sums.map(|sum| sum / width as f64);
        // The square of no finite float32 overflows float64.
        let spread = if second == f64::INFINITY {
            f64::NAN
        } else {
            second.sqrt()
        };
        let power = InverseSpread::of(spread).power;
        let unit = if spread.is_nan() {
            f64::NAN
        } else {
            1.0 / f64::from(power)
        };
        // A row of zeros gives zeros, also when eps is 0.
        let inverse = |mean_square: f64, unit: f64| {
            let spread = (mean_square + eps).sqrt();
            if spread == 0.0 { 0.0 } else { unit / spread }
        };
        Self {
            power,
            inverses: [
                inverse(sixth, unit * unit * unit),
                inverse(fourth, unit * unit),
                inverse(second, unit),
            ],
        }
    }
}

/// `((cube · t + square) · t + linear) · t + bias` with `t = z · power`: PolyNorm of a row whose
/// sums are known. The power of two brings the row's root mean square near 1, so that no cube over-
/// or underflows.
#[derive(Debug, Clone, Copy)]
struct Polynomial {
    power: f32,
    cube: f32,
    square: f32,
    linear: f32,
    bias: f32,
}

impl Polynomial {
    /// `sums` are those of z², z⁴ and z⁶ over `width` values.
    #[inline(always)]
    fn new(sums: [f64; 3], width: usize, options: &PolyNormOptions<'_>) -> Self {
        let Spreads { power, inverses } = Spreads::new(sums, width, options.eps);
        let coefficient = |k: usize| (f64::from(options.weight[k]) * inverses[k]) as f32;
        Self {
            power,
            cube: coefficient(0),
            square: coefficient(1),
            linear: coefficient(2),
            bias: options.bias,
        }
    }

    #[inline(always)]
    fn of<V: Vector>(self, z: V) -> V {
        let t = z.mul(V::splat(self.power));
        let y = V::splat(self.cube).mul(t).add(V::splat(self.square));
        let y = y.mul(t).add(V::splat(self.linear));
        y.mul(t).add(V::splat(self.bias))
    }

    /// [`Polynomial::of`], to the same bits.
    #[inline(always)]
    fn of_one(self, z: f32) -> f32 {
        let t = z * self.power;
        ((self.cube * t + self.square) * t + self.linear) * t + self.bias
    }

    /// Replaces the values of a row, times their factors where there are any.
    #[inline(always)]
    fn replace<V: Vector>(self, row: &mut [f32], factors: &[f32]) {
        let len = row.len();
        let mut vectors = row.chunks_exact_mut(V::LANES);
        for (index, vector) in vectors.by_ref().enumerate() {
            let at = vector.as_mut_ptr();
            // SAFETY: `vector` has LANES values, and so many factors there are where there are any.
            unsafe {
                let mut y = self.of(V::load(at));
                if !factors.is_empty() {
                    y = y.mul(V::load(factors[index * V::LANES..][..V::LANES].as_ptr()));
                }
                y.store(at);
            }
        }
        let tail = vectors.into_remainder();
        let first = len - tail.len();
        for (at, z) in tail.iter_mut().enumerate() {
            *z = self.of_one(*z);
            if let Some(factor) = factors.get(first + at) {
                *z *= factor;
            }
        }
    }
}

/// Some rows of a call, and their factors.
struct Rows<'u> {
    values: &'u mut [f32],
    factors: Option<&'u [f32]>,
    width: usize,
    options: &'u PolyNormOptions<'u>,
}

impl Kernel for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self {
            values,
            factors,
            width,
            options,
        } = self;
        for (index, row) in values.chunks_exact_mut(width).enumerate() {
            let sums = lanes::sum_powers::<V::Wide>(row);
            let factors = factors.map_or(&[][..], |factors| &factors[index * width..][..width]);
            Polynomial::new(sums, width, options).replace::<V>(row, factors);
        }
    }
}

/// Replaces each value z of rows of `width` values by `w₀ · rms(z³) + w₁ · rms(z²) + w₂ · rms(z) +
/// bias`, times its factor where there are factors; `rms(u) = u / √(mean(u²) + eps)` over the row
/// (arXiv 2411.03884, as Motif has it). A row of zeros gives its bias, also when eps is 0; a row
/// with a NaN or an infinite value becomes NaN. A row's bits depend on that row alone, and are the
/// same on every instruction set.
///
/// ```
/// use diffattn::{PolyNormOptions, poly_norm};
///
/// let mut values = [2.0, -2.0];
/// let options = PolyNormOptions {
///     weight: [0.5, 0.25, 1.0],
///     eps: 0.0,
///     ..PolyNormOptions::default()
/// };
/// poly_norm(&mut values, 2, &options)?;
/// assert_eq!(values, [1.75, -1.25]);
/// # Ok::<(), diffattn::Error>(())
/// ```
///
/// # Errors
/// [`ErrorKind::Shape`](crate::ErrorKind::Shape) or [`ErrorKind::Option`](crate::ErrorKind::Option)
/// for arguments that do not fit.
pub fn poly_norm(
    values: &mut [f32],
    width: usize,
    options: &PolyNormOptions<'_>,
) -> Result<(), Error> {
    let len = values.len();
    if width == 0 || !len.is_multiple_of(width) {
        return Err(Error::shape(
            "values",
            format_args!("rows of {width} elements"),
            format_args!("{len} elements"),
        ));
    }
    check_eps(options.eps)?;
    if let Some(factors) = options.factors {
        check_len("factors", &[len], factors.len())?;
    }
    if len == 0 {
        return Ok(());
    }
    let unit = (UNIT / width).max(1) * width;
    let values = Disjoint::new(values);
    let mut units = Units::new(options.run, unit, || Ok(()));
    units.run(0..len.div_ceil(unit), &|(), index| {
        let elements = index * unit..((index + 1) * unit).min(len);
        options.run.unfused_kernel(Rows {
            factors: options.factors.map(|factors| &factors[elements.clone()]),
            // SAFETY: each row is one unit's.
            values: unsafe { values.part(elements) },
            width,
            options,
        });
    })
}
