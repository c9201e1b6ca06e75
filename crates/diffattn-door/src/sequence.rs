//! Requests of rotary embedding and differences along the sequence: from the stream to the operator. Checks no shapes; the
//! operator does.

use diffattn::{Error, Layout, Rope, RopeOptions, RopeScaling, SequenceDifference};

use crate::attention::{LAYOUTS, Prepared};
use crate::job::{OutputSpec, Outputs, Work};
use crate::reader::{Reader, TensorAt};
use crate::settings::Settings;

/// The rotary options that the operator and the layers share.
#[derive(Debug, Clone)]
pub(crate) struct RopeAt {
    pub(crate) interleaved: Option<bool>,
    pub(crate) theta: Option<f64>,
    pub(crate) scaling: Option<RopeScaling>,
}

impl RopeAt {
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, Error> {
        Ok(Self {
            interleaved: reader.optional("interleaved", Reader::flag)?,
            theta: reader.optional("theta", Reader::number)?,
            scaling: reader.optional("scaling", |r, _| scaling(r))?,
        })
    }
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
            first_position: reader.optional("first_position", |r, name| r.list(name, Reader::integer))?,
            positions: reader.optional("positions", |r, name| Ok((r.list(name, Reader::size)?, r.list(name, Reader::integer)?)))?,
            rotary_dim: reader.optional("rotary_dim", Reader::size)?,
            settings: Settings::now(),
        })
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
}
