//! Mounting and unmounting by all who may, and what mounts say of themselves.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::faults::at;
use crate::mounted::*;
use crate::support::*;

fn entry(mounted: &Mounted) -> Value {
    let listed = mounted.scratch.json("mounts --json");
    listed["mounts"].as_array().unwrap().iter().find(|m| at(m, mounted)).expect("the mount is listed").clone()
}

#[test]
fn mounts_are_listed_with_what_they_did() {
    let (scratch, original) = real();
    let mounted = Mounted::new(scratch, "models");
    let before = entry(&mounted);
    assert_eq!(before["status"], "alive");
    assert_eq!(before["source"], mounted.scratch.path("models").canonicalize().unwrap().to_str().unwrap());
    assert_eq!(before["stats"]["bytes_served"], 0);
    assert_eq!(before["hit_rate"], Value::Null);
    let open = File::open(mounted.path("real.safetensors")).unwrap();
    assert!(mounted.read("real.safetensors") == original);
    let after = entry(&mounted);
    let stats = &after["stats"];
    let served = stats["bytes_served"].as_u64().unwrap();
    // The kernel asks for whole pages.
    assert!((original.len() as u64..original.len() as u64 + 4096).contains(&served), "{served}");
    assert_eq!(
        (&stats["open_files"], &stats["read_errors"], &stats["chunks_failed"]),
        (&1.into(), &0.into(), &0.into())
    );
    assert!(stats["chunks_decoded"].as_u64().unwrap() >= (original.len() / 16_384) as u64, "{stats}");
    assert!(stats["decode_seconds"].as_f64().unwrap() > 0.0);
    drop(open);

    let mountpoint = mounted.scratch.path("mnt").canonicalize().unwrap();
    let text = mounted.scratch.ok("mounts --prometheus");
    let source = mounted.scratch.path("models").canonicalize().unwrap();
    let labels = format!("{{mountpoint=\"{}\",source=\"{}\"}}", mountpoint.display(), source.display());
    assert!(text.contains(&format!("\nbigsmall_up{labels} 1\n")), "{text}");
    assert!(text.contains(&format!("\nbigsmall_served_bytes_total{labels} {served}\n")), "{text}");
    let table = mounted.scratch.ok("mounts");
    let line = table.lines().find(|line| line.contains(mountpoint.to_str().unwrap())).unwrap();
    assert!(line.contains("alive"), "{table}");
}

#[test]
fn a_dead_mount_is_listed_as_dead() {
    let (scratch, _) = real();
    let mounted = Mounted::new(scratch, "models");
    kill(&entry(&mounted));
    eventually("a dead mount", || entry(&mounted)["status"] == "dead");
    mounted.scratch.ok("umount mnt");
}

/// Kills the process that serves a mount, on the spot.
fn kill(entry: &Value) {
    let pid = entry["stats"]["pid"].to_string();
    assert!(Command::new("kill").args(["-KILL", &pid]).status().unwrap().success());
}

#[test]
fn with_auto_unmount_a_killed_process_leaves_nothing() {
    let (scratch, _) = real();
    let mounted = Mounted::with_options(scratch, "models", "--auto-unmount");
    kill(&entry(&mounted));
    eventually("the end of the mount", || !mounted.is_mounted());
    // The process that watches must leave a mount that comes later alone.
    mounted.scratch.ok("mount --auto-unmount models mnt");
    mounted.scratch.ok("umount mnt");
    mounted.scratch.ok("mount models mnt");
    assert_eq!(mounted.names(), ["real.safetensors"]);
}

#[test]
fn who_uses_a_mount_is_named() {
    let (scratch, _) = real();
    let mounted = Mounted::new(scratch, "models");
    let file = File::open(mounted.path("real.safetensors")).unwrap();
    let mut user = Command::new("sleep").arg("1000").stdin(file).spawn().unwrap();
    let message = mounted.scratch.fails(2, "umount mnt");
    user.kill().unwrap();
    user.wait().unwrap();
    assert!(message.contains(&format!("  sleep (process {}) uses ", user.id())), "{message}");
    assert!(message.contains("mnt/real.safetensors"), "{message}");

    // And what is mounted in it.
    fs::create_dir(mounted.scratch.path("models/sub")).unwrap();
    eventually("the directory", || mounted.path("sub").is_dir());
    let run = |line: &[&str]| assert!(Command::new(line[0]).args(&line[1..]).status().unwrap().success());
    let sub = mounted.path("sub");
    run(&["mount", "-t", "tmpfs", "none", sub.to_str().unwrap()]);
    let message = mounted.scratch.fails(2, "umount mnt");
    run(&["umount", sub.to_str().unwrap()]);
    assert!(message.contains("mnt/sub is itself mounted on"), "{message}");
}

#[test]
fn fstab_mounts_through_the_helper() {
    let (scratch, original) = real();
    fs::create_dir(scratch.path("mnt")).unwrap();
    symlink(BIGSMALL, scratch.path("mount.bigsmall")).unwrap();
    let mounted = Mounted { scratch };
    let helper = |options: &str| {
        let mut command = mounted.scratch.command(mounted.scratch.path("mount.bigsmall"));
        Run::from(command.args(["models", "mnt", "-o", options]).output().unwrap())
    };
    let refused = helper("ro,colour=blue");
    assert_eq!(
        (refused.code, &*refused.stderr),
        (2, "bigsmall: mount.bigsmall: colour=blue: there is no such option\n")
    );
    let program = mounted.scratch.write("models/program", "#!/bin/sh\n");
    fs::set_permissions(program, fs::Permissions::from_mode(0o755)).unwrap();
    let runs = || Command::new(mounted.path("program")).status().map_err(|error| error.kind());
    let run = helper("ro,nofail");
    assert_eq!((run.code, &*run.stderr), (0, ""));
    assert!(runs().is_ok_and(|status| status.success()));
    mounted.scratch.ok("umount mnt");
    let run = helper("ro,noexec,nofail,_netdev,cache_size=1MiB,log_level=info,log=log");
    assert_eq!((run.code, &*run.stderr), (0, ""));
    assert_eq!(runs(), Err(std::io::ErrorKind::PermissionDenied), "what is asked for is not ignored");
    assert!(mounted.read("real.safetensors") == original);
    assert_eq!(entry(&mounted)["stats"]["cache_capacity"], 1 << 20);
    mounted.scratch.ok("umount mnt");
    eventually("the whole log", || {
        let log = String::from_utf8(mounted.scratch.read("log")).unwrap();
        let lines: Vec<&str> = log.lines().collect();
        matches!(lines[..], [shows, ends] if shows.starts_with("bigsmall: info: ") && ends.ends_with(": is unmounted"))
    });
}

#[test]
fn the_systems_log_is_told_also_when_it_was_started_anew() {
    let (scratch, _) = real();
    fs::create_dir(scratch.path("mnt")).unwrap();
    let socket = scratch.path("socket");
    let log = || {
        let _ = fs::remove_file(&socket);
        let log = UnixDatagram::bind(&socket).unwrap();
        log.set_read_timeout(Some(PATIENCE)).unwrap();
        log
    };
    let heard = |log: &UnixDatagram| {
        let mut line = [0; 1000];
        let len = log.recv(&mut line).expect("a line");
        String::from_utf8(line[..len].to_vec()).unwrap()
    };
    // In a mount namespace of its own, whose log is the one here.
    let script = "\
        mount -t tmpfs none /dev && mknod /dev/fuse c 10 229 && mknod /dev/null c 1 3 && ln -s $PWD/socket /dev/log || exit 9
        $BIGSMALL mount --log-level info models mnt && read go && exec $BIGSMALL umount mnt";
    let first = log();
    let mut command = scratch.command("unshare");
    command.args(["--mount", "sh", "-c", script]).env("BIGSMALL", BIGSMALL).stdin(Stdio::piped());
    let mut shell = command.spawn().unwrap();
    let line = heard(&first);
    assert!(line.starts_with("<30>bigsmall[") && line.contains("]: info: ") && line.contains(": shows "), "{line}");
    drop(first);
    let second = log();
    shell.stdin.take().unwrap().write_all(b"\n").unwrap();
    let line = heard(&second);
    assert!(line.ends_with(": is unmounted"), "{line}");
    assert!(shell.wait().unwrap().success());
}

#[test]
fn users_other_than_root_mount_through_fusermount3() {
    let (scratch, original) = real();
    for directory in [scratch.path(""), scratch.path("models")] {
        fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).unwrap();
    }
    fs::create_dir(scratch.path("mnt")).unwrap();
    fs::copy(BIGSMALL, scratch.path("bigsmall")).unwrap();
    // In a mount namespace of its own, with a device that everybody may open, as most systems have it.
    let script = "\
        mknod fuse c 10 229 && chmod 666 fuse && mount --bind fuse /dev/fuse && chown 65534 mnt || exit 9
        exec setpriv --reuid 65534 --regid 65534 --clear-groups sh -c '
            ./bigsmall mount models mnt || exit 1
            md5sum < mnt/real.safetensors
            ./bigsmall mounts --json
            ./bigsmall umount mnt || exit 2
            ls mnt'";
    let output = scratch.command("unshare").args(["--mount", "sh", "-c", script]).output().unwrap();
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && errors.is_empty(), "{}\n{said}\n{errors}", output.status);
    let md5 = Command::new("md5sum").stdin(File::open(REAL_WEIGHTS).unwrap()).output().unwrap().stdout;
    assert!(said.starts_with(&*String::from_utf8_lossy(&md5)), "{said}");
    assert!(said.contains("\"alive\"") && said.ends_with("}\n"), "{said}");
    assert_eq!(original.len() as u64, fs::metadata(REAL_WEIGHTS).unwrap().len());
}
