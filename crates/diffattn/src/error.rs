//! The one error type. A variant carries the argument, what was expected and what was given;
//! `Display` makes the sentence, so that every door says the same. Knows nothing of JavaScript.

use std::fmt;

/// Why a call was refused. No error leaves anything half done that a caller could observe, except
/// that an output buffer is unspecified after [`Error::Aborted`] and [`Error::Internal`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// Lengths, ranks, head counts or sizes that do not fit or overflow.
    Shape {
        /// The argument at fault, as the caller names it.
        argument: String,
        /// What was expected of it.
        expected: String,
        /// What was given.
        got: String,
    },
    /// Element types that do not fit.
    Dtype {
        /// The argument at fault.
        argument: String,
        /// What was expected of it.
        expected: String,
        /// What was given.
        got: String,
    },
    /// An option that is unknown, out of its range or contradicts another.
    Option {
        /// The option at fault.
        argument: String,
        /// What was expected of it.
        expected: String,
        /// What was given.
        got: String,
    },
    /// Memory was refused; nothing was changed.
    OutOfMemory {
        /// How many bytes were wanted.
        bytes: u64,
    },
    /// The caller cancelled.
    Aborted,
    /// An object was used after `dispose`.
    Disposed {
        /// The object, for example `cache`.
        argument: String,
    },
    /// A malformed checkpoint file.
    File {
        /// The file or tensor at fault.
        argument: String,
        /// What was expected of it.
        expected: String,
        /// What was found.
        got: String,
    },
    /// An instruction set, build or backend that is not to be had here.
    Unavailable {
        /// What was asked for, for example `isa`.
        argument: String,
        /// What is to be had.
        expected: String,
        /// What was asked.
        got: String,
    },
    /// A bug of ours.
    Internal(String),
}

impl Error {
    /// The stable code of the kind, as JavaScript sees it.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Shape { .. } => "SHAPE",
            Self::Dtype { .. } => "DTYPE",
            Self::Option { .. } => "OPTION",
            Self::OutOfMemory { .. } => "OUT_OF_MEMORY",
            Self::Aborted => "ABORTED",
            Self::Disposed { .. } => "DISPOSED",
            Self::File { .. } => "FILE",
            Self::Unavailable { .. } => "UNAVAILABLE",
            Self::Internal(_) => "INTERNAL",
        }
    }

    /// A [`Error::Shape`] from anything that prints.
    pub fn shape(
        argument: impl fmt::Display,
        expected: impl fmt::Display,
        got: impl fmt::Display,
    ) -> Self {
        Self::Shape {
            argument: argument.to_string(),
            expected: expected.to_string(),
            got: got.to_string(),
        }
    }

    /// A [`Error::Dtype`] from anything that prints.
    pub fn dtype(
        argument: impl fmt::Display,
        expected: impl fmt::Display,
        got: impl fmt::Display,
    ) -> Self {
        Self::Dtype {
            argument: argument.to_string(),
            expected: expected.to_string(),
            got: got.to_string(),
        }
    }

    /// A [`Error::Option`] from anything that prints.
    pub fn option(
        argument: impl fmt::Display,
        expected: impl fmt::Display,
        got: impl fmt::Display,
    ) -> Self {
        Self::Option {
            argument: argument.to_string(),
            expected: expected.to_string(),
            got: got.to_string(),
        }
    }

    /// A [`Error::File`] from anything that prints.
    pub fn file(
        argument: impl fmt::Display,
        expected: impl fmt::Display,
        got: impl fmt::Display,
    ) -> Self {
        Self::File {
            argument: argument.to_string(),
            expected: expected.to_string(),
            got: got.to_string(),
        }
    }

    /// A [`Error::Unavailable`] from anything that prints.
    pub fn unavailable(
        argument: impl fmt::Display,
        expected: impl fmt::Display,
        got: impl fmt::Display,
    ) -> Self {
        Self::Unavailable {
            argument: argument.to_string(),
            expected: expected.to_string(),
            got: got.to_string(),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shape {
                argument,
                expected,
                got,
            }
            | Self::Dtype {
                argument,
                expected,
                got,
            }
            | Self::Option {
                argument,
                expected,
                got,
            }
            | Self::File {
                argument,
                expected,
                got,
            }
            | Self::Unavailable {
                argument,
                expected,
                got,
            } => {
                write!(f, "{argument}: expected {expected}, got {got}")
            }
            Self::OutOfMemory { bytes } => {
                write!(f, "memory: expected {bytes} more bytes, got a refusal")
            }
            Self::Aborted => write!(f, "signal: the call was aborted"),
            Self::Disposed { argument } => write!(
                f,
                "{argument}: expected a live object, got one that was disposed of"
            ),
            Self::Internal(what) => write!(f, "internal error (a bug of diffattn): {what}"),
        }
    }
}

impl std::error::Error for Error {}
