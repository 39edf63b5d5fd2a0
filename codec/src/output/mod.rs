//! New files and directories that appear whole or not at all.
//!
//! Everything is written under a temporary name beside the target and renamed to it when it is complete and on disk.
//! Whatever is dropped before that is removed. A process that is killed on the spot leaves at most a file whose name
//! ends in [`TEMPORARY_SUFFIX`], and its journal, if it keeps one; the next one that makes the same target removes them, or
//! goes on with them. A lock (`flock`) on each temporary file tells those that are being written from those that nobody writes
//! any more.

mod directory;
mod file;
mod temporary;

use std::fs::{File, FileTimes, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::SystemTime;

pub use directory::NewDirectory;
pub(crate) use file::Syncer;
pub use file::{KeptJournal, NewFile, unfinished};
pub use temporary::{TEMPORARY_SUFFIX, sync_name};

use crate::error::{Error, ErrorKind, Result};

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

#[cfg(test)]
mod tests {
    use super::temporary::LONGEST_NAME;
    use super::*;
    use std::ffi::OsString;
    use std::io::Write;
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
