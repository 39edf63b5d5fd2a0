//! Commands with a GPU, which a library in the place of the driver emulates, and with drivers that do not work.

use std::path::Path;

use crate::driver::{WORKING, broken};
use crate::patches::pair;
use crate::support::{BIGSMALL, REAL_WEIGHTS, Run, Scratch};

/// Runs `bigsmall` with the driver in this folder.
fn run(scratch: &Scratch, driver: &Path, line: &str) -> Run {
    let mut command = scratch.command(BIGSMALL);
    // The system may have a driver of its own, which is found last.
    command.env("LD_LIBRARY_PATH", driver).args(line.split_whitespace()).output().unwrap().into()
}

#[track_caller]
fn ok(scratch: &Scratch, line: &str) -> String {
    let run = run(scratch, &WORKING, line);
    assert_eq!((run.code, run.stderr.as_str()), (0, ""), "bigsmall {line}");
    run.stdout
}

#[test]
fn a_gpu_decodes_what_a_processor_does() {
    let scratch = Scratch::new();
    std::fs::copy(REAL_WEIGHTS, scratch.path("model.safetensors")).unwrap();
    scratch.ok("compress -q model.safetensors");
    ok(&scratch, "decompress -q model.bs -o out --device cuda --check");
    assert!(scratch.read("out") == scratch.read("model.safetensors"));
    assert!(ok(&scratch, "verify model.bs --device cuda:0").contains("sound"));
    ok(&scratch, "decompress -q model.bs -o again --device auto");
    let refused = run(&scratch, &WORKING, "verify -q model.bs --device cuda:1");
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.starts_with("bigsmall: --device cuda: "), "{}", refused.stderr);
    // Damage is damage.
    let mut damaged = scratch.read("model.bs");
    let middle = damaged.len() / 2;
    damaged[middle] ^= 4;
    scratch.write("model.bs", damaged);
    assert_eq!(run(&scratch, &WORKING, "verify -q model.bs --device cuda").code, 1);
}

#[test]
fn a_gpu_decodes_patches_over_their_bases() {
    let (scratch, tuned) = pair();
    scratch.ok("compress -q base.safetensors");
    scratch.ok("compress -q tuned.safetensors --delta-from base.safetensors -o patch.bs");
    for base in ["base.safetensors", "base.bs"] {
        ok(&scratch, &format!("decompress -q patch.bs --base {base} -o out --device cuda --check -f"));
        assert!(scratch.read("out") == tuned, "{base}");
        ok(&scratch, &format!("apply -q {base} patch.bs -o out --device cuda -f"));
        assert!(scratch.read("out") == tuned, "{base}");
        assert!(ok(&scratch, &format!("verify patch.bs --base {base} --device cuda")).contains("sound"));
    }
}

#[test]
fn a_gpu_is_measured_where_it_is_asked_for() {
    let scratch = Scratch::new();
    std::fs::copy(REAL_WEIGHTS, scratch.path("model.safetensors")).unwrap();
    let json = |line: &str| serde_json::from_str::<serde_json::Value>(&ok(&scratch, line)).unwrap();
    let measured = json("benchmark --json --device cuda model.safetensors");
    assert_eq!(measured["gpu"]["name"], "GPU 0");
    assert_eq!(measured["gpu"]["ratio"], measured["modes"][0]["ratio"]);
    assert!(measured["gpu"]["decode"].as_f64().unwrap() > 0.0);
    let refused = run(&scratch, &WORKING, "benchmark -q --device cuda:3 model.safetensors");
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.starts_with("bigsmall: --device cuda: there is no GPU 3"), "{}", refused.stderr);
}

#[test]
fn the_doctor_tries_the_gpu() {
    let scratch = Scratch::new();
    let told = ok(&scratch, "doctor --gpu-verify");
    assert!(told.contains("GPU 0        Emulated GPU, 8.6 GB, compute capability 9.0, driver for CUDA 12.0"), "{told}");
    for what in ["Emulated GPU, BF16: ", "Emulated GPU, patch of BF16: ", "Emulated GPU, golden 1.2 patch: "] {
        let line = told.lines().find(|line| line.contains(what)).unwrap_or_else(|| panic!("no {what}: {told}"));
        assert!(line.ends_with("decoded as they should be"), "{line}");
    }
}

/// A driver that ends its process, or its process's patience.
#[test]
fn a_driver_that_does_not_work_takes_nothing_down() {
    let scratch = Scratch::new();
    std::fs::copy(REAL_WEIGHTS, scratch.path("model.safetensors")).unwrap();
    scratch.ok("compress -q model.safetensors");
    for (name, what_it_does, said) in [
        ("abort", "std::abort()", "a process that loaded it died of signal 6"),
        ("fault", "*static_cast<volatile int*>(nullptr) = 0", "a process that loaded it died of signal 11"),
        ("exit", "std::exit(3)", "it failed without a word"),
        ("error", "return 999", "the driver cannot be started: emulated error 999"),
    ] {
        let driver = broken(name, what_it_does);
        let told = run(&scratch, &driver, "doctor");
        assert_eq!((told.code, told.stderr.as_str()), (0, ""), "{name}");
        let line = told.stdout.lines().find(|line| line.trim_start().starts_with("GPU ")).unwrap();
        assert!(line.contains(said), "{name}: {line}");
        let refused = run(&scratch, &driver, "decompress -q model.bs -o out --device cuda");
        assert_eq!(refused.code, 2, "{name}");
        assert!(refused.stderr.contains(said) && refused.stderr.lines().count() == 1, "{name}: {}", refused.stderr);
        assert!(!scratch.path("out").exists());
        let auto = run(&scratch, &driver, "decompress -q model.bs -o out --device auto --check");
        assert_eq!((auto.code, auto.stdout.as_str(), auto.stderr.as_str()), (0, "", ""), "{name}");
        assert!(scratch.read("out") == scratch.read("model.safetensors"));
        std::fs::remove_file(scratch.path("out")).unwrap();
    }
}
