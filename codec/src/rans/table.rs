//! The distribution of a symbol alphabet, and the alias-method layout of its slots.
//!
//! A rANS decoder turns a *slot* (the low 12 bits of a state) into a symbol and its *rank* among the symbol's slots.
//! Here the slots are laid out by the alias method (A. J. Walker 1977, M. D. Vose 1991): 64 buckets of 64 slots, each
//! shared by at most two symbols, its own and an alias. A decoder then needs five tables of 64 entries, which fit in
//! vector registers, in place of one of 4096 in memory.

use std::cmp::Ordering;

use super::{FREQUENCY_BITS, Symbol, TOTAL};
use crate::error::{Error, Result};
use crate::wire::{Put, Reader};

/// The largest alphabet, and the number of buckets.
pub(crate) const MAX_SYMBOLS: usize = 64;

/// Slots of a bucket.
const BUCKET_SLOTS: u16 = (TOTAL as usize / MAX_SYMBOLS) as u16;

/// A rarer key than one in so many is left to the patch list: keeping it in the table would cost all others more
/// (1 of 4096 slots, 3.5e-4 bits each) than a patch costs it (about 24 bits more than a symbol of frequency 1).
const WORTH_A_SLOT: u64 = 65_536;

/// An alphabet of 1 to 64 keys with their frequencies.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Table {
    /// The keys in ascending order; a [`Symbol`] is a position in here.
    keys: Vec<u16>,
    /// The frequency of each, at least 1, adding up to [`TOTAL`].
    frequencies: Vec<u16>,
}

impl Table {
    /// The table that codes keys distributed as `counts` (indexed by key) in the fewest bits, the cost of patches
    /// included; `None` when all counts are zero.
    pub(crate) fn fit(counts: &[u64]) -> Option<Table> {
        let total: u64 = counts.iter().sum();
        let mut kept: Vec<(u64, u16)> = counts
            .iter()
            .enumerate()
            .filter(|(_, count)| **count > 0)
            .map(|(key, &count)| (count, key as u16))
            .collect();
        // The most frequent first; equal counts by key, so that the result does not depend on the sort.
        kept.sort_unstable_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
        kept.truncate(MAX_SYMBOLS);
        while kept.len() > 1 && kept[kept.len() - 1].0.saturating_mul(WORTH_A_SLOT) < total {
            kept.pop();
        }
        if kept.is_empty() {
            return None;
        }
        kept.sort_unstable_by_key(|&(_, key)| key);
        let counts: Vec<u64> = kept.iter().map(|&(count, _)| count).collect();
        let keys = kept.iter().map(|&(_, key)| key).collect();
        Some(Table { keys, frequencies: normalise(&counts) })
    }

    /// The same with a second symbol, one that does not occur, if it has but one: vectorised decoders know no frequency of all slots.
    pub(crate) fn with_two_symbols(self) -> Table {
        match self.keys[..] {
            [0] => Table { keys: vec![0, 1], frequencies: vec![TOTAL as u16 - 1, 1] },
            [key] => Table { keys: vec![key - 1, key], frequencies: vec![1, TOTAL as u16 - 1] },
            _ => self,
        }
    }

    /// The keys in ascending order.
    pub(crate) fn keys(&self) -> &[u16] {
        &self.keys
    }

    /// The frequency of each key.
    pub(crate) fn frequencies(&self) -> &[u16] {
        &self.frequencies
    }

    /// The most frequent symbol, the first of several: what stands in for a key outside the table.
    pub(crate) fn stand_in(&self) -> Symbol {
        let most = self.frequencies.iter().max().expect("a table is never empty");
        self.frequencies.iter().position(|f| f == most).expect("it is the largest of them") as Symbol
    }

    /// The bits that the symbols of keys distributed as `counts` take, and how many keys are outside the table. Keys
    /// outside count with the bits of their stand-in.
    pub(crate) fn cost(&self, counts: &[u64]) -> (f64, u64) {
        let mut outside: u64 = counts.iter().sum();
        let mut bits = 0.0;
        for (&key, &frequency) in self.keys.iter().zip(&self.frequencies) {
            let count = counts.get(usize::from(key)).copied().unwrap_or(0);
            outside -= count;
            bits += count as f64 * bits_of(frequency);
        }
        bits += outside as f64 * bits_of(self.frequencies[usize::from(self.stand_in())]);
        (bits, outside)
    }

    /// Appends the table: the number of symbols, then for each the distance of its key to the one before and its
    /// frequency.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.put_varint(self.keys.len() as u64);
        let mut previous = 0;
        for (&key, &frequency) in self.keys.iter().zip(&self.frequencies) {
            out.put_varint(u64::from(key - previous));
            out.put_varint(u64::from(frequency));
            previous = key;
        }
    }

    /// Reads what [`write`](Table::write) wrote.
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Table> {
        let symbols = reader.varint_up_to(MAX_SYMBOLS as u64)? as usize;
        let (mut keys, mut frequencies) = (Vec::with_capacity(symbols), Vec::with_capacity(symbols));
        let mut key = 0;
        for symbol in 0..symbols {
            let step = reader.varint_up_to(u64::from(u16::MAX))?;
            if symbol > 0 && step == 0 {
                return Err(Error::corrupt("a frequency table names a key twice"));
            }
            key += step;
            keys.push(u16::try_from(key).map_err(|_| Error::corrupt("a key of a frequency table is above 65535"))?);
            frequencies.push(reader.varint_up_to(u64::from(TOTAL))? as u16);
        }
        let total: u32 = frequencies.iter().map(|&f| u32::from(f)).sum();
        if total != TOTAL || frequencies.contains(&0) {
            return Err(Error::corrupt(format!(
                "the frequencies of a table add up to {total}, not {TOTAL}, or one is 0"
            )));
        }
        Ok(Table { keys, frequencies })
    }

    /// The alias-method layout of the slots.
    pub(crate) fn alias(&self) -> Alias {
        let mut left = [0u16; MAX_SYMBOLS];
        left[..self.frequencies.len()].copy_from_slice(&self.frequencies);
        let mut alias = Alias {
            threshold: [BUCKET_SLOTS; MAX_SYMBOLS],
            other: std::array::from_fn(|b| b as Symbol),
            adjust: [0; MAX_SYMBOLS],
        };
        let (mut small, mut large): (Vec<usize>, Vec<usize>) = (0..MAX_SYMBOLS).partition(|&s| left[s] < BUCKET_SLOTS);
        while let Some(bucket) = small.pop() {
            let donor = *large.last().expect("what small buckets lack, large ones have");
            alias.threshold[bucket] = left[bucket];
            alias.other[bucket] = donor as Symbol;
            left[donor] -= BUCKET_SLOTS - left[bucket];
            if left[donor] < BUCKET_SLOTS {
                large.pop();
                small.push(donor);
            }
        }
        // A symbol's ranks begin in its own bucket and go on through the buckets that it is the alias of, in order.
        let mut next_rank = alias.threshold;
        for bucket in 0..MAX_SYMBOLS {
            let other = usize::from(alias.other[bucket]);
            if other != bucket {
                alias.adjust[bucket] = next_rank[other].wrapping_sub(alias.threshold[bucket]);
                next_rank[other] += BUCKET_SLOTS - alias.threshold[bucket];
            }
        }
        alias
    }
}

/// How the 64 buckets of 64 slots are shared.
///
/// Slot `s` lies in bucket `s >> 6` at offset `s & 63`. Below the bucket's threshold it belongs to the symbol with the
/// bucket's number, and its rank is the offset; else to the other symbol, and its rank is the offset plus the
/// adjustment (modulo 2^16).
#[derive(Clone, Debug)]
pub(crate) struct Alias {
    pub(crate) threshold: [u16; MAX_SYMBOLS],
    pub(crate) other: [Symbol; MAX_SYMBOLS],
    pub(crate) adjust: [u16; MAX_SYMBOLS],
}

impl Alias {
    /// The symbol that `slot` belongs to and its rank among that symbol's slots.
    pub(crate) fn look_up(&self, slot: u16) -> (Symbol, u16) {
        let (bucket, offset) = (usize::from(slot / BUCKET_SLOTS), slot % BUCKET_SLOTS);
        if offset < self.threshold[bucket] {
            (bucket as Symbol, offset)
        } else {
            (self.other[bucket], offset.wrapping_add(self.adjust[bucket]))
        }
    }
}

/// The bits of a symbol of the given frequency.
fn bits_of(frequency: u16) -> f64 {
    f64::from(FREQUENCY_BITS) - f64::from(frequency).log2()
}

/// Frequencies for `counts` (at most 64, none zero): at least 1 each, adding up to [`TOTAL`], close to the fewest bits.
fn normalise(counts: &[u64]) -> Vec<u16> {
    let sum: u128 = counts.iter().map(|&c| u128::from(c)).sum();
    let mut frequencies: Vec<u16> =
        counts.iter().map(|&c| ((u128::from(c) * u128::from(TOTAL) + sum / 2) / sum).max(1) as u16).collect();
    loop {
        let total: u32 = frequencies.iter().map(|&f| u32::from(f)).sum();
        // What one slot more (or less) is worth to a symbol, in bits over all its occurrences. The one that gains
        // most gets it, the one that loses least gives it; the first of several, so that the result is unique.
        let worth =
            |symbol: usize, from: u16, to: u16| counts[symbol] as f64 * (f64::from(to) / f64::from(from)).log2();
        let best = |from: u16, change: i16, frequencies: &[u16]| {
            (0..frequencies.len())
                .filter(|&s| frequencies[s] >= from)
                .map(|s| (worth(s, frequencies[s], frequencies[s].wrapping_add_signed(change)), s))
                .reduce(|a, b| if b.0 > a.0 { b } else { a })
                .map(|(_, s)| s)
                .expect("some symbol has slots to give")
        };
        let (from, change) = match total.cmp(&TOTAL) {
            Ordering::Equal => return frequencies,
            Ordering::Less => (1, 1),
            Ordering::Greater => (2, -1),
        };
        let symbol = best(from, change, &frequencies);
        frequencies[symbol] = frequencies[symbol].wrapping_add_signed(change);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Counts of up to 200 keys, skewed as real ones are.
    pub(crate) fn counts() -> impl Strategy<Value = Vec<u64>> {
        prop::collection::vec(prop_oneof![Just(0), 1..4u64, 1..5000u64, 1..1_000_000_000u64], 1..200)
    }

    fn check(table: &Table) {
        let total: u32 = table.frequencies.iter().map(|&f| u32::from(f)).sum();
        assert_eq!(total, TOTAL);
        let alias = table.alias();
        let mut seen: Vec<Vec<bool>> = table.frequencies.iter().map(|&f| vec![false; usize::from(f)]).collect();
        for slot in 0..TOTAL as u16 {
            let (symbol, rank) = alias.look_up(slot);
            let seen = &mut seen[usize::from(symbol)][usize::from(rank)];
            assert!(!*seen, "slot {slot} repeats rank {rank} of symbol {symbol}");
            *seen = true;
        }
        let mut wire = Vec::new();
        table.write(&mut wire);
        let mut reader = Reader::new(&wire);
        assert_eq!(&Table::read(&mut reader).unwrap(), table);
        reader.finish().unwrap();
    }

    proptest! {
        #[test]
        fn every_slot_has_one_symbol_and_rank(counts in counts()) {
            if let Some(table) = Table::fit(&counts) {
                check(&table);
            } else {
                prop_assert!(counts.iter().all(|&c| c == 0));
            }
        }

        #[test]
        fn reading_never_panics(bytes: Vec<u8>) {
            if let Ok(table) = Table::read(&mut Reader::new(&bytes)) {
                check(&table);
            }
        }
    }

    #[test]
    fn extreme_distributions() {
        check(&Table::fit(&[7]).unwrap());
        check(&Table::fit(&[1; 64]).unwrap());
        check(&Table::fit(&[u64::MAX / 128; 64]).unwrap());
        let mut skewed = [1u64; 64];
        skewed[63] = 4000;
        check(&Table::fit(&skewed).unwrap());
        assert!(Table::fit(&[0; 10]).is_none());
    }

    #[test]
    fn a_second_symbol_is_added_where_there_is_one() {
        let of = |counts: &[u64]| Table::fit(counts).unwrap().with_two_symbols();
        assert_eq!(of(&[7]), Table { keys: vec![0, 1], frequencies: vec![4095, 1] });
        assert_eq!(of(&[0, 0, 7]), Table { keys: vec![1, 2], frequencies: vec![1, 4095] });
        assert_eq!(of(&[1, 1]), Table::fit(&[1, 1]).unwrap());
    }

    #[test]
    fn rare_keys_are_left_out() {
        let table = Table::fit(&[10_000_000, 1, 10_000_000]).unwrap();
        assert_eq!(table.keys(), [0, 2]);
        assert_eq!(table.cost(&[0, 5, 0]).1, 5);
    }

    #[test]
    fn forged_tables_are_refused() {
        let forged = |symbols: &[(u64, u64)]| {
            let mut wire = Vec::new();
            wire.put_varint(symbols.len() as u64);
            for &(step, frequency) in symbols {
                wire.put_varint(step);
                wire.put_varint(frequency);
            }
            Table::read(&mut Reader::new(&wire))
        };
        assert!(forged(&[(3, 4096)]).is_ok());
        assert!(forged(&[]).is_err(), "no symbols");
        assert!(forged(&[(0, 4095)]).is_err(), "too little");
        assert!(forged(&[(0, 4096), (1, 1)]).is_err(), "too much");
        assert!(forged(&[(0, 4096), (1, 0)]).is_err(), "a zero");
        assert!(forged(&[(0, 4095), (0, 1)]).is_err(), "a key twice");
        assert!(forged(&[(65535, 4095), (1, 1)]).is_err(), "a key too large");
        assert!(forged(&[(0, 64); 65]).is_err(), "too many");
    }
}
