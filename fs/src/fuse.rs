//! The translation to FUSE: the only file that names the library.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{CString, OsStr, OsString};
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bigsmall_codec::Original;
use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    InitFlags, KernelConfig, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyStatfs, Request, Session, SessionACL,
};

use crate::cache::ChunkCache;
use crate::containers::{Identity, Opened};
use crate::nodes::{Nodes, ROOT, Version};
use crate::view::{Entry, Kind, Shown, View};

/// How long the kernel may believe names and attributes before it asks again: the time within which changes of the
/// source show.
const TTL: Duration = Duration::from_secs(1);

/// Requests that the kernel may have under way in the background (readahead).
const MAX_BACKGROUND: u16 = 64;

/// The most threads that take requests: more bring nothing once each core has one.
const MOST_THREADS: usize = 4;

/// Where zeros begin to be served: loaders have to find a header first.
#[cfg(feature = "serve-zeros")]
const TRUE_START: u64 = 1 << 20;

/// The threads that serve a mount. Dropping it unmounts; `join` waits until somebody does.
pub(crate) type Serving = BackgroundSession;

/// What to mount, and how.
pub(crate) struct Settings {
    pub(crate) allow_other: bool,
    /// Bytes that the kernel may read ahead.
    pub(crate) read_ahead: u32,
    /// What `mount` and `df` show as the source.
    pub(crate) source_name: String,
}

/// Mounts `view` on `mountpoint` and serves it in the background.
pub(crate) fn start(view: View, cache: ChunkCache, mountpoint: &Path, settings: Settings) -> io::Result<Serving> {
    let nodes = Mutex::new(Nodes::new(view.root().to_owned()));
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::RO,
        MountOption::NoDev,
        MountOption::NoSuid,
        MountOption::DefaultPermissions,
        MountOption::FSName(settings.source_name.clone()),
        MountOption::Subtype("bigsmall".to_owned()),
    ];
    config.acl = if settings.allow_other { SessionACL::All } else { SessionACL::Owner };
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    config.n_threads = Some(cores.clamp(2, MOST_THREADS));
    let filesystem = Mount {
        view,
        cache,
        nodes,
        handles: Mutex::new(HashMap::new()),
        next_handle: AtomicU64::new(1),
        read_ahead: settings.read_ahead,
        #[cfg(feature = "serve-zeros")]
        serve_zeros: std::env::var_os("BIGSMALL_SERVE_ZEROS").is_some(),
    };
    Session::new(filesystem, mountpoint, &config)?.spawn()
}

/// What an open file or directory was when it was opened.
enum Handle {
    Virtual { opened: Opened, path: std::path::PathBuf },
    Plain(File),
    Directory(Vec<(u64, FileType, OsString)>),
}

struct Mount {
    view: View,
    cache: ChunkCache,
    nodes: Mutex<Nodes>,
    handles: Mutex<HashMap<u64, Arc<Handle>>>,
    next_handle: AtomicU64,
    read_ahead: u32,
    /// Whether zeros are served instead of what is asked for, to measure what FUSE costs by itself.
    #[cfg(feature = "serve-zeros")]
    serve_zeros: bool,
}

impl Mount {
    fn nodes(&self) -> MutexGuard<'_, Nodes> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handles(&self) -> MutexGuard<'_, HashMap<u64, Arc<Handle>>> {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, handle: Handle) -> FileHandle {
        let number = self.next_handle.fetch_add(1, Ordering::Relaxed);
        self.handles().insert(number, Arc::new(handle));
        FileHandle(number)
    }

    fn handle(&self, number: FileHandle) -> Result<Arc<Handle>, Errno> {
        self.handles().get(&number.0).cloned().ok_or(Errno::EBADF)
    }

    /// What stands behind an inode now.
    fn entry(&self, number: u64) -> Result<Entry, Errno> {
        let (dir, name) = {
            let nodes = self.nodes();
            let node = nodes.get(number).ok_or(Errno::ESTALE)?;
            if number == ROOT {
                let path = node.dir.clone();
                drop(nodes);
                let metadata = fs::metadata(&path).map_err(|e| errno(&e))?;
                return Ok(Entry { path, metadata, kind: Kind::Directory });
            }
            let parent = nodes.get(node.parent).ok_or(Errno::ESTALE)?;
            (parent.dir.clone(), node.name.clone())
        };
        self.view.look_up(&dir, &name).map_err(|e| errno(&e))
    }

    fn dir(&self, number: u64) -> Result<std::path::PathBuf, Errno> {
        Ok(self.nodes().get(number).ok_or(Errno::ESTALE)?.dir.clone())
    }

    fn look_up(&self, parent: u64, name: &OsStr) -> Result<FileAttr, Errno> {
        let dir = self.dir(parent)?;
        let entry = self.view.look_up(&dir, name).map_err(|e| errno(&e))?;
        let number = self.nodes().look_up(parent, name, entry.path.clone(), version(&entry));
        Ok(attributes(number, &entry.metadata, entry.len()))
    }

    /// What a virtual file was when it was looked up, if it is one.
    fn version(&self, number: u64) -> Result<Option<Version>, Errno> {
        Ok(self.nodes().get(number).ok_or(Errno::ESTALE)?.version.clone())
    }

    fn attributes(&self, number: u64) -> Result<FileAttr, Errno> {
        match self.version(number)? {
            // What has been replaced may still be open, and then it is what it was.
            Some(version) => Ok(attributes(number, &version.metadata, version.len)),
            None => self.entry(number).map(|entry| attributes(number, &entry.metadata, entry.len())),
        }
    }

    fn open(&self, number: u64) -> Result<(Handle, FopenFlags), Errno> {
        let version = self.version(number)?.map(|version| version.identity);
        let entry = self.entry(number)?;
        let identity = Identity::of(&entry.metadata);
        match entry.kind {
            Kind::Virtual(opened) if version == Some(identity) => {
                Ok((Handle::Virtual { opened, path: entry.path }, FopenFlags::FOPEN_KEEP_CACHE))
            }
            Kind::Plain if version.is_none() => {
                let file = File::open(&entry.path).map_err(|e| errno(&e))?;
                // Pages of the same version stay; those of another are dropped by the kernel on this open.
                let cached = self.nodes().get_mut(number).and_then(|node| node.cached.replace(identity));
                let keep = cached.is_none_or(|cached| cached == identity);
                Ok((Handle::Plain(file), if keep { FopenFlags::FOPEN_KEEP_CACHE } else { FopenFlags::empty() }))
            }
            Kind::Directory => Err(Errno::EISDIR),
            // The name stands for something else by now: the kernel looks it up again.
            _ => Err(Errno::ESTALE),
        }
    }

    fn list(&self, number: u64) -> Result<Handle, Errno> {
        let dir = self.dir(number)?;
        let shown = self.view.list(&dir).map_err(|e| errno(&e))?;
        let nodes = self.nodes();
        let parent = nodes.get(number).map_or(ROOT, |node| node.parent);
        let mut entries = vec![
            (number, FileType::Directory, OsString::from(".")),
            (parent, FileType::Directory, OsString::from("..")),
        ];
        entries.extend(shown.into_iter().map(|Shown { name, file_type: kind, version }| {
            (nodes.number(number, &name, version), file_type(kind), name)
        }));
        Ok(Handle::Directory(entries))
    }

    /// Gives `reply` what the file has at `offset`, at most `size` bytes.
    fn read(&self, handle: FileHandle, offset: u64, size: u32, reply: ReplyData) {
        // Made once for each thread: a megabyte that comes from the system each time costs as much as decoding it.
        let mut buffer = REPLY.take();
        if buffer.len() < size as usize {
            buffer.resize(size as usize, 0);
        }
        match self.fill(handle, offset, &mut buffer[..size as usize]) {
            Ok(len) => reply.data(&buffer[..len]),
            Err(errno) => reply.error(errno),
        }
        REPLY.set(buffer);
    }

    /// Fills the beginning of `out` with what the file has at `offset`, and says how much that is.
    fn fill(&self, handle: FileHandle, offset: u64, out: &mut [u8]) -> Result<usize, Errno> {
        match &*self.handle(handle)? {
            Handle::Virtual { opened, path } => {
                let original = &*opened.container;
                let len = original.len().saturating_sub(offset).min(out.len() as u64) as usize;
                #[cfg(feature = "serve-zeros")]
                if self.serve_zeros && offset >= TRUE_START {
                    return Ok(len);
                }
                self.cache.read(opened.id, original, offset, &mut out[..len]).map_err(|error| {
                    log::error!("{}: {error}", path.display());
                    Errno::EIO
                })?;
                Ok(len)
            }
            Handle::Plain(file) => {
                let mut len = 0;
                while len < out.len() {
                    match file.read_at(&mut out[len..], offset + len as u64) {
                        Ok(0) => break,
                        Ok(read) => len += read,
                        Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                        Err(e) => return Err(errno(&e)),
                    }
                }
                Ok(len)
            }
            Handle::Directory(_) => Err(Errno::EISDIR),
        }
    }
}

thread_local! {
    /// What this thread replies to reads with.
    static REPLY: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The error number for an error of the source.
fn errno(error: &io::Error) -> Errno {
    match error.kind() {
        io::ErrorKind::NotFound => Errno::ENOENT,
        _ => error.raw_os_error().map_or(Errno::EIO, Errno::from_i32),
    }
}

fn file_type(kind: fs::FileType) -> FileType {
    if kind.is_dir() {
        FileType::Directory
    } else if kind.is_symlink() {
        FileType::Symlink
    } else if kind.is_fifo() {
        FileType::NamedPipe
    } else if kind.is_socket() {
        FileType::Socket
    } else if kind.is_block_device() {
        FileType::BlockDevice
    } else if kind.is_char_device() {
        FileType::CharDevice
    } else {
        FileType::RegularFile
    }
}

/// The version of the container that `entry` shows the original of.
fn version(entry: &Entry) -> Option<Version> {
    let identity = Identity::of(&entry.metadata);
    matches!(entry.kind, Kind::Virtual(_)).then(|| Version {
        identity,
        metadata: entry.metadata.clone(),
        len: entry.len(),
    })
}

/// What the mount says of a file that shows `len` bytes and lies in the source with this metadata.
fn attributes(number: u64, metadata: &Metadata, len: u64) -> FileAttr {
    let time = |seconds: i64, nanoseconds: i64| -> SystemTime {
        let nanoseconds = Duration::from_nanos(nanoseconds as u64);
        match u64::try_from(seconds) {
            Ok(seconds) => UNIX_EPOCH + Duration::from_secs(seconds) + nanoseconds,
            Err(_) => UNIX_EPOCH - Duration::from_secs(seconds.unsigned_abs()) + nanoseconds,
        }
    };
    let is_link = metadata.file_type().is_symlink();
    FileAttr {
        ino: INodeNo(number),
        size: len,
        // What is stored, so that `du` shows what is saved.
        blocks: metadata.blocks(),
        atime: time(metadata.atime(), metadata.atime_nsec()),
        mtime: time(metadata.mtime(), metadata.mtime_nsec()),
        ctime: time(metadata.ctime(), metadata.ctime_nsec()),
        crtime: UNIX_EPOCH,
        kind: file_type(metadata.file_type()),
        // Nothing here can be written. The permissions of a link mean nothing and are always these.
        perm: if is_link { 0o777 } else { (metadata.mode() & 0o7555) as u16 },
        nlink: if metadata.is_dir() { metadata.nlink() as u32 } else { 1 },
        uid: metadata.uid(),
        gid: metadata.gid(),
        rdev: metadata.rdev() as u32,
        blksize: 4096,
        flags: 0,
    }
}

impl Filesystem for Mount {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // The kernel says what it takes where it does not take what is asked for.
        if let Err(most) = config.set_max_readahead(self.read_ahead) {
            let _ = config.set_max_readahead(most);
        }
        let _ = config.set_max_background(MAX_BACKGROUND);
        for capability in
            [InitFlags::FUSE_PARALLEL_DIROPS, InitFlags::FUSE_AUTO_INVAL_DATA, InitFlags::FUSE_CACHE_SYMLINKS]
        {
            let _ = config.add_capabilities(capability);
        }
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.look_up(parent.0, name) {
            Ok(attributes) => reply.entry(&TTL, &attributes, Generation(0)),
            Err(errno) => reply.error(errno),
        }
    }

    fn forget(&self, _: &Request, number: INodeNo, lookups: u64) {
        self.nodes().forget(number.0, lookups);
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(number.0) {
            Ok(attributes) => reply.attr(&TTL, &attributes),
            Err(errno) => reply.error(errno),
        }
    }

    fn readlink(&self, _: &Request, number: INodeNo, reply: ReplyData) {
        match self.entry(number.0).and_then(|entry| fs::read_link(&entry.path).map_err(|e| errno(&e))) {
            Ok(target) => reply.data(target.as_os_str().as_bytes()),
            Err(errno) => reply.error(errno),
        }
    }

    fn open(&self, _: &Request, number: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.open(number.0) {
            Ok((handle, flags)) => reply.opened(self.keep(handle), flags),
            Err(errno) => reply.error(errno),
        }
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.read(handle, offset, size, reply);
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.handles().remove(&handle.0);
        reply.ok();
    }

    fn opendir(&self, _: &Request, number: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.list(number.0) {
            Ok(handle) => reply.opened(self.keep(handle), FopenFlags::empty()),
            Err(errno) => reply.error(errno),
        }
    }

    fn readdir(&self, _: &Request, _: INodeNo, handle: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let handle = match self.handle(handle) {
            Ok(handle) => handle,
            Err(errno) => return reply.error(errno),
        };
        let Handle::Directory(entries) = &*handle else { return reply.error(Errno::ENOTDIR) };
        for (position, (number, kind, name)) in entries.iter().enumerate().skip(offset as usize) {
            if reply.add(INodeNo(*number), position as u64 + 1, *kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(&self, _: &Request, _: INodeNo, handle: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.handles().remove(&handle.0);
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        match statvfs(self.view.root()) {
            Ok(s) => reply.statfs(
                s.f_blocks,
                s.f_bfree,
                s.f_bavail,
                s.f_files,
                s.f_ffree,
                s.f_bsize as u32,
                s.f_namemax as u32,
                s.f_frsize as u32,
            ),
            Err(e) => reply.error(errno(&e)),
        }
    }
}

/// The statistics of the file system that `path` lies in.
fn statvfs(path: &Path) -> io::Result<libc::statvfs> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut statistics = std::mem::MaybeUninit::uninit();
    // SAFETY: `path` ends in NUL and `statistics` has room for one `statvfs`; both outlive the call.
    if unsafe { libc::statvfs(path.as_ptr(), statistics.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `statvfs` returned 0 and has then filled it in.
    Ok(unsafe { statistics.assume_init() })
}
