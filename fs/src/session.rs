//! Mounting, unmounting, and the life of the process that serves a mount.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bigsmall_codec::upstream::TensorCache;
use bigsmall_codec::{Device, Stored};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::bases::{Bases, Place};
use crate::cache::ChunkCache;
use crate::fuse::{self, Serving, Settings};
use crate::models::{Depth, hub_cache};
use crate::mounts::{Answer, Mount, SOURCE_PREFIX, detach, find_mount};
use crate::view::{Recognise, Source, View};

/// How long an unmount waits for a busy mount to become free before it lets go of it lazily.
const BUSY_PATIENCE: Duration = Duration::from_secs(2);

/// How often something that is waited for is looked at.
pub(crate) const POLL: Duration = Duration::from_millis(20);

/// Why something could not be mounted or unmounted: a message for people that names the path.
#[derive(Debug)]
pub struct SessionError(pub(crate) String);

impl fmt::Display for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SessionError {}

pub(crate) type Result<T> = std::result::Result<T, SessionError>;

pub(crate) fn failed<T>(message: impl Into<String>) -> Result<T> {
    Err(SessionError(message.into()))
}

/// What to mount where, and how.
#[derive(Clone, Debug)]
pub struct MountOptions {
    /// A directory, or one container.
    pub source: PathBuf,
    /// An existing directory.
    pub mountpoint: PathBuf,
    /// Bytes of decoded chunks that are kept.
    pub cache_size: u64,
    /// Bytes of decoded tensors that are kept, of files that are decoded tensor by tensor.
    pub tensor_cache_size: u64,
    /// Bytes that the kernel reads ahead.
    pub read_ahead: u32,
    /// Whether users other than the one who mounts may look.
    pub allow_other: bool,
    /// Whether nothing in the mount can be run as a program.
    pub noexec: bool,
    /// Which files are taken for containers.
    pub recognise: Recognise,
    /// Directories and files besides the source in which the bases of patches are looked for.
    pub bases: Vec<PathBuf>,
    /// Whether the mount is unmounted when its process dies, however it dies.
    pub auto_unmount: bool,
    /// The number of a GPU that decodes ahead of who reads whole files.
    pub gpu: Option<usize>,
}

/// A checked [`MountOptions`]: paths are absolute, the source is what it should be.
#[derive(Debug)]
pub struct Prepared {
    options: MountOptions,
    source: Source,
    /// Where bases of patches are looked for.
    places: Vec<Place>,
}

impl MountOptions {
    /// Checks all that can be checked before mounting.
    ///
    /// # Errors
    /// A message that names the path and says what to do.
    pub fn prepare(mut self) -> Result<Prepared> {
        self.source = absolute(&self.source)?;
        let shown = self.source.display();
        let kind = match fs::metadata(&self.source) {
            Ok(metadata) => metadata.file_type(),
            Err(e) => return failed(format!("{shown}: cannot be mounted: {e}")),
        };
        let source = if kind.is_dir() {
            fs::read_dir(&self.source).map_err(|e| SessionError(format!("{shown}: cannot be read: {e}")))?;
            Source::Directory(self.source.clone())
        } else {
            let stored = Stored::open(&self.source, &Arc::default());
            // The base of a patch may come later.
            let complete = stored.and_then(|stored| match stored.base_record() {
                Some(_) => Ok(()),
                None => stored.check_complete().map_err(|e| e.in_file(&self.source)),
            });
            complete.map_err(|e| SessionError(e.to_string()))?;
            Source::Container(self.source.clone())
        };
        self.mountpoint = check_mountpoint(&self.mountpoint)?;
        if kind.is_dir() && lies_in(&self.mountpoint, &self.source) {
            return failed(format!(
                "{}: lies inside of what is to be mounted, {shown}: the mount would contain itself; mount it elsewhere",
                self.mountpoint.display()
            ));
        }
        if lies_in(&self.source, &self.mountpoint) {
            return failed(format!(
                "{shown}: lies inside of {}, which the mount would hide",
                self.mountpoint.display()
            ));
        }
        let places = self.places(&source)?;
        check_fuse_device()?;
        Ok(Prepared { options: self, source, places })
    }

    /// Where bases of patches are looked for: in the source, in what was named, in the cache of the Hugging Face Hub.
    fn places(&self, source: &Source) -> Result<Vec<Place>> {
        let mut places = vec![match source {
            Source::Directory(path) => Place { path: path.clone(), depth: Depth::AllBelow },
            Source::Container(path) => {
                Place { path: path.parent().unwrap_or(Path::new("/")).to_owned(), depth: Depth::Itself }
            }
        }];
        let overlap = |path: &Path| path.starts_with(&self.mountpoint) || self.mountpoint.starts_with(path);
        for base in &self.bases {
            let path = absolute(base)?;
            if overlap(&path) {
                return failed(format!(
                    "{}: overlaps with {}, which is to be mounted on; a base must lie elsewhere",
                    base.display(),
                    self.mountpoint.display()
                ));
            }
            places.push(Place { path, depth: Depth::AllBelow });
        }
        // Programs may be told that the mount is the cache.
        let cache = hub_cache().and_then(|cache| absolute(&cache).ok()).filter(|cache| !overlap(cache));
        places.extend(cache.map(|path| Place { path, depth: Depth::AllBelow }));
        places.dedup();
        Ok(places)
    }
}

/// Whether `path` is `directory` or lies below it, under whichever of the names that bind mounts give it.
fn lies_in(path: &Path, directory: &Path) -> bool {
    let identity = |path: &Path| fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()));
    let wanted = identity(directory);
    wanted.is_some() && path.ancestors().any(|above| identity(above) == wanted)
}

fn absolute(path: &Path) -> Result<PathBuf> {
    fs::canonicalize(path).map_err(|e| SessionError(format!("{}: {}", path.display(), without_code(&e))))
}

/// An error of the operating system as people say it.
pub(crate) fn without_code(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(at) => text[..at].to_lowercase(),
        None => text,
    }
}

fn check_mountpoint(mountpoint: &Path) -> Result<PathBuf> {
    let shown = mountpoint.display();
    let place = match fs::canonicalize(mountpoint) {
        Ok(place) => place,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return failed(format!("{shown}: there is no such directory; create it first"));
        }
        Err(e) => return failed(format!("{shown}: {}", without_code(&e))),
    };
    // Before anything is asked of the directory: a mount that hangs would not answer.
    if let Some(mount) = find_mount(&place)?.filter(Mount::is_ours) {
        return failed(match mount.ask() {
            Answer::Dead => format!("{shown}: a dead mount is in the way; remove it with `bigsmall umount {shown}`"),
            Answer::Silent => format!(
                "{shown}: a mount that does not answer is in the way; remove it with `bigsmall umount --lazy {shown}`"
            ),
            Answer::Alive(_) | Answer::Unknown(_) => {
                format!("{shown}: is already a bigsmall mount; unmount it with `bigsmall umount {shown}` first")
            }
        });
    }
    match fs::metadata(&place) {
        Ok(metadata) if metadata.is_dir() => Ok(place),
        Ok(_) => failed(format!("{shown}: is not a directory; a mount needs one")),
        Err(e) => failed(format!("{shown}: {}", without_code(&e))),
    }
}

/// Fails, and says why, when this process may not use FUSE here.
///
/// # Errors
/// A message that says what to do.
pub fn check_fuse_device() -> Result<()> {
    let device = Path::new("/dev/fuse");
    match fs::metadata(device) {
        Ok(metadata) if metadata.file_type().is_char_device() => {}
        Ok(_) => return failed("/dev/fuse: is not a device; FUSE does not work here"),
        Err(_) => {
            return failed(
                "/dev/fuse: there is no such device, so nothing can be mounted\n\
                 load the kernel module with `modprobe fuse`; a container needs `--device /dev/fuse --cap-add SYS_ADMIN`",
            );
        }
    }
    match File::options().read(true).write(true).open(device) {
        Ok(_) => Ok(()),
        Err(e) => failed(format!(
            "/dev/fuse: cannot be opened: {}\nthe device exists but may not be used here; a container needs \
             `--device /dev/fuse --cap-add SYS_ADMIN`",
            without_code(&e)
        )),
    }
}

/// A live mount, served by this process.
pub struct Mounted {
    serving: Serving,
    source: PathBuf,
    mountpoint: PathBuf,
    /// Those that end it; watched since before there was a mount that one could leave behind.
    signals: Signals,
    guard: Option<Guard>,
}

impl Prepared {
    /// Mounts, and serves requests from threads of this process.
    ///
    /// # Errors
    /// A message that names the mount point.
    pub fn mount(self) -> Result<Mounted> {
        let MountOptions {
            source,
            mountpoint,
            cache_size,
            tensor_cache_size,
            read_ahead,
            allow_other,
            noexec,
            recognise,
            bases: _,
            auto_unmount,
            gpu,
        } = self.options;
        raise_file_limit();
        let mut guard = if auto_unmount { Some(Guard::start(&mountpoint)?) } else { None };
        let signals = Signals::new([SIGTERM, SIGINT, SIGHUP])
            .map_err(|e| SessionError(format!("cannot watch for signals: {e}")))?;
        let settings =
            Settings { allow_other, noexec, read_ahead, source_name: format!("{SOURCE_PREFIX}{}", source.display()) };
        // Here and not before: a GPU does not come along to another process.
        let device = gpu.map_or(Ok(Device::Processor), Device::gpu).map_err(|e| SessionError(e.to_string()))?;
        let view = View::new(self.source, recognise, allow_other, Arc::new(TensorCache::new(tensor_cache_size)));
        let cache = Arc::new(ChunkCache::new(cache_size));
        let bases = Bases::new(Arc::clone(view.containers()), Arc::clone(&cache), self.places, mountpoint.clone());
        let serving = fuse::start(view, cache, bases, device, &mountpoint, settings)
            .map_err(|e| mount_error(&mountpoint, allow_other, &e))?;
        if let Some(mount) = find_mount(&mountpoint)? {
            raise_read_ahead(&mount, read_ahead);
            if let Some(guard) = &mut guard {
                guard.watch(mount.id);
            }
        }
        Ok(Mounted { serving, source, mountpoint, signals, guard })
    }

    /// Mounts in a process of its own that goes on when this one ends, and returns when the mount is ready. What goes
    /// wrong later is appended to `log`, or lost without one.
    ///
    /// Must be called before the process has other threads, for they would not come along.
    ///
    /// # Errors
    /// As [`mount`](Prepared::mount), or when no process can be made.
    pub fn mount_in_background(self, log: Option<&Path>) -> Result<()> {
        let log = log.map(|path| {
            let file = File::options().create(true).append(true).open(path);
            file.map_err(|e| SessionError(format!("{}: cannot be written to: {}", path.display(), without_code(&e))))
        });
        let log = log.transpose()?;
        let (mut reader, mut writer) = pipe().map_err(|e| SessionError(format!("cannot make a pipe: {e}")))?;
        // SAFETY: there is one thread only, so the child may do all that the parent could.
        match unsafe { libc::fork() } {
            -1 => failed(format!("cannot make a process: {}", io::Error::last_os_error())),
            0 => {
                drop(reader);
                // SAFETY: it takes no arguments; it fails only for a process that leads a group, which a child does not.
                unsafe { libc::setsid() };
                let code = match self.mount() {
                    Ok(mounted) => {
                        let _ = std::env::set_current_dir("/");
                        redirect_standard_streams(log.as_ref());
                        let _ = writer.write_all(READY);
                        drop(writer);
                        i32::from(mounted.serve().is_err())
                    }
                    Err(error) => {
                        let _ = writer.write_all(error.0.as_bytes());
                        1
                    }
                };
                std::process::exit(code);
            }
            _ => {
                drop(writer);
                let mut said = Vec::new();
                reader.read_to_end(&mut said).map_err(|e| SessionError(format!("cannot hear from the mount: {e}")))?;
                match said {
                    ready if ready == READY => Ok(()),
                    nothing if nothing.is_empty() => failed("the process that was to serve the mount died"),
                    error => failed(String::from_utf8_lossy(&error)),
                }
            }
        }
    }
}

/// What the process that serves a mount says when the mount is ready.
const READY: &[u8] = b"\0ready";

fn mount_error(mountpoint: &Path, allow_other: bool, error: &io::Error) -> SessionError {
    let mut message = format!("{}: cannot be mounted on: {}", mountpoint.display(), without_code(error).trim_end());
    if error.kind() == io::ErrorKind::NotFound {
        message += "\nusers other than root need the program `fusermount3` (package fuse3)";
    } else if allow_other {
        message += "\n--allow-other needs the line `user_allow_other` in /etc/fuse.conf for users other than root";
    }
    SessionError(message)
}

fn pipe() -> io::Result<(File, File)> {
    let mut ends = [0; 2];
    // SAFETY: `ends` has room for the two descriptors.
    if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `pipe2` returned 0, so both are open and nobody else's.
    Ok(unsafe { (File::from_raw_fd(ends[0]), File::from_raw_fd(ends[1])) })
}

/// Lets go of the terminal: reads find nothing, what is written goes to `log` or nowhere.
fn redirect_standard_streams(log: Option<&File>) {
    let Ok(null) = File::options().read(true).write(true).open("/dev/null") else { return };
    for (stream, file) in [(0, &null), (1, log.unwrap_or(&null)), (2, log.unwrap_or(&null))] {
        // SAFETY: both descriptors are open for the time of the call.
        unsafe { libc::dup2(file.as_raw_fd(), stream) };
    }
}

/// Lets the kernel read ahead more than it offers to FUSE by itself, which only root may. Failing is no fault: the mount
/// then works with what it has.
fn raise_read_ahead(mount: &Mount, read_ahead: u32) {
    let knob = format!("/sys/class/bdi/{}/read_ahead_kb", mount.device);
    if let Err(error) = fs::write(&knob, (read_ahead / 1024).to_string()) {
        tracing::debug!("{knob}: {error}");
    }
}

/// Lets this process have open as many files as it may: each that a program has open here is one, and so is each
/// container that is kept.
fn raise_file_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is one `rlimit` and outlives both calls.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
        }
    }
}

/// Closes all descriptors but the standard streams and `kept`. What others of this process wait for the end of must not
/// be held open by a process that lives as long as the mount.
fn close_all_but(kept: &File) {
    let kept = kept.as_raw_fd() as libc::c_uint;
    for (first, last) in [(3, kept - 1), (kept + 1, libc::c_uint::MAX)] {
        if first <= last {
            // SAFETY: no `File` of this process but `kept` is used from here on.
            unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
        }
    }
}

/// After the number of a mount: it needs no guard any more.
const DISMISSED: &str = " is unmounted";

/// A process that unmounts a mount when the process that serves it has died. It waits at the end of a pipe which the
/// other holds open as long as it lives.
struct Guard {
    /// Says which mount is to be unmounted, and at the end whether somebody did.
    says: File,
}

impl Guard {
    /// Starts the process. This one must have no other threads.
    fn start(mountpoint: &Path) -> Result<Guard> {
        let (mut reader, writer) = pipe().map_err(|e| SessionError(format!("cannot make a pipe: {e}")))?;
        // SAFETY: there is one thread only, so the child may do all that the parent could.
        match unsafe { libc::fork() } {
            -1 => failed(format!("cannot make a process: {}", io::Error::last_os_error())),
            0 => {
                drop(writer);
                close_all_but(&reader);
                // Signals to the terminal's programs are not meant for this one: it goes by the pipe.
                // SAFETY: it takes no arguments, and a child does not lead a group.
                unsafe { libc::setsid() };
                let _ = std::env::set_current_dir("/");
                redirect_standard_streams(None);
                let mut said = String::new();
                let _ = reader.read_to_string(&mut said);
                if let Ok(id) = said.parse::<u64>()
                    && find_mount(mountpoint).is_ok_and(|mount| mount.is_some_and(|mount| mount.id == id))
                {
                    let _ = detach(mountpoint, true);
                }
                std::process::exit(0);
            }
            _ => Ok(Guard { says: writer }),
        }
    }

    /// Watches over the mount of this number, as long as this process lives.
    fn watch(&mut self, id: u64) {
        let _ = write!(self.says, "{id}");
    }

    /// Watches no longer: the mount is gone. The kernel gives its number to the next one, which may be there already.
    fn dismiss(mut self) {
        let _ = write!(self.says, "{DISMISSED}");
    }
}

impl Mounted {
    /// Serves the mount until it is unmounted, by somebody else or because of SIGTERM, SIGINT or SIGHUP.
    ///
    /// # Errors
    /// When the connection to the kernel breaks.
    pub fn serve(self) -> Result<()> {
        let mut signals = self.signals;
        tracing::info!("{}: shows {}", self.mountpoint.display(), self.source.display());
        let handle = signals.handle();
        let mountpoint = self.mountpoint.clone();
        let watcher = thread::spawn(move || {
            if signals.forever().next().is_some() {
                end(&mountpoint);
            }
        });
        let mut serving = self.serving;
        let served = mem::replace(&mut serving.guard, thread::spawn(|| Ok(()))).join();
        let served = served.unwrap_or_else(|_| Err(io::Error::other("a thread that served it panicked")));
        if served.is_ok() {
            // The kernel says that it is unmounted. When dropped, fuser would unmount once more, by path, and hit another
            // mount that was made there meanwhile.
            mem::forget(serving);
            if let Some(guard) = self.guard {
                guard.dismiss();
            }
        }
        handle.close();
        let _ = watcher.join();
        tracing::info!("{}: is unmounted", self.mountpoint.display());
        served.map_err(|e| SessionError(format!("{}: the mount broke: {e}", self.mountpoint.display())))
    }
}

/// Unmounts because the process was asked to end: politely at first, then whoever still uses the mount keeps what is open.
fn end(mountpoint: &Path) {
    let start = Instant::now();
    while let Err(error) = detach(mountpoint, false) {
        if start.elapsed() > BUSY_PATIENCE {
            tracing::warn!("{}: still in use ({error}), so it is unmounted lazily", mountpoint.display());
            if let Err(error) = detach(mountpoint, true) {
                tracing::error!("{}: cannot be unmounted: {error}", mountpoint.display());
            }
            return;
        }
        thread::sleep(POLL);
    }
}
