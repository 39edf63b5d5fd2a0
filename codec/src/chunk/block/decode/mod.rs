//! Decoding a block: [`definition`] is plain, the others do the same to many elements at once.
//!
//! Elements are made in steps, each of which adds something to what is there: the key of each and what normalisation took
//! from it, the raw bits, the sparse field, the patches. A vectorised decoder takes the first two in one, in registers. But
//! the last bytes of the tail, which may be raw bits, are carried by the states and so known only when all keys are
//! decoded: the last few groups get theirs afterwards.

#[cfg(feature = "cuda")]
pub(crate) mod anatomy;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod definition;
mod prepared;
mod slots;

use std::ops::Range;

use super::sparse_field::SparseField;
use super::{PATCH_BYTES, Scaled, carried_len};
use crate::chunk::scale::{Columns, QUAD, QuadScale};
use crate::chunk::{delta, quantised, sparse};
use crate::error::{Error, Result};
use crate::rans::decode::{Block, Carried};
use crate::rans::{LANES, Table};
use crate::simd::{self, Level};
use crate::split::Split;
use crate::split::planes::{BLOCK_GROUPS, Field, MAX_FIELDS, add_planes, fields, planes_len};
use crate::wire::Reader;

/// Quads whose raw bits fill whole vectors, whatever the width of a field.
const WHOLE_VECTORS: usize = BLOCK_GROUPS * LANES / QUAD;

/// Memory that decoding uses again from chunk to chunk, and what it decodes with.
#[derive(Debug)]
pub(crate) struct Scratch {
    /// One plane of a chunk, or all of them.
    pub(in crate::chunk) plane: Vec<u8>,
    /// The halves of its bytes.
    pub(in crate::chunk) nibbles: Vec<u8>,
    /// A sparse chunk, taken apart.
    pub(in crate::chunk) sparse: sparse::Buffer,
    /// The normalisation of a chunk: the codes of its runs, its quads, its columns.
    pub(in crate::chunk) codes: Vec<i32>,
    pub(in crate::chunk) quads: Vec<QuadScale>,
    pub(in crate::chunk) columns: Columns,
    /// Quantised blocks, taken apart.
    pub(in crate::chunk) quantised: quantised::Scratch,
    pub(in crate::chunk) delta: delta::decode::Scratch,
    level: Level,
    definition: definition::Decoder,
    slots: slots::SlotKernel,
    decoder: Decoder,
    tail: Vec<u8>,
}

/// What most of a block is decoded with.
#[derive(Debug)]
enum Decoder {
    /// The definition alone.
    #[cfg(test)]
    Definition,
    /// The slots of [`Scratch`].
    Slots,
    #[cfg(target_arch = "x86_64")]
    Avx2(avx2::Avx2),
    #[cfg(target_arch = "x86_64")]
    Avx512(Box<avx512::Avx512>),
}

impl Decoder {
    fn new(level: Level) -> Decoder {
        match level {
            Level::Scalar => Decoder::Slots,
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a level is only given where the processor has what it stands for.
            Level::Avx2 => Decoder::Avx2(unsafe { avx2::Avx2::new() }),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Level::Avx512 => Decoder::Avx512(Box::new(unsafe { avx512::Avx512::new(false) })),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Level::Avx512Vbmi2 => Decoder::Avx512(Box::new(unsafe { avx512::Avx512::new(true) })),
            #[cfg(not(target_arch = "x86_64"))]
            level => unreachable!("{level:?} is not a level of this processor"),
        }
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Scratch::new(simd::level())
    }
}

impl Scratch {
    /// Decodes with the instructions of `level`.
    pub(crate) fn new(level: Level) -> Scratch {
        Scratch {
            plane: Vec::new(),
            nibbles: Vec::new(),
            sparse: sparse::Buffer::default(),
            codes: Vec::new(),
            quads: Vec::new(),
            columns: Columns::default(),
            quantised: quantised::Scratch::default(),
            delta: delta::decode::Scratch::default(),
            level,
            definition: definition::Decoder::default(),
            slots: slots::SlotKernel::new(),
            decoder: Decoder::new(level),
            tail: Vec::new(),
        }
    }

    /// The instructions that are used.
    pub(in crate::chunk) fn level(&self) -> Level {
        self.level
    }

    /// Decodes with the definition alone, for tests.
    #[cfg(test)]
    pub(in crate::chunk) fn of_definition() -> Scratch {
        Scratch { decoder: Decoder::Definition, ..Scratch::new(Level::Scalar) }
    }
}

/// A block, taken apart but not decoded.
struct Parts<'a, 't> {
    /// Where elements are cut, the sparse field left out.
    split: Split,
    sparse_field: SparseField,
    /// One, or one for each phase.
    tables: &'t [Table],
    scaled: Option<Scaled<'t>>,
    block: Block<'a>,
    /// How many groups its elements form.
    groups: usize,
    /// Bytes of the planes.
    planes_len: usize,
    /// Bytes of the tail.
    tail_len: usize,
    /// What of the tail is not carried.
    stored_tail: &'a [u8],
}

/// Takes a block off the front of `reader` and decodes it into `out`, which is as long as its elements; `split` says
/// what elements they are, `tables` are those of the segment.
///
/// # Errors
/// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) when the block is not one that an encoder writes. `out` then holds
/// unspecified bytes.
pub(crate) fn decode(
    reader: &mut Reader<'_>,
    split: Split,
    tables: &[Table],
    out: &mut [u8],
    scratch: &mut Scratch,
) -> Result<()> {
    Parts::read(reader, split, tables, None, out.len())?.decode(out, scratch)
}

/// The same for a block of normalised elements, whose quads and columns are in `scratch`. The first element is in column
/// `column`, and there are so many phases.
pub(crate) fn decode_scaled(
    reader: &mut Reader<'_>,
    split: Split,
    tables: &[Table],
    (column, phases): (usize, usize),
    out: &mut [u8],
    scratch: &mut Scratch,
) -> Result<()> {
    let (quads, columns) = (std::mem::take(&mut scratch.quads), std::mem::take(&mut scratch.columns));
    let scaled = Scaled { quads: &quads, columns: Some(&columns), column, phases };
    let decoded =
        Parts::read(reader, split, tables, Some(scaled), out.len()).and_then(|parts| parts.decode(out, scratch));
    (scratch.quads, scratch.columns) = (quads, columns);
    decoded
}

/// The same for a block of bytes whose quads have a table each: the `phase` of its entry in `quads` is the number of its table,
/// of `count` that follow one another. Bytes without a sign are below 128.
///
/// # Errors
/// As [`decode`].
pub(crate) fn decode_quads(
    reader: &mut Reader<'_>,
    split: Split,
    tables: &[Table],
    (quads, count): (&[QuadScale], usize),
    out: &mut [u8],
    scratch: &mut Scratch,
) -> Result<()> {
    let scaled = Scaled { quads, columns: None, column: 0, phases: count };
    let parts = Parts::read(reader, split, tables, Some(scaled), out.len())?;
    let most = parts.split.last_key().min(0x7f >> parts.split.shift);
    if parts.tables.iter().any(|table| table.keys().last() > Some(&most)) {
        return Err(Error::corrupt("a table of rows has a symbol that they cannot have"));
    }
    parts.decode(out, scratch)
}

impl<'a, 't> Parts<'a, 't> {
    /// Takes a block of `len` bytes of elements off the front of `reader`.
    fn read(
        reader: &mut Reader<'a>,
        split: Split,
        tables: &'t [Table],
        scaled: Option<Scaled<'t>>,
        len: usize,
    ) -> Result<Parts<'a, 't>> {
        let size = split.size();
        if !len.is_multiple_of(size) {
            return Err(Error::corrupt(format!("{len} bytes are not whole elements of {size}")));
        }
        let groups = (len / size).div_ceil(LANES);
        let [streams, shift, zeros, sparse_bits] = reader.array()?;
        let split = split.at(shift, zeros.saturating_add(sparse_bits))?;
        let table = usize::from(reader.u16()?);
        let tables = tables
            .get(table..table + scaled.map_or(1, |scaled| scaled.phases))
            .ok_or_else(|| Error::corrupt(format!("the segment has no table {table}")))?;
        let patches = usize::from(reader.u16()?);
        let mut sparse_field = SparseField { at: zeros, width: sparse_bits, groups: 0 };
        if sparse_bits > 0 {
            sparse_field.groups = reader.u32()? as usize;
            if sparse_field.groups > groups {
                return Err(Error::corrupt("more groups have low bits of their own than there are"));
            }
        }
        let block = Block::read(reader, usize::from(streams))?;
        if scaled.is_some() && block.streams == 3 {
            return Err(Error::corrupt("a block of normalised elements has three streams"));
        }
        let planes_len = planes_len(groups, split.raw_bits());
        let tail_len = planes_len + sparse_field.len(groups) + patches * PATCH_BYTES;
        let stored_tail = reader.take(tail_len - carried_len(tail_len, block.streams))?;
        Ok(Parts { split, sparse_field, tables, scaled, block, groups, planes_len, tail_len, stored_tail })
    }

    fn decode(mut self, out: &mut [u8], scratch: &mut Scratch) -> Result<()> {
        let Scratch { level, definition, slots, decoder, tail, .. } = scratch;
        let (level, split) = (*level, self.split);
        // Groups that have their raw bits already.
        let done = match decoder {
            #[cfg(test)]
            Decoder::Definition => {
                definition.keys(&mut self, 0, out)?;
                0
            }
            _ if !self.is_regular() => {
                definition.keys(&mut self, 0, out)?;
                0
            }
            #[cfg(target_arch = "x86_64")]
            Decoder::Avx2(kernel) => self.decode_with(kernel, definition, out)?,
            #[cfg(target_arch = "x86_64")]
            Decoder::Avx512(kernel) if self.tables.iter().all(avx512::can_decode) => {
                self.decode_with(&mut **kernel, definition, out)?
            }
            _ => self.decode_with(slots, definition, out)?,
        };
        let carried = self.block.finish()?;

        // What is left of the planes; they lie one behind the other.
        let (_, rest_out) = out.split_at_mut(done * LANES * split.size());
        tail.clear();
        let mut begin = 0;
        for field in fields(split.raw_bits()) {
            let end = begin + field.bytes(self.groups);
            self.append_tail(&carried, begin + field.bytes(done)..end, tail);
            begin = end;
        }
        add_planes(tail, split, level, rest_out);
        tail.clear();
        self.append_tail(&carried, self.planes_len..self.tail_len, tail);
        let (sparse_field, patches) = tail.split_at(self.sparse_field.len(self.groups));
        self.sparse_field.add(sparse_field, split, level, out)?;
        patch(split, patches, out)
    }

    /// Whether kernels can decode it: keys lie in the upper 16 bits of elements, and each stream has as many groups of a quad.
    /// All that an encoder writes is so.
    fn is_regular(&self) -> bool {
        (self.split.width <= 16 || self.split.shift >= 16) && self.block.streams != 3
    }

    /// Decodes keys with `kernel`, and what it leaves over with the definition, and merges as many groups with their raw
    /// bits as it can: returns how many, a multiple of [`BLOCK_GROUPS`].
    fn decode_with<K: Kernel>(
        &mut self,
        kernel: &mut K,
        definition: &mut definition::Decoder,
        out: &mut [u8],
    ) -> Result<usize> {
        kernel.prepare(self.split, self.tables);
        let quad_bytes = QUAD * self.split.size();
        let layout = Layout::new(self.split, self.groups);
        let planes = &self.stored_tail[..self.stored_tail.len().min(self.planes_len)];
        let whole = out.len() / quad_bytes;
        let merged = if K::MERGES { whole } else { 0 };
        let merged = merged.min(layout.groups_within(planes.len()) * LANES / QUAD) / WHOLE_VECTORS * WHOLE_VECTORS;
        let (merged_out, rest_out) = out.split_at_mut(merged * quad_bytes);
        let (bare_out, last_out) = rest_out.split_at_mut((whole - merged) * quad_bytes);
        let Parts { block, scaled, .. } = self;
        if merged > 0 {
            kernel.quads(block, 0, Some((planes, &layout)), *scaled, merged_out)?;
        }
        kernel.quads(block, merged, None, *scaled, bare_out)?;
        definition.keys(self, whole, last_out)?;
        Ok(merged * QUAD / LANES)
    }

    /// Appends the bytes of the tail in `range` to `out`; `carried` are those that follow the stored ones.
    fn append_tail(&self, carried: &Carried, range: Range<usize>, out: &mut Vec<u8>) {
        let stored = self.stored_tail.len();
        out.extend_from_slice(&self.stored_tail[range.start.min(stored)..range.end.min(stored)]);
        out.extend_from_slice(&carried[range.start.max(stored) - stored..range.end.max(stored) - stored]);
    }
}

/// Moves the keys of the elements that the patch list names to where they belong.
fn patch(split: Split, patches: &[u8], out: &mut [u8]) -> Result<()> {
    let size = split.size();
    let mut position = 0;
    for entry in patches.as_chunks::<PATCH_BYTES>().0 {
        position += usize::from(u16::from_le_bytes([entry[0], entry[1]]));
        let step = u16::from_le_bytes([entry[2], entry[3]]);
        if step != 0 {
            let element = out
                .get_mut(position * size..(position + 1) * size)
                .ok_or_else(|| Error::corrupt("a patch lies beyond the end of its chunk"))?;
            let mut value = [0; 4];
            value[..size].copy_from_slice(element);
            let moved = split.move_key(u32::from_le_bytes(value), step);
            element.copy_from_slice(&moved.to_le_bytes()[..size]);
        }
    }
    Ok(())
}

/// Where the planes of a number of groups are.
#[derive(Clone, Debug)]
struct Layout {
    fields: [Option<Field>; MAX_FIELDS],
    /// Where the plane of each begins.
    offsets: [usize; MAX_FIELDS],
}

impl Layout {
    fn new(split: Split, groups: usize) -> Layout {
        let mut layout = Layout { fields: [None; MAX_FIELDS], offsets: [0; MAX_FIELDS] };
        let mut begin = 0;
        for (at, field) in fields(split.raw_bits()).enumerate() {
            layout.fields[at] = Some(field);
            layout.offsets[at] = begin;
            begin += field.bytes(groups);
        }
        layout
    }

    /// Each field with the offset of its plane.
    fn planes(&self) -> impl Iterator<Item = (Field, usize)> {
        self.fields.into_iter().flatten().zip(self.offsets)
    }

    /// A number of groups, a multiple of [`BLOCK_GROUPS`] or as large as can be, whose vectors are all in the first `len`
    /// bytes of the planes.
    fn groups_within(&self, len: usize) -> usize {
        let within = |(field, offset)| len.saturating_sub(offset) / Field::bytes(field, BLOCK_GROUPS) * BLOCK_GROUPS;
        self.planes().map(within).min().unwrap_or(usize::MAX / QUAD)
    }
}

/// How far a key is shifted in the upper 16 bits of an element (or in its 8).
fn upper_shift(split: Split) -> u32 {
    u32::from(split.shift) - if split.width == 32 { 16 } else { 0 }
}

/// A decoder of many elements at once.
trait Kernel {
    /// Whether it merges elements with their raw bits.
    const MERGES: bool;

    /// Makes ready for elements of this split and these tables.
    fn prepare(&mut self, split: Split, tables: &[Table]);

    /// Decodes as many quads as `out` takes, of which the first is number `first` of its block. Where the planes of the
    /// block are given with their layout, which is done only if it [merges](Kernel::MERGES), elements get their raw bits; else
    /// they lack them.
    ///
    /// # Errors
    /// When there are too few words; that they are those of the streams is for [`Block::finish`] to see.
    fn quads(
        &self,
        block: &mut Block<'_>,
        first: usize,
        planes: Option<(&[u8], &Layout)>,
        scaled: Option<Scaled<'_>>,
        out: &mut [u8],
    ) -> Result<()>;
}
