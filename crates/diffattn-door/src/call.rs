//! Requests on their way to an answer: a job to be worked off, or a number at once. Computes
//! nothing and knows no request by name.

use std::fmt;
use std::sync::Arc;

use diffattn::{Error, Run};

use crate::failure::contain;
use crate::job::Job;
use crate::objects::{Door, Lender, Turn, Use};
use crate::operation::{Asked, Inputs, Operation, check_operands};
use crate::{registry, settings};

/// What a job keeps alive while it borrows from it.
struct Request {
    operation: Box<dyn Operation>,
    /// How many tensors it names.
    operands: usize,
    /// The objects that it uses.
    uses: Vec<Use>,
    /// What it runs on.
    run: Run,
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("operands", &self.operands)
            .field("uses", &self.uses)
            .finish_non_exhaustive()
    }
}

/// A request for a job, read and checked as far as that goes without its operands.
#[derive(Debug, Clone)]
pub struct Call(Arc<Request>);

impl Door {
    /// Reads the request of a job.
    ///
    /// # Errors
    /// SHAPE, DTYPE, OPTION or DISPOSED for what a user can have caused, INTERNAL for a request
    /// that `PROTOCOL.md` does not know.
    pub fn call(&self, op: u32, params: &[f64]) -> Result<Call, Error> {
        contain(|| {
            let run = settings::now();
            if let Some(request) = self.recent().find(op, params, run) {
                return Ok(Call(request));
            }
            let (operation, named) = registry::operation(op, self, params)?;
            let request = Arc::new(Request {
                uses: operation.uses(),
                operation,
                operands: named.operands,
                run,
            });
            if !named.objects {
                self.recent().keep(op, params, run, request.clone());
            }
            Ok(Call(request))
        })
    }

    /// Answers the query `op` of `PROTOCOL.md`. One that changes a cache waits for the open calls
    /// that use it.
    ///
    /// # Errors
    /// SHAPE, DTYPE, OPTION, DISPOSED or OUT_OF_MEMORY; INTERNAL for a request that `PROTOCOL.md`
    /// does not know.
    pub fn query(&self, op: u32, params: &[f64], operands: &[&[u8]]) -> Result<f64, Error> {
        let asked = Asked {
            door: self,
            operands,
            #[cfg(feature = "models")]
            run: settings::now(),
        };
        contain(|| registry::query(op, params, asked))
    }
}

impl Call {
    /// Whether the objects that the call uses are as the call will find them, and its preparation
    /// is short; if not, calls before it are yet to change them, and its checks must wait, or they
    /// take long.
    #[must_use]
    pub fn is_due(&self) -> bool {
        !self.0.operation.prepares_at_length() && self.0.uses.iter().all(Use::is_due)
    }

    /// Waits until its objects are as it will find them. Only for a thread that the calls before it
    /// do not wait for.
    pub fn wait(&self) {
        self.0.uses.iter().for_each(Use::wait);
    }

    /// Takes the call's place in the order of those that use its objects: to be held until its job
    /// is dropped, and taken in the order in which calls will run.
    #[must_use]
    pub fn take_turn(&self) -> Turn {
        Turn::take(&self.0.uses)
    }

    /// Makes the job over `operands`, the raw elements of the tensors that the request names: all
    /// checks, no work. May be called again, for example once the operands lie where they can stay.
    ///
    /// # Errors
    /// SHAPE, DTYPE or OPTION, naming the argument; INTERNAL for a bug of ours.
    pub fn prepare<'m>(&self, operands: &[&'m [u8]]) -> Result<Job<'m>, Error> {
        contain(|| {
            check_operands(operands.len(), self.0.operands)?;
            // SAFETY: what is prepared, which borrows from what is lent, is dropped before the
            // lender here and before `kept` in a job.
            let mut objects = unsafe { Lender::new() };
            let request = objects.keep(self.0.clone());
            let prepared = request.operation.prepare(Inputs {
                operands,
                objects: &mut objects,
                run: request.run,
            })?;
            Ok(Job::new(prepared, objects.into_kept()))
        })
    }
}
