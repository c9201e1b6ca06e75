//! A request that was read: which operator, on what. Prepares jobs. Computes nothing.

use std::sync::Arc;

use diffattn::{DType, DataMut, Error, KvCache, Slices};

use crate::attention::{AttentionRequest, MapsRequest, Prepared};
use crate::failure::contain;
use crate::job::{Job, OutputSpec, Outputs, Work};
use crate::layer::{ForwardRequest, LayerMapsRequest};
use crate::norm::{GroupNormRequest, RmsNormRequest};
use crate::objects::{Door, Lender, Slot, Turn, Use};
use crate::reader::Reader;
use crate::sequence::{DifferenceRequest, RopeRequest};

/// One request, by operator.
#[derive(Debug)]
pub(crate) enum Operator {
    Attention(AttentionRequest),
    Maps(MapsRequest),
    GroupNorm(GroupNormRequest),
    RmsNorm(RmsNormRequest),
    Rope(RopeRequest),
    Difference(DifferenceRequest),
    ExportCache(Arc<Slot<KvCache>>),
    Forward(ForwardRequest),
    LayerMaps(LayerMapsRequest),
    #[cfg(feature = "models")]
    Models(Box<dyn crate::models::Operation>),
    /// Tests that no panic passes a door.
    Panic {
        early: bool,
    },
}

/// What a job keeps alive while it borrows from it.
#[derive(Debug)]
pub(crate) struct Request {
    operator: Operator,
    operands: usize,
    /// The objects that it uses.
    uses: Vec<Use>,
}

impl Operator {
    fn uses(&self) -> Vec<Use> {
        let (cache, changes) = match self {
            Self::Attention(request) => (request.cache(), false),
            Self::Maps(request) => (request.cache(), false),
            Self::ExportCache(cache) => (Some(cache), false),
            Self::Forward(request) => (request.cache(), true),
            #[cfg(feature = "models")]
            Self::Models(request) => return request.uses(),
            _ => (None, false),
        };
        cache.map(|slot| slot.to_use(changes)).into_iter().collect()
    }

    /// Whether preparing it is work of its own, so that a thread that should not wait leaves it to the one that does the work.
    fn prepares_at_length(&self) -> bool {
        match self {
            #[cfg(feature = "models")]
            Self::Models(request) => request.prepares_at_length(),
            _ => false,
        }
    }
}

/// A request for a job, read and checked as far as that goes without its operands.
#[derive(Debug, Clone)]
pub struct Call(Arc<Request>);

impl Door {
    /// Reads the request of a job.
    ///
    /// # Errors
    /// SHAPE, DTYPE, OPTION or DISPOSED for what a user can have caused, INTERNAL for a request that `PROTOCOL.md` does not know.
    pub fn call(&self, op: u32, params: &[f64]) -> Result<Call, Error> {
        contain(|| {
            let mut reader = Reader::new(params);
            let r = &mut reader;
            let operator = match op {
                1 => Operator::Attention(AttentionRequest::read(self, r)?),
                2 => Operator::Maps(MapsRequest::read(self, r)?),
                3 => Operator::GroupNorm(GroupNormRequest::read(r)?),
                4 => Operator::RmsNorm(RmsNormRequest::read(r)?),
                5 => Operator::Rope(RopeRequest::read(r)?),
                6 => Operator::Difference(DifferenceRequest::read(r)?),
                7 => {
                    let id = r.object("cache")?;
                    Operator::ExportCache(self.cache("cache", id)?)
                }
                8 => Operator::Forward(ForwardRequest::read(self, r)?),
                9 => Operator::LayerMaps(LayerMapsRequest::read(self, r)?),
                240 => Operator::Panic { early: true },
                241 => Operator::Panic { early: false },
                #[cfg(feature = "models")]
                64..=90 => Operator::Models(crate::models::read(self, op, r)?),
                _ => return Err(no_such_job(op)),
            };
            Ok(Call(Arc::new(Request {
                uses: operator.uses(),
                operator,
                operands: reader.finish()?,
            })))
        })
    }
}

pub(crate) fn no_such_job(op: u32) -> Error {
    Error::Internal(format!("there is no job number {op}"))
}

impl Call {
    /// Whether the objects that the call uses are as the call will find them, and its preparation is short; if not, calls
    /// before it are yet to change them, and its checks must wait, or they take long.
    #[must_use]
    pub fn is_due(&self) -> bool {
        !self.0.operator.prepares_at_length() && self.0.uses.iter().all(Use::is_due)
    }

    /// Waits until its objects are as it will find them. Only for a thread that the calls before it do not wait for.
    pub fn wait(&self) {
        self.0.uses.iter().for_each(Use::wait);
    }

    /// Takes the call's place in the order of those that use its objects: to be held until its job is dropped, and taken in
    /// the order in which calls will run.
    #[must_use]
    pub fn take_turn(&self) -> Turn {
        Turn::take(&self.0.uses)
    }

    /// Makes the job over `operands`, the raw elements of the tensors that the request names: all checks, no work. May be
    /// called again, for example once the operands lie where they can stay.
    ///
    /// # Errors
    /// SHAPE, DTYPE or OPTION, naming the argument; INTERNAL for a bug of ours.
    pub fn prepare<'m>(&self, operands: &[&'m [u8]]) -> Result<Job<'m>, Error> {
        contain(|| {
            if operands.len() != self.0.operands {
                return Err(Error::Internal(format!(
                    "{} operands came with a request that names {}",
                    operands.len(),
                    self.0.operands
                )));
            }
            let request = self.0.clone();
            // SAFETY: the job keeps `request` and drops it after the work that borrows from it; an Arc's content never moves,
            // and no one changes it.
            let operator: &'m Operator = unsafe { &*std::ptr::from_ref(&request.operator) };
            // SAFETY: the work, which borrows from what is lent, is dropped before the lender here and before `kept` in a job.
            let mut lender = unsafe { Lender::new() };
            let (work, outputs): Prepared<'m> = match operator {
                Operator::Attention(request) => {
                    let cache = request.cache().map(|slot| lender.look(slot)).transpose()?;
                    request.prepare(operands, cache)?
                }
                Operator::Maps(request) => {
                    let cache = request.cache().map(|slot| lender.look(slot)).transpose()?;
                    request.prepare(operands, cache)?
                }
                Operator::GroupNorm(request) => request.prepare(operands)?,
                Operator::RmsNorm(request) => request.prepare(operands)?,
                Operator::Rope(request) => request.prepare(operands)?,
                Operator::Difference(request) => request.prepare(operands)?,
                Operator::ExportCache(slot) => Export::prepare(lender.look(slot)?)?,
                Operator::Forward(request) => request.prepare(operands, &mut lender)?,
                Operator::LayerMaps(request) => request.prepare(operands)?,
                #[cfg(feature = "models")]
                Operator::Models(request) => request.prepare(operands, &mut lender)?,
                Operator::Panic { early: true } => {
                    panic!("a panic in the preparation of a job, for tests")
                }
                Operator::Panic { early: false } => (
                    Box::new(PanicInStep),
                    vec![OutputSpec::new("out", DType::F32, &[1])?],
                ),
            };
            Ok(Job::new(work, outputs, request, lender.into_kept()))
        })
    }
}

/// Copies what a cache holds, in one unit of work.
struct Export<'m> {
    cache: &'m KvCache,
    outputs: Vec<DataMut<'m>>,
    done: bool,
}

impl<'m> Export<'m> {
    fn prepare(cache: &'m KvCache) -> Result<Prepared<'m>, Error> {
        let options = cache.options();
        let k = [
            options.batch,
            options.terms * options.groups,
            cache.len(),
            options.head_dim,
        ];
        let v = [
            options.batch,
            options.groups,
            cache.len(),
            options.value_dim,
        ];
        let outputs = vec![
            OutputSpec::new("k", options.dtype, &k)?,
            OutputSpec::new("v", options.dtype, &v)?,
        ];
        Ok((
            Box::new(Self {
                cache,
                outputs: Vec::new(),
                done: false,
            }),
            outputs,
        ))
    }
}

impl<'m> Work<'m> for Export<'m> {
    fn bind(&mut self, outputs: &mut Outputs<'m>) -> Result<(), Error> {
        self.outputs = vec![outputs.data()?, outputs.data()?];
        Ok(())
    }
}

impl Slices for Export<'_> {
    fn total(&self) -> usize {
        1
    }

    fn done(&self) -> usize {
        usize::from(self.done)
    }

    fn step(&mut self, _count: usize) -> Result<(), Error> {
        let (k, v) = self.cache.export()?;
        for (output, values) in self.outputs.iter_mut().zip([k, v]) {
            // What a cache of half-precision holds came from it, so narrowing is exact.
            match output {
                DataMut::F32(out) => out.copy_from_slice(&values),
                DataMut::F16(out) => out
                    .iter_mut()
                    .zip(&values)
                    .for_each(|(out, &x)| *out = half::f16::from_f32(x).to_bits()),
                DataMut::Bf16(out) => out
                    .iter_mut()
                    .zip(&values)
                    .for_each(|(out, &x)| *out = half::bf16::from_f32(x).to_bits()),
            }
        }
        self.done = true;
        Ok(())
    }
}

struct PanicInStep;

impl Work<'_> for PanicInStep {
    fn bind(&mut self, _outputs: &mut Outputs<'_>) -> Result<(), Error> {
        Ok(())
    }
}

impl Slices for PanicInStep {
    fn total(&self) -> usize {
        1
    }

    fn done(&self) -> usize {
        0
    }

    fn step(&mut self, _count: usize) -> Result<(), Error> {
        panic!("a panic in the step of a job, for tests")
    }
}
