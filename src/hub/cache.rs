//! The cache that all tools of the Hub share: contents by their ids, and snapshots of links to them.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::digest::ContentId;
use super::repo::is_commit;
use super::{Error, RepoId, RepoPath, Result, Source};

/// The part of the cache that belongs to one repo.
#[derive(Clone, Debug)]
pub struct RepoCache {
    root: PathBuf,
}

impl RepoCache {
    /// That of `repo` in the cache at `cache`. Nothing is made yet.
    pub fn new(cache: &Path, repo: &RepoId) -> RepoCache {
        RepoCache { root: cache.join(repo.cache_name()) }
    }

    /// Where the contents with this id lie.
    pub fn blob(&self, id: &ContentId) -> PathBuf {
        self.root.join("blobs").join(id.to_string())
    }

    /// Where the files of a commit lie.
    pub fn snapshot(&self, commit: &str) -> PathBuf {
        self.root.join("snapshots").join(commit)
    }

    /// Puts a link to the contents `id` where the file `path` of `commit` is looked for.
    ///
    /// # Errors
    /// When that is not possible.
    pub fn link(&self, commit: &str, path: &RepoPath, id: &ContentId) -> Result<()> {
        let place = self.snapshot(commit).join(path.as_path());
        let up = "../".repeat(2 + path.as_path().components().count() - 1);
        let target = PathBuf::from(format!("{up}blobs/{id}"));
        if fs::read_link(&place).is_ok_and(|there| there == target) {
            return Ok(());
        }
        let cannot = |e: &io::Error| Error::file(&place, "cannot be linked", e);
        fs::create_dir_all(place.parent().unwrap_or(&self.root)).map_err(|e| cannot(&e))?;
        match symlink(&target, &place) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                fs::remove_file(&place).and_then(|()| symlink(&target, &place)).map_err(|e| cannot(&e))
            }
            other => other.map_err(|e| cannot(&e)),
        }
    }

    /// Notes which commit a branch or tag is.
    ///
    /// # Errors
    /// When that is not possible.
    pub fn set_ref(&self, revision: &str, commit: &str) -> Result<()> {
        if is_commit(revision) {
            return Ok(());
        }
        let path = self.root.join("refs").join(revision);
        let parent = path.parent().unwrap_or(&self.root);
        fs::create_dir_all(parent).map_err(|e| Error::file(parent, "cannot be created", &e))?;
        let temporary = path.with_file_name(format!(".{}.{commit}", std::process::id()));
        let written = fs::write(&temporary, commit).and_then(|()| fs::rename(&temporary, &path));
        written.map_err(|e| Error::file(&path, "cannot be written", &e))
    }

    /// The snapshot that a revision was when it was last asked for, if it is there.
    pub fn known(&self, source: &Source) -> Option<PathBuf> {
        let commit = match source.revision.as_str() {
            revision if is_commit(revision) => revision.to_owned(),
            revision => fs::read_to_string(self.root.join("refs").join(revision)).ok()?,
        };
        let snapshot = self.snapshot(commit.trim());
        (is_commit(commit.trim()) && snapshot.is_dir()).then_some(snapshot)
    }
}
