//! Open containers, found again by path as long as the file there is the same.

use std::fs::Metadata;
use std::num::NonZeroUsize;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bigsmall_codec::{Container, Error, ErrorKind};
use lru::LruCache;

use crate::cache::FileId;

/// How many containers are kept open between uses. Each costs a file descriptor and its index; those in use by open
/// files stay open however many they are.
const KEPT_OPEN: NonZeroUsize = NonZeroUsize::new(256).unwrap();

/// What tells one version of a file from another, without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    device: u64,
    inode: u64,
    len: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Identity {
    /// The identity of the file with this metadata.
    pub fn of(metadata: &Metadata) -> Identity {
        Identity {
            device: metadata.dev(),
            inode: metadata.ino(),
            len: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// An open container and its name in the cache of chunks.
#[derive(Clone, Debug)]
pub struct Opened {
    /// The container.
    pub container: Arc<Container>,
    /// Its name in the cache of chunks, given to no other version of the file.
    pub id: FileId,
}

/// The outcome of opening a file as a container: the container, or why it is none.
type Outcome = Result<Opened, Arc<Error>>;

/// Containers by path.
pub struct Containers {
    kept: Mutex<LruCache<PathBuf, (Identity, Outcome)>>,
    next_id: AtomicU64,
}

impl Containers {
    /// None yet.
    pub fn new() -> Containers {
        Containers { kept: Mutex::new(LruCache::new(KEPT_OPEN)), next_id: AtomicU64::new(0) }
    }

    /// The container at `path`, whose metadata is `metadata`; opened now, or before if the file is still the same.
    ///
    /// # Errors
    /// Those of [`Container::open`], remembered until the file changes, except those that may pass by themselves.
    pub fn open(&self, path: &Path, metadata: &Metadata) -> Outcome {
        let identity = Identity::of(metadata);
        let mut kept = self.lock();
        if let Some((known, outcome)) = kept.get(path)
            && *known == identity
        {
            return outcome.clone();
        }
        drop(kept);
        // Two threads may do this at once; then both do it, and one result stays.
        let outcome = Container::open(path)
            .map(|container| Opened {
                container: Arc::new(container),
                id: FileId(self.next_id.fetch_add(1, Ordering::Relaxed)),
            })
            .map_err(Arc::new);
        if let Err(error) = &outcome {
            log::warn!("{error}");
            if matches!(error.kind(), ErrorKind::Io(_)) {
                return outcome;
            }
        }
        kept = self.lock();
        kept.put(path.to_owned(), (identity, outcome.clone()));
        outcome
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, LruCache<PathBuf, (Identity, Outcome)>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Containers {
    fn default() -> Self {
        Containers::new()
    }
}
