//! Nothing is lost: damage is repaired or named, and whoever is killed, wherever, leaves what was there or what was to be.
//!
//! `docs/reliability.md` says which promise each test is for.

#[path = "cli/support.rs"]
mod support;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::*;

/// Numbers that look random and are the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// A model of three tensors and its container `m.bs` with a sidecar, both about 2 MB.
fn protected(scratch: &Scratch) -> (Vec<u8>, Vec<u8>) {
    let original = model(&[("a", "BF16", 2, 1_000_000), ("b", "BF16", 2, 900_000), ("c", "F32", 4, 800_000)]);
    scratch.write("m.safetensors", &original);
    let said = scratch.ok("compress --ecc m.safetensors");
    assert!(said.contains("\nm.bs.ecc "), "{said}");
    fs::remove_file(scratch.path("m.safetensors")).unwrap();
    (original, scratch.read("m.bs"))
}

#[track_caller]
fn repairs(scratch: &Scratch, original: &[u8], container: &[u8], damaged: &[u8], what: &str) {
    scratch.write("m.bs", damaged);
    let said = scratch.ok("repair m.bs -o fixed");
    assert!(said.starts_with("m.bs: repaired as fixed: "), "{what}: {said}");
    assert!(scratch.read("fixed") == container, "{what}: other bytes");
    assert!(scratch.read("m.bs") == damaged, "{what}: the input was touched");
    fs::remove_file(scratch.path("fixed")).unwrap();
    // Reading repairs as well, and leaves the file as it is.
    let run = scratch.run(["decompress", "-q", "m.bs", "-o", "out"]);
    assert_eq!(run.code, 0, "{what}: {}", run.stderr);
    assert!(run.stderr.contains("repaired from its sidecar; bigsmall repair --in-place"), "{what}: {}", run.stderr);
    assert!(scratch.read("out") == original && scratch.read("m.bs") == damaged, "{what}");
    fs::remove_file(scratch.path("out")).unwrap();
}

#[test]
fn any_damage_up_to_the_share_is_repaired() {
    let scratch = Scratch::new();
    let (original, container) = protected(&scratch);
    let (len, tenth) = (container.len(), container.len() / 10);
    for start in [0, 1, len / 3, len - tenth] {
        let mut damaged = container.clone();
        damaged[start..start + tenth].fill(0);
        repairs(&scratch, &original, &container, &damaged, &format!("a burst at {start}"));
    }
    repairs(&scratch, &original, &container, &container[..len - tenth], "a lost tail");
    let mut random = Random(1);
    let mut damaged = container.clone();
    // Each block is hit once at most: as many as there are parity blocks.
    for block in (0..len / 4096).step_by(11) {
        damaged[block * 4096 + random.below(4096) as usize] ^= 1 << random.below(8);
    }
    repairs(&scratch, &original, &container, &damaged, "scattered bytes");
    // A damaged sidecar repairs what it still can.
    let mut sidecar = scratch.read("m.bs.ecc");
    sidecar[..2000].fill(0xff);
    scratch.write("m.bs.ecc", sidecar);
    let mut damaged = container.clone();
    damaged[1000..1000 + tenth / 2].fill(0);
    repairs(&scratch, &original, &container, &damaged, "both");
}

#[test]
fn damage_beyond_the_share_is_named_and_the_rest_is_salvaged() {
    let scratch = Scratch::new();
    let (original, container) = protected(&scratch);
    let len = container.len();
    let mut damaged = container.clone();
    // The stored chunks lie in the order of the tensors: this is in `b`.
    damaged[len * 45 / 100..len * 60 / 100].fill(0);
    scratch.write("m.bs", &damaged);
    let run = scratch.run(["repair", "m.bs"]);
    assert_eq!((run.code, run.stderr.as_str()), (1, "bigsmall: m.bs: damaged beyond repair\n"));
    assert!(run.stdout.contains("\n  tensor \"b\", bytes "), "{}", run.stdout);
    assert!(!run.stdout.contains("tensor \"a\"") && !run.stdout.contains("tensor \"c\""), "{}", run.stdout);
    assert_eq!(scratch.names(), ["m.bs", "m.bs.ecc"]);
    let run = scratch.run(["decompress", "m.bs"]);
    assert_eq!(run.code, 2);

    let run = scratch.run(["repair", "--salvage", "--json", "m.bs"]);
    let json: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!((run.code, &json["status"], &json["salvaged_tensors"]), (1, &"lost".into(), &2.into()));
    assert_eq!(json["lost"][0]["tensor"], "b");
    let salvaged = scratch.read("m.salvaged.safetensors");
    let salvaged = safetensors::SafeTensors::deserialize(&salvaged).unwrap();
    let whole = safetensors::SafeTensors::deserialize(&original).unwrap();
    let mut names = salvaged.names();
    names.sort();
    assert_eq!(names, ["a", "c"]);
    for name in names {
        assert!(salvaged.tensor(name).unwrap() == whole.tensor(name).unwrap(), "{name}");
    }
    assert!(scratch.read("m.bs") == damaged);
}

#[test]
fn another_copy_repairs_without_parity_even_if_it_is_damaged_too() {
    let scratch = Scratch::new();
    let (_, container) = protected(&scratch);
    fs::remove_file(scratch.path("m.bs.ecc")).unwrap();
    let len = container.len();
    let (mut first, mut second) = (container.clone(), container.clone());
    first[..len / 3].fill(0);
    second[len / 2..len * 3 / 4].fill(0);
    scratch.write("m.bs", &first);
    scratch.write("copy.bs", &second);
    assert_eq!(scratch.run(["repair", "m.bs"]).code, 1);
    scratch.ok("repair m.bs --from copy.bs");
    assert!(scratch.read("m.repaired.bs") == container);
    // Its index lost as well.
    scratch.write("m.bs", &container[..len * 2 / 3]);
    scratch.write("copy.bs", &{
        let mut copy = container.clone();
        copy[1000..len / 3].fill(0);
        copy
    });
    scratch.ok("repair -f m.bs --from copy.bs");
    assert!(scratch.read("m.repaired.bs") == container);

    scratch.write("o.safetensors", small_model());
    scratch.ok("compress -q o.safetensors -o other.bs");
    let said = scratch.fails(2, "repair -f m.bs --from other.bs");
    assert_eq!(said, "bigsmall: other.bs: is another container, not a copy of this one\n");
}

#[test]
fn repairing_in_place_keeps_what_was_there_and_renews_the_sidecar() {
    let scratch = Scratch::new();
    let (_, container) = protected(&scratch);
    let sidecar = scratch.read("m.bs.ecc");
    let mut damaged = container.clone();
    damaged[5000..90_000].fill(1);
    scratch.write("m.bs", &damaged);
    let mut torn = sidecar.clone();
    torn[3000] ^= 4;
    scratch.write("m.bs.ecc", torn);
    let said = scratch.ok("repair --in-place m.bs");
    assert!(said.contains("kept as m.bs.damaged") && said.contains("sidecar was damaged"), "{said}");
    assert!(scratch.read("m.bs") == container && scratch.read("m.bs.ecc") == sidecar);
    assert!(scratch.read("m.bs.damaged") == damaged);
    assert_eq!(scratch.ok("repair m.bs"), "m.bs: sound; nothing to repair\n");
    assert_eq!(scratch.names(), ["m.bs", "m.bs.damaged", "m.bs.ecc"]);
    // A second time the first backup is not overwritten.
    scratch.write("m.bs", &damaged);
    let said = scratch.fails(2, "repair --in-place m.bs");
    assert_eq!(said, "bigsmall: m.bs.damaged: exists already\n--force replaces it; -o gives another name\n");
}

#[test]
fn a_damaged_container_is_not_protected() {
    let scratch = Scratch::new();
    let (_, mut container) = protected(&scratch);
    container[100_000] ^= 1;
    scratch.write("m.bs", container);
    let said = scratch.fails(1, "protect -f m.bs");
    assert!(said.starts_with("bigsmall: m.bs: 1 stored chunk damaged\n"), "{said}");
    scratch.write("text", "text");
    assert_eq!(scratch.fails(2, "protect text"), "bigsmall: text: this is not a bigsmall container\n");
}

#[test]
fn the_sidecar_of_another_file_does_no_harm() {
    let scratch = Scratch::new();
    let (_, container) = protected(&scratch);
    let other = model(&[("other", "BF16", 2, 2_000_000)]);
    scratch.write("o.safetensors", &other);
    scratch.ok("compress -q o.safetensors");
    fs::rename(scratch.path("m.bs.ecc"), scratch.path("o.bs.ecc")).unwrap();
    let said = scratch.ok("repair o.bs");
    assert!(said.contains("sound; nothing to repair\n  its sidecar is of another file"), "{said}");
    let mut damaged = scratch.read("o.bs");
    damaged[50_000] ^= 1;
    scratch.write("o.bs", damaged);
    let run = scratch.run(["repair", "o.bs"]);
    assert_eq!(run.code, 1, "{}", run.stdout);
    assert!(run.stdout.contains("the sidecar is of another file"), "{}", run.stdout);
    assert_eq!(scratch.run(["decompress", "o.bs", "-f"]).code, 2);
    assert!(scratch.read("o.safetensors") == other && scratch.read("m.bs") == container);
}

#[test]
fn a_damaged_sidecar_does_not_stop_who_needs_no_repair() {
    let scratch = Scratch::new();
    let (original, container) = protected(&scratch);
    let sidecar = scratch.read("m.bs.ecc");
    let noise: Vec<u8> = (0..sidecar.len()).map(|at| (at * at / 7) as u8).collect();
    let half = [&sidecar[..sidecar.len() / 2], &noise[sidecar.len() / 2..]].concat();
    for (bad, what) in
        [(noise, "noise"), (half, "half"), (sidecar[..100].to_vec(), "its beginning"), (Vec::new(), "nothing")]
    {
        scratch.write("m.bs.ecc", bad);
        // Of the processor's time, which other work on the machine does not change.
        let within_seconds = |line: &str| {
            let mut command = scratch.command("prlimit");
            let run = Run::from(command.args(["--cpu=10", BIGSMALL]).args(line.split(' ')).output().unwrap());
            assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{what}: bigsmall {line}");
            run.stdout
        };
        let said = within_seconds("repair m.bs");
        assert!(said.starts_with("m.bs: sound; nothing to repair\n"), "{what}: {said}");
        within_seconds("decompress -q -f m.bs -o out");
        assert!(scratch.read("out") == original && scratch.read("m.bs") == container, "{what}");
    }
}

#[test]
fn verify_checks_the_sidecar_and_looks_as_deep_as_it_is_asked_to() {
    let scratch = Scratch::new();
    let (original, container) = protected(&scratch);
    scratch.write("m.safetensors", &original);
    let sound = "(2.7 MB, 13 chunks, 3 tensors)\n  m.bs.ecc: sound\n";
    assert_eq!(scratch.ok("verify m.bs"), format!("m.bs: sound {sound}"));
    assert_eq!(scratch.ok("verify --fast m.bs"), format!("m.bs: whole, its index is sound {sound}"));
    let said = format!("m.bs: sound, and the same as m.safetensors {sound}");
    assert_eq!(scratch.ok("verify --source m.safetensors m.bs"), said);
    let json = scratch.json("verify --json --sample 0.5 m.bs");
    let sample = &json["files"][0]["sample"];
    assert_eq!((&sample["chunks"], &sample["missed"][0]["damaged_chunks"]), (&7.into(), &1.into()));
    assert!((sample["missed"][0]["probability"].as_f64().unwrap() - 6.0 / 13.0).abs() < 1e-9);
    // Ten damaged chunks cannot hide in the six that were not looked at.
    assert_eq!(sample["missed"][1]["probability"], 0.0);

    let mut other = original.clone();
    *other.last_mut().unwrap() ^= 1;
    scratch.write("m.safetensors", other);
    let run = scratch.run(["verify", "--json", "--source", "m.safetensors", "m.bs"]);
    let json: Value = serde_json::from_str(&run.stdout).unwrap();
    let finding = &json["files"][0]["damage"][0];
    assert_eq!((run.code, &finding["cause"], &finding["tensor"]), (1, &"difference".into(), &"c".into()));
    assert_eq!((&finding["start"], &finding["end"]), (&(original.len() - 1).into(), &original.len().into()));

    // A chunk is damaged: structure and index do not show it, all of a sample does.
    let mut damaged = container.clone();
    damaged[container.len() / 2] ^= 8;
    scratch.write("m.bs", damaged);
    scratch.ok("verify --fast m.bs");
    assert_eq!(scratch.run(["verify", "--sample", "1", "m.bs"]).code, 1);
    let run = scratch.run(["verify", "m.bs"]);
    assert_eq!(run.code, 1);
    assert!(run.stdout.contains("bigsmall repair can restore them"), "{}", run.stdout);

    // The index is.
    let mut damaged = container.clone();
    damaged[container.len() - 100] ^= 8;
    scratch.write("m.bs", damaged);
    assert_eq!(scratch.run(["verify", "--fast", "m.bs"]).code, 1);

    // Any bit of the sidecar.
    scratch.write("m.bs", &container);
    let sidecar = scratch.read("m.bs.ecc");
    for at in (0..sidecar.len()).step_by(sidecar.len() / 50) {
        let mut torn = sidecar.clone();
        torn[at] ^= 2;
        scratch.write("m.bs.ecc", torn);
        let run = scratch.run(["verify", "m.bs"]);
        assert_eq!((run.code, run.stderr.as_str()), (1, "bigsmall: m.bs.ecc: damaged\n"), "byte {at}");
        assert!(run.stdout.starts_with("m.bs: sound (") && run.stdout.contains("\n  m.bs.ecc: damaged: "));
    }
}

#[test]
fn directories_are_protected_and_their_sidecars_stay_behind() {
    let scratch = Scratch::new();
    scratch.write("model/a.safetensors", small_model());
    scratch.write("model/sub/b.safetensors", small_model());
    scratch.write("model/x.ecc", "not of a container");
    scratch.ok("compress -q --ecc=50 model");
    assert_eq!(names_in(&scratch.path("model-bigsmall")), ["a.bs", "a.bs.ecc", "sub", "x.ecc"]);
    fs::remove_dir_all(scratch.path("model")).unwrap();
    let mut damaged = scratch.read("model-bigsmall/a.bs");
    damaged[..5000].fill(0);
    scratch.write("model-bigsmall/a.bs", damaged);
    let run = scratch.run(["decompress", "-q", "model-bigsmall"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stderr.contains("model-bigsmall/a.bs: its index is damaged and was repaired"), "{}", run.stderr);
    assert_eq!(names_in(&scratch.path("model")), ["a.safetensors", "sub", "x.ecc"]);
    assert!(scratch.read("model/a.safetensors") == small_model());
    let said = scratch.fails(2, "protect model-bigsmall");
    assert_eq!(said, "bigsmall: model-bigsmall/a.bs.ecc: exists already\n--force replaces it\n");
}

/// What a command leaves when it is killed: the old contents of its target or the new ones, and nothing else that stays.
struct Killing<'a> {
    /// After the name of the program.
    line: &'a str,
    /// The file that it writes.
    target: &'a str,
    /// What that holds before; `None` if it is not there.
    before: Option<&'a [u8]>,
    /// What it holds when the command is done.
    after: &'a [u8],
}

impl Killing<'_> {
    fn restore(&self, scratch: &Scratch) {
        let _ = fs::remove_file(scratch.path(self.target));
        if let Some(before) = self.before {
            scratch.write(self.target, before);
        }
    }

    /// How often it was killed before it was done.
    fn run(&self, scratch: &Scratch, random: &mut Random, rounds: u32) -> u32 {
        let expected = |after: bool, what: &str| {
            let have = fs::read(scratch.path(self.target)).ok();
            let is_new = have.as_deref() == Some(self.after);
            assert!(is_new || !after && have.as_deref() == self.before, "{what}: neither old nor new");
        };
        self.restore(scratch);
        let start = Instant::now();
        scratch.ok(self.line);
        let mut whole = start.elapsed();
        expected(true, "undisturbed");
        let mut killed = 0;
        for round in 0..rounds {
            self.restore(scratch);
            let mut command = scratch.command(BIGSMALL);
            command.args(self.line.split_whitespace()).stdout(Stdio::null()).stderr(Stdio::null());
            let mut child = command.spawn().unwrap();
            let wait = whole.as_nanos() as u64 * 11 / 10;
            let wait = Duration::from_nanos(random.below(wait.min(1 << 30)) * wait / wait.min(1 << 30));
            std::thread::sleep(wait);
            child.kill().unwrap();
            match child.wait().unwrap().code() {
                None => killed += 1,
                // It is done in less time: the machine has less other work now.
                Some(_) => whole = whole.min(wait),
            }
            expected(false, &format!("{}, round {round}", self.line));
        }
        // The next run takes away what the killed ones left.
        self.restore(scratch);
        scratch.ok(self.line);
        expected(true, "after all");
        let left: Vec<String> = scratch.names().into_iter().filter(|name| name.ends_with(".bigsmall-tmp")).collect();
        assert!(left.is_empty(), "{}: {left:?}", self.line);
        killed
    }
}

#[test]
fn whoever_is_killed_leaves_the_old_state_or_the_new_one() {
    // A script asks for more of them.
    let rounds = std::env::var("BIGSMALL_KILLS").map_or(20, |rounds| rounds.parse().expect("a number"));
    let scratch = Scratch::new();
    let original = model(&[("a", "BF16", 2, 12_000_000), ("b", "F32", 4, 4_000_000)]);
    scratch.write("m.safetensors", &original);
    scratch.ok("compress -q --ecc m.safetensors");
    let (container, sidecar) = (scratch.read("m.bs"), scratch.read("m.bs.ecc"));
    let mut damaged = container.clone();
    damaged[1_000_000..1_500_000].fill(0);
    scratch.write("damaged.bs", &damaged);
    scratch.write("damaged.bs.ecc", &sidecar);
    scratch.write("again.bs", &container);
    let upstream = fs::read(format!("{UPSTREAM}/default_bf16/model.bs")).unwrap();
    scratch.write("upstream.bs", &upstream);
    scratch.ok("migrate -q upstream.bs -o migrated");
    let migrated = scratch.read("migrated");
    scratch.write("upstream2.bs", &upstream);
    scratch.ok("migrate -q --no-backup upstream2.bs");
    let migrated_there = scratch.read("upstream2.bs");
    // Of every other BF16 of the base the lowest bits are other ones.
    let mut base = original.clone();
    base[1000..12_000_000].iter_mut().step_by(4).for_each(|byte| *byte ^= 1);
    scratch.write("base.safetensors", &base);
    scratch.ok("compress -q m.safetensors --delta-from base.safetensors -o patch.bs");
    let patch = scratch.read("patch.bs");
    assert!(patch.len() * 10 < container.len() * 9, "it is no patch");
    let mut random = Random(u64::from(std::process::id()));
    let old = b"what was there".as_slice();
    let mut killed = 0;
    let killings = [
        Killing {
            line: "compress -q -f m.safetensors -o new.bs",
            target: "new.bs",
            before: Some(old),
            after: &container,
        },
        Killing { line: "compress -q m.safetensors -o new.bs", target: "new.bs", before: None, after: &container },
        Killing { line: "decompress -q -f m.bs -o out", target: "out", before: Some(old), after: &original },
        Killing { line: "protect -q -f again.bs", target: "again.bs.ecc", before: Some(old), after: &sidecar },
        Killing { line: "repair -q damaged.bs -o fixed.bs", target: "fixed.bs", before: None, after: &container },
        Killing {
            line: "repair -q -f --in-place damaged.bs",
            target: "damaged.bs",
            before: Some(&damaged),
            after: &container,
        },
        Killing { line: "migrate -q upstream.bs -o new.bs", target: "new.bs", before: None, after: &migrated },
        Killing {
            line: "migrate -q --no-backup upstream2.bs",
            target: "upstream2.bs",
            before: Some(&upstream),
            after: &migrated_there,
        },
        Killing {
            line: "compress -q -f m.safetensors --delta-from base.safetensors -o new.bs",
            target: "new.bs",
            before: Some(old),
            after: &patch,
        },
        Killing {
            line: "apply -q base.safetensors patch.bs -o applied",
            target: "applied",
            before: None,
            after: &original,
        },
        Killing {
            line: "apply -q -f --check base.safetensors patch.bs -o applied",
            target: "applied",
            before: Some(old),
            after: &original,
        },
    ];
    for killing in &killings {
        killed += killing.run(&scratch, &mut random, rounds);
    }
    let all = killings.len() as u32 * rounds;
    assert!(killed > rounds, "only {killed} of {all} were killed before they were done");
    println!("{killed} of {all} commands killed at random moments before they were done");
}

#[test]
fn a_temporary_file_that_is_being_written_is_no_leftover() {
    let scratch = Scratch::new();
    scratch.write("m.safetensors", model(&[("a", "BF16", 2, 60_000_000)]));
    // What a killed run left, as its name tells, and what only looks like it.
    scratch.write(".m.bs.AAAAAA.bigsmall-tmp", "left over");
    scratch.write(".m.bs.AAAAAAA.bigsmall-tmp", "another's");
    let start = || {
        let mut command = scratch.command(BIGSMALL);
        command.args(["compress", "-q", "m.safetensors"]).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    // Both at once: neither takes the other's file away; the later one is refused, and the file is whole.
    let runs = [start(), start()].map(|child| Run::from(child.wait_with_output().unwrap()));
    let refused = "bigsmall: m.bs: exists already\n";
    let mut ends = runs.map(|run| (run.code, run.stderr));
    ends.sort();
    assert_eq!(ends[0], (0, String::new()));
    assert!(ends[1].0 == 2 && ends[1].1.starts_with(refused), "{:?}", ends[1]);
    scratch.ok("verify -q m.bs");
    assert_eq!(scratch.names(), [".m.bs.AAAAAAA.bigsmall-tmp", "m.bs", "m.safetensors"]);
}

#[test]
fn sidecars_have_the_permissions_of_their_containers() {
    let scratch = Scratch::new();
    scratch.write("m.safetensors", small_model());
    scratch.ok("compress -q m.safetensors");
    set_attributes(&scratch.path("m.bs"), 0o640, (1_000_000_000, 0));
    scratch.ok("protect -q m.bs");
    assert_eq!(fs::metadata(scratch.path("m.bs.ecc")).unwrap().mode() & 0o777, 0o640);
}
