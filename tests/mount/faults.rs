//! What may go wrong underneath a live mount: readers get EIO, the mount lives, neighbours are not disturbed.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use memmap2::Mmap;
use rustix::fs::{Advice, fadvise};
use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::disk::Disk;
use crate::mounted::*;
use crate::support::*;

const EIO: i32 = 5;
const EMFILE: i32 = 24;
const SIGBUS: i32 = 7;

/// Reads all of a file in pieces, and counts the bytes that cannot be read. All others must be right.
#[track_caller]
fn lost(file: &File, original: &[u8]) -> usize {
    let mut lost = 0;
    for start in (0..original.len()).step_by(4096) {
        let mut piece = vec![0; 4096.min(original.len() - start)];
        match file.read_exact_at(&mut piece, start as u64) {
            Ok(()) => assert!(piece == original[start..start + piece.len()], "wrong bytes at {start}"),
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(EIO), "{error}");
                lost += piece.len();
            }
        }
    }
    lost
}

/// A mount of two equal containers in chunks of 16 KiB, one of which is to be harmed.
fn victim() -> (Mounted, Vec<u8>) {
    let (scratch, original) = real();
    fs::copy(scratch.path("models/real.bs"), scratch.path("models/victim.bs")).unwrap();
    (Mounted::with_options(scratch, "models", "--log log"), original)
}

#[test]
fn a_container_cut_short_under_the_mount_gives_eio() {
    let (mounted, original) = victim();
    let open = File::open(mounted.path("victim.safetensors")).unwrap();
    let container = mounted.scratch.path("models/victim.bs");
    let half = fs::metadata(&container).unwrap().len() / 2;
    OpenOptions::new().write(true).open(&container).unwrap().set_len(half).unwrap();
    let lost = lost(&open, &original);
    assert!(lost > original.len() / 4 && lost < original.len() * 3 / 4, "about half is lost, not {lost}");
    assert!(mounted.read("real.safetensors") == original, "the neighbour is not disturbed");
    eventually("the file that it is now", || mounted.path("victim.bs").exists());
    let log = String::from_utf8(mounted.scratch.read("log")).unwrap();
    assert!(log.contains("bigsmall: error: ") && log.contains("victim.bs"), "{log}");
}

#[test]
fn a_container_overwritten_under_the_mount_never_gives_wrong_bytes() {
    let (mounted, original) = victim();
    let open = File::open(mounted.path("victim.safetensors")).unwrap();
    let container = OpenOptions::new().write(true).open(mounted.scratch.path("models/victim.bs")).unwrap();
    container.write_all_at(&vec![0xa5; 50_000], 1000).unwrap();
    let lost = lost(&open, &original);
    assert!(lost > 50_000, "what was overwritten is lost, not only {lost} bytes");
    assert!(lost < 300_000, "and nothing else: {lost} bytes");
    assert!(mounted.read("real.safetensors") == original);
}

/// In the process that may die of it: the file to map and touch all over.
const MAPPED: &str = "BIGSMALL_TEST_MAPPED";

/// Touches all of the file to map, if this is the process that is to do so, and says whether it is.
fn has_touched() -> bool {
    let Some(path) = std::env::var_os(MAPPED) else { return false };
    // SAFETY: it is in a mount that is read-only; what it is damaged by has happened.
    let map = unsafe { Mmap::map(&File::open(path).unwrap()).unwrap() };
    std::hint::black_box(map.iter().map(|&byte| u64::from(byte)).sum::<u64>());
    true
}

/// How a process ends that maps a file and touches all of it: one that runs this test once more, which has to begin with
/// [`has_touched`].
fn touch(path: &Path) -> ExitStatus {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", thread::current().name().unwrap()]).env(MAPPED, path);
    child.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap()
}

#[test]
fn a_program_that_maps_a_damaged_range_gets_sigbus_as_on_any_disk() {
    if has_touched() {
        return;
    }
    let (mounted, original) = victim();
    let victim = mounted.path("victim.safetensors");
    assert!(touch(&victim).success());
    let container = OpenOptions::new().write(true).open(mounted.scratch.path("models/victim.bs")).unwrap();
    container.write_all_at(&vec![0xa5; 50_000], 1000).unwrap();
    eventually("SIGBUS", || touch(&victim).signal() == Some(SIGBUS));
    assert!(touch(&mounted.path("real.safetensors")).success());
    assert!(mounted.read("real.safetensors") == original, "the mount and the neighbour are not disturbed");
}

#[test]
fn errors_of_the_disk_reach_those_who_read_what_is_lost_and_nobody_else() {
    if has_touched() {
        return;
    }
    let (scratch, original) = real();
    fs::copy(scratch.path("models/real.bs"), scratch.path("models/victim.bs")).unwrap();
    let disk = Disk::with_files_of(&scratch.path("models"));
    let mounted = Mounted::with_options(scratch, disk.path(), "--log log");
    let open = File::open(mounted.path("victim.safetensors")).unwrap();
    disk.breaks("victim.bs", 50_000..150_000);
    let gone = lost(&open, &original);
    assert!((100_000..250_000).contains(&gone), "100,000 bytes of the container are lost, not {gone} of the original");
    assert_eq!(touch(&mounted.path("victim.safetensors")).signal(), Some(SIGBUS));
    assert!(mounted.read("real.safetensors") == original, "the neighbour is not disturbed");
    let log = String::from_utf8(mounted.scratch.read("log")).unwrap();
    assert!(log.contains("victim.bs: chunk ") && log.contains("Input/output error"), "{log}");
    // An error is not remembered.
    disk.recovers();
    assert_eq!(lost(&open, &original), 0);
    assert!(touch(&mounted.path("victim.safetensors")).success());
}

#[test]
fn a_container_that_the_disk_does_not_give_is_shown_when_it_does() {
    let (scratch, original) = real();
    fs::copy(scratch.path("models/real.bs"), scratch.path("models/victim.bs")).unwrap();
    let disk = Disk::with_files_of(&scratch.path("models"));
    disk.breaks("victim.bs", 0..u64::MAX);
    let mounted = Mounted::with_options(scratch, disk.path(), "--log log");
    assert_eq!(mounted.names(), ["real.safetensors", "victim.bs"], "as the file that it is");
    assert_eq!(errno(fs::read(mounted.path("victim.bs"))), EIO);
    assert!(mounted.read("real.safetensors") == original);
    disk.recovers();
    eventually("the original", || mounted.names() == ["real.safetensors", "victim.safetensors"]);
    assert!(mounted.read("victim.safetensors") == original);
}

#[test]
fn what_the_disk_does_not_give_is_restored_from_the_sidecar() {
    let (scratch, original) = real();
    scratch.ok("protect models/real.bs -q");
    let disk = Disk::with_files_of(&scratch.path("models"));
    let mounted = Mounted::new(scratch, disk.path());
    disk.breaks("real.bs", 60_000..70_000);
    assert!(mounted.read("real.safetensors") == original);
    let listed = mounted.scratch.json("mounts --json");
    let ours = listed["mounts"].as_array().unwrap().iter().find(|m| at(m, &mounted)).unwrap();
    assert!(ours["stats"]["chunks_healed"].as_u64().unwrap() > 0, "{ours}");
}

#[test]
fn without_memory_a_read_fails_and_the_mount_lives() {
    let (scratch, original) = real();
    // Whose chunks need more memory than those of its neighbour.
    let large = model(&[("a", "BF16", 2, 24 << 20)]);
    scratch.write("large.safetensors", &large);
    scratch.ok("compress large.safetensors -o models/large.bs --chunk-size 8MiB -q");
    let mounted = Mounted::with_options(scratch, "models", "--log log");
    let neighbour = File::open(mounted.path("real.safetensors")).unwrap();
    let large_file = File::open(mounted.path("large.safetensors")).unwrap();
    assert_eq!(lost(&neighbour, &original), 0);
    let daemon = mounted.daemon();
    let status = fs::read_to_string(format!("/proc/{daemon}/status")).unwrap();
    let has = status.lines().find_map(|line| line.strip_prefix("VmData:")?.trim().strip_suffix(" kB")).unwrap();
    // Of all that can be written to, what is reserved for it included. Small things are always needed.
    let little = Rlimit { current: Some((has.parse::<u64>().unwrap() << 10) + (1 << 20)), maximum: None };
    let daemon = Pid::from_raw(daemon as i32);
    let before = prlimit(daemon, Resource::Data, little).unwrap();
    assert_eq!(errno(large_file.read_exact_at(&mut [0; 4096], 9 << 20)), EIO);
    fadvise(&neighbour, 0, None, Advice::DontNeed).unwrap();
    assert_eq!(lost(&neighbour, &original), 0, "the neighbour is not disturbed");
    let log = String::from_utf8(mounted.scratch.read("log")).unwrap();
    assert!(log.contains("no memory for "), "{log}");
    prlimit(daemon, Resource::Data, before).unwrap();
    assert!(mounted.read("large.safetensors") == large);
}

#[test]
fn damage_is_repaired_while_it_is_read() {
    let (mounted, original) = victim();
    mounted.scratch.ok("protect models/victim.bs");
    let damage = |offset: u64, len: usize| {
        let path = mounted.scratch.path("models/victim.bs");
        OpenOptions::new().write(true).open(path).unwrap().write_all_at(&vec![0xa5; len], offset).unwrap();
    };
    let healed = || {
        let listed = mounted.scratch.json("mounts --json");
        let ours = listed["mounts"].as_array().unwrap().iter().find(|m| at(m, &mounted)).unwrap().clone();
        assert_eq!(ours["stats"]["chunks_failed"], 0);
        ours["stats"]["chunks_healed"].as_u64().unwrap()
    };
    // A burst of chunks.
    damage(1000, 30_000);
    assert!(mounted.read("victim.safetensors") == original);
    assert!(healed() >= 30_000 / (16 << 10), "each chunk of the burst is counted, not {}", healed());
    // And the index.
    let len = fs::metadata(mounted.scratch.path("models/victim.bs")).unwrap().len();
    damage(len - 300, 200);
    eventually("the new look at the file", || {
        let log = String::from_utf8(mounted.scratch.read("log")).unwrap();
        let _ = File::open(mounted.path("victim.safetensors"));
        log.contains("its index is damaged")
    });
    assert!(mounted.read("victim.safetensors") == original);
    // On disk it is as damaged as before.
    assert_eq!(mounted.scratch.run(["verify", "models/victim.bs"]).code, 1);
}

#[test]
fn a_source_that_is_removed_leaves_what_is_open() {
    let (mounted, original) = victim();
    let open = File::open(mounted.path("victim.safetensors")).unwrap();
    fs::remove_dir_all(mounted.scratch.path("models")).unwrap();
    assert_eq!(lost(&open, &original), 0);
    eventually("its end", || fs::read_dir(mounted.path("")).is_err());
    assert!(!mounted.path("real.safetensors").exists());
    let listed = mounted.scratch.json("mounts --json");
    let ours = listed["mounts"].as_array().unwrap().iter().find(|m| at(m, &mounted));
    assert_eq!(ours.expect("the mount is listed")["status"], "alive");
    // And when it comes back, so does the view.
    fs::create_dir(mounted.scratch.path("models")).unwrap();
    mounted.scratch.write("models/new", "new");
    eventually("the new source", || mounted.names() == ["new"]);
}

#[test]
fn a_source_that_leads_into_its_own_mount_does_not_stall_it() {
    let (scratch, original) = real();
    let mnt = scratch.path("").canonicalize().unwrap().join("mnt");
    let target = |name: &str| mnt.join(name);
    let models = scratch.path("models");
    for number in 0..8 {
        scratch.write(format!("models/sub/file{number}"), "x");
        symlink(target(&format!("sub/file{number}")), models.join(format!("link{number}.bs"))).unwrap();
    }
    symlink(target("itself.bs"), models.join("itself.bs")).unwrap();
    let mounted = Mounted::new(scratch, "models");
    let device = fs::metadata(mounted.path("")).unwrap().dev();
    // Many at once, each of which might wait for the others.
    let look = |script: &str| {
        let look = |_| {
            mounted
                .scratch
                .command("sh")
                .args(["-c", script])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap()
        };
        let mut all: Vec<_> = (0..8).map(look).collect();
        let start = Instant::now();
        while !all.iter_mut().all(|process| process.try_wait().unwrap().is_some()) {
            if start.elapsed() > PATIENCE {
                // Or nothing that waits for the mount could ever end.
                let _ = fs::write(format!("/sys/fs/fuse/connections/{}/abort", rustix::fs::minor(device)), "1");
                panic!("{script}: not within {PATIENCE:?}");
            }
            thread::sleep(Duration::from_millis(20));
        }
    };
    look(
        "for i in 0 1 2 3 4 5 6 7; do stat mnt/link$i.safetensors & done; wait; ls -lR mnt; stat mnt/itself.safetensors mnt/itself.bs",
    );
    assert!(mounted.path("link0.bs").symlink_metadata().unwrap().is_symlink(), "such a link is itself");
    // When the source gives way to a link to what it is shown as, by those who moved it.
    let moved = mounted.scratch.path("moved");
    fs::rename(&models, &moved).unwrap();
    symlink(target(""), &models).unwrap();
    thread::sleep(Duration::from_millis(1100));
    look("ls -lR mnt; stat -f mnt; stat mnt/real.safetensors mnt/sub/file1; cat mnt/real.safetensors");
    fs::remove_file(&models).unwrap();
    fs::rename(&moved, &models).unwrap();
    eventually("the source", || mounted.path("real.safetensors").exists());
    assert!(mounted.read("real.safetensors") == original);
}

#[test]
fn without_descriptors_an_open_fails_and_says_so() {
    let (scratch, original) = real();
    for number in 0..200 {
        fs::copy(scratch.path("models/real.bs"), scratch.path(format!("models/copy{number}.bs"))).unwrap();
    }
    fs::create_dir(scratch.path("mnt")).unwrap();
    let mounted = Mounted { scratch };
    let script = format!("ulimit -n 64 && exec {BIGSMALL} mount models mnt");
    assert!(mounted.scratch.command("sh").args(["-c", &script]).status().unwrap().success());
    let names = mounted.names();
    assert_eq!(names.len(), 201);
    assert!(names.iter().all(|name| name.ends_with(".safetensors")), "{names:?}");
    let open: Vec<_> = names.iter().map(|name| File::open(mounted.path(name))).collect();
    assert!(open.iter().filter(|file| file.is_ok()).count() > 30);
    let errors: Vec<_> = open.iter().filter_map(|file| file.as_ref().err()?.raw_os_error()).collect();
    assert!(!errors.is_empty() && errors.iter().all(|&errno| errno == EMFILE), "{errors:?}");
    for file in open.iter().flatten() {
        assert_eq!(lost(file, &original), 0);
    }
    drop(open);
    eventually("all of it again", || names.iter().all(|name| File::open(mounted.path(name)).is_ok()));
}

/// Whether an entry of `mounts --json` is about this mount.
pub fn at(entry: &serde_json::Value, mounted: &Mounted) -> bool {
    let mountpoint = mounted.scratch.path("").canonicalize().unwrap().join("mnt");
    entry["mountpoint"].as_str().map(Path::new) == Some(&mountpoint)
}
