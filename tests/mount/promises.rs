//! Contents, names, attributes and the life of a mount.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirEntryExt, FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use crate::mounted::*;
use crate::support::*;
use memmap2::{Mmap, MmapOptions};

/// Linux's numbers of the errors that are promised.
const EIO: i32 = 5;
const EROFS: i32 = 30;

#[test]
fn every_byte_is_the_originals() {
    let (scratch, original) = real();
    let mounted = Mounted::new(scratch, "models");
    assert_eq!(mounted.names(), ["real.safetensors"]);
    assert!(mounted.read("real.safetensors") == original);
    let file = File::open(mounted.path("real.safetensors")).unwrap();
    for (offset, len) in [(0, 1), (1, 7), (4095, 2), (16_383, 3), (16_384, 16_384), (100_001, 77_777)] {
        let mut bytes = vec![0; len];
        file.read_exact_at(&mut bytes, offset).unwrap();
        assert!(bytes == original[offset as usize..offset as usize + len], "{len} bytes at {offset}");
    }
    let mut beyond = [0; 10];
    assert_eq!(file.read_at(&mut beyond, original.len() as u64 - 3).unwrap(), 3);
    assert_eq!(file.read_at(&mut beyond, original.len() as u64 + 3).unwrap(), 0);
}

#[test]
fn files_can_be_mapped() {
    let (scratch, original) = real();
    let mounted = Mounted::new(scratch, "models");
    let file = File::open(mounted.path("real.safetensors")).unwrap();
    // SAFETY: the mount is read-only and its source is not touched while the maps live.
    let (shared, mut private) = unsafe { (Mmap::map(&file).unwrap(), MmapOptions::new().map_copy(&file).unwrap()) };
    assert!(shared[..] == original[..]);
    private[0] ^= 1;
    assert!(private[1..] == original[1..] && private[0] != original[0]);
    assert!(shared[..] == original[..], "what is written to a private map stays there");
    safetensors::SafeTensors::deserialize(&shared).unwrap();
}

#[test]
fn attributes_are_true() {
    let (scratch, original) = real();
    set_attributes(&scratch.path("models/real.bs"), 0o640, (1_500_000_000, 123_456_789));
    scratch.write("models/plain.txt", "plain");
    let container = fs::metadata(scratch.path("models/real.bs")).unwrap();
    let (plain, source) = (fs::metadata(scratch.path("models/plain.txt")).unwrap(), scratch.path("models"));
    let mounted = Mounted::new(scratch, "models");
    let shown = fs::metadata(mounted.path("real.safetensors")).unwrap();
    assert_eq!(shown.len(), original.len() as u64);
    assert_eq!(shown.blocks(), container.blocks(), "du shows what is stored");
    assert!(shown.blocks() * 512 < shown.len());
    assert_eq!((shown.mtime(), shown.mtime_nsec()), (1_500_000_000, 123_456_789));
    assert_eq!(shown.mode() & 0o7777, 0o440, "its permissions, but for writing");
    assert_eq!((shown.uid(), shown.gid()), (container.uid(), container.gid()));
    let shown_plain = fs::metadata(mounted.path("plain.txt")).unwrap();
    assert_eq!((shown_plain.len(), shown_plain.mtime()), (plain.len(), plain.mtime()));
    assert_ne!(shown.ino(), shown_plain.ino());
    assert_eq!(shown.dev(), shown_plain.dev());
    let free = |path: &Path| {
        let output = Command::new("stat").args(["-f", "-c", "%b %f %a %S"]).arg(path).output().unwrap();
        String::from_utf8(output.stdout).unwrap().split(' ').next().unwrap().parse::<u64>().unwrap()
    };
    assert_eq!(free(&mounted.path("")), free(&source), "df shows the file system of the source");
}

#[test]
fn inode_numbers_stay() {
    let (scratch, _) = real();
    let mounted = Mounted::new(scratch, "models");
    let number = || fs::metadata(mounted.path("real.safetensors")).unwrap().ino();
    let first = number();
    // The entry keeps the directory open, so it must not live on.
    let listed = fs::read_dir(mounted.path("")).unwrap().next().unwrap().unwrap().ino();
    assert_eq!(listed, first);
    thread::sleep(Duration::from_millis(1200));
    assert_eq!(number(), first, "when the kernel has asked again");
    mounted.scratch.ok("umount mnt");
    mounted.scratch.ok("mount models mnt");
    assert_eq!(number(), first, "in the next mount");
}

#[test]
fn layers_of_a_source_are_one_directory() {
    let (scratch, original) = real();
    for name in ["models/below.json", "upper/above.json", "upper/sub/inside.json"] {
        scratch.write(name, "{}");
    }
    fs::create_dir(scratch.path("mnt")).unwrap();
    symlink("below.json", scratch.path("models/link")).unwrap();
    // As in a container: the layers are on different file systems, and neither tells of the other.
    let script = "\
        mkdir lower work source && mount -t tmpfs none lower && cp -a models/. lower && cp models/real.bs upper/again.bs &&
        mkdir disk && mount -t tmpfs none disk && cp -a upper disk && mkdir disk/work &&
        mount -t overlay -o lowerdir=lower,upperdir=disk/upper,workdir=disk/work none source &&
        $BIGSMALL mount source mnt && cat mnt/real.safetensors mnt/again.safetensors > both &&
        cd mnt && find . ! -type d -printf '%i %p\\n' | sort -k2 > ../stat && find . -type f,l | sort > ../names &&
        python3 -c 'import os; [print(e.inode(), e.path) for d in (\".\", \"./sub\") for e in os.scandir(d) if not e.is_dir()]' | sort -k2 > ../listed &&
        cd .. && $BIGSMALL umount mnt";
    let mut command = scratch.command("unshare");
    command.args(["--mount", "sh", "-c", script]).env("BIGSMALL", BIGSMALL);
    let run = Run::from(command.output().unwrap());
    assert_eq!((run.code, &*run.stderr), (0, ""));
    assert!(scratch.read("both") == [&original[..], &original[..]].concat());
    let text = |name: &str| String::from_utf8(scratch.read(name)).unwrap();
    let names = "./above.json\n./again.safetensors\n./below.json\n./link\n./real.safetensors\n./sub/inside.json\n";
    assert_eq!(text("names"), names);
    assert_eq!(text("listed"), text("stat"), "what is listed has the number that it has");
}

#[test]
fn nothing_can_be_written() {
    let (scratch, original) = real();
    let mounted = Mounted::new(scratch, "models");
    let (file, new) = (mounted.path("real.safetensors"), mounted.path("new"));
    assert_eq!(errno(OpenOptions::new().write(true).open(&file)), EROFS);
    assert_eq!(errno(OpenOptions::new().append(true).open(&file)), EROFS);
    assert_eq!(errno(File::create(&new)), EROFS);
    assert_eq!(errno(fs::create_dir(&new)), EROFS);
    assert_eq!(errno(fs::remove_file(&file)), EROFS);
    assert_eq!(errno(fs::rename(&file, &new)), EROFS);
    assert_eq!(errno(fs::hard_link(&file, &new)), EROFS);
    assert_eq!(errno(symlink("x", &new)), EROFS);
    assert_eq!(errno(fs::set_permissions(&file, fs::Permissions::from_mode(0o777))), EROFS);
    assert!(mounted.read("real.safetensors") == original);
}

#[test]
fn everything_else_appears_as_itself() {
    let (scratch, original) = real();
    scratch.write("models/config.json", "{}");
    scratch.write("models/deep/er/empty", "");
    scratch.write(Path::new("models/deep").join(OsStr::from_bytes(b"caf\xe9.bin")), "latin 1");
    fs::copy(scratch.path("models/real.bs"), scratch.path("models/deep/er/again.bs")).unwrap();
    symlink("config.json", scratch.path("models/link.json")).unwrap();
    symlink("nowhere", scratch.path("models/dangling")).unwrap();
    symlink("../real.bs", scratch.path("models/deep/linked.bs")).unwrap();
    let mounted = Mounted::new(scratch, "models");
    assert_eq!(mounted.names(), ["config.json", "dangling", "deep", "link.json", "real.safetensors"]);
    assert_eq!(names_in(&mounted.path("deep")), ["caf\u{fffd}.bin", "er", "linked.safetensors"]);
    assert_eq!(names_in(&mounted.path("deep/er")), ["again.safetensors", "empty"]);
    assert_eq!(mounted.read("config.json"), b"{}");
    assert_eq!(fs::read_link(mounted.path("link.json")).unwrap(), Path::new("config.json"));
    assert_eq!(mounted.read("link.json"), b"{}");
    assert_eq!(fs::read_link(mounted.path("dangling")).unwrap(), Path::new("nowhere"));
    assert_eq!(fs::read(mounted.path("deep").join(OsStr::from_bytes(b"caf\xe9.bin"))).unwrap(), b"latin 1");
    assert!(mounted.read("deep/er/again.safetensors") == original);
    assert!(mounted.read("deep/linked.safetensors") == original, "a link to a container shows its original");
    assert!(!mounted.path("real.bs").exists(), "the container itself is hidden");
}

#[test]
fn a_real_file_keeps_its_name_and_the_container_too() {
    let (scratch, original) = real();
    scratch.write("models/real.safetensors", "not that");
    let container = scratch.read("models/real.bs");
    // Recorded without an extension, so shown as `two.safetensors` as well; the shorter name comes first.
    scratch.write("two", "two");
    scratch.ok("compress two -o models/two.safetensors.bs -q");
    fs::copy(scratch.path("models/real.bs"), scratch.path("models/two.bs")).unwrap();
    let mounted = Mounted::new(scratch, "models");
    assert_eq!(mounted.names(), ["real.bs", "real.safetensors", "two.safetensors", "two.safetensors.bs"]);
    assert_eq!(mounted.read("real.safetensors"), b"not that");
    assert!(mounted.read("real.bs") == container);
    assert!(mounted.read("two.safetensors") == original);
}

#[test]
fn a_broken_container_does_not_disturb_its_neighbours() {
    let (scratch, original) = real();
    let container = scratch.read("models/real.bs");
    scratch.write("models/short.bs", &container[..container.len() / 2]);
    scratch.write("models/empty.bs", "");
    let mut newer = container.clone();
    newer[10] = 77;
    scratch.write("models/newer.bs", &newer);
    let mut flipped = container.clone();
    flipped[container.len() / 2] ^= 4;
    scratch.write("models/flipped.bs", &flipped);
    let mounted = Mounted::with_options(scratch, "models", "--log log");
    assert_eq!(mounted.names(), ["empty.bs", "flipped.safetensors", "newer.bs", "real.safetensors", "short.bs"]);
    assert!(mounted.read("short.bs") == container[..container.len() / 2], "what cannot be opened is shown as it is");
    assert!(mounted.read("newer.bs") == newer);
    assert!(mounted.read("real.safetensors") == original);

    let file = File::open(mounted.path("flipped.safetensors")).unwrap();
    let (mut lost, mut step) = (0, vec![0; 4096]);
    for offset in (0..original.len() as u64).step_by(4096) {
        let len = step.len().min(original.len() - offset as usize);
        match file.read_exact_at(&mut step[..len], offset) {
            Ok(()) => assert!(step[..len] == original[offset as usize..][..len], "wrong bytes at {offset}"),
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(EIO));
                lost += len;
            }
        }
    }
    assert!(
        (1..=3 * 16_384).contains(&lost),
        "a flipped bit costs its chunk and what the kernel reads with it, not {lost} bytes"
    );
    let log = String::from_utf8(mounted.scratch.read("log")).unwrap();
    assert!(log.contains("flipped.bs: chunk ") && log.contains("checksum"), "{log}");
    assert!(log.contains("short.bs"), "{log}");
}

#[test]
fn a_single_container_can_be_mounted() {
    let (scratch, original) = real();
    let mounted = Mounted::new(scratch, "models/real.bs");
    assert_eq!(mounted.names(), ["real.safetensors"]);
    assert!(mounted.read("real.safetensors") == original);
}

#[test]
fn changes_of_the_source_show() {
    let (scratch, original) = real();
    let other = small_model();
    scratch.write("other.safetensors", &other);
    scratch.ok("compress other.safetensors -o other.bs -q");
    let mounted = Mounted::new(scratch, "models");
    let old = File::open(mounted.path("real.safetensors")).unwrap();
    assert!(mounted.read("real.safetensors") == original);
    fs::rename(mounted.scratch.path("other.bs"), mounted.scratch.path("models/real.bs")).unwrap();
    eventually("the new contents", || mounted.read("real.safetensors") == other);
    let mut bytes = vec![0; original.len()];
    old.read_exact_at(&mut bytes, 0).unwrap();
    assert!(bytes == original, "what is open keeps the old contents");
    assert_eq!(old.metadata().unwrap().len(), original.len() as u64);
    assert!(mounted.read("real.safetensors") == other, "and the new ones are not mixed with them");
    mounted.scratch.write("models/late.txt", "late");
    eventually("a new file", || mounted.names() == ["late.txt", "real.safetensors"]);
    fs::remove_file(mounted.scratch.path("models/real.bs")).unwrap();
    eventually("a file that is gone", || mounted.names() == ["late.txt"]);
}

#[test]
fn listings_follow_what_they_are_made_from() {
    let (scratch, original) = real();
    fs::rename(scratch.path("models/real.bs"), scratch.path("blob")).unwrap();
    symlink("../blob", scratch.path("models/linked.bs")).unwrap();
    let mounted = Mounted::new(scratch, "models");
    assert_eq!([mounted.names(), mounted.names()], [["linked.safetensors"], ["linked.safetensors"]]);
    // The directory itself stays as it is.
    let blob = mounted.scratch.path("blob");
    let container = fs::read(&blob).unwrap();
    fs::write(&blob, "no container").unwrap();
    eventually("a name that is no container's any more", || mounted.names() == ["linked.bs"]);
    fs::write(&blob, container).unwrap();
    eventually("a name that is a container's again", || mounted.names() == ["linked.safetensors"]);
    assert!(mounted.read("linked.safetensors") == original);
}

#[test]
fn a_listing_that_was_broken_off_is_no_reason_to_miss_names() {
    let (scratch, _) = real();
    for number in 0..3000 {
        scratch.write(format!("models/{number:040}.txt"), "");
    }
    let mounted = Mounted::new(scratch, "models");
    // Whoever reads only the first names leaves the kernel with a part of them.
    let first = fs::read_dir(mounted.path("")).unwrap().next();
    assert!(first.is_some_and(|entry| entry.is_ok()));
    for _ in 0..3 {
        assert_eq!(mounted.names().len(), 3001);
    }
}

#[test]
fn more_containers_than_are_kept_open_are_listed_and_read() {
    let (scratch, original) = real();
    for number in 0..600 {
        fs::hard_link(scratch.path("models/real.bs"), scratch.path(format!("models/{number}.bs"))).unwrap();
    }
    let mounted = Mounted::new(scratch, "models");
    for _ in 0..2 {
        let names = mounted.names();
        assert_eq!(names.len(), 601);
        for name in &names {
            assert_eq!(fs::metadata(mounted.path(name)).unwrap().len(), original.len() as u64, "{name}");
        }
        for name in [&names[0], &names[300], &names[600]] {
            assert!(mounted.read(name) == original, "{name}");
        }
    }
}

#[test]
fn many_readers_at_random_see_the_same() {
    let (scratch, original) = real();
    // A cache that holds two chunks.
    let mounted = Mounted::with_options(scratch, "models", "--cache-size 32KiB");
    let path = mounted.path("real.safetensors");
    thread::scope(|scope| {
        for seed in 0..48u64 {
            let (path, original) = (&path, &original);
            scope.spawn(move || {
                let file = File::open(path).unwrap();
                // SAFETY: the mount is read-only and its source is not touched while the map lives.
                let map = unsafe { Mmap::map(&file).unwrap() };
                let mut random = seed;
                for _ in 0..150 {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    let start = (random >> 33) as usize % (original.len() - 9000);
                    let len = 1 + (random >> 20) as usize % 9000;
                    if random & 1 == 0 {
                        assert!(map[start..start + len] == original[start..start + len]);
                    } else {
                        let mut bytes = vec![0; len];
                        file.read_exact_at(&mut bytes, start as u64).unwrap();
                        assert!(bytes == original[start..start + len]);
                    }
                }
            });
        }
    });
}

#[test]
fn one_source_can_be_mounted_twice() {
    let (scratch, original) = real();
    let mounted = Mounted::new(scratch, "models");
    let second = Mounted { scratch: Scratch::new() };
    fs::create_dir(second.path("")).unwrap();
    let source = mounted.scratch.path("models");
    second.scratch.ok(&format!("mount {} mnt", source.display()));
    assert!(second.read("real.safetensors") == original && mounted.read("real.safetensors") == original);
}

#[test]
fn a_process_that_ends_leaves_the_next_mount_alone() {
    let (scratch, _) = real();
    let mounted = Mounted::new(scratch, "models");
    // A race: without the care that is under test, about every second run of so many rounds went wrong.
    for round in 0..300 {
        // Not ours, which would wait for the process that served the mount. Another test that lists all mounts may just be asking this one.
        let unmounted = || Command::new("umount").arg(mounted.path("")).status().unwrap().success();
        eventually("the mount is not in use", unmounted);
        mounted.scratch.ok("mount models mnt");
        // That process may be ending now.
        thread::sleep(Duration::from_millis(5));
        assert!(mounted.is_mounted(), "round {round}: the new mount is gone");
        assert_eq!(mounted.names(), ["real.safetensors"], "round {round}");
    }
}

#[test]
fn sigterm_and_sigint_unmount() {
    for signal in ["-TERM", "-INT", "-HUP"] {
        let (scratch, _) = real();
        fs::create_dir(scratch.path("mnt")).unwrap();
        let mounted = Mounted { scratch };
        let mut command = mounted.scratch.command(BIGSMALL);
        let mut daemon = command.args(["mount", "--foreground", "models", "mnt"]).spawn().unwrap();
        eventually("a mount", || mounted.is_mounted());
        assert_eq!(mounted.names(), ["real.safetensors"]);
        Command::new("kill").args([signal, &daemon.id().to_string()]).status().unwrap();
        let mut status = None;
        eventually("the end of the process", || {
            status = daemon.try_wait().unwrap();
            status.is_some()
        });
        assert!(status.unwrap().success());
        assert!(!mounted.is_mounted());
    }
}

#[test]
fn a_killed_process_leaves_what_umount_cleans() {
    let (scratch, _) = real();
    let mounted = Mounted::with_options(scratch, "models", "--log log");
    let daemon = mounted.daemon();
    Command::new("kill").args(["-KILL", &daemon.to_string()]).status().unwrap();
    eventually("a dead mount", || fs::metadata(mounted.path("")).is_err());
    let message = mounted.scratch.fails(2, "mount models mnt");
    assert_eq!(message, "bigsmall: mnt: a dead mount is in the way; remove it with `bigsmall umount mnt`\n");
    mounted.scratch.ok("umount mnt");
    mounted.scratch.ok("mount models mnt");
    assert_eq!(mounted.names(), ["real.safetensors"]);
}

#[test]
fn umount_waits_for_the_process_that_served_the_mount() {
    let (scratch, _) = real();
    let mounted = Mounted::with_options(scratch, "models", "--log log");
    let daemon = mounted.daemon();
    mounted.scratch.ok("umount mnt");
    let left = fs::read_to_string(format!("/proc/{daemon}/stat")).unwrap_or_default();
    assert!(left.is_empty() || left.contains(") Z "), "it is still there: {left}");

    mounted.scratch.ok("mount --log log models mnt");
    let daemon = mounted.daemon().to_string();
    let signal = |name: &str| assert!(Command::new("kill").args([name, &daemon]).status().unwrap().success());
    signal("-STOP");
    // Until none of its threads can take a request any more, which nobody could be called off from then.
    let tasks = || fs::read_dir(format!("/proc/{daemon}/task")).unwrap();
    eventually("a stop of all its threads", || {
        tasks().all(|task| fs::read_to_string(task.unwrap().path().join("stat")).unwrap().contains(") T "))
    });
    let message = mounted.scratch.fails(2, "umount mnt");
    assert_eq!(message, "bigsmall: mnt: does not answer; `--lazy` takes it out of the tree\n");
    let message = mounted.scratch.fails(2, "mount models mnt");
    assert!(message.starts_with("bigsmall: mnt: a mount that does not answer is in the way; "), "{message}");
    mounted.scratch.ok("umount --lazy mnt");
    signal("-CONT");
    eventually("its end", || !Path::new("/proc").join(&daemon).exists());
}

#[test]
fn a_mount_in_use_says_so() {
    let (scratch, original) = real();
    let mounted = Mounted::new(scratch, "models");
    let file = File::open(mounted.path("real.safetensors")).unwrap();
    let message = mounted.scratch.fails(2, "umount mnt");
    assert!(message.starts_with("bigsmall: mnt: is in use;"), "{message}");
    mounted.scratch.ok("umount --lazy mnt");
    assert!(!mounted.is_mounted());
    let mut bytes = vec![0; original.len()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert!(bytes == original, "what is open stays readable");
}

#[test]
fn what_cannot_be_mounted_is_refused() {
    let (scratch, _) = real();
    fs::create_dir(scratch.path("mnt")).unwrap();
    scratch.write("file", "x");
    for (line, message) in [
        ("mount nowhere mnt", "bigsmall: nowhere: no such file or directory\n"),
        ("mount models nowhere", "bigsmall: nowhere: there is no such directory; create it first\n"),
        ("mount models file", "bigsmall: file: is not a directory; a mount needs one\n"),
        ("umount mnt", "bigsmall: mnt: nothing is mounted there\n"),
        ("umount nowhere", "bigsmall: nowhere: nothing is mounted there\n"),
        ("umount /proc", "bigsmall: /proc: is a mount of type proc, not one of bigsmall\n"),
    ] {
        assert_eq!(scratch.fails(2, line), message, "{line}");
    }
    let message = scratch.fails(2, "mount file mnt");
    assert!(message.ends_with("file: this is not a bigsmall container\n"), "{message}");
    fs::create_dir(scratch.path("models/inside")).unwrap();
    let message = scratch.fails(2, "mount models models/inside");
    assert!(message.contains("the mount would contain itself"), "{message}");
    let message = scratch.fails(2, "mount models/real.bs models");
    assert!(message.contains("which the mount would hide"), "{message}");
    // Under another name, in a mount namespace of its own.
    let script = format!("mount --bind models mnt && exec {BIGSMALL} mount models mnt/inside");
    let output = scratch.command("unshare").args(["--mount", "sh", "-c", &script]).output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains("the mount would contain itself"), "{message}");

    let mounted = Mounted::with_options_on(scratch);
    let message = mounted.scratch.fails(2, "mount models mnt");
    assert!(message.starts_with("bigsmall: mnt: is already a bigsmall mount;"), "{message}");
}

#[test]
fn without_the_fuse_device_it_says_what_to_do() {
    let (scratch, _) = real();
    fs::create_dir(scratch.path("mnt")).unwrap();
    // In a mount namespace of its own, with an empty /dev.
    let script = format!("mount -t tmpfs none /dev && exec {BIGSMALL} mount models mnt");
    let output = scratch.command("unshare").args(["--mount", "sh", "-c", &script]).output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.starts_with("bigsmall: /dev/fuse: there is no such device"), "{message}");
    assert!(message.contains("modprobe fuse"), "{message}");
    assert_eq!(output.status.code(), Some(2));
}
