//! Which ways through the source may be gone.
//!
//! None that a link leads into the mount itself: the process would ask itself, and wait for ever for a thread that is free. Nor into another of our
//! mounts, which may have a link that leads back. Links are therefore
//! followed step by step, and each step is looked at before what lies beyond it. And if other users may look, none that they could not go by
//! themselves: what is behind a directory that they may not enter does not appear because a link leads there.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Statx, StatxFlags, makedev, openat, openat2, readlinkat, statx,
};
use rustix::io::Errno;

use crate::mounts::our_mounts;

/// How many links one may lead to, as the kernel has it.
const MOST_LINKS: u32 = 40;

/// Which ways may be gone.
#[derive(Debug)]
pub struct Ways {
    /// The device of the mount, once there is one.
    mount: OnceLock<u64>,
    /// Whether users other than the one who mounts look through this process.
    for_others: bool,
}

impl Ways {
    /// All that lead outside of a mount, which is made later; those only that everybody may go if it is `for_others`.
    pub fn new(for_others: bool) -> Ways {
        Ways { mount: OnceLock::new(), for_others }
    }

    /// Says where the mount is. Must be called before the first request is served.
    ///
    /// # Errors
    /// When nothing can be known of the directory.
    pub fn lead_around(&self, mountpoint: &Path) -> io::Result<()> {
        let stat = statx(CWD, mountpoint, AtFlags::STATX_DONT_SYNC, StatxFlags::BASIC_STATS)?;
        let _ = self.mount.set(device_of(&stat));
        Ok(())
    }

    /// Fails unless `dir` is still a directory of the source, with no link that has taken its place or that of one above it, and is not the mount.
    ///
    /// # Errors
    /// `ELOOP` where there is a link, or the mount; those of the source.
    pub fn check(&self, dir: &Path) -> io::Result<()> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match openat2(CWD, dir, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS) {
            Ok(dir) => self.look(&dir).map(drop),
            // Kernels before 5.6, and containers that know none after.
            Err(Errno::NOSYS | Errno::PERM) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Where a link leads at last: the path without any link in it.
    ///
    /// # Errors
    /// `ELOOP` when it leads into a mount of ours or nowhere for links, `EACCES` when it leads where others may not go; those of the source.
    pub fn follow(&self, link: &Path) -> io::Result<PathBuf> {
        let directory = OFlags::PATH | OFlags::CLOEXEC;
        let open = |path: &OsStr| openat(CWD, path, directory, Mode::empty());
        let mut at = open(link.parent().unwrap_or(Path::new("/")).as_os_str())?;
        let mut device = device_of(&self.look(&at)?);
        let mut rest = vec![link.file_name().unwrap_or_default().to_owned()];
        let mut links = 0;
        while let Some(name) = rest.pop() {
            let next = openat(&at, &name, directory | OFlags::NOFOLLOW, Mode::empty())?;
            let stat = self.look(&next)?;
            if device_of(&stat) != device && is_of_our_mounts(&stat) {
                return Err(Errno::LOOP.into());
            }
            device = device_of(&stat);
            match FileType::from_raw_mode(stat.stx_mode.into()) {
                FileType::Symlink => {
                    links += 1;
                    if links > MOST_LINKS {
                        return Err(Errno::LOOP.into());
                    }
                    let target = readlinkat(&next, c"", Vec::new())?;
                    if target.as_bytes().starts_with(b"/") {
                        at = open(OsStr::new("/"))?;
                    }
                    rest.extend(steps(OsStr::from_bytes(target.as_bytes())));
                    continue;
                }
                FileType::Directory if self.for_others && stat.stx_mode & 0o001 == 0 => {
                    return Err(Errno::ACCESS.into());
                }
                _ => at = next,
            }
        }
        fs::read_link(format!("/proc/self/fd/{}", at.as_raw_fd()))
    }

    /// What is known of a file, unless it is of the mount. The mount is not asked for it.
    fn look(&self, file: impl AsFd) -> io::Result<Statx> {
        let stat = statx(file, c"", AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC, StatxFlags::BASIC_STATS)?;
        if self.mount.get() == Some(&device_of(&stat)) {
            return Err(Errno::LOOP.into());
        }
        Ok(stat)
    }
}

fn device_of(stat: &Statx) -> u64 {
    makedev(stat.stx_dev_major, stat.stx_dev_minor)
}

/// Whether a file is of a mount of this program, which has no device of hardware.
fn is_of_our_mounts(stat: &Statx) -> bool {
    let device = format!("{}:{}", stat.stx_dev_major, stat.stx_dev_minor);
    stat.stx_dev_major == 0 && our_mounts().is_ok_and(|mounts| mounts.iter().any(|mount| mount.device == device))
}

/// The steps of a path, the last one first.
fn steps(path: &OsStr) -> impl Iterator<Item = OsString> {
    let steps = path.as_bytes().rsplit(|&byte| byte == b'/').filter(|step| !step.is_empty());
    steps.map(|step| OsStr::from_bytes(step).to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn errno<T: std::fmt::Debug>(outcome: io::Result<T>) -> Errno {
        Errno::from_io_error(&outcome.unwrap_err()).unwrap()
    }

    #[test]
    fn links_lead_to_where_they_lead() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::write(root.join("a/file"), "").unwrap();
        for (target, link) in [
            ("../file", "a/b/up"),
            ("a//b/./up", "twice"),
            ("a/b/../b/../file", "around"),
            ("a", "dir"),
            ("dir/b/up", "through"),
            ("loop", "loop"),
            ("nowhere", "dangling"),
        ] {
            symlink(target, root.join(link)).unwrap();
        }
        symlink(root.join("dir/file"), root.join("absolute")).unwrap();
        let ways = Ways::new(false);
        for link in ["a/b/up", "twice", "around", "through", "absolute", "a/file"] {
            assert_eq!(ways.follow(&root.join(link)).unwrap(), root.join("a/file"), "{link}");
        }
        assert_eq!(ways.follow(&root.join("dir")).unwrap(), root.join("a"));
        assert_eq!(errno(ways.follow(&root.join("loop"))), Errno::LOOP);
        assert_eq!(errno(ways.follow(&root.join("dangling"))), Errno::NOENT);

        let others = Ways::new(true);
        fs::set_permissions(root.join("a"), fs::Permissions::from_mode(0o755)).unwrap();
        // Where a link begins is behind who asks; what a path of its own leads through is not.
        fs::set_permissions(&root, fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(others.follow(&root.join("through")).unwrap(), root.join("a/file"));
        assert_eq!(errno(others.follow(&root.join("absolute"))), Errno::ACCESS);
        fs::set_permissions(root.join("a"), fs::Permissions::from_mode(0o750)).unwrap();
        assert_eq!(errno(others.follow(&root.join("through"))), Errno::ACCESS);
        assert_eq!(ways.follow(&root.join("absolute")).unwrap(), root.join("a/file"));
    }

    #[test]
    fn no_way_leads_into_the_mount_or_over_a_link() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        fs::create_dir(root.join("dir")).unwrap();
        symlink("dir", root.join("link")).unwrap();
        symlink("/proc/version", root.join("proc")).unwrap();
        let ways = Ways::new(false);
        assert_eq!(ways.follow(&root.join("proc")).unwrap(), Path::new("/proc/version"));
        ways.check(&root.join("dir")).unwrap();
        assert_eq!(errno(ways.check(&root.join("link"))), Errno::LOOP);
        assert_eq!(errno(ways.check(&root.join("nothing"))), Errno::NOENT);
        // As if it were the mount.
        ways.lead_around(Path::new("/proc")).unwrap();
        assert_eq!(errno(ways.follow(&root.join("proc"))), Errno::LOOP);
        assert_eq!(errno(ways.check(Path::new("/proc/self/task"))), Errno::LOOP);
    }
}
