//! The documentation does what it says: every command in it is run, and every link leads somewhere.
//!
//! Commands are the lines that begin with `$ ` in blocks marked `console`. Those of one page are run one after the other by one shell,
//! in a directory that has what the page takes for granted ([`Prepared`]), with a Hub on this machine. What cannot be run here is
//! listed below. They need what `scripts/test.sh` prepares; where it is missing the test fails and says so.

#[path = "cli/support.rs"]
mod support;

#[path = "hub/local/mod.rs"]
mod local;

use std::fs;
use std::path::{Path, PathBuf};

use local::{LocalHub, TOKEN};
use support::*;

/// Commands that are not run, by the page and what they begin with, and why.
const NOT_RUN: [(&str, &str, &str); 12] = [
    ("README.md", "scripts/demo.sh", "takes minutes; .ci/run runs it"),
    ("README.md", "scripts/test.sh", "would run this test"),
    ("docs/gguf.md", "llama-cli", "needs llama.cpp; tests/loaders.rs loads with its library"),
    ("docs/gpu.md", "cargo install", "builds the program once more; scripts/gpu.sh builds and tests the feature"),
    ("docs/gpu.md", "bigsmall decompress", "needs a GPU and the feature cuda; scripts/gpu.sh does it with an emulator"),
    ("docs/gpu.md", "bigsmall verify", "the same"),
    ("docs/gpu.md", "bigsmall benchmark", "the same"),
    ("docs/library.md", "cargo build", "builds all once more; the tests of codec/c build the library"),
    ("docs/library.md", "cargo rustc", "the same"),
    ("docs/library.md", "cc ", "the same; they compile and run a program"),
    ("docs/mount.md", "systemctl", "needs systemd"),
    ("docs/mount.md", "docker run", "needs docker"),
];

/// The pages, by their paths in the repository.
fn pages() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pages = vec!["README.md".to_owned()];
    pages.extend(
        names_in(&root.join("docs"))
            .into_iter()
            .filter(|name| name.ends_with(".md"))
            .map(|name| format!("docs/{name}")),
    );
    pages
}

fn text_of(page: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(page)).unwrap()
}

/// The commands of a page; one that ends with a backslash goes on in the next line.
fn commands(text: &str) -> Vec<String> {
    let mut commands: Vec<String> = Vec::new();
    let (mut inside, mut goes_on) = (false, false);
    for line in text.lines() {
        if line.starts_with("```") {
            inside = line == "```console";
        } else if inside {
            if goes_on {
                let last = commands.last_mut().unwrap();
                last.push('\n');
                last.push_str(line);
            } else if let Some(command) = line.strip_prefix("$ ") {
                commands.push(command.to_owned());
            } else {
                continue;
            }
            goes_on = line.ends_with('\\');
        }
    }
    commands
}

/// What the pages take for granted, which no mount outlives.
struct Prepared {
    scratch: Scratch,
    hub: LocalHub,
}

impl Prepared {
    /// Where the commands are run.
    const WORK: &str = "work";

    fn new() -> Prepared {
        let prepared = Prepared { scratch: Scratch::new(), hub: LocalHub::start() };
        let scratch = &prepared.scratch;
        // A small file of real weights, and a whole model that transformers loads.
        let weights = fs::read(REAL_WEIGHTS).unwrap();
        let whole = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/minilm-bf16");
        assert!(whole.is_dir(), "{} is missing: run scripts/test-data.sh", whole.display());
        let names: Vec<String> = names_in(&whole).into_iter().filter(|name| whole.join(name).is_file()).collect();
        let whole = names.iter().map(|name| (name.as_str(), fs::read(whole.join(name)).unwrap()));
        let whole: Vec<(&str, Vec<u8>)> = whole.collect();
        for directory in ["Llama-8B", "Qwen3-0.6B"] {
            whole.iter().for_each(|(name, bytes)| drop(scratch.write(format!("work/{directory}/{name}"), bytes)));
        }
        let files: Vec<(&str, &[u8])> = whole.iter().map(|(name, bytes)| (*name, bytes.as_slice())).collect();
        prepared.hub.publish("Qwen/Qwen3-0.6B", &files);
        prepared.hub.publish("org/name", &files);
        scratch.write("work/model.safetensors", &weights);
        scratch.write("work/model/model.safetensors", &weights);
        scratch.write("work/model/config.json", "{}\n");
        scratch.write("work/Llama-8B-Q4_K_M.gguf", gguf_model());
        prepared
    }

    /// A model and fine-tunes of it, which are small.
    fn add_fine_tunes(&self) {
        let base = layers();
        for to in ["work/Llama-3-8B", "home/models/Llama-3-8B"] {
            self.scratch.write(format!("{to}/model.safetensors"), &base);
        }
        self.scratch.write("work/my-tune/model.safetensors", tuned(&base, 1));
        self.scratch.write("work/my-tune/config.json", "{}\n");
        self.scratch.write("work/first.safetensors", tuned(&base, 2));
        self.scratch.write("work/second.safetensors", tuned(&tuned(&base, 2), 3));
    }

    /// A fine-tune of the model on the Hub, here and there.
    fn add_fine_tune_of_the_hub(&self) {
        let base = self.scratch.read("work/Qwen3-0.6B/model.safetensors");
        self.scratch.write("work/my-tune/model.safetensors", tuned(&base, 1));
        self.run(
            "publish",
            &format!(
                "export HF_TOKEN={TOKEN}\n\
                 bigsmall compress -q my-tune --delta-from Qwen3-0.6B -o published\n\
                 bigsmall push -q published me/my-tune-patch --base-model Qwen/Qwen3-0.6B\n\
                 rm -r published"
            ),
        );
    }

    /// A repo as the Python package makes it, and a file.
    fn add_python_package(&self) {
        let from = Path::new(UPSTREAM).join("shards");
        let names = ["bigsmall.index.json", "config.json", "model-00001-of-00002.bs", "model-00002-of-00002.bs"];
        let files = names.map(|name| (name, fs::read(from.join(name)).unwrap()));
        self.hub.publish("org/model-bigsmall", &files.each_ref().map(|(name, bytes)| (*name, bytes.as_slice())));
        copy_upstream(&self.scratch, "default_bf16", "work");
    }

    /// Runs a script with the program under test and the Python of the tests in its path, and this Hub as the only one.
    fn shell(&self, script: &str) -> Run {
        let programs = Path::new(BIGSMALL).parent().unwrap();
        let python = python_programs();
        let path = format!("{}:{}:{}", programs.display(), python.display(), std::env::var("PATH").unwrap());
        let mut shell = self.scratch.command("bash");
        forget_hub(&mut shell);
        shell.args(["-euo", "pipefail", "-c", script]).current_dir(self.scratch.path(Self::WORK));
        shell.env("PATH", path).env("HOME", self.scratch.path("home")).env_remove("XDG_CACHE_HOME");
        shell
            .env("HF_ENDPOINT", self.hub.endpoint())
            .env("HF_HUB_DISABLE_XET", "1")
            .env("HF_HUB_DISABLE_TELEMETRY", "1");
        shell.env("PYTHONDONTWRITEBYTECODE", "1");
        shell.output().unwrap().into()
    }

    /// Runs a script that has to succeed.
    #[track_caller]
    fn run(&self, what: &str, script: &str) {
        let Run { code, stderr, .. } = self.shell(script);
        assert_eq!(code, 0, "{what}: {stderr}");
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let root = self.scratch.path("");
        for mountpoint in
            mounts.lines().filter_map(|line| line.split(' ').nth(1)).filter(|path| Path::new(path).starts_with(&root))
        {
            self.scratch.run(["umount", "--lazy", mountpoint]);
        }
    }
}

/// A script that runs these commands and writes the number of each to the file `at` before.
fn script(commands: &[String]) -> String {
    let token = format!("HF_TOKEN={TOKEN}");
    let steps = commands
        .iter()
        .enumerate()
        .map(|(number, command)| format!("echo {number} > ../at\n{}\n", command.replace("HF_TOKEN=...", &token)));
    steps.collect()
}

/// A script that does the same with directories of the system that nobody else sees: `/srv` with containers of `model`, an `/etc/fstab`
/// that has `line`, and programs in `/sbin`.
fn in_a_system_of_its_own(line: &str, script: &str) -> String {
    assert!(is_root(), "run as root: the page mounts");
    let ours = "\
        fuse() { awk '$3 ~ /^fuse/ { print $2 }' /proc/self/mounts; }
        # What others have mounted must not be held by a second system.
        fuse | xargs -r -d '\\n' umount --lazy
        trap 'fuse | xargs -r -d \"\\n\" umount --lazy' EXIT
        mount -t tmpfs none /srv
        mkdir /srv/models
        bigsmall compress -q model -o /srv/models-bigsmall
        cp -a \"$(realpath /sbin)\" ../sbin
        mount --bind ../sbin \"$(realpath /sbin)\"
        cp -a /etc ../etc
        mount --bind ../etc /etc";
    format!(
        "exec unshare --mount --propagation slave bash -euo pipefail -c {}",
        quoted(&format!("{ours}\necho {} > /etc/fstab\n{script}", quoted(line)))
    )
}

/// `text` as one word of a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[test]
fn every_command_in_the_documentation_works() {
    let mut left_out: Vec<(&str, &str, &str)> = NOT_RUN.to_vec();
    let mut run = 0;
    for page in pages() {
        let text = text_of(&page);
        let mut commands = commands(&text);
        commands.retain(|command| {
            let is_left_out = |(of, start, _): &(&str, &str, &str)| *of == page && command.starts_with(start);
            left_out.retain(|entry| !is_left_out(entry));
            !NOT_RUN.iter().any(is_left_out)
        });
        if commands.is_empty() {
            continue;
        }
        let prepared = Prepared::new();
        let mut script = script(&commands);
        match page.as_str() {
            "docs/patches.md" => prepared.add_fine_tunes(),
            "docs/hub.md" => prepared.add_fine_tune_of_the_hub(),
            "docs/upstream.md" => prepared.add_python_package(),
            "docs/mount.md" => {
                prepared.run("a cache of the Hub", "bigsmall pull -q org/name");
                let line = text.lines().find(|line| line.starts_with("    /srv/")).expect("a line of /etc/fstab");
                script = in_a_system_of_its_own(line.trim(), &script);
            }
            _ => {}
        }
        let Run { code, stderr, .. } = prepared.shell(&script);
        let at: usize = String::from_utf8(prepared.scratch.read("at")).unwrap().trim().parse().unwrap();
        assert_eq!(code, 0, "{page}: $ {}\n{stderr}", commands[at]);
        assert_eq!(at + 1, commands.len(), "{page}: it ends after $ {}", commands[at]);
        run += commands.len();
    }
    assert!(run > 100, "only {run} commands were found");
    assert_eq!(left_out, [], "no longer in the documentation");
}

#[test]
fn no_command_of_the_documentation_hides() {
    for page in pages() {
        let mut inside = None;
        for line in text_of(&page).lines() {
            if let Some(kind) = line.strip_prefix("```") {
                inside = match inside {
                    Some(_) => None,
                    None => Some(kind.to_owned()),
                };
            } else {
                assert!(
                    !line.trim_start().starts_with("$ ") || inside.as_deref() == Some("console"),
                    "{page}: {line:?} is not in a block marked console"
                );
            }
            let shells = ["sh", "bash", "shell"];
            assert!(
                !inside.as_deref().is_some_and(|kind| shells.contains(&kind)),
                "{page}: blocks of commands are console"
            );
        }
    }
}

#[test]
fn every_link_in_the_documentation_leads_somewhere() {
    /// The anchor that a heading gets.
    fn anchor(heading: &str) -> String {
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.collect::<String>().to_lowercase().replace(' ', "-")
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut links = 0;
    for page in pages() {
        let text = text_of(&page);
        for rest in text.split("](").skip(1) {
            let target = rest.split(')').next().unwrap();
            if target.starts_with("http") {
                continue;
            }
            let (file, fragment) = target.split_once('#').unwrap_or((target, ""));
            let page_path = root.join(&page);
            let path: PathBuf = match file.is_empty() {
                true => page_path,
                false => page_path.parent().expect("a page is in a directory").join(file),
            };
            assert!(path.exists(), "{page}: there is no {target}");
            if !fragment.is_empty() {
                let text = fs::read_to_string(&path).unwrap();
                let mut headings = text
                    .lines()
                    .filter(|line| line.starts_with('#'))
                    .map(|line| anchor(line.trim_start_matches('#').trim()));
                assert!(headings.any(|heading| heading == fragment), "{page}: nothing in {file} is called {fragment}");
            }
            links += 1;
        }
    }
    assert!(links > 30, "only {links} links were found");
}
