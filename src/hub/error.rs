//! What can go wrong with the Hub.

use std::fmt;
use std::path::Path;

use crate::failure::Failure;
use crate::interrupt;

/// What a caller can do about an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// There is no such repo, revision or file, or none that this user may see.
    NotFound,
    /// The token is missing, wrong or may not do this.
    Denied,
    /// The repo has another commit than the one that the request was made for, or exists already.
    Conflict,
    /// The Hub, or the way to it, does not work now.
    Unreachable,
    /// What came is not what was listed.
    Corrupt,
    /// A signal asked the command to end.
    Interrupted,
    /// Anything else, files on this side included.
    Other,
}

/// An error of the Hub: a kind to match on and a message for people, in which the token never appears.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    code: Option<u8>,
}

/// `Result` with this module's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error with a message that names what it is about and says what to do.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Error {
        Error { kind, message: message.into(), code: None }
    }

    /// An error of reading or writing a file of this machine.
    pub fn file(path: &Path, doing: &str, error: &std::io::Error) -> Error {
        let advice = match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                "\nmake room and run the same command again: it goes on where it stopped"
            }
            _ => "",
        };
        Error::new(ErrorKind::Other, format!("{}: {doing}: {error}{advice}", path.display()))
    }

    /// A signal came.
    pub fn interrupted() -> Error {
        Error::new(ErrorKind::Interrupted, "interrupted; the same command goes on where it stopped")
    }

    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Error {
        Error { kind: ErrorKind::Other, message: failure.message, code: Some(failure.code) }
    }
}

impl From<bigsmall_codec::Error> for Error {
    fn from(error: bigsmall_codec::Error) -> Error {
        match error.kind() {
            bigsmall_codec::ErrorKind::Cancelled => Error::interrupted(),
            _ => Error::new(ErrorKind::Other, error.to_string()),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        match error {
            Error { kind: ErrorKind::Interrupted, message, .. } => {
                Failure::with_code(interrupt::failure().code, message)
            }
            Error { code: Some(code), message, .. } => Failure::with_code(code, message),
            Error { message, .. } => Failure::new(message),
        }
    }
}
