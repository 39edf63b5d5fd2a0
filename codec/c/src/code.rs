//! Errors as numbers, and what they say.

use std::cell::RefCell;
use std::ffi::{CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

use bigsmall_codec::{Error, ErrorKind, Result};

/// What became of a call: `bigsmall_code`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub enum Code {
    /// It did what it should.
    Ok = 0,
    /// The file is damaged.
    Corrupt = 1,
    /// It is no file that can be opened.
    NotAContainer = 2,
    /// It was written by a newer version, or needs what the library was built without.
    Unsupported = 3,
    /// There is no such tensor or range, or a pointer is null.
    InvalidArgument = 4,
    /// It changed while it was read.
    SourceChanged = 5,
    /// It is a patch without its base.
    BaseMissing = 6,
    /// It is a patch of another base.
    WrongBase = 7,
    /// A GPU failed, or there is none.
    Device = 8,
    /// The operating system refused.
    Io = 9,
    /// A defect.
    Internal = 10,
}

thread_local! {
    /// The message of the last call that failed.
    static MESSAGE: RefCell<CString> = RefCell::default();
}

impl Code {
    /// Does what a function is for; remembers what an error, or a panic, says.
    pub(crate) fn of(work: impl FnOnce() -> Result<()>) -> Code {
        let (code, message) = match catch_unwind(AssertUnwindSafe(work)) {
            Ok(Ok(())) => return Code::Ok,
            Ok(Err(error)) => (Code::of_error(&error), error.to_string()),
            Err(panic) => {
                let said = panic.downcast_ref::<&str>().map(|said| (*said).to_owned());
                let said = said.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
                (Code::Internal, format!("a defect of bigsmall: {said}"))
            }
        };
        let message = CString::new(message.replace('\0', " ")).unwrap_or_default();
        // Where the thread is ending there is nobody left to ask for it.
        let _ = MESSAGE.try_with(|last| last.replace(message));
        code
    }

    fn of_error(error: &Error) -> Code {
        match error.kind() {
            ErrorKind::Corrupt => Code::Corrupt,
            ErrorKind::NotAContainer => Code::NotAContainer,
            ErrorKind::Unsupported => Code::Unsupported,
            ErrorKind::InvalidArgument => Code::InvalidArgument,
            ErrorKind::SourceChanged => Code::SourceChanged,
            ErrorKind::BaseMissing => Code::BaseMissing,
            ErrorKind::WrongBase => Code::WrongBase,
            ErrorKind::Device => Code::Device,
            ErrorKind::Io(_) => Code::Io,
            _ => Code::Internal,
        }
    }
}

/// The message, which lives until another call of this thread fails.
pub(crate) fn last_message() -> *const c_char {
    MESSAGE.try_with(|last| last.borrow().as_ptr()).unwrap_or(c"".as_ptr())
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;

    use super::*;

    #[test]
    fn a_panic_ends_at_the_border() {
        assert_eq!(Code::of(|| panic!("as the test {}", "wishes")), Code::Internal);
        // SAFETY: nothing has failed since.
        let message = unsafe { CStr::from_ptr(last_message()) }.to_str().unwrap();
        assert!(message.ends_with("as the test wishes"), "{message}");
    }
}
