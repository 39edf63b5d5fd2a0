//! Encoding a block.

mod symbols;

use super::{PATCH_BYTES, carried_len};
use crate::rans::encode::Encoder;
use crate::rans::{LANES, Symbol, Table};
use crate::simd::{self, Level};
use crate::split::Split;
use crate::split::planes::{planes_len, write_planes};
use crate::wire::Put;
use symbols::{OUTSIDE, SymbolMap};

/// A table ready to encode elements with.
#[derive(Clone, Debug)]
pub(crate) struct Coder {
    encoder: Encoder,
    symbols: SymbolMap,
    stand_in: Symbol,
    stand_in_key: u16,
}

impl Coder {
    pub(crate) fn new(table: &Table) -> Coder {
        let stand_in = table.stand_in();
        Coder {
            encoder: Encoder::new(table),
            symbols: SymbolMap::new(table),
            stand_in,
            stand_in_key: table.keys()[usize::from(stand_in)],
        }
    }
}

/// Memory that is used again from chunk to chunk, and with what instructions.
#[derive(Debug)]
pub(crate) struct Buffers {
    level: Level,
    /// One byte plane of a chunk.
    pub(in crate::chunk) plane: Vec<u8>,
    symbols: Vec<Symbol>,
    /// The patch list as it is stored.
    patches: Vec<u8>,
    words: Vec<u16>,
    tail: Vec<u8>,
}

impl Buffers {
    pub(crate) fn new(level: Level) -> Buffers {
        let (plane, symbols, patches) = (Vec::new(), Vec::new(), Vec::new());
        Buffers { level, plane, symbols, patches, words: Vec::new(), tail: Vec::new() }
    }
}

impl Default for Buffers {
    fn default() -> Self {
        Buffers::new(simd::level())
    }
}

/// Elements per stream from which one more doubling of the streams costs less in states than it brings in speed.
const ELEMENTS_PER_STREAM: usize = 16 << 10;

/// The gap of a patch entry that only moves on.
const LONGEST_GAP: usize = u16::MAX as usize;

/// How many streams a block of so many elements gets.
fn streams_for(elements: usize) -> usize {
    match elements / ELEMENTS_PER_STREAM {
        0 | 1 => 1,
        2 | 3 => 2,
        _ => 4,
    }
}

/// Appends the block of `bytes`, whole elements cut by `split`, to `stored`; `table` is the number, within its segment,
/// of the table that `coder` was made from. Returns `false`, with `stored` in an unspecified state beyond its old end,
/// when there are more patches than a block can have.
pub(crate) fn encode(
    bytes: &[u8],
    split: Split,
    coder: &Coder,
    table: u16,
    buffers: &mut Buffers,
    stored: &mut Vec<u8>,
) -> bool {
    let Buffers { level, symbols, patches, words, tail, .. } = buffers;
    let elements = bytes.len() / usize::from(split.width / 8);
    // Of these buffers every byte is written, so that what was there before need not be cleared.
    symbols.resize(elements.next_multiple_of(LANES), 0);
    let (symbols_of_elements, filling) = symbols.split_at_mut(elements);
    let any = coder.symbols.map(bytes, split, *level, symbols_of_elements);
    let split = split.without_zeros(any);
    patch(bytes, split, coder, symbols_of_elements, patches);
    // The last group is filled up with the symbol that costs least.
    filling.fill(coder.stand_in);
    let Ok(patch_count) = u16::try_from(patches.len() / PATCH_BYTES) else { return false };
    let streams = streams_for(elements);
    stored.extend_from_slice(&[streams as u8, split.shift, split.zeros, 0]);
    stored.put_u16(table);
    stored.put_u16(patch_count);
    let planes_len = planes_len(symbols.len() / LANES, split.raw_bits());
    tail.resize(planes_len + patches.len(), 0);
    let (planes, patch_list) = tail.split_at_mut(planes_len);
    write_planes(bytes, split, *level, planes);
    patch_list.copy_from_slice(patches);
    let (tail, carried) = tail.split_at(tail.len() - carried_len(tail.len(), streams));
    coder.encoder.encode(*level, symbols, streams, carried, words, stored);
    stored.extend_from_slice(tail);
    true
}

/// Puts the stand-in where `symbols` has none for an element of `bytes`, and makes `patches` the list that tells which
/// keys belong there.
fn patch(bytes: &[u8], split: Split, coder: &Coder, symbols: &mut [Symbol], patches: &mut Vec<u8>) {
    /// Symbols that are looked at together, since hardly ever is one of them missing.
    const STRIDE: usize = 64;
    patches.clear();
    let mut patched_to = 0;
    for (stride, symbols) in symbols.chunks_mut(STRIDE).enumerate() {
        // Of all symbols only `OUTSIDE` has the top bit.
        let (words, rest) = symbols.as_chunks();
        let any = words.iter().fold(0, |any, word| any | u64::from_ne_bytes(*word)) & 0x8080_8080_8080_8080 != 0;
        if !any && rest.is_empty() {
            continue;
        }
        for (lane, symbol) in symbols.iter_mut().enumerate().filter(|(_, symbol)| **symbol == OUTSIDE) {
            *symbol = coder.stand_in;
            let position = stride * STRIDE + lane;
            while position - patched_to > LONGEST_GAP {
                patches.put_u16(LONGEST_GAP as u16);
                patches.put_u16(0);
                patched_to += LONGEST_GAP;
            }
            patches.put_u16((position - patched_to) as u16);
            patches.put_u16(split.key(split.element(bytes, position)).wrapping_sub(coder.stand_in_key));
            patched_to = position;
        }
    }
}
