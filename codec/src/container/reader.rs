//! Reading a container: opening it, and decoding its chunks.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;

use rayon::prelude::*;

use super::fallback::Fallback;
use super::frame::{self, PREAMBLE_LEN, Version};
use super::index::{Index, StoredChunk, Tensor};
use crate::Progress;
use crate::chunk::block::Scratch;
use crate::chunk::delta::Against;
use crate::chunk::{self, Codec, Place};
use crate::error::{Error, ErrorKind, Result};
use crate::original::{ChunkIndex, Grid, Original, PlainFile};
use crate::patch::{Base, BaseRecord};
use crate::room::make_room;
use crate::split::Element;
use crate::stream::cancelled;

/// An open container: the original that it was made from.
///
/// Opening reads and checks the frame and the index, a few bytes per chunk. Chunks are read, checked and decoded when
/// they are asked for.
pub struct Container {
    store: Box<dyn Original>,
    /// What it is coded against, once that is given.
    base: Option<Base>,
    version: Version,
    index: Index,
    grid: Grid,
    /// Where chunks are taken from that are damaged in the store.
    fallback: Option<Fallback>,
    /// Whether the store itself is the file as its sidecar mends it, since the frame or the index is damaged.
    mended_index: bool,
}

impl std::fmt::Debug for Container {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Container")
            .field("version", &self.version)
            .field("original", &self.index.original)
            .finish_non_exhaustive()
    }
}

/// How much of an original is stored by one codec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodecUsage {
    /// The codec.
    pub codec: Codec,
    /// Chunks of the original that it stores; chunks that share their stored bytes count each.
    pub chunks: u64,
    /// Bytes of the original in them.
    pub original_len: u64,
    /// Bytes of the container that they take; what several share counts once.
    pub stored_len: u64,
}

thread_local! {
    /// The stored bytes of the chunk that this thread decodes, and what decoding needs.
    static SCRATCH: RefCell<Option<(Vec<u8>, Scratch)>> = const { RefCell::new(None) };
}

impl Container {
    /// Opens the container at `path`.
    ///
    /// # Errors
    /// [`ErrorKind::NotAContainer`], [`Unsupported`](ErrorKind::Unsupported)
    /// when it is newer than this program, [`Corrupt`](ErrorKind::Corrupt) when its frame or index is damaged,
    /// [`Io`](ErrorKind::Io). All name the file.
    pub fn open(path: &Path) -> Result<Container> {
        Container::from_file(PlainFile::open(path)?, path)
    }

    pub(crate) fn from_file(file: PlainFile, path: &Path) -> Result<Container> {
        Container::from_store(Box::new(file)).map_err(|e| if e.io_error().is_some() { e } else { e.in_file(path) })
    }

    /// As [`open`](Container::open), but what is damaged is repaired while it is read, as far as the sidecar beside the
    /// container (`model.bs.ecc`) goes. The file stays as it is. Without damage the sidecar is not even opened.
    ///
    /// # Errors
    /// As [`open`](Container::open).
    pub fn open_protected(path: &Path) -> Result<Container> {
        Container::from_protected_file(PlainFile::open(path)?, path)
    }

    /// As [`open_protected`](Container::open_protected), of a file that was opened at `path` before.
    ///
    /// # Errors
    /// As [`open`](Container::open).
    pub fn from_protected_file(file: PlainFile, path: &Path) -> Result<Container> {
        match Container::from_file(file, path) {
            Ok(container) => Ok(Container { fallback: Some(Fallback::new(path)), ..container }),
            Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotAContainer) => {
                let mended = Fallback::open(path).and_then(|mended| Container::from_store(Box::new(mended)));
                mended.map(|container| Container { mended_index: true, ..container }).or(Err(error))
            }
            Err(error) => Err(error),
        }
    }

    /// The same container, which calls `tell` whenever it has repaired a damaged chunk while it was read; if it was opened as
    /// [protected](Container::open_protected), and its index is sound.
    pub fn on_mended(self, tell: impl Fn(ChunkIndex) + Send + Sync + 'static) -> Container {
        let fallback = self.fallback.map(|fallback| fallback.telling(Box::new(tell)));
        Container { fallback, ..self }
    }

    /// Whether the index is damaged and the container could be [opened](Container::open_protected) thanks to its sidecar
    /// alone. All of it is then read through the sidecar, and nobody is [told](Container::on_mended) of what was repaired.
    pub fn has_mended_index(&self) -> bool {
        self.mended_index
    }

    /// Opens the container whose bytes `store` holds.
    ///
    /// # Errors
    /// As [`open`](Container::open), without a file's name.
    pub fn from_store(store: Box<dyn Original>) -> Result<Container> {
        let frame = frame::read(&*store)?;
        let (index, grid) = Index::read(&frame.sections, PREAMBLE_LEN)?;
        let data_end = index.chunks.last().map_or(PREAMBLE_LEN, |chunk| chunk.offset + u64::from(chunk.len));
        if data_end != frame.data_end {
            return Err(Error::corrupt(format!(
                "the chunks end at byte {data_end}, the sections begin at {}",
                frame.data_end
            )));
        }
        Ok(Container { store, base: None, version: frame.version, index, grid, fallback: None, mended_index: false })
    }

    /// What the container says about its base, if it is a patch.
    pub fn base_record(&self) -> Option<&BaseRecord> {
        self.index.base.as_ref()
    }

    /// Its base, if it is a patch that was given one.
    pub fn base(&self) -> Option<&Base> {
        self.base.as_ref()
    }

    /// The patch over its base.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] when it is no patch, [`ErrorKind::WrongBase`] when `base` was made for another one.
    pub fn with_base(self, base: Base) -> Result<Container> {
        let record = self.base_record().ok_or_else(|| Error::invalid("it is no patch and needs no base"))?;
        if record.tensors != base.record().tensors {
            return Err(Error::new(ErrorKind::WrongBase, "the base was made for another patch"));
        }
        Ok(Container { base: Some(base), ..self })
    }

    /// Fails when it is a patch without its base.
    ///
    /// # Errors
    /// [`ErrorKind::BaseMissing`], naming the base.
    pub fn check_complete(&self) -> Result<()> {
        match &self.index.base {
            Some(record) if self.base.is_none() => Err(base_missing(record)),
            _ => Ok(()),
        }
    }

    /// Whether the file at `path` starts as a container does, whatever its name.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] when it cannot be read.
    pub fn is_container(path: &Path) -> Result<bool> {
        Ok(frame::is_container(&frame::first_bytes(&PlainFile::open(path)?)?))
    }

    /// The version of the format that the container is written in.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The file name (no directory) of the original that the container records, such as `model.safetensors`.
    pub fn original_name(&self) -> &str {
        &self.index.original.name
    }

    /// The size of the container in bytes.
    pub fn stored_len(&self) -> u64 {
        self.store.len()
    }

    /// The SHA-256 of the original.
    pub fn sha256(&self) -> &[u8; 32] {
        &self.index.original.sha256
    }

    /// The tensors of the original in the order of their bytes.
    pub fn tensors(&self) -> &[Tensor] {
        &self.index.tensors
    }

    /// The chunk size of the container's largest segment, in bytes of the original; 0 when the original is empty.
    pub fn chunk_size(&self) -> u32 {
        let largest = self.index.segments.iter().max_by_key(|segment| segment.range.end - segment.range.start);
        largest.map_or(0, |segment| segment.chunk_size)
    }

    /// How many stored chunks there are: fewer than chunks of the original when equal tensors share theirs.
    pub fn stored_chunks(&self) -> u64 {
        self.index.chunks.len() as u64
    }

    /// The codec that stores `chunk`, and the bytes that it takes in the container.
    ///
    /// # Panics
    /// When there is no such chunk.
    pub fn chunk_storage(&self, chunk: ChunkIndex) -> (Codec, u32) {
        let (_, stored) = self.locate(chunk);
        (stored.codec, stored.len)
    }

    /// What each codec stores, for those that store anything.
    pub fn codec_usage(&self) -> Vec<CodecUsage> {
        let mut usage = BTreeMap::<Codec, CodecUsage>::new();
        let nothing = |codec| CodecUsage { codec, chunks: 0, original_len: 0, stored_len: 0 };
        for chunk in (0..self.grid.chunks()).map(ChunkIndex) {
            let range = self.grid.range(chunk);
            let codec = self.locate(chunk).1.codec;
            let usage = usage.entry(codec).or_insert(nothing(codec));
            usage.chunks += 1;
            usage.original_len += range.end - range.start;
        }
        for stored in &self.index.chunks {
            usage.entry(stored.codec).or_insert(nothing(stored.codec)).stored_len += u64::from(stored.len);
        }
        usage.into_values().collect()
    }

    /// Where `chunk` is in its segment, but for its base, and how it is stored.
    fn locate(&self, chunk: ChunkIndex) -> (Place<'_>, &StoredChunk) {
        let (segment, number) = self.grid.locate(chunk);
        let segment = &self.index.segments[segment];
        let place = Place {
            element: segment.element,
            tables: &self.index.tables[segment.tables.clone()],
            scale: segment.scale.as_ref(),
            first: number * u64::from(segment.chunk_size) / segment.element.size() as u64,
            against: None,
        };
        (place, &self.index.chunks[(segment.first_chunk + number) as usize])
    }

    /// Where `chunk` is in its segment.
    ///
    /// # Panics
    /// When there is no such chunk.
    pub(crate) fn place(&self, chunk: ChunkIndex) -> Place<'_> {
        self.locate(chunk).0
    }

    /// How `chunk` is stored: the codec, where it is in its segment, the bytes.
    ///
    /// # Panics
    /// When there is no such chunk.
    pub(crate) fn stored_chunk(&self, chunk: ChunkIndex) -> Result<(Codec, Place<'_>, Vec<u8>)> {
        let (place, stored) = self.locate(chunk);
        let mut bytes = vec![0; stored.len as usize];
        self.store.read_at(stored.offset, &mut bytes)?;
        Ok((stored.codec, place, bytes))
    }

    /// The number of stored chunks that cannot be read or fail their checksum; they are not decoded. Runs on the threads of
    /// the current rayon pool and at the speed of the disk.
    ///
    /// # Errors
    /// Only [`ErrorKind::Cancelled`].
    pub fn damaged_chunks(&self, progress: &dyn Progress) -> Result<u64> {
        let damaged = self.index.chunks.par_iter().map_init(Vec::new, |bytes: &mut Vec<u8>, chunk| {
            if progress.cancelled() {
                return Err(cancelled());
            }
            bytes.resize(chunk.len as usize, 0);
            let sound = self.store.read_at(chunk.offset, bytes).is_ok() && chunk.is(bytes);
            progress.advance(u64::from(chunk.len));
            Ok(u64::from(!sound))
        });
        damaged.try_reduce(|| 0, |a, b| Ok(a + b))
    }

    /// The bytes of the container.
    pub(crate) fn store(&self) -> &dyn Original {
        &*self.store
    }

    /// What is stored where.
    pub(crate) fn index(&self) -> &Index {
        &self.index
    }

    /// What the elements of `chunk` are taken for.
    ///
    /// # Panics
    /// When there is no such chunk.
    pub fn element(&self, chunk: ChunkIndex) -> Element {
        self.locate(chunk).0.element
    }
}

impl Container {
    /// What `chunk` is coded against; `buffer` is memory for the bytes of the base. `None` if it needs no base.
    ///
    /// # Errors
    /// [`ErrorKind::BaseMissing`], and those of reading the base.
    pub(crate) fn against<'a>(&'a self, chunk: ChunkIndex, buffer: &'a mut Vec<u8>) -> Result<Option<Against<'a>>> {
        let (place, stored) = self.locate(chunk);
        if !matches!(stored.codec, Codec::Delta | Codec::Unchanged) {
            return Ok(None);
        }
        // What is wrong with a segment that has none, decoding says.
        let Some(delta) = &self.index.segments[self.grid.locate(chunk).0].delta else { return Ok(None) };
        let record = self.index.base.as_ref().expect("the index was refused if it had no base for a segment");
        let base = self.base.as_ref().ok_or_else(|| base_missing(record))?;
        let range = self.grid.range(chunk);
        let elements = (range.end - range.start) / place.element.size() as u64;
        let needed = delta.base_range(place.first, elements);
        buffer.resize((needed.end - needed.start) as usize, 0);
        base.read_at(needed.start, buffer)?;
        Ok(Some(Against { delta, tables: &self.index.tables[delta.tables.clone()], base: buffer }))
    }

    /// The error with what it is about, if that is the base.
    fn explained(&self, error: Error, chunk: ChunkIndex) -> Error {
        let delta = &self.index.segments[self.grid.locate(chunk).0].delta;
        match (error.kind(), &self.base, delta) {
            (ErrorKind::WrongBase, Some(base), Some(delta)) => {
                let tensor = base.name_at(delta.base_range(self.locate(chunk).0.first, 0).start);
                error.context(format_args!("base {}, tensor {tensor:?}", base.record().description()))
            }
            _ => error,
        }
    }
}

fn base_missing(record: &BaseRecord) -> Error {
    let (len, description) = (record.len, record.description());
    let message = format!("this is a patch of the base {description} of {len} bytes, which is needed to read it");
    Error::new(ErrorKind::BaseMissing, message)
}

thread_local! {
    /// Memory for bytes of bases: of more than one where a base is itself a patch.
    static BASES: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

impl Original for Container {
    fn grid(&self) -> &Grid {
        &self.grid
    }

    fn check_unchanged(&self) -> Result<()> {
        self.store.check_unchanged()?;
        self.base.as_ref().map_or(Ok(()), Base::check_unchanged)
    }

    fn stamp(&self) -> Result<Vec<u8>> {
        let mut stamp = self.store.stamp()?;
        if let Some(base) = &self.base {
            stamp.extend(base.stamp()?);
        }
        Ok(stamp)
    }

    fn decode_chunk(&self, chunk: ChunkIndex, out: &mut [u8]) -> Result<()> {
        let mut base = BASES.with_borrow_mut(Vec::pop).unwrap_or_default();
        let against = match self.against(chunk, &mut base) {
            // What is wrong with the patch itself comes first.
            Err(error) if error.kind() == ErrorKind::BaseMissing => self.check_stored(chunk).and(Err(error)),
            against => against,
        };
        let decoded = against.and_then(|against| self.decode_against(chunk, against, out));
        BASES.with_borrow_mut(|bases| bases.push(base));
        decoded.map_err(|e| {
            let range = self.grid.range(chunk);
            self.explained(e, chunk)
                .context(format_args!("chunk {} (bytes {} to {} of the original)", chunk.0, range.start, range.end))
        })
    }
}

impl Container {
    /// Fails if the stored bytes of `chunk` cannot be read or are damaged.
    fn check_stored(&self, chunk: ChunkIndex) -> Result<()> {
        let (_, stored) = self.locate(chunk);
        let mut bytes = vec![0; stored.len as usize];
        self.store.read_at(stored.offset, &mut bytes)?;
        if stored.is(&bytes) { Ok(()) } else { Err(Error::corrupt("the stored bytes fail their checksum")) }
    }

    fn decode_against(&self, chunk: ChunkIndex, against: Option<Against<'_>>, out: &mut [u8]) -> Result<()> {
        let (place, stored) = self.locate(chunk);
        let place = Place { against, ..place };
        // Taken, not borrowed: the store may itself be something that this thread decodes.
        let (mut bytes, mut scratch) = SCRATCH.take().unwrap_or_default();
        make_room(&mut bytes, stored.len as usize)?;
        let read = self.store.read_at(stored.offset, &mut bytes).and_then(|()| match stored.is(&bytes) {
            true => Ok(()),
            false => Err(Error::corrupt("the stored bytes fail their checksum")),
        });
        let read = read.or_else(|error| match &self.fallback {
            Some(fallback) if fallback.read(stored.offset, &mut bytes) && stored.is(&bytes) => {
                fallback.tell(chunk);
                Ok(())
            }
            _ => Err(error),
        });
        let decoded = read.and_then(|()| chunk::decode(stored.codec, place, &bytes, out, &mut scratch));
        SCRATCH.set(Some((bytes, scratch)));
        decoded
    }
}
