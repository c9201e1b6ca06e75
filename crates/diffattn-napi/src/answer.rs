//! What the addon gives back: outputs in one flat list, errors with one of our codes.

use diffattn_door::{Error, Failure, OutputSpec};
use napi::bindgen_prelude::{ArrayBuffer, Either3, Null};

/// An error with one of our codes.
pub(crate) type Thrown = napi::Error<&'static str>;

/// What an error of the door is to JavaScript.
pub(crate) fn thrown(error: Error) -> Thrown {
    let Failure { code, message } = error.into();
    napi::Error::new(code, message)
}

/// A failure of the engine's interface, which no user can cause.
pub(crate) fn bug(error: napi::Error) -> Thrown {
    thrown(Error::internal(error.reason.clone()))
}

/// The tensors that a job computed, in one flat list: of each its kind, its rank, its extents, and
/// the buffer of its elements or null where the caller gave the memory. (Objects would cost a
/// string and a property for every name.)
pub(crate) type Outputs<'env> = Vec<Either3<f64, ArrayBuffer<'env>, Null>>;

/// Adds an output to the list.
pub(crate) fn encode_output<'env>(
    outputs: &mut Outputs<'env>,
    spec: &OutputSpec,
    buffer: Option<ArrayBuffer<'env>>,
) {
    outputs.extend([spec.kind.number() as usize, spec.shape.len()].map(|x| Either3::A(x as f64)));
    outputs.extend(spec.shape.iter().map(|&extent| Either3::A(extent as f64)));
    outputs.push(buffer.map_or(Either3::C(Null), Either3::B));
}
