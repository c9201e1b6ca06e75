//! A checked call of an operator that makes one tensor, of x's shape and element type, or a
//! gradient, which is float32: takes its output, runs it at once or in slices. Knows nothing of
//! what is computed.

use std::marker::PhantomData;

use super::output::Output;
use super::shape::checked_len;
use super::{DType, DataMut};
use crate::error::Error;
use crate::run::buffer::try_zeroed;
use crate::run::work::{Pace, Work, at_once};

/// What an operator is once its inputs are checked.
pub trait Operator: Send + Sync {
    /// How many units of work there are.
    fn units(&self) -> usize;

    /// All of the work, into an output that was checked.
    fn work(
        &self,
        pace: &Pace,
        output: &Output<'_>,
    ) -> impl Future<Output = Result<(), Error>> + Send;
}

/// A checked call of an operator whose result has x's shape and element type, such as
/// [`GroupNorm`](crate::GroupNorm), or is one gradient of dy's shape, float32 whatever dy is, such
/// as [`RopeBackward`](crate::RopeBackward). `new` makes all checks. Nothing is computed before
/// [`Call::into_work`] or [`Call::finish_into`] is given where results go.
#[derive(Debug)]
pub struct Call<O> {
    operator: O,
    shape: Vec<usize>,
    dtype: DType,
    is_gradient: bool,
    /// By pointers, so that this crate compiles what is generic over operators: else each crate
    /// that calls one does, and in WebAssembly for size.
    start: for<'o> fn(O, Output<'o>, PhantomData<&'o O>) -> Work<'o>,
    finish: fn(&O, &Output<'_>) -> Result<(), Error>,
}

/// The work of an operator into an output. (The last argument says that it outlives `'o`.)
fn start<'o, O: Operator>(operator: O, output: Output<'o>, _: PhantomData<&'o O>) -> Work<'o> {
    Work::new(operator.units(), move |pace| async move {
        operator.work(&pace, &output).await
    })
}

/// All of an operator's work at once.
fn finish<O: Operator>(operator: &O, output: &Output<'_>) -> Result<(), Error> {
    at_once(async |pace| operator.work(pace, output).await)
}

impl<O: Operator> Call<O> {
    /// A call on some x of this shape and element type, whose length fits the shape.
    pub(crate) fn of(operator: O, shape: Vec<usize>, dtype: DType) -> Self {
        Self {
            operator,
            shape,
            dtype,
            is_gradient: false,
            start,
            finish,
        }
    }

    /// A call that makes a gradient, of some dy of this shape.
    pub(crate) fn of_gradient(operator: O, shape: Vec<usize>) -> Self {
        Self {
            is_gradient: true,
            ..Self::of(operator, shape, DType::F32)
        }
    }
}

impl<O> Call<O> {
    /// The result's shape: x's, or dy's.
    #[must_use]
    pub fn output_shape(&self) -> &[usize] {
        &self.shape
    }

    /// The result's element type: x's, or float32 of a gradient.
    #[must_use]
    pub fn output_dtype(&self) -> DType {
        self.dtype
    }

    /// Checks where the result goes.
    fn bind<'o>(&self, out: DataMut<'o>) -> Result<Output<'o>, Error> {
        if self.is_gradient && out.dtype() != self.dtype {
            let expected = "float32, as gradients are";
            return Err(Error::dtype("out", expected, out.dtype().name()));
        }
        Output::bind(out, self.dtype, &self.shape)
    }

    /// The work of the call into `out`.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) or
    /// [`ErrorKind::Dtype`](crate::ErrorKind::Dtype) when it does not fit.
    pub fn into_work<'o>(self, out: DataMut<'o>) -> Result<Work<'o>, Error>
    where
        O: 'o,
    {
        let output = self.bind(out)?;
        Ok((self.start)(self.operator, output, PhantomData))
    }

    /// Works the whole call off at once, into `out`.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) or
    /// [`ErrorKind::Dtype`](crate::ErrorKind::Dtype) when it does not
    /// fit; [`Error::out_of_memory`].
    pub fn finish_into(self, out: DataMut<'_>) -> Result<(), Error> {
        let output = self.bind(out)?;
        (self.finish)(&self.operator, &output)
    }

    /// The whole result of a call on float32.
    pub(crate) fn finish_f32(self) -> Result<Vec<f32>, Error> {
        let mut out = try_zeroed(checked_len("x", &self.shape)?)?;
        self.finish_into(DataMut::F32(&mut out))?;
        Ok(out)
    }
}
