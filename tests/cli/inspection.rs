//! `info` and `verify` of what is sound, and of what is damaged where the exact words matter.

use std::fs;

use crate::support::*;

#[test]
fn info_says_what_is_in_a_container() {
    let scratch = Scratch::new();
    // Two equal tensors and one that is different.
    let mut model = model(&[("a", "BF16", 2, 600_000), ("b", "BF16", 2, 600_000), ("c", "I64", 8, 8)]);
    let data = model.len() - 1_200_008;
    model.copy_within(data..data + 600_000, data + 600_000);
    scratch.write("model.safetensors", &model);
    scratch.ok("compress -q model.safetensors -o m.bs");
    let container = scratch.read("m.bs").len();
    let info = scratch.ok("info m.bs");
    let lines: Vec<&str> = info.lines().collect();
    assert_eq!(lines[0], "m.bs");
    assert_eq!(lines[1], format!("  original   model.safetensors, 1.2 MB ({} bytes)", model.len()));
    assert_eq!(lines[2], format!("  container  {:.1} kB ({container} bytes)", container as f64 / 1000.0));
    assert_eq!(lines[3], format!("  ratio      {:.2} %", container as f64 * 100.0 / model.len() as f64));
    assert_eq!(lines[4], "  format     1.1");
    assert_eq!(lines[5], "  chunks     8 of 262144 bytes or less, 3 of them stored once for several tensors");
    assert_eq!(lines[6], "  tensors    3");
    assert!(lines[7].starts_with("  SHA-256    ") && lines[7].len() == 13 + 64, "{}", lines[7]);
    assert_eq!(lines[9], "  dtype        tensors  original    share");
    assert_eq!(lines[10], "  BF16               2    1.2 MB  100.0 %");
    assert_eq!(lines[11], "  I64                1       8 B    0.0 %");
    assert_eq!(lines[12], format!("  (no tensor)        -     {data} B    0.0 %"));
    assert_eq!(
        lines[14].split_whitespace().collect::<Vec<_>>(),
        ["codec", "chunks", "original", "compressed", "ratio"]
    );
    assert!(lines[15..].iter().any(|line| line.starts_with("  float ")), "{info}");
}

#[test]
fn info_for_programs_is_exact() {
    let scratch = Scratch::new();
    let original = fs::read(REAL_WEIGHTS).unwrap();
    scratch.write("model/model.safetensors", &original);
    scratch.write("model/sub/small.safetensors", small_model());
    scratch.ok("compress -q model --chunk-size 64K");
    let json = scratch.json("info --json model-bigsmall/model.bs");
    let container = &json["containers"][0];
    let stored = scratch.read("model-bigsmall/model.bs").len();
    for (key, value) in [
        ("file", "model-bigsmall/model.bs".into()),
        ("format_version", "1.1".into()),
        ("original_name", "model.safetensors".into()),
        ("chunk_size", 65_536.into()),
        ("original_bytes", original.len().into()),
        ("container_bytes", stored.into()),
        ("tensors", 7.into()),
        ("other_bytes", 608.into()),
        ("sha256", "ae4a77ad540ed895f2287aa9685c991dbff11116ce6a9b4398079c8c5da0174e".into()),
        (
            "dtypes",
            serde_json::json!({
                "BF16": { "tensors": 2, "bytes": 295_680 },
                "F16": { "tensors": 1, "bytes": 73_728 },
                "F32": { "tensors": 2, "bytes": 148_992 },
                "F8_E4M3": { "tensors": 1, "bytes": 36_864 },
                "I64": { "tensors": 1, "bytes": 4_096 },
            }),
        ),
    ] {
        assert_eq!(container[key], value, "{key}");
    }
    let codecs = container["codecs"].as_object().unwrap();
    let sum = |key: &str| codecs.values().map(|codec| codec[key].as_u64().unwrap()).sum::<u64>();
    assert_eq!(sum("original_bytes"), original.len() as u64);
    assert_eq!(sum("chunks"), container["chunks"].as_u64().unwrap());
    assert!(sum("stored_bytes") < stored as u64 && sum("stored_bytes") > stored as u64 * 9 / 10);

    let json = scratch.json("info --json model-bigsmall");
    assert_eq!(json["containers"].as_array().unwrap().len(), 2);
    assert_eq!(json["containers"][0], *container);
    assert_eq!(json["total"]["original_bytes"], original.len() + small_model().len());
    assert_eq!(json["total"]["tensors"], 9);
    assert_eq!(json["total"]["dtypes"]["BF16"], serde_json::json!({ "tensors": 3, "bytes": 335_680 }));
}

#[test]
fn info_adds_up_a_directory() {
    let scratch = Scratch::new();
    scratch.write("model/a.safetensors", small_model());
    scratch.write("model/sub/b.safetensors", small_model());
    scratch.ok("compress -q model -o m");
    let len = scratch.read("m/a.bs").len() as u64;
    let info = scratch.ok("info m");
    let size = |bytes: u64| format!("{:.1} kB", bytes as f64 / 1000.0);
    let ratio = format!("{:.2} %", len as f64 * 100.0 / small_model().len() as f64);
    let expected = [
        "file      original  compressed    ratio  tensors".to_owned(),
        format!("m/a.bs     60.1 kB     {}  {ratio}        2", size(len)),
        format!("m/sub/b.bs 60.1 kB     {}  {ratio}        2", size(len)),
        format!("total     120.3 kB     {}  {ratio}        4", size(2 * len)),
    ];
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    for (line, expected) in info.lines().zip(&expected) {
        assert_eq!(words(line), words(expected));
    }
    assert!(info.contains("\n  BF16               2   80.0 kB  66.5 %\n"), "{info}");
    // One that cannot be read does not hide the others, and is not passed over.
    scratch.write("m/b.bs", "broken");
    let run = scratch.run(["info", "m"]);
    assert_eq!(run.code, 2);
    assert_eq!(run.stderr, "bigsmall: m/b.bs: this is not a bigsmall container\n");
    assert_eq!(run.stdout, info);
}

#[test]
fn verify_says_that_all_is_well() {
    let scratch = Scratch::new();
    scratch.write("model/a.safetensors", small_model());
    scratch.write("model/sub/one.safetensors", model(&[("t", "F32", 4, 400_000)]));
    scratch.write("model/config.json", "{}");
    scratch.ok("compress -q model -o m");
    let report = scratch.ok("verify m");
    assert_eq!(
        report,
        "m/a.bs: sound (60.1 kB, 3 chunks, 2 tensors)\nm/sub/one.bs: sound (400.1 kB, 3 chunks, 1 tensor)\n"
    );
    assert_eq!(scratch.ok("verify --quiet m"), "");
    let json = scratch.json("verify --json m/sub");
    let expected = serde_json::json!({
        "files": [{
            "file": "m/sub/one.bs",
            "status": "sound",
            "error": null,
            "original_bytes": 400_072,
            "chunks": 3,
            "tensors": 1,
            "damage": [],
            "sidecar": null,
            "sample": null,
        }],
        "sound": 1,
        "damaged": 0,
        "unchecked": 0,
    });
    assert_eq!(json, expected);
}

#[test]
fn verify_names_file_tensor_and_bytes_and_goes_on() {
    let scratch = Scratch::new();
    let original = model(&[("a", "BF16", 2, 300_000), ("b\x1b[7m", "BF16", 2, 300_000)]);
    scratch.write("model/a.safetensors", &original);
    scratch.write("model/b.safetensors", small_model());
    scratch.ok("compress -q model -o m");
    // The stored chunks lie one behind the other: the header, two of `a`, two of `b`.
    let mut container = scratch.read("m/a.bs");
    let len = container.len();
    container[len / 4] ^= 0x10;
    container[len * 24 / 25] ^= 0x01;
    scratch.write("m/a.bs", container);

    let run = scratch.run(["verify", "m"]);
    assert_eq!(run.code, 1);
    assert_eq!(run.stderr, "bigsmall: 1 of 2 containers damaged\n");
    let (start, end) = (original.len() - 600_000, original.len());
    let (first_end, last_start) = (start + 262_144, start + 300_000 + 262_144);
    assert_eq!(
        run.stdout,
        format!(
            "m/a.bs: damaged\n  \
             tensor \"a\", bytes {start} to {first_end}: \
             chunk 1 (bytes {start} to {first_end} of the original): the stored bytes fail their checksum\n  \
             tensor \"b\\u{{1b}}[7m\", bytes {last_start} to {end}: \
             chunk 4 (bytes {last_start} to {end} of the original): the stored bytes fail their checksum\n\
             m/b.bs: sound (60.1 kB, 3 chunks, 2 tensors)\n"
        )
    );

    let run = scratch.run(["verify", "-q", "m/a.bs"]);
    assert_eq!((run.code, run.stdout.as_str(), run.stderr.as_str()), (1, "", "bigsmall: m/a.bs: damaged\n"));

    let run = scratch.run(["verify", "--json", "m"]);
    assert_eq!(run.code, 1);
    let json: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!((&json["sound"], &json["damaged"], &json["unchecked"]), (&1.into(), &1.into(), &0.into()));
    let damage = &json["files"][0]["damage"];
    assert_eq!(damage.as_array().unwrap().len(), 2);
    assert_eq!((&damage[1]["tensor"], &damage[1]["cause"]), (&"b\x1b[7m".into(), &"chunk".into()));
    assert_eq!((&damage[1]["start"], &damage[1]["end"]), (&last_start.into(), &end.into()));
}

#[test]
fn a_long_list_of_damage_is_cut_for_people_and_whole_for_programs() {
    let scratch = Scratch::new();
    let names: Vec<String> = (0..40).map(|number| format!("t{number:02}")).collect();
    let tensors: Vec<(&str, &str, u64, usize)> = names.iter().map(|name| (name.as_str(), "BF16", 2, 70_000)).collect();
    scratch.write("m.safetensors", model(&tensors));
    scratch.ok("compress -q m.safetensors");
    let mut container = scratch.read("m.bs");
    let len = container.len();
    container[len / 10..len / 10 * 9].fill(0);
    scratch.write("m.bs", container);
    let run = scratch.run(["verify", "--json", "m.bs"]);
    let json: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    let findings = json["files"][0]["damage"].as_array().unwrap().len();
    assert!((30..=40).contains(&findings), "one a tensor: {findings}");
    let run = scratch.run(["verify", "m.bs"]);
    let lines: Vec<&str> = run.stdout.lines().collect();
    assert_eq!(lines.len(), 22);
    assert_eq!(lines[21], format!("  and {} more; --json gives all", findings - 20));
}

#[test]
fn there_may_be_more_containers_than_files_that_can_be_open() {
    let scratch = Scratch::new();
    scratch.write("m.safetensors", small_model());
    scratch.ok("compress -q m.safetensors");
    let container = scratch.read("m.bs");
    for number in 0..60 {
        scratch.write(format!("many/{number}.bs"), &container);
    }
    for command in ["verify many", "info many", "decompress -q many -o back"] {
        let script = format!("ulimit -n 40; exec {BIGSMALL} {command}");
        let run = Run::from(scratch.command("sh").args(["-c", &script]).output().unwrap());
        assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{command}");
    }
    assert_eq!(names_in(&scratch.path("back")).len(), 60);
}
