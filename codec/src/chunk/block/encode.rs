//! Encoding a block.

use super::{Scratch, carried_len};
use crate::rans::encode::Encoder;
use crate::rans::{LANES, Symbol, Table};
use crate::split::Split;
use crate::split::planes::write_planes;
use crate::wire::Put;

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
