//! `bigsmall compress --resume`: whatever a kill, a power cut or a full disk leaves, the next run goes on from it, and what comes out is
//! what an undisturbed run writes.
//!
//! `docs/reliability.md` says which promise each test is for.

#[path = "cli/support.rs"]
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

use rustix::process::Signal;
use support::*;

/// Numbers that look random and are the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// A model of about 40 MB: some windows of tensors that are longer than one, and some of many short ones, two of which are the same.
fn long_model() -> Vec<u8> {
    let names: Vec<String> = (0..60).map(|number| format!("short.{number:02}")).collect();
    let mut tensors = vec![("a", "BF16", 2, 14_000_000), ("b", "F32", 4, 9_000_000)];
    tensors.extend(names.iter().map(|name| (name.as_str(), "BF16", 2, 100_000)));
    tensors.push(("c", "F16", 2, 11_000_000));
    model(&tensors)
}

/// The files in a directory, or below it, whose names end so.
fn ending_in(directory: &Path, suffix: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = tree(directory).into_iter().map(|(path, ..)| directory.join(path)).collect();
    found.retain(|path| path.to_string_lossy().ends_with(suffix) && path.is_file());
    found
}

/// Runs `bigsmall` with the arguments in `line` until a file that it writes is `len` bytes long, when the kernel kills it.
fn killed(scratch: &Scratch, line: &str, len: u64) {
    let mut command = scratch.command("prlimit");
    command.args([&format!("--fsize={len}"), "--core=0", BIGSMALL]).args(line.split_whitespace());
    let run = Run::from(command.output().unwrap());
    assert_eq!(run.code, -Signal::XFSZ.as_raw(), "bigsmall {line}: {}", run.stderr);
}

/// How `bigsmall` with the arguments in `line` ends that is sent a signal when it has written `len` bytes of `target`.
fn signalled(scratch: &Scratch, line: &str, target: &str, len: u64, signal: Signal) -> Run {
    let command = || {
        // Whoever runs the tests in the background may have signals ignored, and that is inherited.
        let mut command = scratch.command("env");
        command.args(["--default-signal=HUP,INT,TERM", BIGSMALL]).args(line.split_whitespace());
        command
    };
    interrupted(scratch, command, ("", target), len, signal)
}

/// What `--resume` says that it took over, after it made `target`, of which `expected` are the bytes; nothing else is left.
#[track_caller]
fn resumes(scratch: &Scratch, line: &str, target: &str, expected: &[u8], what: &str) -> u64 {
    let said = scratch.json(&format!("compress --json --resume {line}"));
    assert!(scratch.read(target) == expected, "{what}: other bytes than without interruption");
    let left = scratch.names().into_iter().filter(|name| name.contains("bigsmall-")).collect::<Vec<_>>();
    assert!(left.is_empty(), "{what}: {left:?}");
    fs::remove_file(scratch.path(target)).unwrap();
    said["files"][0]["resumed_bytes"].as_u64().unwrap()
}

/// The unfinished container in a scratch directory, and its journal.
fn unfinished(scratch: &Scratch) -> (PathBuf, PathBuf) {
    let temporary = ending_in(&scratch.path(""), ".bigsmall-tmp").pop().expect("there is an unfinished container");
    let journal = ending_in(&scratch.path(""), ".bigsmall-journal").pop().expect("there is a journal");
    (temporary, journal)
}

#[test]
fn a_killed_run_is_gone_on_with_and_ends_the_same() {
    // A script asks for more of them.
    let rounds = std::env::var("BIGSMALL_KILLS").map_or(12, |rounds| rounds.parse().expect("a number"));
    let scratch = Scratch::new();
    let original = long_model();
    scratch.write("m.safetensors", &original);
    let start = Instant::now();
    scratch.ok("compress -q m.safetensors");
    let mut whole = start.elapsed();
    let container = scratch.read("m.bs");
    fs::remove_file(scratch.path("m.bs")).unwrap();
    let mut random = Random(std::process::id().into());
    let mut resumed = Vec::new();
    for round in 0..rounds {
        // Killed again and again, each time while it goes on.
        for _ in 0..1 + random.below(3) {
            let mut command = scratch.command(BIGSMALL);
            command.args(["compress", "-q", "--resume", "m.safetensors"]).stderr(Stdio::null());
            let mut child = command.spawn().unwrap();
            let wait = whole.mul_f64(random.below(900) as f64 / 1000.0);
            std::thread::sleep(wait);
            child.kill().unwrap();
            if child.wait().unwrap().success() {
                // The machine has less other work now.
                whole = wait;
            }
            let _ = fs::remove_file(scratch.path("m.bs"));
        }
        resumed.push(resumes(&scratch, "m.safetensors", "m.bs", &container, &format!("round {round}")));
    }
    assert!(resumed.iter().any(|&bytes| bytes > 0), "nothing was ever taken over");
    println!("of {} bytes were taken over: {resumed:?}", original.len());
}

#[test]
fn whatever_a_power_cut_leaves_the_container_is_the_same() {
    let scratch = Scratch::new();
    let original = long_model();
    scratch.write("m.safetensors", &original);
    scratch.ok("compress -q m.safetensors");
    let container = scratch.read("m.bs");
    fs::remove_file(scratch.path("m.bs")).unwrap();
    killed(&scratch, "compress -q m.safetensors", 17_000_000);
    let (temporary, journal) = unfinished(&scratch);
    let (written, recorded) = (fs::read(&temporary).unwrap(), fs::read(&journal).unwrap());
    let run = |written: &[u8], recorded: &[u8], what: &str| {
        fs::write(&temporary, written).unwrap();
        fs::write(&journal, recorded).unwrap();
        resumes(&scratch, "m.safetensors", "m.bs", &container, what)
    };
    let all = run(&written, &recorded, "as it was left");
    assert!(all > 12_000_000, "only {all} bytes were taken over");
    let mut random = Random(7);
    let mut some = 0;
    for round in 0..12 {
        let at = |random: &mut Random, len: usize| random.below(len as u64 + 1) as usize;
        let (mut written, mut recorded) = (written.clone(), recorded.clone());
        match round % 4 {
            // What was not synced is gone,
            0 => written.truncate(at(&mut random, written.len())),
            1 => recorded.truncate(at(&mut random, recorded.len())),
            // or is zeros,
            2 => {
                let from = at(&mut random, written.len());
                written[from..].fill(0);
            }
            // or something else, in both files.
            _ => {
                for bytes in [&mut written, &mut recorded] {
                    let from = at(&mut random, bytes.len());
                    bytes[from..].iter_mut().for_each(|byte| *byte = random.below(256) as u8);
                }
            }
        }
        let resumed = run(&written, &recorded, &format!("round {round}"));
        assert!(resumed <= all);
        some += u64::from(resumed > 0);
    }
    assert!(some >= 4, "hardly anything was taken over");
    // One flipped bit costs its chunk and no more; without a journal, or with that of another program, all begins anew.
    let mut flipped = written.clone();
    flipped[5_000_000] ^= 1;
    let resumed = run(&flipped, &recorded, "a flipped bit");
    assert!(resumed < all && resumed >= all - (1 << 20), "{resumed} of {all} bytes were taken over");
    assert_eq!(run(&written, b"", "an empty journal"), 0);
    let mut forged = recorded.clone();
    forged[..4].fill(0xff);
    assert_eq!(run(&written, &forged, "a journal that begins with a huge length"), 0);
    assert_eq!(run(&[], &recorded, "an empty container"), 0);
}

#[test]
fn a_changed_source_or_other_options_begin_anew() {
    let scratch = Scratch::new();
    let original = long_model();
    let path = scratch.write("m.safetensors", &original);
    let time = fs::metadata(&path).unwrap().modified().unwrap();
    killed(&scratch, "compress -q m.safetensors", 12_000_000);
    let (temporary, journal) = unfinished(&scratch);
    let left = [&temporary, &journal].map(|path| (path.clone(), fs::read(path).unwrap()));
    let fresh = |options: &str| {
        scratch.ok(&format!("compress -q {options} m.safetensors -o fresh"));
        let fresh = scratch.read("fresh");
        fs::remove_file(scratch.path("fresh")).unwrap();
        fresh
    };
    for options in ["--storage", "--chunk-size 128K"] {
        left.iter().for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
        let line = format!("{options} m.safetensors");
        assert_eq!(resumes(&scratch, &line, "m.bs", &fresh(options), options), 0);
    }
    // As long as before and of the same age, by its time of modification.
    let mut changed = original.clone();
    changed[30_000_000] ^= 0x40;
    fs::write(&path, &changed).unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
    left.iter().for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
    assert_eq!(resumes(&scratch, "m.safetensors", "m.bs", &fresh(""), "another source"), 0);
}

#[test]
fn leftovers_go_unless_they_are_to_be_gone_on_with() {
    let scratch = Scratch::new();
    scratch.write("m.safetensors", long_model());
    killed(&scratch, "compress -q m.safetensors", 5_000_000);
    assert_eq!(scratch.names().len(), 3);
    scratch.ok("compress -q m.safetensors");
    assert_eq!(scratch.names(), ["m.bs", "m.safetensors"]);
    let container = scratch.read("m.bs");
    fs::remove_file(scratch.path("m.bs")).unwrap();
    // A signal leaves nothing, or with --resume what is done.
    let run = signalled(&scratch, "compress m.safetensors", "m.bs", 5_000_000, Signal::TERM);
    assert_eq!((run.code, scratch.names()), (143, vec!["m.safetensors".to_owned()]));
    let run = signalled(&scratch, "compress --resume m.safetensors", "m.bs", 1_000_000, Signal::INT);
    let said = "bigsmall: interrupted; what is done is kept: the same command goes on from there\n";
    assert_eq!((run.code, run.stderr.as_str()), (130, said));
    let said = scratch.ok("compress --resume m.safetensors");
    assert!(said.contains("\nm.bs: ") && said.contains(" had been done before\n"), "{said}");
    assert!(scratch.read("m.bs") == container);
    assert_eq!(scratch.names(), ["m.bs", "m.safetensors"]);
    // What exists stays.
    let said = scratch.fails(2, "compress --resume m.safetensors");
    assert!(said.starts_with("bigsmall: m.bs: exists already\n"), "{said}");
    assert!(scratch.read("m.bs") == container);
}

/// A directory of models and other files, large enough to be interrupted.
fn write_directory(scratch: &Scratch) {
    scratch.write("model/1.safetensors", model(&[("a", "BF16", 2, 9_000_000)]));
    scratch.write("model/2.safetensors", long_model());
    scratch.write("model/3.safetensors", model(&[("c", "F32", 4, 12_000_000)]));
    scratch.write("model/config.json", "{}");
    scratch.write("model/sub/4.safetensors", model(&[("d", "BF16", 2, 5_000_000)]));
    scratch.write("model/sub/readme", "some words");
    set_attributes(&scratch.path("model/sub"), 0o550, (1_000_000_000, 5));
    set_attributes(&scratch.path("model"), 0o750, (1_100_000_000, 6));
}

/// The bytes that were taken over in each file.
fn resumed(said: &serde_json::Value) -> Vec<u64> {
    said["files"].as_array().unwrap().iter().map(|file| file["resumed_bytes"].as_u64().unwrap()).collect()
}

#[test]
fn a_directory_is_gone_on_with_file_by_file_and_inside_a_file() {
    let scratch = Scratch::new();
    write_directory(&scratch);
    scratch.ok("compress -q model -o expected");
    let expected = tree(&scratch.path("expected"));
    let lens = ["1", "2"].map(|name| fs::metadata(scratch.path(format!("model/{name}.safetensors"))).unwrap().len());
    killed(&scratch, "compress -q model", 14_000_000);
    let said = scratch.json("compress --json --resume model");
    let taken = resumed(&said);
    assert_eq!((taken[0], taken.len()), (lens[0], 4));
    assert!(taken[1] > 0 && taken[1] < lens[1] && taken[2..] == [0, 0], "{taken:?}");
    assert!(tree(&scratch.path("model-bigsmall")) == expected);
    assert_eq!(scratch.names(), ["expected", "model", "model-bigsmall"]);
    // It is the same in a directory that exists: what is finished there is known by its journal.
    fs::remove_dir_all(scratch.path("model-bigsmall")).unwrap();
    fs::create_dir(scratch.path("out")).unwrap();
    killed(&scratch, "compress -q model -o out", 14_000_000);
    let taken = resumed(&scratch.json("compress --json --resume model -o out"));
    assert!(taken[0] == lens[0] && taken[1] > 0, "{taken:?}");
    let contents = |tree: Vec<Node>| tree.into_iter().filter_map(|(path, _, contents)| Some((path, contents?)));
    assert!(contents(tree(&scratch.path("out"))).eq(contents(expected.clone())));
    let said = scratch.fails(2, "compress --resume model -o out");
    assert!(said.starts_with("bigsmall: out: exists already\n"), "{said}");
}

#[test]
fn a_directory_whose_source_changed_is_made_of_what_is_there_now() {
    let scratch = Scratch::new();
    write_directory(&scratch);
    signalled(&scratch, "compress -q --resume model", "model-bigsmall", 22_000_000, Signal::TERM);
    // Another file 1, no config, and a new file.
    scratch.write("model/1.safetensors", model(&[("z", "F16", 2, 8_000_000)]));
    fs::remove_file(scratch.path("model/config.json")).unwrap();
    scratch.write("model/0.safetensors", small_model());
    let taken = resumed(&scratch.json("compress --json --resume model"));
    assert!(taken[..2] == [0, 0] && taken[2] > 0 && taken.len() == 5, "{taken:?}");
    scratch.ok("compress -q model -o expected");
    assert!(tree(&scratch.path("model-bigsmall")) == tree(&scratch.path("expected")));
    assert_eq!(scratch.names(), ["expected", "model", "model-bigsmall"]);
}

#[test]
fn a_full_disk_costs_nothing_that_was_done() {
    assert!(is_root(), "run as root: a small file system is mounted");
    let scratch = Scratch::new();
    scratch.write("m.safetensors", long_model());
    let script = r#"mkdir small; mount -t tmpfs -o size=16m none small; code=0
        "$BIGSMALL" compress -q --resume m.safetensors -o small/m.bs 2>said || code=$?
        test "$code" = 2; ls -A small | grep -c bigsmall- >left
        mount -o remount,size=64m small
        "$BIGSMALL" compress --json --resume m.safetensors -o small/m.bs >json; mv small/m.bs m.bs; ls -A small"#;
    let mut command = scratch.command("unshare");
    command.args(["--mount", "sh", "-ec", script]).env("BIGSMALL", BIGSMALL);
    let run = Run::from(command.output().unwrap());
    assert_eq!((run.code, run.stdout.as_str()), (0, ""), "{}", run.stderr);
    let said = String::from_utf8(scratch.read("said")).unwrap();
    assert!(said.contains("No space left on device"), "{said}");
    assert!(said.ends_with("\nwhat is done is kept: the same command goes on from there\n"), "{said}");
    assert_eq!(scratch.read("left"), b"2\n");
    let taken = resumed(&serde_json::from_slice(&scratch.read("json")).unwrap());
    assert!(taken[0] > 4_000_000, "{taken:?}");
    scratch.ok("compress -q m.safetensors -o expected");
    assert!(scratch.read("m.bs") == scratch.read("expected"));
}

/// The base that a model may have been trained from: of every third element the lowest bits are other ones.
fn base_of(tuned: &[u8]) -> Vec<u8> {
    let header = 8 + u64::from_le_bytes(tuned[..8].try_into().unwrap()) as usize;
    let mut base = tuned.to_vec();
    for (number, byte) in base[header..].iter_mut().enumerate().step_by(6) {
        *byte ^= (number / 6 % 7) as u8;
    }
    base
}

#[test]
fn a_patch_is_gone_on_with_and_a_changed_base_is_noticed() {
    let scratch = Scratch::new();
    let original = long_model();
    scratch.write("m.safetensors", &original);
    let base = scratch.write("base.safetensors", base_of(&original));
    let time = fs::metadata(&base).unwrap().modified().unwrap();
    let line = "m.safetensors --delta-from base.safetensors";
    let patch_of = |line: &str| {
        scratch.ok(&format!("compress -q {line} -o fresh"));
        let patch = scratch.read("fresh");
        fs::remove_file(scratch.path("fresh")).unwrap();
        patch
    };
    let patch = patch_of(line);
    let half = patch.len() as u64 / 2;
    killed(&scratch, &format!("compress -q {line}"), half);
    let (temporary, journal) = unfinished(&scratch);
    let left = [&temporary, &journal].map(|path| (path.clone(), fs::read(path).unwrap()));
    let restore = || left.iter().for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
    let taken = resumes(&scratch, line, "m.bs", &patch, "as it was left");
    assert!(taken > original.len() as u64 / 5, "only {taken} bytes were taken over");
    // A torn end, and a flipped bit, which costs its chunk.
    restore();
    fs::write(&temporary, &left[0].1[..left[0].1.len() * 2 / 3]).unwrap();
    let some = resumes(&scratch, line, "m.bs", &patch, "a torn end");
    assert!(some > 0 && some <= taken, "{some} of {taken} bytes were taken over");
    // No patch, another name of the base, and another base that is as long and, by its time, as old.
    restore();
    assert_eq!(resumes(&scratch, "m.safetensors", "m.bs", &patch_of("m.safetensors"), "no base"), 0);
    fs::hard_link(&base, scratch.path("again.safetensors")).unwrap();
    let again = "m.safetensors --delta-from again.safetensors";
    let expected = patch_of(again);
    restore();
    assert_eq!(resumes(&scratch, again, "m.bs", &expected, "another name"), 0);
    fs::remove_file(scratch.path("again.safetensors")).unwrap();
    let mut changed = fs::read(&base).unwrap();
    changed[20_000_000] ^= 1;
    fs::write(&base, changed).unwrap();
    fs::File::options().write(true).open(&base).unwrap().set_modified(time).unwrap();
    let expected = patch_of(line);
    restore();
    assert_eq!(resumes(&scratch, line, "m.bs", &expected, "another base"), 0);
}

#[test]
fn a_directory_of_patches_is_gone_on_with_over_compressed_bases() {
    let scratch = Scratch::new();
    let (first, second) = (model(&[("a", "BF16", 2, 9_000_000)]), long_model());
    for (name, tuned) in [("1", &first), ("2", &second)] {
        scratch.write(format!("tuned/{name}.safetensors"), tuned);
        scratch.write(format!("base/{name}.safetensors"), base_of(tuned));
    }
    scratch.ok("compress -q base");
    let line = "compress -q tuned --delta-from base-bigsmall -o out";
    scratch.ok(line);
    let expected = ["out/1.bs", "out/2.bs"].map(|name| scratch.read(name));
    fs::remove_dir_all(scratch.path("out")).unwrap();
    // The second is longer.
    killed(&scratch, line, expected[1].len() as u64 / 2);
    let taken = resumed(&scratch.json("compress --json --resume tuned --delta-from base-bigsmall -o out"));
    assert!(taken[0] == first.len() as u64 && taken[1] > 0 && taken[1] < second.len() as u64, "{taken:?}");
    assert!(["out/1.bs", "out/2.bs"].map(|name| scratch.read(name)) == expected);
}

#[test]
fn files_in_place_are_gone_on_with_as_well() {
    let scratch = Scratch::new();
    let original = long_model();
    scratch.write("model/m.safetensors", &original);
    killed(&scratch, "compress -q --in-place model", 12_000_000);
    let taken = resumed(&scratch.json("compress --json --in-place --resume model"));
    assert!(taken[0] > 0, "{taken:?}");
    assert_eq!(names_in(&scratch.path("model")), ["m.bs"]);
    scratch.ok("decompress -q model/m.bs -o out");
    assert!(scratch.read("out") == original);
}
