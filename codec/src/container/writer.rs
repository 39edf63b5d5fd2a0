//! Writing a container: original -> segments -> chunks -> codec -> bytes in order.
//!
//! The original is read once from front to back in *windows* of some megabytes, plus a sample of each segment that is
//! longer than a window, so that memory is bounded whatever the size of the file. Inside a window everything runs in
//! parallel: the SHA-256 of the original, the MD5 of each tensor, the plan of each segment and the coding of each chunk.
//! What is written depends on the source and the options alone.

use std::collections::HashMap;
use std::io::Write;
use std::ops::Range;

use md5::Md5;
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::duplicates;
use super::frame;
use super::index::{Index, LONGEST_NAME, OriginalInfo, Segment, StoredChunk, Tensor};
use crate::Progress;
use crate::checksum::checksum;
use crate::chunk::block::Buffers;
use crate::chunk::plan::{MAY_SHARE_TABLE, Plan, ReadyPlan, zstd_level};
use crate::chunk::statistics::KeyStatistics;
use crate::chunk::{self, Codec};
use crate::error::{Error, ErrorKind, Result};
use crate::original::{DEFAULT_CHUNK_SIZE, MAX_CHUNK_SIZE, Original};
use crate::rans::Table;
use crate::safetensors::{Content, Layout, SegmentLayout, TensorLayout};
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

/// What [`compress`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Bytes of the original.
    pub original_len: u64,
    /// Bytes of the container.
    pub stored_len: u64,
    /// The SHA-256 of the original.
    pub sha256: [u8; 32],
}

/// Bytes of the original that are in memory at a time (or one chunk, if that is larger).
const WINDOW: u64 = 16 << 20;

/// Segments in a window, since each has a plan in memory.
const WINDOW_SEGMENTS: usize = 512;

/// Bytes that one thread reads at a time.
const READ: usize = 2 << 20;

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
    let twins = duplicates::find(source, &layout.segments)?;
    let shared = SharedTables::fit(source, &layout.segments, &twins)?;
    let mut writer = Writer {
        job: Job { source, options, layout: &layout, twins, shared, progress },
        out,
        plans: HashMap::new(),
        known_tables: HashMap::new(),
        tensor_hashes: TensorHashes { tensors: &layout.tensors, done: Vec::new(), open: None },
        segments: Vec::new(),
        tables: Vec::new(),
        chunks: Vec::new(),
        chunks_promised: 0,
        end: 0,
    };
    writer.write(&frame::preamble())?;
    let mut sha256 = Sha256::new();
    let mut buffer = Vec::new();
    for window in windows(&layout.segments, options.chunk_size) {
        writer.window(&window, &mut buffer, &mut sha256)?;
    }
    source.check_unchanged()?;
    writer.finish(name, sha256.finalize().into())
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
    let longest_piece = (WINDOW / u64::from(chunk_size)).max(1) * u64::from(chunk_size);
    let mut windows: Vec<Vec<Piece>> = Vec::new();
    let mut room = 0;
    for (segment, layout) in segments.iter().enumerate() {
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

/// A chunk coded and ready to be written.
struct CodedChunk {
    codec: Codec,
    bytes: Vec<u8>,
    checksum: u64,
}

/// What is to be done, settled before the first byte is written.
struct Job<'a> {
    source: &'a dyn Original,
    options: &'a Options,
    layout: &'a Layout,
    /// For each segment the earlier one that it equals.
    twins: Vec<Option<usize>>,
    shared: SharedTables,
    progress: &'a dyn Progress,
}

impl Job<'_> {
    /// The plan of the segment that `piece` begins; `None` when it equals an earlier one.
    fn plan<'b>(&self, piece: &Piece, bytes_of: &(dyn Fn(&Range<u64>) -> &'b [u8] + Sync)) -> Result<Option<Plan>> {
        if self.twins[piece.segment].is_some() {
            return Ok(None);
        }
        let SegmentLayout { range, element, content } = &self.layout.segments[piece.segment];
        let mode = self.options.mode;
        if *content == Content::Header {
            return Ok(Some(Plan::Zstd { level: zstd_level(mode).max(HEADER_LEVEL) }));
        }
        let len = range.end - range.start;
        let shared = self.shared.of(*element);
        Ok(Some(if piece.range == *range {
            Plan::of(*element, bytes_of(range), len, mode, shared)
        } else {
            Plan::of(*element, &sample(self.source, range)?, len, mode, shared)
        }))
    }
}

/// What has been done.
struct Writer<'a> {
    job: Job<'a>,
    out: &'a mut (dyn Write + Send),
    /// The plans of the segments of this window.
    plans: HashMap<usize, ReadyPlan>,
    /// Where runs of tables that are already stored begin.
    known_tables: HashMap<Vec<Table>, usize>,
    tensor_hashes: TensorHashes<'a>,
    segments: Vec<Segment>,
    tables: Vec<Table>,
    chunks: Vec<StoredChunk>,
    /// Stored chunks of the segments that have begun, the ones still to be written included.
    chunks_promised: u64,
    /// Bytes written so far.
    end: u64,
}

impl Writer<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(|e| Error::io("cannot write the container", e))?;
        self.end += bytes.len() as u64;
        Ok(())
    }

    /// Reads, hashes, codes and writes the pieces of a window.
    fn window(&mut self, window: &[Piece], buffer: &mut Vec<u8>, sha256: &mut Sha256) -> Result<()> {
        let start = window[0].range.start;
        let end = window[window.len() - 1].range.end;
        buffer.resize((end - start) as usize, 0);
        let source = self.job.source;
        let read = |(number, part): (usize, &mut [u8])| source.read_at(start + (number * READ) as u64, part);
        buffer.par_chunks_mut(READ).enumerate().try_for_each(read)?;
        let bytes_of = |range: &Range<u64>| &buffer[(range.start - start) as usize..(range.end - start) as usize];

        let mut hashes = std::mem::take(&mut self.tensor_hashes);
        let (coded, ()) = rayon::join(
            || self.encode(window, &bytes_of),
            || {
                rayon::join(|| sha256.update(&*buffer), || hashes.add(start..end, &bytes_of));
            },
        );
        self.tensor_hashes = hashes;
        for chunk in coded? {
            self.chunks.push(StoredChunk {
                offset: self.end,
                len: chunk.bytes.len() as u32,
                codec: chunk.codec,
                checksum: chunk.checksum,
            });
            self.write(&chunk.bytes)?;
        }
        Ok(())
    }

    /// The coded chunks of a window, in order. Segments that begin in it get their plan and their place in the index.
    fn encode<'b>(
        &mut self,
        window: &[Piece],
        bytes_of: &(dyn Fn(&Range<u64>) -> &'b [u8] + Sync),
    ) -> Result<Vec<CodedChunk>> {
        self.plans.retain(|&segment, _| segment == window[0].segment);
        let begun =
            window.iter().filter(|piece| piece.range.start == self.job.layout.segments[piece.segment].range.start);
        let begun: Vec<&Piece> = begun.collect();
        let job = &self.job;
        let plans = begun.par_iter().map(|piece| Ok(job.plan(piece, bytes_of)?.map(Plan::ready)));
        let plans = plans.collect::<Result<Vec<_>>>()?;
        for (piece, plan) in begun.into_iter().zip(plans) {
            self.index_segment(piece.segment, plan);
        }
        let chunks: Vec<(usize, Range<u64>)> = window
            .iter()
            .filter(|piece| self.plans.contains_key(&piece.segment))
            .flat_map(|piece| {
                let step = u64::from(self.job.options.chunk_size);
                let end = piece.range.end;
                let starts = piece.range.clone().step_by(step as usize);
                starts.map(move |start| (piece.segment, start..end.min(start + step)))
            })
            .collect();
        let (job, plans) = (&self.job, &self.plans);
        let encode = |buffers: &mut Buffers, (segment, range): &(usize, Range<u64>)| {
            if job.progress.cancelled() {
                return Err(Error::new(ErrorKind::Cancelled, "cancelled"));
            }
            let mut bytes = Vec::new();
            let element = job.layout.segments[*segment].element;
            let codec = chunk::encode(&plans[segment], element, bytes_of(range), buffers, &mut bytes);
            job.progress.advance(range.end - range.start);
            Ok(CodedChunk { codec, checksum: checksum(&bytes), bytes })
        };
        chunks.par_iter().map_init(Buffers::default, encode).collect()
    }

    /// Adds a segment to the index and keeps its plan; without one it shares the chunks of the segment that it equals.
    fn index_segment(&mut self, segment: usize, plan: Option<(ReadyPlan, Vec<Table>)>) {
        let SegmentLayout { range, element, .. } = &self.job.layout.segments[segment];
        let entry = match (plan, self.job.twins[segment]) {
            (Some((plan, tables)), _) => {
                self.plans.insert(segment, plan);
                let entry = Segment {
                    range: range.clone(),
                    element: *element,
                    chunk_size: self.job.options.chunk_size,
                    first_chunk: self.chunks_promised,
                    tables: self.store_tables(tables),
                };
                self.chunks_promised += entry.chunks();
                entry
            }
            (None, Some(twin)) => {
                self.job.progress.advance(range.end - range.start);
                Segment { range: range.clone(), ..self.segments[twin].clone() }
            }
            (None, None) => unreachable!("only a segment that equals another has no plan"),
        };
        self.segments.push(entry);
    }

    /// Where the given tables stand in the index, one behind the other.
    fn store_tables(&mut self, tables: Vec<Table>) -> Range<usize> {
        let len = tables.len();
        let start = *self.known_tables.entry(tables).or_insert_with_key(|tables| {
            self.tables.extend_from_slice(tables);
            self.tables.len() - len
        });
        start..start + len
    }

    /// Writes the index and what follows it.
    fn finish(mut self, name: &str, sha256: [u8; 32]) -> Result<Summary> {
        let original = OriginalInfo { name: name.to_owned(), len: self.job.source.len(), sha256 };
        let index = Index {
            original,
            segments: std::mem::take(&mut self.segments),
            tensors: std::mem::take(&mut self.tensor_hashes).finish(),
            tables: std::mem::take(&mut self.tables),
            chunks: std::mem::take(&mut self.chunks),
        };
        let tail = frame::tail(&index.write(), self.end);
        self.write(&tail)?;
        self.out.flush().map_err(|e| Error::io("cannot write the container", e))?;
        Ok(Summary { original_len: index.original.len, stored_len: self.end, sha256 })
    }
}

/// Pieces of a long segment, spread evenly over it, whole elements all.
fn sample(source: &dyn Original, range: &Range<u64>) -> Result<Vec<u8>> {
    let len = range.end - range.start;
    let pieces = SAMPLE / SAMPLE_PIECE;
    let mut sample = vec![0; SAMPLE as usize];
    for (number, piece) in sample.chunks_exact_mut(SAMPLE_PIECE as usize).enumerate() {
        let offset = (len - SAMPLE_PIECE) / (pieces - 1) * number as u64;
        // Elements are at most 8 bytes, and a segment starts with a whole one.
        source.read_at(range.start + offset / 8 * 8, piece)?;
    }
    Ok(sample)
}

/// The MD5 of each tensor, taken as the windows go by.
#[derive(Default)]
struct TensorHashes<'a> {
    tensors: &'a [TensorLayout],
    /// Of the first tensors, in order.
    done: Vec<[u8; 16]>,
    /// The state of the next tensor, if some of its bytes went by already.
    open: Option<Md5>,
}

impl TensorHashes<'_> {
    /// Takes the bytes of `window`, which follow those that were taken before.
    fn add<'b>(&mut self, window: Range<u64>, bytes_of: &(dyn Fn(&Range<u64>) -> &'b [u8] + Sync)) {
        let rest = &self.tensors[self.done.len()..];
        let touched = &rest[..rest.partition_point(|tensor| tensor.range.start < window.end)];
        let open = self.open.take();
        let mut hashes: Vec<Md5> = touched
            .par_iter()
            .enumerate()
            .map(|(number, tensor)| {
                let mut hash = if number == 0 { open.clone() } else { None }.unwrap_or_default();
                let (start, end) = (tensor.range.start.max(window.start), tensor.range.end.min(window.end));
                if start < end {
                    hash.update(bytes_of(&(start..end)));
                }
                hash
            })
            .collect();
        if touched.last().is_some_and(|tensor| tensor.range.end > window.end) {
            self.open = hashes.pop();
        }
        self.done.extend(hashes.into_iter().map(|hash| <[u8; 16]>::from(hash.finalize())));
    }

    /// The tensors with their MD5.
    fn finish(mut self) -> Vec<Tensor> {
        // Those left are empty and lie at the very end.
        self.done.resize(self.tensors.len(), Md5::digest([]).into());
        let tensors = self.tensors.iter().zip(self.done);
        tensors
            .map(|(layout, md5)| Tensor {
                name: layout.name.clone(),
                dtype: layout.dtype.clone(),
                shape: layout.shape.clone(),
                range: layout.range.clone(),
                md5,
            })
            .collect()
    }
}

/// For each kind of floats one table made from all short segments, which need then not pay for one each.
struct SharedTables {
    tables: HashMap<Element, Table>,
}

impl SharedTables {
    fn fit(source: &dyn Original, segments: &[SegmentLayout], twins: &[Option<usize>]) -> Result<SharedTables> {
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
        Ok(SharedTables { tables: tables.collect() })
    }

    fn of(&self, element: Element) -> Option<&Table> {
        self.tables.get(&element)
    }
}
