//! The one error type. It carries the argument, what was expected and what was given;
//! `Display` makes the sentence, so that every door says the same. Knows nothing of JavaScript.

use std::fmt;

/// What an argument was refused for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Lengths, ranks, head counts or sizes that do not fit or overflow.
    Shape,
    /// Element types that do not fit.
    Dtype,
    /// An option that is unknown, out of its range or contradicts another.
    Option,
    /// A malformed checkpoint file.
    File,
    /// An instruction set, build or backend that is not to be had here.
    Unavailable,
}

/// Why a call was refused. No error leaves anything half done that a caller could observe, except
/// that an output buffer is unspecified after [`Reason::Aborted`] and [`Reason::Internal`].
///
/// As wide as a pointer: whatever can fail carries room for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error(Box<Reason>);

/// What an [`Error`] says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// An argument, option, file or tensor that does not fit.
    Argument {
        /// What it was refused for.
        kind: ErrorKind,
        /// The argument at fault, as the caller names it.
        argument: String,
        /// What was expected of it.
        expected: String,
        /// What was given or found.
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
    /// A bug of ours.
    Internal(String),
}

impl ErrorKind {
    /// The stable code of the kind, as JavaScript sees it.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Shape => "SHAPE",
            Self::Dtype => "DTYPE",
            Self::Option => "OPTION",
            Self::File => "FILE",
            Self::Unavailable => "UNAVAILABLE",
        }
    }
}

impl Error {
    fn new(reason: Reason) -> Self {
        Self(Box::new(reason))
    }

    /// What it says.
    #[must_use]
    pub fn reason(&self) -> &Reason {
        &self.0
    }

    /// The stable code of the error, as JavaScript sees it.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self.reason() {
            Reason::Argument { kind, .. } => kind.code(),
            Reason::OutOfMemory { .. } => "OUT_OF_MEMORY",
            Reason::Aborted => "ABORTED",
            Reason::Disposed { .. } => "DISPOSED",
            Reason::Internal(_) => "INTERNAL",
        }
    }

    /// The kind, where an argument is at fault.
    #[must_use]
    pub fn kind(&self) -> Option<ErrorKind> {
        match self.reason() {
            Reason::Argument { kind, .. } => Some(*kind),
            _ => None,
        }
    }

    /// A [`Reason::Argument`] from anything that prints.
    pub fn argument(
        kind: ErrorKind,
        argument: impl fmt::Display,
        expected: impl fmt::Display,
        got: impl fmt::Display,
    ) -> Self {
        Self::printed(kind, &argument, &expected, &got)
    }

    /// Compiled once, whatever prints.
    #[cold]
    #[inline(never)]
    fn printed(
        kind: ErrorKind,
        argument: &dyn fmt::Display,
        expected: &dyn fmt::Display,
        got: &dyn fmt::Display,
    ) -> Self {
        Self::new(Reason::Argument {
            kind,
            argument: argument.to_string(),
            expected: expected.to_string(),
            got: got.to_string(),
        })
    }

    /// [`Reason::OutOfMemory`]: so many bytes were wanted.
    #[cold]
    #[must_use]
    pub fn out_of_memory(bytes: u64) -> Self {
        Self::new(Reason::OutOfMemory { bytes })
    }

    /// [`Reason::Aborted`].
    #[cold]
    #[must_use]
    pub fn aborted() -> Self {
        Self::new(Reason::Aborted)
    }

    /// [`Reason::Disposed`], of this object.
    #[cold]
    pub fn disposed(argument: impl Into<String>) -> Self {
        Self::new(Reason::Disposed {
            argument: argument.into(),
        })
    }

    /// [`Reason::Internal`]: what went wrong.
    #[cold]
    pub fn internal(what: impl Into<String>) -> Self {
        Self::new(Reason::Internal(what.into()))
    }

    /// The same error with another kind, where an argument is at fault; any other error as it is.
    #[must_use]
    pub fn of(mut self, of: ErrorKind) -> Self {
        if let Reason::Argument { kind, .. } = &mut *self.0 {
            *kind = of;
        }
        self
    }

    /// The same error with the argument at fault renamed, where it is of kind `of`; any other error
    /// as it is.
    #[must_use]
    pub fn renamed(mut self, of: ErrorKind, name: impl FnOnce(&str) -> String) -> Self {
        if let Reason::Argument { kind, argument, .. } = &mut *self.0
            && *kind == of
        {
            *argument = name(argument);
        }
        self
    }

    /// An error of [`ErrorKind::Shape`] from anything that prints.
    pub fn shape(
        argument: impl fmt::Display,
        expected: impl fmt::Display,
        got: impl fmt::Display,
    ) -> Self {
        Self::argument(ErrorKind::Shape, argument, expected, got)
    }

    /// An error of [`ErrorKind::Dtype`] from anything that prints.
    pub fn dtype(
        argument: impl fmt::Display,
        expected: impl fmt::Display,
        got: impl fmt::Display,
    ) -> Self {
        Self::argument(ErrorKind::Dtype, argument, expected, got)
    }

    /// An error of [`ErrorKind::Option`] from anything that prints.
    pub fn option(
        argument: impl fmt::Display,
        expected: impl fmt::Display,
        got: impl fmt::Display,
    ) -> Self {
        Self::argument(ErrorKind::Option, argument, expected, got)
    }

    /// An error of [`ErrorKind::File`] from anything that prints.
    pub fn file(
        argument: impl fmt::Display,
        expected: impl fmt::Display,
        got: impl fmt::Display,
    ) -> Self {
        Self::argument(ErrorKind::File, argument, expected, got)
    }

    /// An error of [`ErrorKind::Unavailable`] from anything that prints.
    pub fn unavailable(
        argument: impl fmt::Display,
        expected: impl fmt::Display,
        got: impl fmt::Display,
    ) -> Self {
        Self::argument(ErrorKind::Unavailable, argument, expected, got)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason() {
            Reason::Argument {
                argument,
                expected,
                got,
                ..
            } => {
                write!(f, "{argument}: expected {expected}, got {got}")
            }
            Reason::OutOfMemory { bytes } => {
                write!(f, "memory: expected {bytes} more bytes, got a refusal")
            }
            Reason::Aborted => write!(f, "signal: the call was aborted"),
            Reason::Disposed { argument } => write!(
                f,
                "{argument}: expected a live object, got one that was disposed of"
            ),
            Reason::Internal(what) => write!(f, "internal error (a bug of diffattn): {what}"),
        }
    }
}

impl std::error::Error for Error {}
