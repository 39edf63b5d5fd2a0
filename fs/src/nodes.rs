//! Inode numbers: which name each stands for, as long as the kernel knows it.
//!
//! A number is made from the names that lead to it, so that it is the same whenever and however often the source is
//! mounted. That of a virtual file is made from the version of its container too: pages that the kernel keeps belong to
//! a number, and those of two versions must never meet.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::Metadata;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;

use crate::containers::Identity;

/// The number of the root.
pub const ROOT: u64 = 1;

/// A name that the kernel knows.
#[derive(Clone, Debug)]
pub struct Node {
    /// The directory that it lies in.
    pub parent: u64,
    /// Its name there.
    pub name: OsString,
    /// The directory of the source that stands behind it, if it is one.
    pub dir: PathBuf,
    /// The version of the container, of a virtual file.
    pub version: Option<Version>,
    /// The version of a plain file whose pages the kernel may have kept.
    pub cached: Option<Identity>,
    /// How often the kernel has looked it up and not forgotten it.
    lookups: u64,
}

/// What a virtual file was when it was looked up.
#[derive(Clone, Debug)]
pub struct Version {
    /// The version of the container.
    pub identity: Identity,
    /// The metadata of the container.
    pub metadata: Metadata,
    /// Bytes of the original.
    pub len: u64,
}

/// The names that the kernel knows, by number.
#[derive(Debug)]
pub struct Nodes {
    nodes: HashMap<u64, Node>,
}

impl Nodes {
    /// Only the root, behind which `dir` stands.
    pub fn new(dir: PathBuf) -> Nodes {
        let root = Node { parent: ROOT, name: OsString::new(), dir, version: None, cached: None, lookups: 1 };
        Nodes { nodes: HashMap::from([(ROOT, root)]) }
    }

    /// The name behind a number.
    pub fn get(&self, number: u64) -> Option<&Node> {
        self.nodes.get(&number)
    }

    /// The name behind a number, to change what is kept of it.
    pub fn get_mut(&mut self, number: u64) -> Option<&mut Node> {
        self.nodes.get_mut(&number)
    }

    /// The number that `name` in `parent` has, or will have once it is looked up; `version` is that of a virtual file.
    pub fn number(&self, parent: u64, name: &OsStr, version: Option<Identity>) -> u64 {
        let mut hasher = DefaultHasher::new();
        (parent, name, version).hash(&mut hasher);
        let mut number = hasher.finish();
        let another = |node: &Node| {
            (node.parent, &*node.name, node.version.as_ref().map(|v| v.identity)) != (parent, name, version)
        };
        // Two names with one number are next to impossible, but then the later one moves on.
        while number <= ROOT || self.nodes.get(&number).is_some_and(another) {
            number = number.wrapping_add(1);
        }
        number
    }

    /// Counts a lookup of `name` in `parent`, behind which `dir` stands, and gives its number.
    pub fn look_up(&mut self, parent: u64, name: &OsStr, dir: PathBuf, version: Option<Version>) -> u64 {
        let number = self.number(parent, name, version.as_ref().map(|v| v.identity));
        let node = self.nodes.entry(number).or_insert_with(|| Node {
            parent,
            name: name.to_owned(),
            dir: PathBuf::new(),
            version,
            cached: None,
            lookups: 0,
        });
        node.dir = dir;
        node.lookups += 1;
        number
    }

    /// Takes `lookups` back; a name without any is dropped.
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
        let mut nodes = Nodes::new("/source".into());
        let a = nodes.look_up(ROOT, OsStr::new("a"), "/source/a".into(), None);
        assert_eq!(nodes.number(ROOT, OsStr::new("a"), None), a);
        assert_eq!(nodes.look_up(ROOT, OsStr::new("a"), "/source/a".into(), None), a);
        assert_ne!(nodes.look_up(a, OsStr::new("a"), "/source/a/a".into(), None), a);
        nodes.forget(a, 1);
        assert!(nodes.get(a).is_some());
        nodes.forget(a, 1);
        assert!(nodes.get(a).is_none());
        nodes.forget(ROOT, 100);
        assert!(nodes.get(ROOT).is_some());
        assert_eq!(Nodes::new("/elsewhere".into()).number(ROOT, OsStr::new("a"), None), a);
    }
}
