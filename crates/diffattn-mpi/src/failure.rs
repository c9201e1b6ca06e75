//! What ends the program with a sentence.

use std::fmt;
use std::path::Path;

/// A sentence for who called the program.
#[derive(Debug)]
pub struct Failure(String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

impl From<diffattn::Error> for Failure {
    fn from(error: diffattn::Error) -> Self {
        Self(error.to_string())
    }
}

impl Failure {
    /// Of its text.
    pub(crate) fn new(text: impl fmt::Display) -> Self {
        Self(text.to_string())
    }

    /// What the system says of a file.
    pub(crate) fn at(path: &Path) -> impl Fn(std::io::Error) -> Self {
        move |error| Self(format!("{}: {error}", path.display()))
    }
}
