//! What the tests of the command line share: running the program in a scratch directory, and files to give it.

#![allow(dead_code, reason = "each of the test programs that include this file uses its own part")]

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use md5::{Digest, Md5};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use serde_json::Value;
use tempfile::TempDir;

/// Real weights of each kind of float; see `tests/data/README.md`.
pub const REAL_WEIGHTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/minilm-slice.safetensors");

/// Files of the Python package and what is in them; see `LICENCE.md` there.
pub const UPSTREAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/codec/tests/upstream");

/// A container of each version of the format.
pub const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/codec/tests/golden");

/// The program under test.
pub const BIGSMALL: &str = env!("CARGO_BIN_EXE_bigsmall");

/// A temporary directory that commands run in, so that messages have short and known names in them.
pub struct Scratch {
    directory: TempDir,
}

/// How a command ended and what it said.
#[derive(Debug)]
pub struct Run {
    /// The exit code, or the negative number of the signal that ended it.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Scratch {
    pub fn new() -> Scratch {
        Scratch { directory: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a file, and the directories that it is in.
    pub fn write(&self, name: impl AsRef<Path>, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, contents).unwrap();
        path
    }

    pub fn read(&self, name: impl AsRef<Path>) -> Vec<u8> {
        let path = self.path(name);
        fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    /// The names in it, sorted.
    pub fn names(&self) -> Vec<String> {
        names_in(self.directory.path())
    }

    /// A command that runs in it, with nothing of this environment that could change what it says.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.directory.path()).stdin(Stdio::null());
        for variable in ["COLUMNS", "RAYON_NUM_THREADS", "CLICOLOR_FORCE", "NO_COLOR"] {
            command.env_remove(variable);
        }
        for variable in ["HF_HOME", "HF_HUB_CACHE"] {
            command.env_remove(variable);
        }
        command.env("XDG_CACHE_HOME", self.path(".cache"));
        command
    }

    /// Runs `bigsmall` with these arguments.
    pub fn run<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Run {
        self.command(BIGSMALL).args(arguments).output().unwrap().into()
    }

    /// Runs `bigsmall` with the arguments in `line`, none of which has a space in it, and expects it to succeed without
    /// a word on standard error. Gives standard output.
    #[track_caller]
    pub fn ok(&self, line: &str) -> String {
        self.run(line.split_whitespace()).succeeded(line)
    }

    /// As [`ok`](Scratch::ok), and reads standard output as JSON.
    #[track_caller]
    pub fn json(&self, line: &str) -> Value {
        serde_json::from_str(&self.ok(line)).unwrap()
    }

    /// Runs `bigsmall` with the arguments in `line` and expects it to fail with `code`, without a word on standard
    /// output. Gives standard error.
    #[track_caller]
    pub fn fails(&self, code: i32, line: &str) -> String {
        self.run(line.split_whitespace()).failed(code, line)
    }
}

impl Run {
    /// Standard output of a command with these arguments that has to have succeeded without a word on standard error.
    #[track_caller]
    pub fn succeeded(self, line: &str) -> String {
        assert_eq!((self.code, self.stderr.as_str()), (0, ""), "bigsmall {line}");
        self.stdout
    }

    /// Standard error of one that has to have failed with `code`, without a word on standard output.
    #[track_caller]
    pub fn failed(self, code: i32, line: &str) -> String {
        assert_eq!((self.code, self.stdout.as_str()), (code, ""), "bigsmall {line}: {}", self.stderr);
        self.stderr
    }
}

impl From<Output> for Run {
    fn from(output: Output) -> Run {
        let code = output.status.code().unwrap_or_else(|| -output.status.signal().unwrap());
        let text = |bytes| String::from_utf8(bytes).expect("the program writes UTF-8");
        Run { code, stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

/// Takes all that concerns the Hub, and how to get there, out of the environment of a command.
pub fn forget_hub(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let upper = name.to_string_lossy().to_uppercase();
        if ["HF_", "HUGGING", "TRANSFORMERS_"].iter().any(|of| upper.starts_with(of))
            || upper.ends_with("_PROXY")
            || ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"].contains(&upper.as_str())
        {
            command.env_remove(name);
        }
    }
}

/// The programs of the Python that `scripts/test.sh` prepares. Where it is missing the test fails and says so.
pub fn python_programs() -> PathBuf {
    let home = || PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".cache/bigsmall-dev");
    let programs = std::env::var_os("BIGSMALL_DEV_CACHE").map_or_else(home, PathBuf::from).join("venv/bin");
    assert!(programs.join("python").exists(), "{} is missing: run scripts/test.sh, which makes it", programs.display());
    programs
}

/// How long a command may take until it is as far as a test wants it to be.
const PATIENCE: Duration = Duration::from_secs(120);

/// Starts a command that makes `target`, holds it when it has written `len` bytes under temporary names in `directory`, does `meanwhile`
/// with it, and lets it go on. Gives how it ended. Other work may keep this thread from holding it in time; what it has made then
/// is removed, and it is started again.
pub fn held(
    scratch: &Scratch,
    command: impl Fn() -> Command,
    (directory, target): (&str, &str),
    len: u64,
    meanwhile: impl Fn(Pid),
) -> Run {
    for _ in 0..50 {
        let mut child = command().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let pid = Pid::from_child(&child);
        let start = Instant::now();
        while unfinished_len(&scratch.path(directory)) < len && child.try_wait().unwrap().is_none() {
            assert!(start.elapsed() < PATIENCE, "it never came so far");
            std::thread::sleep(Duration::from_micros(100));
        }
        if child.try_wait().unwrap().is_none() {
            kill_process(pid, Signal::STOP).unwrap();
            // Until it is held, or has ended.
            let options = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            waitid(WaitId::Pid(pid), options).unwrap();
            if unfinished_len(&scratch.path(directory)) >= len {
                meanwhile(pid);
                kill_process(pid, Signal::CONT).unwrap();
                return child.wait_with_output().unwrap().into();
            }
            kill_process(pid, Signal::KILL).unwrap();
        }
        child.wait().unwrap();
        remove(&scratch.path(target));
    }
    panic!("it is always done before it can be held: the test needs a larger file");
}

/// As [`held`], with a signal: it ends because of it.
pub fn interrupted(
    scratch: &Scratch,
    command: impl Fn() -> Command,
    places: (&str, &str),
    len: u64,
    signal: Signal,
) -> Run {
    for _ in 0..20 {
        let run = held(scratch, &command, places, len, |pid| kill_process(pid, signal).unwrap());
        if run.code != 0 {
            return run;
        }
        // It had nothing left to do when it was held.
        remove(&scratch.path(places.1));
    }
    panic!("it never ended because of the signal");
}

/// Bytes under temporary names in a directory.
fn unfinished_len(directory: &Path) -> u64 {
    let paths = |directory: &Path| fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let temporary = paths(directory).filter(|path| path.to_string_lossy().ends_with(".bigsmall-tmp"));
    let files = temporary.flat_map(|path| match path.is_dir() {
        true => paths(&path).collect(),
        false => vec![path],
    });
    files.filter_map(|path| Some(fs::metadata(path).ok()?.len())).sum()
}

/// Removes a file or a directory, if it is there.
fn remove(path: &Path) {
    let _ = fs::remove_file(path);
    let _ = fs::remove_dir_all(path);
}

/// The names in a directory, sorted.
pub fn names_in(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// A safetensors file of tensors with these names, dtypes and sizes in bytes. They hold something like weights in BF16:
/// signs and mantissas of noise, few exponents, so that they compress as weights do.
pub fn model(tensors: &[(&str, &str, u64, usize)]) -> Vec<u8> {
    let mut end = 0;
    let entries = tensors.iter().map(|(name, dtype, element, len)| {
        let start = end;
        end += len;
        let name = serde_json::to_string(name).unwrap();
        let elements = *len as u64 / element;
        format!("{name}:{{\"dtype\":\"{dtype}\",\"shape\":[{elements}],\"data_offsets\":[{start},{end}]}}")
    });
    let header = format!("{{{}}}", entries.collect::<Vec<_>>().join(","));
    let mut file = safetensors(&header, 0);
    file.extend((0..end as u64).map(weight_byte));
    file
}

/// A file with this header and `len` bytes of data, whether they fit together or not.
pub fn safetensors(header: &str, len: u64) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.extend((0..len).map(weight_byte));
    file
}

/// A GGUF file of one tensor, in BF16.
pub fn gguf_model() -> Vec<u8> {
    let string = |text: &str| [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat();
    let mut file = [&b"GGUF"[..], &3u32.to_le_bytes(), &1u64.to_le_bytes(), &1u64.to_le_bytes()].concat();
    file.extend([&string("general.name")[..], &8u32.to_le_bytes(), &string("test")].concat());
    file.extend([&string("blk.0.weight")[..], &2u32.to_le_bytes()].concat());
    file.extend([200u64, 100].map(u64::to_le_bytes).as_flattened());
    file.extend([&30u32.to_le_bytes()[..], &0u64.to_le_bytes()].concat());
    file.resize(file.len().next_multiple_of(32), 0);
    file.extend((0..40_000).map(weight_byte));
    file
}

fn weight_byte(position: u64) -> u8 {
    // The finaliser of SplitMix64.
    let mut hash = (position / 2).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    hash = (hash ^ hash >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ hash >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^= hash >> 31;
    let exponent = 120 - ((hash >> 16) as u16).trailing_zeros().min(12) as u16;
    (hash as u16 & 0x807f | exponent << 7).to_le_bytes()[(position % 2) as usize]
}

/// A fine-tune of a model in BF16: two of five weights are a step or two away from where they were. `seed` chooses which.
pub fn tuned(base: &[u8], seed: u64) -> Vec<u8> {
    let mut tuned = base.to_vec();
    let data = 8 + u64::from_le_bytes(base[..8].try_into().unwrap()) as usize;
    for (number, weight) in tuned[data..].as_chunks_mut::<2>().0.iter_mut().enumerate() {
        let mut hash = (number as u64 ^ seed << 40).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash = (hash ^ hash >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 32;
        if hash % 5 < 2 {
            let step = [1, 2, u16::MAX, u16::MAX - 1][(hash >> 8) as usize % 4];
            *weight = u16::from_le_bytes(*weight).wrapping_add(step).to_le_bytes();
        }
    }
    tuned
}

/// Another model of the same tensors: its weights are those of `base` at other places.
pub fn unrelated(base: &[u8]) -> Vec<u8> {
    let mut other = base.to_vec();
    let data = 8 + u64::from_le_bytes(base[..8].try_into().unwrap()) as usize;
    other[data..].rotate_left(10_002);
    other
}

/// A model of some layers in BF16, 1.1 MB.
pub fn layers() -> Vec<u8> {
    let names: Vec<String> = (0..12).map(|layer| format!("model.layers.{layer}.weight")).collect();
    let mut tensors: Vec<(&str, &str, u64, usize)> = vec![("embed.weight", "BF16", 2, 400_000)];
    tensors.extend(names.iter().map(|name| (name.as_str(), "BF16", 2, 60_000)));
    tensors.push(("norm.weight", "BF16", 2, 1_000));
    model(&tensors)
}

/// A part of a model: those of its tensors that `is_in` says, by their position.
pub fn part_of(model: &[u8], is_in: impl Fn(usize) -> bool) -> Vec<u8> {
    let tensors = safetensors::SafeTensors::deserialize(model).unwrap();
    let mut names: Vec<&str> = tensors.names();
    names.sort_unstable();
    let part = names.iter().enumerate().filter(|(number, _)| is_in(*number));
    safetensors::serialize(part.map(|(_, name)| (*name, tensors.tensor(name).unwrap())), None).unwrap()
}

/// A model of two tensors, 60 kB.
pub fn small_model() -> Vec<u8> {
    model(&[("a.weight", "BF16", 2, 40_000), ("b.weight", "F32", 4, 20_000)])
}

/// A table of results with the speed, the only thing that differs between runs, and the width of its column replaced.
pub fn mask_speed(table: &str) -> String {
    let number = |c: char| c.is_ascii_digit() || c == '.' || c == ' ';
    let mask = |line: &str| match (line.strip_suffix("speed"), line.strip_suffix("B/s")) {
        (Some(line), _) => line.trim_end().to_owned() + "  SPEED",
        (_, Some(line)) => line.trim_end_matches(['k', 'M', 'G']).trim_end_matches(number).to_owned() + "  SPEED",
        _ => line.to_owned(),
    };
    table.lines().map(|line| mask(line) + "\n").collect()
}

/// Gives a file or directory a time of modification and permissions.
pub fn set_attributes(path: &Path, mode: u32, mtime: (u64, u32)) {
    use std::os::unix::fs::PermissionsExt;
    let file = fs::File::open(path).unwrap();
    file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::new(mtime.0, mtime.1)).unwrap();
    file.set_permissions(fs::Permissions::from_mode(mode)).unwrap();
}

/// The permissions and the time of modification of a file or directory.
pub fn attributes(path: &Path) -> (u32, i64, i64) {
    let metadata = fs::metadata(path).unwrap();
    (metadata.mode() & 0o7777, metadata.mtime(), metadata.mtime_nsec())
}

/// A file or directory: its path, its attributes, the contents if it is a file.
pub type Node = (PathBuf, (u32, i64, i64), Option<Vec<u8>>);

/// All that is below a directory, and itself, links followed.
pub fn tree(root: &Path) -> Vec<Node> {
    let mut found = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(path) = open.pop() {
        let contents = if path.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            None
        } else {
            Some(fs::read(&path).unwrap())
        };
        found.push((path.strip_prefix(root).unwrap().to_owned(), attributes(&path), contents));
    }
    found.sort();
    found
}

/// The fixtures of the Python package that stand for themselves: all but the difference from another model.
pub fn upstream_fixtures() -> Vec<String> {
    let mut names = names_in(Path::new(UPSTREAM));
    names.retain(|name| name != "LICENCE.md" && name != "delta");
    assert!(names.len() >= 29, "fixtures are missing: {names:?}");
    names
}

/// Copies a fixture of the Python package to a directory `to` in the scratch directory, as far as it would be published.
pub fn copy_upstream(scratch: &Scratch, fixture: &str, to: &str) {
    let published = |name: &String| name.ends_with(".bs") || name.ends_with(".json") && name != "manifest.json";
    let from = Path::new(UPSTREAM).join(fixture);
    for name in names_in(&from).into_iter().filter(published) {
        scratch.write(Path::new(to).join(&name), fs::read(from.join(&name)).unwrap());
    }
}

/// Compares a safetensors file, or several that belong together, with what a fixture is known to hold. Gives the number of
/// tensors.
#[track_caller]
pub fn assert_upstream(fixture: &str, files: &[Vec<u8>]) -> usize {
    let manifest = fs::read(Path::new(UPSTREAM).join(fixture).join("manifest.json")).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    let files: Vec<_> = files.iter().map(|file| safetensors::SafeTensors::deserialize(file).unwrap()).collect();
    let expected = manifest["tensors"].as_array().unwrap();
    for entry in expected {
        let name = entry["name"].as_str().unwrap();
        let tensor = files.iter().find_map(|file| file.tensor(name).ok());
        let tensor = tensor.unwrap_or_else(|| panic!("{fixture}: there is no tensor {name}"));
        let shape: Vec<Value> = tensor.shape().iter().map(|&dim| dim.into()).collect();
        assert_eq!(Value::from(shape), entry["shape"], "{fixture}: {name}");
        assert_eq!(format!("{:?}", tensor.dtype()), entry["dtype"].as_str().unwrap(), "{fixture}: {name}");
        let md5: String = Md5::digest(tensor.data()).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(md5, entry["md5"].as_str().unwrap(), "{fixture}: {name}");
    }
    let tensors = files.iter().map(|file| file.len()).sum();
    assert_eq!(tensors, expected.len(), "{fixture}: no more and no fewer");
    tensors
}

/// Whether this runs as root, whom permissions do not stop.
pub fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}
