//! Random trees and random operations on a real mount, compared with a model of what it should show.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use memmap2::Mmap;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::mounted::*;
use crate::support::*;

/// Longer than the kernel may believe what it was told.
const SETTLED: Duration = Duration::from_millis(1050);

/// Names of files, few so that operations meet. Those of plain files and of containers never collide: what a collision
/// shows is under test elsewhere.
const NAMES: u8 = 4;

#[derive(Clone, Debug)]
enum Operation {
    /// Something appears in a directory, replacing what has its name.
    Put(u8, u8, Content),
    /// Something vanishes.
    Remove(u8, u8),
    /// All of a directory vanishes.
    RemoveDirectory(u8),
    /// A file is opened and stays open.
    Open(u8, u8),
    /// A part of something that is open is read.
    Read(u8, u32, u16),
    /// Something that is open is mapped, and a part of it touched.
    Map(u8, u32, u16),
    /// All that is shown is compared.
    Compare,
}

#[derive(Clone, Debug)]
enum Content {
    /// A container of so many bytes made from a seed, in chunks of so many times 64 bytes.
    Container {
        seed: u8,
        len: u32,
        chunk: u8,
    },
    Plain {
        seed: u8,
        len: u16,
    },
    Link {
        to: u8,
    },
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let content = prop_oneof![
        3 => (any::<u8>(), 0..300_000u32, 1..=255u8).prop_map(|(seed, len, chunk)| Content::Container { seed, len, chunk }),
        1 => (any::<u8>(), any::<u16>()).prop_map(|(seed, len)| Content::Plain { seed, len }),
        1 => (0..NAMES).prop_map(|to| Content::Link { to }),
    ];
    let place = || (0..3u8, 0..NAMES);
    vec(
        prop_oneof![
            6 => (place(), content).prop_map(|((dir, name), content)| Operation::Put(dir, name, content)),
            2 => place().prop_map(|(dir, name)| Operation::Remove(dir, name)),
            1 => (1..3u8).prop_map(Operation::RemoveDirectory),
            4 => place().prop_map(|(dir, name)| Operation::Open(dir, name)),
            8 => (any::<u8>(), any::<u32>(), any::<u16>()).prop_map(|(n, at, len)| Operation::Read(n, at, len)),
            3 => (any::<u8>(), any::<u32>(), any::<u16>()).prop_map(|(n, at, len)| Operation::Map(n, at, len)),
            1 => Just(Operation::Compare),
        ],
        1..40,
    )
}

/// What is shown under a name.
#[derive(Clone, Debug, PartialEq)]
enum Shown {
    File(Vec<u8>),
    Link(PathBuf),
}

struct Reference {
    mounted: Mounted,
    /// What the mount should show, by path in it.
    shown: BTreeMap<PathBuf, Shown>,
    open: Vec<(File, Vec<u8>)>,
    made: u64,
}

/// `.`, `one` and `one/two`.
fn directory(number: u8) -> &'static Path {
    Path::new(["", "one", "one/two"][usize::from(number)])
}

/// The name in the source and the name in the mount of a thing of a kind.
fn names(number: u8, content: &Content) -> (String, String) {
    match content {
        Content::Container { .. } => (format!("c{number}.bs"), format!("c{number}.dat")),
        Content::Plain { .. } => (format!("p{number}"), format!("p{number}")),
        Content::Link { .. } => (format!("l{number}"), format!("l{number}")),
    }
}

fn bytes(seed: u8, len: usize) -> Vec<u8> {
    let mut state = u64::from(seed) + 1;
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // Few values, so that containers have something to compress.
        ((state >> 60) * u64::from(seed)) as u8
    };
    (0..len).map(next).collect()
}

impl Reference {
    fn new() -> Reference {
        let scratch = Scratch::new();
        fs::create_dir(scratch.path("source")).unwrap();
        let mounted = Mounted::with_options(scratch, "source", "--cache-size 64KiB");
        Reference { mounted, shown: BTreeMap::new(), open: Vec::new(), made: 0 }
    }

    fn source(&self, path: impl AsRef<Path>) -> PathBuf {
        self.mounted.scratch.path("source").join(path)
    }

    fn apply(&mut self, operation: &Operation) {
        match operation {
            Operation::Put(dir, number, content) => self.put(directory(*dir), *number, content),
            Operation::Remove(dir, number) => {
                for content in [
                    Content::Container { seed: 0, len: 0, chunk: 1 },
                    Content::Plain { seed: 0, len: 0 },
                    Content::Link { to: 0 },
                ] {
                    let (stored, shown) = names(*number, &content);
                    let _ = fs::remove_file(self.source(directory(*dir).join(stored)));
                    self.shown.remove(&directory(*dir).join(shown));
                }
            }
            Operation::RemoveDirectory(dir) => {
                let _ = fs::remove_dir_all(self.source(directory(*dir)));
                self.shown.retain(|path, _| !path.starts_with(directory(*dir)));
            }
            Operation::Open(dir, number) => {
                thread::sleep(SETTLED);
                for shown in [format!("c{number}.dat"), format!("p{number}")] {
                    let path = directory(*dir).join(shown);
                    let file = File::open(self.mounted.path(&path));
                    match self.shown.get(&path) {
                        Some(Shown::File(contents)) => {
                            let file = file.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
                            self.open.push((file, contents.clone()));
                        }
                        _ => assert_eq!(file.unwrap_err().raw_os_error(), Some(2), "{}", path.display()),
                    }
                }
            }
            Operation::Read(number, at, len) => {
                if let Some((file, contents, range)) = self.part(*number, *at, *len) {
                    let mut read = vec![0; range.len() + 10];
                    let len = file.read_at(&mut read, range.start as u64).unwrap();
                    assert!(read[..len] == contents[range.start..][..len], "{range:?} of {}", contents.len());
                    assert!(len >= range.len(), "{len} bytes of {range:?}");
                }
            }
            Operation::Map(number, at, len) => {
                if let Some((file, contents, range)) = self.part(*number, *at, *len)
                    && !range.is_empty()
                {
                    // SAFETY: the mount is read-only and its files are replaced, never changed.
                    let map = unsafe { Mmap::map(file).unwrap() };
                    assert!(map[range.clone()] == contents[range.clone()], "{range:?} of {}", contents.len());
                }
            }
            Operation::Compare => self.compare(),
        }
    }

    fn part(&self, number: u8, at: u32, len: u16) -> Option<(&File, &[u8], std::ops::Range<usize>)> {
        let (file, contents) = self.open.get(usize::from(number) % self.open.len().max(1))?;
        let start = at as usize % (contents.len() + 1);
        Some((file, contents, start..contents.len().min(start + usize::from(len))))
    }

    fn put(&mut self, dir: &Path, number: u8, content: &Content) {
        fs::create_dir_all(self.source(dir)).unwrap();
        let (stored, shown) = names(number, content);
        let target = self.source(dir.join(stored));
        // Made elsewhere and renamed, as a container should be replaced.
        self.made += 1;
        let made = self.mounted.scratch.path(format!("made-{}", self.made));
        let becomes = match content {
            Content::Container { seed, len, chunk } => {
                let contents = bytes(*seed, *len as usize);
                fs::write(made.with_extension("dat"), &contents).unwrap();
                let (name, chunk) = (format!("made-{}", self.made), u32::from(*chunk) * 64);
                self.mounted.scratch.ok(&format!("compress {name}.dat -o {name} --chunk-size {chunk} --threads 1 -q"));
                Shown::File(contents)
            }
            Content::Plain { seed, len } => {
                let contents = bytes(*seed, usize::from(*len));
                fs::write(&made, &contents).unwrap();
                Shown::File(contents)
            }
            Content::Link { to } => {
                let target = PathBuf::from(format!("c{to}.dat"));
                symlink(&target, &made).unwrap();
                Shown::Link(target)
            }
        };
        fs::rename(made, target).unwrap();
        self.shown.insert(dir.join(shown), becomes);
    }

    /// Compares all that the mount shows, and all that is open.
    fn compare(&self) {
        thread::sleep(SETTLED);
        let mut found = BTreeMap::new();
        collect(&self.mounted.path(""), Path::new(""), &mut found);
        let names = |tree: &BTreeMap<PathBuf, Shown>| tree.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&found), names(&self.shown));
        for (path, shown) in &self.shown {
            assert!(found[path] == *shown, "{}", path.display());
        }
        for (file, contents) in &self.open {
            let mut read = vec![0; contents.len()];
            file.read_exact_at(&mut read, 0).unwrap();
            assert!(read == *contents, "what is open keeps its contents");
            assert_eq!(file.metadata().unwrap().len(), contents.len() as u64);
        }
    }
}

/// All files and links below a directory, found as a crawler finds them.
fn collect(directory: &Path, path: &Path, found: &mut BTreeMap<PathBuf, Shown>) {
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let (at, path) = (entry.path(), path.join(entry.file_name()));
        let metadata = fs::symlink_metadata(&at).unwrap();
        use std::os::unix::fs::DirEntryExt;
        assert_eq!(entry.ino(), metadata.ino(), "{}: listed under another number", path.display());
        if metadata.is_dir() {
            collect(&at, &path, found);
        } else if metadata.is_symlink() {
            found.insert(path, Shown::Link(fs::read_link(&at).unwrap()));
        } else {
            let contents = fs::read(&at).unwrap();
            assert_eq!(metadata.len(), contents.len() as u64);
            found.insert(path, Shown::File(contents));
        }
    }
}

#[test]
fn random_operations_show_what_the_model_says() {
    // Each case waits for the kernel to look again, some seconds in all; scripts/stress.sh runs more of them.
    let cases = std::env::var("BIGSMALL_RANDOM_CASES").map_or(6, |cases| cases.parse().expect("a number"));
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 40, ..Config::default() };
    TestRunner::new(config)
        .run(&operations(), |operations| {
            let mut reference = Reference::new();
            for operation in &operations {
                reference.apply(operation);
            }
            reference.compare();
            Ok(())
        })
        .unwrap_or_else(|failure| panic!("{failure}"));
}
