//! The one abstraction: an original that can be read at an offset.
//!
//! A plain file, a container, later a patch over a base or a remote object: each is an [`Original`]. The mount,
//! `decompress` and `verify` know nothing else.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::error::{Error, ErrorKind, Result};
use crate::wire::Put;

/// The chunk size, in bytes of the original, of anything that does not bring its own.
pub const DEFAULT_CHUNK_SIZE: u32 = 256 << 10;

/// The largest chunk size that a grid may have: what one decode may have to allocate.
pub const MAX_CHUNK_SIZE: u32 = 8 << 20;

/// The number of a chunk in the [`Grid`] of an original.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChunkIndex(pub u64);

/// A run of equally long chunks (the last may be shorter) in a [`Grid`].
#[derive(Clone, Debug, PartialEq, Eq)]
struct Run {
    /// Where the run starts in the original, in bytes.
    start: u64,
    /// The length of its chunks in bytes.
    chunk_size: u32,
    /// The number of its first chunk.
    first: u64,
}

/// How an original is cut into chunks: contiguous, without gaps, each the unit of decoding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grid {
    runs: Vec<Run>,
    len: u64,
    chunks: u64,
}

impl Grid {
    /// A grid of `len` bytes in chunks of `chunk_size` bytes each.
    pub fn uniform(len: u64, chunk_size: u32) -> Result<Grid> {
        let mut grid = Grid::new();
        grid.push(len, chunk_size)?;
        Ok(grid)
    }

    /// An empty grid to [`push`](Grid::push) segments to.
    pub fn new() -> Grid {
        Grid { runs: Vec::new(), len: 0, chunks: 0 }
    }

    /// Appends a segment of `len` bytes, cut into chunks of `chunk_size` bytes of which the last may be shorter.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] when the chunk size is zero or above [`MAX_CHUNK_SIZE`], or the total length
    /// overflows.
    pub fn push(&mut self, len: u64, chunk_size: u32) -> Result<()> {
        if chunk_size == 0 || chunk_size > MAX_CHUNK_SIZE {
            return Err(Error::invalid(format!(
                "a chunk size of {chunk_size} bytes is not between 1 and {MAX_CHUNK_SIZE}"
            )));
        }
        if len == 0 {
            return Ok(());
        }
        let end = self.len.checked_add(len).ok_or_else(|| Error::invalid("the lengths of the segments overflow"))?;
        self.runs.push(Run { start: self.len, chunk_size, first: self.chunks });
        self.len = end;
        self.chunks += len.div_ceil(u64::from(chunk_size));
        Ok(())
    }

    /// The length of the original in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the original is empty.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The number of chunks.
    pub fn chunks(&self) -> u64 {
        self.chunks
    }

    /// The length in bytes of the longest chunks that there may be; 0 when there are none.
    pub(crate) fn longest_chunk(&self) -> u32 {
        self.runs.iter().map(|run| run.chunk_size).max().unwrap_or(0)
    }

    /// The chunk that holds byte `offset`, or `None` beyond the end.
    pub fn chunk_at(&self, offset: u64) -> Option<ChunkIndex> {
        if offset >= self.len {
            return None;
        }
        let run = &self.runs[self.runs.partition_point(|run| run.start <= offset) - 1];
        Some(ChunkIndex(run.first + (offset - run.start) / u64::from(run.chunk_size)))
    }

    /// The bytes of the original that `chunk` covers.
    ///
    /// # Panics
    /// When there is no such chunk.
    pub fn range(&self, chunk: ChunkIndex) -> Range<u64> {
        let (segment, number) = self.locate(chunk);
        let run = &self.runs[segment];
        let run_end = self.runs.get(segment + 1).map_or(self.len, |next| next.start);
        let start = run.start + number * u64::from(run.chunk_size);
        start..run_end.min(start + u64::from(run.chunk_size))
    }

    /// The segment (as [`push`](Grid::push)ed, empty ones not counted) that `chunk` lies in, and its number there.
    ///
    /// # Panics
    /// When there is no such chunk.
    pub(crate) fn locate(&self, chunk: ChunkIndex) -> (usize, u64) {
        assert!(chunk.0 < self.chunks, "chunk {} of {}", chunk.0, self.chunks);
        let segment = self.runs.partition_point(|run| run.first <= chunk.0) - 1;
        (segment, chunk.0 - self.runs[segment].first)
    }

    /// The chunks that hold the bytes of `range`, cut to the end of the original.
    pub fn chunks_of(&self, range: Range<u64>) -> impl Iterator<Item = ChunkIndex> + use<> {
        let first = self.chunk_at(range.start);
        let last =
            if range.end > range.start { self.chunk_at((range.end - 1).min(self.len.saturating_sub(1))) } else { None };
        let numbers = match (first, last) {
            (Some(first), Some(last)) => first.0..last.0 + 1,
            _ => 0..0,
        };
        numbers.map(ChunkIndex)
    }
}

impl Default for Grid {
    fn default() -> Self {
        Grid::new()
    }
}

/// A file that can be read at any offset and is decoded chunk by chunk.
///
/// Implementations are shared between threads and keep no position.
pub trait Original: Send + Sync {
    /// How the original is cut into chunks. Its length is the length of the original.
    fn grid(&self) -> &Grid;

    /// Decodes one chunk into `out`, which is exactly as long as `grid().range(chunk)`.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] when the stored bytes fail their check; `out` then holds unspecified bytes that the
    /// caller must not use. [`ErrorKind::Io`] when the store cannot be read.
    fn decode_chunk(&self, chunk: ChunkIndex, out: &mut [u8]) -> Result<()>;

    /// The length of the original in bytes.
    fn len(&self) -> u64 {
        self.grid().len()
    }

    /// Whether the original is empty.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fails if the original has changed since it was opened, as far as that can be told.
    ///
    /// # Errors
    /// [`ErrorKind::SourceChanged`], or those of asking.
    fn check_unchanged(&self) -> Result<()> {
        Ok(())
    }

    /// What tells the files that the original is read from apart from all others, and from what they were before they changed, as far
    /// as their metadata can. Nothing where there are no files.
    ///
    /// # Errors
    /// Those of asking.
    fn stamp(&self) -> Result<Vec<u8>> {
        Ok(Vec::new())
    }

    /// Fills `buf` with the bytes of the original from `offset` on.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] when the range reaches beyond the end, else as
    /// [`decode_chunk`](Original::decode_chunk).
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let range = checked_range(offset, buf.len(), self.len())?;
        for chunk in self.grid().chunks_of(range.clone()) {
            let have = self.grid().range(chunk);
            let (from, to) = (have.start.max(range.start), have.end.min(range.end));
            let part = &mut buf[(from - range.start) as usize..(to - range.start) as usize];
            if from == have.start && to == have.end {
                self.decode_chunk(chunk, part)?;
            } else {
                let mut whole = vec![0; (have.end - have.start) as usize];
                self.decode_chunk(chunk, &mut whole)?;
                part.copy_from_slice(&whole[(from - have.start) as usize..(to - have.start) as usize]);
            }
        }
        Ok(())
    }
}

/// The range `offset..offset + len` if it lies within an original of `total` bytes.
pub(crate) fn checked_range(offset: u64, len: usize, total: u64) -> Result<Range<u64>> {
    match offset.checked_add(len as u64) {
        Some(end) if end <= total => Ok(offset..end),
        _ => Err(Error::invalid(format!("a read of {len} bytes at {offset} reaches beyond the end at {total}"))),
    }
}

/// A plain file as an original: what `compress` reads.
#[derive(Debug)]
pub struct PlainFile {
    file: File,
    path: PathBuf,
    grid: Grid,
    /// The time of its last modification when it was opened.
    modified: Option<SystemTime>,
}

impl PlainFile {
    /// Opens a regular file.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] when it cannot be opened, [`ErrorKind::InvalidArgument`] when it is not a regular file.
    pub fn open(path: &Path) -> Result<PlainFile> {
        // Opening a pipe that nobody writes to would wait for ever; for regular files the flag means nothing.
        let file = File::options().read(true).custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32).open(path);
        let file = file.map_err(|e| Error::io("cannot open the file", e).in_file(path))?;
        PlainFile::from_file(file, path)
    }

    /// A regular file that is open already; errors call it `path`.
    ///
    /// # Errors
    /// As [`open`](PlainFile::open).
    pub fn from_file(file: File, path: &Path) -> Result<PlainFile> {
        let metadata = file.metadata().map_err(|e| Error::io("cannot stat the file", e).in_file(path))?;
        if !metadata.is_file() {
            return Err(Error::invalid("not a regular file").in_file(path));
        }
        let grid = Grid::uniform(metadata.len(), DEFAULT_CHUNK_SIZE)?;
        Ok(PlainFile { file, path: path.to_owned(), grid, modified: metadata.modified().ok() })
    }

    /// The open file.
    pub fn file(&self) -> &File {
        &self.file
    }
}

impl Original for PlainFile {
    fn grid(&self) -> &Grid {
        &self.grid
    }

    fn decode_chunk(&self, chunk: ChunkIndex, out: &mut [u8]) -> Result<()> {
        self.read_at(self.grid.range(chunk).start, out)
    }

    fn check_unchanged(&self) -> Result<()> {
        let metadata = self.file.metadata().map_err(|e| Error::io("cannot stat the file", e).in_file(&self.path))?;
        if metadata.len() != self.len() || metadata.modified().ok() != self.modified {
            return Err(Error::new(ErrorKind::SourceChanged, "the file changed while it was read").in_file(&self.path));
        }
        Ok(())
    }

    fn stamp(&self) -> Result<Vec<u8>> {
        let metadata = self.file.metadata().map_err(|e| Error::io("cannot stat the file", e).in_file(&self.path))?;
        let mut stamp = Vec::new();
        // Not the device: its number may be another one after a restart.
        stamp.put_u64(metadata.ino());
        stamp.put_u64(metadata.len());
        for (seconds, nanoseconds) in
            [(metadata.mtime(), metadata.mtime_nsec()), (metadata.ctime(), metadata.ctime_nsec())]
        {
            stamp.put_u64(seconds as u64);
            stamp.put_u64(nanoseconds as u64);
        }
        Ok(stamp)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        checked_range(offset, buf.len(), self.len())?;
        self.file.read_exact_at(buf, offset).map_err(|e| {
            if e.kind() == std::io::ErrorKind::UnexpectedEof {
                Error::new(ErrorKind::SourceChanged, "the file became shorter while it was read").in_file(&self.path)
            } else {
                Error::io("cannot read the file", e).in_file(&self.path)
            }
        })
    }
}

/// Bytes in memory as an original.
#[derive(Clone, Debug)]
pub struct Memory {
    bytes: Vec<u8>,
    grid: Grid,
}

impl Memory {
    /// An original of these bytes.
    pub fn new(bytes: Vec<u8>) -> Memory {
        let grid = Grid::uniform(bytes.len() as u64, DEFAULT_CHUNK_SIZE).expect("a Vec is shorter than 2^63 bytes");
        Memory { bytes, grid }
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl Original for Memory {
    fn grid(&self) -> &Grid {
        &self.grid
    }

    fn decode_chunk(&self, chunk: ChunkIndex, out: &mut [u8]) -> Result<()> {
        self.read_at(self.grid.range(chunk).start, out)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let range = checked_range(offset, buf.len(), self.len())?;
        buf.copy_from_slice(&self.bytes[range.start as usize..range.end as usize]);
        Ok(())
    }
}
