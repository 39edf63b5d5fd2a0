//! The files of the Python package, and `migrate`.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use serde_json::{Value, json};

use crate::support::*;

/// The containers of a fixture.
fn containers(fixture: &str) -> Vec<String> {
    let mut names = names_in(&Path::new(UPSTREAM).join(fixture));
    names.retain(|name| name.ends_with(".bs"));
    names
}

/// A scratch directory with a fixture in `model`.
fn with(fixture: &str) -> Scratch {
    let scratch = Scratch::new();
    copy_upstream(&scratch, fixture, "model");
    scratch
}

/// The safetensors files in a directory, by name.
fn weights(directory: &Path) -> Vec<Vec<u8>> {
    let names = names_in(directory).into_iter().filter(|name| name.ends_with(".safetensors"));
    names.map(|name| fs::read(directory.join(name)).unwrap()).collect()
}

#[test]
fn every_fixture_is_decompressed_and_found_sound() {
    let mut tensors = 0;
    for fixture in upstream_fixtures() {
        let scratch = with(&fixture);
        scratch.ok("decompress -q model -o out");
        tensors += assert_upstream(&fixture, &weights(&scratch.path("out")));
        let verified = scratch.json("verify --json model");
        assert_eq!(verified["sound"], containers(&fixture).len(), "{fixture}");
        let info = scratch.json("info --json model");
        assert_eq!(info["containers"][0]["format"], "python", "{fixture}");
    }
    assert!(tensors > 100, "{tensors}");
}

#[test]
fn every_fixture_is_compared_and_is_a_base_and_a_patch() {
    let mut patches = 0;
    // Tensors of a few bytes gain nothing by a base, which is said.
    let mut compress = |scratch: &Scratch, line: &str| {
        let run = scratch.run(line.split_whitespace());
        assert_eq!(run.code, 0, "{line}: {}", run.stderr);
        patches += u32::from(run.stderr.is_empty());
    };
    for fixture in upstream_fixtures() {
        let scratch = with(&fixture);
        scratch.ok("decompress -q model -o out");
        assert_eq!(scratch.run(["diff", "-q", "model", "out"]).code, 0, "{fixture}");
        for name in containers(&fixture) {
            assert!(!scratch.json(&format!("stat --json model/{name}")).is_null(), "{fixture}");
        }
        // The same model but for a few bits.
        let names = names_in(&scratch.path("out")).into_iter().filter(|name| name.ends_with(".safetensors"));
        for name in names {
            let mut tuned = scratch.read(format!("out/{name}"));
            *tuned.last_mut().unwrap() ^= 1;
            scratch.write(format!("tuned/{name}"), tuned);
        }
        assert_eq!(scratch.run(["diff", "-q", "model", "tuned"]).code, 1, "{fixture}");
        compress(&scratch, "compress -q tuned --delta-from model -o patch");
        scratch.ok("apply -q --check model patch -o back");
        assert!(weights(&scratch.path("back")) == weights(&scratch.path("tuned")), "{fixture}");
        compress(&scratch, "compress -q model --delta-from tuned -o reverse");
        scratch.ok("apply -q --check tuned reverse -o again");
        assert!(weights(&scratch.path("again")) == weights(&scratch.path("out")), "{fixture}");
    }
    assert!(patches > 30, "{patches}");
}

#[test]
fn a_file_becomes_a_safetensors_file_beside_it() {
    let scratch = with("default_bf16");
    let table = mask_speed(&scratch.ok("decompress model/model.bs"));
    assert_eq!(
        table,
        "file                     compressed  original  SPEED\nmodel/model.safetensors    132.1 kB  256.2 kB  SPEED\n"
    );
    assert_upstream("default_bf16", &[scratch.read("model/model.safetensors")]);
    // It checks MD5s whether asked to or not.
    scratch.ok("decompress -q --check model/model.bs -o out.safetensors");
    assert!(scratch.read("out.safetensors") == scratch.read("model/model.safetensors"));
    let json = scratch.json("decompress --json model/model.bs -o again.safetensors");
    assert_eq!(json["files"][0]["sha256"], Value::Null);
    scratch.ok("verify -q --source out.safetensors model/model.bs");
}

#[test]
fn info_says_what_the_python_package_stored() {
    let scratch = with("default_bf16");
    let info = scratch.ok("info model/model.bs");
    let lines: Vec<&str> = info.lines().collect();
    assert_eq!(lines[0], "model/model.bs");
    assert_eq!(lines[4], "  format     1 of the Python package; bigsmall migrate makes it ours");
    assert!(lines[5].starts_with("  tensors    "), "{info}");
    assert!(info.contains("\n  bf16_se_rans "), "{info}");
    let json = &scratch.json("info --json model/model.bs")["containers"][0];
    assert_eq!((&json["sha256"], &json["original_name"], &json["chunks"]), (&Value::Null, &Value::Null, &Value::Null));
    let codecs = json["codecs"].as_object().unwrap();
    let sum = |key: &str| codecs.values().map(|codec| codec[key].as_u64().unwrap()).sum::<u64>();
    assert_eq!(sum("chunks"), json["tensors"].as_u64().unwrap());
    assert_eq!(sum("original_bytes") + json["other_bytes"].as_u64().unwrap(), json["original_bytes"].as_u64().unwrap());
}

#[test]
fn a_directory_of_the_hub_becomes_one_that_loaders_know() {
    let scratch = with("shards");
    scratch.write("model/bigsmall.index.bin", "BSIX");
    scratch.ok("decompress -q model -o out");
    let expected = [
        "config.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
    ];
    assert_eq!(names_in(&scratch.path("out")), expected);
    let index: Value = serde_json::from_slice(&scratch.read("out/model.safetensors.index.json")).unwrap();
    assert_eq!(index["weight_map"]["lm_head.weight"], "model-00001-of-00002.safetensors");
    assert_eq!(index["metadata"]["total_size"], 66_304);
    // An index that is there is not replaced.
    scratch.write("model/model.safetensors.index.json", "{}");
    scratch.ok("decompress -q model -o other");
    assert_eq!(scratch.read("other/model.safetensors.index.json"), b"{}");
    // One file needs none.
    let index = json!({ "metadata": {}, "weight_map": { "a": "model.bs" } });
    let scratch = with("default_f32");
    scratch.write("model/bigsmall.index.json", index.to_string());
    scratch.ok("decompress -q model -o out");
    assert_eq!(names_in(&scratch.path("out")), ["model.safetensors"]);
}

/// Changes a byte in the stored bytes of a file's last tensor.
fn damage(scratch: &Scratch, name: &str) -> String {
    let mut file = scratch.read(name);
    let data = 10 + u32::from_le_bytes(file[6..10].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&file[10..data]).unwrap();
    let tensors = header["tensors"].as_array().unwrap();
    let longest = tensors.iter().max_by_key(|tensor| tensor["compressed_bytes"].as_u64()).unwrap();
    let number = |key: &str| longest[key].as_u64().unwrap() as usize;
    file[data + number("offset") + number("compressed_bytes") / 2] ^= 0x10;
    scratch.write(name, file);
    longest["name"].as_str().unwrap().to_owned()
}

#[test]
fn damage_is_named_and_nothing_is_written() {
    let scratch = with("default_bf16");
    let tensor = damage(&scratch, "model/model.bs");
    let run = scratch.run(["verify", "model/model.bs"]);
    assert_eq!(run.code, 1);
    assert!(run.stdout.starts_with("model/model.bs: damaged\n") && run.stdout.contains(&tensor), "{}", run.stdout);
    let json: Value = serde_json::from_str(&scratch.run(["verify", "--json", "model/model.bs"]).stdout).unwrap();
    let findings = json["files"][0]["damage"].as_array().unwrap();
    assert_eq!(findings.len(), 1);
    assert_eq!(findings[0]["tensor"], Value::from(tensor.as_str()));
    for command in ["decompress model/model.bs", "migrate model/model.bs", "migrate --dry-run model/model.bs"] {
        let said = scratch.fails(2, command);
        assert!(said.starts_with("bigsmall: model/model.bs: ") && said.contains(&tensor), "{said}");
    }
    assert_eq!(names_in(&scratch.path("model")), ["model.bs"]);
    let sample = scratch.run(["verify", "--sample", "1", "model/model.bs"]);
    assert_eq!(sample.code, 1, "{}", sample.stdout);
}

#[test]
fn what_cannot_be_read_is_refused_kindly() {
    let scratch = Scratch::new();
    copy_upstream(&scratch, "delta", "delta");
    for command in ["decompress delta/patch.bs", "migrate delta/patch.bs", "verify delta/patch.bs"] {
        let run = scratch.run(command.split(' '));
        assert_eq!(run.code, 2, "{command}");
        assert!(run.stderr.contains("the difference from another model"), "{}", run.stderr);
    }
    let tensors = scratch.json("info --json delta/patch.bs")["containers"][0]["tensors"].as_u64().unwrap();
    assert!(tensors > 3, "info says what is in it all the same");
    scratch.write("model.bsd", b"BGSD\x02\0\x02\0\0\0{}");
    let said = scratch.fails(2, "decompress model.bsd");
    assert!(said.contains("in two qualities"), "{said}");
    let scratch = with("default_f32");
    let said = scratch.fails(2, "compress model/model.bs -o x.bs");
    assert_eq!(
        said,
        "bigsmall: model/model.bs: is a container of the Python package\nbigsmall migrate makes it one of ours\n"
    );
}

#[test]
fn the_parity_of_the_python_package_stays_behind() {
    let scratch = with("default_f32");
    scratch.write("model/model.bs.ecc", b"BSECC1__ and so on");
    let said = scratch.run(["verify", "model/model.bs"]);
    assert!(said.code == 2 && said.stdout.contains("in a version that is not known"), "{said:?}");
    scratch.ok("decompress -q model -o out");
    assert_eq!(names_in(&scratch.path("out")), ["model.safetensors"]);
}

#[test]
fn migrating_puts_a_container_of_ours_in_its_place() {
    for fixture in upstream_fixtures() {
        let scratch = with(&fixture);
        scratch.ok("decompress -q model -o before");
        scratch.ok("migrate -q model --no-backup");
        for name in containers(&fixture) {
            let info = &scratch.json(&format!("info --json model/{name}"))["containers"][0];
            assert_eq!((&info["format"], &info["format_version"]), (&"bigsmall".into(), &"1.1".into()), "{fixture}");
            assert_eq!(info["original_name"], name.replace(".bs", ".safetensors"));
        }
        scratch.ok("verify -q model");
        scratch.ok("decompress -q model -o after");
        assert!(weights(&scratch.path("after")) == weights(&scratch.path("before")), "{fixture}");
        assert_upstream(&fixture, &weights(&scratch.path("after")));
    }
}

#[test]
fn migrating_keeps_what_was_there() {
    let scratch = with("default_bf16");
    set_attributes(&scratch.path("model/model.bs"), 0o640, (1_500_000_000, 123_456_789));
    let before = scratch.read("model/model.bs");
    let said = scratch.ok("migrate model/model.bs");
    assert!(said.starts_with("file            original    before"), "{said}");
    assert!(
        said.ends_with("what was there is kept as model/model.bs.bak\n") || said.contains("model.bs.bak\n"),
        "{said}"
    );
    assert_eq!(names_in(&scratch.path("model")), ["model.bs", "model.bs.bak"]);
    assert!(scratch.read("model/model.bs.bak") == before);
    assert_eq!(attributes(&scratch.path("model/model.bs")), (0o640, 1_500_000_000, 123_456_789));
    // Again there is nothing to do.
    assert_eq!(scratch.ok("migrate model/model.bs"), "model/model.bs: is of today, nothing to do\n");
    // A backup is not replaced unasked.
    let scratch = with("default_bf16");
    scratch.write("model/model.bs.bak", "precious");
    let said = scratch.fails(2, "migrate model/model.bs");
    assert!(said.contains("model.bs.bak: exists already\n--force replaces it"), "{said}");
    assert!(scratch.read("model/model.bs") == before && scratch.read("model/model.bs.bak") == b"precious");
    scratch.ok("migrate -q --force model/model.bs");
    assert!(scratch.read("model/model.bs.bak") == before);
}

#[test]
fn a_dry_run_writes_nothing_and_is_about_right() {
    for fixture in ["default_bf16", "default_f32", "shards"] {
        let scratch = with(fixture);
        let before = tree(&scratch.path("model"));
        let dry = scratch.json("migrate --json --dry-run model");
        assert_eq!(dry["dry_run"], true);
        assert!(tree(&scratch.path("model")) == before);
        let real = scratch.json("migrate --json model");
        for (dry, real) in dry["files"].as_array().unwrap().iter().zip(real["files"].as_array().unwrap()) {
            assert_eq!((&dry["output"], &dry["before_bytes"]), (&Value::Null, &real["before_bytes"]));
            let size = |file: &Value| file["after_bytes"].as_f64().unwrap();
            assert!((size(dry) / size(real) - 1.0).abs() < 0.03, "{fixture}: {dry} {real}");
        }
    }
}

#[test]
fn migrating_a_directory_of_the_hub_gives_loaders_their_index() {
    let scratch = with("shards");
    scratch.ok("migrate -q model");
    let expected = [
        "bigsmall.index.json.bak",
        "config.json",
        "model-00001-of-00002.bs",
        "model-00001-of-00002.bs.bak",
        "model-00002-of-00002.bs",
        "model-00002-of-00002.bs.bak",
        "model.safetensors.index.json",
    ];
    assert_eq!(names_in(&scratch.path("model")), expected);
    // What only the index knew is in the container now.
    scratch.ok("decompress -q model/model-00001-of-00002.bs -o 1.safetensors");
    scratch.ok("decompress -q model/model-00002-of-00002.bs -o 2.safetensors");
    assert_upstream("shards", &[scratch.read("1.safetensors"), scratch.read("2.safetensors")]);

    let scratch = with("shards");
    let before = tree(&scratch.path("model"));
    scratch.ok("migrate -q model -o new");
    assert!(tree(&scratch.path("model")) == before);
    let expected =
        ["config.json", "model-00001-of-00002.bs", "model-00002-of-00002.bs", "model.safetensors.index.json"];
    assert_eq!(names_in(&scratch.path("new")), expected);
    scratch.ok("verify -q new");
}

#[test]
fn old_containers_of_ours_are_migrated_too() {
    let scratch = Scratch::new();
    scratch.write("old/model.bs", fs::read(Path::new(GOLDEN).join("1.0/minilm-slice.bs")).unwrap());
    scratch.write("old/model.bs.ecc", "its parity");
    let before = scratch.json("info --json old/model.bs")["containers"][0].clone();
    let run = scratch.run(["migrate", "-q", "old"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stderr.contains("had parity"), "{}", run.stderr);
    let after = scratch.json("info --json old/model.bs")["containers"][0].clone();
    assert_eq!((&before["format_version"], &after["format_version"]), (&"1.0".into(), &"1.1".into()));
    assert_eq!((&before["sha256"], &before["original_name"]), (&after["sha256"], &after["original_name"]));
    assert!(after["container_bytes"].as_u64() < before["container_bytes"].as_u64());
    assert_eq!(names_in(&scratch.path("old")), ["model.bs", "model.bs.bak", "model.bs.bak.ecc"]);
    scratch.ok("verify -q old");
}

#[test]
fn what_a_link_leads_to_is_replaced() {
    let scratch = with("default_f32");
    fs::create_dir(scratch.path("links")).unwrap();
    symlink("../model/model.bs", scratch.path("links/model.bs")).unwrap();
    scratch.ok("migrate -q links --no-backup");
    assert!(fs::symlink_metadata(scratch.path("links/model.bs")).unwrap().is_symlink());
    assert_eq!(scratch.json("info --json model/model.bs")["containers"][0]["format"], "bigsmall");
    assert_eq!(fs::metadata(scratch.path("model/model.bs")).unwrap().nlink(), 1);
}

#[test]
fn one_bad_file_does_not_keep_the_others() {
    let scratch = with("shards");
    let tensor = damage(&scratch, "model/model-00001-of-00002.bs");
    let run = scratch.run(["migrate", "model"]);
    assert_eq!(run.code, 2);
    assert!(run.stderr.contains(&tensor) && run.stderr.contains("it stays as it is"), "{}", run.stderr);
    let info = scratch.json("info --json model");
    let formats: Vec<&Value> = info["containers"].as_array().unwrap().iter().map(|info| &info["format"]).collect();
    assert_eq!(formats, ["python", "bigsmall"]);
    assert!(scratch.path("model/bigsmall.index.json").exists(), "the index is still needed");
    let names = names_in(&scratch.path("model"));
    assert!(!names.iter().any(|name| name.starts_with('.')), "nothing is left behind: {names:?}");
}

/// The package's own example: a file, its sidecar, and the file with 17 wrong bytes.
fn with_parity() -> (Scratch, Vec<u8>, Vec<u8>) {
    let (scratch, from) = (with("ecc"), Path::new(UPSTREAM).join("ecc"));
    scratch.write("model.bs.ecc", fs::read(from.join("model.bs.ecc")).unwrap());
    (scratch, fs::read(from.join("model.bs")).unwrap(), fs::read(from.join("damaged")).unwrap())
}

#[test]
fn the_package_s_parity_repairs_its_files() {
    let (scratch, model, damaged) = with_parity();
    scratch.write("model.bs", &damaged);
    let run = scratch.run(["verify", "model.bs"]);
    assert_eq!(run.code, 1);
    let wrong =
        "  model.bs.ecc: damaged: 17 bytes of the file are not what it protects; bigsmall repair can put them right\n";
    assert!(run.stdout.contains(wrong), "{}", run.stdout);
    let said = scratch.ok("repair model.bs");
    let expected =
        "model.bs: repaired as model.repaired.bs: 17 bytes put right with parity\n  the MD5 of each tensor holds\n";
    assert_eq!(said, expected);
    assert!(scratch.read("model.repaired.bs") == model && scratch.read("model.bs") == damaged);
    scratch.ok("repair -q --in-place model.bs");
    assert!(scratch.read("model.bs") == model && scratch.read("model.bs.damaged") == damaged);
    assert!(scratch.ok("verify model.bs").ends_with("  model.bs.ecc: sound\n"));
    assert_eq!(scratch.ok("repair --force model.bs"), "model.bs: sound; nothing to repair\n");
    // Its beginning, by which such a file is known.
    let mut headless = model.clone();
    headless[..16].fill(0);
    scratch.write("model.bs", &headless);
    scratch.ok("repair -q --force model.bs");
    assert!(scratch.read("model.repaired.bs") == model);
    // A few bytes that are lost at its end.
    scratch.write("model.bs", &model[..model.len() - 7]);
    scratch.ok("repair -q --force model.bs");
    assert!(scratch.read("model.repaired.bs") == model);
}

#[test]
fn the_package_s_parity_repairs_what_is_read() {
    let (scratch, model, damaged) = with_parity();
    scratch.write("model.bs", &model);
    scratch.ok("decompress -q model.bs -o expected");
    let expected = scratch.read("expected");
    let mut headless = model.clone();
    headless[..16].fill(0);
    for (torn, what) in [(&damaged, "1 damaged tensor was"), (&headless, "its index is damaged and was")] {
        scratch.write("model.bs", torn);
        let run = scratch.run(["decompress", "-q", "-f", "model.bs", "-o", "out"]);
        assert_eq!(run.code, 0, "{}", run.stderr);
        let said = format!("model.bs: {what} repaired from its sidecar; bigsmall repair --in-place repairs the file\n");
        assert!(run.stderr.ends_with(&said), "{}", run.stderr);
        assert!(scratch.read("out") == expected && &scratch.read("model.bs") == torn, "{what}");
    }
    // More than it can bear, and without it.
    let mut torn = model.clone();
    torn[9000..9100].iter_mut().for_each(|byte| *byte = !*byte);
    scratch.write("model.bs", &torn);
    scratch.fails(2, "decompress -q model.bs -o never");
    scratch.write("model.bs", &damaged);
    fs::remove_file(scratch.path("model.bs.ecc")).unwrap();
    scratch.fails(2, "decompress -q model.bs -o never");
    assert!(!scratch.path("never").exists());
}

#[test]
fn damage_beyond_the_package_s_parity_is_named_and_a_bad_sidecar_does_no_harm() {
    let (scratch, model, _) = with_parity();
    let mut torn = model.clone();
    torn[9000..9100].iter_mut().for_each(|byte| *byte = !*byte);
    scratch.write("model.bs", &torn);
    let run = scratch.run(["repair", "model.bs"]);
    assert_eq!((run.code, run.stderr.as_str()), (1, "bigsmall: model.bs: damaged beyond repair\n"));
    assert!(run.stdout.contains("  tensor \"") && run.stdout.contains("more is damaged than its sidecar"), "{run:?}");
    assert!(!scratch.names().iter().any(|name| name.contains("repaired")));
    // Without a usable sidecar the same is said, and a sound file stays sound.
    let sidecar = scratch.read("model.bs.ecc");
    for (bad, why) in [
        (&sidecar[..sidecar.len() - 1], "its header says another length than it has"),
        (&[b"BSECC1__\x07\0", &sidecar[10..]].concat(), "a version that is not known"),
        (b"BSECC1__", "bytes expected"),
    ] {
        scratch.write("model.bs.ecc", bad);
        let run = scratch.run(["repair", "model.bs"]);
        assert_eq!(run.code, 1);
        assert!(run.stdout.contains("the sidecar cannot be used: ") && run.stdout.contains(why), "{}", run.stdout);
        scratch.write("sound.bs", &model);
        scratch.write("sound.bs.ecc", bad);
        assert_eq!(scratch.ok("repair sound.bs"), "sound.bs: sound; nothing to repair\n");
        let run = scratch.run(["verify", "sound.bs"]);
        assert!(run.code != 0 && run.stdout.contains("  sound.bs.ecc: damaged: "), "{run:?}");
    }
}
