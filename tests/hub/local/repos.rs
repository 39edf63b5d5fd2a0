//! What the Hub holds: repos, their commits, and large files by their hash.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use sha1::Sha1;
use sha2::{Digest, Sha256};

use super::LocalHub;

#[derive(Default)]
pub struct State {
    pub repos: BTreeMap<String, Repo>,
    /// Large files, by SHA-256. They are here before any commit names them.
    pub objects: HashMap<String, Arc<Vec<u8>>>,
    /// Parts of large files that are not complete.
    pub parts: HashMap<(String, usize), Vec<u8>>,
    /// Large files are to come in parts of so many bytes.
    pub part_size: Option<usize>,
    /// Whether large files are taken by Xet alone.
    pub xet_alone: bool,
    /// Who showed a token to the server of large files.
    pub leaks: Vec<String>,
    commits: u64,
}

#[derive(Clone, Default)]
pub struct Repo {
    pub private: bool,
    pub gated: bool,
    /// The commit of each branch.
    pub branches: BTreeMap<String, String>,
    pub commits: BTreeMap<String, Tree>,
}

pub type Tree = BTreeMap<String, Entry>;

/// A file in a commit.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub content: Arc<Vec<u8>>,
    /// Its SHA-256 if it is a large one.
    pub lfs: Option<String>,
}

impl Entry {
    /// The id of the Git blob: for a large file that of its pointer.
    pub fn oid(&self) -> String {
        match &self.lfs {
            Some(oid) => {
                let size = self.content.len();
                let pointer = format!("version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {size}\n");
                git_blob(pointer.as_bytes())
            }
            None => git_blob(&self.content),
        }
    }
}

/// The id that Git gives to a file of these contents.
pub fn git_blob(contents: &[u8]) -> String {
    let mut sha1 = Sha1::new_with_prefix(format!("blob {}\0", contents.len()));
    sha1.update(contents);
    hex(&sha1.finalize())
}

pub fn sha256(contents: &[u8]) -> String {
    hex(&Sha256::digest(contents))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl State {
    /// Makes a commit of `tree` on a branch.
    pub fn commit(&mut self, repo: &str, branch: &str, tree: Tree) -> String {
        self.commits += 1;
        let commit = git_blob(format!("{repo} {} {}", self.commits, tree.len()).as_bytes());
        let repo = self.repos.get_mut(repo).unwrap();
        repo.branches.insert(branch.to_owned(), commit.clone());
        repo.commits.insert(commit.clone(), tree);
        commit
    }
}

impl Repo {
    /// The commit that a revision is.
    pub fn resolve(&self, revision: &str) -> Option<String> {
        let branch = self.branches.get(revision).cloned();
        branch.or_else(|| self.commits.contains_key(revision).then(|| revision.to_owned()))
    }
}

/// What tests do to it behind the back of its API.
impl LocalHub {
    /// Makes a repo with these files; those that end in .safetensors, .gguf or .bs are large ones. Gives the commit.
    pub fn publish(&self, repo: &str, files: &[(&str, &[u8])]) -> String {
        let mut state = self.shared.state.lock().unwrap();
        state.repos.entry(repo.to_owned()).or_default();
        let mut tree = Tree::new();
        for (path, contents) in files {
            let content = Arc::new(contents.to_vec());
            let is_large = [".safetensors", ".gguf", ".bs"].iter().any(|end| path.ends_with(end));
            let lfs = is_large.then(|| sha256(contents));
            if let Some(oid) = &lfs {
                state.objects.insert(oid.clone(), Arc::clone(&content));
            }
            tree.insert((*path).to_owned(), Entry { content, lfs });
        }
        state.commit(repo, "main", tree)
    }

    /// Forgets the large files that some commit has under a path that ends so.
    pub fn forget_objects(&self, end: &str) {
        let mut state = self.shared.state.lock().unwrap();
        let trees = state.repos.values().flat_map(|repo| repo.commits.values()).flatten();
        let forgotten: Vec<String> =
            trees.filter(|(path, _)| path.ends_with(end)).filter_map(|(_, entry)| entry.lfs.clone()).collect();
        forgotten.iter().for_each(|oid| drop(state.objects.remove(oid)));
    }

    /// Changes a repo that there is.
    pub fn change(&self, repo: &str, change: impl FnOnce(&mut Repo)) {
        change(self.shared.state.lock().unwrap().repos.get_mut(repo).unwrap());
    }

    /// The files of a branch, if there is one.
    pub fn tree(&self, repo: &str, branch: &str) -> Option<Tree> {
        let state = self.shared.state.lock().unwrap();
        let repo = state.repos.get(repo)?;
        Some(repo.commits[repo.branches.get(branch)?].clone())
    }

    /// How many commits a repo has had.
    pub fn commits(&self, repo: &str) -> usize {
        self.shared.state.lock().unwrap().repos[repo].commits.len()
    }

    /// Whether a repo is private.
    pub fn is_private(&self, repo: &str) -> bool {
        self.shared.state.lock().unwrap().repos[repo].private
    }

    /// Takes large files by Xet alone.
    pub fn set_xet_alone(&self) {
        self.shared.state.lock().unwrap().xet_alone = true;
    }

    /// Wants large files in parts of so many bytes.
    pub fn set_part_size(&self, size: usize) {
        self.shared.state.lock().unwrap().part_size = Some(size);
    }

    /// Who has shown a token where none belongs.
    pub fn leaks(&self) -> Vec<String> {
        self.shared.state.lock().unwrap().leaks.clone()
    }
}
