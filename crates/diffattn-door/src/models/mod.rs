//! Requests of checkpoints and whole models: from the stream to diffattn-nn. Decides nothing about files or models; `mod.rs` holds
//! what these requests share.

mod checkpoint;
mod convert;
mod generate;
mod llama;
mod model;
mod vit;

pub(crate) use generate::HeldGenerator;
pub(crate) use model::Model;

use diffattn::{Error, ErrorKind, Slices};
use serde::Serialize;

use crate::attention::Prepared;
use crate::call::no_such_job;
use crate::job::{OutputSpec, Outputs, Work};
use crate::kind::Kind;
use crate::objects::{Door, Lender, Use};
use crate::query::finish;
use crate::reader::{Reader, TensorAt};

/// A request for a job that was read.
pub(crate) trait Operation: std::fmt::Debug + Send + Sync {
    /// The objects that it uses.
    fn uses(&self) -> Vec<Use> {
        Vec::new()
    }

    /// Whether preparing it is work of its own: reading a file's header, converting a layer.
    fn prepares_at_length(&self) -> bool {
        false
    }

    fn prepare<'m>(
        &'m self,
        operands: &[&'m [u8]],
        lender: &mut Lender<'m>,
    ) -> Result<Prepared<'m>, Error>;
}

/// Reads the request of a job.
pub(crate) fn read(door: &Door, op: u32, r: &mut Reader<'_>) -> Result<Box<dyn Operation>, Error> {
    Ok(match op {
        64 => Box::new(checkpoint::CheckpointRequest::read(r)?),
        65 => Box::new(checkpoint::ShardFilesRequest::read(r)?),
        66 => Box::new(checkpoint::HeaderRequest::read(r)?),
        67 => Box::new(checkpoint::InspectRequest::read(r)?),
        68 => Box::new(checkpoint::CastRequest::read(r)?),
        69 => Box::new(convert::ConvertRequest::read(r)?),
        70 => Box::new(checkpoint::KindRequest::read(r)?),
        72 => Box::new(model::InfoRequest::read(door, r)?),
        73 => Box::new(model::LoadRequest::read(door, r)?),
        80 => Box::new(llama::ForwardRequest::read(door, r)?),
        81 => Box::new(generate::StepRequest::read(door, r)?),
        82 => Box::new(llama::ExportRequest::read(door, r)?),
        83 => Box::new(generate::EndRequest::read(door, r)?),
        88 => Box::new(vit::VitRequest::forward(door, r)?),
        89 => Box::new(vit::VitRequest::maps(door, r)?),
        90 => Box::new(vit::VitRequest::classify(door, r)?),
        _ => return Err(no_such_job(op)),
    })
}

/// Answers a query.
pub(crate) fn query(
    door: &Door,
    op: u32,
    mut reader: Reader<'_>,
    operands: &[&[u8]],
) -> Result<f64, Error> {
    let r = &mut reader;
    match op {
        96 => {
            let request = model::CreateRequest::read(r)?;
            finish(reader, operands)?;
            door.create(request.create(operands)?)
        }
        97 => {
            let request = llama::CreateCacheRequest::read(door, r)?;
            finish(reader, operands)?;
            door.create(request.create()?)
        }
        98 => {
            let request = llama::ImportRequest::read(door, r)?;
            finish(reader, operands)?;
            door.create(request.create(operands)?)
        }
        99 => {
            let id = r.object("cache")?;
            let length = r.size("length")?;
            finish(reader, operands)?;
            door.model_cache("cache", id)?.change(|cache| {
                cache.rewind(length)?;
                Ok(cache.len() as f64)
            })
        }
        100 => {
            let id = r.object("cache")?;
            finish(reader, operands)?;
            door.model_cache("cache", id)?
                .look(|cache| cache.len() as f64)
        }
        101 => {
            let request = generate::CreateRequest::read(door, r)?;
            finish(reader, operands)?;
            door.create(request.create(operands)?)
        }
        _ => Err(Error::Internal(format!("there is no query number {op}"))),
    }
}

/// Where a text of the request lies.
fn text(r: &mut Reader<'_>, argument: &'static str) -> Result<TensorAt, Error> {
    r.tensor(argument)
}

/// An error about what a file says.
fn in_file(error: Error) -> Error {
    match error.kind() {
        Some(ErrorKind::Shape | ErrorKind::Dtype) => error.of(ErrorKind::File),
        _ => error,
    }
}

/// What was made while a job was prepared, as outputs can only be told once they are known: small, or of one layer.
#[derive(Debug)]
enum Made {
    Bytes(Vec<u8>),
    Ints(Vec<i32>),
}

/// JSON is made by a library, so no text in it can be mistaken for anything else.
fn json_bytes(value: &impl Serialize) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(value)
        .map_err(|why| Error::Internal(format!("an answer that is no JSON: {why}")))
}

impl Made {
    fn json(value: &impl Serialize) -> Result<Self, Error> {
        json_bytes(value).map(Self::Bytes)
    }

    fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Ints(ints) => ints.len(),
        }
    }

    fn kind(&self) -> Kind {
        match self {
            Self::Bytes(_) => Kind::U8,
            Self::Ints(_) => Kind::I32,
        }
    }
}

/// Hands out what was made, an output per unit of work.
struct Ready<'m> {
    made: Vec<Made>,
    outputs: Vec<To<'m>>,
    done: usize,
}

enum To<'m> {
    Bytes(&'m mut [u8]),
    Ints(&'m mut [i32]),
}

/// The job of what is made already, each output of one axis.
fn ready<'m>(made: Vec<(&str, Made)>) -> Result<Prepared<'m>, Error> {
    let specs = made
        .iter()
        .map(|(name, made)| OutputSpec::new(*name, made.kind(), &[made.len()]))
        .collect::<Result<_, _>>()?;
    let ready = Ready {
        made: made.into_iter().map(|(_, made)| made).collect(),
        outputs: Vec::new(),
        done: 0,
    };
    Ok((Box::new(ready), specs))
}

impl<'m> Work<'m> for Ready<'m> {
    fn bind(&mut self, outputs: &mut Outputs<'m>) -> Result<(), Error> {
        self.outputs = self
            .made
            .iter()
            .map(|made| {
                Ok(match made {
                    Made::Bytes(_) => To::Bytes(outputs.u8()?),
                    Made::Ints(_) => To::Ints(outputs.i32()?),
                })
            })
            .collect::<Result<_, Error>>()?;
        Ok(())
    }
}

impl Slices for Ready<'_> {
    fn total(&self) -> usize {
        self.made.len()
    }

    fn done(&self) -> usize {
        self.done
    }

    fn step(&mut self, count: usize) -> Result<(), Error> {
        for _ in 0..count.min(self.made.len() - self.done) {
            match (&self.made[self.done], self.outputs.get_mut(self.done)) {
                (Made::Bytes(from), Some(To::Bytes(to))) => to.copy_from_slice(from),
                (Made::Ints(from), Some(To::Ints(to))) => to.copy_from_slice(from),
                _ => return Err(Error::Internal("outputs that are not bound".into())),
            }
            self.done += 1;
        }
        Ok(())
    }
}
