//! `diff`: what it says, to the letter, and how it exits.

use std::fs;

use crate::support::*;

#[test]
fn a_model_is_the_same_however_it_is_stored() {
    let scratch = Scratch::new();
    let model = layers();
    scratch.write("a.safetensors", &model);
    scratch.write("b/x-1-of-2.safetensors", part_of(&model, |number| number % 2 == 0));
    scratch.write("b/x-2-of-2.safetensors", part_of(&model, |number| number % 2 == 1));
    scratch.ok("compress -q a.safetensors -o a.bs");
    scratch.ok("compress -q b -o c");
    // A container beside its original is no second model.
    fs::copy(scratch.path("c/x-1-of-2.bs"), scratch.path("b/x-1-of-2.bs")).unwrap();
    let models = ["a.safetensors", "a.bs", "b", "c"];
    for before in models {
        for after in models {
            assert_eq!(scratch.ok(&format!("diff -q {before} {after}")), "");
        }
    }
    let size = (model.len() as f64 / 1e6 * 10.0).round() / 10.0;
    let text = scratch.ok("diff a.safetensors c");
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["files", "tensors", "size"]);
    assert_eq!(lines[1], ["A", "a.safetensors", "1", "14", &size.to_string(), "MB"]);
    assert_eq!(lines[2][..4], ["B", "c", "2", "14"]);
    assert!(text.ends_with("\n\nthe same: 14 tensors\n"), "{text}");
    let json = scratch.json("diff --json a.bs c");
    assert_eq!((&json["same"], &json["total"]["changed_elements"]), (&true.into(), &0.into()));
}

/// A safetensors file of one-dimensional tensors of bytes and 16-bit floats with these contents.
fn file(tensors: &[(&str, &str, &str, &[u8])]) -> Vec<u8> {
    let (mut entries, mut data) = (Vec::new(), Vec::new());
    for (name, dtype, shape, bytes) in tensors {
        let (start, end) = (data.len(), data.len() + bytes.len());
        entries.push(format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{start},{end}]}}"#));
        data.extend_from_slice(bytes);
    }
    let mut file = safetensors(&format!("{{{}}}", entries.join(",")), 0);
    file.extend(data);
    file
}

#[test]
fn tensors_that_were_renamed_are_told_as_such() {
    let scratch = Scratch::new();
    let floats: Vec<u8> = (0..64u32).flat_map(|at| (at as f32).sin().to_le_bytes()).collect();
    let mut moved = floats.clone();
    moved[0] ^= 1;
    let bytes = [1, 2, 3, 4];
    let before = [("model.a.w", "U8", "[4]", &bytes[..]), ("b.w", "F32", "[64]", &floats), ("c", "U8", "[4]", &bytes)];
    let after = [("a.w", "U8", "[4]", &bytes[..]), ("other", "F32", "[64]", &moved), ("c", "U8", "[4]", &bytes)];
    scratch.write("a.safetensors", file(&before));
    scratch.write("b.safetensors", file(&after));
    scratch.write("c.safetensors", file(&[after[0], before[1], before[2]]));
    let run = scratch.run(["diff", "a.safetensors", "b.safetensors"]);
    assert_eq!(run.code, 1, "{}", run.stderr);
    let expected = "
layer  tensors  changed  weights changed  mean step  largest
other        1        1            1.6 %        1.0        1
total        3        1            1.4 %        1.0        1

renamed
  model.a.w -> a.w  U8 [4]
  b.w -> other  F32 [64]
";
    let (_, said) = run.stdout.split_once("\n\n").unwrap();
    assert_eq!(format!("\n{said}"), expected);
    // Nothing but names.
    let run = scratch.run(["diff", "--json", "a.safetensors", "c.safetensors"]);
    assert_eq!(run.code, 1);
    let json: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!((&json["same"], &json["total"]["changed_tensors"]), (&false.into(), &0.into()));
    let tensor = &json["tensors"][0];
    let told = [&tensor["name"], &tensor["renamed_from"], &tensor["change"]];
    assert_eq!(told, [&serde_json::json!("a.w"), &"model.a.w".into(), &"same".into()]);
}

#[test]
fn differences_are_told_layer_by_layer() {
    let scratch = Scratch::new();
    scratch.write(
        "a.safetensors",
        file(&[
            ("layers.10.w", "BF16", "[4]", &[0, 0x3f, 0, 0x3f, 0, 0x3f, 0, 0x3f]),
            ("layers.9.w", "BF16", "[4]", &[0, 0x3f, 0, 0x3f, 0, 0x3f, 0, 0x3f]),
            ("norm.w", "F16", "[2]", &[0, 0x3c, 0, 0x3c]),
            ("embed.w", "U8", "[2,2]", &[1, 2, 3, 4]),
            ("gone", "I8", "[1]", &[1]),
            ("retyped", "I8", "[2]", &[1, 1]),
            ("same", "I8", "[2]", &[1, 1]),
        ]),
    );
    scratch.write(
        "b.safetensors",
        file(&[
            ("embed.w", "U8", "[3,2]", &[1, 2, 3, 5, 6, 7]),
            ("layers.10.w", "BF16", "[4]", &[5, 0x3f, 0, 0x3f, 0, 0x3f, 0, 0x3f]),
            ("layers.9.w", "BF16", "[4]", &[1, 0x3f, 0xfe, 0x3e, 0, 0x3f, 0, 0x3f]),
            ("new.\\u001b[7m", "BF16", "[1]", &[0, 0]),
            ("norm.w", "F16", "[2]", &[0, 0x3c, 0, 0x3c]),
            ("retyped", "U8", "[2]", &[1, 1]),
            ("same", "I8", "[2]", &[1, 1]),
        ]),
    );
    let run = scratch.run(["diff", "a.safetensors", "b.safetensors"]);
    assert_eq!((run.code, run.stderr.as_str()), (1, ""));
    let expected = "
layer      tensors  changed  weights changed  mean step  largest
embed            1        1           25.0 %        1.0        1
gone             1        1                -          -        -
layers.9         1        1           50.0 %        1.5        2
layers.10        1        1           25.0 %        5.0        5
new              1        1                -          -        -
retyped          1        1                -          -        -
total            8        6           25.0 %        2.2        5

added
  new.\\u{1b}[7m  BF16 [1]

removed
  gone  I8 [1]

of another dtype or shape
  embed.w  U8 [2, 2] -> U8 [3, 2]; 25.0 % of 4 weights in both changed
  retyped  I8 [2] -> U8 [2]
";
    let (_, said) = run.stdout.split_once("\n\n").unwrap();
    assert_eq!(format!("\n{said}"), expected);

    let run = scratch.run(["diff", "--json", "a.safetensors", "b.safetensors"]);
    assert_eq!(run.code, 1);
    let json: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(json["same"], false);
    assert_eq!(json["groups"].as_array().unwrap().len(), 6);
    let tensor = |name: &str| {
        let tensors = json["tensors"].as_array().unwrap();
        tensors.iter().find(|tensor| tensor["name"] == name).unwrap().clone()
    };
    assert_eq!(
        tensor("layers.9.w"),
        serde_json::json!({
            "name": "layers.9.w",
            "change": "values",
            "renamed_from": null,
            "before": { "dtype": "BF16", "shape": [4], "bytes": 8 },
            "after": { "dtype": "BF16", "shape": [4], "bytes": 8 },
            "elements": 4,
            "changed_elements": 2,
            "mean_step": 1.5,
            "max_step": 2,
        })
    );
    assert_eq!((&tensor("gone")["change"], &tensor("gone")["after"]), (&"removed".into(), &serde_json::Value::Null));
    let total = &json["total"];
    assert_eq!(
        (&total["tensors"], &total["changed_tensors"], &total["changed_elements"]),
        (&8.into(), &6.into(), &4.into())
    );
}

#[test]
fn equal_hashes_need_no_decoding_and_damage_is_named() {
    let scratch = Scratch::new();
    let model = model(&[("a", "BF16", 2, 300_000), ("b", "BF16", 2, 300_000)]);
    let mut other = model.clone();
    *other.last_mut().unwrap() ^= 1;
    scratch.write("model.safetensors", &model);
    scratch.write("other.safetensors", &other);
    scratch.ok("compress -q model.safetensors -o a.bs");
    scratch.ok("compress -q other.safetensors -o b.bs");
    let mut damaged = scratch.read("a.bs");
    let len = damaged.len();
    damaged[len / 4] ^= 1;
    scratch.write("damaged.bs", &damaged);
    // The damage is in `a`, which is the same in all of them by its hash.
    assert_eq!(scratch.run(["diff", "-q", "damaged.bs", "a.bs"]).code, 0);
    assert_eq!(scratch.run(["diff", "-q", "damaged.bs", "b.bs"]).code, 1);
    let failure = scratch.fails(2, "diff damaged.bs model.safetensors");
    assert!(failure.starts_with("bigsmall: damaged.bs: tensor \"a\": chunk 1"), "{failure}");
}

#[test]
fn what_cannot_be_compared_is_refused() {
    let scratch = Scratch::new();
    scratch.write("a.safetensors", small_model());
    scratch.write("README", "no model");
    scratch.write("twice/a.safetensors", small_model());
    scratch.write("twice/b.safetensors", small_model());
    scratch.write("pipeline/unet/x.safetensors", small_model());
    scratch.write("pipeline/vae/x.safetensors", small_model());
    fs::create_dir(scratch.path("empty")).unwrap();
    for (line, expected) in [
        ("diff a.safetensors nothing", "nothing: no such file or directory\n"),
        ("diff README a.safetensors", "README: there are no tensors in it\n"),
        ("diff a.safetensors empty", "empty: there is no model in it\n"),
        (
            "diff a.safetensors twice",
            "twice: tensor \"a.weight\" is in a.safetensors and in b.safetensors: give one of them alone\n",
        ),
    ] {
        assert_eq!(scratch.fails(2, line), format!("bigsmall: {expected}"), "{line}");
    }
    assert_eq!(scratch.ok("diff -q pipeline pipeline"), "", "parts of a pipeline have names in common");
    assert_eq!(scratch.run(["diff", "-q", "pipeline", "pipeline/unet"]).code, 1);
}

#[test]
fn patches_are_compared_and_written() {
    let scratch = Scratch::new();
    let base = layers();
    let tuned = tuned(&base, 1);
    scratch.write("base.safetensors", &base);
    scratch.write("tuned.safetensors", &tuned);
    let run = scratch.run(["diff", "--patch", "p.bs", "base.safetensors", "tuned.safetensors"]);
    assert_eq!((run.code, run.stderr.as_str()), (1, ""));
    let percent = run.stdout.lines().last().unwrap().split_whitespace().nth(3).unwrap();
    assert!((39.0..41.0).contains(&percent.parse::<f64>().unwrap()), "{}", run.stdout);
    let failure = scratch.fails(2, "diff --patch p.bs base.safetensors tuned.safetensors");
    assert!(failure.starts_with("bigsmall: p.bs: exists already"), "{failure}");
    scratch.ok("apply base.safetensors p.bs -q -o back.safetensors");
    assert!(scratch.read("back.safetensors") == tuned);
    assert_eq!(scratch.run(["diff", "-q", "--base", "base.safetensors", "p.bs", "tuned.safetensors"]).code, 0);
    assert_eq!(scratch.run(["diff", "-q", "--base", "base.safetensors", "base.safetensors", "p.bs"]).code, 1);
    let failure = scratch.fails(2, "diff p.bs tuned.safetensors");
    assert!(failure.contains("base.safetensors"), "{failure}");
    let failure = scratch.fails(2, "diff --patch q.bs base.safetensors .");
    assert!(!scratch.path("q.bs").exists(), "{failure}");
}
