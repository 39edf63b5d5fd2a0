//! Inode numbers: what each stands for, as long as the kernel knows it.
//!
//! Numbers are the same whenever and however often the source is mounted. That of a file is made from the file of the
//! source, so that hard links are one file here too, and that of a virtual file from the version of its container
//! besides: pages that the kernel keeps belong to a number, and those of two files or versions must never meet. That of
//! a directory is made from the names that lead to it.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::Metadata;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Instant;

use crate::containers::Identity;

/// The number of the root.
pub const ROOT: u64 = 1;

/// What a number is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Behind {
    /// The place in the tree: of directories, and other things without contents.
    Place,
    /// A regular file, by device and inode of the source.
    Plain(u64, u64),
    /// A version of a container or of a link: the kernel keeps where a link leads for as long as its number lives.
    Version(Identity),
}

impl Behind {
    /// What a thing of the source with this metadata, which is shown as it is, is numbered by.
    pub fn plain(metadata: &Metadata) -> Behind {
        match metadata.file_type() {
            kind if kind.is_file() => Behind::Plain(metadata.dev(), metadata.ino()),
            kind if kind.is_symlink() => Behind::Version(Identity::of(metadata)),
            _ => Behind::Place,
        }
    }
}

/// Something that the kernel knows.
#[derive(Clone, Debug)]
pub struct Node {
    /// The directory in which it was looked up last.
    pub parent: u64,
    /// Its name there.
    pub name: OsString,
    /// The directory of the source that stands behind it, if it is one.
    pub dir: PathBuf,
    /// What its number is made from.
    pub behind: Behind,
    /// What a virtual file was when it was looked up.
    pub version: Option<Version>,
    /// The version of a plain file whose pages the kernel may have kept.
    pub cached: Option<Identity>,
    /// The version of a directory that was listed last, and when.
    pub listed: Option<(Identity, Instant)>,
    /// How often the kernel has looked it up and not forgotten it.
    lookups: u64,
}

/// What a virtual file was when it was looked up.
#[derive(Clone, Debug)]
pub struct Version {
    /// The metadata of the container.
    pub metadata: Metadata,
    /// Bytes of the original.
    pub len: u64,
}

/// What the kernel knows, by number.
#[derive(Debug)]
pub struct Nodes {
    nodes: HashMap<u64, Node>,
}

impl Nodes {
    /// Only the root, behind which `dir` stands.
    pub fn new(dir: PathBuf) -> Nodes {
        let root = Node {
            parent: ROOT,
            name: OsString::new(),
            dir,
            behind: Behind::Place,
            version: None,
            cached: None,
            listed: None,
            lookups: 1,
        };
        Nodes { nodes: HashMap::from([(ROOT, root)]) }
    }

    /// What stands behind a number.
    pub fn get(&self, number: u64) -> Option<&Node> {
        self.nodes.get(&number)
    }

    /// What stands behind a number, to change what is kept of it.
    pub fn get_mut(&mut self, number: u64) -> Option<&mut Node> {
        self.nodes.get_mut(&number)
    }

    /// The number that `name` in `parent` has, or will have once it is looked up.
    pub fn number(&self, parent: u64, name: &OsStr, behind: Behind) -> u64 {
        let mut hasher = DefaultHasher::new();
        behind.hash(&mut hasher);
        if behind == Behind::Place {
            (parent, name).hash(&mut hasher);
        }
        let mut number = hasher.finish();
        let another = |node: &Node| {
            node.behind != behind || behind == Behind::Place && (node.parent, &*node.name) != (parent, name)
        };
        // Two things with one number are next to impossible, but then the later one moves on.
        while number <= ROOT || self.nodes.get(&number).is_some_and(another) {
            number = number.wrapping_add(1);
        }
        number
    }

    /// Counts a lookup of `name` in `parent`, behind which `dir` stands, and gives its number.
    pub fn look_up(
        &mut self,
        parent: u64,
        name: &OsStr,
        dir: PathBuf,
        behind: Behind,
        version: Option<Version>,
    ) -> u64 {
        let number = self.number(parent, name, behind);
        let node = self.nodes.entry(number).or_insert_with(|| Node {
            parent,
            name: OsString::new(),
            dir: PathBuf::new(),
            behind,
            version,
            cached: None,
            listed: None,
            lookups: 0,
        });
        // Of several names, the one that was there last is the likeliest to be there still.
        (node.parent, node.name, node.dir) = (parent, name.to_owned(), dir);
        node.lookups += 1;
        number
    }

    /// Takes `lookups` back; what has none left is dropped.
    pub fn forget(&mut self, number: u64, lookups: u64) {
        if let Some(node) = self.nodes.get_mut(&number).filter(|_| number != ROOT) {
            node.lookups = node.lookups.saturating_sub(lookups);
            if node.lookups == 0 {
                self.nodes.remove(&number);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_stable_and_forgotten() {
        let (a, place) = (OsStr::new("a"), Behind::Place);
        let mut nodes = Nodes::new("/source".into());
        let number = nodes.look_up(ROOT, a, "/source/a".into(), place, None);
        assert_eq!(nodes.number(ROOT, a, place), number);
        assert_eq!(nodes.look_up(ROOT, a, "/source/a".into(), place, None), number);
        assert_ne!(nodes.look_up(number, a, "/source/a/a".into(), place, None), number);
        nodes.forget(number, 1);
        assert!(nodes.get(number).is_some());
        nodes.forget(number, 1);
        assert!(nodes.get(number).is_none());
        nodes.forget(ROOT, 100);
        assert!(nodes.get(ROOT).is_some());
        assert_eq!(Nodes::new("/elsewhere".into()).number(ROOT, a, place), number);
    }

    #[test]
    fn two_names_of_a_file_have_one_number() {
        let mut nodes = Nodes::new("/source".into());
        let file = Behind::Plain(7, 8);
        let number = nodes.look_up(ROOT, OsStr::new("a"), "/source/a".into(), file, None);
        assert_eq!(nodes.look_up(ROOT, OsStr::new("b"), "/source/b".into(), file, None), number);
        assert_eq!(nodes.get(number).unwrap().name, "b");
        assert_ne!(nodes.number(ROOT, OsStr::new("a"), Behind::Plain(7, 9)), number);
        nodes.forget(number, 1);
        assert!(nodes.get(number).is_some(), "the other name is still known");
    }
}
