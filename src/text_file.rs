//! Text files that appear complete or not at all.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::Path;

use bigsmall_codec::output::{Existing, check_replaceable};

use crate::failure::Failure;

/// Writes `text` to a file at `path`, under a temporary name beside it first.
///
/// # Errors
/// When there is something that may not be replaced, or it cannot be written.
pub fn write(path: &Path, text: &[u8], existing: Existing) -> Result<(), Failure> {
    check_replaceable(path, existing)?;
    let cannot = |e| Failure::new(format!("{}: cannot be written: {e}", path.display()));
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let aside = path.with_file_name(name);
    let written = OpenOptions::new().write(true).create_new(true).open(&aside).and_then(|mut file| {
        file.write_all(text)?;
        file.sync_all()?;
        fs::rename(&aside, path)
    });
    written.map_err(|e| {
        // Not if it is somebody else's.
        if e.kind() != std::io::ErrorKind::AlreadyExists {
            let _ = fs::remove_file(&aside);
        }
        cannot(e)
    })
}
