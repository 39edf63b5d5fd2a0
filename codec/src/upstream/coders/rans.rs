//! The coder of the fast codecs: a 32-bit state over 16-bit pieces, with frequencies that are stored as they are.

use super::{Counts, Stream};
use crate::error::{Error, Result};
use crate::wire::Reader;

/// The state is at least this while pieces are left.
const LOWEST: u32 = 1 << 16;

/// Which symbol each of the slots stands for, whose number is a power of two.
pub(in crate::upstream) struct Table {
    slots: Vec<Slot>,
    log2_total: u32,
}

#[derive(Clone, Copy, Default)]
struct Slot {
    symbol: u16,
    frequency: u16,
    /// Where the slot is among those of its symbol.
    rank: u16,
}

impl Table {
    /// The table of frequencies that add up to two to the power of `log2_total`, which is at most 15.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) when they add up to something else.
    pub(in crate::upstream) fn new(frequencies: &Counts, log2_total: u32) -> Result<Table> {
        frequencies.check_total(1 << log2_total)?;
        let mut slots = Vec::with_capacity(1 << log2_total);
        for (symbol, &frequency) in frequencies.counts.iter().enumerate() {
            let slot = |rank| Slot { symbol: symbol as u16, frequency: frequency as u16, rank: rank as u16 };
            slots.extend((0..frequency).map(slot));
        }
        Ok(Table { slots, log2_total })
    }
}

/// A stream that is being decoded.
#[derive(Clone)]
pub(in crate::upstream) struct RansStream<'a> {
    pieces: &'a [[u8; 2]],
    state: u32,
}

impl<'a> RansStream<'a> {
    /// A stream of which the initial state is at hand.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) when the pieces are not whole.
    pub(in crate::upstream) fn with_state(state: u32, pieces: &'a [u8]) -> Result<RansStream<'a>> {
        match pieces.as_chunks() {
            (pieces, []) => Ok(RansStream { pieces, state }),
            _ => Err(Error::corrupt(format!("a coded stream of {} bytes is not made of 16-bit pieces", pieces.len()))),
        }
    }
}

impl<'a> Stream<'a> for RansStream<'a> {
    type Table = Table;

    fn table(counts: &Counts, _: usize, log2_total: u32) -> Result<Box<Table>> {
        Table::new(counts, log2_total).map(Box::new)
    }

    /// The initial state comes first.
    fn new(code: &'a [u8]) -> Result<RansStream<'a>> {
        let mut reader = Reader::new(code);
        let state = reader.u32()?;
        RansStream::with_state(state, reader.take(reader.remaining())?)
    }

    #[inline(always)]
    fn next(&mut self, table: &Table) -> u16 {
        let slot = table.slots[(self.state & ((1 << table.log2_total) - 1)) as usize];
        // The frequency is at most the total, so that this does not overflow.
        self.state = u32::from(slot.frequency) * (self.state >> table.log2_total) + u32::from(slot.rank);
        if self.state < LOWEST
            && let Some((piece, rest)) = self.pieces.split_first()
        {
            self.state = self.state << 16 | u32::from(u16::from_le_bytes(*piece));
            self.pieces = rest;
        }
        slot.symbol
    }

    fn finish(self) -> Result<()> {
        match self.pieces {
            [] => Ok(()),
            _ => Err(Error::corrupt("a coded stream is longer than its symbols need")),
        }
    }
}
