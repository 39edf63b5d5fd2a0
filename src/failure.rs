//! How a command ends when it could not do what it was asked to.

use std::fmt;

use bigsmall_codec::ErrorKind;

use crate::interrupt;

/// The exit code of a command that found damage in what it was to check.
pub const DAMAGED: u8 = 1;

/// The exit code of a command that could not do, or not begin, what it was asked to.
pub const FAILED: u8 = 2;

/// What is said on standard error, and the exit code.
///
/// The first line of the message says what is wrong and with which file; further lines say more, or what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// For people, without a trailing line feed.
    pub message: String,
    /// The exit code.
    pub code: u8,
}

impl Failure {
    /// A command that could not do what it was asked to.
    pub fn new(message: impl Into<String>) -> Failure {
        Failure::with_code(FAILED, message)
    }

    /// A command that ends with `code`.
    pub fn with_code(code: u8, message: impl Into<String>) -> Failure {
        Failure { message: message.into(), code }
    }

    /// The same failure of a command that has left what it had done by then.
    #[must_use]
    pub fn with_work_kept(self) -> Failure {
        let kept = "what is done is kept: the same command goes on from there";
        match interrupt::caught() {
            Some(_) => Failure { message: format!("interrupted; {kept}"), ..self },
            None => Failure { message: format!("{}\n{kept}", self.message), ..self },
        }
    }
}

impl From<bigsmall_codec::Error> for Failure {
    fn from(error: bigsmall_codec::Error) -> Failure {
        match error.kind() {
            ErrorKind::Cancelled => interrupt::failure(),
            _ => Failure::new(error.to_string()),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
