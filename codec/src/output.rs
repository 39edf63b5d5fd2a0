//! New files and directories that appear whole or not at all.
//!
//! Everything is written under a temporary name beside the target and renamed to it when it is complete and on disk.
//! Whatever is dropped before that is removed. A process that is killed on the spot leaves at most a file whose name
//! ends in [`TEMPORARY_SUFFIX`]; the next one that makes the same target removes it. A lock (`flock`) on each temporary
//! file tells those that are being written from those that nobody writes any more.

use std::ffi::{OsStr, OsString};
use std::fs::{File, FileTimes, Metadata, Permissions};
use std::io::{self, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use rustix::fs::{CWD, FallocateFlags, FlockOperation, OFlags, RenameFlags, fallocate, flock, renameat_with};
use rustix::io::Errno;
use tempfile::{NamedTempFile, TempDir};

use crate::error::{Error, ErrorKind, Result};
use crate::original::PlainFile;

/// How the names of temporary files and directories end: that of `model.bs` is called `.model.bs.XXXXXX.bigsmall-tmp`.
pub const TEMPORARY_SUFFIX: &str = ".bigsmall-tmp";

/// Random characters in the name of a temporary file.
const RANDOM: usize = 6;

/// The longest file name that file systems take, in bytes.
const LONGEST_NAME: usize = 255;

/// What to do when the target exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Leave it and fail with [`ErrorKind::AlreadyExists`].
    Refuse,
    /// Put the new file in its place.
    Replace,
}

/// What a new file takes over from the file that it was made from: its permission bits and its time of modification.
///
/// As with `gzip`, the owner is whoever runs the program, and so the bits that lend the owner's rights (set-user-id,
/// set-group-id) do not go over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attributes {
    mode: u32,
    modified: Option<SystemTime>,
}

impl Attributes {
    /// Those of an existing file or directory.
    pub fn of(metadata: &Metadata) -> Attributes {
        Attributes { mode: metadata.mode() & 0o777, modified: metadata.modified().ok() }
    }

    /// Gives them to an open file or directory. Other bits of the mode, such as the set-group-id bit that a directory
    /// has from its parent, stay.
    fn apply(&self, file: &File) -> io::Result<()> {
        let mode = file.metadata()?.mode() & 0o7000 | self.mode;
        tolerate_missing_feature(file.set_permissions(Permissions::from_mode(mode)))?;
        match self.modified {
            Some(time) => tolerate_missing_feature(file.set_times(FileTimes::new().set_modified(time))),
            None => Ok(()),
        }
    }

    /// Gives them to the directory at `path`.
    ///
    /// # Errors
    /// [`ErrorKind::Io`], naming the directory.
    pub fn apply_to_directory(&self, path: &Path) -> Result<()> {
        let directory = File::open(path).and_then(|directory| self.apply(&directory));
        directory.map_err(|e| Error::io("cannot set the permissions and the time", e).in_file(path))
    }
}

/// File systems without permissions or times of this kind (FAT, some network ones) refuse to set them; the contents are
/// worth having all the same.
fn tolerate_missing_feature(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if matches!(e.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported) => Ok(()),
        other => other,
    }
}

/// A file that gets its name only when it is complete: see the [module](self).
#[derive(Debug)]
pub struct NewFile {
    temporary: NamedTempFile,
    /// Where it is put.
    place: PathBuf,
    /// Where it will be in the end, when the directory that it is in has its name; what errors call it.
    target: PathBuf,
    existing: Existing,
    /// Whether a write failed, so that an error that has passed through a [`Write`] can be told to be about this file.
    failed: AtomicBool,
}

impl NewFile {
    /// Begins the file that will be `target`, in a directory that exists.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`] when it exists and is not to be replaced, or is no regular file.
    /// [`ErrorKind::Io`] when it cannot be created. All name the target.
    pub fn create(target: &Path, existing: Existing) -> Result<NewFile> {
        check_replaceable(target, existing)?;
        NewFile::create_as(target, target, existing)
    }

    fn create_as(place: &Path, target: &Path, existing: Existing) -> Result<NewFile> {
        let name = place.file_name().ok_or_else(|| Error::invalid("not the name of a file").in_file(target))?;
        let prefix = temporary_prefix(name.as_bytes());
        remove_leftovers(parent(place), &prefix);
        let temporary = loop {
            let temporary = tempfile::Builder::new()
                .prefix(&prefix)
                .rand_bytes(RANDOM)
                .suffix(TEMPORARY_SUFFIX)
                // Nobody else reads it before it has the permissions of its source.
                .permissions(Permissions::from_mode(0o600))
                .tempfile_in(parent(place))
                .map_err(|e| cannot_create(target, without_path(e)))?;
            if lock(temporary.as_file()) {
                break temporary;
            }
        };
        let (place, target) = (place.to_owned(), target.to_owned());
        Ok(NewFile { temporary, place, target, existing, failed: AtomicBool::new(false) })
    }

    /// Where the file will be in the end.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// The file, under its temporary name.
    pub fn file(&self) -> &File {
        self.temporary.as_file()
    }

    /// What has been written so far, to be read.
    ///
    /// # Errors
    /// [`ErrorKind::Io`], naming the target.
    pub fn contents(&self) -> Result<PlainFile> {
        let file = self.file().try_clone().map_err(|e| self.cannot_write("cannot be read again", e))?;
        PlainFile::from_file(file, &self.target)
    }

    /// Takes room for `len` bytes, so that a full disk is noticed before the work and not after it. Where the file
    /// system cannot, nothing happens.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] when there is not so much room, naming the target.
    pub fn reserve(&self, len: u64) -> Result<()> {
        if len == 0 {
            return Ok(());
        }
        match fallocate(self.file(), FallocateFlags::empty(), 0, len) {
            Err(errno @ (Errno::NOSPC | Errno::DQUOT | Errno::FBIG)) => {
                Err(self.cannot_write(format_args!("cannot take {len} bytes"), errno.into()))
            }
            _ => Ok(()),
        }
    }

    /// Writes `bytes` at `offset`; may be called from many threads.
    ///
    /// # Errors
    /// [`ErrorKind::Io`], naming the target.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.file().write_all_at(bytes, offset).map_err(|e| self.cannot_write("cannot write", e))
    }

    /// The same error, naming the target when a [`Write`] to it failed before.
    pub fn name_failure(&self, error: Error) -> Error {
        if self.failed.load(Ordering::Relaxed) { error.in_file(&self.target) } else { error }
    }

    /// Gives the file its attributes and its name, once it is on disk.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`] when the target has come into being since, [`ErrorKind::Io`]; both name the target,
    /// and the temporary file is gone.
    pub fn commit(self, attributes: &Attributes) -> Result<()> {
        attributes.apply(self.file()).map_err(|e| self.cannot_write("cannot set the permissions and the time", e))?;
        self.file().sync_all().map_err(|e| self.cannot_write("cannot write to disk", e))?;
        let NewFile { temporary, place, target, existing, .. } = self;
        let persisted = match existing {
            Existing::Refuse => temporary.persist_noclobber(&place),
            Existing::Replace => temporary.persist(&place),
        };
        let persisted = persisted.or_else(|e| {
            // A file system without links and without a rename that never replaces, such as exFAT: the last resort is
            // to look first.
            let no_links = matches!(e.error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported);
            if existing == Existing::Refuse && no_links && std::fs::symlink_metadata(&place).is_err() {
                e.file.persist(&place)
            } else {
                Err(e)
            }
        });
        match persisted {
            Ok(_) => sync_directory(parent(&place)),
            Err(e) if e.error.kind() == io::ErrorKind::AlreadyExists => Err(already_exists(&target)),
            Err(e) => Err(cannot_create(&target, e.error)),
        }
    }

    fn cannot_write(&self, doing: impl std::fmt::Display, error: io::Error) -> Error {
        Error::io(doing, error).in_file(&self.target)
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.temporary.as_file_mut().write(bytes);
        if written.as_ref().is_err_and(|e| e.kind() != io::ErrorKind::Interrupted) {
            self.failed.store(true, Ordering::Relaxed);
        }
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A directory that gets its name only when everything in it is complete: see the [module](self).
#[derive(Debug)]
pub struct NewDirectory {
    temporary: TempDir,
    /// Holds the lock.
    _lock: File,
    target: PathBuf,
}

impl NewDirectory {
    /// Begins the directory that will be `target`, in a directory that exists.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`] when it exists, [`ErrorKind::Io`] when it cannot be created. Both name the target.
    pub fn create(target: &Path) -> Result<NewDirectory> {
        if std::fs::symlink_metadata(target).is_ok() {
            return Err(already_exists(target));
        }
        let name = target.file_name().ok_or_else(|| Error::invalid("not the name of a directory").in_file(target))?;
        let prefix = temporary_prefix(name.as_bytes());
        remove_leftovers(parent(target), &prefix);
        loop {
            let temporary = tempfile::Builder::new()
                .prefix(&prefix)
                .rand_bytes(RANDOM)
                .suffix(TEMPORARY_SUFFIX)
                .permissions(Permissions::from_mode(0o700))
                .tempdir_in(parent(target))
                .map_err(|e| cannot_create(target, without_path(e)))?;
            match File::open(temporary.path()) {
                Ok(directory) if lock(&directory) => {
                    return Ok(NewDirectory { temporary, _lock: directory, target: target.to_owned() });
                }
                // Someone took it for a leftover before it was locked.
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(cannot_create(target, e)),
            }
        }
    }

    /// The directory under its temporary name: what is to be in it goes here.
    pub fn path(&self) -> &Path {
        self.temporary.path()
    }

    /// Begins the file `name` in it, or in a directory in it. Errors name the file as it will be in the end.
    ///
    /// # Errors
    /// As [`NewFile::create`].
    pub fn create_file(&self, name: &Path) -> Result<NewFile> {
        NewFile::create_as(&self.path().join(name), &self.target.join(name), Existing::Refuse)
    }

    /// Gives the directory its attributes and its name.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`] when the target has come into being since, [`ErrorKind::Io`]; both name the target,
    /// and the temporary directory is gone.
    pub fn commit(self, attributes: &Attributes) -> Result<()> {
        attributes.apply_to_directory(self.path())?;
        let renamed = match renameat_with(CWD, self.path(), CWD, &self.target, RenameFlags::NOREPLACE) {
            // The file system has no such rename. An ordinary one replaces at most an empty directory.
            Err(Errno::INVAL | Errno::NOSYS) => std::fs::rename(self.path(), &self.target),
            other => other.map_err(io::Error::from),
        };
        match renamed {
            Ok(()) => {
                let _ = self.temporary.keep();
                sync_directory(parent(&self.target))
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::DirectoryNotEmpty) => {
                Err(already_exists(&self.target))
            }
            Err(e) => Err(cannot_create(&self.target, e)),
        }
    }
}

/// Locks a temporary file or directory that has just been made. `false` when it is gone already, since another process took
/// it for a leftover before it was locked.
fn lock(file: &File) -> bool {
    // Where there are no locks, nobody can find leftovers either.
    let _ = flock(file, FlockOperation::LockExclusive);
    file.metadata().map_or(true, |metadata| metadata.nlink() > 0)
}

/// Removes the temporary files and directories in `directory` whose names begin with `prefix` and that nobody holds locked:
/// those who made them are no more. What cannot be removed stays; it is in nobody's way.
fn remove_leftovers(directory: &Path, prefix: &OsStr) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    let suffix = TEMPORARY_SUFFIX.as_bytes();
    for entry in entries.flatten() {
        let name = entry.file_name();
        let random = name.as_bytes().strip_prefix(prefix.as_bytes()).and_then(|rest| rest.strip_suffix(suffix));
        if random.is_none_or(|random| random.len() != RANDOM) {
            continue;
        }
        let path = entry.path();
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let Ok(file) = File::options().read(true).custom_flags(OFlags::NOFOLLOW.bits() as i32).open(&path) else {
            continue;
        };
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
            let _ = if is_directory { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        }
    }
}

/// Fails unless a new file may be put at `target`.
///
/// # Errors
/// As [`NewFile::create`].
pub fn check_replaceable(target: &Path, existing: Existing) -> Result<()> {
    match std::fs::symlink_metadata(target) {
        Ok(_) if existing == Existing::Refuse => Err(already_exists(target)),
        // What a link leads to counts; one that leads nowhere is replaced.
        Ok(_) => match std::fs::metadata(target) {
            Ok(metadata) if metadata.is_dir() => {
                Err(Error::new(ErrorKind::AlreadyExists, "is a directory; a file cannot replace it").in_file(target))
            }
            Ok(metadata) if !metadata.is_file() => {
                Err(Error::new(ErrorKind::AlreadyExists, "is a device, pipe or socket and stays").in_file(target))
            }
            _ => Ok(()),
        },
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(cannot_create(target, e)),
    }
}

fn already_exists(target: &Path) -> Error {
    Error::new(ErrorKind::AlreadyExists, "exists already").in_file(target)
}

fn cannot_create(target: &Path, error: io::Error) -> Error {
    Error::io("cannot be created", error).in_file(target)
}

/// The same error without the temporary name that `tempfile` adds to it and that tells people nothing.
fn without_path(error: io::Error) -> io::Error {
    match error.to_string().split_once(" at path ") {
        Some((what, _)) => io::Error::new(error.kind(), what),
        None => error,
    }
}

/// The directory that `path` is in.
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// What the name of the temporary file of `name` begins with, short enough for the whole to be a file name.
fn temporary_prefix(name: &[u8]) -> OsString {
    let room = LONGEST_NAME - TEMPORARY_SUFFIX.len() - RANDOM - 2;
    let mut prefix = vec![b'.'];
    prefix.extend_from_slice(&name[..name.len().min(room)]);
    prefix.push(b'.');
    OsString::from_vec(prefix)
}

/// Writes to disk that the name `path` is there, or is not.
///
/// # Errors
/// [`ErrorKind::Io`], naming the directory that it is in.
pub fn sync_name(path: &Path) -> Result<()> {
    sync_directory(parent(path))
}

/// Writes to disk that `directory` has new names in it, or old ones no longer.
fn sync_directory(directory: &Path) -> Result<()> {
    match File::open(directory).and_then(|file| file.sync_all()) {
        // Some file systems cannot, and a directory may be writable but not readable. The file itself is safe.
        Err(e) if matches!(e.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::PermissionDenied) => Ok(()),
        other => other.map_err(|e| Error::io("cannot write to disk", e).in_file(directory)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn names(directory: &Path) -> Vec<OsString> {
        let mut names: Vec<_> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    }

    fn attributes(mode: u32) -> Attributes {
        Attributes { mode, modified: Some(SystemTime::UNIX_EPOCH + Duration::new(1_000_000_007, 123_456_789)) }
    }

    #[test]
    fn a_committed_file_has_its_name_attributes_and_bytes() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("new");
        let mut file = NewFile::create(&target, Existing::Refuse).unwrap();
        file.write_all(b"hello").unwrap();
        file.write_at(5, b" there").unwrap();
        let temporary = names(directory.path());
        let temporary = temporary[0].to_str().unwrap();
        assert!(temporary.starts_with(".new.") && temporary.ends_with(TEMPORARY_SUFFIX), "{temporary}");
        file.commit(&attributes(0o640)).unwrap();
        assert_eq!(names(directory.path()), ["new"]);
        assert_eq!(std::fs::read(&target).unwrap(), b"hello there");
        let metadata = std::fs::metadata(&target).unwrap();
        assert_eq!(metadata.mode() & 0o7777, 0o640);
        assert_eq!((metadata.mtime(), metadata.mtime_nsec()), (1_000_000_007, 123_456_789));
    }

    #[test]
    fn a_dropped_file_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let mut file = NewFile::create(&directory.path().join("new"), Existing::Refuse).unwrap();
        file.write_all(b"half").unwrap();
        assert_eq!(names(directory.path()).len(), 1);
        drop(file);
        assert!(names(directory.path()).is_empty());
        drop(NewDirectory::create(&directory.path().join("new")).unwrap());
        assert!(names(directory.path()).is_empty());
    }

    #[test]
    fn what_exists_stays_unless_it_is_to_be_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("x");
        std::fs::write(&target, "old").unwrap();
        assert_eq!(NewFile::create(&target, Existing::Refuse).unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(NewDirectory::create(&target).unwrap_err().kind(), ErrorKind::AlreadyExists);
        let mut file = NewFile::create(&target, Existing::Replace).unwrap();
        file.write_all(b"new").unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), b"old");
        file.commit(&attributes(0o600)).unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), b"new");
    }

    #[test]
    fn what_comes_into_being_meanwhile_stays() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("x");
        let file = NewFile::create(&target, Existing::Refuse).unwrap();
        let new_directory = NewDirectory::create(&target).unwrap();
        std::fs::write(&target, "other").unwrap();
        assert_eq!(file.commit(&attributes(0o600)).unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(new_directory.commit(&attributes(0o700)).unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(names(directory.path()), ["x"]);
        assert_eq!(std::fs::read(&target).unwrap(), b"other");
    }

    #[test]
    fn only_files_are_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let create = |name: &str| NewFile::create(&directory.path().join(name), Existing::Replace);
        std::fs::create_dir(directory.path().join("directory")).unwrap();
        std::os::unix::fs::symlink("/dev/null", directory.path().join("null")).unwrap();
        std::os::unix::fs::symlink("nowhere", directory.path().join("broken")).unwrap();
        assert!(create("directory").unwrap_err().to_string().contains("is a directory"));
        assert!(create("null").unwrap_err().to_string().contains("is a device"));
        create("broken").unwrap().commit(&attributes(0o600)).unwrap();
        assert!(std::fs::symlink_metadata(directory.path().join("broken")).unwrap().is_file());
    }

    #[test]
    fn the_longest_name_is_possible() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("n".repeat(LONGEST_NAME));
        NewFile::create(&target, Existing::Refuse).unwrap().commit(&attributes(0o600)).unwrap();
        assert!(target.is_file());
    }

    #[test]
    fn errors_name_the_target() {
        let error = NewFile::create(Path::new("/no/such/directory/x.bs"), Existing::Refuse).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io(io::ErrorKind::NotFound));
        let expected = "/no/such/directory/x.bs: cannot be created: No such file or directory (os error 2)";
        assert_eq!(error.to_string(), expected);
        let error = NewDirectory::create(Path::new("/no/such/directory/x.bs")).unwrap_err();
        assert_eq!(error.to_string(), expected);
        let directory = tempfile::tempdir().unwrap();
        let error =
            NewFile::create(&directory.path().join("x"), Existing::Refuse).unwrap().reserve(1 << 60).unwrap_err();
        assert!(error.to_string().contains("/x: cannot take 1152921504606846976 bytes: "), "{error}");
    }

    #[test]
    fn a_directory_appears_with_all_that_is_in_it() {
        let parent = tempfile::tempdir().unwrap();
        let target = parent.path().join("model");
        let directory = NewDirectory::create(&target).unwrap();
        directory.create_file(Path::new("config.json")).unwrap().commit(&attributes(0o600)).unwrap();
        let error = directory.create_file(Path::new("no/model.bs")).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{}/no/model.bs: cannot be created: ", target.display())), "{error}");
        assert!(!target.exists());
        directory.commit(&attributes(0o750)).unwrap();
        assert_eq!(names(parent.path()), ["model"]);
        assert_eq!(names(&target), ["config.json"]);
        let metadata = std::fs::metadata(&target).unwrap();
        assert_eq!((metadata.mode() & 0o777, metadata.mtime()), (0o750, 1_000_000_007));
    }
}
