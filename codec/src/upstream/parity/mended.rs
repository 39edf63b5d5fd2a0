//! A file of the Python package as it was before it was damaged, and where its reader takes that from.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::code::{Code, DATA, PARITY};
use super::{HEADER, PackageParity, read_as_it_is};
use crate::error::Result;
use crate::original::{ChunkIndex, DEFAULT_CHUNK_SIZE, Grid, Original, PlainFile, checked_range};
use crate::parity::sidecar_path;

/// A protected file, each part of which is put right while it is read, as far as the parity goes. There are no checksums: whoever
/// reads has to compare what is read with something.
pub(in crate::upstream) struct PackageMended {
    parity: PackageParity,
    file: PlainFile,
    code: Code,
    grid: Grid,
}

impl PackageMended {
    /// That of the file at `path`.
    ///
    /// # Errors
    /// When there is no sidecar of the Python package beside it, or none that can be used.
    pub(in crate::upstream) fn open(path: &Path) -> Result<PackageMended> {
        let parity = PackageParity::open(&sidecar_path(path))?;
        let file = PlainFile::open(path)?;
        let grid = Grid::uniform(file.len(), DEFAULT_CHUNK_SIZE)?;
        Ok(PackageMended { parity, file, code: Code::new(), grid })
    }
}

impl Original for PackageMended {
    fn grid(&self) -> &Grid {
        &self.grid
    }

    fn decode_chunk(&self, chunk: ChunkIndex, out: &mut [u8]) -> Result<()> {
        self.read_at(self.grid.range(chunk).start, out)
    }

    fn check_unchanged(&self) -> Result<()> {
        self.file.check_unchanged()
    }

    fn stamp(&self) -> Result<Vec<u8>> {
        self.file.stamp()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let range = checked_range(offset, buf.len(), self.len())?;
        let mut data = [0; DATA];
        for number in range.start / DATA as u64..range.end.div_ceil(DATA as u64) {
            let start = number * DATA as u64;
            let there = (self.len() - start).min(DATA as u64) as usize;
            read_as_it_is(&self.file, start, &mut data[..there]);
            // What the last chunk is filled up with.
            data[there..].fill(0);
            if number < self.parity.chunks {
                let mut parity = [0; PARITY];
                read_as_it_is(&self.parity.file, HEADER + number * PARITY as u64, &mut parity);
                self.code.correct(&mut data, &mut parity);
            }
            let (from, to) = (start.max(range.start), (start + there as u64).min(range.end));
            buf[(from - range.start) as usize..(to - range.start) as usize]
                .copy_from_slice(&data[(from - start) as usize..(to - start) as usize]);
        }
        Ok(())
    }
}

/// Told of each tensor that was decoded only thanks to the sidecar.
type OnMended = dyn Fn(&str) + Send + Sync;

/// The sidecar of a file, opened when it is needed.
pub(in crate::upstream) struct Fallback {
    path: PathBuf,
    mended: OnceLock<PackageMended>,
    on_mended: Box<OnMended>,
}

impl Fallback {
    /// That of the file at `path`, which need not have a sidecar.
    pub(in crate::upstream) fn new(path: &Path) -> Fallback {
        Fallback { path: path.to_owned(), mended: OnceLock::new(), on_mended: Box::new(|_| {}) }
    }

    /// Has `tell` told of what is mended.
    pub(in crate::upstream) fn telling(self, tell: Box<OnMended>) -> Fallback {
        Fallback { on_mended: tell, ..self }
    }

    /// Puts `bytes`, which were read at `offset`, right; `false` if that changes nothing or is not possible.
    pub(in crate::upstream) fn mend(&self, offset: u64, bytes: &mut [u8]) -> bool {
        let opened = match self.mended.get() {
            Some(mended) => Ok(mended),
            // A sidecar that is missing now may be there next time.
            None => PackageMended::open(&self.path).map(|mended| self.mended.get_or_init(|| mended)),
        };
        let mut right = vec![0; bytes.len()];
        let mended = opened.and_then(|mended| mended.read_at(offset, &mut right)).is_ok() && right != bytes;
        bytes.copy_from_slice(&right);
        mended
    }

    /// Tells that a tensor was decoded only thanks to this.
    pub(in crate::upstream) fn tell(&self, tensor: &str) {
        (self.on_mended)(tensor);
    }
}
