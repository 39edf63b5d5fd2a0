//! Where a container takes its bytes from when those in the file are damaged.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::Result;
use crate::original::{Original, PlainFile};
use crate::parity::{Mended, Sidecar, sidecar_path};

/// The sidecar of a container, opened when it is needed: opening a container stays as fast as without one.
pub(super) struct Fallback {
    path: PathBuf,
    mended: OnceLock<Option<Mended>>,
    chunks: AtomicU64,
}

impl Fallback {
    /// That of the container at `path`, which need not have a sidecar.
    pub(super) fn new(path: &Path) -> Fallback {
        Fallback { path: path.to_owned(), mended: OnceLock::new(), chunks: AtomicU64::new(0) }
    }

    /// The container as it was, as far as its sidecar knows.
    ///
    /// # Errors
    /// When there is no sidecar, or none that can be used.
    pub(super) fn open(path: &Path) -> Result<Mended> {
        let sidecar = Sidecar::open(&sidecar_path(path))?;
        Mended::new(sidecar, vec![Box::new(PlainFile::open(path)?)])
    }

    /// Fills `bytes` with those that were at `offset`, if they can be had. The caller has a checksum to compare them with.
    pub(super) fn read(&self, offset: u64, bytes: &mut [u8]) -> bool {
        let mended = self.mended.get_or_init(|| Fallback::open(&self.path).ok());
        mended.as_ref().is_some_and(|mended| mended.read_at(offset, bytes).is_ok())
    }

    /// Notes that a chunk was decoded only thanks to this.
    pub(super) fn count(&self) {
        self.chunks.fetch_add(1, Ordering::Relaxed);
    }

    /// How often that was.
    pub(super) fn counted(&self) -> u64 {
        self.chunks.load(Ordering::Relaxed)
    }
}
