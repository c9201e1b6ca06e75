//! Backward differences along the sequence. The paper's difference is the one of two attention maps; this one is
//! offered because a popular description of the architecture means it.

use std::marker::PhantomData;
use std::ops::Range;

use super::Axes;
use crate::error::Error;
use crate::run::Run;
use crate::run::buffer::try_zeroed;
use crate::run::slices::Slices;
use crate::run::units::{UNIT, Units};
use crate::simd::{Isa, Kernel, Vector};
use crate::tensor::axis::Layout;
use crate::tensor::output::Output;
use crate::tensor::shape::checked_len;
use crate::tensor::{DType, Data, DataMut, Tensor};

/// The largest order: its binomial coefficients reach 2⁶⁴, far past the 24 bits of float32.
const MAX_ORDER: usize = 64;

/// Options of [`sequence_difference`].
#[derive(Debug, Clone, Copy)]
pub struct SequenceDifferenceOptions {
    /// How often the difference is taken, up to 64; 1 by default, 0 gives x.
    pub order: usize,
    /// The layout of x and of the result.
    pub layout: Layout,
    /// How the call runs: instruction set, threads, fused or not.
    pub run: Run,
}

impl Default for SequenceDifferenceOptions {
    fn default() -> Self {
        Self {
            order: 1,
            layout: Layout::Bhsd,
            run: Run::default(),
        }
    }
}

/// A checked call of [`sequence_difference`]: made by [`SequenceDifference::new`], given its output by
/// [`SequenceDifference::bind`], worked off by [`Slices::step`].
#[derive(Debug)]
pub struct SequenceDifference<'a> {
    x: Data<'a>,
    shape: Vec<usize>,
    order: usize,
    /// Tokens per sequence, elements per token, tokens of all sequences: heads lie beside each other within a token
    /// (bshd) or are sequences of their own (bhsd).
    length: usize,
    width: usize,
    tokens: usize,
    unit_tokens: usize,
    isa: Isa,
    output: Option<Output>,
    /// The differences of the token before, order by order, then the token's own.
    units: Units<Vec<f32>>,
    borrow: PhantomData<&'a mut [f32]>,
}

impl<'a> SequenceDifference<'a> {
    /// Checks everything and allocates no scratch yet. `x` is `[B, n, L, d]`, or `[B, L, n, d]` as the layout has it.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) or [`ErrorKind::Option`](crate::ErrorKind::Option), naming the argument.
    pub fn new(x: Tensor<'a>, options: &SequenceDifferenceOptions) -> Result<Self, Error> {
        let Axes {
            batch,
            heads,
            length,
            width,
            layout,
        } = Axes::new(&x, options.layout)?;
        let order = options.order;
        if order > MAX_ORDER {
            return Err(Error::option(
                "order",
                format_args!("0 to {MAX_ORDER}"),
                order,
            ));
        }
        let (tokens, width) = match layout {
            _ if x.data.is_empty() => (0, 0),
            Layout::Bhsd => (batch * heads * length, width),
            Layout::Bshd => (batch * length, heads * width),
        };
        checked_len("x", &[order + 1, width])?;
        // A unit starts with `order` tokens of its predecessor: few, next to its own.
        let unit_tokens = UNIT.checked_div(width).unwrap_or(1).max(8 * order).max(1);
        Ok(Self {
            x: x.data,
            shape: x.shape,
            order,
            length,
            width,
            tokens,
            unit_tokens,
            isa: options.run.isa(),
            output: None,
            units: Units::new(
                options.run.threads(),
                tokens.div_ceil(unit_tokens),
                unit_tokens.saturating_mul(width),
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
}

impl Slices for SequenceDifference<'_> {
    fn total(&self) -> usize {
        self.units.total()
    }

    fn done(&self) -> usize {
        self.units.done()
    }

    fn step(&mut self, count: usize) -> Result<(), Error> {
        let output = Output::bound(self.output)?;
        let Self {
            x,
            order,
            length,
            width,
            tokens,
            unit_tokens,
            isa,
            ..
        } = *self;
        self.units.step(
            count,
            usize::MAX,
            || try_zeroed((order + 1) * width),
            |scratch, unit| {
                let first = unit * unit_tokens;
                let tokens = first..(first + unit_tokens).min(tokens);
                isa.run(
                    true,
                    Difference {
                        x,
                        length,
                        width,
                        tokens,
                        output,
                        scratch,
                    },
                );
            },
        )
    }
}

/// Some tokens of a call.
struct Difference<'u> {
    x: Data<'u>,
    length: usize,
    width: usize,
    tokens: Range<usize>,
    output: Output,
    scratch: &'u mut [f32],
}

impl Kernel for Difference<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self {
            x,
            length,
            width,
            tokens,
            output,
            scratch,
        } = self;
        let (before, current) = scratch.split_at_mut(scratch.len() - width);
        before.fill(0.0);
        // The difference of order n looks at n tokens back: they are walked again, to the same bits.
        let back = (before.len() / width).min(tokens.start % length);
        for token in tokens.start - back..tokens.end {
            if token % length == 0 {
                before.fill(0.0);
            }
            x.widen(token * width, current);
            for before in before.chunks_exact_mut(width) {
                for (current, before) in current.iter_mut().zip(before) {
                    let difference = *current - *before;
                    *before = *current;
                    *current = difference;
                }
            }
            if token >= tokens.start {
                // SAFETY: `bind` checked that the output has all tokens, and borrowed it; each token is one unit's.
                unsafe { output.narrow(token * width, current) };
            }
        }
    }
}

/// The `order`-th backward difference along the sequence of a float32 tensor, in x's shape: `y[t] = x[t] − x[t − 1]`,
/// taken `order` times. Before the first token lies zero, so `y[0] = x[0]`.
///
/// ```
/// use diffattn::{SequenceDifferenceOptions, Tensor, sequence_difference};
///
/// let options = SequenceDifferenceOptions { order: 1, ..SequenceDifferenceOptions::default() };
/// assert_eq!(sequence_difference(Tensor::f32(&[1.0, 4.0, 9.0], &[1, 1, 3, 1]), &options)?, [1.0, 3.0, 5.0]);
/// # Ok::<(), diffattn::Error>(())
/// ```
///
/// # Errors
/// [`ErrorKind::Shape`](crate::ErrorKind::Shape), [`ErrorKind::Dtype`](crate::ErrorKind::Dtype) or [`ErrorKind::Option`](crate::ErrorKind::Option) for arguments that do not fit (halves need
/// [`SequenceDifference`]); [`Error::OutOfMemory`] when memory is refused.
pub fn sequence_difference(
    x: Tensor<'_>,
    options: &SequenceDifferenceOptions,
) -> Result<Vec<f32>, Error> {
    let mut call = SequenceDifference::new(x, options)?;
    let mut out = try_zeroed(call.x.len())?;
    call.bind(DataMut::F32(&mut out))?;
    call.finish()?;
    Ok(out)
}
