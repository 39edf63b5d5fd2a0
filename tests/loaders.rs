//! The proof with what no one here wrote: unmodified loaders and everyday tools on mounts of real models.
//!
//! Each test compresses a model directory of `data/`, mounts the result, lets one script of `tests/loaders/` compare
//! the mount with the plain directory, and unmounts. What a script reports by its exit code is under test too: an
//! altered copy must be reported as different, or the comparison would prove nothing.
//!
//! `scripts/test.sh` prepares what this needs (FUSE, a Python environment, the models). Where something is missing, a
//! test fails and says which command brings it; none is skipped.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use memmap2::Mmap;
use safetensors::SafeTensors;
use tempfile::TempDir;

/// What a script exits with when it found a difference; 1 would be any crash of Python.
const DIFFERENT: i32 = 3;

/// A mount that hangs must fail a test and not hang it.
const TIME_LIMIT: Duration = Duration::from_secs(300);

/// The tools that `shell_tools.sh` knows.
const TOOLS: [&str; 6] = ["cp", "cmp", "md5sum", "rsync", "tar", "dd"];

/// The tests of one model.
macro_rules! tests_of {
    ($module:ident, $model:literal) => {
        mod $module {
            use super::*;

            #[test]
            fn load_file() {
                shows_the_same($model, |plain, shown| python("load_file", plain, shown));
            }

            #[test]
            fn slices_in_random_order() {
                shows_the_same($model, |plain, shown| python("slices", plain, shown));
            }

            #[test]
            fn memory_maps() {
                shows_the_same($model, |plain, shown| python("memory_map", plain, shown));
            }

            #[test]
            fn embeddings() {
                shows_the_same($model, |plain, shown| python("embeddings", plain, shown));
            }

            #[test]
            fn weights_left_on_disk() {
                shows_the_same($model, |plain, shown| python("offload", plain, shown));
            }

            #[test]
            fn many_processes_at_once() {
                shows_the_same($model, |plain, shown| python("many_processes", plain, shown));
            }

            #[test]
            fn everyday_tools() {
                shows_the_same($model, every_shell_tool);
            }

            #[test]
            fn a_reader_in_rust() {
                shows_the_same($model, rust_reader);
            }
        }
    };
}

tests_of!(minilm_f32, "minilm-f32");
tests_of!(minilm_bf16, "minilm-bf16");
tests_of!(minilm_in_shards, "minilm-sharded");

#[test]
fn every_comparison_notices_one_flipped_bit() {
    let plain = model("minilm-bf16");
    let scratch = TempDir::new().expect("a temporary folder");
    let altered = scratch.path().join("altered");
    run(Command::new("cp").arg("-r").arg(&plain).arg(&altered)).expect_success();
    flip_a_bit_of_a_weight(&altered.join("model.safetensors"));

    for script in ["load_file", "slices", "memory_map", "embeddings", "offload", "many_processes"] {
        assert_eq!(python(script, &plain, &altered), Verdict::Different, "{script}.py on an altered copy");
    }
    for tool in TOOLS {
        assert_eq!(shell_tool(tool, &plain, &altered), Verdict::Different, "{tool} on an altered copy");
    }
    assert_eq!(rust_reader(&plain, &altered), Verdict::Different, "the Rust reader on an altered copy");
}

/// llama.cpp with models of this type.
macro_rules! llama_cpp {
    ($($test:ident: $model:literal)*) => {
        $(#[test]
        fn $test() {
            shows_the_same($model, llama_cpp);
        })*
    };
}

llama_cpp! {
    llama_cpp_with_bf16: "llama-bf16"
    llama_cpp_with_q8_0: "llama-q8_0"
    llama_cpp_with_q4_k_m: "llama-q4_k_m"
    llama_cpp_with_a_split_model: "llama-q4_k_m-3-parts"
}

fn llama_cpp(plain: &Path, shown: &Path) -> Verdict {
    python_of(python_of_environment("venv-gguf"), "llama", plain, shown)
}

#[test]
fn llama_cpp_notices_one_flipped_bit() {
    let plain = model("llama-q8_0");
    let scratch = TempDir::new().expect("a temporary folder");
    let altered = scratch.path().join("altered");
    run(Command::new("cp").arg("-r").arg(&plain).arg(&altered)).expect_success();
    let file = OpenOptions::new().read(true).write(true).open(altered.join("model.gguf")).expect("a writable copy");
    let middle = file.metadata().expect("it is there").len() / 2;
    let mut byte = [0];
    file.read_exact_at(&mut byte, middle).expect("a byte of a tensor");
    file.write_all_at(&[byte[0] ^ 0x10], middle).expect("the byte is written");
    assert_eq!(llama_cpp(&plain, &altered), Verdict::Different, "an altered copy");
}

#[test]
fn a_pipeline_of_diffusers() {
    let scratch = TempDir::new().expect("a temporary folder");
    let plain = scratch.path().join("pipeline");
    let mut make = Command::new(venv_python());
    run(make.arg(scripts().join("diffusion.py")).arg("make").arg(&plain).env("PYTHONDONTWRITEBYTECODE", "1"))
        .expect_success();
    shows_the_same_as(&plain, |plain, shown| python("diffusion", plain, shown));
    let altered = scratch.path().join("altered");
    run(Command::new("cp").arg("-r").arg(&plain).arg(&altered)).expect_success();
    flip_a_bit_of(&altered.join("unet/diffusion_pytorch_model.safetensors"), "conv_in.weight");
    assert_eq!(python("diffusion", &plain, &altered), Verdict::Different, "an altered copy");
}

#[test]
fn a_model_of_the_hub_by_its_name() {
    let plain = model("minilm-bf16");
    let hub = |altered: bool| {
        let scratch = TempDir::new().expect("a temporary folder");
        let repository = scratch.path().join("hub/models--org--name");
        let (blobs, snapshot) = (repository.join("blobs"), repository.join("snapshots/0123abc"));
        for directory in [&blobs, &snapshot, &repository.join("refs")] {
            fs::create_dir_all(directory).expect("a folder of the cache");
        }
        fs::write(repository.join("refs/main"), "0123abc").expect("the branch");
        for (number, entry) in fs::read_dir(&plain).expect("the model").enumerate() {
            let (path, name) = entry.map(|entry| (entry.path(), entry.file_name())).expect("a file of the model");
            if path.is_dir() {
                continue;
            }
            let blob = format!("{number:040x}");
            fs::copy(&path, blobs.join(&blob)).expect("a blob");
            symlink(Path::new("../../blobs").join(&blob), snapshot.join(&name)).expect("a link to the blob");
            if name == "model.safetensors" {
                // As docs/semantics.md says how a cache is compressed: the container takes the blob's place.
                let container = blobs.join("container");
                if altered {
                    flip_a_bit_of_a_weight(&blobs.join(&blob));
                }
                run(bigsmall().arg("compress").arg(blobs.join(&blob)).arg("-o").arg(&container)).expect_success();
                fs::rename(container, blobs.join(&blob)).expect("the container takes its place");
            }
        }
        let source = scratch.path().join("hub");
        let shown = Shown::mount_source(scratch, &source, &["--hf-cache"]);
        let verdict = python("hub", &plain, shown.path());
        shown.unmount();
        verdict
    };
    assert_eq!(hub(false), Verdict::Same);
    assert_eq!(hub(true), Verdict::Different, "an altered blob");
}

#[test]
fn a_fine_tune_that_is_a_patch_of_its_base() {
    let base = model("minilm-bf16");
    let scratch = TempDir::new().expect("a temporary folder");
    let (tuned, patches) = (scratch.path().join("tuned"), scratch.path().join("patches"));
    run(Command::new("cp").arg("-r").arg(&base).arg(&tuned)).expect_success();
    let weights = tuned.join("model.safetensors");
    let mut bytes = fs::read(&weights).expect("the weights");
    let data = 8 + u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")) as usize;
    // Each third weight moves a unit in the last place.
    bytes[data..].as_chunks_mut::<2>().0.iter_mut().step_by(3).for_each(|[low, _]| *low ^= 1);
    fs::write(&weights, bytes).expect("other weights");
    run(bigsmall().arg("compress").arg(&tuned).arg("--delta-from").arg(&base).arg("-o").arg(&patches)).expect_success();
    let (patch, whole) = (fs::metadata(patches.join("model.bs")), fs::metadata(&weights));
    assert!(
        patch.expect("a patch").len() * 4 < whole.expect("the weights").len(),
        "a patch is a fraction of the model"
    );
    let options = ["--base", base.to_str().expect("a path in UTF-8")];
    let shown = Shown::mount_source(scratch, &patches, &options);
    for script in ["load_file", "embeddings", "memory_map"] {
        assert_eq!(python(script, &tuned, shown.path()), Verdict::Same, "{script}.py on the mount of patch and base");
        assert_eq!(python(script, &base, shown.path()), Verdict::Different, "{script}.py with the base");
    }
    shown.unmount();
}

#[test]
fn files_of_the_python_package() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("codec/tests/upstream");
    let verdict = |altered: bool| {
        let scratch = TempDir::new().expect("a temporary folder");
        let (plain, source) = (scratch.path().join("plain"), scratch.path().join("source"));
        for fixture in fs::read_dir(&fixtures).expect("the fixtures") {
            let fixture = fixture.expect("a fixture").path();
            let name = fixture.file_name().expect("a name").to_owned();
            // A difference from another model cannot be shown by itself.
            if !fixture.is_dir() || name == "delta" {
                continue;
            }
            for directory in [plain.join(&name), source.join(&name)] {
                fs::create_dir_all(directory).expect("a folder");
            }
            for entry in fs::read_dir(&fixture).expect("the fixture") {
                let path = entry.expect("a file of it").path();
                let file = path.file_name().expect("a name");
                if file == "manifest.json" {
                    fs::copy(&path, plain.join(&name).join(file)).expect("the manifest");
                } else if path.extension().is_some_and(|extension| extension != "safetensors") {
                    fs::copy(&path, source.join(&name).join(file)).expect("a file of the model");
                }
            }
        }
        if altered {
            let manifest = plain.join("groups_f32/manifest.json");
            let text = fs::read_to_string(&manifest).expect("a manifest");
            fs::write(&manifest, text.replacen("\"md5\": \"", "\"md5\": \"0", 1)).expect("another manifest");
        }
        let shown = Shown::mount_source(scratch, &source, &[]);
        let verdict = python("upstream", &plain, shown.path());
        shown.unmount();
        verdict
    };
    assert_eq!(verdict(false), Verdict::Same);
    assert_eq!(verdict(true), Verdict::Different, "with another MD5");
}

/// What a comparison found. Anything else (a crash, a missing file) fails the test where it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Same,
    Different,
}

/// Mounts `model` and compares the mount with the plain directory.
fn shows_the_same(name: &str, compare: impl FnOnce(&Path, &Path) -> Verdict) {
    shows_the_same_as(&model(name), compare);
}

/// The same for the model directory `plain`.
fn shows_the_same_as(plain: &Path, compare: impl FnOnce(&Path, &Path) -> Verdict) {
    let shown = Shown::mount(plain);
    let verdict = compare(plain, shown.path());
    shown.unmount();
    assert_eq!(verdict, Verdict::Same, "{} through the mount", plain.display());
}

/// Runs `tests/loaders/SCRIPT.py PLAIN SHOWN`.
fn python(script: &str, plain: &Path, shown: &Path) -> Verdict {
    python_of(venv_python(), script, plain, shown)
}

/// The same with this Python.
#[track_caller]
fn python_of(python: PathBuf, script: &str, plain: &Path, shown: &Path) -> Verdict {
    let mut command = Command::new(python);
    command.arg(scripts().join(format!("{script}.py"))).args([plain, shown]);
    command.env("PYTHONDONTWRITEBYTECODE", "1").env("HF_HUB_OFFLINE", "1").env("TOKENIZERS_PARALLELISM", "false");
    run(&mut command).verdict()
}

/// Runs `tests/loaders/shell_tools.sh PLAIN SHOWN TOOL`.
fn shell_tool(tool: &str, plain: &Path, shown: &Path) -> Verdict {
    run(Command::new("bash").arg(scripts().join("shell_tools.sh")).args([plain, shown]).arg(tool)).verdict()
}

/// Runs each tool; the first difference decides.
fn every_shell_tool(plain: &Path, shown: &Path) -> Verdict {
    if TOOLS.iter().any(|tool| shell_tool(tool, plain, shown) == Verdict::Different) {
        Verdict::Different
    } else {
        Verdict::Same
    }
}

/// Maps every weight file and compares its tensors, as a loader in Rust would read them.
fn rust_reader(plain: &Path, shown: &Path) -> Verdict {
    let mut tensors = 0;
    for name in weight_files(plain) {
        let (plain, shown) = (map(&plain.join(&name)), map(&shown.join(&name)));
        let plain = SafeTensors::deserialize(&plain).expect("the plain file is a safetensors file");
        let shown = SafeTensors::deserialize(&shown).expect("the mount shows a safetensors file");
        assert_eq!(shown.len(), plain.len(), "the number of tensors in {name}");
        for (tensor, wanted) in plain.iter() {
            let there = shown.tensor(tensor).expect("the mount has every tensor");
            if (wanted.dtype(), wanted.shape(), wanted.data()) != (there.dtype(), there.shape(), there.data()) {
                return Verdict::Different;
            }
            tensors += 1;
        }
    }
    assert!(tensors > 100, "only {tensors} tensors were compared");
    Verdict::Same
}

fn map(path: &Path) -> Mmap {
    let file = File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    // SAFETY: nobody writes to the file while it is mapped: it is test data, a copy of this test, or in a read-only mount.
    unsafe { Mmap::map(&file) }.unwrap_or_else(|e| panic!("{} cannot be mapped: {e}", path.display()))
}

/// The weight files in a model directory and below it, at least one.
fn weight_files(directory: &Path) -> Vec<String> {
    let mut names = Vec::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(inner) = directories.pop() {
        for entry in fs::read_dir(&inner).unwrap_or_else(|e| panic!("{}: {e}", inner.display())) {
            let path = entry.expect("a directory entry").path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "safetensors" || extension == "gguf") {
                let name = path.strip_prefix(directory).expect("it is below it");
                names.push(name.to_str().expect("a name in UTF-8").to_owned());
            }
        }
    }
    names.sort();
    assert!(!names.is_empty(), "{} holds no weights", directory.display());
    names
}

/// Flips the lowest exponent bit of a weight that every embedding depends on.
fn flip_a_bit_of_a_weight(path: &Path) {
    flip_a_bit_of(path, "embeddings.LayerNorm.weight");
}

/// Flips a bit of the first weight of a tensor.
fn flip_a_bit_of(path: &Path, name: &str) {
    let offset = {
        let bytes = map(path);
        let tensors = SafeTensors::deserialize(&bytes).expect("a safetensors file");
        let weight = tensors.tensor(name).expect("the tensor to alter");
        weight.data().as_ptr() as usize - bytes.as_ptr() as usize
    };
    let file = OpenOptions::new().read(true).write(true).open(path).expect("a writable copy");
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset as u64).expect("a byte of the tensor");
    file.write_all_at(&[byte[0] ^ 0x80], offset as u64).expect("the byte is written");
}

/// A compressed model, mounted.
struct Shown {
    mountpoint: PathBuf,
    /// Holds the containers and the mount point, and removes them.
    _scratch: TempDir,
}

impl Shown {
    fn mount(plain: &Path) -> Shown {
        assert!(
            Path::new("/dev/fuse").exists(),
            "/dev/fuse is missing: load the module (modprobe fuse), or start the container with --device /dev/fuse"
        );
        let scratch = TempDir::new().expect("a temporary folder");
        let compressed = scratch.path().join("compressed");
        run(bigsmall().arg("compress").arg(plain).arg("-o").arg(&compressed)).expect_success();
        for name in weight_files(plain) {
            let container = compressed.join(&name).with_extension("bs");
            let stored = fs::metadata(&container).unwrap_or_else(|e| panic!("{}: {e}", container.display())).len();
            let original = fs::metadata(plain.join(&name)).expect("the original").len();
            assert!(stored < original, "{} is not smaller than its original", container.display());
            assert!(!compressed.join(&name).exists(), "{name} was copied, so the mount would prove nothing");
        }

        Shown::mount_source(scratch, &compressed, &[])
    }

    /// Mounts `source`, which lies in `scratch`, with these options.
    fn mount_source(scratch: TempDir, source: &Path, options: &[&str]) -> Shown {
        let mountpoint = scratch.path().join("mount");
        fs::create_dir(&mountpoint).expect("a mount point");
        let mountpoint = mountpoint.canonicalize().expect("the mount point as the kernel lists it");
        let shown = Shown { mountpoint, _scratch: scratch };
        run(bigsmall().arg("mount").args(options).arg(source).arg(&shown.mountpoint)).expect_success();
        assert!(shown.is_mounted(), "bigsmall mount succeeded, but nothing is mounted");
        shown
    }

    fn path(&self) -> &Path {
        &self.mountpoint
    }

    /// Whether the kernel has a mount there. It is not asked of the mount itself, whose daemon may hang or be dead.
    fn is_mounted(&self) -> bool {
        let mounts = fs::read_to_string("/proc/self/mounts").expect("the kernel's list of mounts");
        mounts.lines().any(|line| line.split(' ').nth(1).map(Path::new) == Some(&self.mountpoint))
    }

    fn unmount(self) {
        run(bigsmall().arg("umount").arg(&self.mountpoint)).expect_success();
        assert!(!self.is_mounted(), "bigsmall umount succeeded, but something is still mounted");
    }
}

/// On the way out of a failed test: whatever happens, nothing stays mounted.
impl Drop for Shown {
    fn drop(&mut self) {
        let ways: [&[&str]; 3] =
            [&[env!("CARGO_BIN_EXE_bigsmall"), "umount"], &["fusermount3", "-uz"], &["umount", "-l"]];
        for way in ways {
            if !self.is_mounted() {
                return;
            }
            let mut command = Command::new(way[0]);
            command.args(&way[1..]).arg(&self.mountpoint).stdout(Stdio::null()).stderr(Stdio::null());
            // What fails or hangs is left behind, and the next way is tried.
            if let Ok(mut child) = command.spawn() {
                wait(&mut child, Duration::from_secs(20));
            }
        }
    }
}

fn bigsmall() -> Command {
    Command::new(env!("CARGO_BIN_EXE_bigsmall"))
}

/// A command that ended.
struct Ended {
    what: String,
    status: ExitStatus,
    output: String,
}

impl Ended {
    #[track_caller]
    fn expect_success(self) {
        assert!(self.status.success(), "{} ended with {}\n{}", self.what, self.status, self.output);
    }

    #[track_caller]
    fn verdict(self) -> Verdict {
        println!("{}", self.output);
        match self.status.code() {
            Some(0) => Verdict::Same,
            Some(DIFFERENT) => Verdict::Different,
            _ => panic!("{} ended with {}\n{}", self.what, self.status, self.output),
        }
    }
}

/// Runs a command to its end, or until [`TIME_LIMIT`], when it and its children are killed and the test fails.
#[track_caller]
fn run(command: &mut Command) -> Ended {
    let what = format!("{command:?}");
    // A file and no pipe: a daemon that outlives the command may keep it open.
    let log = tempfile::NamedTempFile::new().expect("a log file");
    // Handles that append do not overwrite each other's output.
    let appending = || Stdio::from(OpenOptions::new().append(true).open(log.path()).expect("the log file"));
    command.stdin(Stdio::null()).stdout(appending()).stderr(appending()).process_group(0);
    let mut child = command.spawn().unwrap_or_else(|e| panic!("{what} cannot be started: {e}"));
    let status = wait(&mut child, TIME_LIMIT).or_else(|| {
        let _ = Command::new("kill").args(["-KILL", "--", &format!("-{}", child.id())]).status();
        wait(&mut child, Duration::from_secs(30))
    });
    let output = String::from_utf8_lossy(&fs::read(log.path()).expect("the log")).into_owned();
    let Some(status) = status else { panic!("{what} hangs and cannot be killed\n{output}") };
    Ended { what, status, output }
}

/// Waits for a child to end, at most as long as `limit`.
fn wait(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let deadline = Instant::now() + limit;
    loop {
        match child.try_wait().expect("a child to wait for") {
            Some(status) => return Some(status),
            None if Instant::now() > deadline => return None,
            None => thread::sleep(Duration::from_millis(10)),
        }
    }
}

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/loaders")
}

/// A model directory made by `scripts/test-data.sh`.
#[track_caller]
fn model(name: &str) -> PathBuf {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("data");
    assert!(
        data.join(".made").join(name).exists(),
        "the model data/{name} is missing: run scripts/test-data.sh (or scripts/test.sh, which does)"
    );
    data.join(name)
}

/// The Python of the environment that most scripts run in.
#[track_caller]
fn venv_python() -> PathBuf {
    python_of_environment("venv")
}

/// The Python of the environment of that name, which `scripts/lib.sh` makes.
#[track_caller]
fn python_of_environment(name: &str) -> PathBuf {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = set("BIGSMALL_DEV_CACHE").unwrap_or_else(|| {
        let user = set("XDG_CACHE_HOME").unwrap_or_else(|| set("HOME").expect("HOME is set").join(".cache"));
        user.join("bigsmall-dev")
    });
    let venv = cache.join(name);
    assert!(
        venv.join(".complete").exists(),
        "the Python environment {} is missing or incomplete: run scripts/test-data.sh (or scripts/test.sh, which does)",
        venv.display()
    );
    venv.join("bin/python")
}
