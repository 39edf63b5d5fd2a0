//! A block: one sequence of elements of 8, 16 or 32 bits, their keys entropy coded, their raw bits in planes, and a list
//! of patches for keys that the table lacks.
//!
//! Planes and patches are the block's *tail*. As many of its last bytes as the states of the entropy coder can carry are
//! stored there, the rest behind the coder's words.

use crate::error::{Error, Result};
use crate::rans::decode::Block;
use crate::rans::decode::scalar::Decoder;
use crate::rans::encode::Encoder;
use crate::rans::{CARRIED_PER_STREAM, LANES, Symbol, Table};
use crate::split::Split;
use crate::split::planes::{Planes, planes_len, write_planes};
use crate::wire::{Put, Reader};

/// Memory that is used again from chunk to chunk.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// Elements of a chunk to encode.
    pub(super) elements: Vec<u32>,
    /// One byte plane of a chunk to decode.
    pub(super) plane: Vec<u8>,
    symbols: Vec<Symbol>,
    tail: Vec<u8>,
}

/// A table ready to encode elements with.
#[derive(Clone, Debug)]
pub(crate) struct Coder {
    encoder: Encoder,
    /// The symbol of each key, or [`OUTSIDE`].
    symbols: Vec<Symbol>,
    stand_in: Symbol,
    stand_in_key: u16,
}

/// Stands for the symbol of a key that the table lacks.
const OUTSIDE: Symbol = Symbol::MAX;

/// Elements per stream from which one more doubling of the streams costs less in states than it brings in speed.
const ELEMENTS_PER_STREAM: usize = 16 << 10;

/// Bytes of a patch: the distance to the one before, and how far the key moves.
const PATCH_BYTES: usize = 4;

/// The gap of a patch entry that only moves on.
const LONGEST_GAP: usize = u16::MAX as usize;

impl Coder {
    pub(crate) fn new(table: &Table) -> Coder {
        let keys = table.keys();
        let mut symbols = vec![OUTSIDE; keys.last().map_or(0, |&key| usize::from(key) + 1)];
        for (symbol, &key) in keys.iter().enumerate() {
            symbols[usize::from(key)] = symbol as Symbol;
        }
        let stand_in = table.stand_in();
        Coder { encoder: Encoder::new(table), symbols, stand_in, stand_in_key: keys[usize::from(stand_in)] }
    }

    /// The symbol of `key`, if the table has it.
    fn symbol(&self, key: u16) -> Option<Symbol> {
        self.symbols.get(usize::from(key)).copied().filter(|&symbol| symbol != OUTSIDE)
    }
}

/// How many streams a block of so many elements gets.
fn streams_for(elements: usize) -> usize {
    match elements / ELEMENTS_PER_STREAM {
        0 | 1 => 1,
        2 | 3 => 2,
        _ => 4,
    }
}

/// How many of the last bytes of a tail the states of so many streams carry.
fn carried_len(tail: usize, streams: usize) -> usize {
    tail.min(streams * CARRIED_PER_STREAM)
}

/// Appends the block of `values` to `stored`; `table` is the number, within its segment, of the table that `coder` was
/// made from. Returns `false`, with `stored` in an unspecified state beyond its old end, when there are more patches than
/// a block can have.
pub(crate) fn encode(
    values: &[u32],
    split: Split,
    coder: &Coder,
    table: u16,
    scratch: &mut Scratch,
    stored: &mut Vec<u8>,
) -> bool {
    let split = split.without_zeros(values.iter().fold(0, |any, &value| any | value));
    let symbols = &mut scratch.symbols;
    symbols.clear();
    let mut patches = Vec::new();
    let mut patched_to = 0;
    for (position, &value) in values.iter().enumerate() {
        let key = split.key(value);
        symbols.push(coder.symbol(key).unwrap_or_else(|| {
            while position - patched_to > LONGEST_GAP {
                patches.push((LONGEST_GAP as u16, 0));
                patched_to += LONGEST_GAP;
            }
            patches.push(((position - patched_to) as u16, key.wrapping_sub(coder.stand_in_key)));
            patched_to = position;
            coder.stand_in
        }));
    }
    let Ok(patch_count) = u16::try_from(patches.len()) else { return false };
    // The last group is filled up with the symbol that costs least.
    symbols.resize(values.len().next_multiple_of(LANES), coder.stand_in);
    let streams = streams_for(values.len());
    stored.extend_from_slice(&[streams as u8, split.shift, split.zeros, 0]);
    stored.put_u16(table);
    stored.put_u16(patch_count);
    let tail = &mut scratch.tail;
    tail.clear();
    write_planes(values.iter().map(|&value| split.raw(value)), values.len(), split.raw_bits(), tail);
    for (gap, step) in patches {
        tail.put_u16(gap);
        tail.put_u16(step);
    }
    let (tail, carried) = tail.split_at(tail.len() - carried_len(tail.len(), streams));
    coder.encoder.encode(symbols, streams, carried, stored);
    stored.extend_from_slice(tail);
    true
}

/// Takes a block off the front of `reader` and decodes it into `out`, which is as long as its elements; `split` says
/// what elements they are, `tables` are those of the segment.
pub(crate) fn decode(
    reader: &mut Reader<'_>,
    split: Split,
    tables: &[Table],
    out: &mut [u8],
    scratch: &mut Scratch,
) -> Result<()> {
    let size = usize::from(split.width / 8);
    if !out.len().is_multiple_of(size) {
        return Err(Error::corrupt(format!("{} bytes are not whole elements of {size}", out.len())));
    }
    let groups = (out.len() / size).div_ceil(LANES);
    let [streams, shift, zeros, reserved] = reader.array()?;
    if reserved != 0 {
        return Err(Error::corrupt("a reserved byte of a block is not zero"));
    }
    let split = split.at(shift, zeros)?;
    let table = reader.u16()?;
    let table =
        tables.get(usize::from(table)).ok_or_else(|| Error::corrupt(format!("the segment has no table {table}")))?;
    let patches = usize::from(reader.u16()?);
    let block = Block::read(reader, usize::from(streams))?;
    let planes_len = planes_len(groups, split.raw_bits());
    let tail_len = planes_len + patches * PATCH_BYTES;
    let carried_len = carried_len(tail_len, block.streams);
    let stored_tail = reader.take(tail_len - carried_len)?;

    scratch.symbols.resize(groups * LANES, 0);
    let carried = Decoder::new(table).decode(&block, &mut scratch.symbols)?;
    let tail = &mut scratch.tail;
    tail.clear();
    tail.extend_from_slice(stored_tail);
    tail.extend_from_slice(&carried[..carried_len]);
    let (planes, patches) = tail.split_at(planes_len);
    let planes = Planes::read(&mut Reader::new(planes), groups, split.raw_bits())?;
    for (group, (symbols, out)) in scratch.symbols.chunks_exact(LANES).zip(out.chunks_mut(LANES * size)).enumerate() {
        let raw = planes.group(group);
        for ((symbol, raw), out) in symbols.iter().zip(raw).zip(out.chunks_exact_mut(size)) {
            let element = split.join(table.keys()[usize::from(*symbol)], raw);
            out.copy_from_slice(&element.to_le_bytes()[..size]);
        }
    }
    patch(split, patches, out)
}

/// Moves the keys of the elements that the patch list names to where they belong.
fn patch(split: Split, patches: &[u8], out: &mut [u8]) -> Result<()> {
    let size = usize::from(split.width / 8);
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
