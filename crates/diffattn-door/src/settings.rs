//! The process-wide choice of instruction set and threads, taken up by every call that is made afterwards.

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
/// UNAVAILABLE for an instruction set that this machine has not, OPTION for less than one thread or a fraction.
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
mod tests {
    use diffattn::available_threads;

    use super::*;

    #[test]
    fn what_is_not_to_be_had_is_refused() {
        assert_eq!(
            configure(Some("mmx"), None).map_err(|error| error.code()),
            Err("UNAVAILABLE")
        );
        for threads in [0.0, -1.0, 1.5, f64::NAN, f64::INFINITY] {
            assert_eq!(
                configure(None, Some(threads)).map_err(|error| error.code()),
                Err("OPTION"),
                "{threads}"
            );
        }
        assert_eq!(isa(), Isa::detect());
        assert_eq!(threads(), available_threads());
    }
}
