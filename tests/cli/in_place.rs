//! `compress --in-place` and `--hf-cache`: containers in the place of their originals.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

use crate::support::*;

#[test]
fn originals_are_replaced_by_their_containers() {
    let scratch = Scratch::new();
    let original = fs::read(REAL_WEIGHTS).unwrap();
    scratch.write("model/a.safetensors", &original);
    scratch.write("model/below/b.safetensors", &original);
    scratch.write("model/config.json", "{}");
    scratch.write("elsewhere.safetensors", &original);
    symlink("../elsewhere.safetensors", scratch.path("model/link.safetensors")).unwrap();
    // Noise does not get smaller.
    let noise = (0..50_000_u64).scan(1_u64, |state, _| {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        Some((*state >> 56) as u8)
    });
    let noise: Vec<u8> = noise.collect();
    scratch.write("model/noise.safetensors", &noise);
    scratch.write("model/twice.safetensors", &original);
    fs::hard_link(scratch.path("model/twice.safetensors"), scratch.path("again")).unwrap();
    let modified = fs::metadata(scratch.path("model/a.safetensors")).unwrap().mtime_nsec();

    let told = scratch.json("compress --in-place --json --ecc model");
    let files = told["files"].as_array().unwrap();
    assert_eq!(files.len(), 3, "{told}");
    assert_eq!(files[2]["container"], "model/noise.safetensors");
    assert_eq!(files[2]["container_bytes"], noise.len());
    assert_eq!(told["parity"].as_array().unwrap().len(), 2);
    let names = names_in(&scratch.path("model"));
    assert_eq!(
        names,
        ["a.bs", "a.bs.ecc", "below", "config.json", "link.safetensors", "noise.safetensors", "twice.safetensors"]
    );
    assert_eq!(names_in(&scratch.path("model/below")), ["b.bs", "b.bs.ecc"]);
    assert!(scratch.read("elsewhere.safetensors") == original, "what a link leads to is left");
    assert_eq!(fs::metadata(scratch.path("model/a.bs")).unwrap().mtime_nsec(), modified);
    scratch.ok("decompress model/a.bs -o restored");
    assert!(scratch.read("restored") == original);
    scratch.write("empty/README", "");
    let message = scratch.fails(2, "compress --in-place empty");
    assert!(message.contains("empty: there is no .safetensors or .gguf file in it that can be replaced"), "{message}");
}

#[test]
fn what_a_killed_run_began_is_finished_and_nothing_else_is_overwritten() {
    let scratch = Scratch::new();
    let original = fs::read(REAL_WEIGHTS).unwrap();
    scratch.write("m.safetensors", &original);
    scratch.ok("compress -q m.safetensors");
    scratch.ok("compress -q --in-place m.safetensors");
    assert_eq!(scratch.names(), ["m.bs"]);
    // The container of something else, and a file that is none.
    for other in [scratch.read("m.bs"), b"mine".to_vec()] {
        scratch.write("m.safetensors", &original[..original.len() - 1]);
        scratch.write("m.bs", &other);
        let message = scratch.fails(2, "compress --in-place m.safetensors");
        assert!(message.contains("m.bs: exists already, so m.safetensors cannot be replaced by it"), "{message}");
        assert!(scratch.read("m.bs") == other);
        assert_eq!(scratch.read("m.safetensors").len(), original.len() - 1);
    }
    let message = scratch.fails(2, "compress --in-place m.safetensors -o n.bs");
    assert!(message.contains("cannot be used with"), "{message}");
}

#[test]
fn a_cache_of_the_hub_is_compressed_under_its_own_names() {
    let scratch = Scratch::new();
    let original = fs::read(REAL_WEIGHTS).unwrap();
    let blobs = "hub/models--org--name/blobs";
    scratch.write(format!("{blobs}/f00d"), &original);
    scratch.write(format!("{blobs}/d1ce"), gguf_model());
    scratch.write(format!("{blobs}/c0ffee"), "{\"a\": 1}");
    scratch.write(format!("{blobs}/d00d.incomplete"), &original[..original.len() / 2]);
    fs::create_dir_all(scratch.path("hub/models--org--name/snapshots/0123abc")).unwrap();
    symlink("../../blobs/f00d", scratch.path("hub/models--org--name/snapshots/0123abc/model.safetensors")).unwrap();
    let told = scratch.json("compress --json --hf-cache hub");
    assert_eq!(told["files"].as_array().unwrap().len(), 2, "{told}");
    assert_eq!(names_in(&scratch.path(blobs)), ["c0ffee", "d00d.incomplete", "d1ce", "f00d"]);
    assert!(scratch.read(format!("{blobs}/f00d")).len() < original.len());
    scratch.ok(&format!("verify -q {blobs}/f00d"));
    scratch.ok(&format!("decompress {blobs}/f00d -o restored"));
    assert!(scratch.read("restored") == original);
    let again = scratch.json("compress --json --hf-cache hub");
    assert_eq!(again["files"].as_array().unwrap().len(), 0, "containers are left as they are");
}
