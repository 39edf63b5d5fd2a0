//! Signals during a long command: it ends at once, says so, and leaves nothing behind.

use std::process::Command;

use rustix::process::{Signal, kill_process};

use crate::support::*;

/// `bigsmall` with the arguments in `line`, after what `shell` does.
fn command(scratch: &Scratch, shell: &str, line: &str) -> Command {
    // Whoever runs the tests in the background may have signals ignored, and that is inherited.
    let mut command = scratch.command("env");
    command.args(["--default-signal=HUP,INT,TERM", "sh", "-c", &format!("{shell} exec {BIGSMALL} {line}")]);
    command
}

/// How `bigsmall` ends when it is sent a signal while it makes `target`.
fn signalled(scratch: &Scratch, line: &str, signal: Signal, target: &str) -> Run {
    interrupted(scratch, || command(scratch, "", line), ("", target), 1, signal)
}

/// Enough for some tenths of a second.
fn large_model() -> Vec<u8> {
    model(&[("t", "BF16", 2, 200_000_000)])
}

#[test]
fn a_signal_ends_compressing() {
    let scratch = Scratch::new();
    scratch.write("model.safetensors", large_model());
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        let run = signalled(&scratch, "compress model.safetensors", signal, "model.bs");
        assert_eq!(run.code, code);
        assert_eq!(run.stderr, "bigsmall: interrupted; no unfinished file was left behind\n");
        assert_eq!(run.stdout, "");
        assert_eq!(scratch.names(), ["model.safetensors"]);
    }
}

#[test]
fn a_signal_ends_a_directory_and_decompressing() {
    let scratch = Scratch::new();
    scratch.write("model/model.safetensors", large_model());
    let run = signalled(&scratch, "compress model", Signal::INT, "model-bigsmall");
    assert_eq!((run.code, scratch.names()), (130, vec!["model".to_owned()]));
    scratch.ok("compress -q model/model.safetensors -o m.bs");
    // Each element is as in the base, which takes no time to apply, and one is not.
    let mut tuned = scratch.read("model/model.safetensors");
    *tuned.last_mut().unwrap() ^= 1;
    scratch.write("tuned.safetensors", tuned);
    scratch.ok("compress -q tuned.safetensors --delta-from model -o p.bs");
    std::fs::remove_file(scratch.path("tuned.safetensors")).unwrap();
    let run = signalled(&scratch, "apply model p.bs -o out", Signal::TERM, "out");
    assert_eq!(run.code, 143);
    std::fs::remove_file(scratch.path("p.bs")).unwrap();
    for options in ["", "--check"] {
        let run = signalled(&scratch, &format!("decompress m.bs {options}"), Signal::TERM, "m.safetensors");
        assert_eq!(run.code, 143);
        assert_eq!(run.stderr, "bigsmall: interrupted; no unfinished file was left behind\n");
        assert_eq!(scratch.names(), ["m.bs", "model"]);
    }
}

#[test]
fn an_ignored_signal_stays_ignored() {
    let scratch = Scratch::new();
    scratch.write("model.safetensors", large_model());
    let compress = || command(&scratch, "trap '' HUP;", "compress -q model.safetensors");
    let run = held(&scratch, compress, ("", "model.bs"), 1, |pid| kill_process(pid, Signal::HUP).unwrap());
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
    assert_eq!(scratch.names(), ["model.bs", "model.safetensors"]);
}
