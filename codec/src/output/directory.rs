//! A directory that appears whole or not at all.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use tempfile::TempDir;

use super::temporary::{
    Leftover, RANDOM, TEMPORARY_SUFFIX, leftovers, lock, parent, remove_leftovers, sync_directory, temporary_prefix,
};
use super::{Attributes, Existing, NewFile, already_exists, cannot_create, without_path};
use crate::error::{Error, Result};

/// A directory that gets its name only when everything in it is complete: see the [module](super).
#[derive(Debug)]
pub struct NewDirectory {
    temporary: TempDir,
    /// Holds the lock.
    _lock: File,
    target: PathBuf,
    /// Whether it stays when it is dropped unfinished, and files in it are gone on with.
    resumable: bool,
}

impl NewDirectory {
    /// Begins the directory that will be `target`, in a directory that exists.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`](crate::ErrorKind::AlreadyExists) when it exists, [`ErrorKind::Io`](crate::ErrorKind::Io) when it cannot be created. Both name the target.
    pub fn create(target: &Path) -> Result<NewDirectory> {
        if std::fs::symlink_metadata(target).is_ok() {
            return Err(already_exists(target));
        }
        let prefix = prefix_of(target)?;
        remove_leftovers(parent(target), &prefix);
        NewDirectory::create_with(target, &prefix)
    }

    /// As [`create`](NewDirectory::create), but goes on with what an earlier run has left, and leaves it in turn when it is
    /// dropped unfinished.
    ///
    /// # Errors
    /// As [`create`](NewDirectory::create).
    pub fn resume(target: &Path) -> Result<NewDirectory> {
        if std::fs::symlink_metadata(target).is_ok() {
            return Err(already_exists(target));
        }
        let prefix = prefix_of(target)?;
        let left = leftovers(parent(target), &prefix);
        let (mut kept, useless): (Vec<_>, Vec<_>) = left.into_iter().partition(|leftover| leftover.is_directory);
        useless.into_iter().for_each(Leftover::remove);
        let mut new = NewDirectory::create_with(target, &prefix)?;
        if let Some(left) = kept.pop() {
            // It takes the place of the new one, which is empty.
            std::fs::set_permissions(&left.path, Permissions::from_mode(0o700))
                .and_then(|()| std::fs::rename(&left.path, new.path()))
                .map_err(|e| cannot_create(target, e))?;
            new._lock = left.lock;
        }
        kept.into_iter().for_each(Leftover::remove);
        new.temporary.disable_cleanup(true);
        Ok(NewDirectory { resumable: true, ..new })
    }

    fn create_with(target: &Path, prefix: &OsStr) -> Result<NewDirectory> {
        loop {
            let temporary = tempfile::Builder::new()
                .prefix(prefix)
                .rand_bytes(RANDOM)
                .suffix(TEMPORARY_SUFFIX)
                .permissions(Permissions::from_mode(0o700))
                .tempdir_in(parent(target))
                .map_err(|e| cannot_create(target, without_path(e)))?;
            match File::open(temporary.path()) {
                Ok(directory) if lock(&directory) => {
                    let target = target.to_owned();
                    return Ok(NewDirectory { temporary, _lock: directory, target, resumable: false });
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
        let (place, target) = (self.path().join(name), self.target.join(name));
        match self.resumable {
            true => NewFile::resume_as(&place, &target, Existing::Refuse),
            false => NewFile::create_as(&place, &target, Existing::Refuse),
        }
    }

    /// Gives the directory its attributes and its name.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`](crate::ErrorKind::AlreadyExists) when the target has come into being since, [`ErrorKind::Io`](crate::ErrorKind::Io); both name the target,
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

/// What the names of the temporary directories of `target` begin with.
fn prefix_of(target: &Path) -> Result<OsString> {
    let name = target.file_name().map(OsStr::as_bytes);
    name.map(temporary_prefix).ok_or_else(|| Error::invalid("not the name of a directory").in_file(target))
}
