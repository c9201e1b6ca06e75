//! Requests of rotary embedding and differences along the sequence: from the stream to the
//! operator. Checks no shapes; the operator does.

use diffattn::{
    Error, Layout, Positions, Rope, RopeFrequencies, RopeOptions, RopeScaling, RopeType, Run,
    SequenceDifference, SequenceDifferenceOptions,
};

use crate::encoding::{
    Count, Encoded, Flag, Integer, List, Number, OneOrMore, Or, Size, Tensor, choice, record,
    request,
};
use crate::job::Prepared;
use crate::objects::Door;
use crate::operation::{Inputs, Operation};
use crate::reader::Reader;
use crate::schema::Encoding;

choice! { Layout { "bhsd" = Bhsd, "bshd" = Bshd } }
choice! { RopeType { "default" = Default, "linear" = Linear, "llama3" = Llama3, "yarn" = Yarn } }

record! {
    /// How the frequencies of long contexts are scaled, in Hugging Face's words.
    record "scaling" ScalingAt {
        rope_type: RopeType,
        rope_theta: Option<Number>,
        factor: Option<Number>,
        low_freq_factor: Option<Number>,
        high_freq_factor: Option<Number>,
        original_max_position_embeddings: Option<Number>,
        attention_factor: Option<Number>,
        beta_fast: Option<Number>,
        beta_slow: Option<Number>,
        mscale: Option<Number>,
        mscale_all_dim: Option<Number>,
        truncate: Option<Flag>,
    }
}

record! {
    /// The rotary options that the operator and the layers share.
    record "rope" RopeAt {
        interleaved: Option<Flag>,
        theta: Option<Number>,
        scaling: Option<ScalingAt>,
    }
}

impl RopeAt {
    pub(super) fn frequencies(&self) -> RopeFrequencies {
        RopeFrequencies {
            theta: self.theta,
            scaling: self.scaling.as_ref().map(|at| RopeScaling {
                rope_type: at.rope_type,
                rope_theta: at.rope_theta,
                factor: at.factor,
                low_freq_factor: at.low_freq_factor,
                high_freq_factor: at.high_freq_factor,
                original_max_position_embeddings: at.original_max_position_embeddings,
                attention_factor: at.attention_factor,
                beta_fast: at.beta_fast,
                beta_slow: at.beta_slow,
                mscale: at.mscale,
                mscale_all_dim: at.mscale_all_dim,
                truncate: at.truncate,
            }),
            ..RopeFrequencies::default()
        }
    }
}

/// Positions in a shape of their own: its extents, and the positions.
#[derive(Debug)]
pub(crate) struct PositionsAt {
    shape: Vec<usize>,
    data: Vec<i64>,
}

impl Encoded for PositionsAt {
    type Value = Self;
    const ENCODING: &'static Encoding = &Encoding::Atom("integerTensor");

    fn read(door: &Door, r: &mut Reader<'_>, argument: &'static str) -> Self {
        Self {
            shape: List::<Size>::read(door, r, argument),
            data: List::<Integer>::read(door, r, argument),
        }
    }
}

record! {
    /// What of [`RopeOptions`] says where tokens and their channels are.
    record "ropePlaces" RopePlacesAt {
        layout: Or<Layout>,
        first_position: Option<OneOrMore<Integer>>,
        positions: Option<PositionsAt>,
        rotary_dim: Option<Size>,
    }
}

impl RopePlacesAt {
    pub(super) fn with(&self, rope: &RopeAt, run: Run) -> RopeOptions<'_> {
        let default = RopeOptions::default();
        RopeOptions {
            layout: self.layout,
            interleaved: rope.interleaved.unwrap_or(default.interleaved),
            frequencies: rope.frequencies(),
            rotary_dim: self.rotary_dim,
            first_position: self.first_position.clone(),
            positions: self.positions.as_ref().map(|at| Positions {
                data: &at.data,
                shape: at.shape.clone(),
            }),
            table: None,
            run,
        }
    }
}

request! {
    /// A request of `applyRope`.
    5 applyRope RopeRequest {
        x: Tensor,
    } options {
        rope: RopeAt,
        places: RopePlacesAt,
    }
}

impl Operation for RopeRequest {
    fn prepare<'m>(&'m self, inputs: Inputs<'_, 'm>) -> Result<Prepared<'m>, Error> {
        let x = self.x.tensor(inputs.operands)?;
        let (dtype, shape) = (x.data.dtype(), x.shape.clone());
        let rope = Rope::new(x, &self.places.with(&self.rope, inputs.run))?;
        Prepared::of_one(dtype, &shape, |out| rope.into_work(out))
    }
}

record! {
    /// [`SequenceDifferenceOptions`] as the operator has them.
    record "differenceOptions" DifferenceAt {
        order: Option<Count>,
        layout: Or<Layout>,
    }
}

impl DifferenceAt {
    pub(super) fn with(&self, run: Run) -> SequenceDifferenceOptions {
        let default = SequenceDifferenceOptions::default();
        SequenceDifferenceOptions {
            order: self.order.unwrap_or(default.order),
            layout: self.layout,
            run,
        }
    }
}

request! {
    /// A request of `sequenceDifference`.
    6 sequenceDifference DifferenceRequest {
        x: Tensor,
    } options {
        options: DifferenceAt,
    }
}

impl Operation for DifferenceRequest {
    fn prepare<'m>(&'m self, inputs: Inputs<'_, 'm>) -> Result<Prepared<'m>, Error> {
        let x = self.x.tensor(inputs.operands)?;
        let (dtype, shape) = (x.data.dtype(), x.shape.clone());
        let difference = SequenceDifference::new(x, &self.options.with(inputs.run))?;
        Prepared::of_one(dtype, &shape, |out| difference.into_work(out))
    }
}
