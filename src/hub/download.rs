//! One file from the Hub: it goes on where it was cut, and is what the Hub lists or nothing.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use bigsmall_codec::Progress;
use bigsmall_codec::output::{Existing, sync_name};
use rustix::fs::{CWD, FallocateFlags, RenameFlags, fallocate, renameat_with};
use rustix::io::Errno;
use ureq::Body;
use ureq::http::header::{CONTENT_LENGTH, CONTENT_RANGE, ETAG, RANGE};
use ureq::http::{Response, StatusCode};

use super::api::{self, Revision};
use super::client::{Call, Failed, LINKED_ETAG, Patience};
use super::digest::{ContentId, Hasher};
use super::workers::Watch;
use super::{Error, ErrorKind, Hub, Result};

/// Bytes that are received at a time.
const STEP: usize = 256 << 10;

/// What the name of a file that is still coming ends with. Tools of the Hub leave files of this kind in its cache as well.
pub const PARTIAL_SUFFIX: &str = ".bigsmall.incomplete";

/// Digits of the id in the name of a file that is still coming, so that another version does not go on with it.
const PARTIAL_ID: usize = 16;

/// A file that is coming, under a name of its own that it keeps from one run to the next. One process at a time has it.
#[derive(Debug)]
pub struct Partial {
    file: File,
    path: PathBuf,
}

impl Partial {
    /// The file that will be `target` and is to have the contents `id`; waits while another process has it.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn beside(target: &Path, id: &ContentId, watch: &Watch<'_>) -> Result<Partial> {
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let id = &id.to_string()[..PARTIAL_ID];
        // Names that are as long as can be leave no room for more.
        let start: String = name.chars().take(40).collect();
        let path = target.with_file_name(format!(".{start}.{id}{PARTIAL_SUFFIX}"));
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            fs::create_dir_all(parent).map_err(|e| Error::file(parent, "cannot be created", &e))?;
        }
        let cannot = |e: io::Error| Error::file(&path, "cannot be written", &e);
        loop {
            let file =
                OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(cannot)?;
            while let Err(error) = file.try_lock() {
                match error {
                    TryLockError::WouldBlock => thread::sleep(Duration::from_millis(50)),
                    TryLockError::Error(e) => return Err(cannot(e)),
                }
                watch.check()?;
            }
            // Whoever had it may have given it its name, or taken it away.
            let same = |there: fs::Metadata, ours: fs::Metadata| (there.dev(), there.ino()) == (ours.dev(), ours.ino());
            if fs::symlink_metadata(&path).is_ok_and(|there| file.metadata().is_ok_and(|ours| same(there, ours))) {
                return Ok(Partial { file, path });
            }
        }
    }

    /// The file as it is now.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The open file.
    pub fn file(&self) -> &File {
        &self.file
    }

    fn len(&self) -> Result<u64> {
        let metadata = self.file.metadata().map_err(|e| Error::file(&self.path, "cannot be read", &e))?;
        Ok(metadata.len())
    }

    fn empty(&self) -> Result<()> {
        self.file.set_len(0).map_err(|e| Error::file(&self.path, "cannot be emptied", &e))
    }

    /// Gives it its name.
    ///
    /// # Errors
    /// When there is something of that name that is not to be replaced, or it cannot be done.
    pub fn keep(self, target: &Path, existing: Existing) -> Result<()> {
        let flags = match existing {
            Existing::Refuse => RenameFlags::NOREPLACE,
            Existing::Replace => RenameFlags::empty(),
        };
        let renamed = match renameat_with(CWD, &self.path, CWD, target, flags) {
            // The file system has no such rename; that nothing is there was seen before.
            Err(Errno::INVAL | Errno::NOSYS) => fs::rename(&self.path, target),
            other => other.map_err(io::Error::from),
        };
        renamed.map_err(|e| Error::file(target, "cannot be created", &e))?;
        Ok(sync_name(target)?)
    }

    /// Takes it away.
    ///
    /// # Errors
    /// When that is not possible.
    pub fn remove(self) -> Result<()> {
        fs::remove_file(&self.path).map_err(|e| Error::file(&self.path, "cannot be removed", &e))
    }
}

/// Fills `partial` with the contents of a file, or with those that it lacks, and puts it on disk.
///
/// # Errors
/// When the contents are not those that the Hub lists, and nothing is kept of them; when it cannot be reached or the disk is
/// full, and what has arrived is kept.
pub fn fetch(hub: &Hub, revision: &Revision, file: &api::File, partial: &Partial, watch: &Watch<'_>) -> Result<()> {
    let resumed = partial.len()? > 0;
    let mut came = receive(hub, revision, file, partial, watch)?;
    if came != file.id && resumed {
        // What was there may have been the fault.
        partial.empty()?;
        came = receive(hub, revision, file, partial, watch)?;
    }
    if came != file.id {
        // Another process that waits for it finds that it is gone.
        let _ = fs::remove_file(&partial.path);
        return Err(corrupt(
            revision,
            file,
            &format!("what came has the hash {came}, and the Hub lists {}; nothing was kept, try again", file.id),
        ));
    }
    partial.file.sync_all().map_err(|e| Error::file(&partial.path, "cannot be written to disk", &e))
}

/// What came so far.
struct Arrived {
    len: u64,
    hasher: Hasher,
}

/// Receives what `partial` lacks and gives the id of all of it.
fn receive(
    hub: &Hub,
    revision: &Revision,
    file: &api::File,
    partial: &Partial,
    watch: &Watch<'_>,
) -> Result<ContentId> {
    if partial.len()? > file.size {
        partial.empty()?;
    }
    let mut arrived = Arrived { len: partial.len()?, hasher: Hasher::like(&file.id, file.size) };
    let mut there = &partial.file;
    io::Seek::rewind(&mut there).map_err(|e| Error::file(&partial.path, "cannot be read", &e))?;
    let hashed = arrived.hasher.read(&mut there, |len| {
        watch.advance(len);
        watch.check().map_err(|_| io::ErrorKind::Other.into())
    });
    watch.check()?;
    hashed.map_err(|e| Error::file(&partial.path, "cannot be read", &e))?;
    reserve(partial, arrived.len, file.size)?;
    let subject = format!("{}, {}", revision.repo, file.path);
    let mut patience = Patience::default();
    while arrived.len < file.size {
        let before = arrived.len;
        match receive_part(hub, revision, file, partial, &subject, &mut arrived, watch) {
            Ok(()) => {}
            Err(Failed::Final(error)) => return Err(error),
            Err(Failed::Passing(error, pause)) => {
                if arrived.len > before {
                    patience.restore();
                }
                patience.wait(error, pause)?;
            }
        }
    }
    Ok(arrived.hasher.finish())
}

/// Takes the room for what is to come, so that a full disk is noticed at once.
fn reserve(partial: &Partial, from: u64, to: u64) -> Result<()> {
    if from == to {
        return Ok(());
    }
    match fallocate(&partial.file, FallocateFlags::KEEP_SIZE, from, to - from) {
        Err(errno @ (Errno::NOSPC | Errno::DQUOT | Errno::FBIG)) => {
            Err(Error::file(&partial.path, &format!("cannot take {} bytes", to - from), &errno.into()))
        }
        // Where the file system cannot, it shows when it is full.
        _ => Ok(()),
    }
}

/// Receives as much as one connection gives.
fn receive_part(
    hub: &Hub,
    revision: &Revision,
    file: &api::File,
    partial: &Partial,
    subject: &str,
    arrived: &mut Arrived,
    watch: &Watch<'_>,
) -> std::result::Result<(), Failed> {
    let mut call = Call { is_file: true, ..Call::get(hub.file_url(revision, &file.path), subject) };
    if arrived.len > 0 {
        call.headers.push((RANGE.as_str(), format!("bytes={}-", arrived.len)));
    }
    let response = hub.attempt(&call)?;
    check_version(&response, revision, file)?;
    if response.status() == StatusCode::PARTIAL_CONTENT {
        check_range(&response, arrived.len, revision, file)?;
    } else {
        // All of it comes, asked for or not.
        if arrived.len > 0 {
            partial.empty().map_err(Failed::Final)?;
            *arrived = Arrived { len: 0, hasher: Hasher::like(&file.id, file.size) };
        }
        let announced = header(&response, CONTENT_LENGTH.as_str()).and_then(|len| len.parse().ok());
        if let Some(announced) = announced.filter(|&len: &u64| len != file.size) {
            let what = format!("{announced} bytes are announced, and the Hub lists {}; try again", file.size);
            return Err(Failed::Final(corrupt(revision, file, &what)));
        }
    }
    let mut body = response.into_body().into_reader();
    let mut buffer = vec![0; STEP];
    while arrived.len < file.size {
        watch.check().map_err(Failed::Final)?;
        let cut = |why: &str| {
            let message =
                format!("{subject}: the connection was cut after {} of {} bytes{why}", arrived.len, file.size);
            Failed::Passing(Error::new(ErrorKind::Unreachable, message), None)
        };
        let wanted = buffer.len().min((file.size - arrived.len) as usize);
        let len = match body.read(&mut buffer[..wanted]) {
            Ok(0) => return Err(cut("")),
            Ok(len) => len,
            Err(e) => return Err(cut(&format!(": {e}"))),
        };
        partial
            .file
            .write_all_at(&buffer[..len], arrived.len)
            .map_err(|e| Failed::Final(Error::file(&partial.path, "cannot be written", &e)))?;
        arrived.hasher.update(&buffer[..len]);
        arrived.len += len as u64;
        watch.advance(len as u64);
    }
    Ok(())
}

/// Fails when the server says that the file is another one than was listed.
fn check_version(response: &Response<Body>, revision: &Revision, file: &api::File) -> std::result::Result<(), Failed> {
    // Behind a redirect, an ETag is that of a server which knows nothing of repos.
    let etag = header(response, LINKED_ETAG).or_else(|| header(response, ETAG.as_str()));
    let id = etag.and_then(|etag| ContentId::parse(etag.trim_start_matches("W/").trim_matches('"')));
    match (id, file.id) {
        (Some(ContentId::Sha256(came)), ContentId::Sha256(listed)) if came == listed => Ok(()),
        (Some(ContentId::GitBlob(came)), ContentId::GitBlob(listed)) if came == listed => Ok(()),
        // The ETag of an unknown kind says nothing; the hash of what comes will.
        (None | Some(ContentId::GitBlob(_)), ContentId::Sha256(_)) | (None | Some(ContentId::Sha256(_)), _) => Ok(()),
        _ => Err(Failed::Final(corrupt(
            revision,
            file,
            "it was changed between the listing and the download; run the same command again",
        ))),
    }
}

/// Fails unless the range that comes begins where it was asked to, in a file of the right size.
fn check_range(
    response: &Response<Body>,
    start: u64,
    revision: &Revision,
    file: &api::File,
) -> std::result::Result<(), Failed> {
    let range = header(response, CONTENT_RANGE.as_str()).unwrap_or("");
    let fits = || {
        let (first, rest) = range.strip_prefix("bytes ")?.split_once('-')?;
        let total = rest.split_once('/')?.1;
        Some(first.parse() == Ok(start) && (total == "*" || total.parse() == Ok(file.size)))
    };
    match fits() {
        Some(true) => Ok(()),
        _ => {
            let what = format!("bytes from {start} of {} were asked for, and {range:?} comes; try again", file.size);
            Err(Failed::Final(corrupt(revision, file, &what)))
        }
    }
}

fn header<'a>(response: &'a Response<Body>, name: &str) -> Option<&'a str> {
    response.headers().get(name)?.to_str().ok()
}

fn corrupt(revision: &Revision, file: &api::File, what: &str) -> Error {
    Error::new(ErrorKind::Corrupt, format!("{}, {}: {what}", revision.repo, file.path))
}
