//! The definition of rANS decoding, one lane after the other.

use super::slots::Slots;
use super::{Block, stream_error};
use crate::error::Result;
use crate::rans::table::Table;
use crate::rans::{FREQUENCY_BITS, LANES, STATE_MIN, Symbol};

/// A [`Table`] made ready to decode.
#[derive(Clone, Debug)]
pub(crate) struct Decoder {
    slots: Slots,
}

impl Decoder {
    pub(crate) fn new(table: &Table) -> Decoder {
        Decoder { slots: Slots::new(table) }
    }

    /// Decodes the symbols of groups, the first of which is number `first` of its block; `symbols` is whole groups.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) when the words of a stream end before its symbols do.
    pub(crate) fn decode(&self, block: &mut Block<'_>, first: usize, symbols: &mut [Symbol]) -> Result<()> {
        assert!(symbols.len().is_multiple_of(LANES));
        for (group, symbols) in (first..).zip(symbols.chunks_exact_mut(LANES)) {
            let stream = group % block.streams;
            // A damaged stream of which other decoders took too much may end before it begins.
            let mut words = block.words.get(block.next[stream]..block.ends[stream]).ok_or_else(stream_error)?;
            for (state, symbol) in block.states[stream].iter_mut().zip(symbols) {
                let slot = self.slots.look_up(*state);
                *symbol = slot.symbol();
                *state = slot.frequency() * (*state >> FREQUENCY_BITS) + slot.rank();
                if *state < STATE_MIN {
                    let (word, rest) = words.split_first_chunk().ok_or_else(stream_error)?;
                    words = rest;
                    *state = *state << 16 | u32::from(u16::from_le_bytes(*word));
                }
            }
            block.next[stream] = block.ends[stream] - words.len();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rans::encode::Encoder;
    use crate::rans::table::tests::counts;
    use crate::rans::{CARRIED_PER_STREAM, TOTAL};
    use crate::simd::Level;
    use crate::wire::Reader;
    use proptest::prelude::*;

    /// A table and whole groups of its symbols, some as likely as the table says and some not.
    fn symbols() -> impl Strategy<Value = (Table, Vec<Symbol>, usize)> {
        (counts(), 0..40usize, any::<u64>(), 1..=4usize).prop_filter_map(
            "an empty table",
            |(counts, groups, seed, streams)| {
                let table = Table::fit(&counts)?;
                let cumulated: Vec<u16> = table
                    .frequencies()
                    .iter()
                    .scan(0, |sum, f| {
                        *sum += f;
                        Some(*sum)
                    })
                    .collect();
                let mut random = seed | 1;
                let symbols = (0..groups * LANES).map(|_| {
                    random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    let slot = (random >> 40) as u16 % TOTAL as u16;
                    cumulated.partition_point(|&sum| sum <= slot) as Symbol
                });
                Some((table.clone(), symbols.collect(), streams))
            },
        )
    }

    fn encode(table: &Table, symbols: &[Symbol], streams: usize, carried: &[u8], out: &mut Vec<u8>) {
        let encoder = Encoder::new(table);
        Encoder::encode(Level::Scalar, &[(&encoder, symbols.len())], symbols, streams, carried, &mut Vec::new(), out);
    }

    proptest! {
        #[test]
        fn symbols_and_carried_bytes_come_back((table, symbols, streams) in symbols(), carried: Vec<u8>) {
            let mut coded = Vec::new();
            let carried = &carried[..carried.len().min(streams * CARRIED_PER_STREAM)];
            encode(&table, &symbols, streams, carried, &mut coded);
            let mut reader = Reader::new(&coded);
            let mut block = Block::read(&mut reader, streams).unwrap();
            reader.finish().unwrap();
            let mut decoded = vec![0; symbols.len()];
            Decoder::new(&table).decode(&mut block, 0, &mut decoded).unwrap();
            let came_back = block.finish().unwrap();
            prop_assert_eq!(decoded, symbols);
            prop_assert_eq!(&came_back[..carried.len()], carried);
            prop_assert!(came_back[carried.len()..].iter().all(|&byte| byte == 0));
        }

        #[test]
        fn damage_is_an_error_or_other_symbols_but_no_panic(
            (table, symbols, streams) in symbols(), at: prop::sample::Index, bit in 0..8u32, cut: prop::sample::Index,
        ) {
            let mut coded = Vec::new();
            encode(&table, &symbols, streams, &[], &mut coded);
            let at = at.index(coded.len());
            coded[at] ^= 1u8 << bit;
            for coded in [&coded[..], &coded[..cut.index(coded.len())]] {
                if let Ok(mut block) = Block::read(&mut Reader::new(coded), streams) {
                    let mut decoded = vec![0; symbols.len()];
                    let _ = Decoder::new(&table).decode(&mut block, 0, &mut decoded);
                    prop_assert!(decoded.iter().all(|&s| usize::from(s) < table.keys().len()));
                }
            }
        }
    }

    #[test]
    fn the_size_is_near_the_entropy() {
        let counts: Vec<u64> = (0..40).map(|k| 1000 >> (k / 4)).collect();
        let table = Table::fit(&counts).unwrap();
        let symbols: Vec<Symbol> =
            table.frequencies().iter().enumerate().flat_map(|(s, &f)| vec![s as Symbol; usize::from(f) * 8]).collect();
        let exact: f64 =
            table.frequencies().iter().map(|&f| f64::from(f) * 8.0 * (12.0 - f64::from(f).log2()) / 8.0).sum();
        let mut coded = Vec::new();
        encode(&table, &symbols, 1, &[], &mut coded);
        let overhead = coded.len() as f64 - exact;
        assert!((0.0..160.0).contains(&overhead), "{} bytes for {exact:.0}", coded.len());
    }

    #[test]
    fn too_many_or_too_few_words_are_refused() {
        let table = Table::fit(&[1, 2, 3]).unwrap();
        let symbols = vec![0; 64 * LANES];
        let mut coded = Vec::new();
        encode(&table, &symbols, 1, &[], &mut coded);
        let block = Block::read(&mut Reader::new(&coded), 1).unwrap();
        let decoder = Decoder::new(&table);
        let decode = |groups| {
            let mut block = block.clone();
            decoder.decode(&mut block, 0, &mut vec![0; groups * LANES]).and_then(|()| block.finish())
        };
        decode(64).unwrap();
        decode(65).unwrap_err();
        decode(63).unwrap_err();
    }
}
