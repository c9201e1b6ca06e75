//! The process-wide choice of instruction set and threads, taken up by every call that is made
//! afterwards.

use std::sync::{Mutex, PoisonError};

use diffattn::{Error, Isa, Run};

/// What was chosen; `None` is the default: the fastest, as many as the machine allows.
static CHOSEN: Mutex<Option<Run>> = Mutex::new(None);

/// What a call that is made now runs on.
pub(crate) fn now() -> Run {
    CHOSEN
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .unwrap_or_default()
}

/// Chooses for calls from now on; `None` is the default. Nothing changes on an error.
///
/// # Errors
/// UNAVAILABLE for an instruction set that this machine has not, OPTION for less than one thread or
/// a fraction.
pub fn configure(isa: Option<&str>, threads: Option<f64>) -> Result<(), Error> {
    let isa = isa.map(Isa::named).transpose()?;
    let threads = threads
        .map(|threads| {
            if threads >= 1.0 && threads.fract() == 0.0 {
                Ok(threads as usize)
            } else {
                Err(Error::option(
                    "threads",
                    "a whole number from 1",
                    crate::reader::format_number(threads),
                ))
            }
        })
        .transpose()?;
    let run = Run::new(isa, threads, false)?;
    *CHOSEN.lock().unwrap_or_else(PoisonError::into_inner) = Some(run);
    Ok(())
}

/// The instruction set of calls from now on.
#[must_use]
pub fn isa() -> Isa {
    now().isa()
}

/// The threads of calls from now on.
#[must_use]
pub fn threads() -> usize {
    now().threads()
}

#[cfg(test)]
mod tests;
