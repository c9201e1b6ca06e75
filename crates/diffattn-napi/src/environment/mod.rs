//! What one JavaScript environment (the main thread or a worker) has open: objects, calls, memory,
//! its runner. Computes nothing.

mod call;
mod memory;
mod open;
mod settle;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::{Arc, Weak};

use diffattn_door::{Block, Door, Error, release_idle_memory, release_threads};
use napi::bindgen_prelude::{FnArgs, Function};
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode};
use napi::{Env, sys};

use crate::answer::{Thrown, bug};
use crate::js::{Deferred, Kept, global};
use crate::runner::{Mailbox, Progress, Runner};

pub(crate) use open::AsyncCall;

/// Rings on the environment's thread; the messages lie in the mailbox, so that none is lost when
/// the environment ends.
type Bell = ThreadsafeFunction<(), (), (), napi::Status, false, true>;

/// The reporter of a call: `(done, total) => void`.
pub(crate) type OnProgress<'env> = Function<'env, FnArgs<(f64, f64)>, ()>;

/// See the module's first line. Lives on the thread of its environment.
pub(crate) struct Environment {
    pub(crate) door: Door,
    /// Open calls by their ids.
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
            // References, those of calls that no one will settle too, go while the environment
            // still stands.
            environment.calls.borrow_mut().clear();
            environment.buffer_constructor.borrow_mut().take();
        })
        .map_err(bug)?;
        Ok(environment)
    }

    /// Asks the open call of that id to stop.
    pub(crate) fn cancel(&self, env: &Env, id: u32) {
        let never_begins = self
            .calls
            .borrow()
            .get(&id)
            .is_some_and(|(_, call)| call.progress.cancel());
        if never_begins {
            self.settle(env, id, Err(Error::aborted()));
        }
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
            self.settle(env, id, Err(Error::aborted()));
        }
        self.door.clear();
        release_threads();
        release_idle_memory();
    }
}
