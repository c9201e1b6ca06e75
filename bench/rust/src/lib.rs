//! What the subject (`main.rs`) and the criterion benches share: the cases of `bench/cases.json`,
//! their inputs, one call of a case, and the machine's limits. The protocol and the rules of timing
//! stand in `bench/README.md`.

mod by_hand;
mod case;
mod inputs;
mod limits;
mod loaded;
pub mod reference;

pub use by_hand::{bench, halves};
pub use case::{Case, Channels, Heads, Layer, Work, cases};
pub use inputs::{EPS, LAMBDA, fill, made};
pub use limits::Limits;
pub use loaded::Loaded;

use diffattn::Error;
use std::time::Instant;

/// Calls shorter than this are repeated and divided.
const SHORT: f64 = 1e-3;

/// How long the repetitions of a short call take together.
const FILLED: f64 = 5e-3;

/// Seconds of one call of `call`. A call shorter than a millisecond is only the warm-up: then as
/// many as fill 5 ms are timed together.
///
/// # Errors
/// Those of `call`.
pub fn seconds_of(mut call: impl FnMut() -> Result<(), Error>) -> Result<f64, Error> {
    let mut spent = |times: usize| {
        let start = Instant::now();
        for _ in 0..times {
            call()?;
        }
        Ok(start.elapsed().as_secs_f64() / times as f64)
    };
    let once = spent(1)?;
    if once >= SHORT {
        return Ok(once);
    }
    spent((FILLED / once.max(5e-7)).ceil().min(10_000.0) as usize)
}
