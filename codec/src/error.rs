//! The one error type of the codec.
//!
//! An [`Error`] has a [`kind`](Error::kind) that callers match on and a message for people. The message says what is
//! wrong; whoever knows the file adds its name with [`Error::in_file`].

use std::fmt;
use std::io;
use std::path::Path;

/// What a caller can do about an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The stored bytes are damaged or forged: a checksum, a length or a table does not hold.
    Corrupt,
    /// The file is not a container at all.
    NotAContainer,
    /// The container is sound but was written by a newer version than this one.
    Unsupported,
    /// The caller asked for something impossible (a range beyond the end, a chunk size of zero).
    InvalidArgument,
    /// The source changed while it was being read.
    SourceChanged,
    /// It is a patch, and its base was not given.
    BaseMissing,
    /// It is a patch, and what was given as its base is not it.
    WrongBase,
    /// The target exists already and may not be replaced.
    AlreadyExists,
    /// The caller cancelled the operation through its progress sink.
    Cancelled,
    /// A GPU or its driver failed, or there is none.
    Device,
    /// The operating system refused; the [`io::ErrorKind`] is kept.
    Io(io::ErrorKind),
}

/// An error of the codec: a kind to match on and a message for people.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<io::Error>,
}

/// `Result` with the codec's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error of `kind` with a message that says what is wrong.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error { kind, message: message.into(), source: None }
    }

    /// Damaged or forged stored bytes.
    pub fn corrupt(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Corrupt, message)
    }

    /// A container of a newer version, or one that uses a feature this version does not know.
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, message)
    }

    /// A request that cannot be met.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidArgument, message)
    }

    /// An error of the operating system with what was being done when it came.
    pub fn io(doing: impl fmt::Display, error: io::Error) -> Self {
        Error { kind: ErrorKind::Io(error.kind()), message: format!("{doing}: {error}"), source: Some(error) }
    }

    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The operating system's error behind this one, if there is one.
    pub fn io_error(&self) -> Option<&io::Error> {
        self.source.as_ref()
    }

    /// The same error with `context` before its message, as in `tensor "a.weight": ...`.
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.message = format!("{context}: {}", self.message);
        self
    }

    /// The same error, naming the file that it is about.
    pub fn in_file(self, path: &Path) -> Self {
        self.context(path.display())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|e| e as _)
    }
}
