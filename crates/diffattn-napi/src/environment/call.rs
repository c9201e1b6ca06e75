//! What is answered before JavaScript goes on: jobs on this thread, queries.

use napi::Env;
use napi::bindgen_prelude::Object;

use super::Environment;
use super::memory::{check_overlaps, given_outputs, views};
use crate::answer::{Outputs, Thrown, bug, encode_output, thrown};
use crate::js::array_buffer;

impl Environment {
    /// Runs a job on this thread.
    pub(crate) fn call<'env>(
        &self,
        env: &'env Env,
        (op, params): (u32, &[f64]),
        operands: &[Object<'_>],
        outs: Vec<Option<Object<'_>>>,
    ) -> Result<Outputs<'env>, Thrown> {
        let call = self.door.call(op, params).map_err(thrown)?;
        call.wait();
        let operands = views(env, operands)?;
        // SAFETY: JavaScript does not run until this returns, so nothing moves, and nothing writes
        // but this call, whose outputs overlap no operand.
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
        let mut encoded = Outputs::new();
        for ((spec, given), target) in job.outputs().iter().zip(given).zip(targets) {
            let buffer = match given {
                Some(_) => None,
                None => Some(array_buffer(env, target.buffer).map_err(bug)?),
            };
            encode_output(&mut encoded, spec, buffer);
        }
        Ok(encoded)
    }

    /// Answers a query.
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
}
