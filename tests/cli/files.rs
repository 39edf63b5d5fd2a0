//! `compress` and `decompress` of single files.

use std::fs;
use std::os::unix::fs::symlink;

use sha2::{Digest, Sha256};

use crate::support::*;

#[test]
fn a_file_comes_back_with_its_attributes() {
    let scratch = Scratch::new();
    let original = fs::read(REAL_WEIGHTS).unwrap();
    let path = scratch.write("model.safetensors", &original);
    set_attributes(&path, 0o640, (1_234_567_890, 123_456_789));
    let before = attributes(&path);
    let table = scratch.ok("compress model.safetensors");
    let saved = 100.0 - scratch.read("model.bs").len() as f64 * 100.0 / original.len() as f64;
    assert!((20.0..40.0).contains(&saved), "{saved} % saved of weights of each kind");
    let size = scratch.read("model.bs").len() as f64 / 1000.0;
    assert_eq!(
        mask_speed(&table),
        format!(
            "file      original  compressed   saved  SPEED\nmodel.bs  560.0 kB    {size:.1} kB  {saved:.1} %  SPEED\n"
        )
    );
    assert_eq!(scratch.names(), ["model.bs", "model.safetensors"], "the original stays and nothing else is left");
    assert_eq!(attributes(&scratch.path("model.bs")), before);

    fs::remove_file(&path).unwrap();
    let table = scratch.ok("decompress model.bs");
    assert_eq!(
        mask_speed(&table),
        format!("file               compressed  original  SPEED\nmodel.safetensors    {size:.1} kB  560.0 kB  SPEED\n")
    );
    assert_eq!(scratch.names(), ["model.bs", "model.safetensors"], "the container stays and nothing else is left");
    assert!(scratch.read("model.safetensors") == original);
    assert_eq!(attributes(&path), before);
}

#[test]
fn any_kind_of_file_comes_back() {
    let scratch = Scratch::new();
    let noise: Vec<u8> = (0..100_000u32).flat_map(|i| Sha256::digest(i.to_le_bytes())[..4].to_vec()).collect();
    for (name, contents) in [
        ("text.txt", b"not a safetensors file\n".to_vec()),
        ("empty.safetensors", Vec::new()),
        ("empty", Vec::new()),
        ("one-byte.bin", vec![7]),
        ("eight.bin", vec![0; 8]),
        ("noise.gguf", noise),
        ("zeros.pth", vec![0; 3_000_000]),
        ("two.dots.bin", b"a".repeat(10)),
        (".hidden", b"hidden".to_vec()),
        ("no-tensors.safetensors", safetensors("{}", 0)),
        ("модель.safetensors", small_model()),
    ] {
        scratch.write(name, &contents);
        let stem = name.rsplit_once('.').filter(|(stem, _)| !stem.is_empty()).map_or(name, |(stem, _)| stem);
        scratch.ok(&format!("compress -q {name}"));
        fs::remove_file(scratch.path(name)).unwrap();
        scratch.ok(&format!("verify -q {stem}.bs"));
        scratch.ok(&format!("decompress -q {stem}.bs"));
        assert!(scratch.read(name) == contents, "{name}");
        fs::remove_file(scratch.path(format!("{stem}.bs"))).unwrap();
    }
}

/// What other tools cannot give back, or give back otherwise: dtypes that are rare, the header's order, spaces and metadata, tensors
/// without dimensions and without elements.
#[test]
fn every_dtype_shape_and_header_comes_back() {
    let scratch = Scratch::new();
    let dtypes = [
        ("BOOL", 8),
        ("F4", 4),
        ("F6_E2M3", 6),
        ("F6_E3M2", 6),
        ("U8", 8),
        ("I8", 8),
        ("F8_E5M2", 8),
        ("F8_E4M3", 8),
        ("F8_E8M0", 8),
        ("F8_E4M3FNUZ", 8),
        ("F8_E5M2FNUZ", 8),
        ("I16", 16),
        ("U16", 16),
        ("F16", 16),
        ("BF16", 16),
        ("I32", 32),
        ("U32", 32),
        ("F32", 32),
        ("C64", 64),
        ("F64", 64),
        ("I64", 64),
        ("U64", 64),
    ];
    let mut end = 0;
    // Not in the order of their names, nor in that of their dtypes.
    let mut entries = vec!["  \"__metadata__\" : {\"z\":\"1\", \"a\":\"\u{fc}\"}".to_owned()];
    for (number, (dtype, bits)) in dtypes.into_iter().enumerate() {
        for shape in ["[400,24]", "[]", "[3,0,5]"] {
            let elements = match shape {
                "[400,24]" => 9600,
                "[]" if bits % 8 == 0 => 1,
                "[3,0,5]" => 0,
                _ => continue,
            };
            let (start, name) = (end, format!("{:02}.{dtype}.{shape}", dtypes.len() - number));
            end += elements * bits / 8;
            entries.push(format!(
                "{name:?}: {{\"shape\":{shape},\"dtype\":\"{dtype}\",\"data_offsets\":[{start}, {end}]}}"
            ));
        }
    }
    let original = safetensors(&format!("{{{}}}   ", entries.join(",")), end);
    scratch.write("m.safetensors", &original);
    scratch.ok("compress -q m.safetensors");
    scratch.ok("verify -q --source m.safetensors m.bs");
    let tensors = &scratch.json("info --json m.bs")["containers"][0]["tensors"];
    assert_eq!(*tensors, entries.len() - 1);
    scratch.ok("decompress -q m.bs -o out");
    assert!(scratch.read("out") == original);
}

#[test]
fn names_that_are_not_unicode_are_kept() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let scratch = Scratch::new();
    let (original, container) = (OsStr::from_bytes(b"w\xff\xfe.safetensors"), OsStr::from_bytes(b"w\xff\xfe.bs"));
    scratch.write(original, small_model());
    let run = scratch.run([OsStr::new("compress"), original]);
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
    assert!(run.stdout.contains("w\u{fffd}\u{fffd}.bs"), "{}", run.stdout);
    fs::remove_file(scratch.path(original)).unwrap();
    let run = scratch.run([OsStr::new("decompress"), container]);
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
    assert!(scratch.read(original) == small_model());
}

#[test]
fn names_cannot_command_the_terminal() {
    let scratch = Scratch::new();
    let name = "red\x1b[31m\n.safetensors";
    scratch.write(name, small_model());
    let run = scratch.run(["compress", name]);
    assert!(run.stdout.contains("red\\u{1b}[31m\\n.bs") && !run.stdout.contains('\x1b'), "{}", run.stdout);
    let run = scratch.run(["compress", name]);
    assert!(run.stderr.starts_with("bigsmall: red\\u{1b}[31m"), "{}", run.stderr);
    fs::write(scratch.path("red\x1b[31m\n.bs"), "broken").unwrap();
    let run = scratch.run(["verify", "red\x1b[31m\n.bs"]);
    assert!(!run.stdout.contains('\x1b') && !run.stderr.contains('\x1b'), "{run:?}");
}

#[test]
fn the_target_can_be_chosen() {
    let scratch = Scratch::new();
    scratch.write("model.safetensors", small_model());
    fs::create_dir(scratch.path("out")).unwrap();
    scratch.ok("compress -q model.safetensors -o other.bs");
    scratch.ok("compress -q model.safetensors -o out");
    scratch.ok("compress -qf model.safetensors --output out/");
    assert_eq!(scratch.names(), ["model.safetensors", "other.bs", "out"]);
    assert_eq!(names_in(&scratch.path("out")), ["model.bs"]);
    assert!(scratch.read("out/model.bs") == scratch.read("other.bs"));
}

#[test]
fn a_directory_that_exists_takes_the_file() {
    let scratch = Scratch::new();
    scratch.write("model.safetensors", small_model());
    fs::create_dir(scratch.path("out")).unwrap();
    scratch.ok("compress -q model.safetensors -o out");
    scratch.ok("decompress -q out/model.bs -o out/");
    scratch.ok("decompress -q out/model.bs -o back");
    assert_eq!(names_in(&scratch.path("out")), ["model.bs", "model.safetensors"]);
    assert!(scratch.read("out/model.safetensors") == small_model());
    assert!(scratch.read("back") == small_model());
    assert_eq!(
        scratch.fails(2, "compress model.safetensors -o missing/"),
        "bigsmall: missing/: there is no such directory\n"
    );
    assert_eq!(
        scratch.fails(2, "compress model.safetensors -o missing/x.bs"),
        "bigsmall: missing/x.bs: cannot be created: there is no directory missing\n"
    );
    assert_eq!(
        scratch.fails(2, "decompress out/model.bs -o model.safetensors/x"),
        "bigsmall: model.safetensors/x: cannot be created: model.safetensors is not a directory\n"
    );
}

#[test]
fn nothing_is_overwritten_unless_forced() {
    let scratch = Scratch::new();
    scratch.write("model.safetensors", small_model());
    scratch.write("model.bs", "mine");
    assert_eq!(
        scratch.fails(2, "compress model.safetensors"),
        "bigsmall: model.bs: exists already\n--force replaces it; -o gives another name\n"
    );
    assert_eq!(scratch.read("model.bs"), b"mine");
    scratch.ok("compress -q --force model.safetensors");
    assert_eq!(
        scratch.fails(2, "decompress model.bs"),
        "bigsmall: model.safetensors: exists already\n--force replaces it; -o gives another name\n"
    );
    scratch.write("model.safetensors", "mine");
    scratch.ok("decompress -q -f model.bs");
    assert!(scratch.read("model.safetensors") == small_model());
    assert_eq!(scratch.names(), ["model.bs", "model.safetensors"]);
}

#[test]
fn only_files_are_overwritten_even_when_forced() {
    let scratch = Scratch::new();
    scratch.write("model.safetensors", small_model());
    fs::create_dir_all(scratch.path("out/model.bs")).unwrap();
    symlink("/dev/null", scratch.path("null")).unwrap();
    assert_eq!(
        scratch.fails(2, "compress --force model.safetensors -o out"),
        "bigsmall: out/model.bs: is a directory; a file cannot replace it\n"
    );
    assert_eq!(
        scratch.fails(2, "compress --force model.safetensors -o null"),
        "bigsmall: null: is a device, pipe or socket and stays\n"
    );
    assert!(fs::metadata("/dev/null").unwrap().len() == 0 && !fs::metadata("/dev/null").unwrap().is_file());
}

#[test]
fn a_file_is_never_written_over_itself() {
    let scratch = Scratch::new();
    scratch.write("model.safetensors", small_model());
    symlink("model.safetensors", scratch.path("link")).unwrap();
    let over_itself = "would be written over itself; give another name with -o\n";
    for target in ["model.safetensors", "./model.safetensors", "link"] {
        assert_eq!(
            scratch.fails(2, &format!("compress --force model.safetensors -o {target}")),
            format!("bigsmall: model.safetensors: {over_itself}")
        );
    }
    // A file that is called as a container is, but is none.
    scratch.write("odd.bs", "text");
    assert_eq!(scratch.fails(2, "compress --force odd.bs"), format!("bigsmall: odd.bs: {over_itself}"));
    scratch.ok("compress -q odd.bs -o really.bs");
    assert_eq!(scratch.fails(2, "decompress --force really.bs"), format!("bigsmall: really.bs: {over_itself}"));
    assert!(scratch.read("model.safetensors") == small_model());
}

#[test]
fn a_container_is_not_compressed_again() {
    let scratch = Scratch::new();
    scratch.write("model.safetensors", small_model());
    scratch.ok("compress -q model.safetensors");
    let container = scratch.read("model.bs");
    scratch.write("renamed.safetensors", &container);
    for name in ["model.bs", "renamed.safetensors"] {
        assert_eq!(
            scratch.fails(2, &format!("compress {name} -o new.bs")),
            format!("bigsmall: {name}: is a bigsmall container already\n")
        );
    }
    assert!(!scratch.path("new.bs").exists());
}

#[test]
fn the_original_is_named_after_its_container() {
    let scratch = Scratch::new();
    scratch.write("model.safetensors", small_model());
    scratch.ok("compress -q model.safetensors -o renamed.bs");
    scratch.ok("decompress -q renamed.bs");
    assert!(scratch.read("renamed.safetensors") == small_model());
    fs::rename(scratch.path("renamed.bs"), scratch.path("nameless")).unwrap();
    assert_eq!(
        scratch.fails(2, "decompress nameless"),
        "bigsmall: nameless: its name does not end in .bs, so what to call the original is not clear\n\
         give a name with -o; it was made from model.safetensors\n"
    );
    scratch.ok("decompress -q nameless -o named.safetensors");
    assert!(scratch.read("named.safetensors") == small_model());
}

#[test]
fn links_to_files_are_followed() {
    let scratch = Scratch::new();
    scratch.write("blobs/53aa51172d142c89", small_model());
    fs::create_dir(scratch.path("snapshot")).unwrap();
    symlink("../blobs/53aa51172d142c89", scratch.path("snapshot/model.safetensors")).unwrap();
    scratch.ok("compress -q snapshot/model.safetensors");
    assert!(fs::symlink_metadata(scratch.path("snapshot/model.bs")).unwrap().is_file());
    scratch.ok("decompress -q snapshot/model.bs -o back.safetensors");
    assert!(scratch.read("back.safetensors") == small_model());
}

#[test]
fn modes_and_chunk_sizes_give_the_same_original() {
    let scratch = Scratch::new();
    let original = fs::read(REAL_WEIGHTS).unwrap();
    scratch.write("model.safetensors", &original);
    for options in ["--storage", "--balanced", "--inference", "--chunk-size 1KiB", "--chunk-size 4M --storage"] {
        scratch.ok(&format!("compress -q -f model.safetensors {options}"));
        scratch.ok("decompress -q -f --check model.bs -o back");
        assert!(scratch.read("back") == original, "{options}");
    }
    assert_eq!(
        scratch.fails(2, "compress model.safetensors --storage --inference"),
        "bigsmall: the argument '--storage' cannot be used with '--inference'\n\n\
         Usage: bigsmall compress --storage <SRC>\n\nFor more information, try '--help'.\n"
    );
    assert_eq!(
        scratch.fails(2, "compress model.safetensors --chunk-size 100"),
        "bigsmall: invalid value '100' for '--chunk-size <SIZE>': \
         100 bytes is not a multiple of 8 from 64 to 8388608\n\nFor more information, try '--help'.\n"
    );
}

#[test]
fn the_number_of_threads_does_not_show() {
    let scratch = Scratch::new();
    let original = fs::read(REAL_WEIGHTS).unwrap();
    scratch.write("model.safetensors", &original);
    let containers = ["--threads 1", "--threads 2", "--threads 7", ""].map(|threads| {
        scratch.ok(&format!("compress -q -f model.safetensors --chunk-size 4K {threads}"));
        scratch.ok(&format!("decompress -q -f model.bs -o back {threads}"));
        scratch.ok(&format!("verify -q model.bs {threads}"));
        assert!(scratch.read("back") == original, "{threads}");
        scratch.read("model.bs")
    });
    assert!(containers.iter().all(|container| *container == containers[0]));
}

#[test]
fn results_for_programs_are_exact() {
    let scratch = Scratch::new();
    let original = small_model();
    scratch.write("model.safetensors", &original);
    let mut compressed = scratch.json("compress --json model.safetensors -o x.bs");
    let container_len = scratch.read("x.bs").len();
    let sha256: String = Sha256::digest(&original).iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(compressed["files"][0]["seconds"].take().as_f64().unwrap() > 0.0);
    assert!(compressed["total"]["seconds"].take().as_f64().unwrap() > 0.0);
    let expected = serde_json::json!({
        "files": [{
            "source": "model.safetensors",
            "container": "x.bs",
            "original_bytes": original.len(),
            "container_bytes": container_len,
            "resumed_bytes": 0,
            "sha256": sha256,
            "seconds": null,
        }],
        "copied_files": 0,
        "copied_bytes": 0,
        "total": { "original_bytes": original.len(), "container_bytes": container_len, "seconds": null },
        "parity": [],
        "bases": [],
    });
    assert_eq!(compressed, expected);
    let mut restored = scratch.json("decompress --json x.bs");
    assert!(restored["files"][0]["seconds"].take().as_f64().unwrap() > 0.0);
    assert!(restored["total"]["seconds"].take().as_f64().unwrap() > 0.0);
    let expected = serde_json::json!({
        "files": [{
            "container": "x.bs",
            "original": "x.safetensors",
            "container_bytes": container_len,
            "original_bytes": original.len(),
            "sha256": sha256,
            "seconds": null,
        }],
        "copied_files": 0,
        "copied_bytes": 0,
        "total": { "container_bytes": container_len, "original_bytes": original.len(), "seconds": null },
    });
    assert_eq!(restored, expected);
}
