//! The index of a container: what the original is, its segments, tensors, tables and stored chunks.

use std::ops::Range;

use crate::checksum::checksum;
use crate::chunk::Codec;
use crate::chunk::delta::{Delta, MAX_TABLES};
use crate::chunk::scale::{MAX_PHASES, QUAD, Scale};
use crate::error::{Error, Result};
use crate::original::{Grid, MAX_CHUNK_SIZE};
use crate::patch::BaseRecord;
use crate::rans::Table;
use crate::split::Element;
use crate::wire::{Put, Reader};

/// A tensor as the container records it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// Its name in the header of the original.
    pub name: String,
    /// Its dtype as the header spells it.
    pub dtype: String,
    /// Its shape.
    pub shape: Vec<u64>,
    /// Where its bytes lie in the original.
    pub range: Range<u64>,
    /// The MD5 of its bytes.
    pub md5: [u8; 16],
}

/// What the container says about the original as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OriginalInfo {
    /// The file name, without a directory.
    pub(crate) name: String,
    /// Bytes.
    pub(crate) len: u64,
    pub(crate) sha256: [u8; 32],
}

/// A contiguous part of the original that is treated alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Where it lies in the original.
    pub(crate) range: Range<u64>,
    pub(crate) element: Element,
    /// Bytes of the original per chunk; the last chunk may be shorter.
    pub(crate) chunk_size: u32,
    /// The position of its first chunk among the stored ones. Segments with equal bytes may share their chunks.
    pub(crate) first_chunk: u64,
    /// The positions of its tables.
    pub(crate) tables: Range<usize>,
    /// How its elements are normalised, if they are; it then has a table for each phase.
    pub(crate) scale: Option<Scale>,
    /// What they are coded against, if they are.
    pub(crate) delta: Option<Delta>,
}

impl Segment {
    /// The number of its chunks.
    pub(crate) fn chunks(&self) -> u64 {
        (self.range.end - self.range.start).div_ceil(u64::from(self.chunk_size))
    }
}

/// A stored chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StoredChunk {
    /// Where it begins in the container.
    pub(crate) offset: u64,
    /// Its stored bytes.
    pub(crate) len: u32,
    pub(crate) codec: Codec,
    /// The checksum of its stored bytes.
    pub(crate) checksum: u64,
}

impl StoredChunk {
    /// Whether `bytes` are those that were stored.
    pub(crate) fn is(&self, bytes: &[u8]) -> bool {
        bytes.len() == self.len as usize && checksum(bytes) == self.checksum
    }
}

/// Bits of the stored length in a chunk's entry; the codec's number is above them.
const LENGTH_BITS: u32 = 26;

/// Bytes of a chunk's entry.
const CHUNK_ENTRY_BYTES: usize = 12;

/// The whole index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Index {
    pub(crate) original: OriginalInfo,
    pub(crate) segments: Vec<Segment>,
    /// By the position of their bytes.
    pub(crate) tensors: Vec<Tensor>,
    pub(crate) tables: Vec<Table>,
    pub(crate) chunks: Vec<StoredChunk>,
    /// Only of a patch.
    pub(crate) base: Option<BaseRecord>,
}

/// The sections of an index, as bytes.
pub(crate) struct Sections<T> {
    pub(crate) original: T,
    pub(crate) segments: T,
    pub(crate) tensors: T,
    pub(crate) tables: T,
    pub(crate) chunks: T,
    pub(crate) base: Option<T>,
}

impl Index {
    /// The sections of this index.
    pub(crate) fn write(&self) -> Sections<Vec<u8>> {
        Sections {
            original: self.write_original(),
            segments: self.write_segments(),
            tensors: self.write_tensors(),
            tables: self.write_tables(),
            chunks: self.write_chunks(),
            base: self.base.as_ref().map(BaseRecord::write),
        }
    }

    /// Reads and checks an index whose first stored chunk begins at `data_start`, and gives the grid of the original
    /// beside it. Nothing in a `Sections` is trusted.
    pub(crate) fn read(sections: &Sections<Vec<u8>>, data_start: u64) -> Result<(Index, Grid)> {
        let original = read_original(&sections.original).map_err(|e| e.context("section FILE"))?;
        let tables = read_tables(&sections.tables).map_err(|e| e.context("section TABL"))?;
        let chunks = read_chunks(&sections.chunks, data_start).map_err(|e| e.context("section CHNK"))?;
        let base = sections.base.as_deref().map(BaseRecord::read).transpose().map_err(|e| e.context("section BASE"))?;
        let base_len = base.as_ref().map(BaseRecord::tensors_len);
        let segments = read_segments(&sections.segments, chunks.len() as u64, tables.len(), base_len)
            .map_err(|e| e.context("section SEGM"))?;
        let tensors = read_tensors(&sections.tensors, original.len).map_err(|e| e.context("section TENS"))?;
        let mut grid = Grid::new();
        for segment in &segments {
            grid.push(segment.range.end - segment.range.start, segment.chunk_size)?;
        }
        if grid.len() != original.len {
            return Err(Error::corrupt(format!(
                "the segments hold {} bytes, the original has {}",
                grid.len(),
                original.len
            )));
        }
        Ok((Index { original, segments, tensors, tables, chunks, base }, grid))
    }

    fn write_original(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_bytes(self.original.name.as_bytes());
        out.put_varint(self.original.len);
        out.extend_from_slice(&self.original.sha256);
        out
    }

    fn write_segments(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_varint(self.segments.len() as u64);
        for segment in &self.segments {
            out.put_varint(segment.range.end - segment.range.start);
            out.push(segment.element.code());
            let scale = if segment.scale.is_some() { transform::SCALE } else { transform::NONE };
            out.push(scale | if segment.delta.is_some() { transform::DELTA } else { transform::NONE });
            out.put_varint(u64::from(segment.chunk_size));
            out.put_varint(segment.first_chunk);
            out.put_varint(segment.tables.start as u64);
            out.put_varint(segment.tables.len() as u64);
            if let Some(scale) = &segment.scale {
                out.put_varint(scale.run);
                out.push(scale.phases | if scale.half_octaves { HALF_OCTAVES } else { 0 });
                out.put_varint(scale.columns.len() as u64);
            }
            if let Some(delta) = &segment.delta {
                out.put_varint(delta.offset);
                out.push(delta.element.code());
                out.put_u16(delta.origin as u16);
                out.put_varint(delta.tables.start as u64);
                out.put_varint(delta.tables.len() as u64);
                out.extend_from_slice(&delta.thresholds);
            }
        }
        // Apart from the rest, which they have nothing in common with.
        for scale in self.segments.iter().filter_map(|segment| segment.scale.as_ref()) {
            out.extend(scale.columns.iter().map(|&code| code as u8));
        }
        out
    }

    fn write_tensors(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_varint(self.tensors.len() as u64);
        for tensor in &self.tensors {
            out.put_bytes(tensor.name.as_bytes());
            out.put_bytes(tensor.dtype.as_bytes());
            out.put_varint(tensor.shape.len() as u64);
            tensor.shape.iter().for_each(|&dim| out.put_varint(dim));
            out.put_varint(tensor.range.start);
            out.put_varint(tensor.range.end - tensor.range.start);
        }
        // Apart from the rest, which compresses much better than they do.
        self.tensors.iter().for_each(|tensor| out.extend_from_slice(&tensor.md5));
        out
    }

    fn write_tables(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_varint(self.tables.len() as u64);
        self.tables.iter().for_each(|table| table.write(&mut out));
        out
    }

    fn write_chunks(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.chunks.len() * CHUNK_ENTRY_BYTES);
        for chunk in &self.chunks {
            out.put_u32(chunk.len | u32::from(chunk.codec.code()) << LENGTH_BITS);
            out.put_u64(chunk.checksum);
        }
        out
    }
}

/// What is done to the elements of a segment before they are coded, bit by bit.
mod transform {
    pub(super) const NONE: u8 = 0;
    pub(super) const SCALE: u8 = 1;
    pub(super) const DELTA: u8 = 2;
}

/// Set beside the number of phases when the codes of columns count halves of octaves.
const HALF_OCTAVES: u8 = 0x80;

fn read_original(section: &[u8]) -> Result<OriginalInfo> {
    let mut reader = Reader::new(section);
    let name = read_string(&mut reader)?;
    let forbidden = |c: char| c == '/' || c == '\0';
    if name.is_empty() || name == "." || name == ".." || name.len() > LONGEST_NAME || name.contains(forbidden) {
        return Err(Error::corrupt(format!("{name:?} is no file name")));
    }
    let original = OriginalInfo { name, len: reader.varint()?, sha256: reader.array()? };
    reader.finish()?;
    Ok(original)
}

/// The longest file name that file systems take, in bytes.
pub(crate) const LONGEST_NAME: usize = 255;

/// `base_len` is the number of bytes that the tensors of the base have which a patch uses.
fn read_segments(section: &[u8], stored_chunks: u64, all_tables: usize, base_len: Option<u64>) -> Result<Vec<Segment>> {
    let mut reader = Reader::new(section);
    let count = reader.count(7)?;
    let mut segments: Vec<Segment> = Vec::with_capacity(count);
    let mut start = 0u64;
    // Of all segments so far.
    let mut columns = 0;
    for number in 0..count {
        let len = reader.varint()?;
        let end = start.checked_add(len).filter(|_| len > 0);
        let element = Element::from_code(reader.u8()?)?;
        let transform = reader.u8()?;
        let chunk_size = reader.varint_up_to(u64::from(MAX_CHUNK_SIZE))? as u32;
        let first_chunk = reader.varint()?;
        let first_table = reader.varint_up_to(all_tables as u64)? as usize;
        let tables = reader.varint_up_to((all_tables - first_table) as u64)? as usize;
        let Some(end) = end else { return Err(Error::corrupt(format!("segment {number} is empty or too long"))) };
        if chunk_size == 0 || !(chunk_size as usize).is_multiple_of(element.size()) {
            return Err(Error::corrupt(format!("segment {number} has chunks of {chunk_size} bytes")));
        }
        if transform & !(transform::SCALE | transform::DELTA) != 0 {
            return Err(Error::unsupported(format!(
                "segment {number} uses a transform that this version does not know"
            )));
        }
        let scale = if transform & transform::SCALE != 0 {
            let scale = read_scale(&mut reader, columns).map_err(|e| e.context(format_args!("segment {number}")))?;
            columns += scale.columns.len();
            Some(scale)
        } else {
            None
        };
        let delta = if transform & transform::DELTA != 0 {
            let delta = read_delta(&mut reader, element, len, all_tables, base_len);
            Some(delta.map_err(|e| e.context(format_args!("segment {number}")))?)
        } else {
            None
        };
        if let Some(scale) = &scale
            && (element.float_split().is_none()
                || tables != usize::from(scale.phases)
                || !(chunk_size as usize).is_multiple_of(QUAD * element.size()))
        {
            return Err(Error::corrupt(format!("segment {number} cannot be normalised so")));
        }
        let tables = first_table..first_table + tables;
        let segment = Segment { range: start..end, element, chunk_size, first_chunk, tables, scale, delta };
        if first_chunk.checked_add(segment.chunks()).is_none_or(|end| end > stored_chunks) {
            return Err(Error::corrupt(format!("segment {number} has chunks that are not stored")));
        }
        start = end;
        segments.push(segment);
    }
    for scale in segments.iter_mut().filter_map(|segment| segment.scale.as_mut()) {
        let columns = reader.take(scale.columns.len())?;
        scale.columns.iter_mut().zip(columns).for_each(|(code, &byte)| *code = byte as i8);
    }
    reader.finish()?;
    Ok(segments)
}

/// Reads what a segment of `len` bytes is coded against.
fn read_delta(
    reader: &mut Reader<'_>,
    element: Element,
    len: u64,
    all_tables: usize,
    base_len: Option<u64>,
) -> Result<Delta> {
    let offset = reader.varint()?;
    let base_element = Element::from_code(reader.u8()?)?;
    let origin = reader.u16()? as i16;
    let first_table = reader.varint_up_to(all_tables as u64)? as usize;
    let tables = reader.varint_up_to((all_tables - first_table).min(1 + MAX_TABLES) as u64)? as usize;
    if tables == 1 {
        return Err(Error::corrupt("it has a table for codes and none for differences"));
    }
    let thresholds = reader.take(tables.saturating_sub(2))?.to_vec();
    let delta = Delta { offset, element: base_element, origin, thresholds, tables: first_table..first_table + tables };
    delta.check(element)?;
    let base_len = base_len.ok_or_else(|| Error::corrupt("it is coded against a base, and there is none"))?;
    let elements = len / element.size() as u64;
    let end = elements.checked_mul(base_element.size() as u64).and_then(|needed| needed.checked_add(offset));
    if end.is_none_or(|end| end > base_len) || !len.is_multiple_of(element.size() as u64) {
        return Err(Error::corrupt("its base reaches beyond the tensors that the base has"));
    }
    Ok(delta)
}

/// Reads how a segment is normalised, but for the codes of its columns, which come later, behind so many of others.
fn read_scale(reader: &mut Reader<'_>, others: usize) -> Result<Scale> {
    let run = reader.varint()?;
    let flags = reader.u8()?;
    let phases = flags & !HALF_OCTAVES;
    if run == 0 || !phases.is_power_of_two() || usize::from(phases) > MAX_PHASES {
        return Err(Error::corrupt(format!("it has runs of {run} times {QUAD} elements in {phases} phases")));
    }
    let columns = reader.count(1)?;
    if columns > reader.remaining() - others.min(reader.remaining()) {
        return Err(Error::corrupt(format!("{columns} columns cannot fit in {} bytes", reader.remaining())));
    }
    Ok(Scale { run, phases, half_octaves: flags != phases, columns: vec![0; columns] })
}

fn read_tensors(section: &[u8], original_len: u64) -> Result<Vec<Tensor>> {
    let mut reader = Reader::new(section);
    let count = reader.count(21)?;
    let mut tensors: Vec<Tensor> = Vec::with_capacity(count);
    for _ in 0..count {
        let (name, dtype) = (read_string(&mut reader)?, read_string(&mut reader)?);
        let dims = reader.count(1)?;
        let shape = (0..dims).map(|_| reader.varint()).collect::<Result<Vec<u64>>>()?;
        let (start, len) = (reader.varint()?, reader.varint()?);
        let previous_end = tensors.last().map_or(0, |tensor| tensor.range.end);
        let end = start.checked_add(len).filter(|&end| start >= previous_end && end <= original_len);
        let Some(end) = end else {
            return Err(Error::corrupt(format!(
                "tensor {name:?} overlaps its neighbour or lies outside of the original"
            )));
        };
        tensors.push(Tensor { name, dtype, shape, range: start..end, md5: [0; 16] });
    }
    for tensor in &mut tensors {
        tensor.md5 = reader.array()?;
    }
    reader.finish()?;
    Ok(tensors)
}

fn read_tables(section: &[u8]) -> Result<Vec<Table>> {
    let mut reader = Reader::new(section);
    let count = reader.count(3)?;
    let tables = (0..count).map(|_| Table::read(&mut reader)).collect::<Result<_>>()?;
    reader.finish()?;
    Ok(tables)
}

fn read_chunks(section: &[u8], data_start: u64) -> Result<Vec<StoredChunk>> {
    let mut reader = Reader::new(section);
    let mut chunks = Vec::with_capacity(section.len() / CHUNK_ENTRY_BYTES);
    let mut offset = data_start;
    while reader.remaining() > 0 {
        let word = reader.u32()?;
        let len = word & ((1 << LENGTH_BITS) - 1);
        if len > MAX_CHUNK_SIZE {
            return Err(Error::corrupt(format!("a chunk is stored in {len} bytes")));
        }
        let codec = Codec::from_code((word >> LENGTH_BITS) as u8)?;
        chunks.push(StoredChunk { offset, len, codec, checksum: reader.u64()? });
        // It cannot overflow: more than 2^32 entries of less than 2^26 bytes each would have to be in memory.
        offset += u64::from(len);
    }
    Ok(chunks)
}

fn read_string(reader: &mut Reader<'_>) -> Result<String> {
    let bytes = reader.bytes()?;
    String::from_utf8(bytes.to_vec()).map_err(|_| Error::corrupt("a name is not UTF-8"))
}
