//! The rotary position embedding: turns pairs of channels by angles that grow with the position.

use std::marker::PhantomData;
use std::ops::Range;

use super::Axes;
use super::frequencies::{Angles, RopeFrequencies};
use super::table::{self, RopeTable};
use crate::error::Error;
use crate::run::Run;
use crate::run::buffer::try_zeroed;
use crate::run::slices::Slices;
use crate::run::units::{UNIT, Units};
use crate::simd::{Isa, Kernel, Vector};
use crate::tensor::axis::Layout;
use crate::tensor::output::Output;
use crate::tensor::shape::{check_len, checked_len, format_shape};
use crate::tensor::{DType, Data, DataMut, Tensor};

/// Positions of tokens, `[L]` or `[B, L]`.
#[derive(Debug, Clone)]
pub struct Positions<'a> {
    /// The positions; negative ones are fine.
    pub data: &'a [i64],
    /// Their shape.
    pub shape: Vec<usize>,
}

/// Options of [`apply_rope`].
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
    /// A table with the positions of this call, made with the same frequencies (then `frequencies` is not looked
    /// at); without one the call makes its own.
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

/// The position of each token of each batch entry.
#[derive(Debug, Clone)]
enum Places<'a> {
    /// The first token's: one, or one per batch entry.
    From(Vec<i64>),
    /// `[L]`, or `[B, L]` when `by_batch`.
    Listed {
        positions: &'a [i64],
        by_batch: bool,
    },
}

impl<'a> Places<'a> {
    fn new(axes: &Axes, options: &RopeOptions<'a>) -> Result<Self, Error> {
        match (&options.first_position, &options.positions) {
            (Some(_), Some(_)) => Err(Error::option(
                "first_position",
                "nothing beside positions",
                "both",
            )),
            (None, None) => Ok(Self::From(vec![0])),
            (Some(first), None) => {
                if first.len() != 1 && first.len() != axes.batch {
                    let expected = format_args!("1 or {} values (one per batch entry)", axes.batch)
                        .to_string();
                    return Err(Error::shape("first_position", expected, first.len()));
                }
                // Past the last one, positions would wrap.
                match first
                    .iter()
                    .find(|first| first.checked_add_unsigned(axes.length as u64).is_none())
                {
                    Some(first) => Err(Error::option(
                        "first_position",
                        "positions that fit 64 bits",
                        first,
                    )),
                    None => Ok(Self::From(first.clone())),
                }
            }
            (None, Some(Positions { data, shape })) => {
                let by_batch = match *shape.as_slice() {
                    [length] if length == axes.length => false,
                    [batch, length] if batch == axes.batch && length == axes.length => true,
                    _ => {
                        let expected =
                            format!("shape [{1}] or [{0}, {1}]", axes.batch, axes.length);
                        return Err(Error::shape("positions", expected, format_shape(shape)));
                    }
                };
                check_len("positions", shape, data.len())?;
                Ok(Self::Listed {
                    positions: data,
                    by_batch,
                })
            }
        }
    }

    /// Whether batch entries differ.
    fn by_batch(&self) -> bool {
        match self {
            Self::From(first) => first.len() > 1,
            Self::Listed { by_batch, .. } => *by_batch,
        }
    }

    #[inline]
    fn position(&self, batch: usize, token: usize, length: usize) -> i64 {
        match self {
            Self::From(first) => first[if first.len() > 1 { batch } else { 0 }] + token as i64,
            Self::Listed {
                positions,
                by_batch,
            } => positions[if *by_batch { batch * length } else { 0 } + token],
        }
    }

    /// The highest position, of tokens if there are any.
    fn last(&self, length: usize) -> Option<i64> {
        match self {
            _ if length == 0 => None,
            Self::From(first) => first.iter().map(|&first| first + (length as i64 - 1)).max(),
            Self::Listed { positions, .. } => positions.iter().copied().max(),
        }
    }

    /// The first position outside of `range`.
    fn outside(&self, range: &Range<i64>, length: usize) -> Option<i64> {
        match self {
            _ if length == 0 => None,
            Self::From(first) => {
                let ends = first
                    .iter()
                    .flat_map(|&first| [first, first + (length as i64 - 1)]);
                ends.into_iter().find(|position| !range.contains(position))
            }
            Self::Listed { positions, .. } => positions
                .iter()
                .copied()
                .find(|position| !range.contains(position)),
        }
    }
}

/// Where cosines and sines come from.
#[derive(Debug)]
enum Turns<'a> {
    Given(&'a RopeTable),
    /// One row per token, or per batch entry and token; filled by the first `units`.
    Own {
        angles: Angles,
        values: Vec<f32>,
        units: usize,
    },
}

/// A checked call of [`apply_rope`]: made by [`Rope::new`], given its output by [`Rope::bind`], worked off by
/// [`Slices::step`].
#[derive(Debug)]
pub struct Rope<'a> {
    x: Data<'a>,
    shape: Vec<usize>,
    axes: Axes,
    interleaved: bool,
    rotary_dim: usize,
    places: Places<'a>,
    turns: Turns<'a>,
    unit_rows: usize,
    isa: Isa,
    output: Option<Output>,
    /// A row of x and of the result as float32; empty where they are that themselves.
    units: Units<[Vec<f32>; 2]>,
    borrow: PhantomData<&'a mut [f32]>,
}

impl<'a> Rope<'a> {
    /// Checks everything and allocates no table yet. `x` is `[B, n, L, d]`, or `[B, L, n, d]` as the layout has it.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) or [`ErrorKind::Option`](crate::ErrorKind::Option), naming the argument.
    pub fn new(x: Tensor<'a>, options: &RopeOptions<'a>) -> Result<Self, Error> {
        let axes = Axes::new(&x, options.layout)?;
        let rotary_dim = options.rotary_dim.unwrap_or(axes.width);
        if rotary_dim > axes.width || !rotary_dim.is_multiple_of(2) {
            let expected = format!("an even number of at most {} channels", axes.width);
            return Err(Error::shape("rotary_dim", expected, rotary_dim));
        }
        let places = Places::new(&axes, options)?;
        let rows = axes.rows();
        let (turns, table_units) = match options.table {
            Some(table) => {
                if table.rotary_dim() != rotary_dim {
                    return Err(Error::shape(
                        "table",
                        format!("one for {rotary_dim} channels"),
                        table.rotary_dim(),
                    ));
                }
                if let Some(position) = places.outside(&table.positions(), axes.length) {
                    let expected =
                        format!("one with every position of the call, such as {position}");
                    return Err(Error::shape(
                        "table",
                        expected,
                        format_args!("{:?}", table.positions()),
                    ));
                }
                (Turns::Given(table), 0)
            }
            None => {
                // Without rows they are checked, and none is made: a row may then have any width.
                let turning = if rows == 0 { 0 } else { rotary_dim };
                let angles = Angles::new(turning, &options.frequencies)?;
                if rows > 0
                    && let Some(last) = places.last(axes.length)
                {
                    options.frequencies.check_end(last.saturating_add(1))?;
                }
                let table_rows = if rows == 0 {
                    0
                } else {
                    axes.length * if places.by_batch() { axes.batch } else { 1 }
                };
                checked_len("x", &[table_rows, rotary_dim])?;
                let units = table_rows.div_ceil(table::unit_rows(rotary_dim));
                (
                    Turns::Own {
                        angles,
                        values: Vec::new(),
                        units,
                    },
                    units,
                )
            }
        };
        let unit_rows = UNIT.checked_div(axes.width).unwrap_or(1).max(1);
        let unit_elements = (unit_rows * axes.width).max(table::unit_elements(
            table::unit_rows(rotary_dim),
            rotary_dim,
        ));
        Ok(Self {
            x: x.data,
            shape: x.shape,
            axes,
            interleaved: options.interleaved,
            rotary_dim,
            places,
            turns,
            unit_rows,
            isa: options.run.isa(),
            output: None,
            units: Units::new(
                options.run.threads(),
                table_units + rows.div_ceil(unit_rows),
                unit_elements,
            )?,
            borrow: PhantomData,
        })
    }

    /// The result's shape: x's.
    #[must_use]
    pub fn output_shape(&self) -> &[usize] {
        &self.shape
    }

    /// The result's element type: x's.
    #[must_use]
    pub fn output_dtype(&self) -> DType {
        self.x.dtype()
    }

    /// Gives the output.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) or [`ErrorKind::Dtype`](crate::ErrorKind::Dtype) when it does not fit.
    pub fn bind(&mut self, out: DataMut<'a>) -> Result<(), Error> {
        self.output = Some(Output::bind(out, self.x.dtype(), &self.shape)?);
        Ok(())
    }

    /// The next units of one phase: the table, or the rotation.
    fn advance(&mut self, count: usize) -> Result<(), Error> {
        let output = Output::bound(self.output)?;
        let Self {
            x,
            axes,
            interleaved,
            rotary_dim,
            unit_rows,
            isa,
            ..
        } = *self;
        let make_scratch = || {
            let width = if x.dtype() == DType::F32 {
                0
            } else {
                axes.width
            };
            Ok([try_zeroed(width)?, try_zeroed(width)?])
        };
        let places = &self.places;
        let (values, table_units, table_first) = match &mut self.turns {
            Turns::Given(table) => (table.values(), 0, Some(table.positions().start)),
            Turns::Own {
                angles,
                values,
                units,
            } => {
                if self.units.done() < *units {
                    if values.is_empty() {
                        let batch = if places.by_batch() { axes.batch } else { 1 };
                        *values = try_zeroed(batch * axes.length * rotary_dim)?;
                    }
                    let position = |row: usize| {
                        places.position(row / axes.length, row % axes.length, axes.length)
                    };
                    return table::fill(
                        &mut self.units,
                        count,
                        *units,
                        make_scratch,
                        angles,
                        values,
                        position,
                    );
                }
                (values.as_slice(), *units, None)
            }
        };
        let by_batch = places.by_batch();
        // The row of the table for a row of x.
        let turn = |row: usize| {
            let (batch, token) = axes.token(row);
            match table_first {
                // Checked: the table has the position.
                Some(first) => (places.position(batch, token, axes.length) - first) as usize,
                None if by_batch => batch * axes.length + token,
                None => token,
            }
        };
        self.units
            .step(count, usize::MAX, make_scratch, |scratch, unit| {
                let first = (unit - table_units) * unit_rows;
                let rows = first..(first + unit_rows).min(axes.rows());
                let width = axes.width;
                isa.run(
                    true,
                    Rotate {
                        x,
                        width,
                        rows,
                        interleaved,
                        rotary_dim,
                        values,
                        turn: &turn,
                        output,
                        scratch,
                    },
                );
            })
    }
}

impl Slices for Rope<'_> {
    fn total(&self) -> usize {
        self.units.total()
    }

    fn done(&self) -> usize {
        self.units.done()
    }

    fn step(&mut self, count: usize) -> Result<(), Error> {
        let end = self.done().saturating_add(count.max(1)).min(self.total());
        while self.done() < end {
            self.advance(end - self.done())?;
        }
        Ok(())
    }
}

/// Some rows of a call.
struct Rotate<'u, F> {
    x: Data<'u>,
    width: usize,
    rows: Range<usize>,
    interleaved: bool,
    rotary_dim: usize,
    values: &'u [f32],
    turn: &'u F,
    output: Output,
    scratch: &'u mut [Vec<f32>; 2],
}

impl<F: Fn(usize) -> usize> Kernel for Rotate<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self {
            x,
            width,
            rows,
            interleaved,
            rotary_dim,
            values,
            turn,
            output,
            scratch: [widened, turned],
        } = self;
        for row in rows {
            let first = row * width;
            let x = match x {
                Data::F32(x) => &x[first..first + width],
                Data::F16(_) | Data::Bf16(_) => {
                    x.widen(first, widened);
                    widened.as_slice()
                }
            };
            // SAFETY: `bind` checked that the output has all rows, and borrowed it; each row is one unit's.
            let direct = unsafe { output.at(first, width) };
            let is_narrow = direct.is_none();
            let y = direct.unwrap_or(turned);
            let (cosines, sines) =
                values[turn(row) * rotary_dim..][..rotary_dim].split_at(rotary_dim / 2);
            let (x_turning, x_rest) = x.split_at(rotary_dim);
            let (y_turning, y_rest) = y.split_at_mut(rotary_dim);
            if interleaved {
                rotate_neighbours(x_turning, cosines, sines, y_turning);
            } else {
                rotate_halves(x_turning, cosines, sines, y_turning);
            }
            y_rest.copy_from_slice(x_rest);
            if is_narrow {
                // SAFETY: as above.
                unsafe { output.narrow(first, y) };
            }
        }
    }
}

/// Pairs (2i, 2i + 1).
#[inline(always)]
fn rotate_neighbours(x: &[f32], cosines: &[f32], sines: &[f32], y: &mut [f32]) {
    let (x, y) = (x.as_chunks::<2>().0, y.as_chunks_mut::<2>().0);
    for (([a, b], [ya, yb]), (cosine, sine)) in x.iter().zip(y).zip(cosines.iter().zip(sines)) {
        *ya = a * cosine - b * sine;
        *yb = a * sine + b * cosine;
    }
}

/// Pairs (i, i + rotary_dim/2).
#[inline(always)]
fn rotate_halves(x: &[f32], cosines: &[f32], sines: &[f32], y: &mut [f32]) {
    let pairs = cosines.len();
    let ((a, b), (ya, yb)) = (x.split_at(pairs), y.split_at_mut(pairs));
    // Cut to one length, so that the loop needs no bounds checks.
    let (b, sines, ya, yb) = (
        &b[..pairs],
        &sines[..pairs],
        &mut ya[..pairs],
        &mut yb[..pairs],
    );
    for i in 0..pairs {
        ya[i] = a[i] * cosines[i] - b[i] * sines[i];
        yb[i] = a[i] * sines[i] + b[i] * cosines[i];
    }
}

/// Rotary position embedding of a float32 tensor (arXiv 2104.09864): pair i of a token at position p turns by the angle
/// `p · theta^(−2i / rotary_dim)`, scaled. The result has x's shape.
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
/// [`ErrorKind::Shape`](crate::ErrorKind::Shape), [`ErrorKind::Dtype`](crate::ErrorKind::Dtype) or [`ErrorKind::Option`](crate::ErrorKind::Option) for arguments that do not fit (halves need [`Rope`]);
/// [`Error::OutOfMemory`] when memory is refused.
pub fn apply_rope(x: Tensor<'_>, options: &RopeOptions<'_>) -> Result<Vec<f32>, Error> {
    let mut call = Rope::new(x, options)?;
    let mut out = try_zeroed(call.x.len())?;
    call.bind(DataMut::F32(&mut out))?;
    call.finish()?;
    Ok(out)
}
