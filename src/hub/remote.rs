//! A file of a repo as an original: what is read of it is fetched, and nothing else.

use std::io;
use std::sync::{Arc, Mutex};

use bigsmall_codec::original::DEFAULT_CHUNK_SIZE;
use bigsmall_codec::{ChunkIndex, Container, Error, Grid, Original, Result};
use ureq::http::StatusCode;
use ureq::http::header::RANGE;

use super::api::{File, Revision};
use super::client::{Call, read};
use super::{ErrorKind, Hub};
use bigsmall_codec::upstream::{UpstreamFile, is_upstream};

/// Bytes that are fetched at least: a container's index mostly fits, and so does a header of the Python package.
const WINDOW: u64 = 64 << 10;

/// A file of a repo.
struct RemoteFile {
    hub: Arc<Hub>,
    revision: Revision,
    file: File,
    grid: Grid,
    /// What was fetched last, and where it begins.
    window: Mutex<(u64, Vec<u8>)>,
}

/// What a file of a repo, which is named as containers are, holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    pub original_len: u64,
    pub stored_len: u64,
}

/// Asks for the index of a container in a repo, and no more.
///
/// # Errors
/// When it is no container, or cannot be read.
pub fn look_into(hub: &Arc<Hub>, revision: &Revision, file: &File) -> super::Result<Held> {
    let open = || -> Result<u64> {
        let remote = || -> Result<Box<RemoteFile>> {
            Ok(Box::new(RemoteFile {
                hub: Arc::clone(hub),
                revision: revision.clone(),
                file: file.clone(),
                grid: Grid::uniform(file.size, DEFAULT_CHUNK_SIZE)?,
                window: Mutex::default(),
            }))
        };
        let store = remote()?;
        let mut start = vec![0; file.size.min(16) as usize];
        store.read_at(0, &mut start)?;
        match is_upstream(&start) {
            true => Ok(UpstreamFile::from_store(store, &[], &Arc::default())?.len()),
            false => Ok(Container::from_store(store)?.len()),
        }
    };
    let original_len =
        open().map_err(|e| super::Error::new(ErrorKind::Other, format!("{}, {}: {e}", revision.repo, file.path)))?;
    Ok(Held { original_len, stored_len: file.size })
}

impl RemoteFile {
    fn fetch(&self, start: u64, len: u64) -> super::Result<Vec<u8>> {
        let subject = format!("{}, {}", self.revision.repo, self.file.path);
        let mut call = Call::get(self.hub.file_url(&self.revision, &self.file.path), &subject);
        call.headers.push((RANGE.as_str(), format!("bytes={start}-{}", start + len - 1)));
        let response = self.hub.send(&call)?;
        let whole = response.status() != StatusCode::PARTIAL_CONTENT;
        let bytes = read(response, &subject)?;
        // Who knows no ranges sends everything.
        let bytes = if whole { bytes.get(start as usize..).unwrap_or(&[]).to_vec() } else { bytes };
        match bytes.get(..len as usize) {
            Some(part) => Ok(part.to_vec()),
            None => Err(super::Error::new(ErrorKind::Corrupt, format!("{subject}: less came than was asked for"))),
        }
    }
}

impl Original for RemoteFile {
    fn grid(&self) -> &Grid {
        &self.grid
    }

    fn decode_chunk(&self, chunk: ChunkIndex, out: &mut [u8]) -> Result<()> {
        self.read_at(self.grid.range(chunk).start, out)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let (len, total) = (buf.len() as u64, self.file.size);
        if offset.checked_add(len).is_none_or(|end| end > total) {
            return Err(Error::invalid(format!("a read of {len} bytes at {offset} reaches beyond the end at {total}")));
        }
        if len == 0 {
            return Ok(());
        }
        let mut window = self.window.lock().expect("no thread panics with it");
        let inside = |(start, bytes): &(u64, Vec<u8>)| *start <= offset && offset + len <= *start + bytes.len() as u64;
        if !inside(&window) {
            let fetched = self.fetch(offset, len.max(WINDOW).min(total - offset));
            let fetched = fetched.map_err(|e| Error::io("cannot be fetched", io::Error::other(e.to_string())))?;
            *window = (offset, fetched);
        }
        let from = (offset - window.0) as usize;
        buf.copy_from_slice(&window.1[from..from + buf.len()]);
        Ok(())
    }
}
