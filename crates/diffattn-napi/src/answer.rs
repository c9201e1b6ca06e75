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

/// What outputs are, in numbers: how many there are, and of each its kind, its rank and its
/// extents. (Objects would cost a string and a property for every name.)
fn numbers(specs: &[OutputSpec]) -> impl Iterator<Item = f64> {
    let each = specs.iter().flat_map(|spec| {
        let shape = spec.shape.iter().copied();
        [spec.kind.number() as usize, spec.shape.len()]
            .into_iter()
            .chain(shape)
    });
    let all = std::iter::once(specs.len()).chain(each);
    all.map(|number| number as f64)
}

/// How many numbers [`tell`] writes.
pub(crate) fn told(specs: &[OutputSpec]) -> usize {
    numbers(specs).count()
}

/// Writes into the stream what the outputs are. (A list of them took a tenth of the smallest call.)
pub(crate) fn tell(specs: &[OutputSpec], stream: &mut Numbers) {
    for (to, number) in stream.values().iter_mut().zip(numbers(specs)) {
        *to = number;
    }
}

/// What an asynchronous job gave, in one list: what its outputs are, then the buffer of each, or
/// null where the caller gave the memory.
pub(crate) type Outputs<'env> = Vec<Either3<f64, ArrayBuffer<'env>, Null>>;

/// Such a list, of `buffers` as many as there are outputs.
pub(crate) fn encode_outputs<'env>(
    specs: &[OutputSpec],
    buffers: Vec<Option<ArrayBuffer<'env>>>,
) -> Outputs<'env> {
    let buffers = buffers
        .into_iter()
        .map(|buffer| buffer.map_or(Either3::C(Null), Either3::B));
    numbers(specs).map(Either3::A).chain(buffers).collect()
}
