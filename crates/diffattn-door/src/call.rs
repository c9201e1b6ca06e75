//! A request that was read: which operator, on what. Prepares jobs. Computes nothing.

use std::sync::Arc;

use diffattn::{DType, DataMut, Error, Slices};

use crate::attention::{AttentionRequest, MapsRequest, Prepared};
use crate::failure::contain;
use crate::job::{Job, OutputSpec, Outputs, Work};
use crate::layer::{ForwardRequest, LayerMapsRequest};
use crate::norm::{GroupNormRequest, RmsNormRequest};
use crate::objects::{CacheUse, Door, Loan, Turn};
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
    ExportCache(CacheUse),
    Forward(ForwardRequest),
    LayerMaps(LayerMapsRequest),
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
                    Operator::ExportCache(CacheUse {
                        slot: self.cache("cache", id)?,
                        changes: false,
                    })
                }
                8 => Operator::Forward(ForwardRequest::read(self, r)?),
                9 => Operator::LayerMaps(LayerMapsRequest::read(self, r)?),
                240 => Operator::Panic { early: true },
                241 => Operator::Panic { early: false },
                _ => return Err(Error::Internal(format!("there is no job number {op}"))),
            };
            Ok(Call(Arc::new(Request {
                operator,
                operands: reader.finish()?,
            })))
        })
    }
}

impl Call {
    fn cache(&self) -> Option<&CacheUse> {
        match &self.0.operator {
            Operator::Attention(request) => request.cache(),
            Operator::Maps(request) => request.cache(),
            Operator::ExportCache(cache) => Some(cache),
            Operator::Forward(request) => request.cache(),
            _ => None,
        }
    }

    /// Whether the objects that the call uses are as the call will find them; if not, calls before it are yet to change them,
    /// and its checks must wait.
    #[must_use]
    pub fn is_due(&self) -> bool {
        self.cache().is_none_or(CacheUse::is_due)
    }

    /// Waits until it is due. Only for a thread that the calls before it do not wait for.
    pub fn wait(&self) {
        if let Some(cache) = self.cache() {
            cache.wait();
        }
    }

    /// Takes the call's place in the order of those that use its objects: to be held until its job is dropped, and taken in
    /// the order in which calls will run.
    #[must_use]
    pub fn take_turn(&self) -> Turn {
        Turn::take(self.cache())
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
            let mut loan = None;
            let mut held = None;
            if let Some(CacheUse { slot, changes }) = self.cache() {
                if *changes {
                    loan = Some(Loan::take(slot)?);
                } else {
                    held = Some(slot.now()?);
                }
            }
            let cache = held.as_deref();
            // SAFETY: as above; the job keeps `held` too.
            let cache = cache.map(|cache| unsafe { &*std::ptr::from_ref(cache) });
            let (work, outputs): Prepared<'m> = match operator {
                Operator::Attention(request) => request.prepare(operands, cache)?,
                Operator::Maps(request) => request.prepare(operands, cache)?,
                Operator::GroupNorm(request) => request.prepare(operands)?,
                Operator::RmsNorm(request) => request.prepare(operands)?,
                Operator::Rope(request) => request.prepare(operands)?,
                Operator::Difference(request) => request.prepare(operands)?,
                Operator::ExportCache(_) => match cache {
                    Some(cache) => Export::prepare(cache)?,
                    None => {
                        return Err(Error::Internal("the cache of a request is missing".into()));
                    }
                },
                Operator::Forward(request) => {
                    let cache = loan.as_mut().map(Loan::cache).transpose()?;
                    // SAFETY: as above; the job keeps `loan`, which alone has the cache and touches it only once the work is dropped.
                    let cache = cache.map(|cache| unsafe { &mut *std::ptr::from_mut(cache) });
                    request.prepare(operands, cache)?
                }
                Operator::LayerMaps(request) => request.prepare(operands)?,
                Operator::Panic { early: true } => {
                    panic!("a panic in the preparation of a job, for tests")
                }
                Operator::Panic { early: false } => (
                    Box::new(PanicInStep),
                    vec![OutputSpec::new("out", DType::F32, &[1])?],
                ),
            };
            Ok(Job::new(work, outputs, request, held, loan))
        })
    }
}

/// Copies what a cache holds, in one unit of work.
struct Export<'m> {
    cache: &'m diffattn::KvCache,
    outputs: Vec<DataMut<'m>>,
    done: bool,
}

impl<'m> Export<'m> {
    fn prepare(cache: &'m diffattn::KvCache) -> Result<Prepared<'m>, Error> {
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
