//! Writing an original to a file.

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::Progress;
use crate::error::Result;
use crate::original::{ChunkIndex, Original};
use crate::output::NewFile;
use crate::stream::{Window, Windows, cancelled, groups};

/// Bytes of the original that a thread decodes and writes at a time (or one chunk, if that is longer).
const PIECE: u64 = 1 << 20;

/// Bytes that a thread writes at a time while another hashes them.
const WRITE: usize = 2 << 20;

/// Writes `original` to `out`, on the threads of the current rayon pool, each of which holds a megabyte (or a chunk).
///
/// # Errors
/// The first chunk's that cannot be decoded, as [`Original::decode_chunk`]; those of `out`;
/// [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled).
pub fn decompress(original: &dyn Original, out: &NewFile, progress: &dyn Progress) -> Result<()> {
    out.reserve(original.len())?;
    groups(original, 0..original.grid().chunks(), PIECE).par_bridge().try_for_each_init(
        Vec::new,
        |buffer: &mut Vec<u8>, group| {
            let range_of = |number| original.grid().range(ChunkIndex(number));
            let start = range_of(group.start).start;
            buffer.resize((range_of(group.end - 1).end - start) as usize, 0);
            for number in group {
                if progress.cancelled() {
                    return Err(cancelled());
                }
                let range = range_of(number);
                let part = &mut buffer[(range.start - start) as usize..(range.end - start) as usize];
                original.decode_chunk(ChunkIndex(number), part)?;
                progress.advance(range.end - range.start);
            }
            out.write_at(start, buffer)
        },
    )
}

/// As [`decompress`], and returns the SHA-256 of what was written.
///
/// # Errors
/// As [`decompress`].
pub fn decompress_and_hash(original: &dyn Original, out: &NewFile, progress: &dyn Progress) -> Result<[u8; 32]> {
    write_and_hash(original.len(), &original, out, progress)
}

/// Writes the `len` bytes that come of `decoded` to `out`.
///
/// # Errors
/// As [`decompress`].
#[cfg(feature = "cuda")]
pub(crate) fn write_windows(len: u64, decoded: &dyn Windows, out: &NewFile, progress: &dyn Progress) -> Result<()> {
    out.reserve(len)?;
    decoded.windows(progress, &mut |window| write(window, out))
}

/// The same, and returns the SHA-256 of what was written.
///
/// # Errors
/// As [`decompress`].
pub(crate) fn write_and_hash(
    len: u64,
    decoded: &dyn Windows,
    out: &NewFile,
    progress: &dyn Progress,
) -> Result<[u8; 32]> {
    out.reserve(len)?;
    let mut sha256 = Sha256::new();
    decoded.windows(progress, &mut |window| {
        let bytes = window.bytes;
        let (written, ()) = rayon::join(|| write(window, out), || sha256.update(bytes));
        written
    })?;
    Ok(sha256.finalize().into())
}

/// Writes a window, on all threads.
fn write(mut window: Window<'_>, out: &NewFile) -> Result<()> {
    if let Some(lost) = window.lost.drain(..).next() {
        return Err(lost.error);
    }
    let start = window.range.start;
    let write = |(number, part): (usize, &[u8])| out.write_at(start + (number * WRITE) as u64, part);
    window.bytes.par_chunks(WRITE).enumerate().try_for_each(write)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::output::Existing;
    use crate::stream::tests::{Limit, Pattern};
    use std::path::Path;

    const SEGMENTS: [(u64, u32); 4] = [(77, 10), (40 << 20, 256 << 10), (5000, 1), (3, 8 << 20)];

    fn new_file(directory: &Path) -> NewFile {
        NewFile::create(&directory.join("out"), Existing::Refuse).unwrap()
    }

    #[test]
    fn every_byte_lands_in_its_place() {
        let directory = tempfile::tempdir().unwrap();
        let original = Pattern::new(&SEGMENTS, &[]);
        let expected = Pattern::bytes(0..original.len());
        let (plain, hashed) = (new_file(directory.path()), new_file(directory.path()));
        let progress = Limit::new(u64::MAX);
        decompress(&original, &plain, &progress).unwrap();
        assert_eq!(progress.done.into_inner(), original.len());
        let sha256 = decompress_and_hash(&original, &hashed, &()).unwrap();
        assert_eq!(sha256, <[u8; 32]>::from(Sha256::digest(&expected)));
        for file in [plain, hashed] {
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut file.file(), &mut bytes).unwrap();
            assert!(bytes == expected);
        }
    }

    #[test]
    fn an_empty_original_gives_an_empty_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = new_file(directory.path());
        decompress(&Pattern::new(&[], &[]), &file, &()).unwrap();
        assert_eq!(file.file().metadata().unwrap().len(), 0);
    }

    #[test]
    fn a_lost_chunk_and_a_cancellation_end_it() {
        let directory = tempfile::tempdir().unwrap();
        let broken = Pattern::new(&SEGMENTS, &[60]);
        let whole = Pattern::new(&SEGMENTS, &[]);
        let file = new_file(directory.path());
        assert_eq!(decompress(&broken, &file, &()).unwrap_err().kind(), ErrorKind::Corrupt);
        assert_eq!(decompress_and_hash(&broken, &file, &()).unwrap_err().kind(), ErrorKind::Corrupt);
        assert_eq!(decompress(&whole, &file, &Limit::new(1 << 20)).unwrap_err().kind(), ErrorKind::Cancelled);
        assert_eq!(decompress_and_hash(&whole, &file, &Limit::new(1)).unwrap_err().kind(), ErrorKind::Cancelled);
    }
}
