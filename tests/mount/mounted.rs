//! A mount for a test, and what tests of mounts share.

#![allow(dead_code, reason = "each of the test programs that include this file uses its own part")]

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::*;

/// How long something that should happen at once may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A scratch directory with a mount in it. `fails` and `ok` run there, so messages have short names.
pub struct Mounted {
    pub scratch: Scratch,
}

impl Mounted {
    /// Mounts `source` of the scratch directory on `mnt`.
    #[track_caller]
    pub fn new(scratch: Scratch, source: &str) -> Mounted {
        Mounted::with_options(scratch, source, "")
    }

    #[track_caller]
    pub fn with_options(scratch: Scratch, source: &str, options: &str) -> Mounted {
        fs::create_dir(scratch.path("mnt")).unwrap();
        // Made before mounting, so that a panic below unmounts too.
        let mounted = Mounted { scratch };
        mounted.scratch.ok(&format!("mount {options} {source} mnt"));
        assert!(mounted.is_mounted());
        mounted
    }

    /// Mounts `models` on the directory `mnt` that exists already.
    #[track_caller]
    pub fn with_options_on(scratch: Scratch) -> Mounted {
        let mounted = Mounted { scratch };
        mounted.scratch.ok("mount models mnt");
        mounted
    }

    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.scratch.path("mnt").join(name)
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    pub fn names(&self) -> Vec<String> {
        names_in(&self.scratch.path("mnt"))
    }

    pub fn is_mounted(&self) -> bool {
        let mountpoint = self.scratch.path("").canonicalize().unwrap().join("mnt");
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        mounts.lines().any(|line| line.split(' ').nth(1).map(Path::new) == Some(&mountpoint))
    }

    /// The process that serves the mount, known by the log that it writes to: `log` in this scratch directory.
    pub fn daemon(&self) -> u32 {
        let log = self.scratch.path("log").canonicalize().unwrap();
        let serves = |pid: u32| fs::read_link(format!("/proc/{pid}/fd/2")).is_ok_and(|target| target == log);
        let pids = fs::read_dir("/proc").unwrap().filter_map(|e| e.unwrap().file_name().to_str()?.parse().ok());
        pids.into_iter().find(|&pid| serves(pid)).expect("a process that serves the mount")
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.is_mounted() {
            let _ = Command::new("umount").arg("-l").arg(self.scratch.path("mnt")).stderr(Stdio::null()).status();
        }
        if self.is_mounted() {
            let _ = Command::new("fusermount3").arg("-uz").arg(self.scratch.path("mnt")).status();
        }
    }
}

/// A scratch directory with a directory `models` that holds the container of the real weights, `real.bs`.
pub fn real() -> (Scratch, Vec<u8>) {
    let scratch = Scratch::new();
    let original = fs::read(REAL_WEIGHTS).unwrap();
    scratch.write("real.safetensors", &original);
    fs::create_dir(scratch.path("models")).unwrap();
    scratch.ok("compress real.safetensors -o models/real.bs --chunk-size 16KiB -q");
    (scratch, original)
}

/// Waits until `done`, and fails if that takes too long.
#[track_caller]
pub fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

pub fn errno(result: io::Result<impl Sized>) -> i32 {
    result.err().expect("an error").raw_os_error().expect("one of the operating system's")
}
