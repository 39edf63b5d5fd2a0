//! The rANS encoder: [`scalar`] is the definition, the others do the same in vectors.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod inverse;
mod scalar;

pub(crate) use scalar::Coding;

use super::table::{MAX_SYMBOLS, Table};
use super::{CARRIED_PER_STREAM, LANES, MAX_STREAMS, STATE_MIN, Symbol, TOTAL};
use crate::simd::Level;
use crate::wire::Put;

/// A [`Table`] made ready to encode: from a symbol and a rank to the slot. Symbols that the table lacks have frequency 0.
#[derive(Clone, Debug)]
pub(crate) struct Encoder {
    codings: [scalar::Coding; MAX_SYMBOLS],
    /// For each symbol where its slots begin, in the lower 16 bits, and its frequency in the upper ones.
    #[cfg(target_arch = "x86_64")]
    packed_codings: [u32; MAX_SYMBOLS],
    /// See [`inverse::inverse`].
    #[cfg(target_arch = "x86_64")]
    inverses: [f32; MAX_SYMBOLS],
    /// The slots of symbol 0 by rank, then those of symbol 1, and so on, and one more that means nothing.
    slots: Box<[u16; TOTAL as usize + 1]>,
}

/// The state of each lane of each stream.
type States = [[u32; LANES]; MAX_STREAMS];

impl Encoder {
    pub(crate) fn new(table: &Table) -> Encoder {
        let (mut frequency, mut first) = ([0; MAX_SYMBOLS], [0; MAX_SYMBOLS]);
        let mut sum = 0;
        for (symbol, &f) in table.frequencies().iter().enumerate() {
            frequency[symbol] = f;
            first[symbol] = sum;
            sum += f;
        }
        let alias = table.alias();
        let mut slots = Box::new([0; TOTAL as usize + 1]);
        for slot in 0..TOTAL as u16 {
            let (symbol, rank) = alias.look_up(slot);
            slots[usize::from(first[usize::from(symbol)] + rank)] = slot;
        }
        Encoder {
            codings: std::array::from_fn(|symbol| scalar::Coding::new(frequency[symbol], first[symbol])),
            #[cfg(target_arch = "x86_64")]
            packed_codings: std::array::from_fn(|at| u32::from(first[at]) | u32::from(frequency[at]) << 16),
            #[cfg(target_arch = "x86_64")]
            inverses: frequency.map(inverse::inverse),
            slots,
        }
    }

    /// Appends a block to `out`: the number of words of each stream, the states of all lanes of all streams, the words
    /// of all streams.
    ///
    /// `symbols` are whole groups in *spans*, each with its encoder and its length in symbols, each symbol one of that table's;
    /// a span but the last is as many groups for each stream. `streams` is 1 to [`MAX_STREAMS`]; the states carry
    /// `carried`, at most [`CARRIED_PER_STREAM`] bytes for each stream. `words` is memory to work in.
    pub(crate) fn encode(
        level: Level,
        spans: &[(&Encoder, usize)],
        symbols: &[Symbol],
        streams: usize,
        carried: &[u8],
        words: &mut Vec<u16>,
        out: &mut Vec<u8>,
    ) {
        assert!(symbols.len().is_multiple_of(LANES) && (1..=MAX_STREAMS).contains(&streams));
        assert!(carried.len() <= streams * CARRIED_PER_STREAM);
        let mut states = [[STATE_MIN; LANES]; MAX_STREAMS];
        for (state, bytes) in states.as_flattened_mut().iter_mut().zip(carried.chunks(2)) {
            *state |= u32::from(bytes[0]) | bytes.get(1).map_or(0, |&high| u32::from(high) << 8);
        }
        // A symbol emits a word at most.
        let most = (symbols.len() / LANES).div_ceil(streams) * LANES;
        words.resize(most * streams, 0);
        let mut begins = [most; MAX_STREAMS];
        let mut end = spans.iter().map(|span| span.1).sum();
        assert_eq!(end, symbols.len());
        // rANS is last in, first out.
        for &(encoder, len) in spans.iter().rev() {
            let symbols = &symbols[end - len..end];
            end -= len;
            assert!(end.is_multiple_of(streams * LANES), "a span begins with a group of the first stream");
            match level {
                #[cfg(target_arch = "x86_64")]
                Level::Avx512 | Level::Avx512Vbmi2 => {
                    // SAFETY: a level is only given where the processor has what it stands for.
                    unsafe { avx512::encode(encoder, symbols, streams, &mut states, words, &mut begins) }
                }
                #[cfg(target_arch = "x86_64")]
                // SAFETY: as above.
                Level::Avx2 => unsafe { avx2::encode(encoder, symbols, streams, &mut states, words, &mut begins) },
                _ => scalar::encode(encoder, symbols, streams, &mut states, words, &mut begins),
            }
        }
        let words = (0..streams).map(|stream| &words[stream * most + begins[stream]..(stream + 1) * most]);
        for words in words.clone() {
            out.put_u32(words.len() as u32);
        }
        for state in states[..streams].as_flattened() {
            out.put_u32(*state);
        }
        for words in words {
            let begin = out.len();
            out.resize(begin + size_of_val(words), 0);
            for (bytes, word) in out[begin..].as_chunks_mut().0.iter_mut().zip(words) {
                *bytes = word.to_le_bytes();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rans::table::tests::counts;
    use proptest::prelude::*;

    proptest! {
        /// The scalar encoder is held to the decoder in `decode::scalar`, the others to the scalar one.
        #[test]
        fn every_level_writes_the_same(
            counts in counts(), at in prop::collection::vec(any::<prop::sample::Index>(), 0..60 * LANES), likely: bool,
            streams in 1..=MAX_STREAMS, carried: Vec<u8>,
        ) {
            let Some(table) = Table::fit(&counts) else { return Ok(()) };
            // Symbols as frequent as the table says, or all equally.
            let slots = if likely { TOTAL as usize } else { table.keys().len() };
            let symbol = |at: prop::sample::Index| {
                if likely { table.alias().look_up(at.index(slots) as u16).0 } else { at.index(slots) as Symbol }
            };
            let mut symbols: Vec<Symbol> = at.into_iter().map(symbol).collect();
            symbols.truncate(symbols.len() / LANES * LANES);
            let carried = &carried[..carried.len().min(streams * CARRIED_PER_STREAM)];
            let encoder = Encoder::new(&table);
            let encode = |level| {
                // Behind what is there already, with words left by another block.
                let (mut words, mut out) = (vec![0xaaaa; 100], vec![1, 2, 3]);
                Encoder::encode(level, &[(&encoder, symbols.len())], &symbols, streams, carried, &mut words, &mut out);
                out
            };
            for level in Level::available() {
                prop_assert_eq!(encode(level), encode(Level::Scalar), "{:?}", level);
            }
        }
    }
}
