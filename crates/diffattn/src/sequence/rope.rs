//! The rotary position embedding: turns pairs of channels by angles that grow with the position, or
//! back, which is its backward pass.

use std::ops::Range;

use super::axes::Axes;
use super::frequencies::{Angles, RopeFrequencies};
use super::places::{Places, Positions};
use super::table::{self, Filling, RopeTable};
use crate::blocks::norm::UNIT;
use crate::error::Error;
use crate::run::Run;
use crate::run::buffer::try_zeroed;
use crate::run::units::Units;
use crate::run::work::Pace;
use crate::simd::{Kernel, Vector};
use crate::tensor::axis::Layout;
use crate::tensor::call::{Call, Operator};
use crate::tensor::output::Output;
use crate::tensor::shape::checked_len;
use crate::tensor::{Data, Tensor};

/// Options of [`apply_rope`] and [`apply_rope_backward`].
#[derive(Debug, Clone)]
pub struct RopeOptions<'a> {
    /// The layout of x and of the result.
    pub layout: Layout,
    /// Whether channels 2i and 2i + 1 make a pair (the default), or i and i + rotary_dim/2.
    pub interleaved: bool,
    /// How fast each pair turns.
    pub frequencies: RopeFrequencies,
    /// How many of the first channels turn: even, all by default. The others pass unchanged.
    pub rotary_dim: Option<usize>,
    /// Position of the first token: one value, or `[B]`; 0 by default. Not with `positions`.
    pub first_position: Option<Vec<i64>>,
    /// The position of each token.
    pub positions: Option<Positions<'a>>,
    /// A table with the positions of this call, made with the same frequencies (then `frequencies`
    /// is not looked at); without one the call makes its own.
    pub table: Option<&'a RopeTable>,
    /// How the call runs: instruction set, threads, fused or not.
    pub run: Run,
}

impl Default for RopeOptions<'_> {
    fn default() -> Self {
        Self {
            layout: Layout::Bhsd,
            interleaved: true,
            frequencies: RopeFrequencies::default(),
            rotary_dim: None,
            first_position: None,
            positions: None,
            table: None,
            run: Run::default(),
        }
    }
}

/// Where cosines and sines come from.
#[derive(Debug)]
enum Turns<'a> {
    Given(&'a RopeTable),
    /// One row per token, or per batch entry and token.
    Own {
        angles: Angles,
        rows: usize,
    },
}

impl Turns<'_> {
    /// Units of work that it takes to make them.
    fn units(&self, rotary_dim: usize) -> usize {
        match self {
            Self::Given(_) => 0,
            Self::Own { rows, .. } => rows.div_ceil(table::unit_rows(rotary_dim)),
        }
    }
}

/// A checked call of [`apply_rope`]: made by `new`.
pub type Rope<'a> = Call<RopeOperator<'a>>;

/// What the call is made on.
#[derive(Debug)]
pub struct RopeOperator<'a> {
    x: Data<'a>,
    axes: Axes,
    interleaved: bool,
    rotary_dim: usize,
    places: Places<'a>,
    turns: Turns<'a>,
    /// Whether pairs turn back.
    is_backward: bool,
    run: Run,
}

impl<'a> Rope<'a> {
    /// Checks everything and allocates no table yet. `x` is `[B, n, L, d]`, or `[B, L, n, d]` as
    /// the layout has it.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) or
    /// [`ErrorKind::Option`](crate::ErrorKind::Option), naming the argument.
    pub fn new(x: Tensor<'a>, options: &RopeOptions<'a>) -> Result<Self, Error> {
        let operator = RopeOperator::new(("x", &x), options, false)?;
        let dtype = x.data.dtype();
        Ok(Self::of(operator, x.shape, dtype))
    }
}

/// A checked call of [`apply_rope_backward`]: made by `new`.
pub type RopeBackward<'a> = Call<RopeBackwardOperator<'a>>;

/// What the backward call is made on.
#[derive(Debug)]
pub struct RopeBackwardOperator<'a>(RopeOperator<'a>);

impl<'a> RopeBackward<'a> {
    /// Checks everything and allocates no table yet. `dy` is shaped as the forward call's x, and
    /// the options are those of that call.
    ///
    /// # Errors
    /// As [`Rope::new`], naming `dy` where that names `x`.
    pub fn new(dy: Tensor<'a>, options: &RopeOptions<'a>) -> Result<Self, Error> {
        let operator = RopeOperator::new(("dy", &dy), options, true)?;
        Ok(Self::of_gradient(RopeBackwardOperator(operator), dy.shape))
    }
}

impl Operator for RopeBackwardOperator<'_> {
    fn units(&self) -> usize {
        self.0.units()
    }

    async fn work(&self, pace: &Pace, output: &Output<'_>) -> Result<(), Error> {
        self.0.work(pace, output).await
    }
}

impl<'a> RopeOperator<'a> {
    /// Checks everything; `name` is what the caller calls `x`.
    fn new(
        (name, x): (&str, &Tensor<'a>),
        options: &RopeOptions<'a>,
        is_backward: bool,
    ) -> Result<Self, Error> {
        let axes = Axes::new(name, x, options.layout)?;
        let rotary_dim = options.rotary_dim.unwrap_or(axes.width);
        if rotary_dim > axes.width || !rotary_dim.is_multiple_of(2) {
            let expected = format!("an even number of at most {} channels", axes.width);
            return Err(Error::shape("rotary_dim", expected, rotary_dim));
        }
        let first_position = options.first_position.as_deref();
        let places = Places::new(&axes, first_position, options.positions.as_ref())?;
        let turns = match options.table {
            Some(table) => given(table, rotary_dim, &places, &axes)?,
            None => own(&options.frequencies, rotary_dim, &places, &axes)?,
        };
        Ok(Self {
            x: x.data,
            axes,
            interleaved: options.interleaved,
            rotary_dim,
            places,
            turns,
            is_backward,
            run: options.run,
        })
    }
}

/// The turns of `table`, which must have every position of the call.
fn given<'a>(
    table: &'a RopeTable,
    rotary_dim: usize,
    places: &Places<'_>,
    axes: &Axes,
) -> Result<Turns<'a>, Error> {
    if table.rotary_dim() != rotary_dim {
        return Err(Error::shape(
            "table",
            format!("one for {rotary_dim} channels"),
            table.rotary_dim(),
        ));
    }
    if let Some(position) = places.outside(&table.positions(), axes.length) {
        return Err(Error::shape(
            "table",
            format!("one with every position of the call, such as {position}"),
            format_args!("{:?}", table.positions()),
        ));
    }
    Ok(Turns::Given(table))
}

/// The call's own turns, checked and not yet made.
fn own<'a>(
    frequencies: &RopeFrequencies,
    rotary_dim: usize,
    places: &Places<'_>,
    axes: &Axes,
) -> Result<Turns<'a>, Error> {
    // Without rows they are checked, and none is made: a row may then have any width.
    let is_empty = axes.rows() == 0;
    let angles = Angles::new(if is_empty { 0 } else { rotary_dim }, frequencies)?;
    if !is_empty && let Some(last) = places.last(axes.length) {
        frequencies.check_end(last.saturating_add(1))?;
    }
    let rows = if is_empty {
        0
    } else {
        axes.length * if places.by_batch() { axes.batch } else { 1 }
    };
    checked_len("x", &[rows, rotary_dim])?;
    Ok(Turns::Own { angles, rows })
}

impl Operator for RopeOperator<'_> {
    fn units(&self) -> usize {
        self.turns.units(self.rotary_dim) + self.row_units()
    }

    /// The turns, then the rotation.
    async fn work(&self, pace: &Pace, output: &Output<'_>) -> Result<(), Error> {
        let &Self {
            axes,
            rotary_dim,
            ref places,
            ref turns,
            run,
            ..
        } = self;
        let Axes { length, width, .. } = axes;
        let unit_rows = self.unit_rows();
        let table_elements = table::unit_elements(table::unit_rows(rotary_dim), rotary_dim);
        let elements = (unit_rows * width).max(table_elements);
        let mut units = Units::new(run, elements, || self.x.wide(width));
        let mut made;
        let (values, table_first) = match turns {
            Turns::Given(table) => (table.values(), Some(table.positions().start)),
            Turns::Own { angles, rows } => {
                made = try_zeroed(rows * rotary_dim)?;
                let filling = Filling::new(angles, &mut made);
                let position = |row: usize| places.position(row / length, row % length, length);
                let fill = |_: &mut _, unit| {
                    // SAFETY: each unit is worked on once.
                    unsafe { filling.unit(unit, position) }
                };
                units.paced(pace, 0..turns.units(rotary_dim), &fill).await?;
                (made.as_slice(), None)
            }
        };
        let by_batch = places.by_batch();
        // The row of the table for a row of x.
        let turn = |row: usize| {
            let (batch, token) = axes.token(row);
            match table_first {
                // Checked: the table has the position.
                Some(first) => (places.position(batch, token, length) - first) as usize,
                None if by_batch => batch * length + token,
                None => token,
            }
        };
        let rotate = |scratch: &mut [Vec<f32>; 2], unit| {
            let first = unit * unit_rows;
            run.unfused_kernel(Rotate {
                call: self,
                rows: first..(first + unit_rows).min(axes.rows()),
                values,
                turn: &turn,
                output,
                scratch,
            });
        };
        units.paced(pace, 0..self.row_units(), &rotate).await
    }
}

impl RopeOperator<'_> {
    /// Rows of x per unit of work.
    fn unit_rows(&self) -> usize {
        UNIT.checked_div(self.axes.width).unwrap_or(1).max(1)
    }

    /// Units of the rotation.
    fn row_units(&self) -> usize {
        self.axes.rows().div_ceil(self.unit_rows())
    }
}

/// Some rows of a call.
struct Rotate<'u, F> {
    call: &'u RopeOperator<'u>,
    rows: Range<usize>,
    values: &'u [f32],
    turn: &'u F,
    /// Has all rows, of which no other thread writes these.
    output: &'u Output<'u>,
    scratch: &'u mut [Vec<f32>; 2],
}

impl<F: Fn(usize) -> usize> Kernel for Rotate<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self {
            call,
            rows,
            values,
            turn,
            output,
            scratch: [widened, turned],
        } = self;
        let &RopeOperator {
            x,
            axes: Axes { width, .. },
            interleaved,
            rotary_dim,
            is_backward,
            ..
        } = call;
        for row in rows {
            let elements = row * width..(row + 1) * width;
            let x = x.values(elements.clone(), widened);
            // SAFETY: each row is one unit's.
            let y = unsafe { output.values(elements.clone(), turned) };
            let (cosines, sines) =
                values[turn(row) * rotary_dim..][..rotary_dim].split_at(rotary_dim / 2);
            let (x_turning, x_rest) = x.split_at(rotary_dim);
            let (y_turning, y_rest) = y.split_at_mut(rotary_dim);
            match (interleaved, is_backward) {
                (true, false) => rotate_neighbours::<V, 1>(x_turning, cosines, sines, y_turning),
                (true, true) => rotate_neighbours::<V, -1>(x_turning, cosines, sines, y_turning),
                (false, false) => rotate_halves::<V, 1>(x_turning, cosines, sines, y_turning),
                (false, true) => rotate_halves::<V, -1>(x_turning, cosines, sines, y_turning),
            }
            y_rest.copy_from_slice(x_rest);
            // SAFETY: as above.
            unsafe { output.finish(elements.start, y) };
        }
    }
}

/// A pair turned, back where `WAY` is −1.
#[inline(always)]
fn turned<V: Vector, const WAY: i32>([a, b]: [V; 2], cosine: V, sine: V) -> [V; 2] {
    if WAY < 0 {
        return [
            a.mul(cosine).add(b.mul(sine)),
            b.mul(cosine).sub(a.mul(sine)),
        ];
    }
    [
        a.mul(cosine).sub(b.mul(sine)),
        a.mul(sine).add(b.mul(cosine)),
    ]
}

/// [`turned`] of single values.
#[inline(always)]
fn turned_one<const WAY: i32>([a, b]: [f32; 2], cosine: f32, sine: f32) -> [f32; 2] {
    let sine = if WAY < 0 { -sine } else { sine };
    [a * cosine - b * sine, a * sine + b * cosine]
}

/// Pairs (2i, 2i + 1).
#[inline(always)]
fn rotate_neighbours<V: Vector, const WAY: i32>(
    x: &[f32],
    cosines: &[f32],
    sines: &[f32],
    y: &mut [f32],
) {
    let pairs = cosines.len();
    debug_assert!(sines.len() == pairs && x.len() == 2 * pairs && y.len() == 2 * pairs);
    let whole = pairs / V::LANES * V::LANES;
    for i in (0..whole).step_by(V::LANES) {
        // SAFETY: LANES pairs from `i` on are below `pairs`, two values of x and of y each.
        unsafe {
            let (x, y) = (x.as_ptr().add(2 * i), y.as_mut_ptr().add(2 * i));
            let (cosine, sine) = (cosines.as_ptr().add(i), sines.as_ptr().add(i));
            let pair = V::apart(V::load(x), V::load(x.add(V::LANES)));
            let [a, b] = turned::<V, WAY>(pair, V::load(cosine), V::load(sine));
            let [low, high] = V::together(a, b);
            low.store(y);
            high.store(y.add(V::LANES));
        }
    }
    for i in whole..pairs {
        [y[2 * i], y[2 * i + 1]] =
            turned_one::<WAY>([x[2 * i], x[2 * i + 1]], cosines[i], sines[i]);
    }
}

/// Pairs (i, i + rotary_dim/2).
#[inline(always)]
fn rotate_halves<V: Vector, const WAY: i32>(
    x: &[f32],
    cosines: &[f32],
    sines: &[f32],
    y: &mut [f32],
) {
    let pairs = cosines.len();
    debug_assert!(sines.len() == pairs && x.len() == 2 * pairs && y.len() == 2 * pairs);
    let whole = pairs / V::LANES * V::LANES;
    for i in (0..whole).step_by(V::LANES) {
        // SAFETY: LANES pairs from `i` on are below `pairs`, two values of x and of y each.
        unsafe {
            let (x, y) = (x.as_ptr().add(i), y.as_mut_ptr().add(i));
            let (cosine, sine) = (cosines.as_ptr().add(i), sines.as_ptr().add(i));
            let pair = [V::load(x), V::load(x.add(pairs))];
            let [a, b] = turned::<V, WAY>(pair, V::load(cosine), V::load(sine));
            a.store(y);
            b.store(y.add(pairs));
        }
    }
    for i in whole..pairs {
        [y[i], y[pairs + i]] = turned_one::<WAY>([x[i], x[pairs + i]], cosines[i], sines[i]);
    }
}

/// Rotary position embedding of a float32 tensor (arXiv 2104.09864): pair i of a token at position
/// p turns by the angle `p · theta^(−2i / rotary_dim)`, scaled. The result has x's shape.
///
/// ```
/// use diffattn::{RopeOptions, Tensor, apply_rope};
///
/// // One head, two tokens, d 2: the token at position 0 does not turn.
/// let y = apply_rope(Tensor::f32(&[1.0, 0.0, 1.0, 0.0], &[1, 1, 2, 2]), &RopeOptions::default())?;
/// assert_eq!(&y[..2], &[1.0, 0.0]);
/// assert!((y[2] - 1.0_f32.cos()).abs() < 1e-6 && (y[3] - 1.0_f32.sin()).abs() < 1e-6);
/// # Ok::<(), diffattn::Error>(())
/// ```
///
/// # Errors
/// [`ErrorKind::Shape`](crate::ErrorKind::Shape), [`ErrorKind::Dtype`](crate::ErrorKind::Dtype) or
/// [`ErrorKind::Option`](crate::ErrorKind::Option) for arguments that do not fit (halves need
/// [`Rope`]); [`Error::out_of_memory`] when memory is refused.
pub fn apply_rope(x: Tensor<'_>, options: &RopeOptions<'_>) -> Result<Vec<f32>, Error> {
    Rope::new(x, options)?.finish_f32()
}

/// The gradient of [`apply_rope`]'s x (arXiv 2104.09864) for `dy`, float32, the gradient of its
/// result: each pair turned by the negative angle, times the same attention factor; channels that
/// do not turn pass unchanged. It has dy's shape, and takes the options of the forward call.
///
/// ```
/// use diffattn::{RopeOptions, Tensor, apply_rope_backward};
///
/// let dy = [1.0, 0.0, 1.0, 0.0];
/// let dx = apply_rope_backward(Tensor::f32(&dy, &[1, 1, 2, 2]), &RopeOptions::default())?;
/// assert_eq!(&dx[..2], &[1.0, 0.0]);
/// assert!((dx[2] - 1.0_f32.cos()).abs() < 1e-6 && (dx[3] + 1.0_f32.sin()).abs() < 1e-6);
/// # Ok::<(), diffattn::Error>(())
/// ```
///
/// # Errors
/// [`ErrorKind::Shape`](crate::ErrorKind::Shape) or [`ErrorKind::Option`](crate::ErrorKind::Option)
/// for arguments that do not fit; [`Error::out_of_memory`] when memory is refused. Of halves the
/// gradient is float32, too.
pub fn apply_rope_backward(dy: Tensor<'_>, options: &RopeOptions<'_>) -> Result<Vec<f32>, Error> {
    RopeBackward::new(dy, options)?.finish_f32()
}
