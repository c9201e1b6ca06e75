//! What one JavaScript environment (the main thread or a worker) has open: objects, calls, memory, its runner. Computes nothing.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::{Arc, Weak};

use diffattn_door::{
    Block, Call, Door, Error, Failure, OutputSpec, release_idle_memory, release_threads,
};
use napi::bindgen_prelude::{ArrayBuffer, FnArgs, FromNapiValue, Function, JsValue, Object};
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode};
use napi::{Env, sys};

use crate::js::{
    Deferred, Kept, View, array_buffer, detach_buffer, global, move_buffer, new_buffer,
};
use crate::runner::{Mailbox, Memory, Message, Output, Place, Progress, Runner, Ticket};
use crate::{Thrown, Told, bug, tell, thrown};

/// Rings on the environment's thread; the messages lie in the mailbox, so that none is lost when the environment ends.
type Bell = ThreadsafeFunction<(), (), (), napi::Status, false, true>;

/// The reporter of a call: `(done, total) => void`.
pub(crate) type OnProgress<'env> = Function<'env, FnArgs<(f64, f64)>, ()>;

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

/// See the module's first line. Lives on the thread of its environment.
pub(crate) struct Environment {
    pub(crate) door: Door,
    calls: RefCell<HashMap<u32, (Deferred, OpenCall)>>,
    /// Memory of `createBuffer` by its first address.
    buffers: RefCell<BTreeMap<usize, Weak<Block>>>,
    mailbox: Arc<Mailbox>,
    bell: Arc<Bell>,
    runner: RefCell<Option<Runner>>,
    /// `ArrayBuffer`, until the environment ends.
    buffer_constructor: RefCell<Option<Kept>>,
    ended: Cell<bool>,
}

/// What a call keeps on the side of JavaScript until it is settled.
struct OpenCall {
    on_progress: Option<Kept>,
    outputs: Vec<Target>,
    /// Where the transferred inputs are now: no one but the call has them.
    moved: Vec<Kept>,
    progress: Arc<Progress>,
}

/// Where an output of an asynchronous call ends up.
enum Target {
    /// In a view that the caller gave.
    Given(Kept),
    /// In a buffer that was made when the call was.
    Made(Kept),
    /// In a buffer that is made when the call is settled.
    New,
}

impl Environment {
    /// That of `env`, made when it is first asked for.
    pub(crate) fn of(env: &Env) -> Result<Rc<Self>, Thrown> {
        if let Some(environment) = env.get_instance_data::<Rc<Self>>().map_err(bug)? {
            return Ok(environment.clone());
        }
        let nothing = env
            .create_function_from_closure::<(), (), _>("diffattnSettle", |_| Ok(()))
            .map_err(bug)?;
        let bell: Bell = nothing
            .build_threadsafe_function::<()>()
            .callee_handled::<false>()
            .weak::<true>()
            .build_callback(|context| {
                if let Ok(environment) = Self::of(&context.env) {
                    environment.deliver(&context.env);
                }
                Ok(())
            })
            .map_err(bug)?;
        let bell = Arc::new(bell);
        let ring = bell.clone();
        // A bell that no longer rings belongs to an environment that ends.
        let mailbox = Mailbox::new(move || {
            ring.call((), ThreadsafeFunctionCallMode::NonBlocking);
        });
        let environment = Rc::new(Self {
            door: Door::new(),
            calls: RefCell::default(),
            buffers: RefCell::default(),
            mailbox: Arc::new(mailbox),
            bell,
            runner: RefCell::default(),
            buffer_constructor: RefCell::new(Some(global(env, "ArrayBuffer").map_err(bug)?)),
            ended: Cell::new(false),
        });
        env.set_instance_data(environment.clone(), (), |_| {})
            .map_err(bug)?;
        // Added after the bell, so it runs before the bell is taken away.
        env.add_env_cleanup_hook(environment.clone(), |environment| {
            environment.ended.set(true);
            environment.shut_down();
            // References, those of calls that no one will settle too, go while the environment still stands.
            environment.calls.borrow_mut().clear();
            environment.buffer_constructor.borrow_mut().take();
        })
        .map_err(bug)?;
        Ok(environment)
    }

    /// A new ArrayBuffer.
    fn new_buffer(&self, env: &Env, bytes: usize) -> Result<View, Thrown> {
        let constructor = self.buffer_constructor.borrow();
        constructor
            .as_ref()
            .and_then(|constructor| new_buffer(env, constructor, bytes))
            .ok_or_else(|| {
                thrown(Error::OutOfMemory {
                    bytes: bytes as u64,
                })
            })
    }

    /// The memory of `createBuffer` that `view` lies in.
    fn held(&self, view: &View) -> Option<Memory> {
        let start = view.start as usize;
        let buffers = self.buffers.borrow();
        let (&first, block) = buffers.range(..=start).next_back()?;
        let owner = block.upgrade()?;
        if view.len == 0 || start - first + view.len > owner.len() {
            return None;
        }
        Some(Memory::Held {
            _owner: owner,
            start: view.start,
            len: view.len,
        })
    }

    pub(crate) fn create_buffer<'env>(
        &self,
        env: &'env Env,
        bytes: usize,
    ) -> Result<ArrayBuffer<'env>, Thrown> {
        if bytes == 0 {
            return array_buffer(env, self.new_buffer(env, 0)?.buffer).map_err(bug);
        }
        let mut block = Block::zeroed(bytes).map_err(thrown)?;
        let start = block.as_mut_ptr();
        let owner = Arc::new(block);
        let mut buffers = self.buffers.borrow_mut();
        buffers.retain(|_, block| block.strong_count() > 0);
        buffers.insert(start as usize, Arc::downgrade(&owner));
        // SAFETY: the bytes live as long as `owner`, which the finalizer drops.
        unsafe { ArrayBuffer::from_external(env, start, bytes, owner, |_, owner| drop(owner)) }
            .map_err(bug)
    }

    /// Runs a job on this thread.
    pub(crate) fn call<'env>(
        &self,
        env: &'env Env,
        (op, params): (u32, &[f64]),
        operands: &[Object<'_>],
        outs: Vec<Option<Object<'_>>>,
    ) -> Result<Told<'env>, Thrown> {
        let call = self.door.call(op, params).map_err(thrown)?;
        call.wait();
        let operands = views(env, operands)?;
        // SAFETY: JavaScript does not run until this returns, so nothing moves, and nothing writes but this call, whose
        // outputs overlap no operand.
        let bytes: Vec<&[u8]> = operands
            .iter()
            .map(|view| unsafe { view.bytes() })
            .collect();
        let mut job = call.prepare(&bytes).map_err(thrown)?;
        let given = given_outputs(env, &outs, job.outputs().len())?;
        check_overlaps(&operands, given.iter().flatten())?;
        let mut targets = Vec::with_capacity(given.len());
        for (given, spec) in given.iter().zip(job.outputs()) {
            targets.push(match given {
                Some(view) => *view,
                None => self.new_buffer(env, spec.bytes)?,
            });
        }
        // SAFETY: as above.
        let memory = targets.iter().map(|view| unsafe { view.bytes_mut() });
        job.bind(memory.collect()).map_err(thrown)?;
        job.finish().map_err(thrown)?;
        let mut told = Told::new();
        for ((spec, given), target) in job.outputs().iter().zip(given).zip(targets) {
            let buffer = match given {
                Some(_) => None,
                None => Some(array_buffer(env, target.buffer).map_err(bug)?),
            };
            tell(&mut told, spec, buffer);
        }
        Ok(told)
    }

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
            Err(error) => deferred.settle::<Told<'_>>(env, Err(error)),
        }
        Ok(promise)
    }

    /// Everything of a call but its promise.
    fn open(&self, env: &Env, request: AsyncCall<'_, '_>) -> Result<(OpenCall, Ticket), Thrown> {
        if self.ended.get() || self.calls.borrow().contains_key(&request.id) {
            return Err(thrown(Error::Internal(format!(
                "call {} is open already, or its environment ends",
                request.id
            ))));
        }
        let call = self.door.call(request.op, request.params).map_err(thrown)?;
        let operands = views(env, request.operands)?;
        let specs = self.check(&call, &operands)?;
        let count = specs.as_ref().map_or(request.outs.len(), Vec::len);
        let given = given_outputs(env, &request.outs, count)?;
        check_overlaps(&operands, given.iter().flatten())?;

        // Outputs.
        let (mut outputs, mut targets) = (Vec::with_capacity(count), Vec::with_capacity(count));
        for (index, view) in given.iter().enumerate() {
            let spec = specs.as_ref().and_then(|specs| specs.get(index));
            match (view, request.outs.get(index).and_then(Option::as_ref)) {
                (Some(view), Some(array)) => {
                    if let Some(spec) = spec {
                        spec.check_bytes(view.len).map_err(thrown)?;
                    }
                    let copied = Place::Copied(Some(view.len));
                    outputs.push(self.held(view).map_or(copied, Place::There));
                    targets.push(Target::Given(Kept::new(env, array.raw()).map_err(bug)?));
                }
                _ => match spec {
                    Some(spec) => {
                        let made = self.new_buffer(env, spec.bytes)?;
                        outputs.push(Place::There(Memory::Kept {
                            start: made.start,
                            len: made.len,
                        }));
                        targets.push(Target::Made(Kept::new(env, made.buffer).map_err(bug)?));
                    }
                    None => {
                        outputs.push(Place::Copied(None));
                        targets.push(Target::New);
                    }
                },
            }
        }

        // Operands: held, moved or copied.
        let mut moved: Vec<(View, Option<sys::napi_value>)> = Vec::new();
        let mut kept = Vec::new();
        let mut memory = Vec::with_capacity(operands.len());
        for view in &operands {
            if let Some(held) = self.held(view) {
                memory.push(held);
                continue;
            }
            if request.transfer {
                let known = moved
                    .iter()
                    .find(|(other, _)| same(env, other.buffer, view.buffer))
                    .map(|(_, to)| *to);
                let to = match known {
                    Some(to) => to,
                    None => {
                        let to = move_buffer(env, view.buffer);
                        if let Some(to) = to {
                            kept.push(Kept::new(env, to).map_err(bug)?);
                        }
                        moved.push((*view, to));
                        to
                    }
                };
                if let Some(to) = to {
                    let view = view.within(env, to).map_err(bug)?;
                    memory.push(Memory::Kept {
                        start: view.start,
                        len: view.len,
                    });
                    continue;
                }
            }
            // SAFETY: JavaScript does not run until this returns.
            memory.push(Memory::Own(
                Block::copy_of(unsafe { view.bytes() }).map_err(thrown)?,
            ));
        }

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
                moved: kept,
                progress,
            },
            ticket,
        ))
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

    pub(crate) fn query(
        &self,
        env: &Env,
        op: u32,
        params: &[f64],
        operands: &[Object<'_>],
    ) -> Result<f64, Thrown> {
        let operands = views(env, operands)?;
        // SAFETY: JavaScript does not run until this returns, and nothing is written.
        let bytes: Vec<&[u8]> = operands
            .iter()
            .map(|view| unsafe { view.bytes() })
            .collect();
        self.door.query(op, params, &bytes).map_err(thrown)
    }

    pub(crate) fn cancel(&self, env: &Env, id: u32) {
        let never_begins = self
            .calls
            .borrow()
            .get(&id)
            .is_some_and(|(_, call)| call.progress.cancel());
        if never_begins {
            self.settle(env, id, Err(Error::Aborted));
        }
    }

    /// Reads the mailbox.
    fn deliver(&self, env: &Env) {
        while let Some(message) = self.mailbox.take() {
            match message {
                Message::Settled { id, result } => self.settle(env, id, result),
                Message::Progress { id, done, total } => self.report(env, id, done, total),
            }
        }
    }

    fn report(&self, env: &Env, id: u32, done: usize, total: usize) {
        let calls = self.calls.borrow();
        let call = calls
            .get(&id)
            .map(|(_, call)| call)
            .filter(|call| !call.progress.is_cancelled());
        let function = call.and_then(|call| call.on_progress.as_ref()?.value(env).ok());
        drop(calls);
        // Nothing of ours is borrowed while JavaScript runs: it may make calls.
        let Some(function) = function else { return };
        // SAFETY: the value was kept from an argument of this type.
        let called = unsafe { OnProgress::from_napi_value(env.raw(), function) }
            .and_then(|f| f.call((done as f64, total as f64).into()));
        if let Err(error) = called {
            env.fatal_exception(error); // as an event listener that throws
        }
    }

    fn settle(&self, env: &Env, id: u32, result: Result<Vec<Output>, Error>) {
        // Cancelled before it began, perhaps: then it is settled already.
        let Some((deferred, call)) = self.calls.borrow_mut().remove(&id) else {
            return;
        };
        if self.calls.borrow().is_empty() {
            self.keep_event_loop(env, false);
        }
        let result = result.map_err(thrown).and_then(|outputs| {
            let targets = call.outputs.iter().map(Some).chain(std::iter::repeat(None));
            let mut told = Told::new();
            for ((spec, content), target) in outputs.into_iter().zip(targets) {
                let buffer = self.place(env, &spec, content, target)?;
                tell(&mut told, &spec, buffer);
            }
            Ok(told)
        });
        // Their memory goes now, not when the next garbage is collected: the weights of a model are many such inputs.
        for buffer in &call.moved {
            let _ = buffer
                .value(env)
                .and_then(|buffer| detach_buffer(env, buffer));
        }
        deferred.settle(env, result);
    }

    /// Brings an output of an asynchronous call to where it belongs: its buffer, where the caller gave none.
    fn place<'env>(
        &self,
        env: &'env Env,
        spec: &OutputSpec,
        content: Option<Block>,
        target: Option<&Target>,
    ) -> Result<Option<ArrayBuffer<'env>>, Thrown> {
        let buffer = match (target, content) {
            (Some(Target::Made(buffer)), _) => Some(buffer.value(env).map_err(bug)?),
            (Some(Target::Given(_)), None) => None,
            (Some(Target::Given(array)), Some(content)) => {
                let array = array.value(env).map_err(bug)?;
                let view = View::of(env, &Object::from_raw(env.raw(), array)).map_err(bug)?;
                spec.check_bytes(view.len).map_err(thrown)?;
                // SAFETY: JavaScript does not run until this returns, and the content is a block of ours.
                unsafe { view.bytes_mut() }.copy_from_slice(&content);
                None
            }
            (Some(Target::New) | None, content) => {
                let content = content
                    .ok_or_else(|| thrown(Error::Internal("an output has no content".into())))?;
                let view = self.new_buffer(env, spec.bytes)?;
                // SAFETY: a new buffer, which no one else has.
                unsafe { view.bytes_mut() }.copy_from_slice(&content);
                Some(view.buffer)
            }
        };
        buffer
            .map(|buffer| array_buffer(env, buffer))
            .transpose()
            .map_err(bug)
    }

    /// Open calls keep the process alive, an idle bell does not.
    fn keep_event_loop(&self, env: &Env, keep: bool) {
        // SAFETY: the bell lives as long as the environment. A failure means that this ends.
        unsafe {
            if keep {
                sys::napi_ref_threadsafe_function(env.raw(), self.bell.raw());
            } else {
                sys::napi_unref_threadsafe_function(env.raw(), self.bell.raw());
            }
        }
    }

    /// Cancels every call and waits for the slice in progress.
    fn shut_down(&self) {
        for (_, call) in self.calls.borrow().values() {
            call.progress.cancel();
        }
        drop(self.runner.borrow_mut().take());
    }

    /// Gives everything back; open calls are rejected. The next call starts anew.
    pub(crate) fn dispose(&self, env: &Env) {
        self.shut_down();
        self.deliver(env);
        let mut left: Vec<u32> = self.calls.borrow().keys().copied().collect();
        left.sort_unstable();
        for id in left {
            self.settle(env, id, Err(Error::Aborted));
        }
        self.door.clear();
        release_threads();
        release_idle_memory();
    }

    pub(crate) fn release_buffer(env: &Env, buffer: &ArrayBuffer<'_>) -> Result<(), Thrown> {
        detach_buffer(env, buffer.raw()).map_err(bug)
    }
}

fn same(env: &Env, a: sys::napi_value, b: sys::napi_value) -> bool {
    let mut same = false;
    // SAFETY: both handles are live in this call, and the out pointer is to a local.
    unsafe { sys::napi_strict_equals(env.raw(), a, b, &mut same) };
    same
}

fn views(env: &Env, arrays: &[Object<'_>]) -> Result<Vec<View>, Thrown> {
    arrays
        .iter()
        .map(|array| View::of(env, array).map_err(bug))
        .collect()
}

/// The views that the caller gave for the outputs, `None` where there is none.
fn given_outputs(
    env: &Env,
    outs: &[Option<Object<'_>>],
    count: usize,
) -> Result<Vec<Option<View>>, Thrown> {
    (0..count)
        .map(|index| match outs.get(index) {
            Some(Some(array)) => View::of(env, array).map(Some).map_err(bug),
            _ => Ok(None),
        })
        .collect()
}

fn check_overlaps<'v>(
    operands: &[View],
    outs: impl Iterator<Item = &'v View>,
) -> Result<(), Thrown> {
    let mut others = operands.to_vec();
    for out in outs {
        if others.iter().any(|other| other.overlaps(out)) {
            return Err(thrown(Error::option(
                "out",
                "memory that does not overlap an input",
                "an overlap",
            )));
        }
        others.push(*out);
    }
    Ok(())
}

/// What an error of the door is to JavaScript.
pub(crate) fn failure(error: Error) -> Thrown {
    let Failure { code, message } = error.into();
    napi::Error::new(code, message)
}
