//! Signals during a long command: it ends at once, says so, and leaves nothing behind.

use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::*;

/// How long a command may take to notice a signal.
const PATIENCE: Duration = Duration::from_secs(20);

/// Starts `bigsmall` with the arguments in `line` under `shell`, sends it `signal` as soon as there is a temporary
/// file, and gives how it ended. A command that was done before the signal came is undone and started again.
fn interrupted(scratch: &Scratch, shell: &str, line: &str, signal: Signal, target: &str) -> Run {
    for _ in 0..20 {
        // Whoever runs the tests in the background may have signals ignored, and that is inherited.
        let mut command = scratch.command("env");
        command.args(["--default-signal=HUP,INT,TERM", "sh", "-c", &format!("{shell} exec {BIGSMALL} {line}")]);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let start = Instant::now();
        while !scratch.names().iter().any(|name| name.ends_with(".bigsmall-tmp")) && !scratch.path(target).exists() {
            assert!(start.elapsed() < PATIENCE, "it never began");
            thread::sleep(Duration::from_micros(200));
        }
        let sent = kill_process(Pid::from_child(&child), signal);
        let start = Instant::now();
        let run = Run::from(child.wait_with_output().unwrap());
        assert!(start.elapsed() < PATIENCE, "it did not notice the signal");
        if sent.is_err() || scratch.path(target).exists() && shell.is_empty() {
            let _ = std::fs::remove_file(scratch.path(target));
            let _ = std::fs::remove_dir_all(scratch.path(target));
            continue;
        }
        return run;
    }
    panic!("bigsmall {line} is always done before it can be interrupted: the test needs a larger file");
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
        let run = interrupted(&scratch, "", "compress model.safetensors", signal, "model.bs");
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
    let run = interrupted(&scratch, "", "compress model", Signal::INT, "model-bigsmall");
    assert_eq!((run.code, scratch.names()), (130, vec!["model".to_owned()]));
    scratch.ok("compress -q model/model.safetensors -o m.bs");
    // Each element is as in the base, which takes no time to apply, and one is not.
    let mut tuned = scratch.read("model/model.safetensors");
    *tuned.last_mut().unwrap() ^= 1;
    scratch.write("tuned.safetensors", tuned);
    scratch.ok("compress -q tuned.safetensors --delta-from model -o p.bs");
    std::fs::remove_file(scratch.path("tuned.safetensors")).unwrap();
    let run = interrupted(&scratch, "", "apply model p.bs -o out", Signal::TERM, "out");
    assert_eq!(run.code, 143);
    std::fs::remove_file(scratch.path("p.bs")).unwrap();
    for options in ["", "--check"] {
        let run = interrupted(&scratch, "", &format!("decompress m.bs {options}"), Signal::TERM, "m.safetensors");
        assert_eq!(run.code, 143);
        assert_eq!(run.stderr, "bigsmall: interrupted; no unfinished file was left behind\n");
        assert_eq!(scratch.names(), ["m.bs", "model"]);
    }
}

#[test]
fn an_ignored_signal_stays_ignored() {
    let scratch = Scratch::new();
    scratch.write("model.safetensors", large_model());
    let run = interrupted(&scratch, "trap '' HUP;", "compress -q model.safetensors", Signal::HUP, "model.bs");
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
    assert_eq!(scratch.names(), ["model.bs", "model.safetensors"]);
}
