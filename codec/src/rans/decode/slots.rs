//! All that a slot means, in one look-up: for decoders without registers for the tables of the alias method.

use std::hint::select_unpredictable;

use super::GROUP_WORDS_BYTES;
use crate::rans::table::{MAX_SYMBOLS, Table};
use crate::rans::{FREQUENCY_BITS, LANES, STATE_MIN, Symbol, TOTAL};

/// A [`Table`] with an entry for each slot.
#[derive(Clone, Debug)]
pub(crate) struct Slots(Box<[Slot; TOTAL as usize]>);

/// What a slot means: its symbol in bits 0..6, its rank in bits 7..19, the symbol's frequency in bits 19..32.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub(crate) struct Slot(u32);

impl Slots {
    pub(crate) fn new(table: &Table) -> Slots {
        let alias = table.alias();
        let mut slots = Box::new([Slot(0); TOTAL as usize]);
        for (number, slot) in slots.iter_mut().enumerate() {
            let (symbol, rank) = alias.look_up(number as u16);
            let frequency = u32::from(table.frequencies()[usize::from(symbol)]);
            *slot = Slot(frequency << 19 | u32::from(rank) << 7 | u32::from(symbol));
        }
        Slots(slots)
    }

    /// The slot of a state.
    #[inline(always)]
    pub(crate) fn look_up(&self, state: u32) -> Slot {
        self.0[(state % TOTAL) as usize]
    }
}

impl Slot {
    #[inline(always)]
    pub(crate) fn symbol(self) -> Symbol {
        (self.0 % MAX_SYMBOLS as u32) as Symbol
    }

    #[inline(always)]
    pub(crate) fn rank(self) -> u32 {
        self.0 >> 7 & (TOTAL - 1)
    }

    #[inline(always)]
    pub(crate) fn frequency(self) -> u32 {
        self.0 >> 19
    }
}

/// Takes a stream from one group to the next, all lanes without a branch, since whether one takes a word is close to a
/// coin's toss. `words` are those that come next, and zeros behind the last. Puts the key of each lane into `keys`, and
/// returns the bytes of words that were taken.
#[inline(always)]
pub(crate) fn step(
    slots: &Slots,
    key_of_symbol: &[u16; MAX_SYMBOLS],
    states: &mut [u32; LANES],
    words: &[u8; GROUP_WORDS_BYTES],
    keys: &mut [u16; LANES],
) -> usize {
    /// Lanes of a turn of the loop.
    const UNROLLED: usize = 8;
    let mut taken = 0;
    let turns = states.as_chunks_mut::<UNROLLED>().0.iter_mut().zip(keys.as_chunks_mut::<UNROLLED>().0);
    for (states, keys) in turns {
        for (state, key) in states.iter_mut().zip(keys) {
            let slot = slots.look_up(*state);
            *key = key_of_symbol[usize::from(slot.symbol())];
            let next = slot.frequency() * (*state >> FREQUENCY_BITS) + slot.rank();
            let at = taken & (GROUP_WORDS_BYTES - 2);
            let word = u16::from_le_bytes([words[at], words[at + 1]]);
            let takes = next < STATE_MIN;
            *state = select_unpredictable(takes, next << 16 | u32::from(word), next);
            taken += usize::from(takes) * 2;
        }
    }
    taken
}
