//! Writing a container: original -> segments -> chunks -> codec -> bytes in order.
//!
//! The original is read from front to back in *windows* of some megabytes, plus a sample of each segment that is longer
//! than a window, so that memory is bounded whatever the size of the file. While a window is coded (the plan of each
//! segment, then each chunk), the SHA-256 of the original goes over it, the MD5s of the tensors get on by as many bytes
//! with reads of their own ([`RangeHashes`]), the next window is read and the one before is written. What is written
//! depends on the source and the options alone.

use std::collections::HashMap;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::duplicates;
use super::frame::{self, VERSION, Version};
use super::index::{Index, LONGEST_NAME, OriginalInfo, Segment, StoredChunk, Tensor};
use super::journal::{Journal, Kept};
use crate::Progress;
use crate::checksum::checksum;
use crate::chunk::block::{Buffers, Scratch};
use crate::chunk::delta::convert::convert;
use crate::chunk::delta::plan::DeltaPlan;
use crate::chunk::delta::{Against, Delta, Kind};
use crate::chunk::normalise::Shape;
use crate::chunk::plan::{MAY_SHARE_TABLE, Pieces, Plan, ReadyPlan, Sample, Shared, zstd_level};
use crate::chunk::quantised::{BlockPlan, BlockStatistics};
use crate::chunk::scale::QUAD;
use crate::chunk::statistics::KeyStatistics;
use crate::chunk::{self, Codec, Place};
use crate::error::{Error, ErrorKind, Result};
use crate::hashes::{Md5, RangeHashes};
use crate::layout::{Content, Layout, SegmentLayout, TensorLayout};
use crate::original::{DEFAULT_CHUNK_SIZE, MAX_CHUNK_SIZE, Original};
use crate::output::NewFile;
use crate::patch::{Base, BaseRecord, Matching, Model, SegmentBase};
use crate::rans::Table;
use crate::split::Element;

/// What to optimise for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// The smallest container that still decodes at random.
    Storage,
    /// Small and fast.
    #[default]
    Balanced,
    /// The fastest decode.
    Inference,
}

impl Mode {
    /// Bytes of the original per chunk, unless something else is asked for: larger chunks are a little smaller, and a random
    /// read waits longer for them.
    pub fn chunk_size(self) -> u32 {
        match self {
            Mode::Storage => 1 << 20,
            Mode::Balanced | Mode::Inference => DEFAULT_CHUNK_SIZE,
        }
    }
}

/// How to compress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// What to optimise for.
    pub mode: Mode,
    /// Bytes of the original per chunk: a multiple of 8 from [`Options::MIN_CHUNK_SIZE`] to [`MAX_CHUNK_SIZE`].
    pub chunk_size: u32,
}

impl Options {
    /// The smallest chunk size that can be asked for.
    pub const MIN_CHUNK_SIZE: u32 = 64;
}

impl Default for Options {
    fn default() -> Self {
        Options { mode: Mode::Balanced, chunk_size: DEFAULT_CHUNK_SIZE }
    }
}

/// What [`compress`] or [`compress_patch`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Bytes of the original.
    pub original_len: u64,
    /// Bytes of the container.
    pub stored_len: u64,
    /// The SHA-256 of the original.
    pub sha256: [u8; 32],
    /// Bytes of the original that an earlier run had coded: see [`compress_file`](super::compress_file).
    pub kept_len: u64,
    /// Whether it is a patch: there is a base, and something of it is used.
    pub is_patch: bool,
}

/// Bytes of a window (or one chunk, if that is larger). Two windows are in memory, and two coded ones: few enough to stay
/// in the cache from their reading to their writing, which made compressing a tenth faster than windows of 16 MiB did.
pub(crate) const WINDOW: u64 = 4 << 20;

/// Segments in a window, since each has a plan in memory.
const WINDOW_SEGMENTS: usize = 512;

/// Bytes that are read at a time: little enough to be in the cache still when they are hashed.
const READ: usize = 256 << 10;

/// Bytes of a segment longer than a window that its plan is made from, in pieces spread evenly over it.
const SAMPLE: u64 = 4 << 20;
const SAMPLE_PIECE: u64 = 64 << 10;

/// Bytes of short segments that the table which they share is made from.
const SHARED_SAMPLE: u64 = 4 << 20;

/// The level at which the header of an original is compressed, at least.
const HEADER_LEVEL: i32 = 9;

/// Writes the container of `source`, whose file name is `name`, to `out`, on the threads of the current rayon pool.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`] for impossible options, [`ErrorKind::Cancelled`], [`ErrorKind::SourceChanged`], and
/// those of reading `source` and writing `out`. What has been written by then is no container.
pub fn compress(
    source: &dyn Original,
    name: &str,
    options: &Options,
    out: &mut (dyn Write + Send),
    progress: &dyn Progress,
) -> Result<Summary> {
    write(source, name, options, None, Out::Stream(out), None, progress)
}

/// Writes the patch that makes `source`, whose file name is `name`, of `base`, as [`compress`] writes a container. Tensors are matched by
/// name over the whole model, and where names are others by what is left of them without those of wrappers, or by values. Chunks for which nothing in the base is of use are stored as in any container; if it is of no use
/// at all, the result is an ordinary container.
///
/// # Errors
/// Those of [`compress`], and of reading `base`.
pub fn compress_patch(
    source: &dyn Original,
    name: &str,
    options: &Options,
    base: &Model,
    out: &mut (dyn Write + Send),
    progress: &dyn Progress,
) -> Result<Summary> {
    write(source, name, options, Some(base), Out::Stream(out), None, progress)
}

/// Writes the container, of `model` if it is to be a patch, to `out`, where the chunks that were `kept` lie already.
pub(super) fn write(
    source: &dyn Original,
    name: &str,
    options: &Options,
    model: Option<&Model>,
    out: Out<'_>,
    kept: Option<&Kept>,
    progress: &dyn Progress,
) -> Result<Summary> {
    if options.chunk_size < Options::MIN_CHUNK_SIZE
        || options.chunk_size > MAX_CHUNK_SIZE
        || !options.chunk_size.is_multiple_of(8)
    {
        return Err(Error::invalid(format!(
            "a chunk size of {} bytes is not a multiple of 8 between {} and {MAX_CHUNK_SIZE}",
            options.chunk_size,
            Options::MIN_CHUNK_SIZE
        )));
    }
    if name.is_empty() || name.len() > LONGEST_NAME || name.contains(['/', '\0']) || name == "." || name == ".." {
        return Err(Error::invalid(format!("{name:?} is no file name")));
    }
    let layout = Layout::of(source)?;
    let Matching { layout, bases, used, .. } = match model {
        Some(model) => Matching::of(source, layout, model)?,
        None => Matching::none(layout),
    };
    let base = match model {
        Some(model) if !used.is_empty() => Some(model.base_of(&used, model.record(&used, progress)?)),
        _ => None,
    };
    let version = if base.is_some() { VERSION } else { version_of(&layout) };
    let twins = duplicates::find(source, &layout.segments)?;
    let shared = SharedTables::fit(source, &layout.segments, &twins)?;
    let ranges: Vec<Range<u64>> = layout.tensors.iter().map(|tensor| tensor.range.clone()).collect();
    let mut hashes = Hashes { sha256: Sha256::new(), tensors: RangeHashes::new(source, &ranges) };
    let spare = Spare::default();
    let mut writer = Writer {
        job: Job {
            source,
            options,
            layout: &layout,
            bases: &bases,
            base: base.as_ref(),
            twins,
            shared,
            kept,
            kept_len: AtomicU64::new(0),
            progress,
            spare: &spare,
        },
        version,
        open: None,
        segments: Vec::new(),
        chunks_promised: 0,
    };
    let mut store = Store { out, chunks: Vec::new(), end: 0 };
    store.write(&frame::preamble(version))?;
    writer.write_chunks(&windows(&layout.segments, options.chunk_size), &mut hashes, &mut store)?;
    let md5s = hashes.tensors.finish().into_iter().collect::<Result<Vec<_>>>()?;
    source.check_unchanged()?;
    writer.finish(name, hashes.sha256.finalize().into(), md5s, store)
}

/// The version that the container of an original names: the lowest that has all it uses, so that programs which know no newer
/// one read it.
///
/// # Errors
/// Those of reading `source`.
pub fn version_for(source: &dyn Original) -> Result<Version> {
    Ok(version_of(&Layout::of(source)?))
}

fn version_of(layout: &Layout) -> Version {
    let blocks = layout.segments.iter().any(|segment| matches!(segment.element, Element::Blocks(_)));
    if blocks { Version::BLOCKS } else { Version::PLAIN }
}

/// A part of a segment: all of it, or as many whole chunks as fit in a window.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Piece {
    segment: usize,
    /// Where it lies in the original.
    range: Range<u64>,
}

/// The pieces of the original, in order, in groups that are in memory together.
fn windows(segments: &[SegmentLayout], chunk_size: u32) -> Vec<Vec<Piece>> {
    let mut windows: Vec<Vec<Piece>> = Vec::new();
    let mut room = 0;
    for (segment, layout) in segments.iter().enumerate() {
        let longest_piece = longest_piece(whole_elements(layout.element, chunk_size));
        let mut start = layout.range.start;
        while start < layout.range.end {
            let end = layout.range.end.min(start + longest_piece);
            if end - start > room || windows.last().is_none_or(|window| window.len() == WINDOW_SEGMENTS) {
                windows.push(Vec::new());
                room = longest_piece;
            }
            room -= end - start;
            windows.last_mut().expect("one was just made").push(Piece { segment, range: start..end });
            start = end;
        }
    }
    windows
}

/// Bytes of a chunk of so many bytes, but in whole elements.
fn whole_elements(element: Element, chunk_size: u32) -> u32 {
    let size = element.size() as u32;
    (chunk_size / size).max(1) * size
}

/// Bytes of the longest piece: whole chunks, as many as fit in a window, or one; no longer than a chunk may be.
fn longest_piece(chunk_size: u32) -> u64 {
    (WINDOW / u64::from(chunk_size)).max(1) * u64::from(chunk_size)
}

/// Where a window lies in the original.
fn range_of(window: &[Piece]) -> Range<u64> {
    window[0].range.start..window[window.len() - 1].range.end
}

/// Reads a window into `bytes`, which then begin with it: they are not made shorter, or they would have to be cleared
/// when they become longer again. Each part is hashed while it is in the cache.
fn read(source: &dyn Original, window: &[Piece], bytes: &mut Vec<u8>, sha256: &mut Sha256) -> Result<()> {
    let Range { start, end } = range_of(window);
    let len = (end - start) as usize;
    if bytes.len() < len {
        bytes.resize(len, 0);
    }
    for (number, part) in bytes[..len].chunks_mut(READ).enumerate() {
        source.read_at(start + (number * READ) as u64, part)?;
        sha256.update(part);
    }
    Ok(())
}

/// The hashes of the original and its tensors, as far as they are taken.
struct Hashes<'a> {
    sha256: Sha256,
    tensors: RangeHashes<'a>,
}

/// A chunk coded and ready to be written.
struct CodedChunk {
    codec: Codec,
    bytes: Vec<u8>,
    checksum: u64,
    /// Where an earlier run has written it.
    kept_at: Option<u64>,
}

/// The plan of a segment, and the tables that must be stored for what is coded without a base.
struct Begun {
    plan: SegmentPlan,
    tables: Vec<Table>,
}

/// How the chunks of a segment are to be coded.
struct SegmentPlan {
    plain: ReadyPlan,
    /// Against its base, if it has one and that pays.
    delta: Option<DeltaPlan>,
}

/// The base of a piece.
struct BasePiece {
    element: Element,
    /// Its bytes, and its elements made those of the segment if they are others.
    bytes: Vec<u8>,
    converted: Option<Vec<u8>>,
}

impl BasePiece {
    /// The elements, of the segment's kind.
    fn elements(&self) -> &[u8] {
        self.converted.as_ref().unwrap_or(&self.bytes)
    }

    /// What the chunk at these bytes of the piece, which has such elements, is coded against.
    fn of_chunk<'a>(&'a self, range: Range<usize>, element: Element, delta: Option<&'a DeltaPlan>) -> chunk::Base<'a> {
        let in_base = |at: usize| at / element.size() * self.element.size();
        chunk::Base {
            bytes: &self.bytes[in_base(range.start)..in_base(range.end)],
            elements: &self.elements()[range],
            coder: delta.map(|plan| &*plan.coder),
        }
    }
}

/// What the index says of the base of a segment, but for the tables.
fn delta_entry(base: &SegmentBase, plan: Option<&DeltaPlan>) -> Delta {
    Delta {
        offset: base.offset,
        element: base.element,
        origin: plan.map_or(0, |plan| plan.origin),
        thresholds: plan.map_or(Vec::new(), |plan| plan.thresholds.clone()),
        tables: 0..0,
    }
}

/// A piece coded.
struct CodedPiece {
    /// The segment that it begins.
    begun: Option<Begun>,
    chunks: Vec<CodedChunk>,
}

/// A window coded.
struct CodedWindow {
    number: usize,
    pieces: Vec<Vec<CodedChunk>>,
}

/// What is to be done, settled before the first byte is written.
struct Job<'a> {
    source: &'a dyn Original,
    options: &'a Options,
    layout: &'a Layout,
    /// For each segment what it may be coded against, and all of that.
    bases: &'a [Option<SegmentBase>],
    base: Option<&'a Base>,
    /// For each segment the earlier one that it equals.
    twins: Vec<Option<usize>>,
    shared: SharedTables,
    /// What an earlier run has written, and how many bytes of the original are in what was taken over of it.
    kept: Option<&'a Kept>,
    kept_len: AtomicU64,
    progress: &'a dyn Progress,
    spare: &'a Spare,
}

/// Memory that is used again: what is given back to the system must be zeroed by it before it comes again.
#[derive(Default)]
struct Spare {
    buffers: Mutex<Vec<Buffers>>,
    coded: Mutex<Vec<Vec<u8>>>,
    decoders: Mutex<Vec<(Scratch, Vec<u8>)>>,
}

/// One of the items, or a new one.
fn take<T: Default>(items: &Mutex<Vec<T>>) -> T {
    items.lock().expect("nobody panics with the lock held").pop().unwrap_or_default()
}

fn give_back<T>(items: &Mutex<Vec<T>>, item: T) {
    items.lock().expect("nobody panics with the lock held").push(item);
}

impl Job<'_> {
    /// The plan of the segment that `piece` begins with these bytes, and the tables that must be stored for what is coded without a
    /// base; `None` when it equals an earlier one.
    fn plan(&self, piece: &Piece, bytes: &[u8], base: Option<&BasePiece>) -> Result<Option<Begun>> {
        if self.twins[piece.segment].is_some() {
            return Ok(None);
        }
        let segment = &self.layout.segments[piece.segment];
        let whole = piece.range == segment.range;
        if base.is_some_and(|base| whole && base.elements() == bytes) {
            // It does not matter how all of it would be coded otherwise.
            let (plain, tables) = Plan::zstd(zstd_level(self.options.mode)).ready(segment.element);
            return Ok(Some(Begun { plan: SegmentPlan { plain, delta: None }, tables }));
        }
        let shared = self.shared.of(segment.element);
        let plain = plan(self.source, segment, &self.layout.tensors, bytes, self.options, shared)?;
        let (plain, tables) = plain.ready(segment.element);
        let delta = match (base, Kind::of(segment.element)) {
            (Some(base), Some(kind)) if whole => DeltaPlan::of(kind, bytes, base.elements(), self.options.mode),
            (Some(_), Some(kind)) => {
                let (sampled, pieces) = sample(self.source, &segment.range, segment.element)?;
                let (mut sampled_base, piece_segment) = (Vec::with_capacity(sampled.len()), piece.segment);
                for (at, len) in pieces {
                    let piece = segment.range.start + at..segment.range.start + at + len as u64;
                    sampled_base.extend_from_slice(
                        self.base_of(&Piece { segment: piece_segment, range: piece })?
                            .expect("its segment has a base")
                            .elements(),
                    );
                }
                DeltaPlan::of(kind, &sampled, &sampled_base, self.options.mode)
            }
            _ => None,
        };
        let delta = delta.filter(|delta| delta.bits_per_bit < plain.bits_per_bit);
        Ok(Some(Begun { plan: SegmentPlan { plain, delta }, tables }))
    }

    /// What of the base a piece is coded against, if anything.
    fn base_of(&self, piece: &Piece) -> Result<Option<BasePiece>> {
        let (Some(place), Some(base)) = (&self.bases[piece.segment], self.base) else { return Ok(None) };
        let SegmentLayout { range, element, .. } = &self.layout.segments[piece.segment];
        let in_base = |at: u64| place.offset + (at - range.start) / element.size() as u64 * place.element.size() as u64;
        let mut bytes = vec![0; (in_base(piece.range.end) - in_base(piece.range.start)) as usize];
        base.read_at(in_base(piece.range.start), &mut bytes)?;
        let converted = (place.element != *element).then(|| {
            let mut converted = Vec::new();
            convert(place.element, *element, &bytes, &mut converted);
            converted
        });
        Ok(Some(BasePiece { element: place.element, bytes, converted }))
    }

    /// Codes a piece. `open` is the segment that it goes on with, if it does not begin one; `kept` are its chunks as an earlier run
    /// has recorded them.
    fn encode(&self, piece: &Piece, open: Option<&Begun>, bytes: &[u8], kept: &[StoredChunk]) -> Result<CodedPiece> {
        let segment = &self.layout.segments[piece.segment];
        let begins = piece.range.start == segment.range.start;
        let base = if self.twins[piece.segment].is_none() { self.base_of(piece)? } else { None };
        let begun = if begins { self.plan(piece, bytes, base.as_ref())? } else { None };
        // While the bytes of a segment are in the cache still to which its table was fitted.
        let encode = |begun: &Begun| {
            let SegmentPlan { plain, delta } = &begun.plan;
            let chunk_size = chunk_size(plain, segment.element, self.options) as usize;
            let first = |chunk: usize| {
                (piece.range.start - segment.range.start + (chunk * chunk_size) as u64) / segment.element.size() as u64
            };
            // What chunks of an earlier run are decoded with.
            let entry = self.bases[piece.segment].as_ref().map(|place| delta_entry(place, delta.as_ref()));
            let delta_tables = delta.as_ref().map_or(&[][..], |delta| &delta.tables);
            let chunks = bytes.par_chunks(chunk_size).enumerate();
            chunks
                .map(|(chunk, bytes)| {
                    let (element, tables, first) = (segment.element, &begun.tables[..], first(chunk));
                    let begin = chunk * chunk_size;
                    let range = begin..begin + bytes.len();
                    let base = base.as_ref().map(|base| base.of_chunk(range, element, delta.as_ref()));
                    let against = base.zip(entry.as_ref());
                    let against =
                        against.map(|(base, delta)| Against { delta, tables: delta_tables, base: base.bytes });
                    let place = Place { element, tables, scale: plain.scale(), first, against };
                    self.encode_chunk(plain, place, base, bytes, kept.get(chunk))
                })
                .collect::<Result<Vec<_>>>()
        };
        let chunks = begun.as_ref().or(open.filter(|_| !begins)).map_or(Ok(Vec::new()), encode)?;
        Ok(CodedPiece { begun, chunks })
    }

    fn encode_chunk(
        &self,
        plan: &ReadyPlan,
        place: Place<'_>,
        base: Option<chunk::Base<'_>>,
        bytes: &[u8],
        kept: Option<&StoredChunk>,
    ) -> Result<CodedChunk> {
        if self.progress.cancelled() {
            return Err(Error::new(ErrorKind::Cancelled, "cancelled"));
        }
        let mut coded = take(&self.spare.coded);
        let kept = kept.filter(|kept| self.is_kept(kept, place, bytes, &mut coded));
        let codec = kept.map(|kept| kept.codec).unwrap_or_else(|| {
            let mut buffers = take(&self.spare.buffers);
            let Place { element, first, .. } = place;
            let codec = match base {
                Some(base) => chunk::encode_against(base, plan, element, first, bytes, &mut buffers, &mut coded),
                None => chunk::encode(plan, element, first, bytes, &mut buffers, &mut coded),
            };
            give_back(&self.spare.buffers, buffers);
            codec
        });
        self.progress.advance(bytes.len() as u64);
        let kept_at = kept.map(|kept| kept.offset);
        Ok(CodedChunk { codec, checksum: checksum(&coded), bytes: coded, kept_at })
    }

    /// Whether an earlier run has stored these `bytes` as `chunk`: its stored bytes, which are left in `stored`, decode to them.
    fn is_kept(&self, chunk: &StoredChunk, place: Place<'_>, bytes: &[u8], stored: &mut Vec<u8>) -> bool {
        if !self.kept.is_some_and(|kept| kept.read(chunk, bytes.len(), stored)) {
            return false;
        }
        let (mut scratch, mut decoded) = take(&self.spare.decoders);
        decoded.resize(bytes.len(), 0);
        let is_kept = chunk::decode(chunk.codec, place, stored, &mut decoded, &mut scratch).is_ok() && decoded == bytes;
        give_back(&self.spare.decoders, (scratch, decoded));
        if is_kept {
            self.kept_len.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        }
        is_kept
    }
}

/// Where the bytes of a container go.
pub(super) enum Out<'a> {
    Stream(&'a mut (dyn Write + Send)),
    /// A file that may hold some of them already, and its journal.
    File(BufWriter<&'a mut NewFile>, Journal),
}

/// What has been stored.
struct Store<'a> {
    out: Out<'a>,
    chunks: Vec<StoredChunk>,
    /// Bytes written so far.
    end: u64,
}

impl Store<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let written = match &mut self.out {
            Out::Stream(out) => out.write_all(bytes),
            Out::File(file, _) => file.write_all(bytes),
        };
        written.map_err(cannot_write)?;
        self.end += bytes.len() as u64;
        Ok(())
    }

    /// Writes a chunk, unless it lies there already.
    fn write_chunk(&mut self, chunk: &CodedChunk) -> Result<()> {
        match &mut self.out {
            Out::File(file, _) if chunk.kept_at == Some(self.end) => {
                self.end += chunk.bytes.len() as u64;
                file.seek(SeekFrom::Start(self.end)).map_err(cannot_write)?;
                Ok(())
            }
            _ => self.write(&chunk.bytes),
        }
    }

    /// Writes the chunks of a window.
    fn write_window(&mut self, window: CodedWindow, kept: Option<&Kept>, spare: &Spare) -> Result<()> {
        let mut pieces = Vec::with_capacity(window.pieces.len());
        for piece in window.pieces {
            let first = self.chunks.len();
            for chunk in piece {
                let (codec, len) = (chunk.codec, chunk.bytes.len() as u32);
                self.chunks.push(StoredChunk { offset: self.end, len, codec, checksum: chunk.checksum });
                self.write_chunk(&chunk)?;
                give_back(&spare.coded, chunk.bytes);
            }
            pieces.push(self.chunks[first..].to_vec());
        }
        match (&mut self.out, kept) {
            (Out::File(_, journal), Some(kept)) => journal.record(window.number, &pieces, kept).map_err(cannot_write),
            _ => Ok(()),
        }
    }

    /// Ends the container.
    fn finish(&mut self) -> Result<()> {
        match &mut self.out {
            Out::Stream(out) => out.flush(),
            // What lies behind it is of an earlier run.
            Out::File(file, _) => file.flush().and_then(|()| file.get_ref().file().set_len(self.end)),
        }
        .map_err(cannot_write)
    }
}

fn cannot_write(error: std::io::Error) -> Error {
    Error::io("cannot write the container", error)
}

/// A segment that is coded, or begun.
#[derive(Clone)]
struct CodedSegment {
    /// What the index will say, but for the tables.
    entry: Segment,
    /// The tables for its chunks that are coded without a base.
    tables: Vec<Table>,
    /// Those for the others, that of codes first.
    delta_tables: Vec<Table>,
    uses: Uses,
}

/// What the chunks of a segment need of its entry.
#[derive(Clone, Copy, Default)]
struct Uses {
    /// Tables, or what else there is for chunks that are coded without a base.
    plain: bool,
    /// The base.
    base: bool,
    /// Tables for differences.
    delta: bool,
}

impl Uses {
    fn add(&mut self, codec: Codec) {
        match codec {
            Codec::Delta => (self.base, self.delta) = (true, true),
            Codec::Unchanged => self.base = true,
            _ => self.plain = true,
        }
    }
}

/// What has been coded.
struct Writer<'a> {
    job: Job<'a>,
    version: Version,
    /// The segment that the next window may go on with.
    open: Option<Begun>,
    segments: Vec<CodedSegment>,
    /// Stored chunks of the segments that have begun, the ones still to be written included.
    chunks_promised: u64,
}

impl Writer<'_> {
    /// Reads, hashes, codes and writes all windows, all of that at the same time.
    fn write_chunks(&mut self, windows: &[Vec<Piece>], hashes: &mut Hashes<'_>, store: &mut Store<'_>) -> Result<()> {
        let source = self.job.source;
        let (mut bytes, mut next_bytes, mut coded) = (Vec::new(), Vec::new(), None);
        if let Some(first) = windows.first() {
            read(source, first, &mut bytes, &mut hashes.sha256)?;
        }
        for (number, window) in windows.iter().enumerate() {
            let next = windows.get(number + 1);
            let Range { start, end } = range_of(window);
            let window_bytes = &bytes[..(end - start) as usize];
            let before = coded.take();
            let Hashes { sha256, tensors } = &mut *hashes;
            let Job { spare, kept, .. } = self.job;
            // The longest of all that cannot be shared between threads comes first.
            let (now, (read, ((), written))) = rayon::join(
                || self.encode(number, window, window_bytes),
                || {
                    rayon::join(
                        || next.map_or(Ok(()), |next| read(source, next, &mut next_bytes, sha256)),
                        || {
                            rayon::join(
                                || tensors.advance(end, end - start),
                                || before.map_or(Ok(()), |before| store.write_window(before, kept, spare)),
                            )
                        },
                    )
                },
            );
            written?;
            read?;
            coded = Some(CodedWindow { number, pieces: now? });
            std::mem::swap(&mut bytes, &mut next_bytes);
        }
        coded.map_or(Ok(()), |coded| store.write_window(coded, self.job.kept, self.job.spare))
    }

    /// The coded chunks of the pieces of a window, in order. Segments that begin in it get their place in the index.
    fn encode(&mut self, number: usize, window: &[Piece], bytes: &[u8]) -> Result<Vec<Vec<CodedChunk>>> {
        let start = range_of(window).start;
        let bytes_of = |range: &Range<u64>| &bytes[(range.start - start) as usize..(range.end - start) as usize];
        let (job, open) = (&self.job, self.open.take());
        let pieces = window.par_iter().enumerate().map(|(place, piece)| {
            let kept = job.kept.map_or(&[][..], |kept| kept.chunks(number, place));
            job.encode(piece, open.as_ref(), bytes_of(&piece.range), kept)
        });
        let pieces = pieces.collect::<Result<Vec<_>>>()?;
        let mut last = open;
        let mut chunks = Vec::with_capacity(window.len());
        for (piece, coded) in window.iter().zip(pieces) {
            if piece.range.start == self.job.layout.segments[piece.segment].range.start {
                last = self.index_segment(piece.segment, coded.begun);
            }
            let uses = &mut self.segments.last_mut().expect("a piece is of a segment that has begun").uses;
            coded.chunks.iter().for_each(|chunk| uses.add(chunk.codec));
            chunks.push(coded.chunks);
        }
        self.open = last;
        Ok(chunks)
    }

    /// Adds a segment to the index and gives it back; without a plan it shares the chunks of the segment that it
    /// equals.
    fn index_segment(&mut self, segment: usize, begun: Option<Begun>) -> Option<Begun> {
        let SegmentLayout { range, element, .. } = &self.job.layout.segments[segment];
        let (coded, begun) = match (begun, self.job.twins[segment]) {
            (Some(begun), _) => {
                let SegmentPlan { plain, delta } = &begun.plan;
                let entry = Segment {
                    range: range.clone(),
                    element: *element,
                    chunk_size: chunk_size(plain, *element, self.job.options),
                    first_chunk: self.chunks_promised,
                    tables: 0..0,
                    scale: plain.scale().cloned(),
                    delta: self.job.bases[segment].map(|base| delta_entry(&base, delta.as_ref())),
                };
                let delta_tables = delta.as_ref().map_or(Vec::new(), |delta| delta.tables.clone());
                self.chunks_promised += entry.chunks();
                let tables = begun.tables.clone();
                (CodedSegment { entry, tables, delta_tables, uses: Uses::default() }, Some(begun))
            }
            (None, Some(twin)) => {
                self.job.progress.advance(range.end - range.start);
                let mut coded = self.segments[twin].clone();
                coded.entry.range = range.clone();
                (coded, None)
            }
            (None, None) => unreachable!("only a segment that equals another has no plan"),
        };
        self.segments.push(coded);
        begun
    }

    /// Writes the index and what follows it.
    fn finish(self, name: &str, sha256: [u8; 32], md5s: Vec<Md5>, mut store: Store<'_>) -> Result<Summary> {
        let mut tables = Tables::default();
        let mut segments = Vec::with_capacity(self.segments.len());
        for CodedSegment { mut entry, tables: plain, delta_tables, uses } in self.segments {
            if let Some(mut delta) = entry.delta.take().filter(|_| uses.base) {
                if uses.delta {
                    delta.tables = tables.store(delta_tables);
                } else {
                    (delta.origin, delta.thresholds) = (0, Vec::new());
                }
                entry.delta = Some(delta);
            }
            // What a base made superfluous is not stored.
            if uses.plain || entry.delta.is_none() {
                entry.tables = tables.store(plain);
            } else {
                entry.scale = None;
            }
            segments.push(entry);
        }
        let base = self.job.base.and_then(|base| keep_used(base.record().clone(), &mut segments));
        let tensor = |(layout, md5): (&TensorLayout, Md5)| Tensor {
            name: layout.name.clone(),
            dtype: layout.dtype.clone(),
            shape: layout.shape.clone(),
            range: layout.range.clone(),
            md5,
        };
        let index = Index {
            original: OriginalInfo { name: name.to_owned(), len: self.job.source.len(), sha256 },
            segments,
            tensors: self.job.layout.tensors.iter().zip(md5s).map(tensor).collect(),
            tables: tables.all,
            chunks: std::mem::take(&mut store.chunks),
            base,
        };
        let tail = frame::tail(self.version, &index.write(), store.end);
        store.write(&tail)?;
        store.finish()?;
        let kept_len = self.job.kept_len.into_inner();
        let is_patch = index.base.is_some();
        Ok(Summary { original_len: index.original.len, stored_len: store.end, sha256, kept_len, is_patch })
    }
}

/// The tables of all segments; runs of them that are equal are stored once.
#[derive(Default)]
struct Tables {
    all: Vec<Table>,
    /// Where runs begin that are there already.
    known: HashMap<Vec<Table>, usize>,
}

impl Tables {
    /// Where the given tables stand in the index, one behind the other.
    fn store(&mut self, tables: Vec<Table>) -> Range<usize> {
        let len = tables.len();
        let start = *self.known.entry(tables).or_insert_with_key(|tables| {
            self.all.extend_from_slice(tables);
            self.all.len() - len
        });
        start..start + len
    }
}

/// Leaves the tensors of a base out that no segment is coded against; `None` if none is left.
fn keep_used(record: BaseRecord, segments: &mut [Segment]) -> Option<BaseRecord> {
    let elements = |segment: &Segment| (segment.range.end - segment.range.start) / segment.element.size() as u64;
    // Those of two segments are the same or have nothing in common.
    let mut used: Vec<Range<u64>> = segments
        .iter()
        .filter_map(|segment| segment.delta.as_ref().map(|delta| delta.base_range(0, elements(segment))))
        .collect();
    used.sort_unstable_by_key(|range| range.start);
    let mut tensors = Vec::new();
    // Where the ones that are kept begin, before and after.
    let mut places: Vec<(u64, u64)> = Vec::new();
    let (mut before, mut after) = (0, 0);
    for tensor in record.tensors {
        let (start, end) = (before, before + tensor.len);
        before = end;
        let last = used[..used.partition_point(|used| used.start < end)].last();
        if last.is_some_and(|used| used.end > start) {
            places.push((start, after));
            after += tensor.len;
            tensors.push(tensor);
        }
    }
    for delta in segments.iter_mut().filter_map(|segment| segment.delta.as_mut()) {
        let (before, after) = places[places.partition_point(|place| place.0 <= delta.offset) - 1];
        delta.offset = delta.offset - before + after;
    }
    (!tensors.is_empty()).then_some(BaseRecord { tensors, ..record })
}

/// The plan of a segment of `source`, one that holds some of `tensors`, made from its `beginning` if that is all of it, else
/// from a sample. `shared` is what the segments of its kind may share.
pub(crate) fn plan(
    source: &dyn Original,
    segment: &SegmentLayout,
    tensors: &[TensorLayout],
    beginning: &[u8],
    options: &Options,
    shared: Shared<'_>,
) -> Result<Plan> {
    let SegmentLayout { range, element, content, .. } = segment;
    let mode = options.mode;
    if *content == Content::Header {
        return Ok(Plan::zstd(zstd_level(mode).max(HEADER_LEVEL)));
    }
    let len = range.end - range.start;
    let whole = beginning.len() as u64 == len;
    let (sampled, pieces);
    let bytes = if whole {
        pieces = vec![(0, beginning.len())];
        beginning
    } else {
        (sampled, pieces) = sample(source, range, *element)?;
        &sampled
    };
    let size = element.size();
    // Chunks of normalised elements begin with a quad.
    let may_scale = element.float_split().is_some() && (options.chunk_size as usize).is_multiple_of(QUAD * size);
    let dims = segment.dims(tensors).filter(|_| may_scale);
    let shape = dims.map(|dims| (pieces, Shape { elements: len / size as u64, dims }));
    let chunk_size = whole_elements(*element, options.chunk_size);
    let sample = Sample { element: *element, bytes, len, chunk_size, shape };
    let mut plan = Plan::of(&sample, mode, shared);
    // A file of any kind may begin with what the rest of it has nothing in common with.
    if *content != Content::Opaque || whole {
        plan.lengthen_chunks(beginning, chunk_size as usize);
    }
    Ok(plan)
}

/// Bytes of the original in a chunk of a segment with this plan.
pub(crate) fn chunk_size(plan: &ReadyPlan, element: Element, options: &Options) -> u32 {
    let chunk_size = whole_elements(element, options.chunk_size);
    if plan.long_chunks { longest_piece(chunk_size) as u32 } else { chunk_size }
}

/// Pieces of a long segment of such elements, spread evenly over it, whole elements all; and where in it each begins, with its
/// length.
fn sample(source: &dyn Original, range: &Range<u64>, element: Element) -> Result<(Vec<u8>, Pieces)> {
    // Pieces begin at multiples of it: whole quads of the largest elements that are normalised, or whole blocks.
    let alignment = match element {
        Element::Blocks(kind) => kind.bytes(),
        _ => QUAD * size_of::<u32>(),
    } as u64;
    let len = range.end - range.start;
    let pieces = SAMPLE / SAMPLE_PIECE;
    let piece = SAMPLE_PIECE / alignment * alignment;
    let mut sample = vec![0; (pieces * piece) as usize];
    let mut places = Vec::new();
    for (number, piece) in sample.chunks_exact_mut(piece as usize).enumerate() {
        let offset = (len - SAMPLE_PIECE) / (pieces - 1) * number as u64;
        let offset = offset / alignment * alignment;
        source.read_at(range.start + offset, piece)?;
        places.push((offset, piece.len()));
    }
    Ok((sample, places))
}

/// What segments of a kind share, which need then not pay for tables of their own: for each kind of floats one table made from
/// all short segments, for each type of blocks a plan made from a piece of each segment.
pub(crate) struct SharedTables {
    tables: HashMap<Element, Table>,
    blocks: HashMap<Element, BlockPlan<Table>>,
}

/// Bytes of a segment of blocks that are looked at for what all of its type share, and those of all of them, about.
const SHARED_PIECE: u64 = 32 << 10;
const SHARED_BLOCKS: u64 = 4 << 20;

impl SharedTables {
    /// Those of `segments`, but for those that equal an earlier one.
    ///
    /// # Errors
    /// Those of reading `source`.
    pub(crate) fn fit(
        source: &dyn Original,
        segments: &[SegmentLayout],
        twins: &[Option<usize>],
    ) -> Result<SharedTables> {
        let mut statistics = HashMap::<Element, (KeyStatistics, u64)>::new();
        let mut bytes = Vec::new();
        for (segment, _) in segments.iter().zip(twins).filter(|(_, twin)| twin.is_none()) {
            let len = segment.range.end - segment.range.start;
            let Some(split) = segment.element.float_split().filter(|_| len < MAY_SHARE_TABLE) else { continue };
            let (statistics, taken) =
                statistics.entry(segment.element).or_insert_with(|| (KeyStatistics::new(split), 0));
            if *taken < SHARED_SAMPLE {
                *taken += len;
                bytes.resize(len as usize, 0);
                source.read_at(segment.range.start, &mut bytes)?;
                statistics.add(&bytes);
            }
        }
        let tables = statistics
            .into_iter()
            .filter_map(|(element, (statistics, _))| Some((element, Table::fit(statistics.counts())?)));
        Ok(SharedTables { tables: tables.collect(), blocks: fit_blocks(source, segments, twins)? })
    }

    /// What segments of this kind share.
    pub(crate) fn of(&self, element: Element) -> Shared<'_> {
        match (self.blocks.get(&element), self.tables.get(&element)) {
            (Some(plan), _) => Shared::Blocks(plan),
            (None, Some(table)) => Shared::Table(table),
            (None, None) => Shared::None,
        }
    }
}

/// The plan for each type of blocks that there is more than one segment of.
fn fit_blocks(
    source: &dyn Original,
    segments: &[SegmentLayout],
    twins: &[Option<usize>],
) -> Result<HashMap<Element, BlockPlan<Table>>> {
    let mut of_type = HashMap::<Element, Vec<&Range<u64>>>::new();
    for (segment, _) in segments.iter().zip(twins).filter(|(_, twin)| twin.is_none()) {
        if let Element::Blocks(_) = segment.element {
            of_type.entry(segment.element).or_default().push(&segment.range);
        }
    }
    let mut plans = HashMap::new();
    let mut bytes = Vec::new();
    for (element, ranges) in of_type.into_iter().filter(|(_, ranges)| ranges.len() > 1) {
        let Element::Blocks(kind) = element else { continue };
        let size = kind.bytes() as u64;
        let mut statistics = BlockStatistics::new(kind);
        let all: u64 = ranges.iter().map(|range| range.end - range.start).sum();
        let step = (ranges.len() as u64).div_ceil(SHARED_BLOCKS / SHARED_PIECE) as usize;
        let mut taken = 0;
        for range in ranges.iter().step_by(step) {
            let len = (range.end - range.start).min(SHARED_PIECE) / size * size;
            let from = (range.end - range.start - len) / 2 / size * size;
            bytes.resize(len as usize, 0);
            source.read_at(range.start + from, &mut bytes)?;
            statistics.add(&bytes);
            taken += len;
        }
        plans.extend(statistics.fit(all as f64 / taken as f64).map(|(plan, _)| (element, plan)));
    }
    Ok(plans)
}
