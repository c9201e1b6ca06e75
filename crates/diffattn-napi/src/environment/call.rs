//! What is answered before JavaScript goes on: jobs on this thread, queries.

use napi::bindgen_prelude::Either3;
use napi::{Env, Status};
use smallvec::SmallVec;

use super::Environment;
use super::memory::check_overlaps;
use crate::answer::{Made, Thrown, bug, made, tell, thrown, told};
use crate::js::{Numbers, View, array_buffer};

/// What a small call has of anything, in place.
type Few<T> = SmallVec<[T; 4]>;

impl Environment {
    /// Runs a job on this thread; tells of its outputs in `stream`, which begins with the request.
    pub(crate) fn call<'env>(
        &self,
        env: &'env Env,
        (op, stream): (u32, &mut Numbers),
        operands: &[Option<View>],
        outs: &[Option<View>],
    ) -> Result<Made<'env>, Thrown> {
        let params = stream.request().map_err(bug)?;
        let call = self.door.call(op, params).map_err(thrown)?;
        call.wait();
        let bytes = bytes_of(operands)?;
        let mut job = call.prepare(&bytes).map_err(thrown)?;
        // Before any work: the caller asks again with more room.
        let room = told(job.outputs());
        if room > stream.values().len() {
            return Ok(Made::A(room as f64));
        }
        tell(job.outputs(), stream);
        check_overlaps(operands.iter().flatten(), outs.iter().flatten())?;
        let mut targets = Few::new();
        for (index, spec) in job.outputs().iter().enumerate() {
            targets.push(match outs.get(index) {
                Some(Some(view)) => *view,
                _ => self.new_buffer(env, spec.bytes)?,
            });
        }
        // SAFETY: JavaScript does not run until this returns, so nothing moves, and nothing uses
        // this memory but this call, whose outputs overlap nothing.
        let memory = targets.iter().map(|view| unsafe { view.bytes_mut() });
        job.bind(memory).map_err(thrown)?;
        job.finish().map_err(thrown)?;
        let mut buffers = Few::new();
        for (index, target) in targets.iter().enumerate() {
            buffers.push(made(match outs.get(index) {
                Some(Some(_)) => None,
                _ => Some(array_buffer(env, target.buffer).map_err(bug)?),
            }));
        }
        Ok(match (buffers.pop(), buffers.is_empty()) {
            (Some(only), true) => Either3::B(only),
            (last, _) => Either3::C(buffers.into_iter().chain(last).collect()),
        })
    }

    /// Answers a query.
    pub(crate) fn query(
        &self,
        op: u32,
        params: &[f64],
        operands: &[Option<View>],
    ) -> Result<f64, Thrown> {
        let bytes = bytes_of(operands)?;
        self.door.query(op, params, &bytes).map_err(thrown)
    }
}

/// The bytes of operands, each of which must be there.
fn bytes_of<'m>(operands: &[Option<View>]) -> Result<Few<&'m [u8]>, Thrown> {
    let each = operands.iter().map(|view| {
        let view = view.as_ref().ok_or_else(|| {
            let reason = "an operand is not a Uint8Array";
            bug(napi::Error::new(Status::InvalidArg, reason))
        })?;
        // SAFETY: JavaScript does not run until the call returns, so nothing moves, and nothing
        // writes but the call, whose outputs overlap no operand.
        Ok(unsafe { view.bytes() })
    });
    each.collect()
}
