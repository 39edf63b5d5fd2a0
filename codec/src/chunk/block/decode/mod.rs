//! Decoding a block: [`scalar`] is the definition, the others do the same to many elements at once.
//!
//! A vectorised decoder goes over a block once: it decodes the symbols of some groups and merges them with their raw bits
//! into elements, in registers. But the last bytes of the tail, which may be raw bits, are carried by the states and so
//! known only when all symbols are decoded. The last few groups are therefore decoded first and merged afterwards.

#[cfg(target_arch = "x86_64")]
mod avx512vbmi2;
mod pieces;
mod prepared;
mod scalar;

use std::ops::Range;

use super::{PATCH_BYTES, carried_len};
use crate::error::{Error, Result};
use crate::rans::decode::{Block, Carried};
use crate::rans::{LANES, Symbol, Table};
use crate::simd::{self, Level};
use crate::split::Split;
use crate::split::planes::{BLOCK_GROUPS, Field, MAX_FIELDS, fields, planes_len};
use crate::wire::Reader;

/// The elements of two groups.
const PAIR: usize = 2 * LANES;

/// Memory that decoding uses again from chunk to chunk, and what it decodes with.
#[derive(Debug)]
pub(crate) struct Scratch {
    /// One byte plane of a chunk.
    pub(in crate::chunk) plane: Vec<u8>,
    decoder: Decoder,
    symbols: Vec<Symbol>,
    tail: Vec<u8>,
}

impl Default for Scratch {
    fn default() -> Self {
        Scratch::new(simd::level())
    }
}

impl Scratch {
    /// Decodes with the instructions of `level`.
    pub(crate) fn new(level: Level) -> Scratch {
        Scratch { plane: Vec::new(), decoder: Decoder::new(level), symbols: Vec::new(), tail: Vec::new() }
    }
}

/// How to decode.
#[derive(Debug)]
enum Decoder {
    Scalar(scalar::Decoder),
    #[cfg(target_arch = "x86_64")]
    Vbmi2(Box<avx512vbmi2::Vbmi2>),
}

impl Decoder {
    fn new(level: Level) -> Decoder {
        match level {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a level is only given where the processor has what it stands for.
            Level::Avx512Vbmi2 => Decoder::Vbmi2(Box::new(unsafe { avx512vbmi2::Vbmi2::new() })),
            _ => Decoder::Scalar(scalar::Decoder::default()),
        }
    }
}

/// A block, taken apart but not decoded.
struct Parts<'a, 't> {
    split: Split,
    table: &'t Table,
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
    let parts = Parts::read(reader, split, tables, out.len())?;
    let Scratch { decoder, symbols, tail, .. } = scratch;
    match decoder {
        Decoder::Scalar(decoder) => decoder.decode(parts, symbols, tail, out),
        #[cfg(target_arch = "x86_64")]
        Decoder::Vbmi2(kernel) => decode_with(&mut **kernel, parts, symbols, tail, out),
    }
}

impl<'a, 't> Parts<'a, 't> {
    /// Takes a block of `len` bytes of elements off the front of `reader`.
    fn read(reader: &mut Reader<'a>, split: Split, tables: &'t [Table], len: usize) -> Result<Parts<'a, 't>> {
        let size = split.size();
        if !len.is_multiple_of(size) {
            return Err(Error::corrupt(format!("{len} bytes are not whole elements of {size}")));
        }
        let groups = (len / size).div_ceil(LANES);
        let [streams, shift, zeros, reserved] = reader.array()?;
        if reserved != 0 {
            return Err(Error::corrupt("a reserved byte of a block is not zero"));
        }
        let split = split.at(shift, zeros)?;
        let table = reader.u16()?;
        let table = tables
            .get(usize::from(table))
            .ok_or_else(|| Error::corrupt(format!("the segment has no table {table}")))?;
        let patches = usize::from(reader.u16()?);
        let block = Block::read(reader, usize::from(streams))?;
        let planes_len = planes_len(groups, split.raw_bits());
        let tail_len = planes_len + patches * PATCH_BYTES;
        let stored_tail = reader.take(tail_len - carried_len(tail_len, block.streams))?;
        Ok(Parts { split, table, block, groups, planes_len, tail_len, stored_tail })
    }

    /// Writes the bytes of the tail in `range` to `out`; `carried` are those that follow the stored ones.
    fn copy_tail(&self, carried: &Carried, range: Range<usize>, out: &mut [u8]) {
        let stored = self.stored_tail.get(range.start..).unwrap_or_default();
        let (from_stored, from_carried) = out.split_at_mut(stored.len().min(out.len()));
        from_stored.copy_from_slice(&stored[..from_stored.len()]);
        let start = range.start.max(self.stored_tail.len()) - self.stored_tail.len();
        from_carried.copy_from_slice(&carried[start..][..from_carried.len()]);
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
    /// Bytes of all of them.
    len: usize,
}

impl Layout {
    fn new(split: Split, groups: usize) -> Layout {
        let mut layout = Layout { fields: [None; MAX_FIELDS], offsets: [0; MAX_FIELDS], len: 0 };
        for (at, field) in fields(split.raw_bits()).enumerate() {
            layout.fields[at] = Some(field);
            layout.offsets[at] = layout.len;
            layout.len += field.bytes(groups);
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
        self.planes().map(within).min().unwrap_or(usize::MAX)
    }
}

/// A vectorised decoder. Groups are counted from the first of the block, or from the first that is given.
trait Kernel {
    /// Makes ready for elements of this split and table. Returns whether there is anything to decode; if not, all
    /// symbols are 0.
    fn prepare(&mut self, split: Split, table: &Table) -> bool;

    /// Decodes the first groups of a block of 1, 2 or 4 streams into `out`, which takes a multiple of [`BLOCK_GROUPS`]
    /// groups. Their raw bits are in `planes`, at the places that `layout` says.
    ///
    /// # Errors
    /// When there are too few words; that they are those of the streams is for [`Block::finish`] to see.
    fn elements(
        &self,
        split: Split,
        block: &mut Block<'_>,
        planes: &[u8],
        layout: &Layout,
        out: &mut [u8],
    ) -> Result<()>;

    /// Decodes the symbols of further groups, the first of which belongs to the first stream.
    ///
    /// # Errors
    /// As [`elements`](Kernel::elements).
    fn symbols(&self, block: &mut Block<'_>, symbols: &mut [Symbol]) -> Result<()>;

    /// Makes elements of whole pairs of groups from `pair` on, of which `symbols` are the symbols.
    fn merge(&self, split: Split, symbols: &[Symbol], pair: usize, planes: &[u8], layout: &Layout, out: &mut [u8]);
}

/// Decodes with the given kernel.
fn decode_with(
    kernel: &mut impl Kernel,
    mut parts: Parts<'_, '_>,
    symbols: &mut Vec<Symbol>,
    tail: &mut Vec<u8>,
    out: &mut [u8],
) -> Result<()> {
    let split = parts.split;
    let group_bytes = LANES * split.size();
    let layout = Layout::new(split, parts.groups);
    let any_symbols = kernel.prepare(split, parts.table);

    // The groups whose raw bits are all stored.
    let stored_planes = &parts.stored_tail[..parts.stored_tail.len().min(parts.planes_len)];
    let first = if any_symbols && parts.block.streams != 3 {
        let whole = out.len() / group_bytes;
        whole.min(layout.groups_within(stored_planes.len())) / BLOCK_GROUPS * BLOCK_GROUPS
    } else {
        0
    };
    let (first_out, rest_out) = out.split_at_mut(first * group_bytes);
    if first > 0 {
        kernel.elements(split, &mut parts.block, stored_planes, &layout, first_out)?;
    }

    // The others: symbols first, then the carried bytes.
    let rest = parts.groups - first;
    symbols.clear();
    symbols.resize(rest.next_multiple_of(2) * LANES, 0);
    kernel.symbols(&mut parts.block, &mut symbols[..rest * LANES])?;
    let carried = parts.block.finish()?;

    let rest_layout = Layout::new(split, rest.next_multiple_of(BLOCK_GROUPS));
    tail.clear();
    tail.resize(rest_layout.len, 0);
    for ((field, offset), rest_offset) in layout.planes().zip(rest_layout.offsets) {
        let range = offset + field.bytes(first)..offset + field.bytes(parts.groups);
        let len = range.len();
        parts.copy_tail(&carried, range, &mut tail[rest_offset..][..len]);
    }
    let (pairs, last) = rest_out.split_at_mut(rest_out.len() / (2 * group_bytes) * 2 * group_bytes);
    let (pair_symbols, last_symbols) = symbols.split_at(pairs.len() / split.size());
    kernel.merge(split, pair_symbols, 0, tail, &rest_layout, pairs);
    if !last_symbols.is_empty() {
        let mut whole = [0; PAIR * size_of::<u32>()];
        let whole = &mut whole[..2 * group_bytes];
        kernel.merge(split, last_symbols, pair_symbols.len() / PAIR, tail, &rest_layout, whole);
        last.copy_from_slice(&whole[..last.len()]);
    }

    tail.resize(parts.tail_len - parts.planes_len, 0);
    parts.copy_tail(&carried, parts.planes_len..parts.tail_len, tail);
    patch(split, tail, out)
}
