//! Reading through a mount of our own.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use bigsmall_fs::mounts;

use super::MountSpeed;
use super::scratch::Scratch;
use crate::failure::Failure;

/// Bytes that are read at a time.
const STEP: usize = 1 << 20;

/// Mounts the containers in `scratch`, one that holds so many bytes, and reads it twice.
///
/// # Errors
/// When nothing can be mounted, or it cannot be read.
pub fn read(scratch: &Scratch, len: u64) -> Result<MountSpeed, Failure> {
    let mountpoint = scratch.directory("mount")?;
    let containers = scratch.directory("containers")?;
    let (from, to) = (scratch.path().join("model.bs"), containers.join("model.bs"));
    std::fs::rename(&from, &to).map_err(|e| Failure::new(format!("{}: cannot move it: {e}", from.display())))?;
    let program = std::env::current_exe().map_err(|e| Failure::new(format!("cannot find this program: {e}")))?;
    // A process of its own: this one must not wait for itself.
    let mut command = Command::new(program);
    command.arg("mount").arg(&containers).arg(&mountpoint).stdin(Stdio::null());
    let output = command.output().map_err(|e| Failure::new(format!("cannot start this program again: {e}")))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Failure::new(said.trim_end().trim_start_matches("bigsmall: ")));
    }
    let mounted = Mounted(mountpoint);
    let shown = only_file(&mounted.0)?;
    let first = read_all(&shown, len)?;
    let again = read_all(&shown, len)?;
    Ok(MountSpeed { first, again })
}

/// A mount that is ended when it is dropped.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        if mounts::unmount(&self.0, false).is_err() {
            let _ = mounts::unmount(&self.0, true);
        }
    }
}

fn only_file(directory: &Path) -> Result<PathBuf, Failure> {
    let cannot = |e| Failure::new(format!("{}: cannot be read: {e}", directory.display()));
    let mut names = std::fs::read_dir(directory).map_err(cannot)?;
    match names.next() {
        Some(name) => Ok(name.map_err(cannot)?.path()),
        None => Err(Failure::new(format!("{}: the mount shows nothing", directory.display()))),
    }
}

/// Reads a file from beginning to end; gives bytes per second.
fn read_all(path: &Path, len: u64) -> Result<f64, Failure> {
    let cannot = |e| Failure::new(format!("{}: cannot be read: {e}", path.display()));
    let mut file = File::open(path).map_err(cannot)?;
    let mut step = vec![0; STEP];
    let start = Instant::now();
    let mut bytes = 0;
    loop {
        match file.read(&mut step).map_err(cannot)? {
            0 => break,
            read => bytes += read as u64,
        }
    }
    match bytes == len {
        true => Ok(bytes as f64 / start.elapsed().as_secs_f64().max(1e-9)),
        false => Err(Failure::new(format!("{}: has {bytes} bytes through the mount and not {len}", path.display()))),
    }
}
