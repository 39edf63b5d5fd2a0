//! Containers of every version that was released decode to the same bytes for ever.
//!
//! `golden/VERSION/*.bs` were written by the program of that version and are never written again. Their originals lie in
//! `golden/originals`, or in the command line's `tests/data`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use bigsmall_codec::{Container, Original};

fn here() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// The containers of a version, each with its original.
fn golden(version: &str) -> Vec<(Container, Vec<u8>)> {
    let originals = [here().join("originals"), Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data")];
    let containers = fs::read_dir(here().join(version)).unwrap().map(|entry| {
        let container = Container::open(&entry.unwrap().path()).unwrap();
        let name = container.original_name().to_owned();
        let original = originals.iter().find_map(|directory| fs::read(directory.join(&name)).ok());
        (container, original.unwrap_or_else(|| panic!("the original {name} is missing")))
    });
    containers.collect()
}

fn decodes_to_its_original(container: &Container, original: &[u8]) {
    assert_eq!(container.len(), original.len() as u64);
    let mut bytes = vec![0; original.len()];
    container.read_at(0, &mut bytes).unwrap();
    assert!(bytes == original, "{} has changed", container.original_name());
}

#[test]
fn version_1_0() {
    let golden = golden("1.0");
    let mut codecs = BTreeSet::new();
    for (container, original) in &golden {
        assert_eq!(container.version().to_string(), "1.0");
        decodes_to_its_original(container, original);
        codecs.extend(container.codec_usage().iter().map(|usage| usage.codec.name()));
    }
    assert_eq!(codecs.into_iter().collect::<Vec<_>>(), ["bytes", "constant", "float", "raw", "zstd"]);
    assert!(golden.iter().any(|(container, _)| container.stored_chunks() < container.grid().chunks()), "tied weights");
}

#[test]
fn version_1_1() {
    let golden = golden("1.1");
    let mut codecs = BTreeSet::new();
    for (container, original) in &golden {
        assert_eq!(container.version().to_string(), "1.1");
        decodes_to_its_original(container, original);
        codecs.extend(container.codec_usage().iter().map(|usage| usage.codec.name()));
    }
    let all = ["bytes", "constant", "differences", "float", "packed", "palette", "raw", "scaled", "sparse", "zstd"];
    assert_eq!(codecs.into_iter().collect::<Vec<_>>(), all);
}

#[test]
fn version_1_2() {
    let golden = golden("1.2");
    let mut codecs = BTreeSet::new();
    let mut types = BTreeSet::new();
    for (container, original) in &golden {
        assert_eq!(container.version().to_string(), "1.2");
        decodes_to_its_original(container, original);
        codecs.extend(container.codec_usage().iter().map(|usage| usage.codec.name()));
        let tensors = container.tensors().iter().map(|tensor| tensor.dtype.clone());
        types.extend(tensors);
    }
    assert!(codecs.contains("blocks"), "{codecs:?}");
    assert_eq!(types.len(), 23, "every type of blocks: {types:?}");
}
