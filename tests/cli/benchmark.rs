//! `benchmark`: what it tells, not how fast anything is.

use std::fs;

use crate::support::*;

#[test]
fn everything_is_measured() {
    let scratch = Scratch::new();
    scratch.write("m/m.safetensors", fs::read(REAL_WEIGHTS).unwrap());
    scratch.write("m/small.safetensors", small_model());
    fs::create_dir(scratch.path("tmp")).unwrap();
    let run = |arguments: &[&str]| {
        let output = scratch.command(BIGSMALL).args(arguments).env("TMPDIR", scratch.path("tmp")).output().unwrap();
        let run = Run::from(output);
        assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{arguments:?}");
        assert!(names_in(&scratch.path("tmp")).is_empty(), "nothing is left behind");
        run.stdout
    };
    let json: serde_json::Value = serde_json::from_str(&run(&["benchmark", "--json", "m"])).unwrap();
    assert_eq!(json["file"], "m/m.safetensors", "the largest");
    assert_eq!(json["measured_bytes"], json["original_bytes"]);
    let names = |key: &str| -> Vec<String> {
        json[key].as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names("references"), ["memcpy", "zstd -1", "zstd -3"]);
    assert_eq!(names("modes"), ["balanced", "storage", "inference"]);
    let positive = |value: &serde_json::Value| value.as_f64().is_some_and(|speed| speed > 0.0);
    for row in json["modes"].as_array().unwrap() {
        assert!(positive(&row["encode"]) && positive(&row["decode"]), "{row}");
        let ratio = row["ratio"].as_f64().unwrap();
        assert!((0.6..0.9).contains(&ratio), "{row}");
    }
    assert_eq!(json["layers"].as_array().unwrap().len(), 7);
    assert!(positive(&json["verify"]));
    // It says so if nothing can be mounted; here it must be possible.
    assert!(positive(&json["mount"]["first"]) && positive(&json["mount"]["again"]), "{}", json["mount_error"]);

    let shown = run(&["benchmark", "--threads", "1", "m/m.safetensors"]);
    for line in
        ["m/m.safetensors: 560.0 kB, 1 thread, ", "  memcpy ", "  verify ", "  mount, first read ", "\n  decode\n", "█"]
    {
        assert!(shown.contains(line), "{line:?} is not in\n{shown}");
    }
}

#[test]
fn some_tensors_stand_for_a_large_file() {
    let scratch = Scratch::new();
    let layers: Vec<String> = (0..10).map(|layer| format!("layers.{layer}.weight")).collect();
    let mut tensors: Vec<(&str, &str, u64, usize)> =
        layers.iter().map(|name| (name.as_str(), "BF16", 2, 50_000)).collect();
    tensors.push(("head", "BF16", 2, 100_000));
    scratch.write("m.safetensors", model(&tensors));
    let json = scratch.json("benchmark --json --sample 220K m.safetensors");
    let kinds: Vec<&str> =
        json["layers"].as_array().unwrap().iter().map(|row| row["tensors"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["layers.*.weight", "head"]);
    let measured = json["measured_bytes"].as_u64().unwrap();
    assert!((200_000..226_000).contains(&measured), "{measured}");
    let said = scratch.fails(2, "benchmark --sample 10K m.safetensors");
    assert!(said.starts_with("bigsmall: m.safetensors: each of its tensors is larger than 10240 bytes\n"), "{said}");
    scratch.write("m.gguf", gguf_model());
    let said = scratch.fails(2, "benchmark --sample 10K m.gguf");
    assert!(said.contains("only safetensors files are measured in part\n--sample "), "{said}");
    scratch.write("empty", "");
    assert_eq!(scratch.fails(2, "benchmark empty"), "bigsmall: empty: is empty: nothing to measure with\n");
}
