//! The container: how an original is stored in a `.bs` file. `docs/format.md` is normative.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::path::Path;

use crate::Progress;
use crate::error::Result;
use crate::original::{ChunkIndex, Grid, Original};

/// What to optimise for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// The smallest container that still decodes at random.
    Storage,
    /// Small and fast.
    #[default]
    Balanced,
    /// The fastest decode.
    Inference,
}

/// How to compress.
#[derive(Clone, Debug)]
pub struct Options {
    /// What to optimise for.
    pub mode: Mode,
    /// Bytes of the original per chunk.
    pub chunk_size: u32,
}

impl Default for Options {
    fn default() -> Self {
        Options { mode: Mode::Balanced, chunk_size: crate::original::DEFAULT_CHUNK_SIZE }
    }
}

/// What [`compress`] did.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Bytes of the original.
    pub original_len: u64,
    /// Bytes of the container.
    pub stored_len: u64,
    /// The SHA-256 of the original.
    pub sha256: [u8; 32],
}

/// Writes the container of `source`, whose file name is `name`, to `out`, on the threads of the current rayon pool.
pub fn compress(
    source: &dyn Original,
    name: &str,
    options: &Options,
    out: &mut dyn Write,
    progress: &dyn Progress,
) -> Result<Summary> {
    let _ = (source, name, options, out, progress);
    todo!()
}

/// A tensor as the container records it.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// Its name in the header of the original.
    pub name: String,
    /// Its dtype as the header spells it.
    pub dtype: String,
    /// Its shape.
    pub shape: Vec<u64>,
    /// Where its bytes lie in the original.
    pub range: std::ops::Range<u64>,
    /// The MD5 of its bytes.
    pub md5: [u8; 16],
}

/// An open container.
pub struct Container {}

impl Container {
    /// Opens a container and checks its header and index; chunks are checked when they are read.
    pub fn open(path: &Path) -> Result<Container> {
        let _ = path;
        todo!()
    }
    /// The file name (no directory) of the original that the container records, such as `model.safetensors`.
    pub fn original_name(&self) -> &str {
        todo!()
    }
    /// The size of the container in bytes.
    pub fn stored_len(&self) -> u64 {
        todo!()
    }
    /// The SHA-256 of the original.
    pub fn sha256(&self) -> &[u8; 32] {
        todo!()
    }
    /// The tensors of the original in the order of their bytes.
    pub fn tensors(&self) -> &[Tensor] {
        todo!()
    }
}

impl Original for Container {
    fn grid(&self) -> &Grid {
        todo!()
    }
    fn decode_chunk(&self, _chunk: ChunkIndex, _out: &mut [u8]) -> Result<()> {
        todo!()
    }
}

/// The name under which a container called `container` shows its original: the container's name with `.bs` replaced by
/// the extension of the original's recorded name. `None` when `container` does not end in `.bs`.
pub fn shown_name(container: &OsStr, original_name: &str) -> Option<OsString> {
    let _ = (container, original_name);
    todo!()
}
