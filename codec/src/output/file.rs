//! A file that appears whole or not at all.

use std::ffi::OsStr;
use std::fs::{File, Permissions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use tempfile::{NamedTempFile, TempPath};

use super::temporary::{
    self, Leftover, RANDOM, TEMPORARY_SUFFIX, lock, parent, remove_leftovers, sync_directory, temporary_prefix,
};
use super::{Attributes, Existing, already_exists, cannot_create, check_replaceable, without_path};
use crate::error::{Error, Result};
use crate::original::PlainFile;

/// Whether an earlier run that was to write `target` has left something that [`NewFile::resume`] goes on with, or has finished the
/// file but not all that it was to do. Files that are being written by others do not count.
pub fn unfinished(target: &Path) -> bool {
    target.file_name().is_some_and(|name| {
        let (directory, prefix) = (parent(target), temporary_prefix(name.as_bytes()));
        !temporary::leftovers(directory, &prefix).is_empty()
            || !temporary::finished_journals(directory, &prefix).is_empty()
    })
}

/// A file that gets its name only when it is complete: see the [module](super).
#[derive(Debug)]
pub struct NewFile {
    temporary: NamedTempFile,
    /// Holds the lock, if `temporary` does not.
    _lock: Option<File>,
    /// What is to be known of an unfinished file to go on with it, if that was [asked for](NewFile::journal).
    journal: Option<NamedTempFile>,
    /// Whether it stays when it is dropped unfinished, from the moment on when it has a journal.
    resumable: bool,
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
    /// [`ErrorKind::AlreadyExists`](crate::ErrorKind::AlreadyExists) when it exists and is not to be replaced, or is no regular file.
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) when it cannot be created. All name the target.
    pub fn create(target: &Path, existing: Existing) -> Result<NewFile> {
        check_replaceable(target, existing)?;
        NewFile::create_as(target, target, existing)
    }

    /// As [`create`](NewFile::create), but goes on with what an earlier run has left, if that kept a journal, and leaves it in
    /// turn when it is dropped after [`journal`](NewFile::journal) was called. What is in the file is not to be trusted.
    ///
    /// # Errors
    /// As [`create`](NewFile::create).
    pub fn resume(target: &Path, existing: Existing) -> Result<NewFile> {
        check_replaceable(target, existing)?;
        NewFile::resume_as(target, target, existing)
    }

    pub(super) fn create_as(place: &Path, target: &Path, existing: Existing) -> Result<NewFile> {
        let prefix = prefix_of(place, target)?;
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
        Ok(NewFile::of(temporary, None, place, target, existing))
    }

    pub(super) fn resume_as(place: &Path, target: &Path, existing: Existing) -> Result<NewFile> {
        let leftovers = temporary::leftovers(parent(place), &prefix_of(place, target)?);
        let (mut kept, useless): (Vec<_>, Vec<_>) = leftovers.into_iter().partition(Leftover::has_journal);
        useless.into_iter().for_each(Leftover::remove);
        let adopted = kept.pop().and_then(|leftover| {
            // It may have the permissions of its source already.
            std::fs::set_permissions(&leftover.path, Permissions::from_mode(0o600)).ok()?;
            let file = File::options().read(true).write(true).open(&leftover.path).ok()?;
            let path = TempPath::try_from_path(leftover.path).ok()?;
            Some(NewFile::of(NamedTempFile::from_parts(file, path), Some(leftover.lock), place, target, existing))
        });
        kept.into_iter().for_each(Leftover::remove);
        let new = adopted.map_or_else(|| NewFile::create_as(place, target, existing), Ok)?;
        Ok(NewFile { resumable: true, ..new })
    }

    fn of(temporary: NamedTempFile, lock: Option<File>, place: &Path, target: &Path, existing: Existing) -> NewFile {
        NewFile {
            temporary,
            _lock: lock,
            journal: None,
            resumable: false,
            place: place.to_owned(),
            target: target.to_owned(),
            existing,
            failed: AtomicBool::new(false),
        }
    }

    /// Opens the journal, which lies beside the file and disappears with its temporary name: that of an earlier run, or a
    /// new one.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io), naming the target.
    pub fn journal(&mut self) -> Result<&File> {
        if self.journal.is_none() {
            let path = temporary::journal_of(self.temporary.path());
            let file = File::options().read(true).write(true).create(true).truncate(false).open(&path);
            let file = file.map_err(|e| self.cannot_write("cannot create a journal", e))?;
            let path = TempPath::try_from_path(path).map_err(|e| self.cannot_write("cannot create a journal", e))?;
            let mut journal = NamedTempFile::from_parts(file, path);
            journal.disable_cleanup(self.resumable);
            self.temporary.disable_cleanup(self.resumable);
            self.journal = Some(journal);
        }
        Ok(self.journal.as_ref().expect("it was just opened").as_file())
    }

    /// What writes to disk what is in the file and its journal so far.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io), naming the target.
    pub(crate) fn syncer(&self) -> Result<Syncer> {
        let files = [Some(self.file()), self.journal.as_ref().map(NamedTempFile::as_file)].into_iter().flatten();
        let files = files.map(File::try_clone).collect::<io::Result<_>>();
        let files = files.map_err(|e| self.cannot_write("cannot write to disk", e))?;
        Ok(Syncer { files, place: self.place.clone(), target: self.target.clone() })
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
    /// [`ErrorKind::Io`](crate::ErrorKind::Io), naming the target.
    pub fn contents(&self) -> Result<PlainFile> {
        let file = self.file().try_clone().map_err(|e| self.cannot_write("cannot be read again", e))?;
        PlainFile::from_file(file, &self.target)
    }

    /// Takes room for `len` bytes, so that a full disk is noticed before the work and not after it. Where the file
    /// system cannot, nothing happens.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) when there is not so much room, naming the target.
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
    /// [`ErrorKind::Io`](crate::ErrorKind::Io), naming the target.
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
    /// [`ErrorKind::AlreadyExists`](crate::ErrorKind::AlreadyExists) when the target has come into being since,
    /// [`ErrorKind::Io`](crate::ErrorKind::Io); both name the target, and the temporary file is gone.
    pub fn commit(self, attributes: &Attributes) -> Result<()> {
        self.commit_keeping_journal(attributes).map(drop)
    }

    /// As [`commit`](NewFile::commit), but the journal stays until it is dropped.
    ///
    /// # Errors
    /// As [`commit`](NewFile::commit).
    pub fn commit_keeping_journal(self, attributes: &Attributes) -> Result<Option<KeptJournal>> {
        attributes.apply(self.file()).map_err(|e| self.cannot_write("cannot set the permissions and the time", e))?;
        self.file().sync_all().map_err(|e| self.cannot_write("cannot write to disk", e))?;
        let NewFile { temporary, place, target, existing, journal, .. } = self;
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
            Ok(_) => {
                let journal = journal.map(|mut journal| {
                    journal.disable_cleanup(false);
                    KeptJournal(journal.into_temp_path())
                });
                sync_directory(parent(&place)).map(|()| journal)
            }
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

impl Seek for NewFile {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.temporary.as_file_mut().seek(position)
    }
}

/// Writes to disk what is in an unfinished file and its journal.
pub(crate) struct Syncer {
    files: Vec<File>,
    place: PathBuf,
    target: PathBuf,
}

impl Syncer {
    /// Does so, and returns when it is there.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io), naming the target.
    pub(crate) fn sync(&self) -> Result<()> {
        let synced = self.files.iter().try_for_each(File::sync_data);
        synced.map_err(|e| Error::io("cannot write to disk", e).in_file(&self.target))?;
        sync_directory(parent(&self.place))
    }
}

/// The journal of a file that is finished, to tell the next run so if this one does not come to its end. Removed when it is
/// dropped.
#[derive(Debug)]
pub struct KeptJournal(TempPath);

impl KeptJournal {
    /// That of the file at `target`, if an earlier run has finished that but not all that it was to do.
    pub fn find(target: &Path) -> Option<KeptJournal> {
        TempPath::try_from_path(KeptJournal::path_for(target)?).ok().map(KeptJournal)
    }

    /// Whether it can be [found](KeptJournal::find).
    pub fn exists(target: &Path) -> bool {
        KeptJournal::path_for(target).is_some()
    }

    fn path_for(target: &Path) -> Option<PathBuf> {
        let prefix = temporary_prefix(target.file_name()?.as_bytes());
        temporary::finished_journals(parent(target), &prefix).pop()
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Leaves it for the next run.
    pub fn keep(mut self) {
        self.0.disable_cleanup(true);
    }
}

/// What the names of the temporary files of `target` begin with, which is made at `place`.
fn prefix_of(place: &Path, target: &Path) -> Result<std::ffi::OsString> {
    let name = place.file_name().map(OsStr::as_bytes);
    name.map(temporary_prefix).ok_or_else(|| Error::invalid("not the name of a file").in_file(target))
}
