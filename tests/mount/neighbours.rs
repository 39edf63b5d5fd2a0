//! What neighbours test file systems with, as far as it can be had of one that is read-only: random reads as fsx makes
//! them, fio's verification, the errors that pjdfstest asks for, and the programs that look at all there is.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSliceMut};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::time::Duration;

use memmap2::Mmap;
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, SeekFrom, Timespec, Timestamps, UTIME_NOW, XattrFlags, fadvise, inotify,
    mknodat, removexattr, seek, setxattr, utimensat,
};
use rustix::io::{Errno, preadv};

use crate::mounted::*;
use crate::support::*;

/// How often [`random_reads_of_every_kind`] reads; `scripts/stress.sh` asks for more.
fn operations() -> usize {
    let asked = std::env::var("BIGSMALL_FSX_OPERATIONS");
    asked.map_or(2000, |operations| operations.parse().expect("a number of operations"))
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }
}

/// As fsx does with what only reads: `pread`, `preadv`, `sendfile` and maps at random places of random lengths, many of
/// them across the end, while pages are dropped and the file is closed and opened again, every other time with `O_DIRECT`.
#[test]
fn random_reads_of_every_kind() {
    let (scratch, original) = real();
    let mounted = Mounted::with_options(scratch, "models", "--cache-size 64KiB");
    let path = mounted.path("real.safetensors");
    let copy = mounted.scratch.path("copy");
    let (mut file, mut random) = (File::open(&path).unwrap(), Random(11));
    for operation in 0..operations() {
        let longest = [100, 5000, 70_000, 600_000][random.below(4)];
        let start = random.below(original.len() + 5000);
        let wanted = start.min(original.len())..(start + random.below(longest)).min(original.len());
        let wanted = wanted.start.min(wanted.end)..wanted.end;
        let expected = &original[wanted.clone()];
        // What is asked for reaches beyond the end as often as not.
        let mut got = vec![0xaa; wanted.len() + if wanted.end == original.len() { 100 } else { 0 }];
        let kind = random.below(6);
        match kind {
            0 => assert_eq!(read_to_end_of(&file, &mut got, start), expected.len(), "{wanted:?}"),
            1 => {
                let middle = random.below(got.len() + 1);
                let (first, second) = got.split_at_mut(middle);
                let mut parts = [IoSliceMut::new(first), IoSliceMut::new(second)];
                assert_eq!(preadv(&file, &mut parts, start as u64).unwrap(), expected.len(), "{wanted:?}");
            }
            2 => {
                // SAFETY: the mount is read-only and its source is not touched while the map lives.
                let map = unsafe { Mmap::map(&file).unwrap() };
                got[..expected.len()].copy_from_slice(&map[wanted.clone()]);
            }
            3 => {
                let target = File::create(&copy).unwrap();
                let (mut at, mut rest) = (start as u64, expected.len());
                while rest > 0 {
                    let sent = rustix::fs::sendfile(&target, &file, Some(&mut at), rest).unwrap();
                    assert!(sent > 0, "{wanted:?}");
                    rest -= sent;
                }
                got[..expected.len()].copy_from_slice(&fs::read(&copy).unwrap());
            }
            4 => {
                fadvise(&file, start as u64, None, rustix::fs::Advice::DontNeed).unwrap();
                continue;
            }
            _ => {
                // Past the page cache from now on, or through it.
                let flags = if random.below(2) == 0 { OFlags::DIRECT } else { OFlags::empty() };
                file = OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(&path).unwrap();
                continue;
            }
        }
        assert!(got[..expected.len()] == *expected, "operation {operation} of kind {kind}: wrong bytes in {wanted:?}");
    }
}

fn read_to_end_of(file: &File, out: &mut [u8], start: usize) -> usize {
    let mut len = 0;
    while len < out.len() {
        match file.read_at(&mut out[len..], (start + len) as u64).unwrap() {
            0 => break,
            read => len += read,
        }
    }
    len
}

/// fio writes a file with a checksum in each block, and compares them in the mount by each of the ways in which it can read,
/// through the page cache and past it.
#[test]
fn fio_verifies_what_it_wrote() {
    let scratch = Scratch::new();
    // Half of it can be compressed, so that it is decoded and not only copied.
    let writes = "--filename=file.bin --rw=write --do_verify=0 --buffer_compress_percentage=50 --refill_buffers";
    let written = fio(&scratch, writes);
    assert_eq!(written.code, 0, "{written:?}");
    fs::create_dir(scratch.path("models")).unwrap();
    scratch.ok("compress file.bin -o models/file.bs -q");
    assert!(fs::metadata(scratch.path("models/file.bs")).unwrap().len() < 6 << 20);
    let mounted = Mounted::new(scratch, "models");
    for engine in ["psync", "pvsync2", "mmap", "libaio", "io_uring"] {
        for order in ["read", "randread"] {
            for direct in [0, 1] {
                let how = format!(
                    "--readonly --filename=mnt/file.bin --rw={order} --ioengine={engine} --direct={direct} --iodepth=16 --numjobs=2"
                );
                let run = fio(&mounted.scratch, &how);
                assert_eq!((run.code, &*run.stderr), (0, ""), "{engine} {order} {direct}");
            }
        }
    }
    // That it would notice.
    let mut altered = mounted.scratch.read("file.bin");
    altered[5_000_000] ^= 1;
    mounted.scratch.write("file.bin", altered);
    assert_ne!(fio(&mounted.scratch, "--readonly --filename=file.bin --rw=read").code, 0);
}

/// Runs fio on a file of 8 MiB.
fn fio(scratch: &Scratch, arguments: &str) -> Run {
    let common = "--name=test --size=8m --bs=4k --verify=crc32c --verify_fatal=1 --minimal --output=fio.log";
    Run::from(scratch.command("fio").args(common.split(' ')).args(arguments.split(' ')).output().unwrap())
}

/// What each attempt to change something gives, beside [`nothing_can_be_written`](crate::promises), and what the names
/// give that cannot be. pjdfstest itself does not begin on a file system on which it cannot create a directory.
#[test]
fn errors_are_those_of_any_read_only_file_system() {
    let (scratch, _) = real();
    scratch.write("models/dir/inside", "x");
    symlink("around", scratch.path("models/about")).unwrap();
    symlink("about", scratch.path("models/around")).unwrap();
    symlink("real.safetensors", scratch.path("models/link")).unwrap();
    let mounted = Mounted::new(scratch, "models");
    let (file, dir, new) = (mounted.path("real.safetensors"), mounted.path("dir"), mounted.path("new"));
    let long = |len| mounted.path("n".repeat(len));
    let all = Mode::from_raw_mode(0o777);
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    let times = Timestamps { last_access: now, last_modification: now };
    let owner = fs::metadata(&file).unwrap();
    let expect = |what: &str, outcome: Result<(), Errno>, error: Errno| {
        assert_eq!(outcome, Err(error), "{what}");
    };
    let read = OpenOptions::new().read(true).clone();
    let open = |options: &mut OpenOptions, path: &Path| to_errno(options.open(path));

    expect("truncate", open(read.clone().write(true).truncate(true), &file), Errno::ROFS);
    expect("create", open(OpenOptions::new().write(true).create(true), &new), Errno::ROFS);
    expect("create what is there", open(OpenOptions::new().write(true).create_new(true), &file), Errno::EXIST);
    expect("a pipe", mknodat(CWD, &new, FileType::Fifo, all, 0), Errno::ROFS);
    expect("a socket", mknodat(CWD, &new, FileType::Socket, all, 0), Errno::ROFS);
    expect("rmdir", to_errno(fs::remove_dir(&dir)), Errno::ROFS);
    expect("rename a directory", to_errno(fs::rename(&dir, &new)), Errno::ROFS);
    expect("rename into", to_errno(fs::rename(mounted.scratch.path("real.safetensors"), &new)), Errno::XDEV);
    expect("chown", to_errno(chown(&file, Some(owner.uid()), None)), Errno::ROFS);
    expect("utimensat", utimensat(CWD, &file, &times, AtFlags::empty()), Errno::ROFS);
    expect("setxattr", setxattr(&file, "user.x", b"x", XattrFlags::empty()), Errno::ROFS);
    expect("removexattr", removexattr(&file, "user.bigsmall.ratio"), Errno::ROFS);
    expect("access", rustix::fs::access(&file, rustix::fs::Access::WRITE_OK), Errno::ROFS);
    expect("mkdir of what is there", to_errno(fs::create_dir(&dir)), Errno::EXIST);
    expect("unlink of what is not", to_errno(fs::remove_file(&new)), Errno::ROFS);
    expect("write to what is open for reading", to_errno(File::open(&file).unwrap().write_at(b"x", 0)), Errno::BADF);

    expect("a name of 255 bytes", to_errno(fs::metadata(long(255))), Errno::NOENT);
    expect("a name of 256 bytes", to_errno(fs::metadata(long(256))), Errno::NAMETOOLONG);
    expect("a path of 5000 bytes", to_errno(fs::metadata(mounted.path("a/".repeat(2500)))), Errno::NAMETOOLONG);
    expect("a file as a directory", to_errno(fs::metadata(file.join("x"))), Errno::NOTDIR);
    expect("a list of a file", to_errno(fs::read_dir(&file)), Errno::NOTDIR);
    expect("a directory as a file", to_errno(fs::read(&dir)), Errno::ISDIR);
    expect("a directory to write to", open(OpenOptions::new().write(true), &dir), Errno::ISDIR);
    expect("links in a circle", to_errno(fs::metadata(mounted.path("about"))), Errno::LOOP);
    let not_followed = OFlags::NOFOLLOW.bits() as i32;
    expect("a link not followed", open(read.clone().custom_flags(not_followed), &mounted.path("link")), Errno::LOOP);

    // No file has holes here, whatever its source has.
    let open = File::open(&file).unwrap();
    let end = open.metadata().unwrap().len();
    assert_eq!(seek(&open, SeekFrom::Data(5)), Ok(5));
    assert_eq!(seek(&open, SeekFrom::Hole(5)), Ok(end));
    assert_eq!(seek(&open, SeekFrom::Data(end)), Err(Errno::NXIO));
}

fn to_errno<T>(result: io::Result<T>) -> Result<(), Errno> {
    result.map(drop).map_err(|error| Errno::from_io_error(&error).expect("an error of the system"))
}

/// Which other users see what, and that root sees all.
#[test]
fn permissions_are_enforced() {
    let (scratch, original) = real();
    fs::copy(scratch.path("models/real.bs"), scratch.path("models/secret.bs")).unwrap();
    scratch.write("models/closed/config.json", "{}");
    for (name, mode) in [("", 0o755), ("models/secret.bs", 0o600), ("models/closed", 0o700), ("models/real.bs", 0o644)]
    {
        fs::set_permissions(scratch.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    let mounted = Mounted::with_options(scratch, "models", "--allow-other");
    let as_nobody = |program: &str, name: &str| {
        let mut command = mounted.scratch.command("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", program]).arg(mounted.path(name));
        command.output().unwrap()
    };
    assert!(as_nobody("cat", "real.safetensors").stdout == original);
    for (program, name) in [("cat", "secret.safetensors"), ("ls", "closed"), ("cat", "closed/config.json")] {
        let output = as_nobody(program, name);
        assert!(!output.status.success() && output.stdout.is_empty(), "{program} {name}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("Permission denied"), "{output:?}");
    }
    assert!(mounted.read("secret.safetensors") == original);
    // A link gets nobody behind a directory that they may not enter.
    let link = |target: &Path, name: &str| symlink(target, mounted.scratch.path("models").join(name)).unwrap();
    for directory in ["models/closed", "elsewhere"] {
        fs::create_dir_all(mounted.scratch.path(directory)).unwrap();
        fs::copy(mounted.scratch.path("models/real.bs"), mounted.scratch.path(directory).join("hidden.bs")).unwrap();
    }
    let elsewhere = mounted.scratch.path("elsewhere");
    fs::set_permissions(&elsewhere, fs::Permissions::from_mode(0o755)).unwrap();
    link(Path::new("closed/hidden.bs"), "inside.bs");
    link(&elsewhere.join("hidden.bs"), "outside.bs");
    eventually("the links", || mounted.path("outside.safetensors").exists());
    assert!(as_nobody("cat", "outside.safetensors").stdout == original);
    assert!(!as_nobody("cat", "inside.safetensors").status.success());
    assert_eq!(fs::read_link(mounted.path("inside.bs")).unwrap(), Path::new("closed/hidden.bs"), "it is itself");
    // Nor does one that takes the place of a directory in use.
    fs::create_dir(mounted.scratch.path("models/open")).unwrap();
    fs::set_permissions(mounted.scratch.path("models/open"), fs::Permissions::from_mode(0o755)).unwrap();
    eventually("the directory", || mounted.path("open").is_dir());
    let open = File::open(mounted.path("open")).unwrap();
    fs::remove_dir(mounted.scratch.path("models/open")).unwrap();
    link(Path::new("closed"), "open");
    let reached = rustix::fs::statat(&open, "config.json", AtFlags::empty());
    assert!(matches!(reached, Err(Errno::LOOP | Errno::NOENT | Errno::STALE)), "{reached:?}");
    drop(open);
    // Without the option nobody sees anything.
    mounted.scratch.ok("umount mnt");
    mounted.scratch.ok("mount models mnt");
    assert!(!as_nobody("cat", "real.safetensors").status.success());
    assert!(mounted.read("real.safetensors") == original);
}

/// Programs that walk through all there is, describe it, or open it to show it: none has anything to complain about.
#[test]
fn programs_that_look_at_everything_see_nothing_odd() {
    let (scratch, _) = real();
    scratch.write("models/sub/dir/config.json", "{\"needle\": 1}\n");
    symlink("sub/dir/config.json", scratch.path("models/link.json")).unwrap();
    let mounted = Mounted::new(scratch, "models");
    let mount = mounted.path("").canonicalize().unwrap();
    for (line, says) in [
        ("find MNT -ls", "real.safetensors"),
        ("ls -laR MNT", "real.safetensors"),
        ("du -a MNT", "real.safetensors"),
        ("stat MNT/real.safetensors", "559968"),
        ("file MNT/real.safetensors MNT/link.json", "config.json"),
        ("grep -r needle MNT", "config.json:{\"needle\": 1}"),
        ("gio info MNT/real.safetensors", "standard::size: 559968"),
        ("gio list MNT", "real.safetensors"),
        ("updatedb --require-visibility no --database-root MNT --output index", ""),
        ("locate --database index safetensors", "real.safetensors"),
        ("vim.tiny -u NONE -R -es +%print +quit! MNT/sub/dir/config.json", "needle"),
    ] {
        let line = line.replace("MNT", mount.to_str().unwrap());
        let mut words = line.split(' ');
        let output = mounted.scratch.command(words.next().unwrap()).args(words).output();
        let run = Run::from(output.unwrap_or_else(|e| panic!("{line}: {e}")));
        assert_eq!((run.code, &*run.stderr), (0, ""), "{line}: {}", run.stdout);
        assert!(run.stdout.contains(says), "{line}: {}", run.stdout);
    }
}

/// Who watches a mount hears of what is done through it, and is not told of changes of the source, as on a network file system.
#[test]
fn watchers_hear_what_is_done_through_the_mount() {
    let (scratch, original) = real();
    let mounted = Mounted::new(scratch, "models");
    let watcher = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
    let all = inotify::WatchFlags::ALL_EVENTS;
    inotify::add_watch(&watcher, mounted.path(""), all).unwrap();
    let heard = || {
        let mut buffer = [std::mem::MaybeUninit::uninit(); 8192];
        let mut reader = inotify::Reader::new(&watcher, &mut buffer);
        let mut names = Vec::new();
        while let Ok(event) = reader.next() {
            names.extend(event.file_name().map(|name| name.to_str().unwrap().to_owned()));
        }
        names
    };
    assert!(mounted.read("real.safetensors") == original);
    assert!(heard().iter().any(|name| name == "real.safetensors"));
    mounted.scratch.write("models/late.txt", "late");
    eventually("the new file", || fs::metadata(mounted.path("late.txt")).is_ok());
    std::thread::sleep(Duration::from_millis(100));
    assert!(heard().iter().all(|name| name != "late.txt"));
}
