//! `bigsmall doctor` and `--device`.

use crate::support::{REAL_WEIGHTS, Scratch};

#[test]
fn what_works_here_is_told() {
    let scratch = Scratch::new();
    let told = scratch.ok("doctor");
    for what in
        ["bigsmall 0.1.0, containers up to version 1.", "\n  processor ", "\n  FUSE ", "\n  rights ", "\n  GPU "]
    {
        assert!(told.contains(what), "{what}: {told}");
    }
    let json = scratch.json("doctor --json");
    assert_eq!(json["sound"], true);
    assert_eq!(json["mount"]["fuse"], true, "the tests need FUSE");
    let levels = json["processor"]["available_instructions"].as_array().unwrap();
    let tried: Vec<&str> = json["trials"].as_array().unwrap().iter().map(|t| t["name"].as_str().unwrap()).collect();
    for level in levels {
        assert!(tried.contains(&format!("processor, {}", level.as_str().unwrap()).as_str()), "{level}");
    }
    assert!(levels.contains(&json["processor"]["instructions"]));
    assert_eq!(json["gpu"]["supported"], cfg!(feature = "cuda"));
}

#[test]
fn lower_instructions_are_seen() {
    let scratch = Scratch::new();
    let run =
        scratch.command(crate::support::BIGSMALL).args(["doctor"]).env("BIGSMALL_SIMD", "scalar").output().unwrap();
    assert!(String::from_utf8(run.stdout).unwrap().contains("decodes with scalar (of scalar"));
}

#[test]
fn a_device_that_is_not_there_is_refused_in_one_line_and_auto_does_without() {
    let scratch = Scratch::new();
    std::fs::copy(REAL_WEIGHTS, scratch.path("model.safetensors")).unwrap();
    scratch.ok("compress -q model.safetensors");
    for (command, number) in [("verify -q", 0), ("decompress -q -o out", 7)] {
        let told = scratch.fails(2, &format!("{command} model.bs --device cuda:{}", number + 90));
        assert!(told.starts_with("bigsmall: --device cuda: ") && told.lines().count() == 1, "{told}");
        assert!(told.ends_with("; leave --device away to decode on the processor\n"), "{told}");
    }
    assert_eq!(scratch.names(), ["model.bs", "model.safetensors"]);
    scratch.ok("verify -q model.bs --device auto");
    scratch.ok("verify -q model.bs --device cpu");
    scratch.ok("decompress -q model.bs -o out --device auto --check");
    assert!(scratch.read("out") == scratch.read("model.safetensors"));
    let told = scratch.fails(2, "verify model.bs --device gpu");
    assert!(told.contains("not cpu, auto, cuda or cuda:NUMBER"), "{told}");
}
