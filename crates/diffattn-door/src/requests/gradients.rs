//! Requests of gradients: from the stream to the operator. Checks no shapes; the operator does.

use diffattn::{
    AttentionGradients, AttentionNeeds, DType, DiffAttentionBackward, Error, GradientOptions,
    GroupNormBackward, LambdaGradients, NormBackward, NormGradients, Reason, RmsNormBackward,
    RopeBackward, SequenceDifferenceBackward, Work, format_shape, lambda_full_backward,
};

use super::attention::{LambdaAt, OptionsAt};
use super::norm::{GroupNormAt, RmsNormAt};
use super::sequence::{DifferenceAt, RopeAt, RopePlacesAt};
use crate::encoding::{List, Tensor, Vector, choice, request};
use crate::job::{OutputSpec, Prepared};
use crate::operation::{Inputs, Operation};
use crate::reader::TensorAt;

/// Gradients by name: those that a call does not give are absent at their places.
fn gradients<'m, const N: usize>(
    named: [(&'static str, Option<Vec<usize>>); N],
    start: impl FnOnce([Option<&'m mut [f32]>; N]) -> Result<Work<'m>, Error> + 'm,
) -> Result<Prepared<'m>, Error> {
    let mut specs = Vec::with_capacity(N);
    for (name, shape) in named {
        specs.push(OutputSpec::optional(name, shape.as_deref())?);
    }
    Ok(Prepared::new(specs, move |outputs| {
        let mut taken = [const { None }; N];
        for place in &mut taken {
            *place = outputs.optional()?;
        }
        start(taken)
    }))
}

/// What can have a gradient.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Input {
    Q,
    K,
    V,
    Lambda,
    Coefficients,
    NormWeight,
    AttnBias,
    Sinks,
}

choice! {
    Input {
        "q" = Q,
        "k" = K,
        "v" = V,
        "lambda" = Lambda,
        "coefficients" = Coefficients,
        "normWeight" = NormWeight,
        "attnBias" = AttnBias,
        "sinks" = Sinks,
    }
}

/// Which gradients a list names.
fn needs(list: &[Input]) -> AttentionNeeds {
    let mut needs = AttentionNeeds::default();
    for input in list {
        *match input {
            Input::Q => &mut needs.q,
            Input::K => &mut needs.k,
            Input::V => &mut needs.v,
            Input::Lambda => &mut needs.lambda,
            Input::Coefficients => &mut needs.coefficients,
            Input::NormWeight => &mut needs.norm_weight,
            Input::AttnBias => &mut needs.attn_bias,
            Input::Sinks => &mut needs.sinks,
        } = true;
    }
    needs
}

request! {
    /// A request of `diffAttentionBackward`. (With the options of `diffAttention`, of which
    /// `returnLse` is 0.)
    128 diffAttentionBackward AttentionBackwardRequest {
        dy: Tensor,
        q: Tensor,
        k: Tensor,
        v: Tensor,
    } options {
        attention: OptionsAt,
        result: Option<Tensor>,
        needs: Option<List<Input>>,
    }
}

/// An error of the operator with the name that callers of the package know.
fn by_its_name(error: Error) -> Error {
    match error.reason() {
        Reason::Argument {
            kind,
            argument,
            expected,
            got,
        } if argument == "pre_norm" => Error::argument(*kind, "result", expected, got),
        _ => error,
    }
}

impl Operation for AttentionBackwardRequest {
    fn check(&self) -> Result<(), Error> {
        self.attention.check()
    }

    fn prepare<'m>(&'m self, inputs: Inputs<'_, 'm>) -> Result<Prepared<'m>, Error> {
        let operands = inputs.operands;
        let options = self.attention.with(operands, inputs.run)?;
        let [dy, q, k, v] = [&self.dy, &self.q, &self.k, &self.v].map(|at| at.tensor(operands));
        let result = self.result.as_ref().map(|at| at.tensor(operands));
        let wanted = GradientOptions {
            needs: self.needs.as_deref().map(needs),
            pre_norm: result.transpose()?,
            ..GradientOptions::default()
        };
        let call = DiffAttentionBackward::new(dy?, [q?, k?, v?], &options, &wanted)
            .map_err(by_its_name)?;
        let named = call.shapes().clone().named();
        gradients(named, |outputs| {
            call.into_work(AttentionGradients::of(outputs))
        })
    }
}

/// Gradients of a norm: dx, and those of a weight and of a bias where it has them.
fn norm_gradients<'m, O: 'm>(call: NormBackward<O>) -> Result<Prepared<'m>, Error> {
    let named = [
        ("dx", Some(call.dx_shape().to_vec())),
        ("dweight", call.dweight_len().map(|len| vec![len])),
        ("dbias", call.dbias_len().map(|len| vec![len])),
    ];
    gradients(named, |[dx, dweight, dbias]| {
        let dx = dx.ok_or_else(|| Error::internal("gradients of a norm without dx"))?;
        call.into_work(NormGradients { dx, dweight, dbias })
    })
}

request! {
    /// A request of `rmsNormBackward`.
    129 rmsNormBackward RmsNormBackwardRequest {
        dy: Tensor,
        x: Tensor,
    } options {
        norm: RmsNormAt,
    }
}

impl Operation for RmsNormBackwardRequest {
    fn prepare<'m>(&'m self, inputs: Inputs<'_, 'm>) -> Result<Prepared<'m>, Error> {
        let operands = inputs.operands;
        let options = self.norm.with(operands, inputs.run)?;
        let (dy, x) = (self.dy.tensor(operands)?, self.x.tensor(operands)?);
        norm_gradients(RmsNormBackward::new(dy, x, &options)?)
    }
}

request! {
    /// A request of `groupNormBackward`.
    130 groupNormBackward GroupNormBackwardRequest {
        dy: Tensor,
        x: Tensor,
    } options {
        norm: GroupNormAt,
    }
}

impl Operation for GroupNormBackwardRequest {
    fn prepare<'m>(&'m self, inputs: Inputs<'_, 'm>) -> Result<Prepared<'m>, Error> {
        let operands = inputs.operands;
        let options = self.norm.with(operands, inputs.run)?;
        let (dy, x) = (self.dy.tensor(operands)?, self.x.tensor(operands)?);
        norm_gradients(GroupNormBackward::new(dy, x, &options)?)
    }
}

request! {
    /// A request of `applyRopeBackward`.
    131 applyRopeBackward RopeBackwardRequest {
        dy: Tensor,
    } options {
        rope: RopeAt,
        places: RopePlacesAt,
    }
}

impl Operation for RopeBackwardRequest {
    fn prepare<'m>(&'m self, inputs: Inputs<'_, 'm>) -> Result<Prepared<'m>, Error> {
        let dy = self.dy.tensor(inputs.operands)?;
        let shape = dy.shape.clone();
        let rope = RopeBackward::new(dy, &self.places.with(&self.rope, inputs.run))?;
        Prepared::of_one(DType::F32, &shape, |out| rope.into_work(out))
    }
}

request! {
    /// A request of `sequenceDifferenceBackward`.
    132 sequenceDifferenceBackward DifferenceBackwardRequest {
        dy: Tensor,
    } options {
        options: DifferenceAt,
    }
}

impl Operation for DifferenceBackwardRequest {
    fn prepare<'m>(&'m self, inputs: Inputs<'_, 'm>) -> Result<Prepared<'m>, Error> {
        let dy = self.dy.tensor(inputs.operands)?;
        let shape = dy.shape.clone();
        let difference = SequenceDifferenceBackward::new(dy, &self.options.with(inputs.run))?;
        Prepared::of_one(DType::F32, &shape, |out| difference.into_work(out))
    }
}

request! {
    /// A request of `lambdaFullBackward`.
    133 lambdaFullBackward LambdaFullBackwardRequest {
        dlambda: LambdaAt,
    } options {
        q1: Vector,
        k1: Vector,
        q2: Vector,
        k2: Vector,
    }
}

/// What the gradient of λ is.
const ONE: &str = "a number, or a tensor of one element";

/// The only element of a tensor.
fn one_of(at: &TensorAt, operands: &[&[u8]]) -> Result<f64, Error> {
    match at.f32(operands)? {
        &[value] => Ok(f64::from(value)),
        _ => Err(Error::shape("dlambda", ONE, format_shape(&at.shape))),
    }
}

impl Operation for LambdaFullBackwardRequest {
    fn prepare<'m>(&'m self, inputs: Inputs<'_, 'm>) -> Result<Prepared<'m>, Error> {
        let operands = inputs.operands;
        let dlambda = match &self.dlambda {
            LambdaAt::Absent => None,
            LambdaAt::Value(value) => Some(f64::from(*value)),
            LambdaAt::Tensor(at) => Some(one_of(at, operands)?),
        };
        let dlambda = dlambda.ok_or_else(|| Error::option("dlambda", ONE, "none"))?;
        let vectors = [&self.q1, &self.k1, &self.q2, &self.k2];
        let [q1, k1, q2, k2] = vectors.map(|at| at.f32_vector(operands));
        let made = lambda_full_backward(dlambda, q1?, k1?, q2?, k2?)?;
        let mut specs = Vec::with_capacity(4);
        for (name, at) in ["dq1", "dk1", "dq2", "dk2"].into_iter().zip(vectors) {
            specs.push(OutputSpec::new(name, DType::F32, &at.shape)?);
        }
        // As little as a query has to do: it is made by now.
        Ok(Prepared::new(specs, move |outputs| {
            let LambdaGradients { dq1, dk1, dq2, dk2 } = made;
            for gradient in [dq1, dk1, dq2, dk2] {
                outputs.f32()?.copy_from_slice(&gradient);
            }
            Ok(Work::new(1, |pace| async move {
                pace.worked(1);
                Ok(())
            }))
        }))
    }
}
