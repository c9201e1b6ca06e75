//! Requests of group and RMS norm: from the stream to the operator. Checks no shapes; the operator
//! does.

use diffattn::{
    Activation, ChannelLayout, Error, GroupNorm, GroupNormOptions, RmsNorm, RmsNormOptions,
};

use crate::encoding::{Float, Or, Size, Tensor, Vector, choice, request};
use crate::job::Prepared;
use crate::operation::{Inputs, Operation};
use crate::reader::vector_or_none;

choice! { ChannelLayout { "nchw" = Nchw, "nhwc" = Nhwc } }
choice! { Activation { "silu" = Silu } }

request! {
    /// A request of `groupNorm`.
    3 groupNorm GroupNormRequest {
        x: Tensor,
    } options {
        num_groups: Size,
        weight: Option<Vector>,
        bias: Option<Vector>,
        eps: Option<Float>,
        layout: Or<ChannelLayout>,
        activation: Option<Activation>,
    }
}

impl Operation for GroupNormRequest {
    fn prepare<'m>(&'m self, inputs: Inputs<'_, 'm>) -> Result<Prepared<'m>, Error> {
        let x = self.x.tensor(inputs.operands)?;
        let default = GroupNormOptions::default();
        let options = GroupNormOptions {
            num_groups: self.num_groups,
            weight: vector_or_none(&self.weight, inputs.operands)?,
            bias: vector_or_none(&self.bias, inputs.operands)?,
            eps: self.eps.unwrap_or(default.eps),
            layout: self.layout,
            activation: self.activation,
            run: inputs.run,
        };
        let (dtype, shape) = (x.data.dtype(), x.shape.clone());
        let norm = GroupNorm::new(x, &options)?;
        Prepared::of_one(dtype, &shape, |out| norm.into_work(out))
    }
}

request! {
    /// A request of `rmsNorm`.
    4 rmsNorm RmsNormRequest {
        x: Tensor,
    } options {
        weight: Option<Vector>,
        eps: Option<Float>,
        scale: Option<Float>,
    }
}

impl Operation for RmsNormRequest {
    fn prepare<'m>(&'m self, inputs: Inputs<'_, 'm>) -> Result<Prepared<'m>, Error> {
        let x = self.x.tensor(inputs.operands)?;
        let default = RmsNormOptions::default();
        let options = RmsNormOptions {
            weight: vector_or_none(&self.weight, inputs.operands)?,
            eps: self.eps.unwrap_or(default.eps),
            scale: self.scale.unwrap_or(default.scale),
            run: inputs.run,
        };
        let (dtype, shape) = (x.data.dtype(), x.shape.clone());
        let norm = RmsNorm::new(x, &options)?;
        Prepared::of_one(dtype, &shape, |out| norm.into_work(out))
    }
}
