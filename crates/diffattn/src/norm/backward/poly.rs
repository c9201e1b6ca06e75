//! PolyNorm backward: a row's sums in one walk each, then one walk in float64 that writes its
//! gradients. Weight and bias have few values, whose sums take strips of rows.

use std::ops::Range;

use super::rows::strip_rows;
use crate::blocks::norm::UNIT;
use crate::error::Error;
use crate::norm::poly::{PolyNormOptions, Spreads};
use crate::norm::products::sums_with_powers;
use crate::norm::{check_eps, lanes};
use crate::run::buffer::try_zeroed;
use crate::run::threads::Disjoint;
use crate::run::units::Units;
use crate::run::work::{Pace, Work, at_once};
use crate::simd::{Kernel, Vector};
use crate::tensor::gradients::{bind, bind_wanted, check_gradient, wanted_zeros};
use crate::tensor::shape::{check_len, format_shape};
use crate::tensor::{Data, Tensor};

/// Gradients of PolyNorm, float32: as [`poly_norm_backward`] returns them, or
/// (`PolyNormGradients<&mut [f32]>`) where a [`PolyNormBackward`] writes them.
#[derive(Debug, Clone, PartialEq)]
pub struct PolyNormGradients<T = Vec<f32>> {
    /// Of x, in its shape.
    pub dx: T,
    /// Of the three weights, in the order of [`PolyNormOptions::weight`].
    pub dweight: T,
    /// Of the bias: one value.
    pub dbias: T,
    /// Of the factors, in x's shape: exactly where the call has factors.
    pub dfactors: Option<T>,
}

/// A checked call of [`poly_norm_backward`].
#[derive(Debug)]
pub struct PolyNormBackward<'a> {
    dy: Data<'a>,
    x: Data<'a>,
    shape: Vec<usize>,
    rows: usize,
    width: usize,
    options: PolyNormOptions<'a>,
}

/// Where the gradients of a checked call go.
struct Outputs<'o> {
    dx: Disjoint<'o, f32>,
    dweight: Disjoint<'o, f32>,
    dbias: Disjoint<'o, f32>,
    dfactors: Option<Disjoint<'o, f32>>,
}

/// What a row, or a strip of them, adds to the gradients of the weights and the bias.
type Sums = [f64; 4];

/// Buffers of one thread.
struct Scratch {
    /// A row of x and one of dy that are not float32.
    wide: [Vec<f32>; 2],
    /// A row of dy times the factors, where there are any.
    gradient: Vec<f32>,
}

impl<'a> PolyNormBackward<'a> {
    /// Checks everything and allocates no scratch yet. `x` has any rank of 1 or more, rows are its
    /// last axis, `dy` is as x is, and the options are those of the forward call.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape), [`ErrorKind::Dtype`](crate::ErrorKind::Dtype)
    /// or [`ErrorKind::Option`](crate::ErrorKind::Option), naming the argument.
    pub fn new(
        dy: Tensor<'a>,
        x: Tensor<'a>,
        options: &PolyNormOptions<'a>,
    ) -> Result<Self, Error> {
        let Some(&width) = x.shape.last() else {
            return Err(Error::shape("x", "1 axis or more", format_shape(&x.shape)));
        };
        let len = check_gradient(&dy, ("x", &x))?;
        check_eps(options.eps)?;
        if let Some(factors) = options.factors {
            check_len("factors", &[len], factors.len())?;
        }
        Ok(Self {
            dy: dy.data,
            x: x.data,
            shape: x.shape,
            rows: len.checked_div(width).unwrap_or(0),
            width,
            options: options.clone(),
        })
    }

    /// The shape of dx, and of dfactors where there are any: x's.
    #[must_use]
    pub fn dx_shape(&self) -> &[usize] {
        &self.shape
    }

    /// The work of the call into `gradients`. What they hold before does not matter.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) naming a gradient of another length, or one
    /// that is missing; [`ErrorKind::Option`](crate::ErrorKind::Option) naming one that is too
    /// many.
    pub fn into_work<'o>(
        self,
        gradients: PolyNormGradients<&'o mut [f32]>,
    ) -> Result<Work<'o>, Error>
    where
        'a: 'o,
    {
        let outputs = self.bind(gradients)?;
        Ok(Work::new(self.units(), move |pace| async move {
            self.work(&pace, &outputs).await
        }))
    }

    fn bind<'o>(&self, gradients: PolyNormGradients<&'o mut [f32]>) -> Result<Outputs<'o>, Error> {
        let len = self.x.len();
        let wanted = self.options.factors.map(<[f32]>::len);
        Ok(Outputs {
            dx: bind("dx", len, gradients.dx)?,
            dweight: bind("dweight", 3, gradients.dweight)?,
            dbias: bind("dbias", 1, gradients.dbias)?,
            dfactors: bind_wanted("dfactors", wanted, gradients.dfactors)?,
        })
    }

    fn strips(&self) -> usize {
        self.rows.div_ceil(strip_rows(self.width))
    }

    /// Strips of a unit of work.
    fn unit_strips(&self) -> usize {
        (UNIT / (strip_rows(self.width) * self.width.max(1))).max(1)
    }

    fn units(&self) -> usize {
        // (One where there are no rows: the weights' gradients are zeros, which somebody writes.)
        self.strips().div_ceil(self.unit_strips()).max(1)
    }

    async fn work(&self, pace: &Pace, outputs: &Outputs<'_>) -> Result<(), Error> {
        let (strips, unit_strips) = (self.strips(), self.unit_strips());
        let mut partial: Vec<Sums> = try_zeroed(strips)?;
        let places = Disjoint::new(&mut partial);
        let elements = unit_strips * strip_rows(self.width) * self.width;
        let mut units = Units::new(self.options.run, elements, || {
            let factors = if self.options.factors.is_some() {
                self.width
            } else {
                0
            };
            Ok(Scratch {
                wide: self.x.wide(self.width)?,
                gradient: try_zeroed(factors)?,
            })
        });
        let work = |scratch: &mut Scratch, unit: usize| {
            let strips = unit * unit_strips..((unit + 1) * unit_strips).min(strips);
            self.options.run.unfused_kernel(Strips {
                call: self,
                // SAFETY: each strip is one unit's.
                partial: unsafe { places.part(strips.clone()) },
                strips,
                outputs,
                scratch,
            });
        };
        units.paced(pace, 0..self.units(), &work).await?;
        let mut totals = Sums::default();
        for strip in &partial {
            add(&mut totals, *strip);
        }
        // SAFETY: (both) nobody else has them.
        let (dweight, dbias) = unsafe { (outputs.dweight.part(0..3), outputs.dbias.part(0..1)) };
        for (to, total) in dweight.iter_mut().chain(dbias).zip(totals) {
            *to = total as f32;
        }
        Ok(())
    }
}

fn add(to: &mut Sums, sums: Sums) {
    for (to, sum) in to.iter_mut().zip(sums) {
        *to += sum;
    }
}

/// Some strips of a call.
struct Strips<'u, 'a> {
    call: &'u PolyNormBackward<'a>,
    strips: Range<usize>,
    partial: &'u mut [Sums],
    /// Have all rows, of which no other thread writes these.
    outputs: &'u Outputs<'u>,
    scratch: &'u mut Scratch,
}

impl Kernel for Strips<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self {
            call,
            strips,
            partial,
            outputs,
            scratch:
                Scratch {
                    wide: [wide_x, wide_dy],
                    gradient,
                },
        } = self;
        let (width, options) = (call.width, &call.options);
        let strip_rows = strip_rows(width);
        for (strip, partial) in strips.zip(partial) {
            for row in strip * strip_rows..((strip + 1) * strip_rows).min(call.rows) {
                let elements = row * width..(row + 1) * width;
                let x = call.x.values(elements.clone(), wide_x);
                let dy = call.dy.values(elements.clone(), wide_dy);
                let factors = options.factors.map(|factors| &factors[elements.clone()]);
                let g = match factors {
                    None => dy,
                    Some(factors) => {
                        for ((g, dy), factor) in gradient.iter_mut().zip(dy).zip(factors) {
                            *g = dy * factor;
                        }
                        &*gradient
                    }
                };
                let sums = lanes::sum_powers::<V::Wide>(x);
                let with_g = sums_with_powers::<V::Wide>(x, g);
                let polynomials = Polynomials::new(sums, with_g, width, options);
                add(partial, polynomials.sums);
                // SAFETY: (both) each row is one unit's.
                unsafe {
                    polynomials.gradient(x, g, outputs.dx.part(elements.clone()));
                    if let Some(dfactors) = &outputs.dfactors {
                        polynomials.times_result(x, dy, dfactors.part(elements));
                    }
                }
            }
        }
    }
}

/// The result of a row and its gradient as polynomials in `t = x · power`, which has a root mean
/// square near 1, so that no power of it over- or underflows.
struct Polynomials {
    power: f64,
    /// Factors of t³, t² and t in the result, and its bias.
    result: [f64; 3],
    bias: f64,
    /// Factors of t⁵, t³ and t in what is taken from dx.
    deviation: [f64; 3],
    /// What the row adds to the gradients of the weights and the bias.
    sums: Sums,
}

impl Polynomials {
    /// `sums` are those of x², x⁴ and x⁶, `with_g` those of g, g·x, g·x² and g·x³.
    #[inline(always)]
    fn new(sums: [f64; 3], with_g: [f64; 4], width: usize, options: &PolyNormOptions<'_>) -> Self {
        let spreads = Spreads::new(sums, width, options.eps);
        let [gradients, linear, square, cube] = with_g;
        let power = f64::from(spreads.power);
        // Σ g·tᵏ over its spread, k 3, 2, 1: what the weights' gradients are sums of.
        let products = [
            cube * power * power * power,
            square * power * power,
            linear * power,
        ];
        let mut made = Self {
            power,
            result: [0.0; 3],
            bias: f64::from(options.bias),
            deviation: [0.0; 3],
            sums: [0.0, 0.0, 0.0, gradients],
        };
        for (k, inverse) in spreads.inverses.into_iter().enumerate() {
            made.sums[k] = products[k] * inverse;
            made.result[k] = f64::from(options.weight[k]) * inverse;
            made.deviation[k] = made.result[k] * (made.sums[k] / width as f64) * inverse;
        }
        made
    }

    /// `power · (g · (w₃·3t² + w₂·2t + w₁) − (d₃·3t⁵ + d₂·2t³ + d₁t))`, rounded once.
    #[inline(always)]
    fn gradient(&self, x: &[f32], g: &[f32], dx: &mut [f32]) {
        let [cube, square, linear] = self.result;
        let [fifth, third, first] = self.deviation;
        for ((dx, &x), &g) in dx.iter_mut().zip(x).zip(g) {
            let t = f64::from(x) * self.power;
            let slope = (cube * 3.0 * t + square * 2.0) * t + linear;
            let squared = t * t;
            let deviation = ((fifth * 3.0 * squared + third * 2.0) * squared + first) * t;
            *dx = ((f64::from(g) * slope - deviation) * self.power) as f32;
        }
    }

    /// dy times the row's result, rounded once.
    #[inline(always)]
    fn times_result(&self, x: &[f32], dy: &[f32], to: &mut [f32]) {
        let [cube, square, linear] = self.result;
        for ((to, &x), &dy) in to.iter_mut().zip(x).zip(dy) {
            let t = f64::from(x) * self.power;
            let result = ((cube * t + square) * t + linear) * t + self.bias;
            *to = (f64::from(dy) * result) as f32;
        }
    }
}

/// Gradients of [`poly_norm`](crate::poly_norm) over the last axis (arXiv 2411.03884, as Motif has
/// it) for `dy`, the gradient of its result. With g = dy (times the factors, where there are any)
/// and ûₖ = xᵏ / √(mean(x²ᵏ) + eps) = xᵏ/rₖ, dx is `Σₖ wₖ · (g − ûₖ · mean(g ∘ ûₖ)) / rₖ · k ·
/// xᵏ⁻¹`, the gradient of wₖ is `Σ g ∘ ûₖ` and that of the bias `Σ g`, over strips of 128 rows,
/// each from zero, in float64; that of a factor is dy times what the factor meets. A row of zeros
/// has a dx of zeros when eps is 0; one of x with NaN or an infinite value has a dx of NaN, and
/// makes the weights' gradients NaN. Halves are taken as well as float32.
///
/// ```
/// use diffattn::{PolyNormOptions, Tensor, poly_norm_backward};
///
/// let weight = [0.0, 0.0, 1.0];
/// let options = PolyNormOptions { weight, eps: 0.0, ..PolyNormOptions::default() };
/// let (dy, x) = ([1.0, 0.0], [2.0, 2.0]);
/// let gradients = poly_norm_backward(Tensor::f32(&dy, &[2]), Tensor::f32(&x, &[2]), &options)?;
/// assert_eq!(gradients.dx, [0.25, -0.25]);
/// assert_eq!(gradients.dweight, [1.0, 1.0, 1.0]);
/// assert_eq!(gradients.dbias, [1.0]);
/// # Ok::<(), diffattn::Error>(())
/// ```
///
/// # Errors
/// [`ErrorKind::Shape`](crate::ErrorKind::Shape), [`ErrorKind::Dtype`](crate::ErrorKind::Dtype) or
/// [`ErrorKind::Option`](crate::ErrorKind::Option) for arguments that do not fit;
/// [`Error::out_of_memory`] when memory is refused.
pub fn poly_norm_backward(
    dy: Tensor<'_>,
    x: Tensor<'_>,
    options: &PolyNormOptions<'_>,
) -> Result<PolyNormGradients, Error> {
    let call = PolyNormBackward::new(dy, x, options)?;
    let mut gradients = PolyNormGradients {
        dx: try_zeroed(call.x.len())?,
        dweight: try_zeroed(3)?,
        dbias: try_zeroed(1)?,
        dfactors: wanted_zeros(call.options.factors.map(<[f32]>::len))?,
    };
    let outputs = call.bind(PolyNormGradients {
        dx: &mut gradients.dx,
        dweight: &mut gradients.dweight,
        dbias: &mut gradients.dbias,
        dfactors: gradients.dfactors.as_deref_mut(),
    })?;
    at_once(async |pace| call.work(pace, &outputs).await)?;
    Ok(gradients)
}
