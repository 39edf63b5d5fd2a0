//! Bad input on the command line: originals that are not what their name says, damaged containers, targets that cannot
//! be written.
//!
//! The contract: a bad original comes back byte for byte; a damaged container gives an error and never wrong bytes;
//! whatever fails says which file is to blame and leaves nothing behind; nothing hangs and nothing panics.
//!
//! Small file systems, read-only ones and the rights of another user are made in a mount namespace of the command's
//! own (`unshare`), which ends with it. Where that is not possible the tests fail; they are not passed over.

#[path = "cli/support.rs"]
mod support;

use std::fs;
use std::ops::Range;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use support::*;

/// A container small enough to damage every byte of, with chunks of each codec that weights lead to.
fn small_container(scratch: &Scratch) -> Vec<u8> {
    let original =
        model(&[("bf16", "BF16", 2, 3000), ("f32", "F32", 4, 1000), ("i64", "I64", 8, 8), ("none", "F16", 2, 0)]);
    scratch.write("small.safetensors", original);
    scratch.ok("compress -q small.safetensors --chunk-size 1K");
    fs::remove_file(scratch.path("small.safetensors")).unwrap();
    scratch.read("small.bs")
}

/// The parts of a container by name, as `docs/format.md` has them.
fn parts(container: &[u8]) -> Vec<(String, Range<usize>)> {
    let number = |at: usize| u64::from_le_bytes(container[at..at + 8].try_into().unwrap()) as usize;
    let footer = container.len() - 48;
    let directory = number(footer);
    let mut end = number(directory);
    let mut parts = vec![("preamble".to_owned(), 0..16), ("chunks".to_owned(), 16..end)];
    for entry in (directory + 8..footer).step_by(29) {
        let tag = String::from_utf8(container[entry..entry + 4].to_vec()).unwrap();
        let start = end;
        end += number(entry + 5);
        parts.push((tag, start..end));
    }
    assert_eq!(end, directory);
    parts.extend([("directory".to_owned(), directory..footer), ("footer".to_owned(), footer..container.len())]);
    parts
}

/// Runs `verify --json` over the whole directory and gives each file's status by name.
fn statuses(scratch: &Scratch, directory: &str) -> Vec<(String, String)> {
    let run = scratch.run(["verify", "--json", directory]);
    let json: Value = serde_json::from_str(&run.stdout).unwrap_or_else(|e| panic!("{e}: {run:?}"));
    let files = json["files"].as_array().unwrap().iter();
    files.map(|file| (file["file"].as_str().unwrap().to_owned(), file["status"].as_str().unwrap().to_owned())).collect()
}

/// Decompresses `damaged` and expects an error that names it, and nothing else.
#[track_caller]
fn refuses_to_decompress(scratch: &Scratch, damaged: &[u8], what: &str) {
    scratch.write("damaged.bs", damaged);
    let before = scratch.names();
    let said = scratch.fails(2, "decompress damaged.bs -o out");
    assert!(said.starts_with("bigsmall: damaged.bs: ") && !said.contains("panicked"), "{what}: {said}");
    assert_eq!(scratch.names(), before, "{what}");
}

#[test]
fn originals_that_break_the_rules_come_back() {
    let scratch = Scratch::new();
    let tensor = |name: &str, offsets: &str| {
        format!("\"{name}\":{{\"dtype\":\"BF16\",\"shape\":[2000],\"data_offsets\":{offsets}}}")
    };
    let mut long_header = u64::MAX.to_le_bytes().to_vec();
    long_header.extend(b"{}");
    let mut beyond = 1000u64.to_le_bytes().to_vec();
    beyond.extend(b"{}");
    for (name, original) in [
        ("text", b"this is not a safetensors file".to_vec()),
        ("empty", Vec::new()),
        ("seven bytes", vec![1; 7]),
        ("only a length", 0u64.to_le_bytes().to_vec()),
        ("a header longer than the file", beyond),
        ("a header of 16 EiB", long_header),
        ("a header that is no JSON", safetensors("{\"a\":", 5000)),
        ("a header that is no object", safetensors("[1,2]", 5000)),
        ("a header that is not UTF-8", [&8u64.to_le_bytes()[..], b"{\"\xff\":1}", &[0; 100]].concat()),
        ("deep nesting", safetensors(&"[".repeat(100_000), 10)),
        (
            "overlapping tensors",
            safetensors(&format!("{{{},{}}}", tensor("a", "[0,4000]"), tensor("b", "[2000,6000]")), 6000),
        ),
        ("a tensor beyond the end", safetensors(&format!("{{{}}}", tensor("a", "[4000,8000]")), 6000)),
        ("a tensor that ends before it begins", safetensors(&format!("{{{}}}", tensor("a", "[4000,0]")), 6000)),
        (
            "offsets that overflow",
            safetensors(&format!("{{{}}}", tensor("a", "[18446744073709551615,18446744073709555615]")), 6000),
        ),
        (
            "a shape that does not fit",
            safetensors("{\"a\":{\"dtype\":\"F32\",\"shape\":[7],\"data_offsets\":[0,4000]}}", 4000),
        ),
        (
            "an unknown dtype",
            safetensors("{\"a\":{\"dtype\":\"F5_E3M1\",\"shape\":[7],\"data_offsets\":[0,4000]}}", 4000),
        ),
        (
            "gaps, odd order, trailing bytes",
            safetensors(&format!("{{{},{}}}", tensor("z", "[8000,12000]"), tensor("a", "[10,4010]")), 13_001),
        ),
    ] {
        scratch.write("original.safetensors", &original);
        scratch.ok("compress -q -f original.safetensors -o o.bs");
        scratch.ok("verify -q o.bs");
        scratch.ok("info o.bs");
        scratch.ok("decompress -q -f o.bs");
        assert!(scratch.read("o.safetensors") == original, "{name}");
        scratch.ok("decompress -q -f --check --threads 1 o.bs");
        assert!(scratch.read("o.safetensors") == original, "{name}");
    }
}

#[test]
fn every_flipped_byte_of_a_container_is_found() {
    let scratch = Scratch::new();
    let container = small_container(&scratch);
    let parts = parts(&container);
    assert!(parts.iter().all(|(_, range)| !range.is_empty()), "each part has bytes to damage: {parts:?}");
    for at in 0..container.len() {
        let mut damaged = container.clone();
        damaged[at] ^= 1 << (at % 8);
        scratch.write(format!("flipped/{at:06}.bs"), damaged);
    }
    let statuses = statuses(&scratch, "flipped");
    assert_eq!(statuses.len(), container.len());
    for (at, (file, status)) in statuses.iter().enumerate() {
        // A container that says it is of another version is not damaged for all that can be known, but not sound.
        let expected: &[&str] = if (8..12).contains(&at) { &["unchecked", "damaged"] } else { &["damaged"] };
        assert!(expected.contains(&status.as_str()), "{file} is called {status}; {parts:?}");
    }
}

#[test]
fn a_flipped_bit_never_gives_wrong_bytes() {
    let scratch = Scratch::new();
    let container = small_container(&scratch);
    for (part, range) in parts(&container) {
        // The first and the last byte of each part, and up to 60 in between.
        let step = range.len().div_ceil(60);
        for at in range.clone().step_by(step).chain([range.end - 1]) {
            let mut damaged = container.clone();
            damaged[at] ^= 1 << (at % 8);
            refuses_to_decompress(&scratch, &damaged, &format!("byte {at} of {part}"));
        }
    }
}

#[test]
fn a_flipped_bit_in_real_weights_is_named_and_confined() {
    let scratch = Scratch::new();
    scratch.write("real.safetensors", fs::read(REAL_WEIGHTS).unwrap());
    scratch.ok("compress -q real.safetensors");
    fs::remove_file(scratch.path("real.safetensors")).unwrap();
    let container = scratch.read("real.bs");
    let (_, chunks) = parts(&container)[1].clone();
    for at in chunks.clone().step_by(chunks.len() / 40) {
        let mut damaged = container.clone();
        damaged[at] ^= 0x40;
        refuses_to_decompress(&scratch, &damaged, &format!("byte {at}"));
        let run = scratch.run(["verify", "--json", "damaged.bs"]);
        assert_eq!((run.code, run.stderr.as_str()), (1, "bigsmall: damaged.bs: damaged\n"));
        let json: Value = serde_json::from_str(&run.stdout).unwrap();
        let damage = json["files"][0]["damage"].as_array().unwrap();
        let (start, end) = (damage[0]["start"].as_u64().unwrap(), damage.last().unwrap()["end"].as_u64().unwrap());
        assert!(start < end && end - start <= 256 << 10, "one chunk is lost: {damage:?}");
        assert!(damage.iter().all(|finding| finding["cause"] == "chunk"), "{damage:?}");
    }
    // The index is whole, so the names are known; what is in the chunks is not looked at.
    scratch.ok("info damaged.bs");
}

#[test]
fn a_container_cut_at_any_length_is_found() {
    let scratch = Scratch::new();
    let container = small_container(&scratch);
    for len in 0..container.len() {
        scratch.write(format!("cut/{len:06}.bs"), &container[..len]);
    }
    let statuses = statuses(&scratch, "cut");
    assert_eq!(statuses.len(), container.len());
    for (file, status) in &statuses {
        assert_eq!(status, "damaged", "{file} of {} bytes", container.len());
    }
    let boundaries = parts(&container).into_iter().flat_map(|(_, range)| [range.start, range.start + 1, range.end - 1]);
    for len in boundaries.chain((0..container.len()).step_by(37)) {
        refuses_to_decompress(&scratch, &container[..len], &format!("{len} bytes of {}", container.len()));
        let said = scratch.fails(2, "info damaged.bs");
        assert!(said.starts_with("bigsmall: damaged.bs: "), "{said}");
    }
}

#[test]
fn a_hole_and_bytes_too_many_are_found() {
    let scratch = Scratch::new();
    let container = small_container(&scratch);
    let mut hole = container.clone();
    hole[200..700].fill(0);
    refuses_to_decompress(&scratch, &hole, "a hole");
    let longer = [&container[..], b"\0"].concat();
    refuses_to_decompress(&scratch, &longer, "a byte too many");
    let twice = [&container[..], &container[..]].concat();
    refuses_to_decompress(&scratch, &twice, "two containers in one file");
    let swapped = [&container[container.len() / 2..], &container[..container.len() / 2]].concat();
    refuses_to_decompress(&scratch, &swapped, "halves swapped");
    for damaged in [hole, longer, twice, swapped] {
        scratch.write("damaged.bs", damaged);
        assert_eq!(scratch.run(["verify", "damaged.bs"]).code, 1);
    }
}

/// The container with a bit of the section `tag` (stored as it is) changed, `from_end` bytes from its end, and all
/// checksums made good.
fn forge(container: &[u8], tag: &str, from_end: usize) -> Vec<u8> {
    let parts = parts(container);
    let part = |name: &str| parts.iter().position(|(part, _)| part == name).unwrap();
    let range = |name: &str| parts[part(name)].1.clone();
    // An entry: tag, encoding, stored length, length, checksum. Before the first: where the chunks end.
    let entry = range("directory").start + 8 + (part(tag) - 2) * 29;
    assert_eq!(container[entry + 4], 0, "section {tag} is not compressed");
    let mut forged = container.to_vec();
    forged[range(tag).end - from_end] ^= 1;
    let mut put = |at: usize, checked: Range<usize>| {
        let checksum = twox_hash::XxHash3_64::oneshot(&forged[checked]);
        forged[at..at + 8].copy_from_slice(&checksum.to_le_bytes());
    };
    put(entry + 21, range(tag));
    let footer = range("footer").start;
    put(footer + 8, range("directory"));
    put(footer + 32, footer..footer + 32);
    forged
}

#[test]
fn wrong_bytes_behind_right_checksums_are_found_by_their_hashes() {
    let scratch = Scratch::new();
    let original = model(&[("t", "BF16", 2, 3000)]);
    scratch.write("original.safetensors", &original);
    scratch.ok("compress -q original.safetensors -o sound.bs");
    let sound = scratch.read("sound.bs");

    // The SHA-256 ends the section of the original, the MD5 of the last tensor that of the tensors.
    scratch.write("sha256.bs", forge(&sound, "FILE", 1));
    let run = scratch.run(["verify", "sha256.bs"]);
    let said = "sha256.bs: damaged\n  the original does not have the recorded SHA-256\n";
    assert_eq!((run.code, run.stdout.as_str()), (1, said));
    let said = "bigsmall: sha256.bs: its chunks are sound, but the original does not have the recorded SHA-256\n\
                nothing was written; bigsmall verify says which tensors are lost\n";
    assert_eq!(scratch.fails(2, "decompress --check sha256.bs -o out"), said);
    assert!(!scratch.path("out").exists());

    scratch.write("md5.bs", forge(&sound, "TENS", 1));
    let run = scratch.run(["verify", "--json", "md5.bs"]);
    let json: Value = serde_json::from_str(&run.stdout).unwrap();
    let expected = serde_json::json!([{
        "cause": "tensor_md5",
        "tensor": "t",
        "start": original.len() - 3000,
        "end": original.len(),
        "message": "its bytes do not have the recorded MD5",
    }]);
    assert_eq!((run.code, &json["files"][0]["damage"]), (1, &expected));

    // Without the forgery all of this holds.
    let run = scratch.run(["decompress", "-q", "--check", "sound.bs", "-o", "out"]);
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
    assert!(scratch.read("out") == original);
}

/// The container with another version in its preamble, and in its footer if `everywhere`.
fn of_version(container: &[u8], major: u16, minor: u16, everywhere: bool) -> Vec<u8> {
    let version = [major.to_le_bytes(), minor.to_le_bytes()].concat();
    let mut forged = container.to_vec();
    forged[8..12].copy_from_slice(&version);
    if everywhere {
        let footer = forged.len() - 48;
        forged[footer + 28..footer + 32].copy_from_slice(&version);
        let checksum = twox_hash::XxHash3_64::oneshot(&forged[footer..footer + 32]);
        forged[footer + 32..footer + 40].copy_from_slice(&checksum.to_le_bytes());
    }
    forged
}

#[test]
fn a_newer_version_is_named_and_not_called_damage() {
    let scratch = Scratch::new();
    let container = small_container(&scratch);
    for (major, minor) in [(2, 0), (1, 999)] {
        refuses_to_decompress(&scratch, &of_version(&container, major, minor, true), "a newer version");
        let said = format!(
            "the container has format version {major}.{minor}, this program reads 1.0 to 1.2: a newer bigsmall is needed"
        );
        assert_eq!(scratch.fails(2, "decompress damaged.bs"), format!("bigsmall: damaged.bs: {said}\n"));
        assert_eq!(scratch.fails(2, "info damaged.bs"), format!("bigsmall: damaged.bs: {said}\n"));
        let run = scratch.run(["verify", "damaged.bs"]);
        assert_eq!((run.code, run.stderr), (2, format!("bigsmall: damaged.bs: {said}\n")));
        assert_eq!(run.stdout, format!("damaged.bs: not checked\n  {said}\n"));
    }
}

#[test]
fn a_damaged_version_is_not_called_newer() {
    let scratch = Scratch::new();
    let container = small_container(&scratch);
    for (major, minor) in [(3, 0), (1, 0), (1, 0x8001)] {
        scratch.write("damaged.bs", of_version(&container, major, minor, false));
        let run = scratch.run(["verify", "damaged.bs"]);
        assert_eq!(run.code, 1, "{major}.{minor}: {}", run.stdout);
        assert!(run.stdout.contains("preamble and footer name different versions"), "{}", run.stdout);
    }
}

#[test]
fn what_is_no_container_is_called_so() {
    let scratch = Scratch::new();
    scratch.write("model.safetensors", small_model());
    scratch.write("text.bs", "text");
    scratch.write("empty.bs", "");
    for name in ["model.safetensors", "text.bs", "empty.bs"] {
        let said = format!("bigsmall: {name}: this is not a bigsmall container\n");
        assert_eq!(scratch.fails(2, &format!("decompress {name} -o out")), said);
        assert_eq!(scratch.fails(2, &format!("info {name}")), said);
        // Who calls a file x.bs means a container, so it is a broken one.
        let run = scratch.run(["verify", name]);
        assert_eq!((run.code, run.stderr), (if name.ends_with(".bs") { 1 } else { 2 }, said));
    }
    assert_eq!(scratch.names(), ["empty.bs", "model.safetensors", "text.bs"]);
}

#[test]
fn a_source_that_is_not_there_or_no_file_is_refused_at_once() {
    let scratch = Scratch::new();
    assert!(scratch.command("mkfifo").arg("pipe").status().unwrap().success());
    assert!(scratch.command("mkfifo").arg("pipe.bs").status().unwrap().success());
    let _socket = std::os::unix::net::UnixListener::bind(scratch.path("socket.bs")).unwrap();
    std::os::unix::fs::symlink("nowhere", scratch.path("link.bs")).unwrap();
    scratch.write("file", "");
    for command in ["compress", "decompress", "info", "verify", "protect", "repair"] {
        for (source, message) in [
            ("missing.bs", "no such file or directory"),
            ("link.bs", "no such file or directory"),
            ("file/x", "cannot be read: Not a directory (os error 20)"),
            ("pipe", "is a named pipe, not a file or directory"),
            ("pipe.bs", "is a named pipe, not a file or directory"),
            ("socket.bs", "is a socket, not a file or directory"),
            ("/dev/null", "is a device, not a file or directory"),
        ] {
            // Nobody writes into the pipe: to open it would be to wait for ever.
            let output = scratch.command("timeout").args(["10", BIGSMALL, command, source]).output().unwrap();
            let run = Run::from(output);
            assert_eq!((run.code, run.stdout.as_str()), (2, ""), "{command} {source}: {}", run.stderr);
            assert_eq!(run.stderr, format!("bigsmall: {source}: {message}\n"), "{command}");
        }
    }
}

#[test]
fn oddities_beside_containers_do_not_disturb_those_who_only_look() {
    let scratch = Scratch::new();
    scratch.write("model/a.safetensors", small_model());
    scratch.ok("compress -q model/a.safetensors");
    assert!(scratch.command("mkfifo").arg("model/pipe.bs").status().unwrap().success());
    std::os::unix::fs::symlink("nowhere", scratch.path("model/link.bs")).unwrap();
    std::os::unix::fs::symlink("..", scratch.path("model/circle")).unwrap();
    assert_eq!(scratch.ok("verify model"), "model/a.bs: sound (60.1 kB, 3 chunks, 2 tensors)\n");
    scratch.ok("info model");
}

/// Runs `script` with `sh` in the scratch directory, with mounts of its own that vanish with it. `$BIGSMALL` is the
/// program under test.
fn in_own_mounts(scratch: &Scratch, script: &str) -> Run {
    let mut unshare: Command = scratch.command("unshare");
    // Who is not root may mount in a user namespace in which they are.
    unshare.args(if is_root() { &["--mount"][..] } else { &["--map-root-user", "--mount"] });
    let output = unshare.args(["sh", "-ec", script]).env("BIGSMALL", BIGSMALL).output();
    let run = Run::from(output.expect("`unshare` of the package util-linux is needed"));
    assert!(!run.stderr.contains("unshare:") && !run.stderr.contains("mount:"), "mounts cannot be made here: {run:?}");
    run
}

/// Mounts `options` on the directory `target`, runs `bigsmall` with `line`, and lists `target` on standard output. The
/// exit code is that of `bigsmall`.
fn on_mount(scratch: &Scratch, options: &str, line: &str) -> Run {
    fs::create_dir_all(scratch.path("target")).unwrap();
    let script = format!(
        "mount -t tmpfs {options} none target; code=0; \"$BIGSMALL\" {line} >said || code=$?; ls -A target; exit $code"
    );
    in_own_mounts(scratch, &script)
}

#[test]
fn a_full_disk_leaves_nothing() {
    let scratch = Scratch::new();
    scratch.write("model/model.safetensors", model(&[("t", "BF16", 2, 4_000_000)]));
    scratch.ok("compress -q model -o m");
    let mut damaged = scratch.read("m/model.bs");
    let container = damaged.len();
    damaged[1000] ^= 1;
    scratch.write("damaged.bs", damaged);
    // One that fits, then a copy that does not.
    scratch.write("copies/a.safetensors", small_model());
    scratch.write("copies/pytorch_model.bin", vec![1; 3_000_000]);
    let full = "No space left on device (os error 28)\n";
    for (line, said) in [
        ("compress model/model.safetensors -o target", "target/model.bs: cannot write the container: "),
        ("compress model -o target/new", "target/new/model.bs: cannot write the container: "),
        ("decompress m/model.bs -o target", "target/model.safetensors: cannot take 4000075 bytes: "),
        ("decompress --check m/model.bs -o target/x", "target/x: cannot take 4000075 bytes: "),
        ("decompress m -o target", "target/model.safetensors: cannot take 4000075 bytes: "),
        ("repair damaged.bs -o target/x", &format!("target/x: cannot take {container} bytes: ")),
        ("compress copies -o target/new", "target/new/pytorch_model.bin: cannot take 3000000 bytes: "),
    ] {
        let run = on_mount(&scratch, "-o size=1m", line);
        assert_eq!((run.code, run.stdout.as_str()), (2, ""), "bigsmall {line}: {}", run.stderr);
        assert_eq!(run.stderr, format!("bigsmall: {said}{full}"), "bigsmall {line}");
    }
    // The sidecar goes beside the container.
    let script = "mkdir full; mount -t tmpfs -o size=4m none full; cp m/model.bs full; code=0
        \"$BIGSMALL\" protect -q --ecc 90 full/model.bs || code=$?; ls -A full; exit $code";
    let run = in_own_mounts(&scratch, script);
    assert_eq!((run.code, run.stdout.as_str()), (2, "model.bs\n"), "{}", run.stderr);
    assert!(run.stderr.starts_with("bigsmall: full/model.bs.ecc: cannot take "), "{}", run.stderr);
    let run = on_mount(&scratch, "-o size=8m", "compress model/model.safetensors -o target");
    assert_eq!((run.code, run.stdout.as_str(), run.stderr.as_str()), (0, "model.bs\n", ""), "the test itself is sound");
}

#[test]
fn a_read_only_file_system_is_named() {
    let scratch = Scratch::new();
    scratch.write("model/model.safetensors", small_model());
    scratch.ok("compress -q model -o m");
    let mut damaged = scratch.read("m/model.bs");
    damaged[1000] ^= 1;
    scratch.write("damaged.bs", damaged);
    for (line, target) in [
        ("compress model/model.safetensors -o target", "target/model.bs"),
        ("compress model -o target/new", "target/new"),
        ("compress model -o target", "target/model.bs"),
        ("decompress m/model.bs -o target", "target/model.safetensors"),
        ("decompress m -o target/new", "target/new"),
        ("repair damaged.bs -o target/x", "target/x"),
    ] {
        let run = on_mount(&scratch, "-o ro", line);
        assert_eq!((run.code, run.stdout.as_str()), (2, ""), "bigsmall {line}: {}", run.stderr);
        assert_eq!(
            run.stderr,
            format!("bigsmall: {target}: cannot be created: Read-only file system (os error 30)\n"),
            "bigsmall {line}"
        );
    }
}

/// Runs `bigsmall` as a user whom permissions stop.
fn as_ordinary_user(scratch: &Scratch, line: &str) -> Run {
    let arguments = line.split_whitespace();
    if !is_root() {
        return scratch.run(arguments);
    }
    // The program itself may lie where only root can go. Another process copies it: a file that this one has open for
    // writing may be inherited by what another test starts, and cannot be executed for that time.
    let program = scratch.path("bigsmall");
    assert!(scratch.command("cp").args([Path::new(BIGSMALL), &program]).status().unwrap().success());
    set_attributes(&scratch.path("."), 0o755, (1_000_000_000, 0));
    let mut setpriv = scratch.command("setpriv");
    setpriv.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(program).args(arguments);
    setpriv.output().expect("`setpriv` of the package util-linux is needed").into()
}

#[test]
fn missing_permissions_are_named() {
    let scratch = Scratch::new();
    scratch.write("secret/model.safetensors", small_model());
    scratch.write("secret.bs", "secret");
    scratch.write("model/model.safetensors", small_model());
    scratch.write("model/sub/config.json", "{}");
    scratch.ok("compress -q model/model.safetensors -o model.bs");
    fs::create_dir(scratch.path("locked")).unwrap();
    for (name, mode) in [("secret", 0o000), ("secret.bs", 0o000), ("model/sub", 0o000), ("locked", 0o555)] {
        set_attributes(&scratch.path(name), mode, (1_000_000_000, 0));
    }
    let denied = "Permission denied (os error 13)\n";
    for (line, said) in [
        ("compress secret/model.safetensors", "secret/model.safetensors: cannot be read: "),
        ("compress secret -o x", "secret: cannot be read: "),
        ("compress model -o locked/x", "model/sub: cannot be read: "),
        ("verify secret.bs", "secret.bs: cannot open the file: "),
        ("info secret.bs", "secret.bs: cannot open the file: "),
        ("decompress secret.bs -o x", "secret.bs: cannot open the file: "),
        ("compress secret.bs -o x", "secret.bs: cannot open the file: "),
        ("compress model/model.safetensors -o locked", "locked/model.bs: cannot be created: "),
        ("decompress model.bs -o locked", "locked/model.safetensors: cannot be created: "),
    ] {
        let run = as_ordinary_user(&scratch, line);
        assert_eq!((run.code, run.stderr), (2, format!("bigsmall: {said}{denied}")), "bigsmall {line}");
    }
    assert!(names_in(&scratch.path("locked")).is_empty());
    // Who may not be stopped must be able to clear up.
    for name in ["secret", "model/sub", "locked"] {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(scratch.path(name), fs::Permissions::from_mode(0o700)).unwrap();
    }
}

#[test]
fn a_source_that_changes_is_noticed() {
    let scratch = Scratch::new();
    let path = scratch.write("model.safetensors", model(&[("t", "BF16", 2, 100_000_000)]));
    let compress = || {
        let mut command = scratch.command(BIGSMALL);
        command.args(["compress", "-q", "model.safetensors"]);
        command
    };
    let grow = |_| {
        let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
        std::io::Write::write_all(&mut file, b"more").unwrap();
    };
    let run = held(&scratch, compress, ("", "model.bs"), 1, grow);
    assert_eq!(
        (run.code, run.stderr.as_str()),
        (2, "bigsmall: model.safetensors: the file changed while it was read\n")
    );
    assert_eq!(scratch.names(), ["model.safetensors"]);
}
