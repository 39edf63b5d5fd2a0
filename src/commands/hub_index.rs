//! The index of a directory that the Python package prepared for the Hub: it names `.bs` files, and loaders look for
//! another one, which names safetensors files.

use std::ffi::OsStr;
use std::path::Path;

use bigsmall_codec::output::NewFile;
use bigsmall_codec::upstream::{HUB_INDEX, HUB_INDEX_BINARY, HubIndex, LOADER_INDEX};

use crate::failure::Failure;
use crate::transfer::Fate;

/// Whether this is the path of such an index.
pub fn is_hub_index(path: &Path) -> bool {
    path.file_name() == Some(OsStr::new(HUB_INDEX))
}

/// What becomes of the file at `path` in a copy of its directory if it is such an index: the one that loaders know, if they
/// need one and have none. `None` when it is something else.
///
/// # Errors
/// When it cannot be read.
pub fn fate(path: &Path) -> Result<Option<Fate>, Failure> {
    if is_hub_index(path) {
        let needed = is_needed(path, &HubIndex::open(path)?);
        return Ok(Some(if needed { Fate::Convert(LOADER_INDEX.into()) } else { Fate::Leave }));
    }
    // The same for the package's own use.
    Ok((path.file_name() == Some(OsStr::new(HUB_INDEX_BINARY))).then_some(Fate::Leave))
}

/// Whether loaders need an index made of `index`, which lies at `path`.
pub fn is_needed(path: &Path, index: &HubIndex) -> bool {
    index.files() > 1 && !path.with_file_name(LOADER_INDEX).exists()
}

/// Writes the index that loaders know to `file`, made of the one at `path`; says how long it is.
///
/// # Errors
/// When it cannot be read or written.
pub fn write(path: &Path, file: &NewFile) -> Result<u64, Failure> {
    let index = HubIndex::open(path)?.for_loaders();
    file.write_at(0, index.as_bytes())?;
    Ok(index.len() as u64)
}
