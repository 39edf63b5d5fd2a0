//! A cache of the Hugging Face Hub, whose files are named by hashes.

use std::fs;
use std::os::unix::fs::symlink;

use crate::mounted::*;
use crate::support::*;

/// Makes `hub` in the scratch directory: `config.json` as it is, `model.safetensors` replaced by its container.
fn hub(scratch: &Scratch) {
    let snapshot = "hub/models--org--name/snapshots/0123abc";
    scratch.write("hub/models--org--name/refs/main", "0123abc");
    scratch.write("hub/models--org--name/blobs/c0ffee", "{}");
    fs::create_dir_all(scratch.path(snapshot)).unwrap();
    fs::rename(scratch.path("models/real.bs"), scratch.path("hub/models--org--name/blobs/f00d")).unwrap();
    symlink("../../blobs/c0ffee", scratch.path(snapshot).join("config.json")).unwrap();
    symlink("../../blobs/f00d", scratch.path(snapshot).join("model.safetensors")).unwrap();
}

#[test]
fn containers_are_recognised_by_content_when_asked_for() {
    let (scratch, original) = real();
    hub(&scratch);
    // Of those that only begin like a container, and those that nobody may read, nothing is said.
    let stored = scratch.read("hub/models--org--name/blobs/f00d");
    scratch.write("hub/models--org--name/blobs/cut", &stored[..100]);
    let mounted = Mounted::with_options(scratch, "hub", "--hf-cache");
    let model = "models--org--name/snapshots/0123abc/model.safetensors";
    assert!(mounted.read(model) == original);
    assert_eq!(fs::read_link(mounted.path(model)).unwrap().to_str(), Some("../../blobs/f00d"));
    assert_eq!(fs::metadata(mounted.path(model)).unwrap().len(), original.len() as u64);
    assert_eq!(mounted.read("models--org--name/snapshots/0123abc/config.json"), b"{}");
    assert_eq!(mounted.read("models--org--name/refs/main"), b"0123abc");
    assert!(mounted.read("models--org--name/blobs/f00d") == original);
    assert!(mounted.read("models--org--name/blobs/cut") == stored[..100], "what is no container is itself");
    assert_eq!(names_in(&mounted.path("models--org--name/blobs")), ["c0ffee", "cut", "f00d"]);
    mounted.scratch.ok("umount mnt");
    mounted.scratch.ok("mount hub mnt");
    assert!(mounted.read("models--org--name/blobs/f00d") == stored, "not without the option");
}
