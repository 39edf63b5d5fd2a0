//! Disks that fail: the kernel refuses a call that `bigsmall` makes, one after the other, below everything that it is written in. It ends with
//! an error, or does without, but what it leaves is the old state or the new one.
//!
//! The calls are refused by `strace`, which must be installed.

#[path = "cli/support.rs"]
mod support;

use std::fs;

use support::*;

/// A command, and the file that it writes.
struct Job<'a> {
    /// After the name of the program; one thread, so that calls come in the same order each time.
    line: &'a str,
    target: &'a str,
    /// What the target holds before, and afterwards.
    before: Option<&'a [u8]>,
    after: &'a [u8],
}

/// How often the kernel refused a call, and how often the command failed for it.
#[derive(Debug, Default)]
struct Count {
    refused: u32,
    failed: u32,
}

impl Job<'_> {
    /// Runs the command with call number `number` of those in `calls` refused with `error`. `None` when there are not so
    /// many calls.
    fn run(&self, scratch: &Scratch, calls: &str, error: &str, number: u32) -> Option<Run> {
        let _ = fs::remove_file(scratch.path(self.target));
        if let Some(before) = self.before {
            scratch.write(self.target, before);
        }
        let _ = fs::remove_file(scratch.path("damaged.bs.damaged"));
        let names = scratch.names();
        let mut command = scratch.command("strace");
        let log = tempfile::NamedTempFile::new().unwrap();
        command.args(["-f", "-qq", "-e", &format!("inject={calls}:error={error}:when={number}"), "-o"]);
        command.arg(log.path()).args(["-e", &format!("trace={calls}"), BIGSMALL]);
        let output = command.args(self.line.split_whitespace()).output();
        let run = Run::from(output.expect("strace is installed"));
        if !fs::read_to_string(log.path()).unwrap().contains("(INJECTED)") {
            assert_eq!(run.code, 0, "{}: {}", self.line, run.stderr);
            return None;
        }
        let what = format!("bigsmall {}, {calls} number {number} refused with {error}: {run:?}", self.line);
        let have = fs::read(scratch.path(self.target)).ok();
        match run.code {
            0 => assert!(have.as_deref() == Some(self.after), "{what}"),
            // What cannot be read may have been called damage.
            1 | 2 => {
                // Words that could not be written excepted.
                assert!(run.stderr.starts_with("bigsmall: ") || run.stderr.is_empty(), "{what}");
                let is_new = have.as_deref() == Some(self.after);
                assert!(is_new || have.as_deref() == self.before, "neither old nor new: {what}");
            }
            // The program did not even start.
            127 => assert!(have.as_deref() == self.before, "{what}"),
            _ => panic!("{what}"),
        }
        let mut left = scratch.names();
        left.retain(|name| name != self.target && name != "damaged.bs.damaged");
        let mut expected = names;
        expected.retain(|name| name != self.target && name != "damaged.bs.damaged");
        assert_eq!(left, expected, "{what}");
        Some(run)
    }
}

/// Refuses calls of each kind, one after the other, to each of the commands that write files.
fn refuse(kinds: &[(&str, &str)]) -> Count {
    let scratch = Scratch::new();
    let original = model(&[("a", "BF16", 2, 300_000), ("b", "F32", 4, 60_000)]);
    scratch.write("m.safetensors", &original);
    scratch.ok("compress -q --ecc m.safetensors");
    let (container, sidecar) = (scratch.read("m.bs"), scratch.read("m.bs.ecc"));
    let mut damaged = container.clone();
    damaged[20_000..30_000].fill(0);
    scratch.write("damaged.bs", &damaged);
    scratch.write("damaged.bs.ecc", &sidecar);
    scratch.write("again.bs", &container);
    // Of some elements of the base the lowest bits are other ones.
    let mut base = original.clone();
    base[1000..300_000].iter_mut().step_by(6).for_each(|byte| *byte ^= 1);
    scratch.write("base.safetensors", &base);
    scratch.ok("compress -q m.safetensors --delta-from base.safetensors -o patch.bs");
    let patch = scratch.read("patch.bs");
    scratch.write("upstream.bs", fs::read(format!("{UPSTREAM}/default_bf16/model.bs")).unwrap());
    scratch.ok("migrate -q upstream.bs -o migrated.bs");
    let migrated = scratch.read("migrated.bs");
    fs::remove_file(scratch.path("migrated.bs")).unwrap();
    let old = b"what was there".as_slice();
    let jobs = [
        ("compress -q --threads 1 m.safetensors -o new.bs", "new.bs", None, &container[..]),
        ("compress -q --threads 1 -f m.safetensors -o new.bs", "new.bs", Some(old), &container),
        ("decompress -q --threads 1 -f m.bs -o out", "out", Some(old), &original),
        ("decompress -q --threads 1 --check m.bs -o out", "out", None, &original),
        ("protect -q --threads 1 -f again.bs", "again.bs.ecc", Some(old), &sidecar),
        ("repair -q --threads 1 damaged.bs -o fixed.bs", "fixed.bs", None, &container),
        ("repair -q --threads 1 --in-place damaged.bs", "damaged.bs", Some(&damaged), &container),
        ("migrate -q --threads 1 upstream.bs -o migrated.bs", "migrated.bs", None, &migrated),
        ("compress -q --threads 1 m.safetensors --delta-from base.safetensors -o p.bs", "p.bs", None, &patch),
        ("apply -q --threads 1 -f base.safetensors patch.bs -o out", "out", Some(old), &original),
    ];
    let mut count = Count::default();
    for (line, target, before, after) in jobs {
        let job = Job { line, target, before, after };
        for (calls, error) in kinds {
            // The first ones, and fewer and fewer of thousands that are alike.
            let numbers = std::iter::successors(Some(1), |number| Some(number + 1 + number / 12));
            for run in numbers.map_while(|number| job.run(&scratch, calls, error, number)) {
                count.refused += 1;
                count.failed += u32::from(run.code != 0);
            }
        }
    }
    println!("{} calls refused, {} commands failed for it", count.refused, count.failed);
    count
}

#[test]
fn writing_that_fails_leaves_the_old_state_or_the_new_one() {
    let count = refuse(&[("write,pwrite64", "EIO"), ("write,pwrite64", "ENOSPC")]);
    assert!(count.refused > 80 && count.failed > count.refused / 2, "{count:?}");
}

#[test]
fn syncing_and_naming_that_fail_leave_the_old_state_or_the_new_one() {
    let count = refuse(&[("fsync,fdatasync", "EIO"), ("rename,renameat2,link,linkat", "EIO"), ("ftruncate", "EIO")]);
    assert!(count.refused > 20 && count.failed > count.refused / 2, "{count:?}");
}

#[test]
fn reading_that_fails_leaves_the_old_state_or_the_new_one() {
    let count = refuse(&[("pread64", "EIO")]);
    assert!(count.refused > 100 && count.failed > count.refused / 4, "{count:?}");
}
