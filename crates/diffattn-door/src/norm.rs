//! Requests of group and RMS norm: from the stream to the operator. Checks no shapes; the operator does.

use diffattn::{
    Activation, ChannelLayout, Error, GroupNorm, GroupNormOptions, RmsNorm, RmsNormOptions,
};

use crate::attention::Prepared;
use crate::job::{OutputSpec, Outputs, Work};
use crate::reader::{Reader, TensorAt};
use crate::settings::Settings;

/// A request of `groupNorm`.
#[derive(Debug)]
pub(crate) struct GroupNormRequest {
    x: TensorAt,
    num_groups: usize,
    weight: Option<TensorAt>,
    bias: Option<TensorAt>,
    eps: Option<f32>,
    layout: ChannelLayout,
    activation: Option<Activation>,
    settings: Settings,
}

impl GroupNormRequest {
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, Error> {
        Ok(Self {
            x: reader.tensor("x")?,
            num_groups: reader.size("num_groups")?,
            weight: reader.tensor_or_none("weight")?,
            bias: reader.tensor_or_none("bias")?,
            eps: reader.optional("eps", Reader::f32)?,
            layout: reader.choice("layout", &[ChannelLayout::Nchw, ChannelLayout::Nhwc])?,
            activation: reader
                .optional("activation", |r, name| r.choice(name, &[Activation::Silu]))?,
            settings: Settings::now(),
        })
    }

    pub(crate) fn prepare<'m>(&'m self, operands: &[&'m [u8]]) -> Result<Prepared<'m>, Error> {
        let x = self.x.tensor(operands)?;
        let default = GroupNormOptions::default();
        let options = GroupNormOptions {
            num_groups: self.num_groups,
            weight: self
                .weight
                .as_ref()
                .map(|at| at.f32_vector(operands))
                .transpose()?,
            bias: self
                .bias
                .as_ref()
                .map(|at| at.f32_vector(operands))
                .transpose()?,
            eps: self.eps.unwrap_or(default.eps),
            layout: self.layout,
            activation: self.activation,
            run: self.settings.run(),
        };
        let outputs = vec![OutputSpec::new("out", x.data.dtype(), &x.shape)?];
        Ok((Box::new(GroupNorm::new(x, &options)?), outputs))
    }
}

impl<'m> Work<'m> for GroupNorm<'m> {
    fn bind(&mut self, outputs: &mut Outputs<'m>) -> Result<(), Error> {
        self.bind(outputs.data()?)
    }
}

/// A request of `rmsNorm`.
#[derive(Debug)]
pub(crate) struct RmsNormRequest {
    x: TensorAt,
    weight: Option<TensorAt>,
    eps: Option<f32>,
    scale: Option<f32>,
    settings: Settings,
}

impl RmsNormRequest {
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, Error> {
        Ok(Self {
            x: reader.tensor("x")?,
            weight: reader.tensor_or_none("weight")?,
            eps: reader.optional("eps", Reader::f32)?,
            scale: reader.optional("scale", Reader::f32)?,
            settings: Settings::now(),
        })
    }

    pub(crate) fn prepare<'m>(&'m self, operands: &[&'m [u8]]) -> Result<Prepared<'m>, Error> {
        let x = self.x.tensor(operands)?;
        let default = RmsNormOptions::default();
        let options = RmsNormOptions {
            weight: self
                .weight
                .as_ref()
                .map(|at| at.f32_vector(operands))
                .transpose()?,
            eps: self.eps.unwrap_or(default.eps),
            scale: self.scale.unwrap_or(default.scale),
            run: self.settings.run(),
        };
        let outputs = vec![OutputSpec::new("out", x.data.dtype(), &x.shape)?];
        Ok((Box::new(RmsNorm::new(x, &options)?), outputs))
    }
}

impl<'m> Work<'m> for RmsNorm<'m> {
    fn bind(&mut self, outputs: &mut Outputs<'m>) -> Result<(), Error> {
        self.bind(outputs.data()?)
    }
}
