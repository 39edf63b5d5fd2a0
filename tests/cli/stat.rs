//! `stat`: how each tensor is stored.

use crate::support::*;

/// A model of two equal tensors, one that is all zeros, one without elements and two that share a chunk; compressed to `m.bs`.
fn compressed(scratch: &Scratch) -> Vec<u8> {
    let mut model = model(&[
        ("a", "BF16", 2, 600_000),
        ("b", "BF16", 2, 600_000),
        ("empty", "F32", 4, 0),
        ("tiny.1", "F16", 2, 6_000),
        ("tiny.2", "F16", 2, 2_000),
        ("zeros", "F32", 4, 400_000),
    ]);
    let data = model.len() - 1_608_000;
    model.copy_within(data..data + 600_000, data + 600_000);
    model[data + 1_208_000..].fill(0);
    scratch.write("m.safetensors", &model);
    scratch.ok("compress -q m.safetensors");
    model
}

#[test]
fn stat_says_how_each_tensor_is_stored() {
    let scratch = Scratch::new();
    let model = compressed(&scratch);
    let shown = scratch.ok("stat m.bs");
    let rows: Vec<Vec<&str>> = shown.lines().map(|line| line.split("  ").map(str::trim).collect()).collect();
    let rows: Vec<Vec<&str>> =
        rows.into_iter().map(|row| row.into_iter().filter(|c| !c.is_empty()).collect()).collect();
    assert_eq!(rows[0], ["tensor", "dtype", "shape", "codec", "original", "stored", "ratio", "bits/weight"]);
    assert_eq!(rows[1][..5], ["a", "BF16", "300000", "float", "600.0 kB"]);
    assert_eq!(rows[2], ["b", "BF16", "300000", "as a", "600.0 kB", "0 B", "0.00 %", "0.00"]);
    assert_eq!(rows[3], ["empty", "F32", "0", "-", "0 B", "0 B", "-", "-"]);
    assert_eq!(rows[6], ["zeros", "F32", "100000", "constant", "400.0 kB", "8 B", "0.00 %", "0.00"]);
    assert_eq!(rows[7][0], "(headers, index)");
    assert_eq!(rows[8][..5], ["total", "-", "-", "-", "1.6 MB"]);

    // What is stored adds up to what `info` says.
    let json = scratch.json("stat --json m.bs");
    let info = scratch.json("info --json m.bs");
    let of_codecs = info["total"]["codecs"].as_object().unwrap().values();
    let header = info["total"]["codecs"]["zstd"]["stored_bytes"].as_u64().unwrap();
    let of_codecs: u64 = of_codecs.map(|codec| codec["stored_bytes"].as_u64().unwrap()).sum();
    assert_eq!(json["total"]["stored_bytes"], of_codecs - header);
    assert_eq!(json["total"]["original_bytes"], 1_608_000);
    assert_eq!(json["total"]["container_original_bytes"], model.len());
    assert_eq!(json["total"]["container_bytes"], scratch.read("m.bs").len());
    let tensors = json["tensors"].as_array().unwrap();
    let tiny: Vec<u64> = tensors[3..5].iter().map(|tensor| tensor["stored_bytes"].as_u64().unwrap()).collect();
    assert!(tiny[0].abs_diff(3 * tiny[1]) <= 3, "by their lengths: {tiny:?}");
    let zeros = serde_json::json!({
        "file": "m.bs",
        "name": "zeros",
        "dtype": "F32",
        "shape": [100_000],
        "codecs": [{ "codec": "constant", "original_bytes": 400_000, "stored_bytes": 8 }],
        "original_bytes": 400_000,
        "stored_bytes": 8,
        "ratio": 2e-5,
        "bits_per_weight": 64.0 / 100_000.0,
        "same_as": null,
    });
    assert_eq!(tensors[5], zeros);
    assert_eq!(tensors[1]["same_as"], "a");
}

#[test]
fn stat_picks_and_sorts() {
    let scratch = Scratch::new();
    compressed(&scratch);
    let names = |options: &str| {
        let json = scratch.json(&format!("stat --json m.bs {options}"));
        let tensors = json["tensors"].as_array().unwrap();
        tensors.iter().map(|tensor| tensor["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names("--tensor tiny"), ["tiny.1", "tiny.2"]);
    assert_eq!(names("--sort name --reverse"), ["zeros", "tiny.2", "tiny.1", "empty", "b", "a"]);
    assert_eq!(names("--sort size"), ["empty", "tiny.2", "tiny.1", "zeros", "a", "b"]);
    assert_eq!(names("--sort saved --reverse")[..3], ["b", "zeros", "a"]);
    assert_eq!(names("--sort ratio")[..2], ["b", "zeros"]);
    assert_eq!(names("--sort ratio").last().unwrap(), "empty");
    let shown = scratch.ok("stat m.bs --tensor tiny");
    assert!(shown.lines().count() == 4 && shown.contains("\ntotal"), "{shown}");
    assert!(!shown.contains("(headers, index)"), "{shown}");
    assert_eq!(
        scratch.fails(2, "stat m.bs --json --csv").lines().next().unwrap(),
        "bigsmall: the argument '--json' cannot be used with '--csv'"
    );
    let run = scratch.run(["stat", "m.bs", "--tensor", "lm_head"]);
    assert_eq!((run.code, run.stderr.as_str()), (2, "bigsmall: m.bs: it has no tensor with \"lm_head\" in its name\n"));
}

#[test]
fn stat_writes_comma_separated_values() {
    let scratch = Scratch::new();
    let original = model(&[("say \"a\", b", "BF16", 2, 40_000), ("plain", "I64", 8, 8)]);
    scratch.write("m/m.safetensors", original);
    scratch.ok("compress -q m -o c");
    let csv = scratch.ok("stat --csv c");
    let lines: Vec<&str> = csv.split("\r\n").collect();
    assert_eq!(lines[0], "file,name,dtype,shape,codec,original_bytes,stored_bytes,ratio,bits_per_weight,same_as");
    assert!(lines[1].starts_with("c/m.bs,\"say \"\"a\"\", b\",BF16,20000,float,40000,"), "{}", lines[1]);
    assert!(lines[2].starts_with("c/m.bs,plain,I64,1,raw,8,8,1,64,"), "{}", lines[2]);
    assert_eq!((lines.len(), lines[3]), (4, ""));
}

#[test]
fn stat_knows_every_kind_of_container() {
    let scratch = Scratch::new();
    scratch.write("m.gguf", gguf_model());
    scratch.ok("compress -q m.gguf");
    let json = scratch.json("stat --json m.bs");
    assert_eq!(json["tensors"][0]["name"], "blk.0.weight");
    assert_eq!(json["tensors"][0]["shape"], serde_json::json!([100, 200]));

    copy_upstream(&scratch, "shards", "python");
    scratch.write("python/none.bs", "no container");
    let run = scratch.run(["stat", "--json", "python"]);
    assert_eq!(run.code, 2);
    assert!(run.stderr.starts_with("bigsmall: python/none.bs: "), "{}", run.stderr);
    let json: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    let tied = json["tensors"].as_array().unwrap().iter().find(|tensor| tensor["name"] == "lm_head.weight").unwrap();
    assert_eq!(tied["same_as"], "embeddings.word_embeddings.weight");
    assert_eq!(tied["stored_bytes"], 0);
    copy_upstream(&scratch, "groups_bf16", "groups");
    let json = scratch.json("stat --json groups");
    for tensor in json["tensors"].as_array().unwrap() {
        assert!(tensor["stored_bytes"].as_u64().unwrap() > 0, "a group's bytes are divided: {tensor}");
    }

    scratch.write("model.safetensors", small_model());
    let said = scratch.fails(2, "stat model.safetensors");
    assert!(said.starts_with("bigsmall: model.safetensors: "), "{said}");
    assert_eq!(scratch.fails(2, "stat nowhere"), "bigsmall: nowhere: no such file or directory\n");
}
