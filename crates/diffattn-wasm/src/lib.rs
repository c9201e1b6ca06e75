//! diffattn's doors for browsers: convert, call, convert. `PROTOCOL.md` of diffattn-door says what
//! the functions mean. Numbers and addresses go in and out; strings only for errors and names. No
//! arithmetic, no defaults.

mod memory;
mod panic_message;

use std::cell::RefCell;

use diffattn_door::{Door, Error, Failure, Isa, Job, OutputSpec, Pacer, threads};
use wasm_bindgen::prelude::wasm_bindgen;

#[cfg(all(feature = "threads", target_arch = "wasm32"))]
pub use wasm_bindgen_rayon::init_thread_pool;

use memory::{bytes_at, bytes_at_mut, numbers_at, pairs_at};

/// What the instance has open. Its exports are called from one thread only, the one that
/// instantiated it.
#[derive(Default)]
struct State {
    door: Door,
    /// By number. (Few are open at once.)
    jobs: Vec<(u32, Open)>,
    last_job: u32,
    error: Option<Failure>,
}

/// A job with its pace, and the list of its outputs that [`prepare`] gives.
struct Open {
    job: Job<'static>,
    pacer: Pacer,
    list: Vec<u32>,
}

thread_local! {
    static STATE: RefCell<State> = RefCell::default();
}

impl State {
    fn prepare(
        &mut self,
        op: u32,
        params: &[f64],
        operands: &[&'static [u8]],
    ) -> Result<usize, Error> {
        let job = self.door.call(op, params)?.prepare(operands)?;
        self.last_job = self
            .last_job
            .checked_add(1)
            .ok_or_else(|| Error::internal("no job numbers are left"))?;
        let mut open = Open {
            list: list(self.last_job, job.outputs()),
            job,
            pacer: Pacer::new(threads()),
        };
        let address = open.list.as_mut_ptr().expose_provenance();
        self.jobs.push((self.last_job, open));
        Ok(address)
    }

    fn job(&mut self, job: u32) -> Result<&mut Open, Error> {
        self.jobs
            .iter_mut()
            .find(|(number, _)| *number == job)
            .map(|(_, open)| open)
            .ok_or_else(|| Error::internal(format!("there is no job {job}")))
    }

    /// The job, with the memory of its outputs that its list names by now.
    fn bound(&mut self, job: u32) -> Result<&mut Job<'static>, Error> {
        let Open { job, list, .. } = self.job(job)?;
        let (pairs, _) = list[2..].as_chunks();
        let pairs = &pairs[..job.outputs().len()];
        // SAFETY: the caller's promise in `PROTOCOL.md`: the outputs stay until `end` and overlap
        // nothing.
        job.bind(pairs.iter().map(|&pair| unsafe { bytes_at_mut(pair) }))?;
        Ok(job)
    }
}

/// What [`prepare`] gives the address of: every size fits, as addresses have 32 bits.
fn list(job: u32, specs: &[OutputSpec]) -> Vec<u32> {
    let extents: usize = specs.iter().map(|spec| spec.shape.len()).sum();
    let mut numbers = Vec::with_capacity(2 + 4 * specs.len() + extents);
    numbers.extend([job, specs.len() as u32]);
    numbers.extend(specs.iter().flat_map(|spec| [0, spec.bytes as u32]));
    for spec in specs {
        numbers.extend([spec.kind.number(), spec.shape.len() as u32]);
        numbers.extend(spec.shape.iter().map(|&extent| extent as u32));
    }
    numbers
}

/// Runs a request; what goes wrong is kept for [`error_code`] and [`error_message`], and answered
/// with `failed`.
fn request<T>(failed: T, work: impl Fn(&mut State) -> Result<T, Error>) -> T {
    let mut answer = failed;
    attempt(&mut |state| {
        answer = work(state)?;
        Ok(())
    });
    answer
}

/// The part of [`request`] that is the same for all, and compiled once.
#[inline(never)]
fn attempt(work: &mut dyn FnMut(&mut State) -> Result<(), Error>) {
    STATE.with_borrow_mut(|state| state.error = work(state).err().map(Failure::from));
}

/// Something of the last request's error; "" when it went well.
#[inline(never)]
fn of_error(text: fn(&Failure) -> &str) -> String {
    STATE.with_borrow(|state| state.error.as_ref().map_or("", text).to_owned())
}

/// The operands of a request.
///
/// # Safety
/// As [`pairs_at`], and as [`bytes_at`] for each pair.
#[inline(never)]
unsafe fn operands_at(address: usize, count: usize) -> Vec<&'static [u8]> {
    // SAFETY: the caller's promise.
    let pairs = unsafe { pairs_at(address, count) };
    // SAFETY: as above.
    pairs
        .iter()
        .map(|&pair| unsafe { bytes_at(pair) })
        .collect()
}

/// Memory for operands, requests and outputs; 0 when it is refused.
#[wasm_bindgen]
#[must_use]
pub fn allocate(bytes: usize, zeroed: bool) -> usize {
    request(0, |_| memory::allocate(bytes, zeroed))
}

/// Gives memory of [`allocate`] back, with the bytes that were asked for.
#[wasm_bindgen]
pub fn release(address: usize, bytes: usize) {
    memory::release(address, bytes);
}

/// Makes a job. Gives the address of its list, as u32, there until the job ends: its number, how
/// many outputs it has; of each where its memory is (yet to be written) and its bytes; of each its
/// tensor kind, rank and extents. 0 on error.
#[wasm_bindgen]
#[must_use]
pub fn prepare(
    op: u32,
    params: usize,
    param_count: usize,
    operands: usize,
    operand_count: usize,
) -> usize {
    request(0, |state| {
        // SAFETY: the caller's promise in `PROTOCOL.md`: the operands stay until `end`, the rest
        // during this call.
        let (params, operands) = unsafe {
            (
                numbers_at(params, param_count),
                operands_at(operands, operand_count),
            )
        };
        state.prepare(op, params, &operands)
    })
}

/// Gives a job the memory of its outputs that its list names by now; false on error.
#[wasm_bindgen]
#[must_use]
pub fn bind(job: u32) -> bool {
    request(false, |state| {
        state.bound(job)?;
        Ok(true)
    })
}

/// One slice, of a size that follows from how long the last one took; false on error.
#[wasm_bindgen]
#[must_use]
pub fn step(job: u32, milliseconds: f64) -> bool {
    request(false, |state| {
        let Open { job, pacer, .. } = state.job(job)?;
        job.step(pacer.next_slice(job.done(), milliseconds))?;
        Ok(true)
    })
}

/// A job from [`bind`] to [`end`], which comes whatever happens; false on error.
#[wasm_bindgen]
#[must_use]
pub fn run(job: u32) -> bool {
    let went = request(false, |state| {
        state.bound(job)?.finish()?;
        Ok(true)
    });
    end(job);
    went
}

/// Units of work of a job.
#[wasm_bindgen]
#[must_use]
pub fn total(job: u32) -> usize {
    request(0, |state| Ok(state.job(job)?.job.total()))
}

/// Units that are finished.
#[wasm_bindgen]
#[must_use]
pub fn done(job: u32) -> usize {
    request(0, |state| Ok(state.job(job)?.job.done()))
}

/// Ends a job, finished or not.
#[wasm_bindgen]
pub fn end(job: u32) {
    STATE.with_borrow_mut(|state| state.jobs.retain(|(number, _)| *number != job));
}

/// Answers a query with a number.
#[wasm_bindgen]
#[must_use]
pub fn query(
    op: u32,
    params: usize,
    param_count: usize,
    operands: usize,
    operand_count: usize,
) -> f64 {
    request(f64::NAN, |state| {
        // SAFETY: the caller's promise in `PROTOCOL.md`: all of it stays during this call.
        let (params, operands) = unsafe {
            (
                numbers_at(params, param_count),
                operands_at(operands, operand_count),
            )
        };
        state.door.query(op, params, &operands)
    })
}

/// The code of the last request's error; "" when it went well.
#[wasm_bindgen(js_name = errorCode)]
#[must_use]
pub fn error_code() -> String {
    of_error(|error| error.code)
}

/// The sentence of the last request's error.
#[wasm_bindgen(js_name = errorMessage)]
#[must_use]
pub fn error_message() -> String {
    of_error(|error| &error.message)
}

/// Chooses threads (0 is as many as there are); false on error.
#[wasm_bindgen]
#[must_use]
pub fn configure(threads: f64) -> bool {
    request(false, |_| {
        diffattn_door::configure(None, (threads != 0.0).then_some(threads))?;
        Ok(true)
    })
}

/// The instruction set of calls from now on.
#[wasm_bindgen]
#[must_use]
pub fn isa() -> String {
    diffattn_door::isa().name().to_owned()
}

/// All instruction sets of this build, slowest first, separated by commas.
#[wasm_bindgen]
#[must_use]
pub fn isas() -> String {
    let names: Vec<_> = Isa::available().into_iter().map(Isa::name).collect();
    names.join(",")
}

/// The version of the module.
#[wasm_bindgen]
#[must_use]
pub fn version() -> String {
    env!("CARGO_PKG_VERSION").to_owned()
}

/// Where a panic leaves its message.
#[wasm_bindgen(js_name = panicAddress)]
#[must_use]
pub fn panic_address() -> usize {
    panic_message::address()
}

/// Runs once, when the module is instantiated.
#[wasm_bindgen(start)]
pub fn start() {
    panic_message::install();
}
