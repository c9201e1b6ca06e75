//! How asynchronous calls end: reports of their progress, their results brought to where they
//! belong, their promises.

use diffattn_door::{Block, Error, OutputSpec};
use napi::Env;
use napi::bindgen_prelude::{ArrayBuffer, FromNapiValue, Object};

use super::{Environment, OnProgress, Target};
use crate::answer::{Thrown, bug, encode_outputs, thrown};
use crate::js::{View, array_buffer, detach_buffer};
use crate::runner::{Message, Output};

impl Environment {
    /// Reads the mailbox.
    pub(super) fn deliver(&self, env: &Env) {
        while let Some(message) = self.mailbox.take() {
            match message {
                Message::Settled { id, result } => self.settle(env, id, result),
                Message::Progress { id, done, total } => self.report(env, id, done, total),
            }
        }
    }

    /// Reports the progress of a call.
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

    /// Settles the promise of a call, and gives back what it used.
    pub(super) fn settle(&self, env: &Env, id: u32, result: Result<Vec<Output>, Error>) {
        // Cancelled before it began, perhaps: then it is settled already.
        let Some((deferred, call)) = self.calls.borrow_mut().remove(&id) else {
            return;
        };
        if self.calls.borrow().is_empty() {
            self.keep_event_loop(env, false);
        }
        let result = result.map_err(thrown).and_then(|outputs| {
            let targets = call.outputs.iter().map(Some).chain(std::iter::repeat(None));
            let (specs, contents): (Vec<_>, Vec<_>) = outputs.into_iter().unzip();
            let mut buffers = Vec::with_capacity(specs.len());
            for ((spec, content), target) in specs.iter().zip(contents).zip(targets) {
                buffers.push(self.place(env, spec, content, target)?);
            }
            Ok(encode_outputs(&specs, buffers))
        });
        // Their memory goes now, not when the next garbage is collected: the weights of a model are
        // many such inputs.
        for buffer in &call.moved {
            let _ = buffer
                .value(env)
                .and_then(|buffer| detach_buffer(env, buffer));
        }
        deferred.settle(env, result);
    }

    /// Brings an output of an asynchronous call to where it belongs: its buffer, where the caller
    /// gave none.
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
                // SAFETY: JavaScript does not run until this returns, and the content is a block of
                // ours.
                unsafe { view.bytes_mut() }.copy_from_slice(&content);
                None
            }
            (Some(Target::New) | None, content) => {
                let content =
                    content.ok_or_else(|| thrown(Error::internal("an output has no content")))?;
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
}
