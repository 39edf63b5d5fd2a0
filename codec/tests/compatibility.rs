//! Containers of every version that was released decode to the same bytes for ever.
//!
//! `golden/VERSION/*.bs` were written by the program of that version and are never written again. Their originals lie in
//! `golden/originals`, or in the command line's `tests/data`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bigsmall_codec::patch::{Check, Model};
use bigsmall_codec::{Container, Memory, Original};

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

/// What the golden patch was made of `kinds.safetensors`: low bits of some elements are other ones.
fn tuned(base: &[u8]) -> Vec<u8> {
    let data = 8 + u64::from_le_bytes(base[..8].try_into().unwrap()) as usize;
    let mut tuned = base.to_vec();
    for at in (data..base.len() / 4 * 3).step_by(6) {
        tuned[at] ^= (at / 6 % 4) as u8;
    }
    tuned
}

#[test]
fn a_patch_of_version_1_2() {
    let base = fs::read(here().join("originals/kinds.safetensors")).unwrap();
    let patch = Container::open(&here().join("1.2-patch/patch.bs")).unwrap();
    assert_eq!(patch.version().to_string(), "1.2");
    let codecs: BTreeSet<&str> = patch.codec_usage().iter().map(|usage| usage.codec.name()).collect();
    assert!(codecs.is_superset(&["delta", "unchanged", "zstd"].into()), "{codecs:?}");
    let mut model = Model::new("kinds.safetensors");
    model.add("kinds.safetensors", Arc::new(Memory::new(base.clone()))).unwrap();
    let record = patch.base_record().unwrap();
    assert_eq!(record.fingerprint, model.fingerprint(&()).unwrap());
    let needed = model.base_for(record, Check::Md5, &()).unwrap();
    decodes_to_its_original(&patch.with_base(needed).unwrap(), &tuned(&base));
}
