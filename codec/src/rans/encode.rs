//! The rANS encoder.

use super::table::{MAX_SYMBOLS, Table};
use super::{CARRIED_PER_STREAM, FREQUENCY_BITS, LANES, MAX_STREAMS, STATE_MIN, Symbol, TOTAL};
use crate::wire::Put;

/// A [`Table`] made ready to encode: from a symbol and a rank to the slot.
#[derive(Clone, Debug)]
pub(crate) struct Encoder {
    frequency: [u32; MAX_SYMBOLS],
    /// Where the slots of a symbol begin in `slots`.
    first: [u32; MAX_SYMBOLS],
    slots: Box<[u16; TOTAL as usize]>,
}

impl Encoder {
    pub(crate) fn new(table: &Table) -> Encoder {
        let (mut frequency, mut first) = ([0; MAX_SYMBOLS], [0; MAX_SYMBOLS]);
        let mut sum = 0;
        for (symbol, &f) in table.frequencies().iter().enumerate() {
            frequency[symbol] = u32::from(f);
            first[symbol] = sum;
            sum += u32::from(f);
        }
        let alias = table.alias();
        let mut slots = Box::new([0; TOTAL as usize]);
        for slot in 0..TOTAL as u16 {
            let (symbol, rank) = alias.look_up(slot);
            slots[first[usize::from(symbol)] as usize + usize::from(rank)] = slot;
        }
        Encoder { frequency, first, slots }
    }

    /// Appends a block to `out`: the number of words of each stream, the states of all lanes of all streams, the words
    /// of all streams.
    ///
    /// `symbols` are whole groups, each symbol one of the table's; `streams` is 1 to [`MAX_STREAMS`]; the states carry
    /// `carried`, at most [`CARRIED_PER_STREAM`] bytes for each stream.
    pub(crate) fn encode(&self, symbols: &[Symbol], streams: usize, carried: &[u8], out: &mut Vec<u8>) {
        assert!(symbols.len().is_multiple_of(LANES) && (1..=MAX_STREAMS).contains(&streams));
        assert!(carried.len() <= streams * CARRIED_PER_STREAM);
        let mut states = [[STATE_MIN; LANES]; MAX_STREAMS];
        for (state, bytes) in states.as_flattened_mut().iter_mut().zip(carried.chunks(2)) {
            *state |= u32::from(bytes[0]) | bytes.get(1).map_or(0, |&high| u32::from(high) << 8);
        }
        // Each stream's words in the reverse order, since rANS is last in, first out.
        let mut words: [Vec<u16>; MAX_STREAMS] = std::array::from_fn(|_| Vec::new());
        for (group, symbols) in symbols.chunks_exact(LANES).enumerate().rev() {
            let stream = group % streams;
            let (states, words) = (&mut states[stream], &mut words[stream]);
            for (state, &symbol) in states.iter_mut().zip(symbols).rev() {
                let frequency = self.frequency[usize::from(symbol)];
                // Above this the next state would not fit in 32 bits.
                if *state >> (32 - FREQUENCY_BITS) >= frequency {
                    words.push(*state as u16);
                    *state >>= 16;
                }
                let (high, rank) = (*state / frequency, *state % frequency);
                let slot = self.slots[(self.first[usize::from(symbol)] + rank) as usize];
                *state = (high << FREQUENCY_BITS) | u32::from(slot);
            }
        }
        for words in &words[..streams] {
            out.put_u32(words.len() as u32);
        }
        for state in states[..streams].as_flattened() {
            out.put_u32(*state);
        }
        for words in &words[..streams] {
            out.extend(words.iter().rev().flat_map(|word| word.to_le_bytes()));
        }
    }
}
