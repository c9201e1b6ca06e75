//! A prepared request: it says what its outputs are, is given memory for them, and is worked off in
//! steps. Knows no operator: each comes as [`Prepared`].

use diffattn::{DType, DataMut, Error, Work, checked_len, format_shape};
use std::borrow::Cow;

use crate::failure::contain;
use crate::kind::Kind;
use crate::objects::Kept;
use crate::reader::unaligned;

/// An output of a job: a tensor that the caller gives memory for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputSpec {
    /// What errors call it.
    pub name: Cow<'static, str>,
    /// What its elements are.
    pub kind: Kind,
    /// Its shape.
    pub shape: Vec<usize>,
    /// How many bytes it takes.
    pub bytes: usize,
}

impl OutputSpec {
    pub(crate) fn new(
        name: impl Into<Cow<'static, str>>,
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

    /// Float32 of a shape; without one an output that another call of its request would have: of
    /// rank 0 and without a byte.
    #[cfg(feature = "training")]
    pub(crate) fn optional(
        name: impl Into<Cow<'static, str>>,
        shape: Option<&[usize]>,
    ) -> Result<Self, Error> {
        match shape {
            Some(shape) => Self::new(name, DType::F32, shape),
            None => Ok(Self {
                name: name.into(),
                kind: Kind::U8,
                shape: Vec::new(),
                bytes: 0,
            }),
        }
    }

    /// Whether another call of its request would have it, and this one has not.
    #[cfg(feature = "training")]
    #[must_use]
    pub fn is_absent(&self) -> bool {
        self.bytes == 0 && self.shape.is_empty()
    }

    /// Whether memory of `bytes` fits.
    ///
    /// # Errors
    /// SHAPE when it does not.
    pub fn check_bytes(&self, bytes: usize) -> Result<(), Error> {
        if bytes == self.bytes {
            return Ok(());
        }
        #[cfg(feature = "training")]
        if self.is_absent() {
            return Err(Error::option(
                &self.name,
                "none, as the call has no such result",
                "an array",
            ));
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

/// Starts the work of a job, once it has memory to write to.
type Start<'m> = Box<dyn FnOnce(&mut Outputs<'m>) -> Result<Work<'m>, Error> + 'm>;

/// A request that was checked: what it will give, and how its work starts.
pub(crate) struct Prepared<'m> {
    outputs: Vec<OutputSpec>,
    start: Start<'m>,
}

impl<'m> Prepared<'m> {
    /// `start` takes the outputs in the order of their specs.
    pub(crate) fn new(
        outputs: Vec<OutputSpec>,
        start: impl FnOnce(&mut Outputs<'m>) -> Result<Work<'m>, Error> + 'm,
    ) -> Self {
        Self {
            outputs,
            start: Box::new(start),
        }
    }

    /// Of one output of floats, called `out`.
    pub(crate) fn of_one(
        dtype: DType,
        shape: &[usize],
        start: impl FnOnce(DataMut<'m>) -> Result<Work<'m>, Error> + 'm,
    ) -> Result<Self, Error> {
        let spec = OutputSpec::new("out", dtype, shape)?;
        Ok(Self::new(vec![spec], |outputs| start(outputs.data()?)))
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

/// A bug of ours: an operator asks for an output of another kind than its specs say.
#[cold]
fn other_kind(wanted: &'static str) -> Error {
    Error::internal(format!(
        "an operator wants {wanted} in a place of which it told something else"
    ))
}

impl<'m> Outputs<'m> {
    /// The next output, whose spec says of floats.
    pub(crate) fn data(&mut self) -> Result<DataMut<'m>, Error> {
        match self.0.next() {
            Some(Typed::Float(out)) => Ok(out),
            _ => Err(other_kind("floats")),
        }
    }

    /// The next output, whose spec says float32.
    pub(crate) fn f32(&mut self) -> Result<&'m mut [f32], Error> {
        match self.data()? {
            DataMut::F32(out) => Ok(out),
            _ => Err(other_kind("float32")),
        }
    }

    /// The next output, float32, or none where it is absent.
    #[cfg(feature = "training")]
    pub(crate) fn optional(&mut self) -> Result<Option<&'m mut [f32]>, Error> {
        match self.0.next() {
            Some(Typed::Float(DataMut::F32(out))) => Ok(Some(out)),
            Some(Typed::U8([])) => Ok(None),
            _ => Err(other_kind("float32, or nothing")),
        }
    }

    /// The next output, whose spec says uint8.
    pub(crate) fn u8(&mut self) -> Result<&'m mut [u8], Error> {
        match self.0.next() {
            Some(Typed::U8(out)) => Ok(out),
            _ => Err(other_kind("uint8")),
        }
    }

    /// The next output, whose spec says int32.
    #[cfg(feature = "models")]
    pub(crate) fn i32(&mut self) -> Result<&'m mut [i32], Error> {
        match self.0.next() {
            Some(Typed::I32(out)) => Ok(out),
            _ => Err(other_kind("int32")),
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
    // Borrows from the field below, so it must be dropped first: fields are dropped in this order.
    stage: Stage<'m>,
    _kept: Kept,
    outputs: Vec<OutputSpec>,
    // A panic in a step leaves the work in an unknown state.
    broken: bool,
}

enum Stage<'m> {
    /// Waits for memory; `None` after a start that failed.
    Prepared(Option<Start<'m>>),
    Started(Work<'m>),
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
    /// What was prepared may borrow from what `kept` owns.
    pub(crate) fn new(prepared: Prepared<'m>, kept: Kept) -> Self {
        Self {
            stage: Stage::Prepared(Some(prepared.start)),
            _kept: kept,
            outputs: prepared.outputs,
            broken: false,
        }
    }

    /// What must be bound, in this order.
    #[must_use]
    pub fn outputs(&self) -> &[OutputSpec] {
        &self.outputs
    }

    /// Gives the memory of the outputs, once.
    ///
    /// # Errors
    /// SHAPE when one has not the bytes that its spec says.
    pub fn bind(
        &mut self,
        memory: impl IntoIterator<Item = &'m mut [u8], IntoIter: ExactSizeIterator>,
    ) -> Result<(), Error> {
        let memory = memory.into_iter();
        if memory.len() != self.outputs.len() {
            return Err(Error::internal(format!(
                "{} outputs were bound of {}",
                memory.len(),
                self.outputs.len()
            )));
        }
        let mut to = Vec::with_capacity(memory.len());
        for (spec, memory) in self.outputs.iter().zip(memory) {
            to.push(typed(spec, memory)?);
        }
        let Stage::Prepared(start) = &mut self.stage else {
            return Err(Error::internal("outputs were bound twice"));
        };
        let start = start
            .take()
            .ok_or_else(|| Error::internal("outputs were bound after an error"))?;
        let work = contain(|| start(&mut Outputs(to.into_iter())))?;
        self.stage = Stage::Started(work);
        Ok(())
    }

    /// Units of work in all; none are known before the outputs are bound.
    #[must_use]
    pub fn total(&self) -> usize {
        match &self.stage {
            Stage::Prepared(_) => 0,
            Stage::Started(work) => work.total(),
        }
    }

    /// Units that are finished.
    #[must_use]
    pub fn done(&self) -> usize {
        match &self.stage {
            Stage::Prepared(_) => 0,
            Stage::Started(work) => work.done(),
        }
    }

    /// Whether the outputs hold the result.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        match &self.stage {
            Stage::Prepared(_) => false,
            Stage::Started(work) => !self.broken && work.done() >= work.total(),
        }
    }

    /// Works on `count` further units (one at least); nothing happens to a job that is complete.
    ///
    /// # Errors
    /// OUT_OF_MEMORY when scratch is refused; INTERNAL for a bug of ours, after which only dropping
    /// makes sense.
    pub fn step(&mut self, count: usize) -> Result<(), Error> {
        if self.is_complete() {
            return Ok(());
        }
        let work = match &mut self.stage {
            Stage::Started(work) if !self.broken => work,
            _ => {
                return Err(Error::internal(
                    "a step of a job that is not bound, or that failed before",
                ));
            }
        };
        self.broken = true;
        contain(|| work.step(count))?;
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
