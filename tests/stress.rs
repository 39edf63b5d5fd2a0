//! The storm that has stalled other mounts: dozens of threads that fault on maps at random, while processes read the same
//! files in sequence, with next to no cache and one request of the kernel's readahead at a time.
//!
//! A run must end: a watchdog looks whether every thread gets on, and when one does not, it says what each thread of the
//! mount's process is waiting for, breaks the mount off, and fails. Some seconds here; `scripts/stress.sh` runs minutes.

#[path = "mount/mounted.rs"]
mod mounted;
#[path = "cli/support.rs"]
mod support;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use memmap2::Mmap;
use mounted::*;
use rustix::fs::{Advice, fadvise};
use support::*;

const THREADS: usize = 64;
const READERS: usize = 16;
const FILES: usize = 16;
const FILE_LEN: usize = 3 << 20;

/// How long a thread may go without getting anything from the mount.
const STALL: Duration = Duration::from_secs(60);

/// How long the storm lasts.
fn duration() -> Duration {
    let seconds = std::env::var("BIGSMALL_STRESS_SECONDS");
    Duration::from_secs(seconds.map_or(6, |seconds| seconds.parse().expect("a number of seconds")))
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }
}

/// What the threads did, and whether they should go on.
struct Progress {
    steps: Vec<AtomicU64>,
    stop: AtomicBool,
}

impl Progress {
    fn goes_on(&self, thread: usize) -> bool {
        self.steps[thread].fetch_add(1, Ordering::Relaxed);
        !self.stop.load(Ordering::Relaxed)
    }
}

/// Maps files, touches places in them, and lets the kernel forget them, so that there is something to fault on again.
fn fault(thread: usize, progress: &Progress, mount: &Path, original: &[u8]) {
    let mut random = Random(thread as u64);
    while progress.goes_on(thread) {
        let file = File::open(mount.join(format!("{}.safetensors", random.below(FILES)))).unwrap();
        // SAFETY: the mount is read-only and its source is not touched while the map lives.
        let map = unsafe { Mmap::map(&file).unwrap() };
        for _ in 0..20 {
            let start = random.below(FILE_LEN - 64);
            let len = 1 + random.below(64);
            assert!(map[start..start + len] == original[start..start + len], "wrong bytes at {start}");
            if !progress.goes_on(thread) {
                break;
            }
        }
        drop(map);
        let mut bytes = [0; 5000];
        let start = random.below(FILE_LEN - bytes.len());
        file.read_exact_at(&mut bytes, start as u64).unwrap();
        assert!(bytes == original[start..start + bytes.len()], "wrong bytes at {start}");
        fadvise(&file, 0, None, Advice::DontNeed).unwrap();
    }
}

/// Processes that read whole files, until they are killed.
struct Readers(Vec<Child>);

impl Readers {
    fn start(mount: &Path) -> Readers {
        let script = "while :; do for f in *; do cat $f > /dev/null || exit 1; done; done";
        let start = |_| Command::new("sh").args(["-c", script]).current_dir(mount).stderr(Stdio::null()).spawn();
        Readers((0..READERS).map(|number| start(number).unwrap()).collect())
    }

    /// Whether none has ended, which each would on an error.
    fn all_read(&mut self) -> bool {
        self.0.iter_mut().all(|reader| reader.try_wait().unwrap().is_none())
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        for reader in &mut self.0 {
            let _ = reader.kill();
            let _ = reader.wait();
        }
    }
}

/// The kernel's folder of the connection that a mount is.
fn connection(mount: &Path) -> std::path::PathBuf {
    let device = fs::metadata(mount).unwrap().dev();
    let control = Path::new("/sys/fs/fuse/connections");
    if fs::read_dir(control).is_ok_and(|mut entries| entries.next().is_none()) {
        // Mounted by most systems; the folder is empty where it is not.
        let _ = Command::new("mount").args(["-t", "fusectl", "fusectl"]).arg(control).status();
    }
    control.join(device.to_string())
}

/// What the threads of a process wait for.
fn stacks(pid: u32) -> String {
    let mut text = String::new();
    for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        for file in ["comm", "wchan", "syscall", "stack"] {
            let said = fs::read_to_string(task.path().join(file)).unwrap_or_default();
            text += &format!("{file}: {}\n", said.trim_end());
        }
    }
    text
}

#[test]
fn a_storm_of_faults_does_not_stall() {
    let scratch = Scratch::new();
    fs::create_dir(scratch.path("models")).unwrap();
    let mut original =
        model(&[("a", "BF16", 2, FILE_LEN / 2), ("b", "BF16", 2, FILE_LEN / 4), ("c", "U8", 1, 999_999)]);
    original.truncate(FILE_LEN);
    scratch.write("model.dat", &original);
    scratch.write("model.safetensors", &original);
    scratch.ok("compress model.safetensors -o models/0.bs --chunk-size 64KiB -q");
    for number in 1..FILES {
        fs::copy(scratch.path("models/0.bs"), scratch.path(format!("models/{number}.bs"))).unwrap();
    }
    let mounted = Mounted::with_options(scratch, "models", "--cache-size 256KiB --log log");
    let (mount, daemon) = (mounted.path(""), mounted.daemon());
    let connection = connection(&mount);
    fs::write(connection.join("max_background"), "1").expect("root may limit what the kernel asks for at once");

    let progress = Progress { steps: (0..THREADS).map(|_| AtomicU64::new(0)).collect(), stop: AtomicBool::new(false) };
    let mut readers = Readers::start(&mount);
    let stalled = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (progress, mount, original) = (&progress, &mount, &original);
                scope.spawn(move || fault(thread, progress, mount, original))
            })
            .collect();
        let (start, mut seen) = (Instant::now(), vec![(0, Instant::now()); THREADS]);
        let mut stalled = None;
        while stalled.is_none() && !threads.iter().all(thread::ScopedJoinHandle::is_finished) {
            thread::sleep(Duration::from_millis(50));
            progress.stop.fetch_or(start.elapsed() > duration(), Ordering::Relaxed);
            for (thread, (steps, since)) in seen.iter_mut().enumerate() {
                let now = progress.steps[thread].load(Ordering::Relaxed);
                if now != *steps || threads[thread].is_finished() {
                    (*steps, *since) = (now, Instant::now());
                }
            }
            if seen.iter().any(|(_, since)| since.elapsed() > STALL) {
                stalled = Some(stacks(daemon));
                // Or nothing that waits for the mount could ever end.
                let _ = fs::write(connection.join("abort"), "1");
            }
        }
        stalled
    });
    assert!(stalled.is_none(), "a thread got nothing for {STALL:?}; the mount's process:\n{}", stalled.unwrap());
    assert!(readers.all_read(), "a process that reads in sequence met an error");
    drop(readers);

    let steps: u64 = progress.steps.iter().map(|steps| steps.load(Ordering::Relaxed)).sum();
    let status = fs::read_to_string(format!("/proc/{daemon}/status")).unwrap();
    let rss = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap().trim();
    let kilobytes: u64 = rss.strip_suffix(" kB").unwrap().parse().unwrap();
    let listed = mounted.scratch.json("mounts --json");
    let mounts = listed["mounts"].as_array().unwrap();
    let decoded = mounts.iter().filter_map(|mount| mount["stats"]["chunks_decoded"].as_u64()).max().unwrap_or_default();
    println!("{steps} steps, {decoded} chunks decoded, {kilobytes} kB");
    assert!(decoded > 1000, "nothing was stressed: {listed}");
    assert!(kilobytes < 100 << 10, "the mount's process holds {kilobytes} kB");
    assert_eq!(mounted.scratch.read("log"), b"", "nothing went wrong");
}
