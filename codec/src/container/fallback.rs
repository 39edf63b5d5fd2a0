//! Where a container takes its bytes from when those in the file are damaged.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::error::Result;
use crate::original::{ChunkIndex, Original, PlainFile};
use crate::parity::{Mended, Sidecar, sidecar_path};

/// Told of each chunk that was decoded only thanks to the sidecar.
pub(super) type OnMended = dyn Fn(ChunkIndex) + Send + Sync;

/// The sidecar of a container, opened when it is needed: opening a container stays as fast as without one.
pub(super) struct Fallback {
    path: PathBuf,
    mended: OnceLock<Mended>,
    on_mended: Box<OnMended>,
}

impl Fallback {
    /// That of the container at `path`, which need not have a sidecar.
    pub(super) fn new(path: &Path) -> Fallback {
        Fallback { path: path.to_owned(), mended: OnceLock::new(), on_mended: Box::new(|_| {}) }
    }

    /// The same, which tells of what it mends.
    pub(super) fn telling(self, on_mended: Box<OnMended>) -> Fallback {
        Fallback { on_mended, ..self }
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
        let opened = match self.mended.get() {
            Some(mended) => Ok(mended),
            // A sidecar that is missing now may be there next time.
            None => Fallback::open(&self.path).map(|mended| self.mended.get_or_init(|| mended)),
        };
        opened.and_then(|mended| mended.read_at(offset, bytes)).is_ok()
    }

    /// Tells that `chunk` was decoded only thanks to this.
    pub(super) fn tell(&self, chunk: ChunkIndex) {
        (self.on_mended)(chunk);
    }
}
