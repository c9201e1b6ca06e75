//! Requests of rotary embedding and differences along the sequence: from the stream to the operator. Checks no shapes; the
//! operator does.

use diffattn::{
    Error, Layout, Positions, Rope, RopeFrequencies, RopeOptions, RopeScaling, RopeType,
    SequenceDifference, SequenceDifferenceOptions,
};

use crate::attention::{LAYOUTS, Prepared};
use crate::job::{OutputSpec, Outputs, Work};
use crate::reader::{Reader, TensorAt};
use crate::settings::Settings;

/// The rotary options that the operator and the layers share.
#[derive(Debug)]
pub(crate) struct RopeAt {
    pub(crate) interleaved: Option<bool>,
    pub(crate) frequencies: RopeFrequencies,
}

impl RopeAt {
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, Error> {
        let interleaved = reader.optional("interleaved", Reader::flag)?;
        let theta = reader.optional("theta", Reader::number)?;
        let scaling = reader.optional("scaling", |r, _| scaling(r))?;
        Ok(Self {
            interleaved,
            frequencies: RopeFrequencies {
                theta,
                scaling,
                ..RopeFrequencies::default()
            },
        })
    }
}

fn scaling(r: &mut Reader<'_>) -> Result<RopeScaling, Error> {
    Ok(RopeScaling {
        rope_type: r.choice(
            "rope_type",
            &[
                RopeType::Default,
                RopeType::Linear,
                RopeType::Llama3,
                RopeType::Yarn,
            ],
        )?,
        rope_theta: r.optional("rope_theta", Reader::number)?,
        factor: r.optional("factor", Reader::number)?,
        low_freq_factor: r.optional("low_freq_factor", Reader::number)?,
        high_freq_factor: r.optional("high_freq_factor", Reader::number)?,
        original_max_position_embeddings: r
            .optional("original_max_position_embeddings", Reader::number)?,
        attention_factor: r.optional("attention_factor", Reader::number)?,
        beta_fast: r.optional("beta_fast", Reader::number)?,
        beta_slow: r.optional("beta_slow", Reader::number)?,
        mscale: r.optional("mscale", Reader::number)?,
        mscale_all_dim: r.optional("mscale_all_dim", Reader::number)?,
        truncate: r.optional("truncate", Reader::flag)?,
    })
}

/// A request of `applyRope`.
#[derive(Debug)]
pub(crate) struct RopeRequest {
    x: TensorAt,
    rope: RopeAt,
    layout: Layout,
    first_position: Option<Vec<i64>>,
    positions: Option<(Vec<usize>, Vec<i64>)>,
    rotary_dim: Option<usize>,
    settings: Settings,
}

impl RopeRequest {
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, Error> {
        Ok(Self {
            x: reader.tensor("x")?,
            rope: RopeAt::read(reader)?,
            layout: reader.choice("layout", &LAYOUTS)?,
            first_position: reader
                .optional("first_position", |r, name| r.list(name, Reader::integer))?,
            positions: reader.optional("positions", |r, name| {
                Ok((r.list(name, Reader::size)?, r.list(name, Reader::integer)?))
            })?,
            rotary_dim: reader.optional("rotary_dim", Reader::size)?,
            settings: Settings::now(),
        })
    }

    pub(crate) fn prepare<'m>(&'m self, operands: &[&'m [u8]]) -> Result<Prepared<'m>, Error> {
        let x = self.x.tensor(operands)?;
        let outputs = vec![OutputSpec::new("out", x.data.dtype(), &x.shape)?];
        let default = RopeOptions::default();
        let options = RopeOptions {
            layout: self.layout,
            interleaved: self.rope.interleaved.unwrap_or(default.interleaved),
            frequencies: self.rope.frequencies,
            rotary_dim: self.rotary_dim,
            first_position: self.first_position.clone(),
            positions: self.positions.as_ref().map(|(shape, data)| Positions {
                data,
                shape: shape.clone(),
            }),
            table: None,
            run: self.settings.run(),
        };
        Ok((Box::new(Rope::new(x, &options)?), outputs))
    }
}

impl<'m> Work<'m> for Rope<'m> {
    fn bind(&mut self, outputs: &mut Outputs<'m>) -> Result<(), Error> {
        self.bind(outputs.data()?)
    }
}

/// A request of `sequenceDifference`.
#[derive(Debug)]
pub(crate) struct DifferenceRequest {
    x: TensorAt,
    order: Option<usize>,
    layout: Layout,
    settings: Settings,
}

impl DifferenceRequest {
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, Error> {
        Ok(Self {
            x: reader.tensor("x")?,
            order: reader.optional("order", Reader::count)?,
            layout: reader.choice("layout", &LAYOUTS)?,
            settings: Settings::now(),
        })
    }

    pub(crate) fn prepare<'m>(&'m self, operands: &[&'m [u8]]) -> Result<Prepared<'m>, Error> {
        let x = self.x.tensor(operands)?;
        let outputs = vec![OutputSpec::new("out", x.data.dtype(), &x.shape)?];
        let options = SequenceDifferenceOptions {
            order: self
                .order
                .unwrap_or(SequenceDifferenceOptions::default().order),
            layout: self.layout,
            run: self.settings.run(),
        };
        Ok((Box::new(SequenceDifference::new(x, &options)?), outputs))
    }
}

impl<'m> Work<'m> for SequenceDifference<'m> {
    fn bind(&mut self, outputs: &mut Outputs<'m>) -> Result<(), Error> {
        self.bind(outputs.data()?)
    }
}
