//! Encoding a block.

mod symbols;

use super::sparse_field::SparseField;
use super::{PATCH_BYTES, carried_len};
use crate::chunk::sparse::Taken;
use crate::chunk::{delta, normalise, quantised};
use crate::rans::encode::Encoder;
use crate::rans::{LANES, Symbol, Table, streams_for};
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
    /// For elements cut by `split`, whatever its zeros.
    pub(crate) fn new(table: &Table, split: Split) -> Coder {
        let stand_in = table.stand_in();
        Coder {
            encoder: Encoder::new(table),
            symbols: SymbolMap::new(table, split),
            stand_in,
            stand_in_key: table.keys()[usize::from(stand_in)],
        }
    }
}

/// Memory that is used again from chunk to chunk, and with what instructions.
#[derive(Debug)]
pub(crate) struct Buffers {
    level: Level,
    /// One plane of a chunk.
    pub(in crate::chunk) plane: Vec<u8>,
    /// The halves of its bytes.
    pub(in crate::chunk) nibbles: Vec<u8>,
    /// A sparse chunk, taken apart.
    pub(in crate::chunk) taken: Taken,
    symbols: Vec<Symbol>,
    /// The patch list as it is stored.
    patches: Vec<u8>,
    words: Vec<u16>,
    tail: Vec<u8>,
    /// The bits that any element of a group has.
    or_of_group: Vec<u32>,
    /// Quantised blocks, taken apart.
    pub(in crate::chunk) apart: quantised::Apart,
    /// What normalisation works in.
    pub(in crate::chunk) normal: normalise::Buffers,
    /// What coding against a base works in, and the chunk coded without.
    pub(in crate::chunk) delta: delta::encode::Buffers,
    pub(in crate::chunk) plain: Vec<u8>,
}

impl Buffers {
    pub(crate) fn new(level: Level) -> Buffers {
        Buffers {
            level,
            plane: Vec::new(),
            nibbles: Vec::new(),
            taken: Taken::default(),
            symbols: Vec::new(),
            patches: Vec::new(),
            words: Vec::new(),
            tail: Vec::new(),
            or_of_group: Vec::new(),
            apart: quantised::Apart::default(),
            normal: normalise::Buffers::default(),
            delta: delta::encode::Buffers::new(level),
            plain: Vec::new(),
        }
    }
}

impl Buffers {
    /// The instructions that are used.
    pub(in crate::chunk) fn level(&self) -> Level {
        self.level
    }
}

impl Default for Buffers {
    fn default() -> Self {
        Buffers::new(simd::level())
    }
}

/// The gap of a patch entry that only moves on.
const LONGEST_GAP: usize = u16::MAX as usize;

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
    let spans = [(coder, bytes.len() / split.size())];
    encode_spans(bytes, split, &spans, table, buffers, stored)
}

/// The same for elements in spans of whole quads (but for the last), each with its coder and its length in elements; `table`
/// is the number of the first of their tables.
pub(crate) fn encode_spans(
    bytes: &[u8],
    split: Split,
    spans: &[(&Coder, usize)],
    table: u16,
    buffers: &mut Buffers,
    stored: &mut Vec<u8>,
) -> bool {
    let Buffers { level, symbols, patches, words, tail, or_of_group, .. } = buffers;
    let elements = bytes.len() / split.size();
    // Of these buffers every byte is written, so that what was there before need not be cleared.
    symbols.resize(elements.next_multiple_of(LANES), 0);
    patches.clear();
    let (mut any, mut begin, mut patched_to) = (0, 0, 0);
    for &(coder, len) in spans {
        let (symbols, bytes) = (&mut symbols[begin..begin + len], &bytes[begin * split.size()..][..len * split.size()]);
        any |= coder.symbols.map(bytes, split, *level, symbols);
        patched_to = patch(bytes, split, coder, symbols, begin, patched_to, patches);
        begin += len;
    }
    // The last group is filled up with the symbol that costs least.
    symbols[elements..].fill(spans.last().map_or(0, |(coder, _)| coder.stand_in));
    let Ok(patch_count) = u16::try_from(patches.len() / PATCH_BYTES) else { return false };

    let split = split.without_zeros(any);
    // Of less than 32 bits there are few below the key.
    let sparse_field =
        if split.width == 32 { SparseField::find(bytes, split, or_of_group) } else { SparseField::default() };
    let zeros = split.zeros;
    let split = Split { zeros: zeros + sparse_field.width, ..split };
    let streams = streams_for(elements);
    stored.extend_from_slice(&[streams as u8, split.shift, zeros, sparse_field.width]);
    stored.put_u16(table);
    stored.put_u16(patch_count);
    if sparse_field.width > 0 {
        stored.put_u32(sparse_field.groups as u32);
    }
    tail.resize(planes_len(symbols.len() / LANES, split.raw_bits()), 0);
    write_planes(bytes, split, *level, tail);
    sparse_field.write(bytes, or_of_group, *level, tail);
    tail.extend_from_slice(patches);
    let (tail, carried) = tail.split_at(tail.len() - carried_len(tail.len(), streams));
    // The last span has what the last group was filled up with.
    let filled = symbols.len() - elements;
    let last = spans.len() - 1;
    let spans: Vec<(&Encoder, usize)> = spans
        .iter()
        .enumerate()
        .map(|(number, (coder, len))| (&coder.encoder, if number == last { len + filled } else { *len }))
        .collect();
    Encoder::encode(*level, &spans, symbols, streams, carried, words, stored);
    stored.extend_from_slice(tail);
    true
}

/// Puts the stand-in where `symbols` has none for an element of `bytes`, and appends to `patches` which keys belong there.
/// The elements begin with number `begin` of their block, and patches so far reach to number `patched_to`; returned is
/// where they reach then.
fn patch(
    bytes: &[u8],
    split: Split,
    coder: &Coder,
    symbols: &mut [Symbol],
    begin: usize,
    mut patched_to: usize,
    patches: &mut Vec<u8>,
) -> usize {
    /// Symbols that are looked at together, since hardly ever is one of them missing.
    const STRIDE: usize = 64;
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
            while begin + position - patched_to > LONGEST_GAP {
                patches.put_u16(LONGEST_GAP as u16);
                patches.put_u16(0);
                patched_to += LONGEST_GAP;
            }
            patches.put_u16((begin + position - patched_to) as u16);
            patches.put_u16(split.key(split.element(bytes, position)).wrapping_sub(coder.stand_in_key));
            patched_to = begin + position;
        }
    }
    patched_to
}
