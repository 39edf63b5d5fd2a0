//! The translation to FUSE: the only file that names the library.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{CString, OsStr, OsString};
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bigsmall_codec::{Device, Error, Original, make_room};
use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    InitFlags, KernelConfig, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyStatfs, ReplyXattr, Request, Session, SessionACL,
};

use crate::ahead::Ahead;
use crate::bases::{Bases, Outcome};
use crate::cache::{ChunkCache, Reader, Store};
use crate::containers::{Identity, Opened};
use crate::lock::lock;
use crate::nodes::{Behind, Nodes, ROOT, Version};
use crate::stats::{Counting, STATS_ATTRIBUTE};
use crate::view::{Entry, Kind, Shown, View};
use crate::xattr;

/// How long the kernel may believe names and attributes before it asks again: the time within which changes of the
/// source show.
const TTL: Duration = Duration::from_secs(1);

/// Requests that the kernel may have under way in the background (readahead).
const MAX_BACKGROUND: u16 = 64;

/// Bytes that the kernel may ask for in one request. It reads ahead a megabyte, which are two then: each core decodes one,
/// and who waits for a page in the first does not wait for the second.
const LONGEST_READ: u32 = 512 << 10;

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
    pub(crate) noexec: bool,
    /// Bytes that the kernel may read ahead.
    pub(crate) read_ahead: u32,
    /// What `mount` and `df` show as the source.
    pub(crate) source_name: String,
}

/// Mounts `view` on `mountpoint` and serves it in the background.
pub(crate) fn start(
    view: View,
    cache: Arc<ChunkCache>,
    bases: Bases,
    device: Device,
    mountpoint: &Path,
    settings: Settings,
) -> io::Result<Serving> {
    let nodes = Mutex::new(Nodes::new(view.root().to_owned()));
    let ways = Arc::clone(view.ways());
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::RO,
        MountOption::NoDev,
        MountOption::NoSuid,
        MountOption::DefaultPermissions,
        MountOption::FSName(settings.source_name.clone()),
        MountOption::Subtype("bigsmall".to_owned()),
        MountOption::CUSTOM(format!("max_read={LONGEST_READ}")),
    ];
    if settings.noexec {
        config.mount_options.push(MountOption::NoExec);
    }
    config.acl = if settings.allow_other { SessionACL::All } else { SessionACL::Owner };
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    config.n_threads = Some(cores.clamp(2, MOST_THREADS));
    let ahead = device.decodes_ahead().then(|| Ahead::new(device, Arc::clone(&cache)));
    let filesystem = Mount {
        view,
        cache,
        ahead,
        counting: Counting::new(),
        nodes,
        open_files: Arc::default(),
        bases: Arc::new(bases),
        read_ahead: settings.read_ahead,
        #[cfg(feature = "serve-zeros")]
        serve_zeros: std::env::var_os("BIGSMALL_SERVE_ZEROS").is_some(),
    };
    let session = Session::new(filesystem, mountpoint, &config)?;
    ways.lead_around(mountpoint)?;
    session.spawn()
}

/// What an open file or directory was when it was opened.
enum Handle {
    Virtual {
        opened: Opened,
        path: PathBuf,
    },
    /// A file as it is, and its inode.
    Plain {
        number: u64,
        file: File,
    },
    /// A directory, listed when the kernel first asks.
    Directory {
        number: u64,
        entries: OnceLock<Vec<(u64, FileType, OsString)>>,
    },
}

/// What is open, by the numbers that the kernel was given.
#[derive(Default)]
struct OpenFiles {
    handles: Mutex<HashMap<u64, Arc<Handle>>>,
    last: AtomicU64,
}

impl OpenFiles {
    fn handles(&self) -> MutexGuard<'_, HashMap<u64, Arc<Handle>>> {
        lock(&self.handles)
    }

    fn keep(&self, handle: Handle) -> FileHandle {
        let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        self.handles().insert(number, Arc::new(handle));
        FileHandle(number)
    }
}

struct Mount {
    view: View,
    cache: Arc<ChunkCache>,
    /// Decodes what comes next, if there is a GPU that should.
    ahead: Option<Arc<Ahead>>,
    counting: Counting,
    nodes: Mutex<Nodes>,
    open_files: Arc<OpenFiles>,
    bases: Arc<Bases>,
    read_ahead: u32,
    /// Whether zeros are served instead of what is asked for, to measure what FUSE costs by itself.
    #[cfg(feature = "serve-zeros")]
    serve_zeros: bool,
}

impl Mount {
    fn nodes(&self) -> MutexGuard<'_, Nodes> {
        lock(&self.nodes)
    }

    fn handle(&self, number: FileHandle) -> Result<Arc<Handle>, Errno> {
        self.open_files.handles().get(&number.0).cloned().ok_or(Errno::EBADF)
    }

    /// What stands behind an inode now.
    fn entry(&self, number: u64) -> Result<Entry, Errno> {
        let (dir, name) = {
            let nodes = self.nodes();
            let node = nodes.get(number).ok_or(Errno::ESTALE)?;
            if number == ROOT {
                let path = node.dir.clone();
                drop(nodes);
                self.view.ways().check(&path).map_err(|e| errno(&e))?;
                let metadata = fs::metadata(&path).map_err(|e| errno(&e))?;
                return Ok(Entry { path, metadata, kind: Kind::Directory });
            }
            let parent = nodes.get(node.parent).ok_or(Errno::ESTALE)?;
            (parent.dir.clone(), node.name.clone())
        };
        self.view.look_up(&dir, &name).map_err(|e| errno(&e))
    }

    fn dir(&self, number: u64) -> Result<PathBuf, Errno> {
        Ok(self.nodes().get(number).ok_or(Errno::ESTALE)?.dir.clone())
    }

    fn look_up(&self, parent: u64, name: &OsStr) -> Result<FileAttr, Errno> {
        let dir = self.dir(parent)?;
        let entry = self.view.look_up(&dir, name).map_err(|e| errno(&e))?;
        let number = self.nodes().look_up(parent, name, entry.path.clone(), behind(&entry), version(&entry));
        Ok(attributes(number, &entry.metadata, entry.len()))
    }

    fn attributes(&self, number: u64, handle: Option<FileHandle>) -> Result<FileAttr, Errno> {
        let version = self.nodes().get(number).ok_or(Errno::ESTALE)?.version.clone();
        // What has been replaced may still be open, and then it is what it was.
        if let Some(version) = version {
            return Ok(attributes(number, &version.metadata, version.len));
        }
        if let Some(Handle::Plain { file, .. }) = handle.and_then(|handle| self.handle(handle).ok()).as_deref() {
            let metadata = file.metadata().map_err(|e| errno(&e))?;
            return Ok(attributes(number, &metadata, metadata.len()));
        }
        match self.same_entry(number) {
            Ok(entry) => Ok(attributes(number, &entry.metadata, entry.len())),
            // The kernel hardly ever says which handle it asks for.
            Err(gone) => self.attributes_of_open(number).ok_or(gone),
        }
    }

    /// Those of a plain file that is open, whatever has become of its name.
    fn attributes_of_open(&self, number: u64) -> Option<FileAttr> {
        let handles = self.open_files.handles();
        let metadata = handles.values().find_map(|handle| match &**handle {
            Handle::Plain { number: open, file } if *open == number => file.metadata().ok(),
            _ => None,
        })?;
        Some(attributes(number, &metadata, metadata.len()))
    }

    /// What stands behind an inode now, unless that is something else than when the inode was looked up.
    fn same_entry(&self, number: u64) -> Result<Entry, Errno> {
        let before = self.nodes().get(number).ok_or(Errno::ESTALE)?.behind;
        let entry = self.entry(number)?;
        // The kernel looks the name up again.
        if number == ROOT || behind(&entry) == before { Ok(entry) } else { Err(Errno::ESTALE) }
    }

    fn open(&self, number: u64) -> Result<(Handle, FopenFlags), Errno> {
        let entry = self.same_entry(number)?;
        match entry.kind {
            Kind::Virtual(_) => {
                let opened = self.opened(&entry)?;
                Ok((Handle::Virtual { opened, path: entry.path }, FopenFlags::FOPEN_KEEP_CACHE))
            }
            Kind::Plain => {
                // A pipe is opened by the kernel and never here; if one takes the file's place now, this must not wait.
                let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(&entry.path);
                let file = file.map_err(|e| errno(&e))?;
                let metadata = file.metadata().map_err(|e| errno(&e))?;
                if Behind::plain(&metadata) != Behind::plain(&entry.metadata) {
                    return Err(Errno::ESTALE);
                }
                // Pages of the same version stay; those of another are dropped by the kernel on this open.
                let identity = Identity::of(&metadata);
                let cached = self.nodes().get_mut(number).and_then(|node| node.cached.replace(identity));
                let keep = cached.is_none_or(|cached| cached == identity);
                Ok((
                    Handle::Plain { number, file },
                    if keep { FopenFlags::FOPEN_KEEP_CACHE } else { FopenFlags::empty() },
                ))
            }
            Kind::Directory => Err(Errno::EISDIR),
        }
    }

    /// The container of a virtual file.
    fn opened(&self, entry: &Entry) -> Result<Opened, Errno> {
        let opened = self.view.containers().open(&entry.path, &entry.metadata);
        let opened = opened.map_err(|error| error.io_error().map_or(Errno::EIO, errno))?;
        // It may just have been replaced: the kernel looks the name up again.
        if Identity::of(&opened.metadata) == Identity::of(&entry.metadata) { Ok(opened) } else { Err(Errno::ESTALE) }
    }

    /// Opens a directory. For a second after it was listed, the kernel may use what it knows of it, unless a name has come or gone.
    fn open_dir(&self, number: u64) -> Result<(Handle, FopenFlags), Errno> {
        let dir = self.dir(number)?;
        let metadata = self.view.ways().check(&dir).and_then(|()| fs::metadata(&dir)).map_err(|e| errno(&e))?;
        let identity = Identity::of(&metadata);
        let listed = self.nodes().get(number).and_then(|node| node.listed);
        let is_known = listed.is_some_and(|(known, at)| known == identity && at.elapsed() < TTL);
        let mut flags = FopenFlags::FOPEN_CACHE_DIR;
        let entries = OnceLock::new();
        if is_known {
            flags |= FopenFlags::FOPEN_KEEP_CACHE;
        } else {
            let at = Instant::now();
            let _ = entries.set(self.list(number)?);
            if let Some(node) = self.nodes().get_mut(number) {
                node.listed = Some((identity, at));
            }
        }
        Ok((Handle::Directory { number, entries }, flags))
    }

    fn list(&self, number: u64) -> Result<Vec<(u64, FileType, OsString)>, Errno> {
        let dir = self.dir(number)?;
        let shown = self.view.list(&dir).map_err(|e| errno(&e))?;
        let nodes = self.nodes();
        let parent = nodes.get(number).map_or(ROOT, |node| node.parent);
        let mut entries = vec![
            (number, FileType::Directory, OsString::from(".")),
            (parent, FileType::Directory, OsString::from("..")),
        ];
        entries.extend(shown.into_iter().map(|Shown { name, file_type: kind, behind }| {
            (nodes.number(number, &name, behind), file_type(kind), name)
        }));
        Ok(entries)
    }

    /// Gives `then` the patch at `path` over its base. If that has to be looked for, another thread does both: this one takes requests,
    /// and whoever looks may have to wait for a disk many times.
    fn over_base(&self, patch: Opened, path: PathBuf, then: impl FnOnce(Outcome) + Send + 'static) {
        if let Some(outcome) = self.bases.known(&path, &patch) {
            return then(outcome);
        }
        let bases = Arc::clone(&self.bases);
        let search = move || then(bases.find(&path, &patch));
        // Without a thread the request is answered with an error, since its reply is dropped.
        if let Err(error) = thread::Builder::new().name("base".to_owned()).spawn(search) {
            tracing::error!("cannot start a thread to look for the base of a patch: {error}");
        }
    }

    /// The patch that an inode is, and where it lies, if it is one.
    fn patch(&self, number: u64) -> Option<(Opened, PathBuf)> {
        self.nodes().get(number)?.version.as_ref()?;
        let entry = self.same_entry(number).ok().filter(Entry::is_virtual)?;
        let opened = self.opened(&entry).ok()?;
        opened.original.wants_base()?;
        Some((opened, entry.path))
    }

    fn extended_attribute(&self, number: u64, name: &OsStr) -> Result<Vec<u8>, Errno> {
        // Others are asked for all the time, such as access control lists.
        let Some(name) = xattr::ours(name) else { return Err(Errno::ENODATA) };
        if number == ROOT {
            return if name == STATS_ATTRIBUTE { Ok(self.stats()) } else { Err(Errno::ENODATA) };
        }
        if self.nodes().get(number).is_none_or(|node| node.version.is_none()) {
            return Err(Errno::ENODATA);
        }
        let entry = self.same_entry(number)?;
        xattr::value(name, &entry.path, &self.opened(&entry)?).ok_or(Errno::ENODATA)
    }

    fn attribute_names(&self, number: u64) -> Result<Vec<u8>, Errno> {
        if self.nodes().get(number).is_none_or(|node| node.version.is_none()) {
            return Ok(Vec::new());
        }
        let entry = self.same_entry(number)?;
        Ok(xattr::names(&entry.path, &self.opened(&entry)?))
    }

    fn stats(&self) -> Vec<u8> {
        let is_file = |handle: &&Arc<Handle>| !matches!(***handle, Handle::Directory { .. });
        let open_files = self.open_files.handles().values().filter(is_file).count() as u64;
        let stats = self.counting.stats(&self.cache, self.view.containers(), open_files);
        serde_json::to_vec(&stats).expect("numbers and names only")
    }

    /// Gives `reply` what the file has at `offset`, at most `size` bytes.
    fn read(&self, handle: FileHandle, offset: u64, size: u32, reply: ReplyData) {
        // Made once for each thread: a megabyte that comes from the system each time costs as much as decoding it.
        let mut buffer = REPLY.take();
        let room = if buffer.len() < size as usize { make_room(&mut buffer, size as usize) } else { Ok(()) };
        let outcome = room.map_err(|error| {
            tracing::error!("a read of {size} bytes: {error}");
            Errno::EIO
        });
        let outcome = outcome.and_then(|()| self.fill(handle, offset, &mut buffer[..size as usize]));
        self.counting.read(&outcome);
        match outcome {
            Ok(len) => reply.data(&buffer[..len]),
            Err(errno) => reply.error(errno),
        }
        REPLY.set(buffer);
        self.cache.make_ready();
    }

    /// Fills the beginning of `out` with what the file has at `offset`, and says how much that is.
    fn fill(&self, handle: FileHandle, offset: u64, out: &mut [u8]) -> Result<usize, Errno> {
        match &*self.handle(handle)? {
            Handle::Virtual { opened, path } => {
                let original = &*opened.original;
                let len = original.len().saturating_sub(offset).min(out.len() as u64) as usize;
                #[cfg(feature = "serve-zeros")]
                if self.serve_zeros && offset >= TRUE_START {
                    return Ok(len);
                }
                let out = &mut out[..len];
                let read = if original.keeps_what_it_decodes() {
                    let read = catch_unwind(AssertUnwindSafe(|| original.read_at(offset, out)));
                    read.unwrap_or_else(|_| Err(Error::corrupt("the decoder panicked"))).map_err(Arc::new)
                } else {
                    self.cache.read(Store { file: opened.id, original, reader: Reader::Kernel }, offset, out)
                };
                read.map_err(|error| {
                    tracing::error!("{}: {error}", path.display());
                    Errno::EIO
                })?;
                if let Some(ahead) = &self.ahead {
                    ahead.was_read(opened, offset, len as u64);
                }
                Ok(len)
            }
            Handle::Plain { file, .. } => {
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
            Handle::Directory { .. } => Err(Errno::EISDIR),
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

/// What the number of `entry` is made from.
fn behind(entry: &Entry) -> Behind {
    match entry.kind {
        Kind::Virtual(_) => Behind::Version(Identity::of(&entry.metadata)),
        Kind::Plain => Behind::plain(&entry.metadata),
        Kind::Directory => Behind::Place,
    }
}

/// What the original of a container is now, if `entry` is one.
fn version(entry: &Entry) -> Option<Version> {
    entry.is_virtual().then(|| Version { metadata: entry.metadata.clone(), len: entry.len() })
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
        nlink: metadata.nlink() as u32,
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

    fn destroy(&mut self) {
        if let Some(ahead) = &self.ahead {
            ahead.end();
        }
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

    fn getattr(&self, _: &Request, number: INodeNo, handle: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(number.0, handle) {
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
            Ok((Handle::Virtual { opened, path }, flags)) if opened.original.wants_base().is_some() => {
                let open_files = Arc::clone(&self.open_files);
                self.over_base(opened, path.clone(), move |outcome| match outcome {
                    Ok(opened) => reply.opened(open_files.keep(Handle::Virtual { opened, path }), flags),
                    Err(_) => reply.error(Errno::EIO),
                });
            }
            Ok((handle, flags)) => reply.opened(self.open_files.keep(handle), flags),
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
        self.open_files.handles().remove(&handle.0);
        reply.ok();
    }

    fn opendir(&self, _: &Request, number: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.open_dir(number.0) {
            Ok((handle, flags)) => reply.opened(self.open_files.keep(handle), flags),
            Err(errno) => reply.error(errno),
        }
    }

    fn readdir(&self, _: &Request, _: INodeNo, handle: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let handle = match self.handle(handle) {
            Ok(handle) => handle,
            Err(errno) => return reply.error(errno),
        };
        let Handle::Directory { number, entries } = &*handle else { return reply.error(Errno::ENOTDIR) };
        if entries.get().is_none() {
            match self.list(*number) {
                Ok(listed) => drop(entries.set(listed)),
                Err(errno) => return reply.error(errno),
            }
        }
        let entries = entries.get().map_or(&[][..], Vec::as_slice);
        for (position, (number, kind, name)) in entries.iter().enumerate().skip(offset as usize) {
            if reply.add(INodeNo(*number), position as u64 + 1, *kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(&self, _: &Request, _: INodeNo, handle: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.open_files.handles().remove(&handle.0);
        reply.ok();
    }

    fn getxattr(&self, _: &Request, number: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        if let Some(name) = xattr::of_patch(name)
            && let Some((patch, path)) = self.patch(number.0)
        {
            let bases = Arc::clone(&self.bases);
            return self.over_base(patch, path.clone(), move |outcome| {
                match xattr::patch_value(name, &outcome, || bases.files(&path)) {
                    Some(value) => give_attribute(&value, size, reply),
                    None => reply.error(Errno::ENODATA),
                }
            });
        }
        match self.extended_attribute(number.0, name) {
            Ok(value) => give_attribute(&value, size, reply),
            Err(errno) => reply.error(errno),
        }
    }

    fn listxattr(&self, _: &Request, number: INodeNo, size: u32, reply: ReplyXattr) {
        match (self.attribute_names(number.0), self.patch(number.0)) {
            (Ok(mut names), Some((patch, path))) => self.over_base(patch, path, move |outcome| {
                names.extend(xattr::patch_name(&outcome).bytes().chain([0]));
                give_attribute(&names, size, reply);
            }),
            (Ok(names), None) => give_attribute(&names, size, reply),
            (Err(errno), _) => reply.error(errno),
        }
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let root = self.view.root();
        match self.view.ways().check(root).and_then(|()| statvfs(root)) {
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

/// Gives a value, or its length to whoever asks with an empty buffer.
fn give_attribute(value: &[u8], size: u32, reply: ReplyXattr) {
    match size {
        0 => reply.size(value.len() as u32),
        size if value.len() <= size as usize => reply.data(value),
        _ => reply.error(Errno::ERANGE),
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
