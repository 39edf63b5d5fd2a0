//! Temporary files and directories: what they are called, who holds them, and what becomes of those that nobody holds.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};

use crate::error::{Error, Result};

/// How the names of temporary files and directories end: that of `model.bs` is called `.model.bs.XXXXXX.bigsmall-tmp`.
pub const TEMPORARY_SUFFIX: &str = ".bigsmall-tmp";

/// How the name of the journal of such a file ends, which is the same but for that.
pub(super) const JOURNAL_SUFFIX: &str = ".bigsmall-journal";

/// Random characters in the name of a temporary file.
pub(super) const RANDOM: usize = 6;

/// The longest file name that file systems take, in bytes.
pub(super) const LONGEST_NAME: usize = 255;

/// Locks a temporary file or directory that has just been made. `false` when it is gone already, since another process took
/// it for a leftover before it was locked.
pub(super) fn lock(file: &File) -> bool {
    // Where there are no locks, nobody can find leftovers either.
    let _ = flock(file, FlockOperation::LockExclusive);
    file.metadata().map_or(true, |metadata| metadata.nlink() > 0)
}

/// What a run that is no more has left: nobody else holds it, as long as this is held.
pub(super) struct Leftover {
    pub(super) path: PathBuf,
    /// Open for reading; holds the lock.
    pub(super) lock: File,
    pub(super) is_directory: bool,
}

/// The temporary files and directories in `directory` whose names begin with `prefix` and that nobody holds locked: those
/// who made them are no more.
pub(super) fn leftovers(directory: &Path, prefix: &OsStr) -> Vec<Leftover> {
    let open = |path: PathBuf| {
        let is_directory = std::fs::symlink_metadata(&path).ok()?.is_dir();
        let lock = File::options().read(true).custom_flags(OFlags::NOFOLLOW.bits() as i32).open(&path).ok()?;
        // One that was renamed or removed since its name was read is none.
        let is_free = flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() && path.exists();
        is_free.then_some(Leftover { path, lock, is_directory })
    };
    names(directory, prefix, TEMPORARY_SUFFIX).into_iter().filter_map(open).collect()
}

impl Leftover {
    /// Whether it is a file that can be gone on with.
    pub(super) fn has_journal(&self) -> bool {
        !self.is_directory && journal_of(&self.path).is_file()
    }

    /// Removes it, and its journal. What cannot be removed stays; it is in nobody's way.
    pub(super) fn remove(self) {
        let _ = if self.is_directory { std::fs::remove_dir_all(&self.path) } else { std::fs::remove_file(&self.path) };
        let _ = std::fs::remove_file(journal_of(&self.path));
    }
}

/// Removes all leftovers, and journals that belong to no temporary file any more.
pub(super) fn remove_leftovers(directory: &Path, prefix: &OsStr) {
    leftovers(directory, prefix).into_iter().for_each(Leftover::remove);
    for journal in names(directory, prefix, JOURNAL_SUFFIX) {
        if !temporary_of(&journal).exists() {
            let _ = std::fs::remove_file(journal);
        }
    }
}

/// The journals of files that were finished and whose run was not: `directory` has no temporary file any more for them.
pub(super) fn finished_journals(directory: &Path, prefix: &OsStr) -> Vec<PathBuf> {
    let mut journals = names(directory, prefix, JOURNAL_SUFFIX);
    journals.retain(|journal| !temporary_of(journal).exists());
    journals
}

/// The paths in `directory` that consist of `prefix`, random characters, and `suffix`.
fn names(directory: &Path, prefix: &OsStr, suffix: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let is_one = |name: &OsStr| {
        let random = name.as_bytes().strip_prefix(prefix.as_bytes())?.strip_suffix(suffix.as_bytes())?;
        (random.len() == RANDOM).then_some(())
    };
    let names = entries.flatten().map(|entry| entry.file_name()).filter(|name| is_one(name).is_some());
    names.map(|name| directory.join(name)).collect()
}

/// The journal of a temporary file.
pub(super) fn journal_of(temporary: &Path) -> PathBuf {
    with_suffix(temporary, TEMPORARY_SUFFIX, JOURNAL_SUFFIX)
}

/// The temporary file of a journal.
fn temporary_of(journal: &Path) -> PathBuf {
    with_suffix(journal, JOURNAL_SUFFIX, TEMPORARY_SUFFIX)
}

fn with_suffix(path: &Path, old: &str, new: &str) -> PathBuf {
    let path = path.as_os_str().as_bytes();
    let stem = path.strip_suffix(old.as_bytes()).expect("temporary files have that suffix");
    PathBuf::from(OsString::from_vec([stem, new.as_bytes()].concat()))
}

/// The directory that `path` is in.
pub(super) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// What the name of the temporary file of `name` begins with, short enough for the whole to be a file name.
pub(super) fn temporary_prefix(name: &[u8]) -> OsString {
    let room = LONGEST_NAME - JOURNAL_SUFFIX.len() - RANDOM - 2;
    let mut prefix = vec![b'.'];
    prefix.extend_from_slice(&name[..name.len().min(room)]);
    prefix.push(b'.');
    OsString::from_vec(prefix)
}

/// Writes to disk that the name `path` is there, or is not.
///
/// # Errors
/// [`ErrorKind::Io`](crate::ErrorKind::Io), naming the directory that it is in.
pub fn sync_name(path: &Path) -> Result<()> {
    sync_directory(parent(path))
}

/// Writes to disk that `directory` has new names in it, or old ones no longer.
pub(super) fn sync_directory(directory: &Path) -> Result<()> {
    match File::open(directory).and_then(|file| file.sync_all()) {
        // Some file systems cannot, and a directory may be writable but not readable. The file itself is safe.
        Err(e) if matches!(e.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::PermissionDenied) => Ok(()),
        other => other.map_err(|e| Error::io("cannot write to disk", e).in_file(directory)),
    }
}
