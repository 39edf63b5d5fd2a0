//! The documentation does what it says: every command in it is run, and every link leads somewhere.
//!
//! Commands are the lines that begin with `$ ` in blocks marked `console`. Those of one page run one after the other, in a
//! directory with a small real model: `model/` and `model.safetensors`. What cannot be run here is listed below.

#[path = "cli/support.rs"]
mod support;

use std::fs;
use std::path::{Path, PathBuf};

use support::*;

/// Commands that are not run, by the page and what they begin with, and why.
const NOT_RUN: [(&str, &str, &str); 23] = [
    ("README.md", "bigsmall compress Llama-8B", "a model of 16 GB"),
    ("README.md", "bigsmall mount Llama-8B", "the same"),
    ("README.md", "python -c", "the same; tests/loaders.rs does it with a small one"),
    ("README.md", "bigsmall umount ~/models/Llama-8B", "the same"),
    ("README.md", "scripts/demo.sh", "takes minutes and PyTorch; run by hand and in CI"),
    ("README.md", "scripts/test.sh", "would run this test"),
    ("docs/hub.md", "bigsmall pull", "needs the Hub; tests/hub does it with one of its own"),
    ("docs/hub.md", "bigsmall push", "needs the Hub; tests/hub does it with one of its own"),
    ("docs/hub.md", "bigsmall pipeline", "needs the Hub; tests/hub does it with one of its own"),
    ("docs/hub.md", "bigsmall status", "needs the Hub; tests/hub does it with one of its own"),
    ("docs/hub.md", "export HF_TOKEN", "needs a token"),
    ("docs/hub.md", "bigsmall compress", "a model of the Hub; tests/hub/python.rs does it"),
    ("docs/hub.md", "bigsmall mount", "a model of the Hub; tests/hub/python.rs does it"),
    ("docs/hub.md", "bigsmall umount", "a model of the Hub; tests/hub/python.rs does it"),
    ("docs/hub.md", "python -c", "a model of the Hub; tests/hub/python.rs does it"),
    ("docs/hub.md", "HF_HUB_CACHE=", "a model of the Hub; tests/hub/python.rs does it"),
    ("docs/mount.md", "HF_HUB_CACHE=", "PyTorch and a model of the Hub; tests/loaders.rs does it"),
    ("docs/mount.md", "ln -s", "changes /sbin"),
    ("docs/mount.md", "mount /srv/models", "changes /etc/fstab; tests/mount/life.rs calls mount.bigsmall"),
    ("docs/mount.md", "systemctl", "needs systemd"),
    ("docs/mount.md", "bigsmall mount --allow-other /srv", "needs /srv/models"),
    ("docs/mount.md", "docker run", "needs docker"),
    ("docs/mount.md", "getfattr -d /srv", "needs /srv/models; tests/mount/promises.rs reads the attributes"),
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

/// A directory as the pages take for granted, which no mount outlives.
struct Prepared(Scratch);

impl Prepared {
    fn new() -> Prepared {
        let scratch = Scratch::new();
        let weights = fs::read(REAL_WEIGHTS).unwrap();
        scratch.write("model.safetensors", &weights);
        scratch.write("model/model.safetensors", &weights);
        scratch.write("model/config.json", "{}\n");
        let blob = "home/.cache/huggingface/hub/models--org--name/blobs/0123abcd";
        scratch.write(blob, &weights);
        let snapshot = scratch.path("home/.cache/huggingface/hub/models--org--name/snapshots/1");
        fs::create_dir_all(&snapshot).unwrap();
        std::os::unix::fs::symlink("../../blobs/0123abcd", snapshot.join("model.safetensors")).unwrap();
        Prepared(scratch)
    }

    /// Runs a command in a shell, with the program under test in its path.
    fn run(&self, command: &str) -> Run {
        let programs = Path::new(BIGSMALL).parent().unwrap().display().to_string();
        let path = format!("{programs}:{}", std::env::var("PATH").unwrap());
        let mut shell = self.0.command("bash");
        shell.args(["-euo", "pipefail", "-c", command]).env("PATH", path).env("HOME", self.0.path("home"));
        shell.output().unwrap().into()
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let root = self.0.path("");
        for mountpoint in
            mounts.lines().filter_map(|line| line.split(' ').nth(1)).filter(|path| Path::new(path).starts_with(&root))
        {
            self.0.run(["umount", "--lazy", mountpoint]);
        }
    }
}

#[test]
fn every_command_in_the_documentation_works() {
    let mut left_out: Vec<(&str, &str, &str)> = NOT_RUN.to_vec();
    let mut run = 0;
    for page in pages() {
        let commands = commands(&text_of(&page));
        if commands.is_empty() {
            continue;
        }
        let prepared = Prepared::new();
        for command in commands {
            let is_left_out = |(of, start, _): &(&str, &str, &str)| *of == page && command.starts_with(start);
            if NOT_RUN.iter().any(is_left_out) {
                left_out.retain(|entry| !is_left_out(entry));
                continue;
            }
            let Run { code, stderr, .. } = prepared.run(&command);
            assert_eq!(code, 0, "{page}: $ {command}\n{stderr}");
            run += 1;
        }
    }
    assert!(run > 40, "only {run} commands were found");
    assert_eq!(left_out, [], "no longer in the documentation");
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
