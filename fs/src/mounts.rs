//! The mounts that there are: finding them in the kernel's list, asking them what they did, ending them.

use std::ffi::{CString, OsStr, OsString};
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::session::{POLL, Result, SessionError, failed, without_code};
use crate::stats::{STATS_ATTRIBUTE, Stats};

/// What the source of our mounts begins with in the kernel's list, by which they are known: root's mounts have no type of
/// their own there.
pub(crate) const SOURCE_PREFIX: &str = "bigsmall:";

/// How long `umount` waits for the mount to leave the kernel's list, and then for the process that served it to end.
const END_PATIENCE: Duration = Duration::from_secs(10);

/// How long a mount may be in use by nobody who can be named.
const RELEASE_PATIENCE: Duration = Duration::from_millis(500);

/// How long a mount is given to say what it did.
const ANSWER_PATIENCE: Duration = Duration::from_secs(2);

/// What a mount answers.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// It is served, and has done this.
    Alive(Box<Stats>),
    /// The process that served it died.
    Dead,
    /// It does not answer in time.
    Silent,
    /// It cannot be asked, for this reason: it is another user's, or served by another version.
    Unknown(String),
}

impl Mount {
    /// Asks a mount what it did. Returns within two seconds, whatever the state of the mount.
    pub fn ask(&self) -> Answer {
        let (sender, receiver) = mpsc::channel();
        let mountpoint = self.mountpoint.clone();
        // Left behind if it hangs: nothing that waits in the kernel for a file system can be called off.
        thread::spawn(move || sender.send(attribute(&mountpoint, STATS_ATTRIBUTE)));
        match receiver.recv_timeout(ANSWER_PATIENCE) {
            Ok(Ok(json)) => match serde_json::from_slice(&json) {
                Ok(stats) => Answer::Alive(Box::new(stats)),
                Err(e) => Answer::Unknown(format!("it is served by another version of bigsmall: {e}")),
            },
            Ok(Err(e)) if e.raw_os_error() == Some(libc::ENOTCONN) => Answer::Dead,
            Ok(Err(e)) => Answer::Unknown(without_code(&e)),
            Err(_) => Answer::Silent,
        }
    }
}

/// The value of an extended attribute.
fn attribute(path: &Path, name: &str) -> io::Result<Vec<u8>> {
    let (path, name) = (CString::new(path.as_os_str().as_bytes())?, CString::new(name)?);
    let mut value = vec![0; 64 << 10];
    // SAFETY: both names end in NUL, `value` is as long as is said, and all outlive the call.
    let len = unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    let len = usize::try_from(len).map_err(|_| io::Error::last_os_error())?;
    value.truncate(len);
    Ok(value)
}

/// The process that serves a mount, by a descriptor of it: its number may be another's soon after its end.
struct Server {
    pid: u32,
    descriptor: OwnedFd,
}

impl Server {
    /// The process with this number, if it is there.
    fn find(pid: u32) -> Option<Server> {
        // SAFETY: it takes two numbers and touches no memory.
        let descriptor = unsafe { libc::syscall(libc::SYS_pidfd_open, libc::c_long::from(pid), 0) };
        // SAFETY: the kernel has just made the descriptor, and it is nobody else's.
        (descriptor >= 0).then(|| Server { pid, descriptor: unsafe { OwnedFd::from_raw_fd(descriptor as RawFd) } })
    }

    /// Waits until it has ended, and says whether it has.
    fn ends_within(&self, patience: Duration) -> bool {
        let mut poll = libc::pollfd { fd: self.descriptor.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: `poll` is one `pollfd` and outlives the call.
        unsafe { libc::poll(&mut poll, 1, patience.as_millis() as libc::c_int) == 1 }
    }
}

/// Unmounts what `bigsmall mount` mounted on `mountpoint`, and waits until it is gone and the process that served it has
/// ended. A mount whose process died is cleaned away. With `lazy` a mount in use vanishes from the tree at once and ends
/// when its last user does; nobody waits for that.
///
/// # Errors
/// A message that names the path: it is no mount of ours, it is in use, it does not answer, it may not be unmounted.
pub fn unmount(mountpoint: &Path, lazy: bool) -> Result<()> {
    let shown = mountpoint.display();
    // A dead mount cannot be asked for its path.
    let absolute = fs::canonicalize(mountpoint).or_else(|_| std::path::absolute(mountpoint));
    let absolute = absolute.map_err(|e| SessionError(format!("{shown}: {}", without_code(&e))))?;
    let Some(mount) = find_mount(&absolute)? else { return failed(format!("{shown}: nothing is mounted there")) };
    if !mount.is_ours() {
        return failed(format!("{shown}: is a mount of type {}, not one of bigsmall", mount.kind));
    }
    let server = match if lazy { Answer::Dead } else { mount.ask() } {
        Answer::Alive(stats) => Server::find(stats.pid),
        Answer::Silent => return failed(format!("{shown}: does not answer; `--lazy` takes it out of the tree")),
        Answer::Dead | Answer::Unknown(_) => None,
    };
    let start = Instant::now();
    while let Err(e) = detach(&absolute, lazy) {
        if e.raw_os_error() != Some(libc::EBUSY) {
            return failed(format!("{shown}: cannot be unmounted: {}", without_code(&e)));
        }
        // The kernel lets go of what was just closed, or of a process that just ended, a moment later.
        let users = mounts_in(&absolute)? + &users(&absolute);
        if !users.is_empty() || start.elapsed() > RELEASE_PATIENCE {
            return failed(format!("{shown}: is in use; end the programs that use it or try `--lazy`{users}"));
        }
        thread::sleep(POLL);
    }
    let start = Instant::now();
    while find_mount(&absolute)?.is_some_and(|now| now.id == mount.id) {
        if start.elapsed() > END_PATIENCE {
            return failed(format!(
                "{shown}: is still there {} seconds after it was unmounted",
                END_PATIENCE.as_secs()
            ));
        }
        thread::sleep(POLL);
    }
    match server {
        Some(server) if !server.ends_within(END_PATIENCE) => failed(format!(
            "{shown}: is unmounted, but the process that served it ({}) has not ended after {} seconds",
            server.pid,
            END_PATIENCE.as_secs()
        )),
        _ => Ok(()),
    }
}

/// The mounts below `mountpoint`, a line each.
fn mounts_in(mountpoint: &Path) -> Result<String> {
    let is_below = |mount: &Mount| mount.mountpoint.starts_with(mountpoint) && mount.mountpoint != mountpoint;
    let lines = all_mounts()?.into_iter().filter(is_below);
    Ok(lines.map(|mount| format!("\n  {} is itself mounted on", mount.mountpoint.display())).collect())
}

/// How many programs that use a mount are named.
const MOST_USERS: usize = 10;

/// The processes that have something open below `mountpoint`, a line each, as far as this user may know. The mount itself
/// is not asked anything: it may be dead.
fn users(mountpoint: &Path) -> String {
    let mut lines = Vec::new();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let directory = process.path();
        let descriptors = fs::read_dir(directory.join("fd")).into_iter().flatten().flatten().map(|entry| entry.path());
        let mapped =
            fs::read_dir(directory.join("map_files")).into_iter().flatten().flatten().map(|entry| entry.path());
        let links = [directory.join("cwd"), directory.join("root")].into_iter().chain(descriptors).chain(mapped);
        let used = links.filter_map(|link| fs::read_link(link).ok()).find(|target| target.starts_with(mountpoint));
        if let Some(used) = used {
            let program = fs::read_to_string(directory.join("comm")).unwrap_or_default();
            lines.push(format!("\n  {} (process {pid}) uses {}", program.trim_end(), used.display()));
        }
    }
    let more = lines.len().saturating_sub(MOST_USERS);
    lines.truncate(MOST_USERS);
    if more > 0 {
        lines.push(format!("\n  and {more} more"));
    }
    lines.concat()
}

/// Asks the kernel to unmount, or `fusermount3` where the kernel lets only root.
pub(crate) fn detach(mountpoint: &Path, lazy: bool) -> io::Result<()> {
    let path = CString::new(mountpoint.as_os_str().as_bytes())?;
    let flags = libc::UMOUNT_NOFOLLOW | if lazy { libc::MNT_DETACH } else { 0 };
    // SAFETY: `path` ends in NUL and outlives the call.
    if unsafe { libc::umount2(path.as_ptr(), flags) } == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() != Some(libc::EPERM) {
        return Err(error);
    }
    let mut command = Command::new("fusermount3");
    command.arg(if lazy { "-uz" } else { "-u" }).arg("--").arg(mountpoint);
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(if said.contains("busy") {
        io::Error::from_raw_os_error(libc::EBUSY)
    } else {
        io::Error::other(said.trim().to_owned())
    })
}

/// A line of the kernel's list of mounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The kernel's number of it, which no later mount has.
    pub id: u64,
    /// Major and minor number, as in `0:42`.
    pub device: String,
    /// The directory that is mounted on.
    pub mountpoint: PathBuf,
    /// Its type, such as `ext4`.
    pub kind: String,
    /// What is mounted, as the kernel shows it.
    pub source: OsString,
}

impl Mount {
    /// Whether `bigsmall mount` made it.
    pub fn is_ours(&self) -> bool {
        self.kind.starts_with("fuse") && self.source.as_bytes().starts_with(SOURCE_PREFIX.as_bytes())
    }

    /// The directory or container that `bigsmall mount` was given.
    pub fn original_source(&self) -> PathBuf {
        let source = self.source.as_bytes();
        PathBuf::from(OsStr::from_bytes(source.strip_prefix(SOURCE_PREFIX.as_bytes()).unwrap_or(source)))
    }
}

/// The topmost mount on exactly this path, if there is one.
pub(crate) fn find_mount(path: &Path) -> Result<Option<Mount>> {
    Ok(all_mounts()?.into_iter().rev().find(|mount| mount.mountpoint == path))
}

/// The mounts of `bigsmall mount`, in the order in which they were made.
///
/// # Errors
/// When the kernel's list cannot be read.
pub fn our_mounts() -> Result<Vec<Mount>> {
    Ok(all_mounts()?.into_iter().filter(Mount::is_ours).collect())
}

fn all_mounts() -> Result<Vec<Mount>> {
    let list = "/proc/self/mountinfo";
    let lines = fs::read(list).map_err(|e| SessionError(format!("{list}: {e}")))?;
    Ok(lines.split(|&byte| byte == b'\n').filter_map(parse_mount).collect())
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw`
fn parse_mount(line: &[u8]) -> Option<Mount> {
    let fields: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
    let separator = fields.iter().position(|field| *field == b"-")?;
    let text = |field: &[u8]| String::from_utf8_lossy(field).into_owned();
    Some(Mount {
        id: text(fields[0]).parse().ok()?,
        device: text(fields.get(2)?),
        mountpoint: unescape(fields.get(4)?).into(),
        kind: text(fields.get(separator + 1)?),
        source: unescape(fields.get(separator + 2)?),
    })
}

/// Undoes the kernel's `\040` for a blank, and the like.
fn unescape(field: &[u8]) -> OsString {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let octal = after
            .get(..3)
            .filter(|_| byte == b'\\')
            .and_then(|d| u8::from_str_radix(std::str::from_utf8(d).ok()?, 8).ok());
        match octal {
            Some(code) => {
                out.push(code);
                rest = &after[3..];
            }
            None => {
                out.push(byte);
                rest = after;
            }
        }
    }
    OsString::from_vec(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_list_is_understood() {
        let line = br"36 35 0:52 / /mnt/my\040models ro,nosuid - fuse bigsmall:/data ro,user_id=0";
        let mount = parse_mount(line).unwrap();
        assert_eq!(mount.mountpoint, Path::new("/mnt/my models"));
        assert_eq!(mount.original_source(), Path::new("/data"));
        assert_eq!((mount.id, mount.device.as_str()), (36, "0:52"));
        assert!(mount.is_ours());
        let other = br"36 35 0:52 / /mnt ro - fuse /data ro";
        assert!(!parse_mount(other).unwrap().is_ours());
        assert!(parse_mount(b"").is_none());
        assert_eq!(unescape(br"a\011b\134c\x"), std::ffi::OsStr::new("a\tb\\c\\x"));
    }
}
