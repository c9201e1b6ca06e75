//! Backward differences along the sequence, and their gradients, which are the same from the end.
//! The paper's difference is the one of two attention maps; this one is offered because a popular
//! description of the architecture means it.

use std::ops::Range;

use super::axes::Axes;
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

/// The largest order: its binomial coefficients reach 2⁶⁴, far past the 24 bits of float32.
const MAX_ORDER: usize = 64;

/// Options of [`sequence_difference`] and [`sequence_difference_backward`].
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

/// A checked call of [`sequence_difference`]: made by `new`.
pub type SequenceDifference<'a> = Call<DifferenceOperator<'a>>;

/// What the call is made on.
#[derive(Debug, Clone, Copy)]
pub struct DifferenceOperator<'a> {
    x: Data<'a>,
    order: usize,
    /// Tokens per sequence, elements per token, tokens of all sequences: heads lie beside each
    /// other within a token (bshd) or are sequences of their own (bhsd).
    length: usize,
    width: usize,
    tokens: usize,
    /// Whether x is the gradient of differences, and their gradient wanted.
    is_backward: bool,
    run: Run,
}

impl<'a> SequenceDifference<'a> {
    /// Checks everything and allocates no scratch yet. `x` is `[B, n, L, d]`, or `[B, L, n, d]` as
    /// the layout has it.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) or
    /// [`ErrorKind::Option`](crate::ErrorKind::Option), naming the argument.
    pub fn new(x: Tensor<'a>, options: &SequenceDifferenceOptions) -> Result<Self, Error> {
        let operator = DifferenceOperator::new(("x", &x), options, false)?;
        let dtype = x.data.dtype();
        Ok(Self::of(operator, x.shape, dtype))
    }
}

/// A checked call of [`sequence_difference_backward`]: made by `new`.
pub type SequenceDifferenceBackward<'a> = Call<DifferenceBackwardOperator<'a>>;

/// What the backward call is made on.
#[derive(Debug, Clone, Copy)]
pub struct DifferenceBackwardOperator<'a>(DifferenceOperator<'a>);

impl<'a> SequenceDifferenceBackward<'a> {
    /// Checks everything and allocates no scratch yet. `dy` is shaped as the forward call's x, and
    /// the options are those of that call.
    ///
    /// # Errors
    /// As [`SequenceDifference::new`], naming `dy` where that names `x`.
    pub fn new(dy: Tensor<'a>, options: &SequenceDifferenceOptions) -> Result<Self, Error> {
        let operator = DifferenceOperator::new(("dy", &dy), options, true)?;
        Ok(Self::of_gradient(
            DifferenceBackwardOperator(operator),
            dy.shape,
        ))
    }
}

impl Operator for DifferenceBackwardOperator<'_> {
    fn units(&self) -> usize {
        self.0.units()
    }

    async fn work(&self, pace: &Pace, output: &Output<'_>) -> Result<(), Error> {
        self.0.work(pace, output).await
    }
}

impl<'a> DifferenceOperator<'a> {
    /// Checks everything; `name` is what the caller calls `x`.
    fn new(
        (name, x): (&str, &Tensor<'a>),
        options: &SequenceDifferenceOptions,
        is_backward: bool,
    ) -> Result<Self, Error> {
        let Axes {
            batch,
            heads,
            length,
            width,
            layout,
        } = Axes::new(name, x, options.layout)?;
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
        checked_len(name, &[order + 1, width])?;
        Ok(Self {
            x: x.data,
            order,
            length,
            width,
            tokens,
            is_backward,
            run: options.run,
        })
    }
}

impl Operator for DifferenceOperator<'_> {
    fn units(&self) -> usize {
        self.tokens.div_ceil(self.unit_tokens())
    }

    async fn work(&self, pace: &Pace, output: &Output<'_>) -> Result<(), Error> {
        let &Self {
            order,
            width,
            tokens,
            run,
            ..
        } = self;
        let unit_tokens = self.unit_tokens();
        // The differences of the token before, order by order, then the token's own.
        let make_scratch = || try_zeroed((order + 1) * width);
        let mut units = Units::new(run, unit_tokens.saturating_mul(width), make_scratch);
        let work = |scratch: &mut Vec<f32>, unit| {
            let first = unit * unit_tokens;
            run.unfused_kernel(Difference {
                call: self,
                tokens: first..(first + unit_tokens).min(tokens),
                output,
                scratch,
            });
        };
        units.paced(pace, 0..self.units(), &work).await
    }
}

impl DifferenceOperator<'_> {
    /// Tokens per unit, which reads `order` tokens of its neighbour: few, next to its own.
    fn unit_tokens(&self) -> usize {
        let tokens = UNIT.checked_div(self.width).unwrap_or(1);
        tokens.max(8 * self.order).max(1)
    }
}

/// Some tokens of a call.
struct Difference<'u> {
    call: &'u DifferenceOperator<'u>,
    tokens: Range<usize>,
    output: &'u Output<'u>,
    scratch: &'u mut [f32],
}

impl Kernel for Difference<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self {
            call,
            tokens,
            output,
            scratch,
        } = self;
        let &DifferenceOperator {
            x, length, width, ..
        } = call;
        if call.is_backward {
            return backward::<V>(call, tokens, output, scratch);
        }
        let (before, current) = scratch.split_at_mut(scratch.len() - width);
        before.fill(0.0);
        // The difference of order n looks at n tokens back: they are walked again, to the same
        // bits.
        let back = (before.len() / width).min(tokens.start % length);
        for token in tokens.start - back..tokens.end {
            if token % length == 0 {
                before.fill(0.0);
            }
            x.widen(token * width, current);
            for before in before.chunks_exact_mut(width) {
                take_difference::<V, 1>(current, before);
            }
            if token >= tokens.start {
                // SAFETY: each token is one unit's.
                unsafe { output.narrow(token * width, current) };
            }
        }
    }
}

/// The gradients of some tokens. What a gradient is made of lies behind its token, so each is
/// complete `order` tokens later; behind a sequence lie zeros.
#[inline(always)]
fn backward<V: Vector>(
    call: &DifferenceOperator<'_>,
    tokens: Range<usize>,
    output: &Output<'_>,
    scratch: &mut [f32],
) {
    let &DifferenceOperator {
        x,
        order,
        length,
        width,
        ..
    } = call;
    let (before, current) = scratch.split_at_mut(scratch.len() - width);
    let mut first = tokens.start;
    while first < tokens.end {
        let sequence_end = (first / length + 1) * length;
        let end = sequence_end.min(tokens.end);
        // What comes of this is of tokens before the first one, and is not written.
        before.fill(0.0);
        for token in first..end + order {
            if token < sequence_end {
                x.widen(token * width, current);
            } else {
                current.fill(0.0);
            }
            for before in before.chunks_exact_mut(width) {
                take_difference::<V, -1>(current, before);
            }
            if token >= first + order {
                // SAFETY: each token is one unit's.
                unsafe { output.narrow((token - order) * width, current) };
            }
        }
        first = end;
    }
}

/// `current` becomes its difference from `before`, the other way round where `WAY` is −1, and that
/// what `current` was.
#[inline(always)]
fn take_difference<V: Vector, const WAY: i32>(current: &mut [f32], before: &mut [f32]) {
    let mut currents = current.chunks_exact_mut(V::LANES);
    let mut befores = before.chunks_exact_mut(V::LANES);
    for (current, before) in currents.by_ref().zip(befores.by_ref()) {
        let (current, before) = (current.as_mut_ptr(), before.as_mut_ptr());
        // SAFETY: LANES values on both sides.
        unsafe {
            let (values, others) = (V::load(current), V::load(before));
            let difference = if WAY < 0 {
                others.sub(values)
            } else {
                values.sub(others)
            };
            difference.store(current);
            values.store(before);
        }
    }
    let rest = befores.into_remainder();
    for (current, before) in currents.into_remainder().iter_mut().zip(rest) {
        let difference = if WAY < 0 {
            *before - *current
        } else {
            *current - *before
        };
        (*current, *before) = (difference, *current);
    }
}

/// The `order`-th backward difference along the sequence of a float32 tensor, in x's shape: `y[t] =
/// x[t] − x[t − 1]`, taken `order` times. Before the first token lies zero, so `y[0] = x[0]`.
///
/// ```
/// use diffattn::{SequenceDifferenceOptions, Tensor, sequence_difference};
///
/// let options = SequenceDifferenceOptions { order: 1, ..SequenceDifferenceOptions::default() };
/// let y = sequence_difference(Tensor::f32(&[1.0, 4.0, 9.0], &[1, 1, 3, 1]), &options)?;
/// assert_eq!(y, [1.0, 3.0, 5.0]);
/// # Ok::<(), diffattn::Error>(())
/// ```
///
/// # Errors
/// [`ErrorKind::Shape`](crate::ErrorKind::Shape), [`ErrorKind::Dtype`](crate::ErrorKind::Dtype) or
/// [`ErrorKind::Option`](crate::ErrorKind::Option) for arguments that do not fit (halves need
/// [`SequenceDifference`]); [`Error::out_of_memory`] when memory is refused.
pub fn sequence_difference(
    x: Tensor<'_>,
    options: &SequenceDifferenceOptions,
) -> Result<Vec<f32>, Error> {
    SequenceDifference::new(x, options)?.finish_f32()
}

/// The gradient of [`sequence_difference`]'s x for `dy`, float32, the gradient of its result:
/// `dx[t] = dy[t] − dy[t + 1]`, taken `order` times. Behind the last token lies zero. It has dy's
/// shape, and takes the options of the forward call.
///
/// ```
/// use diffattn::{SequenceDifferenceOptions, Tensor, sequence_difference_backward};
///
/// let options = SequenceDifferenceOptions { order: 1, ..SequenceDifferenceOptions::default() };
/// let dy = [1.0, 4.0, 9.0];
/// let dx = sequence_difference_backward(Tensor::f32(&dy, &[1, 1, 3, 1]), &options)?;
/// assert_eq!(dx, [-3.0, -5.0, 9.0]);
/// # Ok::<(), diffattn::Error>(())
/// ```
///
/// # Errors
/// [`ErrorKind::Shape`](crate::ErrorKind::Shape) or [`ErrorKind::Option`](crate::ErrorKind::Option)
/// for arguments that do not fit; [`Error::out_of_memory`] when memory is refused. Of halves the
/// gradient is float32, too.
pub fn sequence_difference_backward(
    dy: Tensor<'_>,
    options: &SequenceDifferenceOptions,
) -> Result<Vec<f32>, Error> {
    SequenceDifferenceBackward::new(dy, options)?.finish_f32()
}
