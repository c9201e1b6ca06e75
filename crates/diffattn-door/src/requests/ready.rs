//! Jobs whose outputs were made while they were prepared, as their sizes are known no sooner:
//! small, or of one layer.

use diffattn::{Error, ErrorKind, Work};
use serde::Serialize;

use crate::job::{OutputSpec, Prepared};
use crate::kind::Kind;

/// An output that is made.
#[derive(Debug)]
pub(super) enum Made {
    Bytes(Vec<u8>),
    Ints(Vec<i32>),
}

/// JSON is made by a library, so no text in it can be mistaken for anything else.
pub(super) fn json_bytes(value: &impl Serialize) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(value)
        .map_err(|why| Error::internal(format!("an answer that is no JSON: {why}")))
}

impl Made {
    pub(super) fn json(value: &impl Serialize) -> Result<Self, Error> {
        json_bytes(value).map(Self::Bytes)
    }

    fn spec(&self, name: &str) -> Result<OutputSpec, Error> {
        let (kind, len) = match self {
            Self::Bytes(bytes) => (Kind::U8, bytes.len()),
            Self::Ints(ints) => (Kind::I32, ints.len()),
        };
        OutputSpec::new(name.to_owned(), kind, &[len])
    }
}

/// An output's memory with what goes into it.
enum Copy<'m> {
    Bytes(Vec<u8>, &'m mut [u8]),
    Ints(Vec<i32>, &'m mut [i32]),
}

impl Copy<'_> {
    fn run(&mut self) {
        match self {
            Self::Bytes(from, to) => to.copy_from_slice(from),
            Self::Ints(from, to) => to.copy_from_slice(from),
        }
    }
}

/// The job that hands out what is made, each output of one axis and a unit of work.
pub(super) fn ready<'m>(made: Vec<(&str, Made)>) -> Result<Prepared<'m>, Error> {
    let specs = made
        .iter()
        .map(|(name, made)| made.spec(name))
        .collect::<Result<_, _>>()?;
    let made: Vec<Made> = made.into_iter().map(|(_, made)| made).collect();
    Ok(Prepared::new(specs, |outputs| {
        let copies = made.into_iter().map(|made| {
            Ok(match made {
                Made::Bytes(bytes) => Copy::Bytes(bytes, outputs.u8()?),
                Made::Ints(ints) => Copy::Ints(ints, outputs.i32()?),
            })
        });
        let mut copies = copies.collect::<Result<Vec<_>, Error>>()?;
        let total = copies.len();
        Ok(Work::new(total, |pace| async move {
            pace.rows(0..total, 1, |range| {
                copies[range].iter_mut().for_each(Copy::run);
                Ok(())
            })
            .await
        }))
    }))
}

/// An error about what a file says.
pub(super) fn in_file(error: Error) -> Error {
    match error.kind() {
        Some(ErrorKind::Shape | ErrorKind::Dtype) => error.of(ErrorKind::File),
        _ => error,
    }
}
