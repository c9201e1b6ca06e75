//! How asynchronous calls begin: checked, their operands held, moved or copied, and queued.

use std::sync::Arc;

use diffattn_door::{Block, Call, Error, OutputSpec};
use napi::bindgen_prelude::{JsValue, Object};
use napi::{Env, sys};

use super::memory::{check_overlaps, given_outputs, same, views};
use super::{Environment, OnProgress, OpenCall, Target};
use crate::answer::{Outputs, Thrown, bug, thrown};
use crate::js::{Deferred, Kept, View, move_buffer};
use crate::runner::{Memory, Place, Progress, Runner, Ticket};

/// An asynchronous request, as JavaScript gives it.
pub(crate) struct AsyncCall<'a, 'env> {
    pub(crate) id: u32,
    pub(crate) op: u32,
    pub(crate) params: &'a [f64],
    pub(crate) operands: &'a [Object<'env>],
    pub(crate) outs: Vec<Option<Object<'env>>>,
    pub(crate) transfer: bool,
    pub(crate) on_progress: Option<OnProgress<'env>>,
}

/// Where the outputs of a call are computed, and where they end up.
type Places = (Vec<Place>, Vec<Target>);

impl Environment {
    /// Checks a job and queues it; the promise is settled from [`Environment::deliver`].
    pub(crate) fn call_async<'env>(
        &self,
        env: &'env Env,
        request: AsyncCall<'_, '_>,
    ) -> Result<Object<'env>, Thrown> {
        let (deferred, promise) = Deferred::new(env).map_err(bug)?;
        let id = request.id;
        match self.open(env, request) {
            Ok((call, ticket)) => {
                if self.calls.borrow().is_empty() {
                    self.keep_event_loop(env, true);
                }
                self.calls.borrow_mut().insert(id, (deferred, call));
                if let Err(error) = self.queue(ticket) {
                    self.settle(env, id, Err(error));
                }
            }
            Err(error) => deferred.settle::<Outputs<'_>>(env, Err(error)),
        }
        Ok(promise)
    }

    /// Everything of a call but its promise.
    fn open(&self, env: &Env, request: AsyncCall<'_, '_>) -> Result<(OpenCall, Ticket), Thrown> {
        if self.ended.get() || self.calls.borrow().contains_key(&request.id) {
            return Err(thrown(Error::internal(format!(
                "call {} is open already, or its environment ends",
                request.id
            ))));
        }
        let call = self.door.call(request.op, request.params).map_err(thrown)?;
        let operands = views(env, request.operands)?;
        let specs = self.check(&call, &operands)?;
        let (outputs, targets) = self.places(env, &operands, &request.outs, specs.as_deref())?;
        let (memory, moved) = self.inputs(env, &operands, request.transfer)?;
        let on_progress = request
            .on_progress
            .map(|function| Kept::new(env, function.raw()))
            .transpose()
            .map_err(bug)?;
        let progress = Arc::new(Progress::default());
        let ticket = Ticket {
            id: request.id,
            operands: memory,
            outputs,
            progress: progress.clone(),
            reports: on_progress.is_some(),
            turn: call.take_turn(),
            call,
        };
        Ok((
            OpenCall {
                on_progress,
                outputs: targets,
                moved,
                progress,
            },
            ticket,
        ))
    }

    /// Where each output goes: to the caller's memory, to a new buffer where its size is known
    /// already, or to a copy.
    fn places(
        &self,
        env: &Env,
        operands: &[View],
        outs: &[Option<Object<'_>>],
        specs: Option<&[OutputSpec]>,
    ) -> Result<Places, Thrown> {
        let count = specs.map_or(outs.len(), <[_]>::len);
        let given = given_outputs(env, outs, count)?;
        check_overlaps(operands.iter(), given.iter().flatten())?;
        let (mut places, mut targets) = (Vec::with_capacity(count), Vec::with_capacity(count));
        for (index, view) in given.iter().enumerate() {
            let spec = specs.and_then(|specs| specs.get(index));
            match (view, outs.get(index).and_then(Option::as_ref)) {
                (Some(view), Some(array)) => {
                    if let Some(spec) = spec {
                        spec.check_bytes(view.len).map_err(thrown)?;
                    }
                    let copied = Place::Copied(Some(view.len));
                    places.push(self.held(view).map_or(copied, Place::There));
                    targets.push(Target::Given(Kept::new(env, array.raw()).map_err(bug)?));
                }
                _ => match spec {
                    Some(spec) => {
                        let made = self.new_buffer(env, spec.bytes)?;
                        places.push(Place::There(Memory::Kept {
                            start: made.start,
                            len: made.len,
                        }));
                        targets.push(Target::Made(Kept::new(env, made.buffer).map_err(bug)?));
                    }
                    None => {
                        places.push(Place::Copied(None));
                        targets.push(Target::New);
                    }
                },
            }
        }
        Ok((places, targets))
    }

    /// The operands: held, moved (with what keeps them) or copied.
    fn inputs(
        &self,
        env: &Env,
        operands: &[View],
        transfer: bool,
    ) -> Result<(Vec<Memory>, Vec<Kept>), Thrown> {
        let mut moved = Moved::default();
        let mut memory = Vec::with_capacity(operands.len());
        for view in operands {
            if let Some(held) = self.held(view) {
                memory.push(held);
                continue;
            }
            if transfer && let Some(to) = moved.buffer_of(env, view)? {
                let view = view.within(env, to).map_err(bug)?;
                memory.push(Memory::Kept {
                    start: view.start,
                    len: view.len,
                });
                continue;
            }
            // SAFETY: JavaScript does not run until this returns.
            let copy = Block::copy_of(unsafe { view.bytes() }).map_err(thrown)?;
            memory.push(Memory::Own(copy));
        }
        Ok((memory, moved.kept))
    }

    /// All checks of a call, where it can be checked already: what its outputs will be.
    fn check(&self, call: &Call, operands: &[View]) -> Result<Option<Vec<OutputSpec>>, Thrown> {
        if !call.is_due() {
            return Ok(None);
        }
        // SAFETY: JavaScript does not run until this returns, and nothing is written.
        let bytes: Vec<&[u8]> = operands
            .iter()
            .map(|view| unsafe { view.bytes() })
            .collect();
        Ok(Some(
            call.prepare(&bytes).map_err(thrown)?.outputs().to_vec(),
        ))
    }

    /// Hands a call to the runner, which is started where there is none.
    fn queue(&self, ticket: Ticket) -> Result<(), Error> {
        let mut runner = self.runner.borrow_mut();
        let runner = match &mut *runner {
            Some(runner) => runner,
            none => none.insert(Runner::start(self.mailbox.clone()).map_err(|error| {
                Error::unavailable("threads", "a thread for asynchronous calls", error)
            })?),
        };
        runner.send(ticket)
    }
}

/// Buffers whose content was moved to new ones.
#[derive(Default)]
struct Moved {
    /// Each view that was the first of its buffer, and where the content is now: nowhere where the
    /// engine refused.
    known: Vec<(View, Option<sys::napi_value>)>,
    kept: Vec<Kept>,
}

impl Moved {
    /// Where the content of the view's buffer is now; it is moved where it was not yet.
    fn buffer_of(&mut self, env: &Env, view: &View) -> Result<Option<sys::napi_value>, Thrown> {
        let mut known = self.known.iter();
        if let Some((_, to)) = known.find(|(other, _)| same(env, other.buffer, view.buffer)) {
            return Ok(*to);
        }
        let to = move_buffer(env, view.buffer);
        if let Some(to) = to {
            self.kept.push(Kept::new(env, to).map_err(bug)?);
        }
        self.known.push((*view, to));
        Ok(to)
    }
}
