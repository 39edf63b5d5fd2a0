//! Files of the Python package, as it wrote them: every tensor comes out with the MD5 that it had before.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bigsmall_codec::output::{Existing, NewFile};
use bigsmall_codec::upstream::{HubIndex, TensorCache, UpstreamFile};
use bigsmall_codec::{ErrorKind, Memory, Original, PlainFile};
use md5::{Digest, Md5};
use serde_json::Value;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/upstream")
}

fn open(path: &Path) -> UpstreamFile {
    let file = UpstreamFile::open(path, &Arc::default()).unwrap();
    if file.needs_base() {
        let base = PlainFile::open(&path.with_file_name("base.safetensors")).unwrap();
        return file.with_base(Arc::new(base)).unwrap();
    }
    file
}

/// The whole original.
fn read(original: &dyn Original) -> Vec<u8> {
    let mut bytes = vec![0; original.len() as usize];
    original.read_at(0, &mut bytes).unwrap();
    bytes
}

fn manifest(directory: &Path) -> Value {
    serde_json::from_slice(&fs::read(directory.join("manifest.json")).unwrap()).unwrap()
}

fn directories() -> Vec<PathBuf> {
    let entries = fs::read_dir(fixtures()).unwrap().map(|entry| entry.unwrap().path());
    let mut directories: Vec<PathBuf> = entries.filter(|path| path.is_dir()).collect();
    directories.sort();
    assert!(directories.len() >= 30, "fixtures are missing");
    directories
}

fn containers(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut containers: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|e| e == "bs")).collect();
    containers.sort();
    containers
}

#[test]
fn every_tensor_of_every_fixture_comes_back() {
    let mut codecs = BTreeSet::new();
    let mut tensors = 0;
    for directory in directories() {
        let manifest = manifest(&directory);
        let files: Vec<UpstreamFile> = containers(&directory).iter().map(|path| open(path)).collect();
        let bytes: Vec<Vec<u8>> = files.iter().map(|file| read(file)).collect();
        for entry in manifest["tensors"].as_array().unwrap() {
            let name = entry["name"].as_str().unwrap();
            let found = files
                .iter()
                .zip(&bytes)
                .find_map(|(file, bytes)| Some((file.tensors().iter().find(|tensor| tensor.name == name)?, bytes)));
            let (tensor, bytes) = found.unwrap_or_else(|| panic!("{}: {name}", directory.display()));
            let what = format!("{} {name}", directory.display());
            assert_eq!(tensor.dtype, entry["dtype"].as_str().unwrap(), "{what}");
            let shape: Vec<u64> = entry["shape"].as_array().unwrap().iter().map(|d| d.as_u64().unwrap()).collect();
            assert_eq!(tensor.shape, shape, "{what}");
            let md5 = Md5::digest(&bytes[tensor.range.start as usize..tensor.range.end as usize]);
            assert_eq!(hex(&md5), entry["md5"].as_str().unwrap(), "{what}");
            codecs.extend(entry["codec"].as_str().map(str::to_owned));
            tensors += 1;
        }
        for (file, bytes) in files.iter().zip(&bytes) {
            let names: usize = file.tensors().len();
            let parsed = safetensors::SafeTensors::deserialize(bytes).unwrap();
            assert_eq!(parsed.len(), names, "the rebuilt file keeps the rules");
            assert!(file.verify(&()).unwrap().is_sound());
        }
    }
    assert!(tensors > 100, "{tensors}");
    for codec in [
        "raw",
        "zstd",
        "tied_ref",
        "special",
        "bf16_se_rans",
        "bf16_se_ac",
        "bf16_se_tans",
        "bf16_se_single_kernel",
        "bf16_parallel_v1",
        "bf16_sparsity_v1",
        "fp2_residual_v1",
        "bf16_v8",
        "fp32_se_ac",
        "fp16_se_ac",
        "fp8_cat_ac",
        "fp4_cat_ac",
        "zstd_xor_delta",
        "group_stream_v1",
        "group_member",
        "bf16_native_f32_v2",
    ] {
        assert!(codecs.contains(codec), "no fixture has {codec}: {codecs:?}");
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The package leaves the metadata away; all else is as it writes it.
#[test]
fn the_file_is_the_one_that_the_package_writes_with_its_metadata() {
    let directory = fixtures().join("default_f16_wordllama");
    let (ours, theirs) =
        (read(&open(&directory.join("model.bs"))), fs::read(directory.join("expected.safetensors")).unwrap());
    let split = |file: &[u8]| {
        let data = 8 + u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
        (String::from_utf8(file[8..data].to_vec()).unwrap(), file[data..].to_vec())
    };
    let ((our_header, our_data), (their_header, their_data)) = (split(&ours), split(&theirs));
    assert!(our_data == their_data);
    let metadata = r#""__metadata__":{"format":"pt"},"#;
    assert_eq!(our_header.replacen(metadata, "", 1).trim_end(), their_header.trim_end());
    assert!(our_header.contains(metadata));
    assert!(our_header.len().is_multiple_of(8));
}

#[test]
fn scalars_and_dtypes_that_the_package_cannot_restore_come_out_right() {
    let odd = open(&fixtures().join("odd_dtypes/model.bs"));
    assert!(odd.tensors().iter().any(|tensor| tensor.shape.is_empty()), "a 0-d tensor keeps its shape");
    assert!(odd.tensors().iter().any(|tensor| tensor.shape == [0, 4]));
    let text = String::from_utf8_lossy(&read(&odd)).into_owned();
    assert!(text.contains(r#"{"__metadata__":{"author":"käse \"x\"","format":"pt"},"#));
    let dtypes = |name: &str| open(&fixtures().join(name)).tensors().iter().map(|t| t.dtype).collect::<Vec<_>>();
    assert_eq!(dtypes("odd_f64/model.bs"), ["F64", "U16"]);
    assert_eq!(dtypes("fp4/model.bs"), ["F4"]);
}

#[test]
fn tensors_that_only_the_index_knows_are_there() {
    let directory = fixtures().join("shards");
    let shard = open(&directory.join("model-00001-of-00002.bs"));
    let find = |name: &str| shard.tensors().iter().find(|tensor| tensor.name == name).unwrap();
    let (head, words) = (find("lm_head.weight"), find("embeddings.word_embeddings.weight"));
    let bytes = read(&shard);
    let bytes_of = |range: &std::ops::Range<u64>| &bytes[range.start as usize..range.end as usize];
    assert!(head.range != words.range && bytes_of(&head.range) == bytes_of(&words.range));
    assert_eq!(HubIndex::beside(&directory.join("x.bs")).unwrap().unwrap().files(), 2);
}

#[test]
fn decompressing_writes_what_reading_reads() {
    let directory = tempfile::tempdir().unwrap();
    for fixture in directories() {
        for container in containers(&fixture) {
            let file = open(&container);
            let out = NewFile::create(&directory.path().join("out"), Existing::Refuse).unwrap();
            file.decompress(&out, &()).unwrap();
            let mut written = Vec::new();
            std::io::Read::read_to_end(&mut out.file(), &mut written).unwrap();
            assert!(written == read(&file), "{}", container.display());
        }
    }
}

#[test]
fn any_range_can_be_read() {
    let file = open(&fixtures().join("default_bf16/model.bs"));
    let whole = read(&file);
    for (offset, len) in [(0, 1), (7, 100), (1, whole.len() - 1), (whole.len() / 2, 1000), (whole.len(), 0)] {
        let mut part = vec![0; len];
        file.read_at(offset as u64, &mut part).unwrap();
        assert!(part == whole[offset..offset + len]);
    }
}

#[test]
fn a_difference_wants_its_base_and_no_other() {
    let path = fixtures().join("delta/patch.bs");
    let alone = UpstreamFile::open(&path, &Arc::default()).unwrap();
    assert!(alone.needs_base());
    let error = alone.read_at(alone.len() - 1, &mut [0]).unwrap_err();
    assert!(error.to_string().contains("base"), "{error}");
    let mut wrong = fs::read(path.with_file_name("base.safetensors")).unwrap();
    *wrong.last_mut().unwrap() ^= 1;
    let patched = UpstreamFile::open(&path, &Arc::default()).unwrap().with_base(Arc::new(Memory::new(wrong))).unwrap();
    assert_eq!(patched.verify(&()).unwrap().damage.len(), 1, "the MD5 finds it");
    let other = Arc::new(Memory::new(vec![1, 2, 3]));
    let error = UpstreamFile::open(&path, &Arc::default()).unwrap().with_base(other).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
}

/// Whatever byte changes, there is an error or what was there before, and no panic. That no damage to what is stored goes
/// unnoticed is the doing of the MD5.
#[test]
fn damage_is_an_error_or_nothing() {
    for fixture in directories() {
        for container in containers(&fixture) {
            let sound = fs::read(&container).unwrap();
            let head = 10 + u32::from_le_bytes(sound[6..10].try_into().unwrap()) as usize;
            let original = read(&open(&container));
            // Everywhere in the first bytes, then here and there.
            let step = (sound.len() / 40).max(1);
            for at in (0..64).chain((64..sound.len()).step_by(step)).chain(head..(head + 64).min(sound.len())) {
                let mut bad = sound.clone();
                bad[at] ^= 1 << (at % 8);
                let opened = UpstreamFile::from_store(Box::new(Memory::new(bad)), &[], &Arc::default());
                let Ok(file) = opened else { continue };
                let report = file.verify(&()).unwrap();
                assert_eq!(report.original_len, file.len());
                if at >= head && report.is_sound() {
                    // The last bits of a stream may mean nothing. The index is not looked at here: compare by name.
                    let (read, sound_file) = (read(&file), open(&container));
                    for tensor in file.tensors() {
                        let same = sound_file.tensors().iter().find(|other| other.name == tensor.name).unwrap();
                        let part = |bytes: &[u8], range: &std::ops::Range<u64>| {
                            bytes[range.start as usize..range.end as usize].to_vec()
                        };
                        assert!(part(&read, &tensor.range) == part(&original, &same.range));
                    }
                }
            }
        }
    }
}

#[test]
fn truncated_files_are_refused() {
    let sound = fs::read(fixtures().join("default_f16_wordllama/model.bs")).unwrap();
    for len in (0..sound.len()).step_by(97).chain(0..20) {
        let cut = Box::new(Memory::new(sound[..len].to_vec()));
        assert!(UpstreamFile::from_store(cut, &[], &Arc::new(TensorCache::default())).is_err(), "{len} bytes");
    }
}
