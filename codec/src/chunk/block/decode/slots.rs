//! Decoding keys group by group with a table of all slots, without vectors.

use super::prepared::Prepared;
use super::{Kernel, Layout, Scaled, upper_shift};
use crate::chunk::scale::QUAD;
use crate::error::Result;
use crate::rans::decode::slots::{Slots, step};
use crate::rans::decode::{Block, GROUP_WORDS_BYTES, stream_error};
use crate::rans::table::MAX_SYMBOLS;
use crate::rans::{LANES, Table};
use crate::split::Split;

/// Groups of a quad.
const GROUPS: usize = QUAD / LANES;

/// A table made ready.
#[derive(Debug)]
struct Ready {
    slots: Slots,
    /// The key of each symbol.
    keys: [u16; MAX_SYMBOLS],
}

impl Ready {
    fn new(table: &Table) -> Ready {
        let mut keys = [0; MAX_SYMBOLS];
        keys[..table.keys().len()].copy_from_slice(table.keys());
        Ready { slots: Slots::new(table), keys }
    }
}

/// What the keys of a block are decoded with.
#[derive(Debug)]
pub(super) struct SlotKernel {
    tables: Prepared<Ready>,
    split: Split,
}

impl SlotKernel {
    pub(super) fn new() -> SlotKernel {
        SlotKernel { tables: Prepared::default(), split: Split::of_bytes(0) }
    }
}

impl Kernel for SlotKernel {
    const MERGES: bool = false;

    fn prepare(&mut self, split: Split, tables: &[Table]) {
        self.split = split;
        self.tables.prepare(tables, Ready::new);
    }

    fn quads(
        &self,
        block: &mut Block<'_>,
        first: usize,
        planes: Option<(&[u8], &Layout)>,
        scaled: Option<Scaled<'_>>,
        out: &mut [u8],
    ) -> Result<()> {
        debug_assert!(planes.is_none());
        let (tables, split) = (self.tables.current(), self.split);
        let shift = upper_shift(split);
        let columns = scaled.and_then(|scaled| scaled.columns);
        let mut column =
            scaled.zip(columns).map_or(0, |(scaled, columns)| (scaled.column + first * QUAD) % columns.period());
        for (quad, out) in (first..).zip(out.chunks_exact_mut(QUAD * split.size())) {
            let (phase, offset) = scaled.map_or((0, 0), |scaled| {
                let quad = scaled.quads[quad];
                (usize::from(quad.phase), quad.offset)
            });
            let ready = &tables[phase];
            for (group, out) in out.chunks_exact_mut(LANES * split.size()).enumerate() {
                let stream = group % GROUPS % block.streams;
                let next = block.next[stream];
                let window;
                let words = match block.words[next..].first_chunk() {
                    Some(words) => words,
                    None => {
                        // Not enough words to read without care: a copy of them with zeros behind.
                        let mut copy = [0; GROUP_WORDS_BYTES];
                        copy[..block.words.len() - next].copy_from_slice(&block.words[next..]);
                        window = copy;
                        &window
                    }
                };
                let mut keys = [0; LANES];
                block.next[stream] += step(&ready.slots, &ready.keys, &mut block.states[stream], words, &mut keys);
                if block.next[stream] > block.words.len() {
                    return Err(stream_error());
                }
                let mut uppers = keys.map(|key| key << shift);
                if let Some(columns) = columns {
                    let offsets = columns.offsets()[column..].first_chunk::<LANES>().expect("there are as many more");
                    for (upper, of_column) in uppers.iter_mut().zip(offsets) {
                        *upper = upper.wrapping_add(offset).wrapping_add(*of_column) & 0x7fff;
                    }
                    column = (column + LANES) % columns.period();
                }
                match split.size() {
                    1 => {
                        let mask = if split.signed { 0x7f } else { 0xff };
                        out.iter_mut().zip(uppers).for_each(|(out, upper)| *out = upper as u8 & mask);
                    }
                    2 => {
                        out.as_chunks_mut().0.iter_mut().zip(uppers).for_each(|(out, upper)| *out = upper.to_le_bytes())
                    }
                    _ => {
                        let elements = out.as_chunks_mut().0.iter_mut().zip(uppers);
                        elements.for_each(|(out, upper)| *out = (u32::from(upper) << 16).to_le_bytes());
                    }
                }
            }
        }
        Ok(())
    }
}
