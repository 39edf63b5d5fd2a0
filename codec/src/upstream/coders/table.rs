//! The table of symbols and counts that stands before every coded stream.

use crate::error::{Error, Result};
use crate::wire::Reader;

/// How wide a number is on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::upstream) enum Width {
    /// One byte.
    U8,
    /// Two bytes.
    U16,
}

impl Width {
    /// The next number of this width.
    pub(in crate::upstream) fn read(self, reader: &mut Reader<'_>) -> Result<u16> {
        match self {
            Width::U8 => reader.u8().map(u16::from),
            Width::U16 => reader.u16(),
        }
    }

    /// The next `count` numbers of this width, which must ascend and be below `limit`.
    pub(in crate::upstream) fn read_ascending(
        self,
        reader: &mut Reader<'_>,
        count: usize,
        limit: usize,
    ) -> Result<Vec<u16>> {
        if count > limit {
            return Err(Error::corrupt(format!("{count} different symbols of an alphabet of {limit}")));
        }
        let numbers = (0..count).map(|_| self.read(reader)).collect::<Result<Vec<u16>>>()?;
        if !numbers.is_sorted_by(|a, b| a < b) {
            return Err(Error::corrupt("the symbols of a table do not ascend"));
        }
        match numbers.last() {
            Some(&last) if usize::from(last) >= limit => {
                Err(Error::corrupt(format!("symbol {last} of an alphabet of {limit}")))
            }
            _ => Ok(numbers),
        }
    }
}

/// How often each symbol of an alphabet occurs, or how frequent it is taken to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::upstream) struct Counts {
    /// One for each symbol of the alphabet; 0 where it does not occur.
    pub(super) counts: Vec<u32>,
}

impl Counts {
    /// A table: the number of symbols (`count`), so many symbols (`symbol`), so many counts of 32 bits.
    pub(in crate::upstream) fn read(
        reader: &mut Reader<'_>,
        alphabet: usize,
        count: Width,
        symbol: Width,
    ) -> Result<Counts> {
        let count = usize::from(count.read(reader)?);
        let symbols = symbol.read_ascending(reader, count, alphabet)?;
        let counts = symbols.iter().map(|_| reader.u32()).collect::<Result<Vec<u32>>>()?;
        Counts::new(alphabet, &symbols, counts.into_iter().map(u64::from))
    }

    /// The counts of ascending `symbols` below `alphabet`.
    pub(in crate::upstream) fn new(
        alphabet: usize,
        symbols: &[u16],
        counts: impl Iterator<Item = u64>,
    ) -> Result<Counts> {
        let mut all = vec![0; alphabet];
        for (&symbol, count) in symbols.iter().zip(counts) {
            all[usize::from(symbol)] = match u32::try_from(count) {
                Ok(count @ 1..) => count,
                _ => return Err(Error::corrupt(format!("symbol {symbol} is said to occur {count} times"))),
            };
        }
        Ok(Counts { counts: all })
    }

    /// The sum of all counts.
    pub(in crate::upstream) fn total(&self) -> u64 {
        self.counts.iter().map(|&count| u64::from(count)).sum()
    }

    /// Fails unless the counts are those of `symbols` symbols.
    pub(in crate::upstream) fn check_total(&self, symbols: usize) -> Result<()> {
        match self.total() {
            total if total == symbols as u64 => Ok(()),
            total => Err(Error::corrupt(format!("a table counts {total} symbols where there are {symbols}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Put;

    fn read(alphabet: usize, symbols: &[u16], counts: &[u32]) -> Result<Counts> {
        let mut wire = Vec::new();
        wire.put_u16(symbols.len() as u16);
        symbols.iter().for_each(|&symbol| wire.put_u16(symbol));
        counts.iter().for_each(|&count| wire.put_u32(count));
        Counts::read(&mut Reader::new(&wire), alphabet, Width::U16, Width::U16)
    }

    #[test]
    fn a_table_is_spread_over_its_alphabet() {
        assert_eq!(read(5, &[1, 4], &[7, 9]).unwrap().counts, [0, 7, 0, 0, 9]);
        assert_eq!(read(5, &[], &[]).unwrap().total(), 0);
    }

    #[test]
    fn nonsense_is_refused() {
        let refused = |symbols: &[u16], counts: &[u32], why: &str| {
            let error = read(4, symbols, counts).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        };
        refused(&[0, 1, 2, 3, 4], &[1; 5], "5 different symbols");
        refused(&[0, 4], &[1; 2], "symbol 4");
        refused(&[1, 0], &[1; 2], "ascend");
        refused(&[1, 1], &[1; 2], "ascend");
        refused(&[1, 2], &[1, 0], "occur 0 times");
        refused(&[1, 2], &[1], "bytes expected");
    }
}
