//! Patches: `compress --delta-from`, `apply`, `decompress --base`, and `info` and `verify` of them.

use std::fs;

use crate::support::*;

/// The model after some training: of some elements the lowest bits are other ones.
fn tuned(model: &[u8]) -> Vec<u8> {
    let header = 8 + u64::from_le_bytes(model[..8].try_into().unwrap()) as usize;
    let mut tuned = model.to_vec();
    for (at, byte) in tuned[header..].iter_mut().enumerate().step_by(2).filter(|(at, _)| at / 2 % 3 == 0) {
        *byte ^= (at / 6 % 4) as u8;
    }
    tuned
}

const TENSORS: [(&str, &str, u64, usize); 3] =
    [("a.weight", "BF16", 2, 400_000), ("b.weight", "BF16", 2, 40_000), ("frozen", "I64", 8, 80_000)];

/// A scratch directory with `base.safetensors` and `tuned.safetensors`, whose `frozen` is the same, and the latter.
pub fn pair() -> (Scratch, Vec<u8>) {
    let scratch = Scratch::new();
    let base = model(&TENSORS);
    let mut tuned = tuned(&base);
    let end = tuned.len();
    tuned[end - 80_000..].copy_from_slice(&base[end - 80_000..]);
    scratch.write("base.safetensors", base);
    scratch.write("tuned.safetensors", &tuned);
    (scratch, tuned)
}

#[test]
fn a_patch_and_its_base_make_the_tuned_model() {
    let (scratch, tuned) = pair();
    scratch.ok("compress -q tuned.safetensors -o alone.bs");
    let json = scratch.json("compress --json tuned.safetensors --delta-from base.safetensors -o patch.bs");
    let patch = json["files"][0]["container_bytes"].as_u64().unwrap() as usize;
    assert_eq!(patch, scratch.read("patch.bs").len());
    assert!(patch * 3 < scratch.read("alone.bs").len(), "{patch} bytes");
    scratch.ok("compress -q base.safetensors");
    for (number, line) in [
        "apply -q base.safetensors patch.bs -o OUT",
        "apply -q base.bs patch.bs -o OUT",
        "decompress -q patch.bs --base base.bs -o OUT --check",
    ]
    .into_iter()
    .enumerate()
    {
        let out = format!("out{number}.safetensors");
        scratch.ok(&line.replace("OUT", &out));
        assert!(scratch.read(&out) == tuned, "{line}");
    }
    // The other name of the option; a base and a tuned model that are compressed already.
    scratch.ok("compress -q alone.bs --base base.bs -o again.bs");
    scratch.ok("apply -q base.safetensors again.bs -o again.safetensors");
    assert!(scratch.read("again.safetensors") == tuned);
    assert_eq!(scratch.read("again.bs").len(), patch - "safetensors".len() + "bs".len());
}

#[test]
fn info_and_verify_know_patches() {
    let (scratch, _) = pair();
    scratch.ok("compress -q tuned.safetensors --delta-from base.safetensors -o patch.bs");
    let info = scratch.ok("info patch.bs");
    assert!(info.contains("\n  patch of   base.safetensors, 520.2 kB ("), "{info}");
    assert!(info.contains("\n  needed     3 tensors of it, 520.0 kB\n"), "{info}");
    assert!(info.contains("\n  delta ") && info.contains("\n  unchanged "), "{info}");
    let json = &scratch.json("info --json patch.bs")["containers"][0];
    assert_eq!(json["format_version"], "1.2");
    let base = &json["base"];
    assert_eq!((base["name"].as_str(), base["files"].as_u64()), (Some("base.safetensors"), Some(1)));
    assert_eq!(base["tensors"][0]["name"], "a.weight");
    assert_eq!(base["tensors"][2]["md5"].as_str().unwrap().len(), 32);
    assert_eq!(base["fingerprint"].as_str().unwrap().len(), 64);
    scratch.ok("compress -q base.safetensors");
    assert!(scratch.json("info --json base.bs")["containers"][0]["base"].is_null());

    assert!(scratch.ok("verify patch.bs --base base.bs").contains("patch.bs: sound"));
    let run = scratch.run(["verify", "patch.bs"]);
    assert_eq!(run.code, 2);
    assert!(run.stdout.contains("patch.bs: unchecked") || run.stderr.contains("base.safetensors"), "{run:?}");
    assert_eq!(scratch.run(["verify", "--fast", "patch.bs"]).code, 0);
}

#[test]
fn a_wrong_base_is_refused_before_anything_is_written() {
    let (scratch, _) = pair();
    scratch.ok("compress -q tuned.safetensors --delta-from base.safetensors -o patch.bs");
    let missing = scratch.fails(2, "decompress patch.bs -o out");
    assert!(missing.starts_with("bigsmall: patch.bs: this is a patch of the base \"base.safetensors\""), "{missing}");
    assert!(missing.ends_with("give it with --base\n"), "{missing}");

    let base = scratch.read("base.safetensors");
    let header = base.len() - 520_000;
    let mut wrong = base.clone();
    wrong[header + 400_000] ^= 1;
    scratch.write("wrong.safetensors", &wrong);
    scratch.ok("compress -q wrong.safetensors");
    for wrong in ["wrong.safetensors", "wrong.bs"] {
        let refused = scratch.fails(2, &format!("apply {wrong} patch.bs -o out"));
        assert!(refused.contains("tensor \"b.weight\" differs"), "{refused}");
    }
    scratch.write("short.safetensors", &base[..base.len() - 1]);
    let refused = scratch.fails(2, "apply short.safetensors patch.bs -o out");
    assert_eq!(refused, "bigsmall: short.safetensors: there are no tensors in it\n");
    scratch.fails(2, "apply no.safetensors patch.bs -o out");
    scratch.fails(2, "compress tuned.safetensors --delta-from no.safetensors -o out");
    scratch.fails(2, "compress tuned.safetensors --delta-from base.safetensors --in-place");

    let mut tampered = scratch.read("patch.bs");
    tampered[1000] ^= 1;
    scratch.write("tampered.bs", tampered);
    let refused = scratch.fails(2, "apply base.safetensors tampered.bs -o out");
    assert!(refused.contains("the stored bytes fail their checksum"), "{refused}");
    assert!(!scratch.names().iter().any(|name| name.starts_with("out") || name.ends_with("bigsmall-tmp")));
}

#[test]
fn a_damaged_patch_is_repaired_without_its_base() {
    let (scratch, tuned) = pair();
    scratch.ok("compress -q tuned.safetensors --delta-from base.safetensors -o patch.bs");
    let patch = scratch.read("patch.bs");
    scratch.ok("protect -q patch.bs");
    assert!(scratch.ok("repair patch.bs").contains("sound"));
    let mut damaged = patch.clone();
    damaged[1000] ^= 1;
    scratch.write("patch.bs", &damaged);
    // It is mended while it is read, too.
    let run = scratch.run(["apply", "-q", "base.safetensors", "patch.bs", "-o", "out"]);
    assert_eq!((run.code, scratch.read("out") == tuned), (0, true), "{}", run.stderr);
    scratch.ok("repair -q patch.bs -o mended.bs");
    assert!(scratch.read("mended.bs") == patch);
    // What is of today stays as it is.
    assert!(scratch.ok("migrate mended.bs").contains("mended.bs"));
    assert!(scratch.read("mended.bs") == patch);
}

#[test]
fn a_base_may_itself_be_a_patch() {
    let (scratch, first) = pair();
    let second = tuned(&first);
    scratch.write("second.safetensors", &second);
    scratch.ok("compress -q tuned.safetensors --delta-from base.safetensors -o first.bs");
    scratch.ok("compress -q second.safetensors --delta-from first.bs --base base.safetensors -o second.bs");
    scratch.ok("apply -q first.bs second.bs --base base.safetensors -o out");
    assert!(scratch.read("out") == second);
    scratch.ok("decompress -q second.bs --base base.safetensors --base first.bs -o out -f");
    assert!(scratch.read("out") == second);
    let missing = scratch.fails(2, "decompress second.bs --base first.bs -o never");
    assert!(missing.starts_with("bigsmall: first.bs: this is a patch of the base \"base.safetensors\""), "{missing}");
}

#[test]
fn directories_are_matched_over_all_their_files() {
    let scratch = Scratch::new();
    let part = |tensor: usize| model(&TENSORS[tensor..=tensor]);
    for (tensor, name) in ["one", "two", "three"].into_iter().enumerate() {
        scratch.write(format!("base/{name}.safetensors"), part(tensor));
    }
    let whole = model(&TENSORS);
    // What the parts hold, one behind the other.
    let mut tuned_model = whole[..whole.len() - 520_000].to_vec();
    for tensor in 0..TENSORS.len() {
        let part = tuned(&part(tensor));
        tuned_model.extend(&part[part.len() - TENSORS[tensor].3..]);
    }
    scratch.write("tuned/model.safetensors", &tuned_model);
    scratch.write("tuned/config.json", "{}");
    scratch.ok("compress -q tuned --delta-from base -o patch");
    assert_eq!(names_in(&scratch.path("patch")), ["config.json", "model.bs"]);
    assert!(scratch.read("patch/model.bs").len() * 4 < tuned_model.len());
    assert_eq!(scratch.json("info --json patch")["containers"][0]["base"]["files"], 3);
    scratch.ok("compress -q base");
    scratch.ok("apply -q base-bigsmall patch -o out");
    assert!(scratch.read("out/model.safetensors") == tuned_model);
    assert_eq!(names_in(&scratch.path("out")), ["config.json", "model.safetensors"]);
}

#[test]
fn a_base_of_no_use_is_named() {
    let (scratch, _) = pair();
    scratch.write("stranger.safetensors", model(&[("c", "BF16", 2, 40_000)]));
    let run = scratch.run(["compress", "-q", "stranger.safetensors", "--delta-from", "base.safetensors"]);
    assert_eq!(run.code, 0);
    let said = "bigsmall: stranger.safetensors: has nothing in common with the base; it was compressed without\n";
    assert_eq!(run.stderr, said);
    scratch.ok("decompress -q stranger.bs -o out");
    assert_eq!(scratch.read("out"), fs::read(scratch.path("stranger.safetensors")).unwrap());
}
