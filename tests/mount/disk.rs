//! A disk that fails: a filesystem of a few files, below the one under test, which gives EIO when a test wishes.
//!
//! It is asked through the kernel as any disk is, so that what reaches the mount's process is what a broken disk sends, and
//! needs no device mapper, which not every kernel has.

use std::ffi::OsStr;
use std::fs;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyEntry, ReplyOpen, Request, Session,
};
use tempfile::TempDir;

/// The kernel is to ask each time.
const TTL: Duration = Duration::ZERO;

/// Of which file, and which of its bytes, reads fail.
type Broken = Option<(&'static str, Range<u64>)>;

/// A disk that is mounted until it is dropped.
pub struct Disk {
    broken: Arc<Mutex<Broken>>,
    // Dropped before the directory that it is mounted on.
    _serving: BackgroundSession,
    directory: TempDir,
}

impl Disk {
    /// A disk with a copy of the files of `source` on it.
    pub fn with_files_of(source: &Path) -> Disk {
        let files = fs::read_dir(source).unwrap().map(|entry| {
            let path = entry.unwrap().path();
            (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap())
        });
        let broken = Arc::default();
        let platter = Platter { files: files.collect(), broken: Arc::clone(&broken), made: SystemTime::now() };
        let directory = tempfile::tempdir().unwrap();
        let serving = Session::new(platter, directory.path(), &Config::default()).unwrap().spawn().unwrap();
        Disk { broken, _serving: serving, directory }
    }

    /// Where it is mounted.
    pub fn path(&self) -> &str {
        self.directory.path().to_str().unwrap()
    }

    /// From now on reads of these bytes of `file` fail.
    pub fn breaks(&self, file: &'static str, bytes: Range<u64>) {
        *self.broken.lock().unwrap() = Some((file, bytes));
    }

    /// From now on all can be read again.
    pub fn recovers(&self) {
        *self.broken.lock().unwrap() = None;
    }
}

struct Platter {
    files: Vec<(String, Vec<u8>)>,
    broken: Arc<Mutex<Broken>>,
    made: SystemTime,
}

impl Platter {
    fn attributes(&self, number: INodeNo) -> Option<FileAttr> {
        let file = number.0.checked_sub(2).and_then(|at| self.files.get(at as usize));
        let (kind, size) = match file {
            Some((_, bytes)) => (FileType::RegularFile, bytes.len() as u64),
            None if number == INodeNo::ROOT => (FileType::Directory, 0),
            None => return None,
        };
        Some(FileAttr {
            ino: number,
            size,
            blocks: size.div_ceil(512),
            atime: self.made,
            mtime: self.made,
            ctime: self.made,
            crtime: self.made,
            kind,
            perm: 0o755,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }
}

impl Filesystem for Platter {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.files.iter().position(|(file, _)| OsStr::new(file) == name) {
            Some(at) => reply.entry(&TTL, &self.attributes(INodeNo(at as u64 + 2)).unwrap(), Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(number) {
            Some(attributes) => reply.attr(&TTL, &attributes),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        // Each read is to reach the disk.
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let (name, bytes) = &self.files[number.0 as usize - 2];
        let start = bytes.len().min(offset as usize);
        let end = bytes.len().min(start + size as usize);
        let broken = self.broken.lock().unwrap();
        let fails =
            broken.as_ref().is_some_and(|(file, at)| file == name && at.start < end as u64 && at.end > start as u64);
        if fails { reply.error(Errno::EIO) } else { reply.data(&bytes[start..end]) }
    }

    fn readdir(&self, _: &Request, _: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        for (at, (name, _)) in self.files.iter().enumerate().skip(offset as usize) {
            if reply.add(INodeNo(at as u64 + 2), at as u64 + 1, FileType::RegularFile, name) {
                break;
            }
        }
        reply.ok();
    }
}
