//! diffattn's doors for Node: convert, call, convert. `PROTOCOL.md` of diffattn-door says what the
//! functions mean. No arithmetic, no defaults, no checks of its own but of memory.
#![expect(
    clippy::too_many_arguments,
    reason = "the arguments of a JavaScript function"
)]

mod answer;
mod environment;
mod js;
mod runner;

use diffattn_door::{Isa, available_threads};
use napi::Env;
use napi::bindgen_prelude::{ArrayBuffer, Object};
use napi_derive::napi;

use answer::{Made, Thrown, bug, thrown};
use environment::{AsyncCall, Environment, OnProgress};
pub use js::{Numbers, Views};

/// What the addon runs on.
#[napi(object)]
pub struct Info {
    /// The instruction set of calls from now on.
    pub isa: String,
    /// All that this machine has, slowest first.
    pub isas: Vec<String>,
    /// Threads of calls from now on.
    pub threads: f64,
    /// As many as the machine allows.
    pub available_threads: u32,
    /// The version of the addon.
    pub version: String,
}

/// Runs a job to its end on this thread and the pool.
#[napi(
    catch_unwind,
    ts_args_type = "op: number, stream: Float64Array, operands: Uint8Array[], outs: (Uint8Array | null)[]",
    ts_return_type = "number | ArrayBuffer | null | (ArrayBuffer | null)[]"
)]
pub fn call<'env>(
    env: &'env Env,
    op: u32,
    mut stream: Numbers,
    operands: Views,
    outs: Views,
) -> Result<Made<'env>, Thrown> {
    Environment::of(env)?.call(env, (op, &mut stream), &operands.0, &outs.0)
}

/// Checks a job and queues it; rejects, never throws.
#[napi(
    catch_unwind,
    ts_args_type = "id: number, op: number, stream: Float64Array, operands: Uint8Array[], outs: (Uint8Array | null)[] | null, transfer: boolean, onProgress: ((done: number, total: number) => void) | null",
    ts_return_type = "Promise<(number | ArrayBuffer | null)[]>"
)]
pub fn call_async<'env>(
    env: &'env Env,
    id: u32,
    op: u32,
    stream: Numbers,
    operands: Vec<Object<'env>>,
    outs: Option<Vec<Option<Object<'env>>>>,
    transfer: bool,
    on_progress: Option<OnProgress<'env>>,
) -> Result<Object<'env>, Thrown> {
    let outs = outs.unwrap_or_default();
    let request = AsyncCall {
        id,
        op,
        params: stream.request().map_err(bug)?,
        operands: &operands,
        outs,
        transfer,
        on_progress,
    };
    Environment::of(env)?.call_async(env, request)
}

/// Asks an open call to stop after the slice in progress.
#[napi(catch_unwind)]
pub fn cancel(env: &Env, id: u32) -> Result<(), Thrown> {
    Environment::of(env)?.cancel(env, id);
    Ok(())
}

/// Answers a query with a number.
#[napi(
    catch_unwind,
    ts_args_type = "op: number, stream: Float64Array, operands: Uint8Array[]"
)]
pub fn query(env: &Env, op: u32, stream: Numbers, operands: Views) -> Result<f64, Thrown> {
    Environment::of(env)?.query(op, stream.request().map_err(bug)?, &operands.0)
}

/// Zeroed memory that calls use in place.
#[napi(catch_unwind)]
pub fn create_buffer<'env>(env: &'env Env, bytes: f64) -> Result<ArrayBuffer<'env>, Thrown> {
    // (Casting saturates; a size that no machine has is refused as any other.)
    Environment::of(env)?.create_buffer(env, bytes as usize)
}

/// Detaches a buffer.
#[napi(catch_unwind)]
pub fn release_buffer(env: &Env, buffer: ArrayBuffer<'_>) -> Result<(), Thrown> {
    Environment::release_buffer(env, &buffer)
}

/// Chooses instruction set and threads for calls from now on.
#[napi(catch_unwind)]
pub fn configure(isa: Option<String>, threads: Option<f64>) -> Result<(), Thrown> {
    diffattn_door::configure(isa.as_deref(), threads).map_err(thrown)
}

/// What the addon runs on.
#[napi(catch_unwind)]
#[must_use]
pub fn info() -> Info {
    Info {
        isa: diffattn_door::isa().name().to_owned(),
        isas: Isa::available()
            .into_iter()
            .map(|isa| isa.name().to_owned())
            .collect(),
        threads: diffattn_door::threads() as f64,
        available_threads: available_threads() as u32,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// Ends open calls, drops objects, gives memory and threads back.
#[napi(catch_unwind)]
pub fn dispose(env: &Env) -> Result<(), Thrown> {
    Environment::of(env)?.dispose(env);
    Ok(())
}
