//! A checked backward call of a norm: takes where gradients go, runs at once or in slices. And the
//! factors that turn a gradient of normalised values into that of x. Knows nothing of how sums are
//! found.

use std::marker::PhantomData;

use crate::error::Error;
use crate::norm::group::normalise::Standardise;
use crate::run::buffer::try_zeroed;
use crate::run::threads::Disjoint;
use crate::run::work::{Pace, Work, at_once};
use crate::tensor::gradients::{bind, bind_wanted, wanted_zeros};
use crate::tensor::output::Output;
use crate::tensor::shape::checked_len;

/// Gradients of a norm, float32: as [`rms_norm_backward`](crate::rms_norm_backward) and its like
/// return them, or (`NormGradients<&mut [f32]>`) where a [`NormBackward`] writes them.
#[derive(Debug, Clone, PartialEq)]
pub struct NormGradients<T = Vec<f32>> {
    /// Of x, in its shape.
    pub dx: T,
    /// Of the weight, one per channel: exactly where the norm has a weight.
    pub dweight: Option<T>,
    /// Of the bias, one per channel: exactly where the norm has a bias.
    pub dbias: Option<T>,
}

/// Where the gradients of a checked call go.
#[derive(Debug)]
pub struct NormOutputs<'o> {
    /// Float32, of x's elements.
    pub(in crate::norm) dx: Output<'o>,
    pub(in crate::norm) dweight: Option<Disjoint<'o, f32>>,
    pub(in crate::norm) dbias: Option<Disjoint<'o, f32>>,
}

/// What a norm's backward pass is once its inputs are checked.
pub trait NormOperator: Send + Sync {
    /// How many units of work there are.
    fn units(&self) -> usize;

    /// All of the work, into outputs that were checked.
    fn work(
        &self,
        pace: &Pace,
        outputs: &NormOutputs<'_>,
    ) -> impl Future<Output = Result<(), Error>> + Send;
}

/// A checked backward call of a norm, such as [`RmsNormBackward`](crate::RmsNormBackward), whose
/// `new` makes all checks. Nothing is computed before [`NormBackward::into_work`] is given where
/// gradients go.
#[derive(Debug)]
pub struct NormBackward<O> {
    operator: O,
    shape: Vec<usize>,
    weight: Option<usize>,
    bias: Option<usize>,
    /// By a pointer, so that this crate compiles what is generic over operators.
    start: for<'o> fn(O, NormOutputs<'o>, PhantomData<&'o O>) -> Work<'o>,
}

/// The work of an operator. (The last argument says that it outlives `'o`.)
fn start<'o, O: NormOperator>(
    operator: O,
    outputs: NormOutputs<'o>,
    _: PhantomData<&'o O>,
) -> Work<'o> {
    Work::new(operator.units(), move |pace| async move {
        operator.work(&pace, &outputs).await
    })
}

impl<O: NormOperator> NormBackward<O> {
    /// A call on some x of this shape; `weight` and `bias` are how many elements each has, where
    /// there is one.
    pub(in crate::norm) fn of(
        operator: O,
        shape: Vec<usize>,
        [weight, bias]: [Option<usize>; 2],
    ) -> Self {
        Self {
            operator,
            shape,
            weight,
            bias,
            start,
        }
    }

    /// All gradients of the call.
    pub(in crate::norm) fn finish(self) -> Result<NormGradients, Error> {
        let mut gradients = NormGradients {
            dx: try_zeroed(checked_len("x", &self.shape)?)?,
            dweight: wanted_zeros(self.weight)?,
            dbias: wanted_zeros(self.bias)?,
        };
        let outputs = self.bind(NormGradients {
            dx: &mut gradients.dx,
            dweight: gradients.dweight.as_deref_mut(),
            dbias: gradients.dbias.as_deref_mut(),
        })?;
        at_once(async |pace| self.operator.work(pace, &outputs).await)?;
        Ok(gradients)
    }
}

impl<O> NormBackward<O> {
    /// The shape of dx: x's.
    #[must_use]
    pub fn dx_shape(&self) -> &[usize] {
        &self.shape
    }

    /// How many elements the gradient of the weight has, where one is wanted.
    #[must_use]
    pub fn dweight_len(&self) -> Option<usize> {
        self.weight
    }

    /// How many elements the gradient of the bias has, where one is wanted.
    #[must_use]
    pub fn dbias_len(&self) -> Option<usize> {
        self.bias
    }

    /// Checks where gradients go.
    fn bind<'o>(&self, gradients: NormGradients<&'o mut [f32]>) -> Result<NormOutputs<'o>, Error> {
        let NormGradients { dx, dweight, dbias } = gradients;
        Ok(NormOutputs {
            dx: Output::F32(bind("dx", checked_len("x", &self.shape)?, dx)?),
            dweight: bind_wanted("dweight", self.weight, dweight)?,
            dbias: bind_wanted("dbias", self.bias, dbias)?,
        })
    }

    /// The work of the call into `gradients`. What they hold before does not matter.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) naming a gradient of another length, or one
    /// that is missing; [`ErrorKind::Option`](crate::ErrorKind::Option) naming one that is too
    /// many.
    pub fn into_work<'o>(self, gradients: NormGradients<&'o mut [f32]>) -> Result<Work<'o>, Error>
    where
        O: 'o,
    {
        let outputs = self.bind(gradients)?;
        Ok((self.start)(self.operator, outputs, PhantomData))
    }
}

/// `dx = (g − mean g − x̂ · mean(g ∘ x̂)) / spread · scale` of a row or group, g the gradient of
/// x̂, as `(g − mean_gradient − (x − mean) · power · deviation) · rest · power`: nothing over- or
/// underflows on the way where dx does not, and what is rounded in the factors is small beside dx.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::norm) struct Factors {
    pub(in crate::norm) mean: f32,
    pub(in crate::norm) power: f32,
    pub(in crate::norm) deviation: f32,
    pub(in crate::norm) mean_gradient: f32,
    pub(in crate::norm) rest: f32,
}

impl Factors {
    /// `means` are those of g and of g ∘ x̂.
    #[inline(always)]
    pub(in crate::norm) fn new(standardise: Standardise, means: [f64; 2], scale: f32) -> Self {
        let Standardise {
            mean,
            rest_of_mean,
            inverse,
        } = standardise;
        let [mean_gradient, mean_product] = means;
        let deviation = mean_product * inverse.rest;
        let of_rest = rest_of_mean * f64::from(inverse.power) * deviation;
        Self {
            mean,
            power: inverse.power,
            deviation: deviation as f32,
            mean_gradient: (mean_gradient - of_rest) as f32,
            rest: (inverse.rest * f64::from(scale)) as f32,
        }
    }
}
