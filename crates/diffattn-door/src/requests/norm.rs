//! Requests of group and RMS norm: from the stream to the operator. Checks no shapes; the operator
//! does.

use diffattn::{
    Activation, ChannelLayout, Error, GroupNorm, GroupNormOptions, RmsNorm, RmsNormOptions, Run,
};

use crate::encoding::{Float, Or, Size, Tensor, Vector, choice, record, request};
use crate::job::Prepared;
use crate::operation::{Inputs, Operation};
use crate::reader::vector_or_none;

choice! { ChannelLayout { "nchw" = Nchw, "nhwc" = Nhwc } }
choice! { Activation { "silu" = Silu } }

record! {
    /// [`GroupNormOptions`] with vectors as places among the operands.
    record "groupNormOptions" GroupNormAt {
        num_groups: Size,
        weight: Option<Vector>,
        bias: Option<Vector>,
        eps: Option<Float>,
        layout: Or<ChannelLayout>,
        activation: Option<Activation>,
    }
}

impl GroupNormAt {
    pub(super) fn with<'m>(
        &self,
        operands: &[&'m [u8]],
        run: Run,
    ) -> Result<GroupNormOptions<'m>, Error> {
        let default = GroupNormOptions::default();
        Ok(GroupNormOptions {
            num_groups: self.num_groups,
            weight: vector_or_none(&self.weight, operands)?,
            bias: vector_or_none(&self.bias, operands)?,
            eps: self.eps.unwrap_or(default.eps),
            layout: self.layout,
            activation: self.activation,
            run,
        })
    }
}

request! {
    /// A request of `groupNorm`.
    3 groupNorm GroupNormRequest {
        x: Tensor,
    } options {
        norm: GroupNormAt,
    }
}

impl Operation for GroupNormRequest {
    fn prepare<'m>(&'m self, inputs: Inputs<'_, 'm>) -> Result<Prepared<'m>, Error> {
        let x = self.x.tensor(inputs.operands)?;
        let options = self.norm.with(inputs.operands, inputs.run)?;
        let (dtype, shape) = (x.data.dtype(), x.shape.clone());
        let norm = GroupNorm::new(x, &options)?;
        Prepared::of_one(dtype, &shape, |out| norm.into_work(out))
    }
}

record! {
    /// [`RmsNormOptions`] with the weight as a place among the operands.
    record "rmsNormOptions" RmsNormAt {
        weight: Option<Vector>,
        eps: Option<Float>,
        scale: Option<Float>,
    }
}

impl RmsNormAt {
    pub(super) fn with<'m>(
        &self,
        operands: &[&'m [u8]],
        run: Run,
    ) -> Result<RmsNormOptions<'m>, Error> {
        let default = RmsNormOptions::default();
        Ok(RmsNormOptions {
            weight: vector_or_none(&self.weight, operands)?,
            eps: self.eps.unwrap_or(default.eps),
            scale: self.scale.unwrap_or(default.scale),
            run,
        })
    }
}

request! {
    /// A request of `rmsNorm`.
    4 rmsNorm RmsNormRequest {
        x: Tensor,
    } options {
        norm: RmsNormAt,
    }
}

impl Operation for RmsNormRequest {
    fn prepare<'m>(&'m self, inputs: Inputs<'_, 'm>) -> Result<Prepared<'m>, Error> {
        let x = self.x.tensor(inputs.operands)?;
        let options = self.norm.with(inputs.operands, inputs.run)?;
        let (dtype, shape) = (x.data.dtype(), x.shape.clone());
        let norm = RmsNorm::new(x, &options)?;
        Prepared::of_one(dtype, &shape, |out| norm.into_work(out))
    }
}
