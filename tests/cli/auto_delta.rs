//! `compress --auto-delta`: the base that is found, where it is looked for, and what is said of it.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::Value;

use crate::support::*;

/// A scratch directory with a fine-tune, `tuned.safetensors`, and a directory `models` with its base and other models of the same
/// tensors.
fn scratch_with_models() -> (Scratch, Vec<u8>) {
    let scratch = Scratch::new();
    let base = layers();
    let tuned = tuned(&base, 1);
    scratch.write("tuned.safetensors", &tuned);
    scratch.write("models/a/other.safetensors", unrelated(&base));
    scratch.write("models/b/base.safetensors", &base);
    scratch.write("models/c/small.safetensors", small_model());
    scratch.write("models/c/README.safetensors", "no model");
    scratch.ok("compress -q models/a/other.safetensors -o models/c/other.bs");
    (scratch, tuned)
}

#[track_caller]
fn bases(json: &Value) -> Vec<&str> {
    json["bases"][0]["base"].as_array().unwrap().iter().map(|base| base.as_str().unwrap()).collect()
}

#[test]
fn the_base_is_found_by_its_weights() {
    let (scratch, tuned) = scratch_with_models();
    let said = scratch.ok("compress tuned.safetensors --auto-delta --base-dir models -o p.bs");
    let base = scratch.path("models/b/base.safetensors");
    let line = said.lines().next().unwrap();
    let start = format!("tuned.safetensors: of 3 models, {} is its base; a patch should take ", base.display());
    assert!(line.starts_with(&start), "{line}");
    let (patch, alone) = (scratch.read("p.bs").len() as f64, {
        scratch.ok("compress -q tuned.safetensors -o alone.bs");
        scratch.read("alone.bs").len() as f64
    });
    assert!(patch < alone / 2.0, "{patch} {alone}");
    scratch.ok("apply models/b p.bs -q -o back.safetensors");
    assert!(scratch.read("back.safetensors") == tuned);

    let json = scratch.json("compress tuned.safetensors --auto-delta --base-dir models -o q.bs --json");
    assert_eq!(bases(&json), [base.to_str().unwrap()]);
    let expected = |key: &str| json["bases"][0][key].as_f64().unwrap();
    assert!((0.8..1.25).contains(&(expected("expected_patch_bytes") / patch)), "{json}");
    assert!((0.9..1.1).contains(&(expected("expected_container_bytes") / alone)), "{json}");
    assert!(scratch.read("q.bs") == scratch.read("p.bs"));
}

#[test]
fn without_a_base_that_pays_it_is_compressed_alone() {
    let (scratch, _) = scratch_with_models();
    fs::remove_file(scratch.path("models/b/base.safetensors")).unwrap();
    let said = scratch.ok("compress tuned.safetensors --auto-delta --base-dir models");
    let line = "tuned.safetensors: of 2 models, none is a base that pays: alone it is smallest";
    assert_eq!(said.lines().next(), Some(line));
    scratch.ok("compress -q tuned.safetensors -o alone.bs");
    assert!(scratch.read("tuned.bs") == scratch.read("alone.bs"));
    let json = scratch.json("compress models/c/README.safetensors --auto-delta --json -o readme.bs");
    assert_eq!((bases(&json).len(), &json["bases"][0]["expected_patch_bytes"]), (0, &Value::Null));
    let failure = scratch.fails(2, "compress tuned.safetensors --auto-delta --base-dir nowhere -o x.bs");
    assert!(failure.starts_with("bigsmall: nowhere: cannot be read"), "{failure}");
    assert!(!scratch.path("x.bs").exists());
}

#[test]
fn what_was_seen_is_remembered_and_nothing_depends_on_it() {
    let (scratch, _) = scratch_with_models();
    let registry = scratch.path(".cache/bigsmall/models.json");
    let found = |name: &str| {
        let json = scratch.json(&format!("compress tuned.safetensors --auto-delta --json -o {name}.bs"));
        bases(&json).len()
    };
    assert_eq!(found("nothing-seen"), 0);
    scratch.ok("compress -q tuned.safetensors --auto-delta --base-dir models -o seen.bs");
    assert_eq!(found("seen-before"), 1, "without a word on where it is");
    for garbage in [&b"garbage"[..], b"{\"version\":2,\"models\":[]}", b"", &[0xff; 1000]] {
        fs::write(&registry, garbage).unwrap();
        let json = scratch.json("compress tuned.safetensors --auto-delta --base-dir models --json --force -o x.bs");
        assert_eq!(bases(&json).len(), 1);
        assert_eq!(json["bases"][0]["models_compared"], 3);
    }
    fs::remove_file(&registry).unwrap();
    assert_eq!(found("forgotten"), 0);
    // A model that was changed since is read again.
    scratch.ok("compress -q tuned.safetensors --auto-delta --base-dir models -o again.bs");
    fs::copy(scratch.path("models/a/other.safetensors"), scratch.path("models/b/base.safetensors")).unwrap();
    assert_eq!(found("changed"), 0);
    // A place that cannot be written to is none.
    fs::remove_dir_all(scratch.path(".cache")).unwrap();
    fs::write(scratch.path(".cache"), "a file").unwrap();
    assert_eq!(found("no-place"), 0);
}

#[test]
fn the_cache_of_hugging_face_is_searched() {
    let (scratch, tuned) = scratch_with_models();
    let snapshot = scratch.path("hub/models--org--base/snapshots/0123abc");
    let blobs = scratch.path("hub/models--org--base/blobs");
    fs::create_dir_all(&snapshot).unwrap();
    fs::create_dir_all(&blobs).unwrap();
    fs::rename(scratch.path("models/b/base.safetensors"), blobs.join("0123")).unwrap();
    symlink("../../blobs/0123", snapshot.join("model.safetensors")).unwrap();
    let mut command = scratch.command(BIGSMALL);
    command.env("HF_HUB_CACHE", scratch.path("hub"));
    let run: Run =
        command.args("compress tuned.safetensors --auto-delta --json -o p.bs".split(' ')).output().unwrap().into();
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
    let json: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(bases(&json), [snapshot.join("model.safetensors").to_str().unwrap()]);
    scratch.ok("apply hub/models--org--base p.bs -q -o back.safetensors");
    assert!(scratch.read("back.safetensors") == tuned);
}

#[test]
fn models_in_parts_are_found_however_they_are_divided() {
    let scratch = Scratch::new();
    let base = layers();
    let tuned = tuned(&base, 1);
    for part in 0..3 {
        let name = format!("models/base/m-0000{}-of-00003.safetensors", part + 1);
        scratch.write(name, part_of(&base, |number| number % 3 == part));
    }
    for part in 0..2 {
        let name = format!("tuned/m-0000{}-of-00002.safetensors", part + 1);
        scratch.write(name, part_of(&tuned, |number| number % 2 == part));
    }
    scratch.write("tuned/config.json", "{}");
    let json = scratch.json("compress tuned --auto-delta --base-dir models -o p --json");
    assert_eq!((json["bases"].as_array().unwrap().len(), bases(&json).len()), (1, 3), "{json}");
    scratch.ok("apply models/base p -q -o back");
    assert_eq!(scratch.read("back/m-00001-of-00002.safetensors"), scratch.read("tuned/m-00001-of-00002.safetensors"));
    assert_eq!(scratch.read("back/m-00002-of-00002.safetensors"), scratch.read("tuned/m-00002-of-00002.safetensors"));
    // Without one of its parts it is no model.
    fs::remove_file(scratch.path("models/base/m-00002-of-00003.safetensors")).unwrap();
    fs::remove_dir_all(scratch.path(".cache")).unwrap();
    let json = scratch.json("compress tuned --auto-delta --base-dir models -o q --json");
    assert_eq!(bases(&json).len(), 0);
}
