//! Mounts with a GPU that decodes ahead, which a library in the place of the driver emulates.

use std::fs::{self, File};
use std::io::Read;

use serde_json::Value;

use crate::driver::{WORKING, broken};
use crate::mounted::{Mounted, eventually};
use crate::support::{BIGSMALL, Run, Scratch, model};

/// Mounts `models` on `mnt` with these options, and a driver.
fn mount(scratch: &Scratch, driver: &std::path::Path, options: &str) -> Run {
    fs::create_dir_all(scratch.path("mnt")).unwrap();
    let line = format!("mount {options} models mnt");
    scratch.command(BIGSMALL).env("LD_LIBRARY_PATH", driver).args(line.split(' ')).output().unwrap().into()
}

fn stats(mounted: &Mounted) -> Value {
    let mountpoint = mounted.scratch.path("mnt").canonicalize().unwrap();
    let listed = mounted.scratch.json("mounts --json");
    let all = listed["mounts"].as_array().unwrap();
    let entry = all.iter().find(|mount| mount["mountpoint"] == mountpoint.to_str().unwrap());
    entry.expect("the mount is listed")["stats"].clone()
}

/// A scratch directory with a container of some megabytes, the second half of which is noise, which the emulated GPU is quick with.
fn large() -> (Scratch, Vec<u8>) {
    let scratch = Scratch::new();
    let mut original = model(&[("weights", "BF16", 2, 3 << 20), ("noise", "U8", 1, 9 << 20)]);
    let mut state = 1u64;
    for byte in &mut original[4 << 20..] {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *byte = (state >> 56) as u8;
    }
    scratch.write("large.safetensors", &original);
    fs::create_dir(scratch.path("models")).unwrap();
    scratch.ok("compress -q large.safetensors -o models/large.bs");
    (scratch, original)
}

#[test]
fn a_gpu_decodes_ahead_of_who_reads_a_whole_file() {
    let (scratch, original) = large();
    let run = mount(&scratch, &WORKING, "--device cuda");
    let mounted = Mounted { scratch };
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
    let mut file = File::open(mounted.path("large.safetensors")).unwrap();
    let mut bytes = vec![0; 5 << 20];
    file.read_exact(&mut bytes).unwrap();
    eventually("the GPU decodes ahead", || stats(&mounted)["chunks_decoded_ahead"].as_u64() >= Some(10));
    file.read_to_end(&mut bytes).unwrap();
    assert!(bytes == original);
    let stats = stats(&mounted);
    let count = |what: &str| stats[what].as_u64().unwrap();
    assert!(count("chunks_decoded") + count("chunks_decoded_ahead") >= (original.len() >> 18) as u64, "{stats}");
    assert!(count("cache_hits") >= 10, "{stats}");
}

#[test]
fn a_mount_ends_while_a_gpu_decodes_ahead() {
    let (scratch, original) = large();
    // Less than there is to decode, so that the thread waits for room.
    let run = mount(&scratch, &WORKING, "--device cuda --cache-size 1MiB");
    let mounted = Mounted { scratch };
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
    let mut bytes = vec![0; 5 << 20];
    File::open(mounted.path("large.safetensors")).unwrap().read_exact(&mut bytes).unwrap();
    assert!(bytes == original[..bytes.len()]);
    eventually("the GPU decodes ahead", || stats(&mounted)["chunks_decoded_ahead"].as_u64() >= Some(1));
    // It returns when the process has ended.
    mounted.scratch.ok("umount mnt");
    assert!(!mounted.is_mounted());
}

#[test]
fn without_a_gpu_it_is_refused_or_does_without() {
    let (scratch, original) = large();
    let driver = broken("mount-abort", "std::abort()");
    let refused = mount(&scratch, &driver, "--device cuda");
    let mounted = Mounted { scratch };
    assert_eq!(refused.code, 2);
    assert!(
        refused.stderr.starts_with("bigsmall: --device cuda: the NVIDIA driver does not work"),
        "{}",
        refused.stderr
    );
    assert_eq!(refused.stderr.lines().count(), 1, "{}", refused.stderr);
    assert!(!mounted.is_mounted());
    let run = mount(&mounted.scratch, &driver, "--device auto");
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
    assert!(mounted.read("large.safetensors") == original);
    assert_eq!(stats(&mounted)["chunks_decoded_ahead"], 0);
}
