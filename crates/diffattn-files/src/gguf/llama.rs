//! The architecture that is read, and how its keys are called. Reads none.

/// Its name.
pub(super) const LLAMA: &str = "llama";

/// A key of the architecture's own.
pub(super) fn of_llama(key: &str) -> String {
    format!("{LLAMA}.{key}")
}
