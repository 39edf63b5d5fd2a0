//! The entropy coders of the Python package: three, over two kinds of tables.
//!
//! [`AnsStream`] and [`RangeStream`] read 32-bit words and need a [`Model`], which is computed from stored counts in
//! floating point. [`RansStream`] reads 16-bit pieces with frequencies that are stored as they are.
//!
//! Each symbol has to wait for the one before, so that the processor is idle most of the time. Where two streams are at
//! hand, [`decode_both`] decodes them in turn: the second costs next to nothing.

pub(super) mod ans;
pub(super) mod model;
pub(super) mod quantise;
pub(super) mod range;
pub(super) mod rans;
pub(super) mod table;

pub(super) use ans::AnsStream;
pub(super) use model::Model;
pub(super) use range::RangeStream;
pub(super) use rans::RansStream;
pub(super) use table::{Counts, Width};

use crate::error::{Error, Result};

/// A coded stream that is being decoded.
pub(super) trait Stream<'a>: Clone {
    /// Says which symbol comes next.
    type Table;

    /// The table of a stream of `symbols` symbols that occur as often as `counts` says. `log2_total` matters to
    /// [`RansStream`] alone: its frequencies add up to two to the power of that.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) when the counts are not those of so many symbols.
    fn table(counts: &Counts, symbols: usize, log2_total: u32) -> Result<Box<Self::Table>>;

    /// Begins to decode `code`.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) when it is no such stream.
    fn new(code: &'a [u8]) -> Result<Self>;

    /// The next symbol. Of a stream that is damaged or at its end, any symbol of the table.
    fn next(&mut self, table: &Self::Table) -> u16;

    /// Fails when what was decoded cannot have been what was coded.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt).
    fn finish(self) -> Result<()>;
}

/// Where a decoded symbol goes.
pub(super) trait Slot: Copy + Default {
    /// A slot with this symbol, which is below the size of the alphabet that the caller chose the type for.
    fn of(symbol: u16) -> Self;
}

impl Slot for u8 {
    #[inline(always)]
    fn of(symbol: u16) -> u8 {
        symbol as u8
    }
}

impl Slot for u16 {
    #[inline(always)]
    fn of(symbol: u16) -> u16 {
        symbol
    }
}

/// Little-endian.
impl Slot for [u8; 2] {
    #[inline(always)]
    fn of(symbol: u16) -> [u8; 2] {
        symbol.to_le_bytes()
    }
}

/// Decodes all of a stream into `out`.
// A function of its own, since registers decide how fast it is.
#[inline(never)]
pub(super) fn decode<'a, S: Stream<'a>, T: Slot>(mut stream: S, table: &S::Table, out: &mut [T]) -> Result<()> {
    out.iter_mut().for_each(|slot| *slot = T::of(stream.next(table)));
    stream.finish()
}

/// Decodes as many symbols of two streams as the slots that come with each, which are equally many.
#[inline(never)]
pub(super) fn decode_both<'a, S: Stream<'a>, A: Slot, B: Slot>(
    (one, one_table, one_out): (&mut S, &S::Table, &mut [A]),
    (other, other_table, other_out): (&mut S, &S::Table, &mut [B]),
) {
    debug_assert_eq!(one_out.len(), other_out.len());
    // Copies of their own stay in registers.
    let (mut first, mut second) = (one.clone(), other.clone());
    for (a, b) in one_out.iter_mut().zip(other_out) {
        *a = A::of(first.next(one_table));
        *b = B::of(second.next(other_table));
    }
    (*one, *other) = (first, second);
}

/// The words of a coded stream.
fn words(code: &[u8]) -> Result<&[[u8; 4]]> {
    match code.as_chunks() {
        (words, []) => Ok(words),
        _ => Err(Error::corrupt(format!("a coded stream of {} bytes is not made of 32-bit words", code.len()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use constriction::stream::model::DefaultContiguousCategoricalEntropyModel;
    use constriction::stream::queue::DefaultRangeEncoder;
    use constriction::stream::stack::DefaultAnsCoder;
    use constriction::stream::{Decode, Encode};
    use proptest::prelude::*;

    /// The model of these counts as the package has the library `constriction` make it; what is passed to it is tested beside
    /// our own.
    fn model(counts: &[u32]) -> DefaultContiguousCategoricalEntropyModel {
        let weights = quantise::weights(counts).unwrap();
        DefaultContiguousCategoricalEntropyModel::from_nonzero_fixed_point_probabilities(weights, false).unwrap()
    }

    fn bytes(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    fn decoded<'a, S: Stream<'a>>(counts: &Counts, code: &'a [u8], len: usize) -> Result<Vec<u16>> {
        let mut symbols = vec![0u16; len];
        let table = S::table(counts, len, 0)?;
        decode(S::new(code)?, &*table, &mut symbols)?;
        Ok(symbols)
    }

    /// Codes these symbols with `constriction` and decodes them with ours.
    fn check(symbols: &[u16], alphabet: usize) {
        let mut counts = vec![0; alphabet];
        symbols.iter().for_each(|&symbol| counts[usize::from(symbol)] += 1);
        let model = model(&counts);
        let counts = Counts { counts };
        let iter = || symbols.iter().map(|&symbol| usize::from(symbol));

        let mut range = DefaultRangeEncoder::new();
        range.encode_iid_symbols(iter(), &model).unwrap();
        let code = bytes(&range.into_compressed().unwrap());
        assert_eq!(decoded::<RangeStream<'_>>(&counts, &code, symbols.len()).unwrap(), symbols);

        let mut ans = DefaultAnsCoder::new();
        ans.encode_iid_symbols_reverse(iter(), &model).unwrap();
        let words = ans.into_compressed().unwrap();
        let code = bytes(&words);
        assert_eq!(decoded::<AnsStream<'_>>(&counts, &code, symbols.len()).unwrap(), symbols);
        let mut again = DefaultAnsCoder::from_compressed(words).unwrap();
        let theirs: Vec<usize> =
            again.decode_iid_symbols(symbols.len(), &model).map(|symbol| symbol.unwrap()).collect();
        assert!(theirs.into_iter().eq(iter()));
    }

    #[test]
    fn streams_of_one_symbol_and_of_a_few() {
        for symbols in [&[0][..], &[1], &[0; 5], &[1; 300], &[0, 1], &[1, 0, 0, 0, 1]] {
            check(symbols, 2);
            check(symbols, 512);
        }
        check(&[511; 100_000], 512);
    }

    proptest! {
        #[test]
        fn streams_of_constriction_are_decoded(
            symbols in prop_oneof![
                proptest::collection::vec(0..4u16, 1..2000),
                proptest::collection::vec(0..128u16, 1..2000),
                proptest::collection::vec(prop_oneof![9 => Just(3u16), 1 => 0..512u16], 1..2000),
            ],
        ) {
            check(&symbols, 512);
        }
    }
}
