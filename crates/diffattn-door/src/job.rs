//! A prepared request: it tells its outputs, is given memory for them, and is worked off in steps. Knows no operator:
//! those are behind [`Work`].

use std::sync::Arc;

use diffattn::{DType, DataMut, Error, Slices, checked_len, format_shape};

use crate::call::Request;
use crate::failure::contain;
use crate::kind::Kind;
use crate::objects::Kept;
use crate::reader::unaligned;

/// An output of a job: a tensor that the caller gives memory for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputSpec {
    /// What errors call it.
    pub name: String,
    /// What its elements are.
    pub kind: Kind,
    /// Its shape.
    pub shape: Vec<usize>,
    /// How many bytes it takes.
    pub bytes: usize,
}

impl OutputSpec {
    pub(crate) fn new(
        name: impl Into<String>,
        kind: impl Into<Kind>,
        shape: &[usize],
    ) -> Result<Self, Error> {
        let (name, kind) = (name.into(), kind.into());
        // `checked_len` leaves room for eight bytes an element.
        let bytes = checked_len(&name, shape)? * kind.bytes();
        Ok(Self {
            name,
            kind,
            shape: shape.to_vec(),
            bytes,
        })
    }

    /// Whether memory of `bytes` fits.
    ///
    /// # Errors
    /// SHAPE when it does not.
    pub fn check_bytes(&self, bytes: usize) -> Result<(), Error> {
        if bytes == self.bytes {
            return Ok(());
        }
        let expected = format_args!(
            "{} bytes for {} {}",
            self.bytes,
            self.kind.name(),
            format_shape(&self.shape)
        )
        .to_string();
        Err(Error::shape(&self.name, expected, bytes))
    }
}

/// What an operator is to a job: slices of work, with outputs that are bound in the order of the specs.
pub(crate) trait Work<'m>: Slices {
    fn bind(&mut self, outputs: &mut Outputs<'m>) -> Result<(), Error>;
}

type Start<'m> = Box<dyn FnOnce(&mut Outputs<'m>) -> Result<diffattn::Work<'m>, Error> + Send + 'm>;

/// Work that starts once it has outputs.
pub(crate) struct Later<'m> {
    start: Option<Start<'m>>,
    work: Option<diffattn::Work<'m>>,
}

impl<'m> Later<'m> {
    pub(crate) fn new(
        start: impl FnOnce(&mut Outputs<'m>) -> Result<diffattn::Work<'m>, Error> + Send + 'm,
    ) -> Box<Self> {
        Box::new(Self {
            start: Some(Box::new(start)),
            work: None,
        })
    }
}

impl<'m> Work<'m> for Later<'m> {
    fn bind(&mut self, outputs: &mut Outputs<'m>) -> Result<(), Error> {
        if let Some(start) = self.start.take() {
            self.work = Some(start(outputs)?);
        }
        Ok(())
    }
}

impl Slices for Later<'_> {
    fn total(&self) -> usize {
        self.work.as_ref().map_or(1, diffattn::Work::total)
    }

    fn done(&self) -> usize {
        self.work.as_ref().map_or(0, diffattn::Work::done)
    }

    fn step(&mut self, count: usize) -> Result<(), Error> {
        match &mut self.work {
            Some(work) => work.step(count),
            None => Err(Error::Internal("outputs that are not bound".into())),
        }
    }
}

/// The memory of the outputs, checked against the specs, in their order.
pub(crate) struct Outputs<'m>(std::vec::IntoIter<Typed<'m>>);

/// The memory of an output.
#[cfg_attr(
    not(feature = "models"),
    expect(dead_code, reason = "operators write floats")
)]
enum Typed<'m> {
    Float(DataMut<'m>),
    U8(&'m mut [u8]),
    I32(&'m mut [i32]),
}

/// A bug of ours: an operator asks for what it did not tell.
#[cold]
fn untold(wanted: &'static str) -> Error {
    Error::Internal(format!(
        "an operator wants {wanted} in a place of which it told something else"
    ))
}

impl<'m> Outputs<'m> {
    /// The next output, which was told to be of floats.
    pub(crate) fn data(&mut self) -> Result<DataMut<'m>, Error> {
        match self.0.next() {
            Some(Typed::Float(out)) => Ok(out),
            _ => Err(untold("floats")),
        }
    }

    /// The next output, which was told to be float32.
    pub(crate) fn f32(&mut self) -> Result<&'m mut [f32], Error> {
        match self.data()? {
            DataMut::F32(out) => Ok(out),
            _ => Err(untold("float32")),
        }
    }

    /// The next output, which was told to be uint8.
    #[cfg(feature = "models")]
    pub(crate) fn u8(&mut self) -> Result<&'m mut [u8], Error> {
        match self.0.next() {
            Some(Typed::U8(out)) => Ok(out),
            _ => Err(untold("uint8")),
        }
    }

    /// The next output, which was told to be int32.
    #[cfg(feature = "models")]
    pub(crate) fn i32(&mut self) -> Result<&'m mut [i32], Error> {
        match self.0.next() {
            Some(Typed::I32(out)) => Ok(out),
            _ => Err(untold("int32")),
        }
    }
}

fn typed<'m>(spec: &OutputSpec, memory: &'m mut [u8]) -> Result<Typed<'m>, Error> {
    spec.check_bytes(memory.len())?;
    fn cast<'m, T: bytemuck::Pod>(
        spec: &OutputSpec,
        memory: &'m mut [u8],
    ) -> Result<&'m mut [T], Error> {
        if memory.is_empty() {
            return Ok(&mut []); // its address means nothing
        }
        bytemuck::try_cast_slice_mut(memory).map_err(|_| unaligned(&spec.name, spec.kind))
    }
    Ok(match spec.kind {
        Kind::Float(DType::F32) => Typed::Float(DataMut::F32(cast(spec, memory)?)),
        Kind::Float(DType::F16) => Typed::Float(DataMut::F16(cast(spec, memory)?)),
        Kind::Float(DType::Bf16) => Typed::Float(DataMut::Bf16(cast(spec, memory)?)),
        Kind::U8 => Typed::U8(memory),
        Kind::I32 => Typed::I32(cast(spec, memory)?),
    })
}

/// A prepared call over operands that live for `'m`. Panics inside become INTERNAL errors.
pub struct Job<'m> {
    // Borrows from the two fields below, so it must be dropped first: fields are dropped in this order.
    work: Box<dyn Work<'m> + 'm>,
    _kept: Kept,
    _request: Arc<Request>,
    outputs: Vec<OutputSpec>,
    bound: bool,
    // A panic in a step leaves the work in an unknown state.
    broken: bool,
}

impl std::fmt::Debug for Job<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job")
            .field("outputs", &self.outputs)
            .field("done", &self.done())
            .finish_non_exhaustive()
    }
}

impl<'m> Job<'m> {
    /// `work` may borrow from what `request` and `kept` own.
    pub(crate) fn new(
        work: Box<dyn Work<'m> + 'm>,
        outputs: Vec<OutputSpec>,
        request: Arc<Request>,
        kept: Kept,
    ) -> Self {
        Self {
            work,
            _kept: kept,
            _request: request,
            outputs,
            bound: false,
            broken: false,
        }
    }

    /// What must be bound, in this order.
    #[must_use]
    pub fn outputs(&self) -> &[OutputSpec] {
        &self.outputs
    }

    /// Gives the memory of the outputs.
    ///
    /// # Errors
    /// SHAPE when one has not the bytes that its spec says.
    pub fn bind(&mut self, memory: Vec<&'m mut [u8]>) -> Result<(), Error> {
        if memory.len() != self.outputs.len() {
            return Err(Error::Internal(format!(
                "{} outputs were bound of {}",
                memory.len(),
                self.outputs.len()
            )));
        }
        let typed = self
            .outputs
            .iter()
            .zip(memory)
            .map(|(spec, memory)| typed(spec, memory))
            .collect::<Result<Vec<_>, _>>()?;
        let mut outputs = Outputs(typed.into_iter());
        contain(|| self.work.bind(&mut outputs))?;
        self.bound = true;
        Ok(())
    }

    /// Units of work in all.
    #[must_use]
    pub fn total(&self) -> usize {
        self.work.total()
    }

    /// Units that are finished.
    #[must_use]
    pub fn done(&self) -> usize {
        self.work.done()
    }

    /// Whether the outputs hold the result.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.bound && !self.broken && self.done() >= self.total()
    }

    /// Works on `count` further units (one at least); nothing happens to a job that is complete.
    ///
    /// # Errors
    /// OUT_OF_MEMORY when scratch is refused; INTERNAL for a bug of ours, after which only dropping makes sense.
    pub fn step(&mut self, count: usize) -> Result<(), Error> {
        if !self.bound || self.broken {
            return Err(Error::Internal(
                "a step of a job that is not bound, or that failed before".into(),
            ));
        }
        if self.is_complete() {
            return Ok(());
        }
        self.broken = true;
        contain(|| self.work.step(count.max(1)))?;
        self.broken = false;
        Ok(())
    }

    /// Works until the job is complete.
    ///
    /// # Errors
    /// As [`Job::step`].
    pub fn finish(&mut self) -> Result<(), Error> {
        while !self.is_complete() {
            self.step(usize::MAX)?;
        }
        Ok(())
    }
}

/// Makes a wrapper's [`Slices`] those of the operator in one of its fields.
macro_rules! delegate_slices {
    ($wrapper:ty, $field:ident) => {
        impl diffattn::Slices for $wrapper {
            fn total(&self) -> usize {
                self.$field.total()
            }
            fn done(&self) -> usize {
                self.$field.done()
            }
            fn step(&mut self, count: usize) -> Result<(), diffattn::Error> {
                self.$field.step(count)
            }
        }
    };
}
pub(crate) use delegate_slices;
