//! What the addon gives back: outputs, as numbers and buffers; errors with one of our codes.

use diffattn_door::{Error, Failure, OutputSpec};
use napi::bindgen_prelude::{ArrayBuffer, Either, Either3, Null};

use crate::js::Numbers;

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

/// The buffers that were made for the outputs of a call, null where the caller gave the memory:
/// that of the only output, or a list. Or how many numbers the stream must hold for what is told.
pub(crate) type Made<'env> = Either3<f64, MadeBuffer<'env>, Vec<MadeBuffer<'env>>>;

type MadeBuffer<'env> = Either<ArrayBuffer<'env>, Null>;

/// A buffer that was made, or none.
pub(crate) fn made(buffer: Option<ArrayBuffer<'_>>) -> MadeBuffer<'_> {
    buffer.map_or(Either::B(Null), Either::A)
}

/// How many numbers [`tell`] writes.
pub(crate) fn told(specs: &[OutputSpec]) -> usize {
    1 + specs.iter().map(|spec| 2 + spec.shape.len()).sum::<usize>()
}

/// Writes into the stream what the outputs are: how many, of each its kind, its rank and its
/// extents. (A list of them took a tenth of the smallest call.)
pub(crate) fn tell(specs: &[OutputSpec], stream: &mut Numbers) {
    let each = specs.iter().flat_map(|spec| {
        let shape = spec.shape.iter().copied();
        [spec.kind.number() as usize, spec.shape.len()]
            .into_iter()
            .chain(shape)
    });
    let all = std::iter::once(specs.len()).chain(each);
    for (to, number) in stream.values().iter_mut().zip(all) {
        *to = number as f64;
    }
}

/// The tensors that an asynchronous job computed, in one flat list: of each its kind, its rank, its
/// extents, and the buffer of its elements or null where the caller gave the memory. (Objects would
/// cost a string and a property for every name.)
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
