//! Repairing a container from another copy of it.

use super::frame::PREAMBLE_LEN;
use super::reader::Container;
use crate::error::{Error, Result};
use crate::original::Original;
use crate::output::NewFile;

/// Bytes that are copied at a time.
const PIECE: u64 = 4 << 20;

/// What [`graft`] took from the other copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Grafted {
    /// Stored chunks.
    pub chunks: u64,
    /// Their bytes, and those of the index if it had to be taken.
    pub bytes: u64,
    /// Whether the index, and all else that is not a chunk, was taken.
    pub index: bool,
}

/// Replaces what is damaged in the container that `out` holds by what is sound in `other`, a copy of it that may be damaged
/// in other places.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`](crate::ErrorKind::InvalidArgument) when `other` is not a copy of it; those of reading and writing.
pub fn graft(out: &NewFile, other: &Container) -> Result<Grafted> {
    let stranger = || Error::invalid("is another container, not a copy of this one");
    let mut grafted = Grafted::default();
    let known = match Container::from_store(Box::new(out.contents()?)) {
        Ok(damaged) => {
            let same = damaged.sha256() == other.sha256()
                && damaged.stored_len() == other.stored_len()
                && damaged.index().chunks == other.index().chunks;
            if !same {
                return Err(stranger());
            }
            true
        }
        Err(error) if error.io_error().is_some() => return Err(error),
        Err(_) => false,
    };
    let store = out.contents()?;
    let (mut sound, mut bytes) = (0, Vec::new());
    for chunk in &other.index().chunks {
        bytes.resize(chunk.len as usize, 0);
        if store.read_at(chunk.offset, &mut bytes).is_ok() && chunk.is(&bytes) {
            sound += 1;
            continue;
        }
        if other.store().read_at(chunk.offset, &mut bytes).is_ok() && chunk.is(&bytes) {
            out.write_at(chunk.offset, &bytes)?;
            grafted.chunks += 1;
            grafted.bytes += bytes.len() as u64;
        }
    }
    if known {
        return Ok(grafted);
    }
    if sound == 0 && !other.index().chunks.is_empty() {
        return Err(stranger());
    }
    let chunks_end = other.index().chunks.last().map_or(PREAMBLE_LEN, |chunk| chunk.offset + u64::from(chunk.len));
    for range in [0..PREAMBLE_LEN, chunks_end..other.stored_len()] {
        for start in range.clone().step_by(PIECE as usize) {
            bytes.resize((range.end - start).min(PIECE) as usize, 0);
            other.store().read_at(start, &mut bytes)?;
            out.write_at(start, &bytes)?;
            grafted.bytes += bytes.len() as u64;
        }
    }
    out.file().set_len(other.stored_len()).map_err(|e| Error::io("cannot set the length", e).in_file(out.target()))?;
    grafted.index = true;
    Ok(grafted)
}
